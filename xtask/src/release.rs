//! `cargo xtask release`: what must hold before a version is published, beside `cargo xtask test --long`.
//!
//! - version: the number says what changed of everything public since the last tag (`docs/API.txt` of both);
//! - packages: what would be published, built from its own files alone, small and without tests' data;
//! - minimal versions: the library with the oldest versions that its manifest allows;
//! - oldest Rust: the library by the compiler that its manifest names, where rustup has it. On every change clippy
//!   refuses what the standard library got later (`incompatible_msrv`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

use crate::build;
use crate::steps::{Steps, cargo, root, succeed};

/// The library.
const LIBRARY: &str = "wgpu-attention";
/// Everything public, line by line.
const API: &str = "docs/API.txt";
/// No package may be larger, in bytes.
const LARGEST: u64 = 1_000_000;
/// Folders that only a checkout has.
const NOT_PUBLISHED: [&str; 4] = ["tests", "golden", "benches", "target"];

/// Runs the steps.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    ensure!(arguments.is_empty(), "release takes no arguments, got {arguments:?}");
    let mut steps = Steps::default();
    match last_release()? {
        Some(tag) => drop(steps.run("version", || version_suffices(&tag))),
        None => steps.not_run("version", "no tag `v*`: nothing was published yet"),
    }
    steps.run("packages", packages);
    steps.run("minimal versions", minimal_versions);
    let oldest = manifest_value("rust-version")?;
    match has_toolchain(&oldest) {
        true => drop(steps.run("oldest Rust", || by_toolchain(&oldest))),
        false => steps.not_run("oldest Rust", format!("rustup toolchain install {oldest}")),
    }
    println!("\n{}", steps.summary());
    Ok(if steps.failures() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The newest tag of a version.
fn last_release() -> Result<Option<String>> {
    let describe = ["describe", "--tags", "--abbrev=0", "--match", "v[0-9]*"];
    let output = Command::new("git").args(describe).current_dir(root()).output().context("git")?;
    Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string()))
}

/// Whether the version is as new as what changed since the tag asks for.
fn version_suffices(tag: &str) -> Result<()> {
    let output = Command::new("git").args(["show", &format!("{tag}:{API}")]).current_dir(root()).output()?;
    ensure!(output.status.success(), "{tag} has no {API}");
    let (old, new) = (String::from_utf8_lossy(&output.stdout), fs::read_to_string(root().join(API))?);
    let gone = gone(&old, &new);
    let (before, now) = (tag.trim_start_matches('v'), manifest_value("version")?);
    eprintln!(
        "   {before} to {now}: {} of {} public lines are gone or changed",
        gone.len(),
        old.lines().count()
    );
    ensure!(
        gone.is_empty() || breaks(before, &now),
        "{now} may not break what {before} has, and these lines of {API} are gone or changed:\n{}",
        gone.join("\n")
    );
    Ok(())
}

/// The lines that are in the old text alone.
fn gone<'a>(old: &'a str, new: &str) -> Vec<&'a str> {
    let new: std::collections::HashSet<_> = new.lines().collect();
    old.lines().filter(|line| !new.contains(line)).collect()
}

/// Whether Cargo takes the two versions for incompatible: the first number that is not zero differs.
fn breaks(before: &str, now: &str) -> bool {
    let [before, now] = [before, now].map(|version| version.split('.').map(String::from).collect::<Vec<_>>());
    let first = before.iter().position(|number| number != "0").unwrap_or(before.len());
    before.iter().zip(&now).take(first + 1).any(|(before, now)| before != now)
}

/// Builds what would be published, each from its own package, and looks at what is in it.
fn packages() -> Result<()> {
    let folder = build::target()?.join("package");
    let _ = fs::remove_dir_all(&folder);
    succeed(cargo().args(["publish", "--dry-run", "--workspace"]))?;
    let files = crates(&folder)?;
    ensure!(
        files.iter().any(|file| stem(file).starts_with(LIBRARY)),
        "{} holds no package of {LIBRARY}",
        folder.display()
    );
    for file in &files {
        let size = fs::metadata(file)?.len();
        let list = listing(file)?;
        eprintln!("   {}: {} files, {} kB", stem(file), list.lines().count(), size / 1000);
        ensure!(size <= LARGEST, "{} has {size} bytes; {LARGEST} are allowed", stem(file));
        if let Some(line) = unwanted(&list) {
            bail!("{} holds {line}", stem(file));
        }
    }
    Ok(())
}

/// Checks the packaged library with the oldest versions of what its manifest names.
fn minimal_versions() -> Result<()> {
    let version = manifest_value("version")?;
    let name = format!("{LIBRARY}-{version}");
    let files = crates(&build::target()?.join("package"))?;
    let file = files.iter().find(|file| stem(file) == name).with_context(|| format!("no package {name}"))?;
    let folder = build::target()?.join("minimal-versions");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    succeed(Command::new("tar").arg("-xzf").arg(file).arg("-C").arg(&folder))?;
    let manifest = folder.join(name).join("Cargo.toml");
    // A crate of its own, not a stray member of this workspace.
    let text = fs::read_to_string(&manifest)?;
    fs::write(&manifest, text + "\n[workspace]\n")?;
    fs::remove_file(manifest.with_file_name("Cargo.lock")).context("the package has no Cargo.lock")?;
    // What the manifest names itself, in its oldest version; what those need, in the newest: their manifests are not ours.
    let mut update = cargo();
    update.env("RUSTC_BOOTSTRAP", "1");
    succeed(update.args(["update", "-Z", "direct-minimal-versions", "--manifest-path"]).arg(&manifest))?;
    let mut check = cargo();
    check.env("CARGO_TARGET_DIR", folder.join("target"));
    succeed(check.args(["check", "--lib", "--all-features", "--manifest-path"]).arg(&manifest))
}

/// Checks the library by another compiler.
fn by_toolchain(version: &str) -> Result<()> {
    let mut check = Command::new("rustup");
    check.args(["run", version, "cargo", "check", "--package", LIBRARY, "--lib", "--all-features"]);
    // The other compiler's cargo must find its own tools, and leave what this one built.
    check.env("CARGO_TARGET_DIR", build::target()?.join("oldest-rust"));
    for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        check.env_remove(name);
    }
    succeed(&mut check)
}

/// Whether rustup has the compiler.
fn has_toolchain(version: &str) -> bool {
    let list = Command::new("rustup").args(["toolchain", "list"]).output();
    list.is_ok_and(|list| names_toolchain(&String::from_utf8_lossy(&list.stdout), version))
}

/// Whether a list of rustup's names the version, or a patch of it.
fn names_toolchain(list: &str, version: &str) -> bool {
    list.lines().any(|line| {
        line.strip_prefix(version).is_some_and(|rest| rest.starts_with(['.', '-']) || rest.is_empty())
    })
}

/// A value of the workspace's manifest.
fn manifest_value(name: &str) -> Result<String> {
    let text = fs::read_to_string(root().join("Cargo.toml")).context("Cargo.toml")?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix('='));
    Ok(value.with_context(|| format!("Cargo.toml has no {name}"))?.trim().trim_matches('"').into())
}

/// The packages that cargo left, each once: it puts those of several crates into folders of its own below.
fn crates(folder: &Path) -> Result<Vec<PathBuf>> {
    let files = |folder: &Path| -> Result<Vec<PathBuf>> {
        let files = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
        files.map(|entry| Ok(entry?.path())).collect()
    };
    let mut found = BTreeMap::new();
    for path in files(folder)? {
        let below = if path.is_dir() { files(&path)? } else { vec![path] };
        let packages = below.into_iter().filter(|file| file.extension().is_some_and(|it| it == "crate"));
        found.extend(packages.map(|file| (stem(&file), file)));
    }
    Ok(found.into_values().collect())
}

/// A file's name without its extension.
fn stem(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The names of all files in a package.
fn listing(file: &Path) -> Result<String> {
    let output = Command::new("tar").arg("-tzf").arg(file).output().context("tar")?;
    ensure!(output.status.success(), "tar cannot read {}", file.display());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The first file of a listing that belongs to a checkout alone; the first folder is the package itself.
fn unwanted(listing: &str) -> Option<&str> {
    listing.lines().find(|line| line.split('/').skip(1).any(|part| NOT_PUBLISHED.contains(&part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_of_tests_is_found() {
        assert_eq!(unwanted("a-0.1.0/src/lib.rs\na-0.1.0/Cargo.toml\n"), None);
        assert_eq!(unwanted("a-0.1.0/src/lib.rs\na-0.1.0/golden/a\n"), Some("a-0.1.0/golden/a"));
        assert_eq!(unwanted("a-0.1.0/src/tests/data\n"), Some("a-0.1.0/src/tests/data"));
    }

    #[test]
    fn packages_are_found_once() {
        let folder = std::env::temp_dir().join(format!("release-{}", std::process::id()));
        for part in ["tmp-crate", "tmp-registry", "a-0.1.0"] {
            fs::create_dir_all(folder.join(part)).unwrap();
        }
        for file in ["tmp-crate/a-0.1.0.crate", "tmp-registry/a-0.1.0.crate", "b-0.1.0.crate", "a-0.1.0/x.rs"]
        {
            fs::write(folder.join(file), "").unwrap();
        }
        let found: Vec<_> = crates(&folder).unwrap().iter().map(|file| stem(file)).collect();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found, ["a-0.1.0", "b-0.1.0"]);
    }

    #[test]
    fn a_change_asks_for_a_version() {
        assert_eq!(gone("pub fn a()\npub fn b()\n", "pub fn b()\npub fn c()\n"), ["pub fn a()"]);
        assert!(breaks("0.1.4", "0.2.0") && breaks("1.4.0", "2.0.0") && breaks("0.0.1", "0.0.2"));
        assert!(!breaks("0.1.4", "0.1.5") && !breaks("1.4.0", "1.5.0"));
    }

    #[test]
    fn toolchains_are_told_apart() {
        let list = "stable-x86_64-unknown-linux-gnu (default)\n1.87.0-x86_64-unknown-linux-gnu\n";
        assert!(names_toolchain(list, "1.87") && !names_toolchain(list, "1.8"));
    }

    #[test]
    fn the_manifest_names_a_version_and_a_compiler() {
        let version = manifest_value("version").unwrap();
        assert!(version.split('.').all(|part| part.parse::<u32>().is_ok()), "{version}");
        assert!(manifest_value("rust-version").unwrap().starts_with("1."));
        assert!(manifest_value("nothing").is_err());
    }
}
