//! `cargo xtask web`: the page on which anyone plays with patterns, and runs and times the kernels in a browser, and its test. And the
//! test of the benchmark report, which the same browser shows.
//!
//! - [`mod@browser`]: a browser for the test, the machine's or a fetched one.

mod browser;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, anyhow, bail};

use crate::build;
use crate::steps::{Steps, cargo, root, succeed};

/// The browser's target.
const TARGET: &str = "wasm32-unknown-unknown";
/// The crate of the page, its library; a test and the binary of the tool that makes one file of it.
const PACKAGE: &str = "wgpu-attention-web";
const LIBRARY: &str = "wgpu_attention_web.wasm";
const TOOL: [&str; 2] = ["refusals", "web-tool"];
/// The steps of [`steps`].
pub(crate) const STEPS: [&str; 3] = ["page", "page in a browser", "report in a browser"];
/// A test and the binary of the command line, which makes the report; a record with every kind of case, and those that are kept.
const CLI: [&str; 2] = ["cli", "wgpu-attention"];
const SAMPLE: &str = "crates/bench/tests/data/bench.json";
const RESULTS: &str = "benches/results";

/// Builds the page; with `--check` tests it too; with `--check-report` tests the benchmark report instead.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["--check-report"] => report(&browser::find()?)?,
        [] | ["--check"] => {
            target().map_err(|reason| anyhow!(reason))?;
            match words[..] {
                [] => println!("{}", page()?.display()),
                _ => check(&browser::find()?)?,
            }
        }
        _ => bail!("web takes only --check or --check-report, got {arguments:?}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds the page and tests it in a browser, and the report after it.
pub(crate) fn steps(steps: &mut Steps) {
    let [build, walk, report] = STEPS;
    if let Err(reason) = target() {
        return STEPS.iter().for_each(|name| steps.not_run(name, reason.as_str()));
    }
    let page = steps.run(build, || Ok((page()?, tool()?)));
    match (browser::find(), page) {
        (Ok(browser), Some((page, tool))) => {
            steps.run(walk, || self::walk(&tool, &page, &browser));
            steps.run(report, || self::report(&browser));
        }
        (Ok(_), None) => [walk, report].iter().for_each(|name| steps.not_run(name, "there is no page")),
        (Err(error), _) => [walk, report].iter().for_each(|name| steps.not_run(name, format!("{error:#}"))),
    }
}

/// Builds the page and gives its path.
fn page() -> Result<PathBuf> {
    let folder = folder()?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    // Warnings are errors, as clippy has them for the rest: here, of what only a browser compiles.
    let mut cargo = cargo();
    cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", "-D warnings");
    succeed(cargo.args(["build", "--package", PACKAGE, "--target", TARGET]))?;
    let wasm = folder.with_file_name(TARGET).join("debug").join(LIBRARY);
    let page = folder.join("index.html");
    succeed(Command::new(tool()?).arg("bundle").args([&wasm, &page]))?;
    Ok(page)
}

/// Builds the page and walks through it.
fn check(browser: &browser::Browser) -> Result<()> {
    walk(&tool()?, &page()?, browser)
}

/// A person's way through the page; pictures and the downloaded record are left beside it.
fn walk(tool: &Path, page: &Path, browser: &browser::Browser) -> Result<()> {
    eprintln!("   {}", browser.program.display());
    let mut tool = Command::new(tool);
    tool.arg("check").args([page, &folder()?, &browser.program]).args(&browser.arguments);
    succeed(&mut tool)
}

/// Makes the report of the sample and of the records that are kept, and looks at it; pictures are left beside it.
fn report(browser: &browser::Browser) -> Result<()> {
    let folder = folder()?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let kept = fs::read_dir(root().join(RESULTS)).with_context(|| format!("cannot read {RESULTS}"))?;
    let mut records: Vec<_> = kept.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    records.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    records.sort();
    records.push(root().join(SAMPLE));
    let file = folder.join("report.html");
    let [test, name] = CLI;
    succeed(
        Command::new(build::with_tests(test, name)?).arg("report").args(&records).arg("--html").arg(&file),
    )?;
    let mut tool = Command::new(tool()?);
    tool.arg("report").args([&file, &folder, &browser.program]).args(&browser.arguments);
    succeed(&mut tool)
}

/// The tool that makes the page and looks at it.
fn tool() -> Result<PathBuf> {
    let [test, name] = TOOL;
    build::with_tests(test, name)
}

/// Where the page goes: beside the folders that cargo builds into.
fn folder() -> Result<PathBuf> {
    Ok(build::target()?.join("web"))
}

/// Makes sure of the target's standard library; the error is the reason why it cannot be had.
fn target() -> Result<(), String> {
    let installed = Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).output();
    let folder = installed.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string());
    if folder.is_ok_and(|folder| !folder.is_empty() && std::path::Path::new(&folder).is_dir()) {
        return Ok(());
    }
    match Command::new("rustup").args(["target", "add", TARGET]).current_dir(root()).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(_) => Err(format!("`rustup target add {TARGET}` failed")),
        Err(_) => Err(format!("the target {TARGET} is not installed, and there is no rustup to add it")),
    }
}
