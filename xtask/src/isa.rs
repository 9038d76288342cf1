//! `cargo xtask isa`: shader statistics on a compiler for GPUs that are not there.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use crate::software::{self, Launcher, RADV};
use crate::{build, steps};

/// Package and binary of the tool.
const PACKAGE: &str = "wgpu-attention-isa";
const BINARY: &str = "isa";

/// Builds the tool and runs it with these arguments, in the caller's folder; its exit status is ours.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let launcher = driver()?;
    if arguments.iter().any(|argument| argument == "--check") {
        test(&launcher)?;
    }
    let binary = build::binary(PACKAGE, BINARY)?;
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
    let binary = build::binary(PACKAGE, BINARY)?;
    let status = launcher.command(&binary).arg("--check").status()?;
    ensure!(status.success(), "see above; where it is meant: `cargo xtask isa --bless`");
    Ok(())
}

/// The tests that need the driver.
fn test(launcher: &Launcher) -> Result<()> {
    let mut tests = launcher.cargo()?;
    steps::succeed(tests.args(["test", "--quiet", "--package", PACKAGE, "--test", "radv", "--", "--ignored"]))
}
