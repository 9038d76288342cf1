//! Which tests take long: `cargo test`, with the time of each test noted.
//!
//! libtest tells times only to those who may use what is unstable. A compiler that is told so would build every crate anew, so
//! the test programs alone are: cargo starts them through this program (`xtask run-test`), which also puts the launcher of a fetched
//! adapter before them.

use std::io::{BufRead, BufReader, IsTerminal, Write, pipe};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::length::Length;
use crate::software::Launcher;
use crate::{build, steps};

/// The command by which cargo starts a test program.
pub(crate) const RUNNER: &str = "run-test";
/// Cases drawn for each property, where it is not left to the property.
const CASES: &str = "PROPTEST_CASES";
/// The variable by which tests know of a long run (`crates/testing/src/turns.rs`).
const LONG: &str = "WGPU_ATTENTION_LONG";
/// How Mesa's software adapters compile: at once, instead of well. Nearly all kernels of the tests run for a moment, and LLVM spends
/// three to five times that on each (backward, d = 64: 1.3 s, and 0.3 s in this way; llvmpipe of Mesa 26.1, 2026-11-29). What
/// optimized code computes, the gates' other implementations, the newcomer's program and the benchmark's checks see.
const COMPILE_AT_ONCE: (&str, &str) = ("GALLIVM_PERF", "nopt");
/// How many are listed.
const LISTED: usize = 15;

/// How long the tests took.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Times {
    /// Each test program, with all that it did.
    programs: Vec<(String, Duration)>,
    /// Each test, by its program and name.
    tests: Vec<(String, Duration)>,
}

/// Runs `cargo test` with these arguments, and passes on what it says; a failure is the error.
///
/// A quick run draws fewer cases for each property, and a long one more, unless `PROPTEST_CASES` says how many.
pub(crate) fn test(launcher: &Launcher, length: Length, arguments: &[String]) -> Result<(Times, Result<()>)> {
    let mut cargo = launcher.cargo_through(&[&build::ourselves()?, Path::new(RUNNER)])?;
    if let (Some(cases), None) = (length.cases(), std::env::var_os(CASES)) {
        cargo.env(CASES, cases);
    }
    if length == Length::Long {
        cargo.env(LONG, "1");
    }
    if std::env::var_os(COMPILE_AT_ONCE.0).is_none() {
        cargo.env(COMPILE_AT_ONCE.0, COMPILE_AT_ONCE.1);
    }
    cargo.args(["test", "--workspace", "--all-features", "--no-fail-fast"]).args(arguments);
    let line = steps::words(&cargo);
    eprintln!("   {line}");
    if std::io::stderr().is_terminal() {
        cargo.env("CARGO_TERM_COLOR", "always");
    }
    // One pipe for both outputs, so that cargo's names of programs stay before their tests.
    let (reader, writer) = pipe()?;
    cargo.current_dir(steps::root()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = cargo.spawn().with_context(|| format!("cannot run `{line}`"))?;
    // The command holds the writing end, and the reader waits for its last holder.
    drop(cargo);
    let mut times = Times::default();
    let mut began = Instant::now();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line?;
        let _ = std::io::stdout().write_all(&[&line[..], b"\n"].concat());
        times.hear(&String::from_utf8_lossy(&line), &mut began, Instant::now());
    }
    let status = child.wait()?;
    times.end(began, Instant::now());
    let outcome = if status.success() { Ok(()) } else { Err(anyhow!("`{line}`: {status}")) };
    Ok((times, outcome))
}

impl Times {
    /// Takes in a line of cargo's or of a test program's; `began` is when the program at work did.
    fn hear(&mut self, line: &str, began: &mut Instant, now: Instant) {
        if let Some(program) = program(line) {
            self.end(*began, now);
            self.programs.push((program, Duration::ZERO));
            *began = now;
        } else if let Some((name, time)) = test_time(line) {
            let program = self.programs.last().map_or("", |(program, _)| program.as_str());
            self.tests.push((format!("{program}: {name}"), time));
        }
    }

    /// The program at work is done.
    fn end(&mut self, began: Instant, now: Instant) {
        if let Some((_, time)) = self.programs.last_mut() {
            *time = now - began;
        }
    }

    /// The slowest programs and tests.
    pub(crate) fn report(&self) -> String {
        let list = |title: &str, all: &[(String, Duration)]| {
            let mut sorted: Vec<_> = all.iter().collect();
            sorted.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
            let lines = sorted.iter().take(LISTED);
            let line =
                |(name, time): &&(String, Duration)| format!("  {:>7.1} s  {name}\n", time.as_secs_f64());
            format!("{title}\n{}", lines.map(line).collect::<String>())
        };
        list("slowest test programs", &self.programs) + "\n" + &list("slowest tests", &self.tests)
    }
}

/// The test program that cargo says it is about to run.
fn program(line: &str) -> Option<String> {
    let line = line.trim_start_matches(|c: char| !c.is_alphabetic());
    // Coloured: "\x1b[1m\x1b[92m     Running\x1b[0m tests/api.rs (target/debug/deps/api-5)".
    let (before, rest) = line.split_once("Running").or_else(|| line.split_once("Doc-tests"))?;
    if !before.chars().all(|c| !c.is_alphabetic() || c == 'm') {
        return None;
    }
    match rest.rsplit_once(" (") {
        Some((_, path)) => {
            let name = Path::new(path.trim_end_matches(')')).file_stem()?.to_string_lossy().into_owned();
            Some(name.rsplit_once('-').map_or(name.clone(), |(name, _)| name.to_string()))
        }
        None if line.contains("Doc-tests") => {
            Some(format!("doc tests of {}", rest.split_whitespace().last()?))
        }
        None => None,
    }
}

/// The name and the time in a line like `test a::b ... ok <1.234s>`.
fn test_time(line: &str) -> Option<(&str, Duration)> {
    let (name, rest) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let seconds: f64 = rest.strip_suffix("s>")?.rsplit_once('<')?.1.parse().ok()?;
    Some((name, Duration::try_from_secs_f64(seconds).ok()?))
}

/// Runs a test program: `[LAUNCHER] PROGRAM ARGS`, where only programs that cargo built as tests tell times.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let (program, rest) = arguments.split_first().context("run-test: no program")?;
    let mut command = Command::new(program);
    command.args(rest);
    // The launcher, where there is one, comes first; doc tests are built elsewhere, and take no arguments.
    if arguments.iter().take(2).any(|word| is_test(Path::new(word))) {
        command.env("RUSTC_BOOTSTRAP", "1").args(["-Z", "unstable-options", "--report-time"]);
    }
    become_(&mut command).with_context(|| format!("cannot run {program}"))
}

/// Whether cargo built this program as a test.
fn is_test(program: &Path) -> bool {
    program.parent().and_then(Path::file_name).is_some_and(|folder| folder == "deps")
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

    #[test]
    fn programs_are_recognised() {
        let of = |line| program(line);
        assert_eq!(of("     Running tests/api.rs (target/debug/deps/api-0a1b)").as_deref(), Some("api"));
        assert_eq!(
            of("\x1b[1m\x1b[92m     Running\x1b[0m unittests src/lib.rs (target/debug/deps/wgpu_attention-0f)").as_deref(),
            Some("wgpu_attention")
        );
        assert_eq!(of("   Doc-tests wgpu_attention").as_deref(), Some("doc tests of wgpu_attention"));
        assert_eq!(of("test running::x ... ok"), None);
        assert_eq!(of("note: Running late (very)"), None);
    }

    #[test]
    fn times_are_read() {
        assert_eq!(test_time("test a::b ... ok <1.500s>"), Some(("a::b", Duration::from_millis(1500))));
        assert_eq!(
            test_time("test c - should panic ... FAILED <0.001s>"),
            Some(("c - should panic", Duration::from_millis(1)))
        );
        assert_eq!(test_time("test src/lib.rs - (line 28) ... ok"), None);
        assert_eq!(test_time("test result: ok. 3 passed; finished in 1.00s"), None);
    }

    #[test]
    fn the_slowest_come_first_and_programs_have_their_time() {
        let mut times = Times::default();
        let start = Instant::now();
        let mut began = start;
        let at = |seconds| start + Duration::from_secs(seconds);
        for (line, second) in [
            ("   Compiling a v1.0.0", 1),
            ("     Running tests/a.rs (target/debug/deps/a-1)", 10),
            ("test quick ... ok <0.100s>", 11),
            ("test slow ... ok <6.000s>", 17),
            ("     Running tests/b.rs (target/debug/deps/b-2)", 17),
        ] {
            times.hear(line, &mut began, at(second));
        }
        times.end(began, at(18));
        assert_eq!(
            times.programs,
            [("a".into(), Duration::from_secs(7)), ("b".into(), Duration::from_secs(1))]
        );
        let report = times.report();
        assert!(report.find("a: slow").unwrap() < report.find("a: quick").unwrap(), "{report}");
    }

    #[test]
    fn only_test_programs_tell_times() {
        assert!(
            is_test(Path::new("/w/target/debug/deps/api-1")) && !is_test(Path::new("/tmp/rustdoc/rust_out"))
        );
    }
}
