//! `cargo attention`: builds the command line and runs it on whatever adapter is there.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::build;
use crate::software::{self, Choice};

/// Package and binary of the command line.
const PACKAGE: &str = "wgpu-attention-cli";
const BINARY: &str = "wgpu-attention";

/// Builds the command line and runs it with these arguments, in the caller's folder; its exit status is ours.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let binary = build::binary(PACKAGE, BINARY)?;
    let mut command = match software::launcher(Choice::Auto) {
        Ok(launcher) => launcher.command(&binary),
        Err(error) => {
            eprintln!("note: {error:#}");
            // Without an adapter the command line computes on the CPU reference, and says so.
            Command::new(&binary)
        }
    };
    let status = command.args(arguments).status();
    Ok(build::exit_code(status.with_context(|| format!("cannot run {}", binary.display()))?))
}
