//! Node.js, and what the checks take from npm, in the cache folder.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::software;

/// What to do where it is missing.
const REMEDY: &str =
    "install Node.js 20 or later, with npm (the packages nodejs and npm of your distribution)";

/// Chrome's WebGPU without a browser.
pub(crate) const DAWN: Package = Package { name: "webgpu", version: "0.6.2", main: "index.js" };
/// WGSL on the CPU, with a race check.
pub(crate) const REFLECT: Package =
    Package { name: "wgsl_reflect", version: "1.6.0", main: "wgsl_reflect.module.js" };

/// A package of npm's.
pub(crate) struct Package {
    name: &'static str,
    version: &'static str,
    /// The file to import.
    main: &'static str,
}

/// Whether Node can be run; the error says how to get it.
fn available() -> Result<()> {
    for tool in ["node", "npm"] {
        let output = Command::new(tool).arg("--version").output();
        ensure!(output.is_ok_and(|output| output.status.success()), "no {tool}: {REMEDY}");
    }
    Ok(())
}

impl Package {
    /// The file to import, fetched at first use.
    pub(crate) fn main(&self) -> Result<PathBuf> {
        available()?;
        let cache = software::cache_folder()?;
        let root = cache.join(format!("npm-{}-{}", self.name, self.version));
        let main = root.join("node_modules").join(self.name).join(self.main);
        if !main.is_file() {
            // Beside the final folder, which gets its name when it is complete.
            let part = cache.join(format!("npm-{}.{}.part", self.name, std::process::id()));
            fs::create_dir_all(&part).with_context(|| format!("cannot create {}", part.display()))?;
            eprintln!("fetching {} {} from npm ...", self.name, self.version);
            let mut npm = Command::new("npm");
            npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]).arg(&part);
            let output = npm.arg(format!("{}@{}", self.name, self.version)).output().context("npm")?;
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            let placed = output.status.success() && (fs::rename(&part, &root).is_ok() || main.is_file());
            let _ = fs::remove_dir_all(&part);
            ensure!(placed, "npm install {}: {}", self.name, complaint.trim());
        }
        ensure!(main.is_file(), "{} {} has no {}", self.name, self.version, self.main);
        Ok(main)
    }
}
