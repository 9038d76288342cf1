//! Building one of the workspace's programs, to run it.

use std::io::{BufRead, BufReader, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};

use crate::steps;

/// Builds a binary of a package and gives its path.
pub(crate) fn binary(package: &str, name: &str) -> Result<PathBuf> {
    built(steps::cargo().args(["build", "--package", package, "--bin", name]), name)
}

/// Builds a binary as a part of a test of its package, with the features that all of the workspace's tests are built with:
/// what it depends on is then built once for both.
pub(crate) fn with_tests(test: &str, name: &str) -> Result<PathBuf> {
    let tests = ["test", "--workspace", "--all-features", "--no-run", "--test", test];
    built(steps::cargo().args(tests), name)
}

/// Runs a command of cargo's that builds, and gives the path of the binary that it leaves.
///
/// Cargo's lines are passed on, so that a long first build shows its progress, without the closing ones, so that a
/// build with nothing to do is silent.
pub(crate) fn built(cargo: &mut Command, binary: &str) -> Result<PathBuf> {
    cargo.arg("--manifest-path").arg(steps::root().join("Cargo.toml"));
    if std::io::stderr().is_terminal() {
        cargo.env("CARGO_TERM_COLOR", "always");
    }
    let mut child = cargo.stderr(Stdio::piped()).spawn().context("cannot run cargo")?;
    let lines = child.stderr.take().map(BufReader::new).into_iter().flat_map(BufRead::lines);
    lines.map_while(Result::ok).filter(|line| !is_closing_line(line)).for_each(|line| eprintln!("{line}"));
    ensure!(child.wait()?.success(), "{binary} could not be built");
    // Cargo builds into the folder that it built us into.
    Ok(ourselves()?.with_file_name(format!("{binary}{}", std::env::consts::EXE_SUFFIX)))
}

/// This program's file. Under the launcher of a software adapter the executable is the dynamic loader, so it is the name that
/// cargo started it by that counts.
pub(crate) fn ourselves() -> Result<PathBuf> {
    let name = std::env::args_os().next().context("a program has a name")?;
    Path::new(&name).canonicalize().with_context(|| format!("cannot find {}", name.display()))
}

/// The folder that cargo built us into, and builds everything else into.
pub(crate) fn target() -> Result<PathBuf> {
    Ok(ourselves()?.ancestors().nth(2).context("cargo's folder is not known")?.to_path_buf())
}

/// Whether this is cargo's line "Finished `dev` profile ..." or "Executable tests/...", coloured or not.
fn is_closing_line(line: &str) -> bool {
    (line.contains("Finished") && line.contains("profile")) || line.contains("  Executable")
}

/// The status of a program as ours; 128 and the signal's number where one ended it, as shells do.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return ExitCode::from(128 + signal as u8);
    }
    ExitCode::from(status.code().map_or(1, |code| code as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_closing_line_is_dropped() {
        assert!(is_closing_line("    Finished `dev` profile [optimized] target(s) in 0.10s"));
        assert!(is_closing_line("\x1b[1m\x1b[92m    Finished\x1b[0m `dev` profile"));
        assert!(is_closing_line("  Executable tests/compilers.rs (target/debug/deps/compilers-5)"));
        assert!(!is_closing_line("   Compiling wgpu v30.0.1"));
    }

    #[test]
    #[cfg(unix)]
    fn exit_codes_pass_through() {
        let run = |script: &str| {
            exit_code(
                std::process::Command::new("sh").args(["-c", script]).status().expect("there is a shell"),
            )
        };
        assert_eq!(run("exit 0"), ExitCode::from(0));
        assert_eq!(run("exit 3"), ExitCode::from(3));
        assert_eq!(run("kill -9 $$"), ExitCode::from(137));
    }
}
