//! `cargo xtask burn`: the kernels on burn's tensors.
//!
//! The crates of `frameworks` are a workspace of their own, since what they depend on is several hundred crates, which the other
//! steps do not wait for. They are checked as the others are, and their tests run on the adapter.

use std::process::Command;

use anyhow::Result;

use crate::software::{self, Choice, Launcher};
use crate::steps;

/// The step's name.
pub(crate) const STEP: &str = "burn";

/// `cargo xtask burn`.
pub(crate) fn run() -> Result<()> {
    check(&software::launcher(Choice::Auto)?)
}

/// Format, lints and tests.
pub(crate) fn check(launcher: &Launcher) -> Result<()> {
    let folder = steps::root().join("frameworks");
    let in_folder = |mut cargo: Command, words: &[&str]| {
        // A folder of its own, whatever the caller has set: the two workspaces share no dependency.
        cargo.args(words).current_dir(&folder).env("CARGO_TARGET_DIR", folder.join("target"));
        steps::succeed(&mut cargo)
    };
    in_folder(steps::cargo(), &["fmt", "--all", "--check"])?;
    in_folder(steps::cargo(), &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    let mut tests = launcher.cargo_through(&[])?;
    // What is run once is not optimised: see the tests.
    tests.env("GALLIVM_PERF", "nopt");
    in_folder(tests, &["test", "--workspace"])
}
