//! `cargo xtask conformance`: every kernel on every implementation of WebGPU that this machine can have.
//!
//! The cases and their judge are the program in `tools/conformance/`; here it is started under each implementation, and
//! what is missing is fetched. A failure on one of them is a failure; one that cannot be had is named as missing, and
//! fails nothing: what a machine can have is not the kernels' fault.

mod implementations;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Error, Result, bail, ensure};

use crate::length::Length;
use crate::node::DAWN;
use crate::programs::COMPILE_AT_ONCE;
use crate::software::Launcher;
use crate::steps::Steps;
use crate::turns::{self, REASON};
use crate::{build, steps};
use implementations::{IMPLEMENTATIONS, Implementation, Set, Through};

const HELP: &str = "\
cargo xtask conformance [OPTIONS]

Every kernel on every implementation: worst error / bound of each.

  --quick        the implementations and cases that `cargo xtask test --long` has
  --on NAME      only implementations whose name contains this (repeat for more)
  --only TEXT    only cases whose kernel and name contain this
  --bless        write docs/CONFORMANCE.md (with all cases, of all implementations)
  --list         name the implementations

Results, a line of JSON a case, stay beside the program: target/debug/conformance-results.
Exit status 1 if a case failed; an implementation that cannot be had is named as missing.";

/// The step of `cargo xtask test`.
pub(crate) const STEP: &str = "other implementations";

/// How many implementations a run of the tests has that is not long, with the tiny cases.
const BY_TURNS: usize = 2;

/// The committed page.
const PAGE: &str = "docs/CONFORMANCE.md";

/// What to run.
#[derive(Debug, Default, PartialEq)]
struct Options {
    quick: bool,
    /// Of the quick ones, those with each kernel on a handful of elements.
    tiny: bool,
    on: Vec<String>,
    only: String,
    bless: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    match arguments.first().map(String::as_str) {
        Some("--help" | "-h") => println!("{HELP}"),
        Some("--list") => IMPLEMENTATIONS.iter().for_each(|one| println!("{}", one.name)),
        _ => chosen(&options(arguments)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Those that a run of the tests has, and those that it leaves to others.
fn drawn(length: Length) -> (Vec<&'static Implementation>, Vec<&'static Implementation>) {
    let all: Vec<_> = IMPLEMENTATIONS.iter().filter(|one| one.quick.is_some()).collect();
    let many = if length == Length::Long { all.len() } else { BY_TURNS };
    let taken: Vec<_> = turns::some(many, all.len()).into_iter().map(|place| all[place].name).collect();
    all.into_iter().partition(|one| taken.contains(&one.name))
}

/// The step of `cargo xtask test`: some of the implementations, all in a long run.
pub(crate) fn step(steps: &mut Steps, length: Length) {
    let (mine, left) = drawn(length);
    left.iter().for_each(|one| steps.not_run(&format!("{STEP}: {}", one.name), REASON));
    let (there, missing) = fetch(mine.into_iter());
    for (one, reason) in &missing {
        steps.not_run(&format!("{STEP}: {}", one.name), format!("{reason:#}"));
    }
    if !there.is_empty() {
        let quick = Options { quick: true, tiny: length != Length::Long, ..Options::default() };
        steps.run(STEP, || compare(&quick, &there, &missing));
    }
}

/// Reads the command line.
fn options(arguments: &[String]) -> Result<Options> {
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().with_context(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--quick" => options.quick = true,
            "--on" => options.on.push(value()?.clone()),
            "--only" => options.only = value()?.clone(),
            "--bless" => options.bless = true,
            unknown => bail!("unknown option `{unknown}`; see --help"),
        }
    }
    let narrowed = options.quick || !options.on.is_empty() || !options.only.is_empty();
    ensure!(!(options.bless && narrowed), "--bless writes the whole table: not with --quick, --on or --only");
    Ok(options)
}

/// What is there and what is not, with the reason.
type Fetched = (Vec<(&'static Implementation, Launcher)>, Missing);
type Missing = Vec<(&'static Implementation, Error)>;

/// Fetches what is missing of these.
fn fetch(wanted: impl Iterator<Item = &'static Implementation>) -> Fetched {
    let (mut there, mut missing) = (Vec::new(), Vec::new());
    for one in wanted {
        match one.fetch() {
            Ok(launcher) => there.push((one, launcher)),
            Err(reason) => missing.push((one, reason)),
        }
    }
    (there, missing)
}

/// Chooses implementations by the options, and runs the cases on them.
fn chosen(options: &Options) -> Result<()> {
    let named = |one: &&Implementation| {
        options.on.is_empty() || options.on.iter().any(|name| one.name.contains(name.as_str()))
    };
    let wanted: Vec<_> =
        IMPLEMENTATIONS.iter().filter(named).filter(|one| !options.quick || one.quick.is_some()).collect();
    ensure!(!wanted.is_empty(), "no implementation is called that; see --list");
    let (there, missing) = fetch(wanted.into_iter());
    compare(options, &there, &missing)
}

/// Runs the cases on what is there, and puts the results side by side.
fn compare(options: &Options, there: &[(&Implementation, Launcher)], missing: &Missing) -> Result<()> {
    let reason = |(one, error): &(&Implementation, Error)| format!("{}={error:#}", one.name);
    let missing: Vec<_> = missing.iter().map(reason).collect();
    ensure!(!there.is_empty(), "none is there: {}", missing.join("; "));
    let program = program()?;
    let folder = program.with_file_name("conformance-results");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;

    let ran = on_each(options, there, &program, &folder);
    let failed: Vec<_> = ran.iter().filter(|one| one.failed).map(|one| one.name).collect();
    let written = ran.iter().filter(|one| one.out.is_file());
    let results: Vec<_> = written.map(|one| format!("{}={}", one.name, one.out.display())).collect();
    ensure!(!results.is_empty(), "nothing ran on {}", failed.join(", "));
    let mut table = Command::new(&program);
    table.arg("table").args(&results);
    for missing in &missing {
        table.args(["--missing", missing]);
    }
    if options.bless && failed.is_empty() {
        table.arg("--page").arg(steps::root().join(PAGE)).args(["--date", &today()?]);
    }
    println!();
    ensure!(table.status()?.success(), "the table could not be made");
    ensure!(failed.is_empty(), "failed on: {}", failed.join(", "));
    Ok(())
}

/// The program with the cases.
pub(crate) fn program() -> Result<PathBuf> {
    build::with_tests("export", "conformance")
}

/// The day, in UTC.
fn today() -> Result<String> {
    let output = Command::new("date").args(["-u", "+%F"]).output().context("date")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
}

/// Runs the cases on each implementation; how each ran, in the same order.
fn on_each(
    options: &Options,
    there: &[(&Implementation, Launcher)],
    program: &Path,
    folder: &Path,
) -> Vec<Outcome> {
    let on_one = |n: usize, (one, launcher): &(&Implementation, Launcher)| {
        eprintln!("-- {} ...", one.name);
        let out = folder.join(format!("{n}.jsonl"));
        let _ = fs::remove_file(&out);
        let set = match one.quick {
            _ if !options.quick => one.set,
            Some(set) if !options.tiny => set,
            _ => Set::Tiny,
        };
        let set = ["--set", set.name(), "--only", options.only.as_str()];
        let run =
            Run { program, set: &set, quick: options.quick, out: &out, folder: &folder.join(n.to_string()) };
        let mut said = String::new();
        let result = run.on(one, launcher, &mut said);
        let error = result.as_ref().err().map(|error| format!("   {error:#}\n")).unwrap_or_default();
        eprint!("\n-- {}\n{said}{error}", one.name);
        Outcome { name: one.name, failed: result.is_err(), out }
    };
    // An implementation compiles and runs on one core for the most part: as many at a time as there are cores.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let ran: Vec<_> = there.iter().map(|_| OnceLock::new()).collect();
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some(one) = there.get(n) else { break };
                    let _ = ran[n].set(on_one(n, one));
                }
            });
        }
    });
    ran.into_iter().filter_map(OnceLock::into_inner).collect()
}

/// How an implementation ran.
struct Outcome {
    name: &'static str,
    failed: bool,
    /// Where its results are, if it came to any.
    out: PathBuf,
}

/// A run of the cases.
struct Run<'a> {
    program: &'a Path,
    set: &'a [&'a str],
    /// Whether wgpu's compile at once, instead of well: Dawn's are optimized all the same.
    quick: bool,
    out: &'a Path,
    /// For what is only needed on the way.
    folder: &'a Path,
}

impl Run<'_> {
    /// Runs the cases on an implementation; results go to `out`, and what the programs say to `said`.
    fn on(&self, one: &Implementation, launcher: &Launcher, said: &mut String) -> Result<()> {
        match &one.through {
            Through::Wgpu { settings, arguments, .. } => {
                let mut command = launcher.command(self.program);
                command.arg("run").arg("--out").arg(self.out).args(self.set);
                command
                    .args(*arguments)
                    .envs(settings.iter().copied())
                    .envs(self.quick.then_some(COMPILE_AT_ONCE));
                succeed(&mut command, said)
            }
            Through::Dawn => {
                let cases = self.folder;
                let _ = fs::remove_dir_all(cases);
                succeed(Command::new(self.program).arg("export").arg(cases).args(self.set), said)?;
                let script = steps::root().join("tools/conformance/js/replay.mjs");
                let mut node = launcher.command("node");
                // The driver is the fetched one; what else Dawn says of adapters it does not use is no news.
                succeed(node.arg(script).arg(DAWN.main()?).arg(cases), said)?;
                let mut judge = Command::new(self.program);
                succeed(judge.arg("judge").arg(cases).arg("--out").arg(self.out).args(self.set), said)?;
                Ok(fs::remove_dir_all(cases)?)
            }
        }
    }
}

/// Runs a command; the error is its status, for it has said the rest.
fn succeed(command: &mut Command, said: &mut String) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {:?}", command.get_program()))?;
    said.push_str(&String::from_utf8_lossy(&output.stdout));
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}", output.status);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Options> {
        options(&line.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_read() {
        assert_eq!(read("").unwrap(), Options::default());
        let some = read("--quick --on Dawn --on lavapipe --only norm").unwrap();
        assert!(some.quick && some.on == ["Dawn", "lavapipe"] && some.only == "norm" && !some.bless);
        assert!(read("--bless").unwrap().bless);
    }

    #[test]
    fn wrong_options_are_named() {
        assert!(read("--fast").unwrap_err().to_string().contains("`--fast`"));
        assert!(read("--on").unwrap_err().to_string().contains("--on"));
        assert!(read("--bless --quick").unwrap_err().to_string().contains("--quick"));
    }

    #[test]
    fn names_tell_implementations_apart_and_some_run_with_every_change() {
        for (n, one) in IMPLEMENTATIONS.iter().enumerate() {
            assert!(IMPLEMENTATIONS[..n].iter().all(|other| other.name != one.name), "{}", one.name);
        }
        assert!(IMPLEMENTATIONS.iter().any(|one| one.quick.is_some()));
    }

    #[test]
    fn implementations_take_turns_and_a_long_run_has_all_of_them() {
        let names = |list: &[&Implementation]| list.iter().map(|one| one.name).collect::<Vec<_>>();
        let (all, none) = drawn(Length::Long);
        let quick = IMPLEMENTATIONS.iter().filter(|one| one.quick.is_some()).count();
        assert!(all.len() == quick && none.is_empty());
        let mut seen = std::collections::HashSet::new();
        for _ in 0..100 {
            let (mine, left) = drawn(Length::Usual);
            assert_eq!((mine.len(), left.len()), (BY_TURNS, quick - BY_TURNS));
            assert!(names(&mine).iter().all(|name| !names(&left).contains(name)));
            seen.extend(names(&mine));
        }
        assert_eq!(seen.len(), quick, "each has its turn");
    }
}
