//! `cargo xtask newcomer`: what the README promises, done by someone who has only the README.
//!
//! A new crate outside the workspace gets the README's `cargo add` lines and its Rust blocks, nothing else. Blocks with a
//! `main` are programs, and run on the adapter; the others are compiled.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::build;
use crate::software::Launcher;
use crate::steps::{self, root};

/// The step's name.
pub(crate) const STEP: &str = "newcomer";
/// What the README's lines call this crate, which is not to be had by that name before it is published.
const CRATE: &str = "wgpu-attention";

/// What the README tells a newcomer to do.
#[derive(Debug, Default, PartialEq)]
struct Promises {
    /// The words after `cargo add`, line by line.
    additions: Vec<Vec<String>>,
    /// The Rust blocks.
    blocks: Vec<String>,
}

/// Does it.
pub(crate) fn check(launcher: &Launcher) -> Result<()> {
    let text = fs::read_to_string(root().join("README.md")).context("README.md")?;
    let promises = promises(&text);
    ensure!(!promises.additions.is_empty(), "the README does not say how to add the crate");
    ensure!(promises.blocks.iter().any(|block| is_program(block)), "the README has no program to begin with");
    let crate_ = Crate::new()?;
    crate_.add(&promises)?;
    crate_.build()?;
    for (n, block) in promises.blocks.iter().enumerate().filter(|(_, block)| is_program(block)) {
        let program =
            build::target()?.join("debug").join(format!("{}{}", name(n), std::env::consts::EXE_SUFFIX));
        eprintln!("   the README's program {} ({})", n + 1, block.lines().next().unwrap_or_default());
        let output = launcher.command(&program).output()?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "the README's program {}: {}: {out}{err}", n + 1, output.status);
        ensure!(
            !out.trim().is_empty(),
            "the README's program {} prints nothing: does it do anything?",
            n + 1
        );
        eprintln!("   {}", out.trim());
    }
    Ok(())
}

/// The binary made of a block.
fn name(block: usize) -> String {
    format!("newcomer-{}", block + 1)
}

/// Whether a block runs by itself.
fn is_program(block: &str) -> bool {
    block.lines().any(|line| line.starts_with("fn main()"))
}

/// Reads the README: the `cargo add` lines of its shell blocks, and its Rust blocks.
fn promises(readme: &str) -> Promises {
    let mut promises = Promises::default();
    let mut lines = readme.lines();
    while let Some(line) = lines.next() {
        let Some(language) = line.strip_prefix("```") else { continue };
        let block: Vec<_> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
        match language.split(',').next() {
            Some("rust") => promises.blocks.push(block.join("\n") + "\n"),
            Some("sh") => promises.additions.extend(block.iter().filter_map(|line| addition(line))),
            _ => {}
        }
    }
    promises
}

/// The words of a `cargo add` line, without its comment.
fn addition(line: &str) -> Option<Vec<String>> {
    let line = line.split(" #").next()?.trim().strip_prefix("cargo add ")?;
    Some(line.split_whitespace().map(String::from).collect())
}

/// A crate in a folder of its own, which goes with this value.
struct Crate {
    folder: PathBuf,
}

impl Crate {
    /// As `cargo new` makes it, with the versions that are tested here.
    fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("wgpu-attention-newcomer-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let crate_ = Self { folder };
        let new = ["new", "--quiet", "--vcs", "none", "--name", "newcomer"];
        run(crate_.cargo(Path::new("/")).args(new).arg(&crate_.folder))?;
        fs::copy(root().join("Cargo.lock"), crate_.folder.join("Cargo.lock"))?;
        Ok(crate_)
    }

    /// Adds what the README says, this crate by its path, and puts each block into a file.
    fn add(&self, promises: &Promises) -> Result<()> {
        for words in &promises.additions {
            let mut add = self.cargo(&self.folder);
            add.args(["add", "--quiet", "--offline"]);
            for word in words {
                if word == CRATE {
                    add.arg("--path").arg(root())
                } else {
                    add.arg(word)
                };
            }
            run(&mut add)?;
        }
        let folder = self.folder.join("src/bin");
        fs::create_dir_all(&folder)?;
        for (n, block) in promises.blocks.iter().enumerate() {
            let rest = if is_program(block) { "" } else { "\n#[allow(unused)]\nfn main() {}\n" };
            fs::write(folder.join(format!("{}.rs", name(n))), format!("{block}{rest}"))?;
        }
        Ok(())
    }

    /// Builds all of it, into the workspace's folder where what other crates are built by is there already.
    fn build(&self) -> Result<()> {
        let mut build = self.cargo(&self.folder);
        build.args(["build", "--offline", "--bins"]).env("CARGO_TARGET_DIR", build::target()?);
        // As the workspaces' profile is: a newcomer's brings what debuggers need, which takes half of the time, and no crate of it would
        // be there already.
        build.env("CARGO_PROFILE_DEV_DEBUG", "false").env("CARGO_PROFILE_DEV_OPT_LEVEL", "1");
        build.env("CARGO_PROFILE_DEV_CODEGEN_UNITS", "16");
        run(&mut build)
    }

    /// Cargo in a folder, free of what this workspace's cargo told us.
    fn cargo(&self, folder: &Path) -> Command {
        let mut cargo = steps::cargo();
        cargo.current_dir(folder);
        cargo
    }
}

impl Drop for Crate {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Runs a command; its output is shown.
fn run(command: &mut Command) -> Result<()> {
    let line = steps::words(command);
    eprintln!("   {line}");
    let status = command.status().with_context(|| format!("cannot run `{line}`"))?;
    ensure!(status.success(), "`{line}`: {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const README: &str = "\
# It\n\n```sh\ncargo add it --features a  # with a\ncargo test\n```\n
```rust,no_run\nfn main() {\n    it::run();\n}\n```\n\n```text\nfn main() {}\n```\n
```rust\nfn part() {}\n```\n\n```sh\ncargo add other\n```\n";

    #[test]
    fn the_readme_is_read() {
        let promises = promises(README);
        assert_eq!(promises.additions, [vec!["it", "--features", "a"], vec!["other"]]);
        assert_eq!(promises.blocks, ["fn main() {\n    it::run();\n}\n", "fn part() {}\n"]);
        assert!(is_program(&promises.blocks[0]) && !is_program(&promises.blocks[1]));
    }

    #[test]
    fn ours_has_a_first_program() {
        let text = fs::read_to_string(root().join("README.md")).unwrap();
        let promises = promises(&text);
        assert!(promises.additions.iter().flatten().any(|word| word == CRATE));
        assert!(is_program(&promises.blocks[0]));
    }

    #[test]
    fn a_crate_is_made_as_the_readme_says_and_goes() {
        let promises = Promises {
            additions: vec![vec![CRATE.into(), "--no-default-features".into()]],
            blocks: vec!["fn main() {}\n".into(), "fn part() {}\n".into()],
        };
        let crate_ = Crate::new().unwrap();
        crate_.add(&promises).unwrap();
        let manifest = fs::read_to_string(crate_.folder.join("Cargo.toml")).unwrap();
        assert!(manifest.contains("wgpu-attention = {") && manifest.contains("default-features = false"));
        let part = fs::read_to_string(crate_.folder.join("src/bin/newcomer-2.rs")).unwrap();
        assert!(part.starts_with("fn part() {}\n") && part.contains("fn main() {}"));
        let folder = crate_.folder.clone();
        drop(crate_);
        assert!(!folder.exists());
    }
}
