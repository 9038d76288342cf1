//! `cargo xtask web`: the page on which anyone verifies and times the kernels in a browser, and its test.
//!
//! - [`mod@browser`]: a browser for the test, the machine's or a fetched one.

mod browser;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::build;
use crate::steps::{Steps, cargo, root, succeed};

/// The browser's target.
const TARGET: &str = "wasm32-unknown-unknown";
/// The crate of the page, its library, and the tool that makes one file of it.
const PACKAGE: &str = "wgpu-attention-web";
const LIBRARY: &str = "wgpu_attention_web.wasm";
const TOOL: &str = "web-tool";
/// The steps of [`steps`].
pub(crate) const STEPS: [&str; 2] = ["wasm32", "page in a browser"];

/// Builds the page; with `--check` tests it too.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let check = match arguments {
        [] => false,
        [only] if only == "--check" => true,
        _ => bail!("web takes only --check, got {arguments:?}"),
    };
    if let Err(reason) = target() {
        bail!("{reason}");
    }
    if check {
        self::check(&browser::find()?)?;
    } else {
        println!("{}", page()?.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Lints what a browser runs, then tests the page in one.
pub(crate) fn steps(steps: &mut Steps) {
    let [lints, page] = STEPS;
    if let Err(reason) = target() {
        return STEPS.iter().for_each(|name| steps.not_run(name, reason.as_str()));
    }
    steps.run(lints, || {
        // The library with it, for the browser's backend: without any, wgpu leaves out most of what has to compile.
        succeed(cargo().args(["clippy", "--package", PACKAGE, "--target", TARGET, "--", "-D", "warnings"]))
    });
    match browser::find() {
        Ok(browser) => drop(steps.run(page, || check(&browser))),
        Err(error) => steps.not_run(page, format!("{error:#}")),
    }
}

/// Builds the page and gives its path.
fn page() -> Result<PathBuf> {
    let folder = folder()?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    succeed(cargo().args(["build", "--package", PACKAGE, "--target", TARGET]))?;
    let wasm = folder.with_file_name(TARGET).join("debug").join(LIBRARY);
    let page = folder.join("index.html");
    succeed(Command::new(build::binary(TOOL, TOOL)?).arg("bundle").args([&wasm, &page]))?;
    Ok(page)
}

/// Builds the page and walks through it; pictures and the downloaded record are left beside it.
fn check(browser: &browser::Browser) -> Result<()> {
    let page = page()?;
    eprintln!("   {}", browser.program.display());
    let mut tool = Command::new(build::binary(TOOL, TOOL)?);
    tool.arg("check").args([&page, &folder()?, &browser.program]).args(&browser.arguments);
    succeed(&mut tool)
}

/// Where the page goes: beside the folders that cargo builds into.
fn folder() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(2).context("cargo's folder is not known")?;
    Ok(target.join("web"))
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
