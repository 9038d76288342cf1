//! The Debian archive, through apt, without root: with lists, a status file and a cache of our own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::Machine;

/// Keyrings that the Debian archive is checked with (the name depends on the release).
const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];

/// Names of releases in a path of the Debian main archive, to tell it from other archives.
const DEBIAN_SUITES: [&str; 9] =
    ["bullseye", "bookworm", "trixie", "forky", "sid", "unstable", "testing", "stable", "oldstable"];

/// Downloads these packages of a release of Debian, and nothing that they depend on; their paths.
pub(crate) fn packages(suite: &str, names: &[&str], machine: &Machine, apt: &Path) -> Result<Vec<PathBuf>> {
    from_archive(&[suite], machine, apt, || {
        let mut command = apt_get(apt);
        command.current_dir(apt.join("cache/archives")).args(["download", "--target-release", suite]);
        succeeded("apt-get download", command.args(names).output())?;
        downloaded(apt)
    })
}

/// Downloads the source of a package of a release of Debian; the path of the archive of files.
pub(crate) fn source(suite: &str, name: &str, apt: &Path) -> Result<PathBuf> {
    let folder = apt.join("cache/archives");
    let line = |archive: &str, keyring: &str| {
        format!("deb-src [target=Sources signed-by={keyring}] {archive} {suite} main\n")
    };
    from_lists(suite, apt, line, || {
        let mut command = apt_get(apt);
        command.current_dir(&folder).args(["source", "--download-only", name]);
        succeeded("apt-get source", command.output()).map(drop)
    })?;
    let entries = fs::read_dir(&folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_archive = |path: &PathBuf| {
        path.to_string_lossy().contains(".orig.tar.") && !path.to_string_lossy().ends_with(".asc")
    };
    entries.into_iter().find(is_archive).with_context(|| format!("no source of {name} in the download"))
}

/// Reads the lists of packages of these releases, from the first archive that has them, and takes from there.
pub(super) fn from_archive<T>(
    suites: &[&str],
    machine: &Machine,
    apt: &Path,
    take: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let lines = |archive: &str, keyring: &str| sources(archive, suites, machine.debian, keyring);
    from_lists(&suites.join(" and "), apt, lines, take)
}

/// The same with the `lines` of a sources.list, which follow from an archive and the path of its keys.
fn from_lists<T>(
    suites: &str,
    apt: &Path,
    lines: impl Fn(&str, &str) -> String,
    take: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let keyring = KEYRINGS.iter().find(|path| Path::new(path).exists());
    let keyring =
        keyring.context("the keys of the Debian archive are missing (package debian-archive-keyring)")?;
    for folder in ["lists/partial", "cache/archives/partial", "etc"] {
        fs::create_dir_all(apt.join(folder))?;
    }
    // An empty status file: nothing counts as installed, so that everything needed is downloaded.
    fs::write(apt.join("status"), "")?;
    // The system's hooks refresh the system's caches: not our business.
    let hooks = ["Pre-Invoke", "Post-Invoke", "Post-Invoke-Success"];
    let cleared: String = hooks.iter().map(|hook| format!("#clear APT::Update::{hook};\n")).collect();
    fs::write(apt.join("apt.conf"), cleared)?;
    let mut failures = String::new();
    for archive in archives()? {
        fs::write(apt.join("sources.list"), lines(&archive, keyring))?;
        match succeeded("apt-get update", apt_get(apt).args(["update", "--error-on=any"]).output()) {
            Ok(_) => return take(),
            Err(error) => failures += &format!("{archive}: {error:#}. "),
        }
    }
    bail!("this machine's apt knows no Debian archive that has {}: {}", suites, failures.trim_end())
}

/// The packages that apt downloaded.
pub(super) fn downloaded(apt: &Path) -> Result<Vec<PathBuf>> {
    let mut packages = Vec::new();
    for entry in fs::read_dir(apt.join("cache/archives"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            packages.push(path);
        }
    }
    Ok(packages)
}

/// apt with lists, status and cache of its own, and the machine's settings for the network.
pub(crate) fn apt_get(apt: &Path) -> Command {
    let mut command = Command::new("apt-get");
    command.env("LC_ALL", "C").arg("--quiet").arg("--config-file").arg(apt.join("apt.conf"));
    let folders = [
        ("Dir::Etc::SourceList", "sources.list"),
        ("Dir::Etc::Preferences", "etc/preferences"),
        ("Dir::Etc::PreferencesParts", "etc/preferences.d"),
        ("Dir::State::Lists", "lists"),
        ("Dir::State::status", "status"),
        ("Dir::State::extended_states", "extended_states"),
        ("Dir::Cache", "cache"),
        ("Dir::Log", "log"),
    ];
    for (name, below) in folders {
        command.arg("-o").arg(format!("{name}={}", apt.join(below).display()));
    }
    let settings = [
        "Dir::Etc::SourceParts=-",
        "APT::Install-Recommends=0",
        "APT::Default-Release=",
        // As root apt would work as another user, who cannot write here.
        "APT::Sandbox::User=",
        "Acquire::Languages=none",
        "Acquire::Retries=2",
        "Acquire::http::Timeout=30",
        "Acquire::https::Timeout=30",
    ];
    for setting in settings {
        command.args(["-o", setting]);
    }
    command
}

/// The lines of a sources.list.
fn sources(archive: &str, suites: &[&str], architecture: &str, keyring: &str) -> String {
    let line = |suite: &&str| {
        format!("deb [arch={architecture} target=Packages signed-by={keyring}] {archive} {suite} main\n")
    };
    suites.iter().map(line).collect()
}

/// The Debian archives that this machine's apt is configured for.
fn archives() -> Result<Vec<String>> {
    // Printed from the configuration alone: it works without root and before any `apt-get update`.
    let output = Command::new("apt-get").env("LC_ALL", "C").args(["--print-uris", "update"]).output();
    let found = debian_archives(&succeeded("apt-get", output)?);
    ensure!(!found.is_empty(), "this machine's apt has no Debian archive among its sources");
    Ok(found)
}

/// The Debian archives in apt's listing of index files: `'ARCHIVE/dists/SUITE/...' name size`.
fn debian_archives(listing: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in listing.lines() {
        let Some((archive, rest)) = line.strip_prefix('\'').and_then(|line| line.split_once("/dists/"))
        else {
            continue;
        };
        let suite = rest.split('/').next().unwrap_or_default();
        if DEBIAN_SUITES.contains(&suite) && !found.iter().any(|known| known == archive) {
            found.push(archive.to_string());
        }
    }
    found
}

/// What a tool printed, or an error with the first warning or error that it complained with.
pub(crate) fn succeeded(tool: &str, output: std::io::Result<std::process::Output>) -> Result<String> {
    let output = output.with_context(|| format!("{tool} cannot be run (this needs a Debian system)"))?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    let first = complaint.lines().find(|line| line.starts_with("E: ") || line.starts_with("W: "));
    let message = first.or_else(|| complaint.lines().last()).unwrap_or("no message");
    ensure!(output.status.success(), "{tool} failed: {message}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_archives_are_told_from_others() {
        let listing = "Reading package lists...\n\
            'http://mirror.example/debian/dists/bookworm/InRelease' mirror.example_x 0 \n\
            'http://mirror.example/debian/dists/bookworm/main/binary-amd64/Packages.xz' x 0\n\
            'http://mirror.example/debian/dists/bookworm-updates/InRelease' x 0\n\
            'http://mirror.example/debian-security/dists/bookworm-security/InRelease' x 0\n\
            'mirror+file:/etc/apt/mirrors/debian.list/dists/trixie/InRelease' x 0\n\
            'https://tools.example/apt/dists/nodistro/InRelease' x 0\n";
        assert_eq!(
            debian_archives(listing),
            ["http://mirror.example/debian", "mirror+file:/etc/apt/mirrors/debian.list"]
        );
    }

    #[test]
    fn sources_name_archive_suite_and_key() {
        let text = sources("http://m.example/debian", &["a", "b"], "amd64", "/k.gpg");
        let line = "deb [arch=amd64 target=Packages signed-by=/k.gpg] http://m.example/debian";
        assert_eq!(text, format!("{line} a main\n{line} b main\n"));
    }

    #[test]
    fn a_failing_tool_is_named_with_its_complaint() {
        let error = succeeded(
            "false",
            Command::new("sh").args(["-c", "echo 'E: no space' >&2; echo bye >&2; exit 1"]).output(),
        );
        assert_eq!(error.unwrap_err().to_string(), "false failed: E: no space");
        let error = succeeded("absent-tool", Command::new("absent-tool").output()).unwrap_err();
        assert!(error.to_string().starts_with("absent-tool cannot be run"));
    }
}
