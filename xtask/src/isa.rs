//! `cargo xtask isa`: shader statistics on a compiler for GPUs that are not there.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::software::{self, Launcher, RADV};
use crate::{build, steps};

/// The tool's binary.
const BINARY: &str = "isa";
/// Its test target that needs the driver.
const TESTS: &str = "radv";

/// Builds the tool and runs it with these arguments, in the caller's folder; its exit status is ours.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let launcher = driver()?;
    let binary = binary()?;
    if arguments.iter().any(|argument| argument == "--check") {
        test(&launcher)?;
    }
    let status = launcher.command(&binary).args(arguments).status();
    Ok(build::exit_code(status.with_context(|| format!("cannot run {}", binary.display()))?))
}

/// The driver. Always the fetched one: the machine's own may be a newer one, which wants the hardware.
pub(crate) fn driver() -> Result<Launcher> {
    software::fetched(&RADV)
}

/// Runs the tool's own tests on the driver, then compares the crate's kernels with their budgets.
pub(crate) fn check(launcher: &Launcher) -> Result<()> {
    test(launcher)?;
    let status = launcher.command(binary()?).arg("--check").status()?;
    ensure!(status.success(), "see above; where it is meant: `cargo xtask isa --bless`");
    Ok(())
}

/// Builds the tool as a part of its tests, and with the features that all of the workspace's tests are built with:
/// naga is then built once for both.
fn binary() -> Result<std::path::PathBuf> {
    build::built(tests(&mut steps::cargo()).arg("--no-run"), BINARY)
}

/// Runs the tests that need the driver.
fn test(launcher: &Launcher) -> Result<()> {
    steps::succeed(tests(&mut launcher.cargo()?).args(["--quiet", "--", "--ignored"]))
}

/// The command for the tests that need the driver.
fn tests(cargo: &mut Command) -> &mut Command {
    cargo.args(["test", "--workspace", "--all-features", "--test", TESTS])
}
