//! A browser for the page's test: the machine's Chromium or Chrome, or else Debian's package in the cache folder.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::software::apt::{apt_get, succeeded};
use crate::software::cache_folder;
use crate::software::fetch::{put_in_place, remove_leftovers, unpack};
use crate::software::{Machine, make_executable};

/// Ends the error of who has none.
const REMEDY: &str = "install Chromium or Chrome, or set CHROMIUM to its path";
/// Names of the program on the machine.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
/// Of the package, in the cache folder.
const PACKAGE: &str = "chromium";

/// A browser of the Chromium family, and what it takes to have WebGPU.
pub(crate) struct Browser {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<&'static str>,
}

/// The machine's browser; a fetched one where there is none.
pub(crate) fn find() -> Result<Browser> {
    if !cfg!(unix) {
        bail!("the page's test drives a browser through pipes that only Unix has");
    }
    let program = match installed() {
        Some(program) => program,
        None => fetched().map_err(|cause| anyhow!("no browser: {cause:#}; {REMEDY}"))?,
    };
    let mut arguments = vec!["--enable-unsafe-webgpu"];
    if cfg!(target_os = "linux") {
        // The browser's own software adapter, the same on every machine. A container has no user name spaces, which the
        // sandbox needs; what is opened is our own page.
        arguments.extend(["--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan", "--no-sandbox"]);
    }
    Ok(Browser { program, arguments })
}

/// The machine's.
fn installed() -> Option<PathBuf> {
    if let Some(program) = std::env::var_os("CHROMIUM").filter(|program| !program.is_empty()) {
        return Some(program.into());
    }
    let folders: Vec<_> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
    let in_any = |name: &str| folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    NAMES.into_iter().find_map(in_any)
}

/// Debian's, fetched at the first use. Its libraries are those of the machine, and those of them that are missing.
fn fetched() -> Result<PathBuf> {
    ensure!(cfg!(target_os = "linux"), "there is none to fetch but for Linux");
    let (machine, cache) = (Machine::here()?, cache_folder()?);
    let stem = format!("{PACKAGE}-{}", machine.debian);
    let root = cache.join(&stem);
    remove_leftovers(&cache, &stem);
    if !root.exists() {
        fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
        let part = cache.join(format!("{stem}.{}.part", std::process::id()));
        let made = make(&machine, &part, &root).and_then(|()| put_in_place(&part, &root));
        // Whatever happened, the partial folder has no further use.
        let _ = fs::remove_dir_all(&part);
        made?;
    }
    Ok(root.join("launch"))
}

/// Makes everything in `part`, with `root` as the place where it will be.
fn make(machine: &Machine, part: &Path, root: &Path) -> Result<()> {
    let start = Instant::now();
    eprintln!("fetching Chromium from the Debian archive ...");
    for package in download(&part.join("apt"))? {
        unpack(&package, part)?;
    }
    fs::remove_dir_all(part.join("apt"))?;
    ensure!(part.join("usr/lib/chromium/chromium").is_file(), "no Chromium in the package");
    let script = part.join("launch");
    fs::write(&script, launch_text(root, machine.libraries))?;
    make_executable(&script)?;
    eprintln!("... kept in {} ({:.0} s)", root.display(), start.elapsed().as_secs_f64());
    Ok(())
}

/// A script that runs the browser with the fetched libraries before the machine's.
fn launch_text(root: &Path, libraries: &str) -> String {
    format!(
        "#!/bin/sh\nroot='{}'\nLD_LIBRARY_PATH=\"$root/{libraries}:$root/{libraries}/pulseaudio\" \\\n  \
         exec \"$root/usr/lib/chromium/chromium\" \"$@\"\n",
        root.display()
    )
}

/// Downloads the browser and what the machine lacks of its libraries; the paths of the packages.
fn download(apt: &Path) -> Result<Vec<PathBuf>> {
    for folder in ["lists/partial", "cache/archives/partial", "etc"] {
        fs::create_dir_all(apt.join(folder))?;
    }
    // The machine's sources and its installed packages, in folders of our own: no root is needed, and nothing of the
    // machine's changes. What is installed is not downloaded: it fits the browser of the same release.
    fs::copy("/var/lib/dpkg/status", apt.join("status")).context("this needs a Debian system")?;
    fs::write(apt.join("apt.conf"), "#clear APT::Update;\n")?;
    let sources =
        ["Dir::Etc::SourceList=/etc/apt/sources.list", "Dir::Etc::SourceParts=/etc/apt/sources.list.d"];
    let run = |arguments: &[&str]| {
        let mut command = apt_get(apt);
        command.args(sources.iter().flat_map(|source| ["-o", source])).args(arguments);
        succeeded(&format!("apt-get {}", arguments[0]), command.output())
    };
    run(&["update"])?;
    run(&["install", "--yes", "--download-only", PACKAGE])?;
    let mut packages = vec![];
    for entry in fs::read_dir(apt.join("cache/archives"))? {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new("deb")) {
            packages.push(path);
        }
    }
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_finds_its_libraries() {
        let text = launch_text(Path::new("/cache/chromium-amd64"), "usr/lib/x86_64-linux-gnu");
        assert!(text.starts_with("#!/bin/sh\nroot='/cache/chromium-amd64'\n"));
        assert!(text.contains("LD_LIBRARY_PATH=\"$root/usr/lib/x86_64-linux-gnu:$root/usr"), "{text}");
        assert!(text.ends_with("exec \"$root/usr/lib/chromium/chromium\" \"$@\"\n"), "{text}");
    }
}
