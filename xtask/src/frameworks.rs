//! `cargo xtask burn`, `cargo xtask candle`: the kernels on the tensors of other frameworks.
//!
//! Each crate of `frameworks` is in a workspace of its own, since what it depends on is several hundred crates, which the other
//! steps do not wait for. They are checked as the others are, and their tests run on the adapter.

use std::process::Command;

use anyhow::Result;

use crate::length::Length;
use crate::software::{self, Choice, Launcher};
use crate::{build, steps};

/// A workspace below `frameworks`.
pub(crate) struct Framework {
    /// The step's name.
    pub(crate) step: &'static str,
    /// Where the workspace is.
    folder: &'static str,
}

/// The tensors of burn.
pub(crate) const BURN: Framework = Framework { step: "burn", folder: "frameworks" };
/// The tensors of candle.
pub(crate) const CANDLE: Framework = Framework { step: "candle", folder: "frameworks/candle" };

impl Framework {
    /// The command of the step's name.
    pub(crate) fn run(&self) -> Result<()> {
        self.check(&software::launcher(Choice::Auto)?, Length::Long)
    }

    /// Format and tests; in a long run examples and lints, too, for which everything that the crate depends on is checked once more.
    pub(crate) fn check(&self, launcher: &Launcher, length: Length) -> Result<()> {
        let in_workspace = |cargo, words: &[&str]| steps::succeed(&mut self.command(cargo, words)?);
        in_workspace(steps::cargo(), &["fmt", "--all", "--check"])?;
        if length == Length::Long {
            in_workspace(
                steps::cargo(),
                &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
            )?;
        }
        let mut tests = launcher.cargo_through(&[])?;
        // What is run once is not optimised: see the tests.
        tests.env("GALLIVM_PERF", "nopt");
        let short = ["test", "--workspace", "--lib", "--tests"];
        in_workspace(tests, if length == Length::Long { &short[..2] } else { &short })
    }

    /// Cargo with these words, in the workspace. Steps run in the root's folder, so it is named by its manifest.
    fn command(&self, mut cargo: Command, words: &[&str]) -> Result<Command> {
        let folder = steps::root().join(self.folder);
        let (command, rest) = words.split_at(1);
        cargo.args(command).arg("--manifest-path").arg(folder.join("Cargo.toml")).args(rest);
        // The root's folder, in which the macros and some of what they depend on are built already.
        cargo.env("CARGO_TARGET_DIR", build::target()?);
        Ok(cargo)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_of_the_frameworks_own_workspace() {
        for framework in [BURN, CANDLE] {
            let command = framework.command(steps::cargo(), &["metadata", "--no-deps", "--format-version=1"]);
            let command = command.unwrap();
            let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
            assert_eq!(
                (words[0].as_str(), words[1].as_str(), words.len()),
                ("metadata", "--manifest-path", 5)
            );
            let manifest = std::fs::read_to_string(&words[2]).expect("a manifest");
            assert!(manifest.contains("[workspace]\n"), "{}", words[2]);
        }
    }
}
