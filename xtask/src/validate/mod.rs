//! `cargo xtask validate`: every kernel under Vulkan's validation layer, on the software adapter.
//!
//! The layer stands between wgpu and the driver. It checks each call, looks for hazards between commands, and puts code into the
//! shaders that notices accesses outside of buffers, and workgroup memory that lanes touch without a barrier between them, one of
//! them writing. The kernels run as the cases of `cargo xtask conformance`. Any message fails, but for those of a list with
//! reasons: `tools/validation/known.txt`. Kernels take turns, for all of them take long: see `kernels.rs`.
//!
//! No version of the layer does all of that on a device whose buffers are robust, as wgpu asks for: the newer ones look for no access
//! outside of them. So there are two [`JUDGES`]. Each first runs a program with planted faults (`tools/validation`), and has to find
//! each of them: a layer that is not there finds nothing.

mod kernels;
mod messages;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::jobs::read_measured;
use crate::length::Length;
use crate::software::layers::{Layer, OF_FORKY, OF_TRIXIE, switch_on};
use crate::software::{LAVAPIPE, Launcher, fetched};
use crate::steps::Steps;
use crate::{build, conformance, steps};
use kernels::{Kept, Verdict};
use messages::{Known, Message, messages};

const HELP: &str = "\
cargo xtask validate [OPTIONS] [-- PROGRAM ARGS...]

Every kernel under Vulkan's validation layer, on the software adapter: calls, hazards, accesses outside of buffers, races.

  --quick        the planted faults and a few kernels, as `cargo xtask test` has them
  --set SET      which cases of `cargo xtask conformance`: tiny (each kernel, the default), small (each file of
                 shaders) or full
  --only TEXT    only cases whose kernel and name contain this
  --minutes N    begin no kernel after so many minutes; those that a judge has not seen for the longest come first, and
                 the next run goes on with the others (target/validation-kernels.txt)
  --seconds N    processor time of a kernel under a judge, at most (300)
  --judge NAME   bounds or races alone; else both beside each other
  PROGRAM ARGS   any program instead of the cases: one of target/debug/deps, with a filter

Fails on every message that tools/validation/known.txt does not explain, and where a planted fault goes unnoticed.
Kernels that were not judged, for want of time, are listed as not run.";

/// The step's name.
pub(crate) const STEP: &str = "validation layer";

/// A test of the program with planted faults, and its binary; without a fault it is `none`.
const PLANTED: (&str, &str) = ("faults", "planted");
const NO_FAULT: &str = "none";

/// Messages with reasons.
const KNOWN: &str = "tools/validation/known.txt";

/// What is kept from run to run, in the folder of builds.
const KEPT: &str = "validation-kernels.txt";

/// What a quick run has of the cases: kernels of several kinds that have workgroup memory, by texts for `--only`.
const FEW: [&str; 4] = ["attention, staged f32", "softmax f32", "sort f32", "matrix product f32"];

/// How many messages are shown whole, and how many lines of each.
const SHOWN: (usize, usize) = (20, 14);

/// What every judge is told: to print all messages.
const SETTINGS: &str = "\
khronos_validation.debug_action = VK_DBG_LAYER_ACTION_LOG_MSG
khronos_validation.log_filename = stdout
khronos_validation.report_flags = error,warn
khronos_validation.enable_message_limit = false
khronos_validation.gpuav_enable = true
";

/// A version of the layer, and what it is to look at.
struct Judge {
    name: &'static str,
    layer: Layer,
    /// Settings beside [`SETTINGS`].
    settings: &'static str,
    /// Planted faults with the beginning of the rule that each breaks.
    faults: &'static [(&'static str, &'static str)],
}

/// All of them.
const JUDGES: [Judge; 2] = [
    Judge {
        name: "bounds",
        layer: OF_TRIXIE,
        settings: "\
khronos_validation.validate_core = false
khronos_validation.gpuav_warn_on_robust_oob = true
",
        faults: &[
            ("write", "VUID-vkCmdDispatch-storageBuffers-06936"),
            ("read", "VUID-vkCmdDispatch-storageBuffers-06936"),
        ],
    },
    Judge {
        name: "races",
        layer: OF_FORKY,
        settings: "\
khronos_validation.validate_sync = true
khronos_validation.gpuav_descriptor_checks = false
khronos_validation.gpuav_shared_memory_data_race = true
",
        faults: &[
            ("race", "SharedMemoryDataRace-"),
            ("race of vectors", "SharedMemoryDataRace-"),
            ("hazard", "SYNC-HAZARD-WRITE-AFTER-WRITE"),
            ("call", "VUID-vkCmdFillBuffer-size-00028"),
        ],
    },
];

/// What to run under the judges.
#[derive(Debug, PartialEq)]
enum What {
    /// Each kernel by itself, for so long.
    Kernels { set: String, time: Time },
    /// Cases of `cargo xtask conformance`.
    Cases { set: String, only: Vec<String> },
    /// A program with its arguments.
    Program(Vec<String>),
}

/// How long kernels may take.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Time {
    /// For all of them, by the clock.
    all: Option<Duration>,
    /// For one, of the processor.
    each: Duration,
}

impl What {
    /// Each kernel.
    fn all() -> Self {
        Self::Kernels { set: "tiny".into(), time: Time { all: None, each: Duration::from_secs(300) } }
    }

    /// A few of them.
    fn few() -> Self {
        Self::Cases { set: "tiny".into(), only: FEW.map(String::from).to_vec() }
    }
}

/// Runs the command.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    if let Some("--help" | "-h") = arguments.first().map(String::as_str) {
        println!("{HELP}");
    } else {
        let (what, judge) = options(arguments)?;
        let mut judges = judges()?;
        judges.retain(|one| judge.as_ref().is_none_or(|judge| one.judge.name == judge));
        ensure!(!judges.is_empty(), "--judge: need bounds or races, got `{}`", judge.unwrap_or_default());
        check(&what, &judges)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The step of `cargo xtask test`: everything in a long run, else a few kernels.
pub(crate) fn step(steps: &mut Steps, length: Length) {
    let what = if length == Length::Long { What::all() } else { What::few() };
    match judges() {
        Ok(judges) => drop(steps.run(STEP, || check(&what, &judges))),
        Err(error) => steps.not_run(STEP, format!("{error:#}")),
    }
}

/// Reads the command line: what to run, and the one judge that is asked.
fn options(arguments: &[String]) -> Result<(What, Option<String>)> {
    let (mut what, mut judge, mut chosen) = (What::all(), None, false);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().cloned().with_context(|| format!("{argument} needs a value"));
        let number =
            |value: String| value.parse().with_context(|| format!("{argument}: `{value}` is no number"));
        match (argument.as_str(), &mut what) {
            ("--judge", _) => {
                judge = Some(value()?);
                continue;
            }
            ("--quick", what) if !chosen => *what = What::few(),
            ("--set", What::Cases { set, .. } | What::Kernels { set, .. }) => *set = value()?,
            ("--only", What::Cases { only, .. }) => *only = vec![value()?],
            ("--only", What::Kernels { set, .. }) => {
                what = What::Cases { set: std::mem::take(set), only: vec![value()?] };
            }
            ("--minutes", What::Kernels { time, .. }) => {
                time.all = Some(Duration::from_secs(60 * number(value()?)?));
            }
            ("--seconds", What::Kernels { time, .. }) => time.each = Duration::from_secs(number(value()?)?),
            ("--", what) if !chosen => {
                let words: Vec<_> = rest.by_ref().cloned().collect();
                ensure!(!words.is_empty(), "no program after `--`");
                *what = What::Program(words);
            }
            (unknown, _) => bail!("unknown option `{unknown}`, or not with the others; see --help"),
        }
        chosen = true;
    }
    Ok((what, judge))
}

/// The judges with the folders of their layers and the adapter, fetched at first use; the error is the reason why they cannot be had.
fn judges() -> Result<Vec<Ready>> {
    let ready = |judge: &'static Judge| {
        Ok(Ready { judge, layer: judge.layer.fetch()?, launcher: fetched(&LAVAPIPE)? })
    };
    JUDGES.iter().map(ready).collect()
}

/// A judge that can begin.
struct Ready {
    judge: &'static Judge,
    /// The folder of its layer.
    layer: PathBuf,
    launcher: Launcher,
}

/// What a judge found.
#[derive(Default)]
struct Found {
    /// Messages that nobody knows, and programs that failed.
    unknown: Vec<Message>,
    failures: Vec<String>,
    /// Numbers of known entries, one per message.
    known: Vec<usize>,
    /// Kernels that were not judged, with the reason.
    not_run: Vec<String>,
}

/// A command that runs under a judge, and its limits where it is that of a kernel.
struct Task<'a> {
    words: Vec<String>,
    kernel: Option<Turn<'a>>,
}

/// A kernel's turn.
#[derive(Clone)]
struct Turn<'a> {
    name: String,
    time: Time,
    kept: &'a Kept,
}

/// What runs under a judge, by its name: judges run beside each other, so each has a file of results for itself.
type Tasks<'a> = Box<dyn Fn(&str) -> Vec<Task<'a>> + Sync + 'a>;

/// Runs it under each judge, all at once.
fn check(what: &What, judges: &[Ready]) -> Result<()> {
    let known = Known::read(&steps::root().join(KNOWN))?;
    let planted = build::with_tests(PLANTED.0, PLANTED.1)?;
    let kept = Kept::read(&build::target()?.join(KEPT));
    let plain = |words| Task { words, kernel: None };
    let tasks: Tasks<'_> = match what {
        What::Program(words) => Box::new(move |_| vec![plain(words.clone())]),
        What::Cases { set, only } => {
            let program = conformance::program()?;
            Box::new(move |judge| {
                only.iter().map(|only| plain(cases(&program, set, ["--only", only], judge))).collect()
            })
        }
        What::Kernels { set, time } => {
            let (program, kept) = (conformance::program()?, &kept);
            let kernels = kernels_of(&program)?;
            Box::new(move |judge| {
                let task = |name: String| Task {
                    words: cases(&program, set, ["--kernel", &name], judge),
                    kernel: Some(Turn { name, time: *time, kept }),
                };
                kept.in_turn(judge, &kernels).into_iter().map(task).collect()
            })
        }
    };
    let found = std::thread::scope(|scope| {
        let (planted, tasks, known) = (&planted, &tasks, &known);
        let start = |one| scope.spawn(move || Ready::judged(one, planted, &tasks(one.judge.name), known));
        let running: Vec<_> = judges.iter().map(start).collect();
        let done = running.into_iter().map(|one| one.join().map_err(|_| anyhow!("a judge panicked"))?);
        done.collect::<Result<Vec<_>>>()
    })?;
    let seen: Vec<_> = found.iter().flat_map(|found| found.known.iter().copied()).collect();
    let (there, not_there) = known.told(&seen);
    eprintln!("   messages that {KNOWN} explains: {}", there.join(", "));
    let all = *what == What::all() && found.iter().all(|found| found.not_run.is_empty());
    if all && !not_there.is_empty() {
        eprintln!("   note: it also explains what no longer comes: {}", not_there.join(", "));
    }
    let mut failures: Vec<String> = vec![];
    for (one, found) in judges.iter().zip(found) {
        show(one.judge.name, &found.unknown);
        for why in &found.not_run {
            eprintln!("   not run under {}: {why}", one.judge.name);
        }
        failures.extend(found.failures.iter().map(|failure| format!("{}: {failure}", one.judge.name)));
    }
    ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(())
}

/// The command that runs some cases.
fn cases(program: &Path, set: &str, [option, which]: [&str; 2], judge: &str) -> Vec<String> {
    let out = program.with_file_name(format!("validation-{judge}.jsonl"));
    let [program, out] = [program, &out].map(|path| path.display().to_string());
    [program.as_str(), "run", "--set", set, option, which, "--out", &out].map(String::from).to_vec()
}

/// The names of all kernels.
fn kernels_of(program: &Path) -> Result<Vec<String>> {
    let output = Command::new(program).arg("kernels").output().context("cannot run the cases")?;
    ensure!(output.status.success(), "the cases name no kernels");
    Ok(String::from_utf8(output.stdout)?.lines().map(String::from).collect())
}

impl Ready {
    /// Runs the planted faults and then the tasks.
    fn judged(&self, planted: &Path, tasks: &[Task<'_>], known: &Known) -> Result<Found> {
        let start = Instant::now();
        let mut found = Found::default();
        let faults = [(NO_FAULT, "")].into_iter().chain(self.judge.faults.iter().copied());
        for (fault, rule) in faults {
            let Run { mut said, ended, .. } =
                self.run(&[planted.display().to_string(), fault.into()], None)?;
            found.failures.extend(ended.map(|how| format!("planted {fault}: {how}")));
            let before = said.len();
            said.retain(|message| rule.is_empty() || !message.rule.starts_with(rule));
            if !rule.is_empty() && said.len() == before {
                found.failures.push(format!("the planted fault `{fault}` goes unnoticed"));
            }
            found.take(said, known, &format!("planted {fault}"));
        }
        for Task { words, kernel } in tasks {
            match kernel {
                Some(turn) => self.take_turn(turn, words, start, known, &mut found)?,
                None => {
                    let Run { said, ended, .. } = self.run(words, None)?;
                    found.failures.extend(ended);
                    found.take(said, known, "the program");
                }
            }
        }
        let (faults, seconds) = (self.judge.faults.len(), start.elapsed().as_secs_f64());
        let (unknown, known) = (found.unknown.len(), found.known.len());
        let name = self.judge.name;
        eprintln!(
            "   {name}: {faults} planted faults, {unknown} messages, {known} known ones ({seconds:.0} s)"
        );
        Ok(found)
    }

    /// Judges a kernel, if there is time.
    fn take_turn(
        &self,
        turn: &Turn<'_>,
        words: &[String],
        start: Instant,
        known: &Known,
        found: &mut Found,
    ) -> Result<()> {
        let Turn { name, time, kept } = turn;
        let judge = self.judge.name;
        if time.all.is_some_and(|all| start.elapsed() > all) {
            found.not_run.push(format!("{name}, no time was left ({})", kept.last(judge, name)));
            return Ok(());
        }
        let Run { said, ended, took, skipped } = self.run(words, Some(time.each))?;
        let before = found.unknown.len();
        found.take(said, known, name);
        let faulty = found.unknown.len() > before;
        found.not_run.extend(skipped);
        let verdict = match ended {
            // What the system counts differs a little from what it tells.
            Some(_) if took >= time.each.mul_f64(0.9) => Verdict::TooLong,
            Some(how) => {
                found.failures.push(format!("{name}: {how}"));
                Verdict::Faulty
            }
            None if faulty => Verdict::Faulty,
            None => Verdict::Clean,
        };
        if verdict == Verdict::TooLong {
            found.not_run.push(format!("{name}, more than {} s of processor time", time.each.as_secs()));
        }
        eprintln!("   {judge}: {name}: {}, {:.1} s of processor time", verdict.name(), took.as_secs_f64());
        kept.note(judge, name, verdict, took)
    }

    /// A program under the layer, for so much processor time at most.
    fn run(&self, words: &[String], most: Option<Duration>) -> Result<Run> {
        let (program, arguments) = words.split_first().context("no program")?;
        let settings = build::target()?.join(format!("validation-{}.txt", self.judge.name));
        fs::write(&settings, format!("{SETTINGS}{}", self.judge.settings))?;
        let mut command = self.launcher.command(program);
        command.args(arguments);
        if let Some(most) = most {
            command = limited(&command, most);
        }
        switch_on(&mut command, &self.layer, &settings);
        // The names of buffers and shaders in the messages; the layer as the environment has it, not as wgpu would set it up.
        command.envs([("WGPU_DEBUG", "1"), ("WGPU_VALIDATION", "0")]);
        if std::env::var_os("GALLIVM_PERF").is_none() {
            command.env("GALLIVM_PERF", "nopt");
        }
        let mut printed = String::new();
        let (status, took) = read_measured(&mut command, |line| {
            printed += line;
            printed.push('\n');
        })?;
        let last =
            || printed.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_string();
        let ended = (!status.success()).then(|| format!("{}: {status}: {}", steps::words(&command), last()));
        let skipped =
            printed.lines().find(|line| line.contains(": not run: ")).map(|line| line.trim().into());
        Ok(Run { said: messages(&printed), ended, took: took.unwrap_or_default(), skipped })
    }
}

/// How a program went: its messages, how it ended where it failed, its processor time.
struct Run {
    said: Vec<Message>,
    ended: Option<String>,
    took: Duration,
    /// The line of a case that the adapter cannot run.
    skipped: Option<String>,
}

/// The same command, which the system ends when it has taken so much processor time.
fn limited(command: &Command, most: Duration) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -t \"$0\" && exec \"$@\"", &most.as_secs().max(1).to_string()]);
    shell.arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell
}

impl Found {
    /// Takes messages; those that nobody knows are a failure.
    fn take(&mut self, said: Vec<Message>, known: &Known, of: &str) {
        let before = self.unknown.len();
        for message in said {
            match known.of(&message) {
                Some(entry) => self.known.push(entry),
                None => self.unknown.push(message),
            }
        }
        let more = self.unknown.len() - before;
        if more > 0 {
            self.failures.push(format!("{more} messages of {of}"));
        }
    }
}

/// Prints messages, the same with other numbers once.
fn show(judge: &str, messages: &[Message]) {
    let mut gists: Vec<(String, &Message, usize)> = vec![];
    for message in messages {
        let gist = message.gist();
        match gists.iter_mut().find(|(known, ..)| *known == gist) {
            Some((.., count)) => *count += 1,
            None => gists.push((gist, message, 1)),
        }
    }
    for (_, Message { rule, text, case }, count) in gists.iter().take(SHOWN.0) {
        let lines: String = text.lines().take(SHOWN.1).map(|line| format!("     {line}\n")).collect();
        eprintln!("\n   {judge}: {count} x {rule}, before `{case}`\n{lines}");
    }
    if gists.len() > SHOWN.0 {
        eprintln!("   ... and {} other kinds", gists.len() - SHOWN.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<What> {
        Ok(options(&line.split_whitespace().map(String::from).collect::<Vec<_>>())?.0)
    }

    #[test]
    fn options_are_read() {
        assert_eq!(read("").unwrap(), What::all());
        assert_eq!(read("--quick").unwrap(), What::few());
        let some = What::Cases { set: "full".into(), only: vec!["norm".into()] };
        assert_eq!(read("--only norm --set full").unwrap(), some);
        let time = Time { all: Some(Duration::from_secs(900)), each: Duration::from_secs(9) };
        let turns = What::Kernels { set: "small".into(), time };
        assert_eq!(read("--minutes 15 --judge bounds --set small --seconds 9").unwrap(), turns);
        assert!(read("--minutes x").unwrap_err().to_string().contains("no number"));
        assert_eq!(read("-- a --quick").unwrap(), What::Program(vec!["a".into(), "--quick".into()]));
        assert!(read("--fast").unwrap_err().to_string().contains("`--fast`"));
        assert!(read("--").unwrap_err().to_string().contains("no program"));
        assert!(read("--only x --quick").unwrap_err().to_string().contains("others"));
    }

    #[test]
    fn a_message_that_nobody_knows_is_a_failure() {
        let known = Known::read(&steps::root().join(KNOWN)).unwrap();
        let message =
            |rule: &str, text: &str| Message { rule: rule.into(), text: text.into(), case: "".into() };
        let mut found = Found::default();
        found.take(
            vec![message(
                "VUID-StandaloneSpirv-None-10684",
                "storage class has an explicit layout from the ArrayStride decoration",
            )],
            &known,
            "it",
        );
        assert!(found.failures.is_empty() && found.known.len() == 1);
        found.take(vec![message("SharedMemoryDataRace-RaceOnLoad", "A data race")], &known, "it");
        assert_eq!((found.failures, found.unknown.len()), (vec!["1 messages of it".into()], 1));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn processor_time_ends() {
        let mut endless = Command::new("sh");
        endless.args(["-c", "while :; do :; done"]);
        let (status, took) = read_measured(&mut limited(&endless, Duration::from_secs(1)), |_| ()).unwrap();
        assert!(!status.success() && took.unwrap() >= Duration::from_millis(900), "{status} {took:?}");
        let mut short = Command::new("sh");
        let mut said = String::new();
        let (status, _) = read_measured(
            &mut limited(
                short.args(["-c", "echo \"$X\"; echo b >&2; exit 3"]).env("X", "a c"),
                Duration::from_secs(9),
            ),
            |line| said += line,
        )
        .unwrap();
        assert_eq!((said.as_str(), status.code()), ("a cb", Some(3)));
    }
}
