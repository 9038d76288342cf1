//! `cargo xtask gates`: static checks of every shader that the crate can generate.
//!
//! naga's side is the package `tools/gates/` and its tests. Here is what lives in Node: Tint, Chrome's compiler, by way of Dawn
//! (`tint.mjs`), and the race check of an interpreter (`races.mjs`); and in Python: Slang, which reads the HLSL that naga writes
//! (`hlsl.py`). The scripts also see planted faults, and fail where one goes unnoticed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::node::{DAWN, REFLECT};
use crate::pypi::{Library, PYTHON};
use crate::steps::Steps;
use crate::{build, steps};

/// The package of naga's gates, its binary, and one of its tests.
const PACKAGE: &str = "wgpu-attention-gates";
const BINARY: &str = "gates";
const TEST: &str = "planted";

/// Slang as a library, which reads HLSL too.
const SLANG: Library = Library { package: "slangtorch", version: "1.3.22", folder: "slangtorch/bin" };

/// The steps of [`steps()`].
pub(crate) const STEPS: [&str; 2] = ["shader gates", "shaders as HLSL"];

/// What comes from npm, by the files to import.
struct Packages {
    dawn: PathBuf,
    reflect: PathBuf,
}

/// The packages, fetched at first use; the error is the reason why they cannot be had.
fn packages() -> Result<Packages> {
    Ok(Packages { dawn: DAWN.main()?, reflect: REFLECT.main()? })
}

/// All gates, naga's too.
pub(crate) fn run() -> Result<()> {
    let (packages, slang) = (packages()?, SLANG.path()?);
    steps::succeed(steps::cargo().args(["test", "--package", PACKAGE, "--tests", "--quiet"]))?;
    check(&packages)?;
    hlsl(&slang)
}

/// All gates but naga's, which are a part of the workspace's tests.
pub(crate) fn steps(steps: &mut Steps) {
    let [others, slang] = STEPS;
    match packages() {
        Ok(packages) => drop(steps.run(others, || check(&packages))),
        Err(error) => steps.not_run(others, format!("{error:#}")),
    }
    match SLANG.path() {
        Ok(folder) => drop(steps.run(slang, || hlsl(&folder))),
        Err(error) => steps.not_run(slang, format!("{error:#}")),
    }
}

/// What is checked in Node.
fn check(packages: &Packages) -> Result<()> {
    let shaders = shaders()?;
    script("node", "tint.mjs", &packages.dawn, shaders)?;
    script("node", "races.mjs", &packages.reflect, shaders)
}

/// What is checked in Python.
fn hlsl(slang: &Path) -> Result<()> {
    script(PYTHON, "hlsl.py", slang, shaders()?)
}

/// A file of all shaders, written once.
fn shaders() -> Result<&'static Path> {
    static WRITTEN: OnceLock<PathBuf> = OnceLock::new();
    if WRITTEN.get().is_none() {
        let gates = build::with_tests(TEST, BINARY)?;
        let shaders = gates.with_file_name("gates-shaders.json");
        let status = Command::new(&gates).arg(&shaders).status();
        ensure!(status.with_context(|| format!("cannot run {}", gates.display()))?.success(), "see above");
        let _ = WRITTEN.set(shaders);
    }
    Ok(WRITTEN.get().context("no file of shaders")?)
}

/// Runs a script on what it imports and on the shaders, and says how long it took.
fn script(program: &str, name: &str, package: &Path, shaders: &Path) -> Result<()> {
    let start = Instant::now();
    let path = steps::root().join("xtask/src/gates").join(name);
    steps::succeed(Command::new(program).arg(path).arg(package).arg(shaders))?;
    eprintln!("   {name}: {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}
