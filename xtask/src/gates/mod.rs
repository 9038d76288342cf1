//! `cargo xtask gates`: static checks of every shader that the crate can generate.
//!
//! naga's side is the package `tools/gates/` and its tests. Here is what lives in Node: Tint, Chrome's compiler, by way of Dawn
//! (`tint.mjs`), and the race check of an interpreter (`races.mjs`). The scripts also see planted faults, and fail where
//! one goes unnoticed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::node::{DAWN, REFLECT};
use crate::{build, steps};

/// The package of naga's gates, its binary, and one of its tests.
const PACKAGE: &str = "wgpu-attention-gates";
const BINARY: &str = "gates";
const TEST: &str = "planted";

/// What comes from npm, by the files to import.
pub(crate) struct Packages {
    dawn: PathBuf,
    reflect: PathBuf,
}

/// The packages, fetched at first use; the error is the reason why they cannot be had.
pub(crate) fn packages() -> Result<Packages> {
    Ok(Packages { dawn: DAWN.main()?, reflect: REFLECT.main()? })
}

/// All gates, naga's too.
pub(crate) fn run() -> Result<()> {
    let packages = packages()?;
    steps::succeed(steps::cargo().args(["test", "--package", PACKAGE, "--tests", "--quiet"]))?;
    check(&packages)
}

/// All gates but naga's, which are a part of the workspace's tests.
pub(crate) fn check(packages: &Packages) -> Result<()> {
    let gates = build::with_tests(TEST, BINARY)?;
    let shaders = gates.with_file_name("gates-shaders.json");
    let status = Command::new(&gates).arg(&shaders).status();
    ensure!(status.with_context(|| format!("cannot run {}", gates.display()))?.success(), "see above");
    let scripts = steps::root().join("xtask/src/gates");
    let run = |script: &str, package: &Path| {
        steps::succeed(Command::new("node").arg(scripts.join(script)).arg(package).arg(&shaders))
    };
    run("tint.mjs", &packages.dawn)?;
    run("races.mjs", &packages.reflect)
}
