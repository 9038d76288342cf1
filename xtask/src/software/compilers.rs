//! The compilers of GPUs that are not there: those that Debian has all for, and Intel's.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::{Machine, SHIMS, cache_folder, fetch, intel, shims};

/// The compilers of other vendors' GPUs, as far as this machine can have them.
#[derive(Debug)]
pub(crate) struct Compilers {
    /// The scripts that run a program on them, by name.
    pub(crate) scripts: Vec<(&'static str, PathBuf)>,
    /// Those that cannot be had, with the reason.
    pub(crate) missing: Vec<String>,
}

/// The compilers, fetched at first use.
pub(crate) fn compilers() -> Result<Compilers> {
    if !cfg!(target_os = "linux") {
        bail!("the compilers of other GPUs are fetched for Linux alone");
    }
    let (machine, cache) = (Machine::here()?, cache_folder()?);
    fetch::ensure(&SHIMS, &cache).context("Mesa's drivers cannot be had")?;
    let root = cache.join(SHIMS.stem(&machine));
    let mut scripts: Vec<_> = shims::names().map(|name| (name, root.join(shims::script_of(name)))).collect();
    let mut missing = Vec::new();
    match intel::script(&root, &machine, &cache) {
        Ok(script) => scripts.push((shims::INTEL, script)),
        Err(error) => missing.push(format!("Intel: {error:#}")),
    }
    Ok(Compilers { scripts, missing })
}
