//! `cargo xtask api`: what the crate offers, compared with the committed listing.
//!
//! rustdoc writes what is public as JSON, and `tools/api` makes lines of it. The JSON is an unstable output, for which rustdoc, and
//! rustdoc alone, has to be told that it may: a compiler told so would build every crate anew. So cargo is given this program as
//! its rustdoc (see [`rustdoc`]), with the features of the whole workspace, for which everything is there already.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

use crate::build;
use crate::steps::{Steps, cargo, root, succeed};

/// The step's name.
pub(crate) const STEP: &str = "public api";
/// A test and the binary of the package that makes the lines; the listing; the crate as rustdoc names it.
const TOOL: [&str; 2] = ["listing", "api"];
const LISTING: &str = "docs/API.txt";
const CRATE: &str = "wgpu_attention";
/// What makes rustdoc write JSON.
const JSON: [&str; 4] = ["-Z", "unstable-options", "--output-format", "json"];
/// Set where cargo runs this program as its rustdoc; holds the real one.
const AS_RUSTDOC: &str = "WGPU_ATTENTION_RUSTDOC";

/// Compares, or writes with `--bless`.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let bless = match words[..] {
        [] => false,
        ["--bless"] => true,
        _ => bail!("api takes only --bless, got {arguments:?}"),
    };
    tool()?.list(bless)?;
    Ok(ExitCode::SUCCESS)
}

/// Compares, where this rustdoc can be read.
pub(crate) fn step(steps: &mut Steps) {
    match tool() {
        Ok(tool) => drop(steps.run(STEP, || tool.list(false))),
        Err(error) => steps.not_run(STEP, format!("{error:#}")),
    }
}

/// The program that makes the lines.
struct Tool(PathBuf);

/// Builds it, and makes sure that it reads what this rustdoc writes.
fn tool() -> Result<Tool> {
    let [test, name] = TOOL;
    let tool = build::with_tests(test, name)?;
    let output = Command::new(&tool).arg("--format").output()?;
    let reads: u64 = String::from_utf8_lossy(&output.stdout).trim().parse().context("api --format")?;
    let writes = format()?;
    ensure!(
        reads == writes,
        "this rustdoc writes format {writes} of its JSON, and public-api, as tools/api has it, reads {reads}"
    );
    Ok(Tool(tool))
}

impl Tool {
    /// Compares the crate with its listing, or writes the listing.
    fn list(&self, bless: bool) -> Result<()> {
        let mut doc = cargo();
        doc.args(["doc", "--workspace", "--all-features", "--no-deps", "--lib", "--quiet"]);
        doc.env("RUSTDOC", build::ourselves()?).env(AS_RUSTDOC, real());
        // It is also what keeps these results apart from the pages of a plain `cargo doc`.
        doc.env("RUSTDOCFLAGS", JSON.join(" "));
        succeed(&mut doc)?;
        let json = build::target()?.join("doc").join(format!("{CRATE}.json"));
        let mut list = Command::new(&self.0);
        list.arg(json).arg(root().join(LISTING)).args(bless.then_some("--bless"));
        succeed(&mut list)
            .with_context(|| format!("{LISTING} differs; where it is meant: cargo xtask api --bless"))
    }
}

/// The rustdoc that is meant.
fn real() -> std::ffi::OsString {
    std::env::var_os("RUSTDOC").unwrap_or_else(|| "rustdoc".into())
}

/// The format of the JSON that it writes, from a crate without anything.
fn format() -> Result<u64> {
    let folder = build::target()?.join("api-format");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("empty.rs"), "")?;
    let mut rustdoc = Command::new(real());
    rustdoc.current_dir(&folder).args(["empty.rs", "--crate-type=lib", "--out-dir=."]).args(JSON);
    let output = rustdoc.env("RUSTC_BOOTSTRAP", "1").output().context("rustdoc")?;
    ensure!(output.status.success(), "rustdoc: {}", String::from_utf8_lossy(&output.stderr).trim());
    format_of(&std::fs::read_to_string(folder.join("empty.json"))?).context("rustdoc's JSON names no format")
}

/// The format that a text in JSON names.
fn format_of(json: &str) -> Option<u64> {
    let rest = json.split("\"format_version\":").nth(1)?.trim_start();
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Does rustdoc's work, where cargo runs this program for that.
pub(crate) fn rustdoc(arguments: &[String]) -> Option<Result<ExitCode>> {
    let real = std::env::var_os(AS_RUSTDOC)?;
    let run = || {
        if !concerns_us(arguments) {
            return Ok(ExitCode::SUCCESS);
        }
        let status = Command::new(&real).args(arguments).env("RUSTC_BOOTSTRAP", "1").status();
        Ok(build::exit_code(status.context("cannot run rustdoc")?))
    };
    Some(run())
}

/// Whether a call of rustdoc's is about our crate, or about no crate at all.
fn concerns_us(arguments: &[String]) -> bool {
    let name = arguments.iter().position(|word| word == "--crate-name");
    name.is_none_or(|at| arguments.get(at + 1).is_some_and(|name| name == CRATE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_crate_is_documented() {
        let concerns = |line: &str| concerns_us(&line.split(' ').map(String::from).collect::<Vec<_>>());
        assert!(concerns("--edition=2024 --crate-type lib --crate-name wgpu_attention src/lib.rs"));
        assert!(!concerns("--crate-type lib --crate-name wgpu_attention_cli src/lib.rs"));
        assert!(concerns("-vV"));
    }

    #[test]
    fn the_format_is_read() {
        assert_eq!(format_of("{\"paths\":{},\"format_version\":57}"), Some(57));
        assert_eq!(format_of("{\"format_version\": 8, \"target\": 1}"), Some(8));
        assert_eq!(format_of("{}"), None);
    }

    #[test]
    fn wrong_arguments_are_named() {
        assert!(run(&["--all".into()]).unwrap_err().to_string().contains("--all"));
    }
}
