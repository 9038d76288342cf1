//! The tests: `cargo test`, whose programs run two at a time.
//!
//! Cargo runs one test program after the other, and most end with a test or two that leave the other processors idle. So cargo starts
//! each through `xtask run-test`, which notes down how to run it; once all are noted, [`AT_ONCE`] of them run together, those that
//! take longest first. Doc tests run under cargo as ever: they use all processors.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, IsTerminal, Write, pipe};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};

use crate::length::Length;
use crate::slowest::Times;
use crate::software::Launcher;
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
/// optimized code computes, the gates' other implementations, the newcomer's program and the benchmark's checks see.
const COMPILE_AT_ONCE: (&str, &str) = ("GALLIVM_PERF", "nopt");
/// How many programs run together. More would each wait for the memory of the others' devices and references.
const AT_ONCE: usize = 2;
/// The programs that take longest, in this order: begun last, one of them would run alone at the end.
const LONGEST: [&str; 9] =
    ["kernels", "cli", "lsh", "layer", "backward", "mutants", "robustness", "ranks", "tune"];

/// A test program as cargo would have run it.
#[derive(Debug, PartialEq)]
struct Program {
    folder: PathBuf,
    words: Vec<String>,
    environment: Vec<(String, String)>,
}

/// Runs all tests, and passes on what they say; a failure is the error.
///
/// A quick run draws fewer cases for each property, and a long one more, unless `PROPTEST_CASES` says how many.
pub(crate) fn test(launcher: &Launcher, length: Length, arguments: &[String]) -> Result<(Times, Result<()>)> {
    let notes = build::target()?.join(format!("test-notes-{}", std::process::id()));
    std::fs::create_dir_all(&notes).with_context(|| format!("cannot make {}", notes.display()))?;
    let mut cargo = launcher.cargo_through(&[&build::ourselves()?, Path::new(RUNNER)])?;
    settings(&mut cargo, length);
    cargo.args(["test", "--workspace", "--all-features", "--no-fail-fast"]).args(arguments);
    cargo.current_dir(steps::root()).env(NOTES, &notes);
    let line = steps::words(&cargo);
    eprintln!("   {line}");
    let mut times = Times::default();
    let status = read_lines(&mut cargo, |line| {
        say(line);
        times.hear_cargo(line, Instant::now());
    })?;
    times.end_cargo(Instant::now());
    let programs = noted(&notes);
    let _ = std::fs::remove_dir_all(&notes);
    let mut failed = run_all(programs?, &mut times)?;
    if !status.success() {
        failed.push(format!("{line}: {status}"));
    }
    Ok((times, if failed.is_empty() { Ok(()) } else { Err(anyhow!("{}", failed.join("; "))) }))
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

/// Runs the programs, [`AT_ONCE`] together; gives those that failed.
fn run_all(programs: Vec<Program>, times: &mut Times) -> Result<Vec<String>> {
    let many = programs.len();
    let waiting = Mutex::new(in_order(programs).into_iter().enumerate().collect::<VecDeque<_>>());
    let times = Mutex::new(times);
    let next = || waiting.lock().unwrap_or_else(|broken| broken.into_inner()).pop_front();
    let work = || -> Result<Vec<String>> {
        let mut failed = vec![];
        while let Some((index, program)) = next() {
            let name = program.name();
            say(&format!("     Running {name} ({} of {many})", index + 1));
            let began = Instant::now();
            let status = read_lines(&mut program.command()?, |line| {
                say(&format!("{name}: {line}"));
                times.lock().unwrap_or_else(|broken| broken.into_inner()).hear(&name, line);
            })?;
            times.lock().unwrap_or_else(|broken| broken.into_inner()).end(&name, began.elapsed());
            if !status.success() {
                failed.push(format!("{name}: {status}"));
            }
        }
        Ok(failed)
    };
    let results = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join()).collect::<Vec<_>>()
    });
    results.into_iter().try_fold(vec![], |mut all, result| {
        all.extend(result.map_err(|_| anyhow!("a thread that runs tests panicked"))??);
        Ok(all)
    })
}

/// The programs with the [`LONGEST`] first.
fn in_order(mut programs: Vec<Program>) -> Vec<Program> {
    programs.sort_by_key(|program| {
        let name = program.name();
        LONGEST.iter().position(|long| *long == name).unwrap_or(LONGEST.len())
    });
    programs
}

impl Program {
    /// Its name without cargo's hash.
    fn name(&self) -> String {
        let program = self.words.iter().find(|word| is_test(Path::new(word))).map_or("", String::as_str);
        let stem = Path::new(program).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        stem.rsplit_once('-').map_or(stem.clone(), |(name, _)| name.to_string())
    }

    /// As cargo would have started it.
    fn command(&self) -> Result<Command> {
        let (first, rest) = self.words.split_first().context("a test program without a name")?;
        let mut command = Command::new(first);
        command.args(rest).current_dir(&self.folder).env_clear();
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        tell_times(&mut command);
        Ok(command)
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
    program.parent().and_then(Path::file_name).is_some_and(|folder| folder == "deps")
}

/// Runs a command, and gives each line of its outputs as it comes. One pipe for both, so that their order stays.
fn read_lines(command: &mut Command, mut line: impl FnMut(&str)) -> Result<ExitStatus> {
    let (reader, writer) = pipe()?;
    command.stdout(writer.try_clone()?).stderr(writer);
    let name = steps::words(command);
    let mut child = command.spawn().with_context(|| format!("cannot run `{name}`"))?;
    // The command holds the writing end, and the reader waits for its last holder.
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    for bytes in BufReader::new(reader).split(b'\n') {
        line(&String::from_utf8_lossy(&bytes?));
    }
    Ok(child.wait()?)
}

/// Prints a line whole, whoever else prints.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
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
    fn those_that_take_longest_come_first() {
        let names = ["api", "lsh", "masks", "kernels"].map(|name| program("", name));
        let order: Vec<_> = in_order(names.into()).iter().map(Program::name).collect();
        assert_eq!(order, ["kernels", "lsh", "api", "masks"]);
    }

    #[test]
    #[cfg(unix)]
    fn a_failure_is_named_and_the_others_run() {
        let mut times = Times::default();
        let programs = vec![
            program("exit 3", "bad"),
            program("echo 'test a ... ok <0.500s>'; test \"$A\" = 'b=c\nd'", "good"),
        ];
        let failed = run_all(programs, &mut times).unwrap();
        assert!(failed.len() == 1 && failed[0].starts_with("bad: exit status: 3"), "{failed:?}");
        assert!(times.report().contains("0.5 s  good: a"), "{}", times.report());
    }

    #[test]
    fn only_test_programs_are_noted() {
        assert!(
            is_test(Path::new("/w/target/debug/deps/api-1")) && !is_test(Path::new("/tmp/rustdoc/rust_out"))
        );
    }
}
