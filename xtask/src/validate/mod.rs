//! `cargo xtask validate`: every kernel under Vulkan's validation layer, on the software adapter.
//!
//! The layer stands between wgpu and the driver. It checks each call, looks for hazards between commands, and puts code into the
//! shaders that notices accesses outside of buffers, and workgroup memory that lanes touch without a barrier between them, one of
//! them writing. The kernels run as the cases of `cargo xtask conformance`. Any message fails, but for those of a list with
//! reasons: `tools/validation/known.txt`.
//!
//! No version of the layer does all of that on a device whose buffers are robust, as wgpu asks for: the newer ones look for no access
//! outside of them. So there are two [`JUDGES`]. Each first runs a program with planted faults (`tools/validation`), and has to find
//! each of them: a layer that is not there finds nothing.

mod messages;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::jobs::read_lines;
use crate::length::Length;
use crate::software::layers::{Layer, OF_FORKY, OF_TRIXIE, switch_on};
use crate::software::{LAVAPIPE, Launcher, fetched};
use crate::steps::Steps;
use crate::{build, conformance, steps};
use messages::{Known, Message, messages};

const HELP: &str = "\
cargo xtask validate [OPTIONS] [-- PROGRAM ARGS...]

Every kernel under Vulkan's validation layer, on the software adapter: calls, hazards, accesses outside of buffers, races.

  --quick        the planted faults and a few kernels, as `cargo xtask test` has them
  --set SET      which cases of `cargo xtask conformance`: tiny (each kernel, the default), small (each file of
                 shaders) or full
  --only TEXT    only cases whose kernel and name contain this
  PROGRAM ARGS   any program instead of the cases: one of target/debug/deps, with a filter

Fails on every message that tools/validation/known.txt does not explain, and where a planted fault goes unnoticed.";

/// The step's name.
pub(crate) const STEP: &str = "validation layer";

/// A test of the program with planted faults, and its binary; without a fault it is `none`.
const PLANTED: (&str, &str) = ("faults", "planted");
const NO_FAULT: &str = "none";

/// Messages with reasons.
const KNOWN: &str = "tools/validation/known.txt";

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
    /// Cases of `cargo xtask conformance`.
    Cases { set: String, only: Vec<String> },
    /// A program with its arguments.
    Program(Vec<String>),
}

impl What {
    /// Each kernel.
    fn all() -> Self {
        Self::Cases { set: "tiny".into(), only: vec![String::new()] }
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
        check(&options(arguments)?, &judges()?)?;
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

/// Reads the command line.
fn options(arguments: &[String]) -> Result<What> {
    let (mut what, mut chosen) = (What::all(), false);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().cloned().with_context(|| format!("{argument} needs a value"));
        match (argument.as_str(), &mut what) {
            ("--quick", what) if !chosen => *what = What::few(),
            ("--set", What::Cases { set, .. }) => *set = value()?,
            ("--only", What::Cases { only, .. }) => *only = vec![value()?],
            ("--", what) if !chosen => {
                let words: Vec<_> = rest.by_ref().cloned().collect();
                ensure!(!words.is_empty(), "no program after `--`");
                *what = What::Program(words);
            }
            (unknown, _) => bail!("unknown option `{unknown}`, or not with the others; see --help"),
        }
        chosen = true;
    }
    Ok(what)
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
}

/// What runs under a judge, by its name: judges run beside each other, so each has a file of results for itself.
type Commands<'a> = Box<dyn Fn(&str) -> Vec<Vec<String>> + Sync + 'a>;

/// Runs it under each judge, all at once.
fn check(what: &What, judges: &[Ready]) -> Result<()> {
    let known = Known::read(&steps::root().join(KNOWN))?;
    let planted = build::with_tests(PLANTED.0, PLANTED.1)?;
    let commands: Commands<'_> = match what {
        What::Program(words) => Box::new(|_| vec![words.clone()]),
        What::Cases { set, only } => {
            let program = conformance::program()?;
            Box::new(move |judge| only.iter().map(|only| cases(&program, set, only, judge)).collect())
        }
    };
    let found = std::thread::scope(|scope| {
        let (planted, commands, known) = (&planted, &commands, &known);
        let start = |one| scope.spawn(move || Ready::judged(one, planted, &commands(one.judge.name), known));
        let running: Vec<_> = judges.iter().map(start).collect();
        let done = running.into_iter().map(|one| one.join().map_err(|_| anyhow!("a judge panicked"))?);
        done.collect::<Result<Vec<_>>>()
    })?;
    let seen: Vec<_> = found.iter().flat_map(|found| found.known.iter().copied()).collect();
    let (there, not_there) = known.told(&seen);
    eprintln!("   messages that {KNOWN} explains: {}", there.join(", "));
    if *what == What::all() && !not_there.is_empty() {
        eprintln!("   note: it also explains what no longer comes: {}", not_there.join(", "));
    }
    let mut failures: Vec<String> = vec![];
    for (one, found) in judges.iter().zip(found) {
        show(one.judge.name, &found.unknown);
        failures.extend(found.failures.iter().map(|failure| format!("{}: {failure}", one.judge.name)));
    }
    ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(())
}

/// The command that runs cases.
fn cases(program: &Path, set: &str, only: &str, judge: &str) -> Vec<String> {
    let out = program.with_file_name(format!("validation-{judge}.jsonl"));
    let [program, out] = [program, &out].map(|path| path.display().to_string());
    [program.as_str(), "run", "--set", set, "--only", only, "--out", &out].map(String::from).to_vec()
}

impl Ready {
    /// Runs the planted faults and then the commands.
    fn judged(&self, planted: &Path, commands: &[Vec<String>], known: &Known) -> Result<Found> {
        let start = Instant::now();
        let mut found = Found::default();
        let faults = [(NO_FAULT, "")].into_iter().chain(self.judge.faults.iter().copied());
        for (fault, rule) in faults {
            let (mut said, ended) = self.run(&[planted.display().to_string(), fault.into()])?;
            found.failures.extend(ended.map(|how| format!("planted {fault}: {how}")));
            let before = said.len();
            said.retain(|message| rule.is_empty() || !message.rule.starts_with(rule));
            if !rule.is_empty() && said.len() == before {
                found.failures.push(format!("the planted fault `{fault}` goes unnoticed"));
            }
            found.take(said, known, &format!("planted {fault}"));
        }
        for command in commands {
            let (said, ended) = self.run(command)?;
            found.failures.extend(ended);
            found.take(said, known, "the program");
        }
        let (faults, seconds) = (self.judge.faults.len(), start.elapsed().as_secs_f64());
        let (unknown, known) = (found.unknown.len(), found.known.len());
        let name = self.judge.name;
        eprintln!(
            "   {name}: {faults} planted faults, {unknown} messages, {known} known ones ({seconds:.0} s)"
        );
        Ok(found)
    }

    /// The messages of a program under the layer, and how it ended where it failed.
    fn run(&self, words: &[String]) -> Result<(Vec<Message>, Option<String>)> {
        let (program, arguments) = words.split_first().context("no program")?;
        let settings = build::target()?.join(format!("validation-{}.txt", self.judge.name));
        fs::write(&settings, format!("{SETTINGS}{}", self.judge.settings))?;
        let mut command = self.launcher.command(program);
        command.args(arguments);
        switch_on(&mut command, &self.layer, &settings);
        // The names of buffers and shaders in the messages; the layer as the environment has it, not as wgpu would set it up.
        command.envs([("WGPU_DEBUG", "1"), ("WGPU_VALIDATION", "0")]);
        if std::env::var_os("GALLIVM_PERF").is_none() {
            command.env("GALLIVM_PERF", "nopt");
        }
        let (printed, status) = printed(&mut command)?;
        let last =
            || printed.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_string();
        let ended = (!status.success()).then(|| format!("{}: {status}: {}", steps::words(&command), last()));
        Ok((messages(&printed), ended))
    }
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

/// What a command prints, on both outputs in one order.
fn printed(command: &mut Command) -> Result<(String, std::process::ExitStatus)> {
    let mut text = String::new();
    let status = read_lines(command, |line| {
        text += line;
        text.push('\n');
    })?;
    Ok((text, status))
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
        options(&line.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_read() {
        assert_eq!(read("").unwrap(), What::all());
        assert_eq!(read("--quick").unwrap(), What::few());
        let some = What::Cases { set: "full".into(), only: vec!["norm".into()] };
        assert_eq!(read("--only norm --set full").unwrap(), some);
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
    #[cfg(unix)]
    fn both_outputs_are_read_in_order() {
        let mut shell = Command::new("sh");
        let (printed, status) = printed(shell.args(["-c", "echo a; echo b >&2; echo c; exit 3"])).unwrap();
        assert_eq!((printed.as_str(), status.code()), ("a\nb\nc\n", Some(3)));
    }
}
