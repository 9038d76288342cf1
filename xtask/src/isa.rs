//! `cargo xtask isa`: shader statistics on compilers for GPUs that are not there.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::software::compilers::{self, Compilers};
use crate::{build, steps};

/// The tool's binary.
const BINARY: &str = "isa";
/// Its test target that needs the compilers.
const TESTS: &str = "compilers";
/// Tells the tool where the compilers are.
const VARIABLE: &str = "WGPU_ATTENTION_COMPILERS";

/// Builds the tool and runs it with these arguments, in the caller's folder; its exit status is ours.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let compilers = compilers()?;
    let binary = binary()?;
    if arguments.iter().any(|argument| argument == "--check") {
        test(&compilers)?;
    }
    let status = tool(&binary, &compilers).args(arguments).status();
    Ok(build::exit_code(status.with_context(|| format!("cannot run {}", binary.display()))?))
}

/// The compilers, with a word for each that cannot be had. Always the fetched ones: budgets are of one version.
pub(crate) fn compilers() -> Result<Compilers> {
    let compilers = compilers::compilers()?;
    compilers.missing.iter().for_each(|missing| eprintln!("not run: {missing}"));
    Ok(compilers)
}

/// Runs the tool's own tests on the compilers, then compares some of the crate's kernels with their budgets: two on every GPU, and all
/// of them on one of each of the two vendors whose compilers are quick.
pub(crate) fn check(compilers: &Compilers) -> Result<()> {
    test(compilers)?;
    let binary = binary()?;
    for arguments in [&["--check", "--few"][..], &["--check", "--gpu", "navi31,navi21"]] {
        let status = tool(&binary, compilers).args(arguments).status()?;
        ensure!(status.success(), "see above; where it is meant: `cargo xtask isa --bless`");
    }
    Ok(())
}

/// The tool.
fn tool(binary: &PathBuf, compilers: &Compilers) -> Command {
    let mut command = Command::new(binary);
    command.env(VARIABLE, list(compilers));
    command
}

/// The compilers, as the tool reads them.
fn list(compilers: &Compilers) -> String {
    let one = |(name, script): &(&str, PathBuf)| format!("{name}={}", script.display());
    compilers.scripts.iter().map(one).collect::<Vec<_>>().join(";")
}

/// Builds the tool as a part of its tests, and with the features that all of the workspace's tests are built with:
/// naga is then built once for both.
fn binary() -> Result<PathBuf> {
    build::built(tests(&mut steps::cargo()).arg("--no-run"), BINARY)
}

/// Runs the tests that need the compilers.
fn test(compilers: &Compilers) -> Result<()> {
    let mut cargo = steps::cargo();
    cargo.env(VARIABLE, list(compilers));
    steps::succeed(tests(&mut cargo).args(["--quiet", "--", "--ignored"]))
}

/// The command for the tests that need the compilers.
fn tests(cargo: &mut Command) -> &mut Command {
    cargo.args(["test", "--workspace", "--all-features", "--test", TESTS])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tool_is_told_each_compiler() {
        let scripts = vec![("asahi", "/c/launch-asahi".into()), ("intel", "/d/launch".into())];
        let compilers = Compilers { scripts, missing: Vec::new() };
        assert_eq!(list(&compilers), "asahi=/c/launch-asahi;intel=/d/launch");
    }
}
