//! The tests: `cargo test`, whose programs are run by us.
//!
//! Cargo runs one test program after the other, and most end with a test or two that leave the other processors idle. So cargo starts
//! each through `xtask run-test`, which notes down how to run it; once all are noted, they are [`Job`]s, run beside each other and beside
//! the steps. Doc tests run under cargo as ever: they use all processors. Of the longest programs a run has some of the tests (`shares.rs`).

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};

use crate::jobs::{AT_ONCE, Job, read_lines, say};
use crate::length::Length;
use crate::shares::{Drawn, Share};
use crate::slowest::Times;
use crate::software::Launcher;
use crate::turns::REASON;
use crate::{build, steps};

/// The command by which cargo starts a test program.
pub(crate) const RUNNER: &str = "run-test";
/// Tells the runner the folder of its notes.
const NOTES: &str = "WGPU_ATTENTION_TEST_NOTES";
/// Cases drawn for each property, where it is not left to the property.
const CASES: &str = "PROPTEST_CASES";
/// How many of a program's tests run at once.
const THREADS: &str = "RUST_TEST_THREADS";
/// The variable by which tests know of a long run (`crates/testing/src/turns.rs`).
const LONG: &str = "WGPU_ATTENTION_LONG";
/// How Mesa's software adapters compile: at once, instead of well. Nearly all kernels of the tests run for a moment, and LLVM spends
/// three to five times that on each (backward, d = 64: 1.3 s, and 0.3 s in this way; llvmpipe of Mesa 26.1, 2026-11-29). What
/// optimized code computes, Dawn in the table of implementations, the newcomer's program and the benchmark's checks see.
pub(crate) const COMPILE_AT_ONCE: (&str, &str) = ("GALLIVM_PERF", "nopt");

/// A test program as cargo would have run it.
#[derive(Debug, PartialEq)]
struct Program {
    folder: PathBuf,
    words: Vec<String>,
    environment: Vec<(String, String)>,
}

/// What is to be run.
pub(crate) struct Built {
    pub(crate) jobs: Vec<Job>,
    /// Names of programs, and what of their tests this run leaves out.
    pub(crate) left_out: Vec<(String, String)>,
}

/// Builds all tests and runs the doc tests; gives the test programs, those too that were built beside others that could not be.
///
/// A quick run draws fewer cases for each property, and a long one more, unless `PROPTEST_CASES` says how many.
pub(crate) fn build(
    launcher: &Launcher,
    length: Length,
    arguments: &[String],
    times: &mut Times,
) -> Result<(Built, Result<()>)> {
    let notes = build::target()?.join(format!("test-notes-{}", std::process::id()));
    std::fs::create_dir_all(&notes).with_context(|| format!("cannot make {}", notes.display()))?;
    let mut failed = vec![];
    for words in runs(length, arguments) {
        let mut cargo = launcher.cargo_through(&[&build::ourselves()?, Path::new(RUNNER)])?;
        settings(&mut cargo, length);
        cargo.current_dir(steps::root()).env(NOTES, &notes);
        cargo.args(["test", "--workspace", "--all-features", "--no-fail-fast"]).args(*words).args(arguments);
        let line = steps::words(&cargo);
        eprintln!("   {line}");
        let status = read_lines(&mut cargo, |line| {
            say(line);
            times.hear_cargo(line, Instant::now());
        })?;
        times.end_cargo(Instant::now());
        failed.extend((!status.success()).then(|| format!("`{line}`: {status}")));
    }
    let programs = noted(&notes);
    let _ = std::fs::remove_dir_all(&notes);
    // Whoever names tests is to have them.
    let length = if arguments.is_empty() { length } else { Length::Long };
    let built = jobs(programs?, length)?;
    Ok((built, if failed.is_empty() { Ok(()) } else { Err(anyhow!("{}", failed.join("; "))) }))
}

/// The programs with the tests that a run of this length has.
fn jobs(programs: Vec<Program>, length: Length) -> Result<Built> {
    let mut built = Built { jobs: vec![], left_out: vec![] };
    for mut program in programs {
        let name = program.name();
        if let Some(share) = Share::of(&name, &program.folder, length) {
            let tests = program.tests()?;
            let many = tests.len();
            let Drawn { taken, left } = share.draw(tests, length)?;
            if !left.is_empty() {
                say(&format!("{name}: {REASON}: {}", left.join(", ")));
                let few = format!("{} of its {many} tests, named above: {REASON}", left.len());
                built.left_out.push((name, few));
                // Without a name it would run all.
                if taken.is_empty() {
                    continue;
                }
                program.words.push("--exact".into());
                program.words.extend(taken);
            }
        }
        built.jobs.push(program.job());
    }
    Ok(built)
}

/// The targets of each run of cargo's, which builds everything where none are named: examples are only linked in a long run, since clippy
/// has checked them. `--tests` are all targets with tests, and the programs that they start; `--lib` and `--bins` would link those
/// without any, too. The caller may name others.
fn runs(length: Length, arguments: &[String]) -> &'static [&'static [&'static str]] {
    match length == Length::Long || !arguments.is_empty() {
        true => &[&[]],
        false => &[&["--tests"], &["--doc"]],
    }
}

/// What the tests are told by the environment, where the caller does not say it.
fn settings(cargo: &mut Command, length: Length) {
    let mut unless_set = |name: &str, value: &str| {
        if std::env::var_os(name).is_none() {
            cargo.env(name, value);
        }
    };
    if let Some(cases) = length.cases() {
        unless_set(CASES, cases);
    }
    unless_set(COMPILE_AT_ONCE.0, COMPILE_AT_ONCE.1);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().div_ceil(AT_ONCE));
    unless_set(THREADS, &threads.to_string());
    if length == Length::Long {
        cargo.env(LONG, "1");
    }
    if std::io::stderr().is_terminal() {
        cargo.env("CARGO_TERM_COLOR", "always");
    }
}

impl Program {
    /// Its name without cargo's hash.
    fn name(&self) -> String {
        let program = self.words.iter().find(|word| is_test(Path::new(word))).map_or("", String::as_str);
        let stem = Path::new(program).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        stem.rsplit_once('-').map_or(stem.clone(), |(name, _)| name.to_string())
    }

    /// As cargo would have started it.
    fn command(&self) -> Command {
        let (first, rest) = self.words.split_first().expect("a note has words");
        let mut command = Command::new(first);
        command.args(rest).current_dir(&self.folder).env_clear();
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The same, as a job.
    fn job(&self) -> Job {
        let mut command = self.command();
        tell_times(&mut command);
        Job { name: self.name(), command }
    }

    /// The names of its tests.
    fn tests(&self) -> Result<Vec<String>> {
        let output = self.command().args(["--list", "--format", "terse"]).output();
        let output = output.with_context(|| format!("cannot run {}", self.name()))?;
        ensure!(output.status.success(), "{} does not list its tests: {}", self.name(), output.status);
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(lines.lines().filter_map(|line| Some(line.strip_suffix(": test")?.into())).collect())
    }

    /// One text of all parts, none of which holds a NUL.
    fn note(&self) -> String {
        let environment = self.environment.iter().map(|(name, value)| format!("{name}={value}"));
        let words = [self.folder.to_string_lossy().into_owned(), self.words.len().to_string()];
        words.into_iter().chain(self.words.iter().cloned()).chain(environment).collect::<Vec<_>>().join("\0")
    }

    /// The program of a note.
    fn from_note(note: &str) -> Result<Self> {
        let mut parts = note.split('\0').map(String::from);
        let folder = parts.next().context("a note without a folder")?.into();
        let words: usize = parts.next().context("a note without words")?.parse()?;
        let words: Vec<_> = parts.by_ref().take(words).collect();
        ensure!(!words.is_empty(), "a note without a program");
        let pair = |part: String| part.split_once('=').map(|(name, value)| (name.into(), value.into()));
        let environment = parts.map(|part| pair(part).context("a variable without a value"));
        Ok(Self { folder, words, environment: environment.collect::<Result<_>>()? })
    }
}

/// The programs that the runner has noted down, in cargo's order.
fn noted(folder: &Path) -> Result<Vec<Program>> {
    let mut files: Vec<_> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    files.iter().map(|file| Program::from_note(&std::fs::read_to_string(file)?)).collect()
}

/// `run-test [LAUNCHER] PROGRAM ARGS`: notes down how to run a test program, and runs a doc test.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let (program, rest) = arguments.split_first().context("run-test: no program")?;
    // The launcher, where there is one, comes first; doc tests are built elsewhere.
    let is_test = arguments.iter().take(2).any(|word| is_test(Path::new(word)));
    let Some(notes) = std::env::var_os(NOTES).filter(|_| is_test) else {
        return become_(Command::new(program).args(rest)).with_context(|| format!("cannot run {program}"));
    };
    let environment = std::env::vars_os().filter(|(name, _)| name != NOTES);
    let environment =
        environment.map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let program = Program {
        folder: std::env::current_dir()?,
        words: arguments.to_vec(),
        // What is no text, no test asks for.
        environment: environment.flatten().collect(),
    };
    let number = std::fs::read_dir(&notes)?.count();
    std::fs::write(Path::new(&notes).join(format!("{number:06}")), program.note())?;
    Ok(ExitCode::SUCCESS)
}

/// Lets a test program tell the time of each test: libtest tells it only to those who may use what is unstable. A compiler that is told
/// so would build every crate anew, so the programs alone are.
fn tell_times(command: &mut Command) {
    command.env("RUSTC_BOOTSTRAP", "1").args(["-Z", "unstable-options", "--report-time"]);
}

/// Whether cargo built this program as a test.
fn is_test(program: &Path) -> bool {
    let folder = program.parent().and_then(Path::file_name);
    folder.is_some_and(|folder| folder == "deps" || folder == "examples")
}

/// Becomes the program, so that cargo sees how it ends.
#[cfg(unix)]
fn become_(command: &mut Command) -> Result<ExitCode> {
    Err(std::os::unix::process::CommandExt::exec(command).into())
}

/// Runs the program, and ends as it does.
#[cfg(not(unix))]
fn become_(command: &mut Command) -> Result<ExitCode> {
    Ok(build::exit_code(command.status()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(script: &str, name: &str) -> Program {
        Program {
            folder: std::env::temp_dir(),
            words: ["sh", "-c", script, &format!("/target/deps/{name}-0a1b")].map(String::from).to_vec(),
            environment: vec![("PATH".into(), "/usr/bin:/bin".into()), ("A".into(), "b=c\nd".into())],
        }
    }

    #[test]
    fn a_note_says_all() {
        let program = program("echo", "api");
        assert_eq!(Program::from_note(&program.note()).unwrap(), program);
        assert_eq!(program.name(), "api");
        assert!(Program::from_note("").is_err() && Program::from_note("/\0x\0").is_err());
    }

    #[test]
    #[cfg(unix)]
    fn a_program_runs_as_cargo_would_have_run_it() {
        let mut lines = vec![];
        let mut job = program("echo \"test a ... ok <0.500s>$A|$HOME\"; pwd", "good").job();
        assert!(read_lines(&mut job.command, |line| lines.push(line.to_string())).unwrap().success());
        let here = std::env::temp_dir().canonicalize().unwrap().display().to_string();
        assert_eq!(
            (job.name.as_str(), lines),
            ("good", vec!["test a ... ok <0.500s>b=c".into(), "d|".into(), here])
        );
    }

    #[test]
    #[cfg(unix)]
    fn what_a_run_leaves_out_is_said_and_not_asked_for() {
        // It lists 9 tests, or says what it is asked for.
        let script = "case $* in *--list*) for n in 1 2 3 4 5 6 7 8 9; do echo t::$n: test; done; echo b: bench ;; \
                      *) echo $* ;; esac";
        let (folder, name) = Share::some_program();
        let programs = || {
            let mut ours = program(script, name);
            ours.folder = folder.clone();
            vec![program(script, "another"), ours]
        };
        let asked = |mut built: Built| {
            let mut words = vec![];
            for job in &mut built.jobs {
                read_lines(&mut job.command, |line| words.push(line.to_string())).unwrap();
            }
            (words, built.left_out)
        };
        let (all, none) = asked(jobs(programs(), Length::Long).unwrap());
        assert!(none.is_empty() && all.iter().all(|words| !words.contains("--exact")), "{all:?}");
        let (some, left) = asked(jobs(programs(), Length::Usual).unwrap());
        assert_eq!(some[0], all[0]);
        let (_, named) = some[1].split_once("--exact ").unwrap();
        let named = named.split(' ').filter(|word| word.starts_with("t::")).count();
        assert!(named > 0 && named < 9, "{some:?}");
        let text = format!("{} of its 9 tests, named above: {REASON}", 9 - named);
        assert_eq!(left, [(name.to_string(), text)]);
    }

    #[test]
    fn doc_tests_are_run_whatever_else_is_built() {
        assert_eq!(runs(Length::Usual, &[]).last(), Some(&&["--doc"][..]));
        assert_eq!(runs(Length::Long, &[]), [&[] as &[&str]]);
        assert_eq!(runs(Length::Quick, &["--lib".into()]), [&[] as &[&str]]);
    }

    #[test]
    fn only_test_programs_are_noted() {
        assert!(
            is_test(Path::new("/w/target/debug/deps/api-1"))
                && is_test(Path::new("/w/target/debug/examples/train-1"))
                && !is_test(Path::new("/tmp/rustdoc/rust_out"))
        );
    }
}
