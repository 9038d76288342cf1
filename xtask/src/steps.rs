//! Named steps with their time, and the summary at the end.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::processor;

/// How a step ended.
enum Outcome {
    /// All is well.
    Passed,
    /// With the reason.
    Failed(String),
    /// With the reason; never counted as passed.
    NotRun(String),
}

/// A step that is behind us.
struct Done {
    name: String,
    outcome: Outcome,
    time: Duration,
    /// Of all that it did and started, where it is known.
    processor: Option<Duration>,
}

/// Runs steps one after the other and remembers how they ended.
pub(crate) struct Steps {
    began: Instant,
    done: Vec<Done>,
}

impl Default for Steps {
    fn default() -> Self {
        Self { began: Instant::now(), done: vec![] }
    }
}

impl Steps {
    /// Runs a step. A failure is remembered, and the steps after it are run all the same; the value is returned.
    pub(crate) fn run<T>(&mut self, name: &str, step: impl FnOnce() -> Result<T>) -> Option<T> {
        eprintln!("\n== {name}");
        let (start, spent) = (Instant::now(), processor::so_far());
        let result = step();
        let time = start.elapsed();
        let processor = spent.zip(processor::so_far()).map(|(before, after)| after.saturating_sub(before));
        let (outcome, value) = match result {
            Ok(value) => (Outcome::Passed, Some(value)),
            Err(error) => (Outcome::Failed(format!("{error:#}")), None),
        };
        eprintln!("== {name}: {} ({})", outcome.words(), seconds(time));
        self.done.push(Done { name: name.into(), outcome, time, processor });
        value
    }

    /// Remembers a step that could not be run on this machine, or that was not to be run.
    pub(crate) fn not_run(&mut self, name: &str, reason: impl Into<String>) {
        self.without_time(name, Outcome::NotRun(reason.into()));
    }

    /// Remembers a step that another process ran, and that failed before it could say how its parts ended.
    pub(crate) fn failed(&mut self, name: &str, reason: impl Into<String>) {
        self.without_time(name, Outcome::Failed(reason.into()));
    }

    fn without_time(&mut self, name: &str, outcome: Outcome) {
        self.done.push(Done { name: name.into(), outcome, time: Duration::ZERO, processor: None });
    }

    /// Writes how the steps ended for the process that started this one. No text holds a NUL.
    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        let fields = self.done.iter().flat_map(|Done { name, outcome, time, processor }| {
            let (state, reason) = match outcome {
                Outcome::Passed => ("passed", ""),
                Outcome::Failed(reason) => ("failed", reason.as_str()),
                Outcome::NotRun(reason) => ("not run", reason.as_str()),
            };
            let processor = processor.map_or(String::new(), |spent| spent.as_millis().to_string());
            [name.clone(), state.into(), reason.into(), time.as_millis().to_string(), processor]
        });
        let text = fields.collect::<Vec<_>>().join("\0");
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Takes in the steps of another process, as [`write`](Self::write) left them.
    pub(crate) fn read(&mut self, file: &Path) -> Result<()> {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let fields: Vec<_> = text.split('\0').collect();
        for step in fields.chunks(5) {
            let [name, state, reason, time, processor] = *step else {
                bail!("{}: half a step", file.display())
            };
            let outcome = match state {
                "passed" => Outcome::Passed,
                "failed" => Outcome::Failed(reason.into()),
                "not run" => Outcome::NotRun(reason.into()),
                _ => bail!("{}: a step that is `{state}`", file.display()),
            };
            let processor = match processor {
                "" => None,
                millis => Some(Duration::from_millis(millis.parse()?)),
            };
            let time = Duration::from_millis(time.parse()?);
            self.done.push(Done { name: name.into(), outcome, time, processor });
        }
        Ok(())
    }

    /// All steps in a table.
    pub(crate) fn summary(&self) -> String {
        let width = self.done.iter().map(|done| done.name.len()).max().unwrap_or(0);
        let line = |name: &str, time, processor, words: &str| {
            format!("  {name:width$}  {:>9}  {:>9}  {words}", seconds(time), known_seconds(processor))
        };
        let of = |done: &Done| line(&done.name, done.time, done.processor, &done.outcome.words()) + "\n";
        let lines: String = self.done.iter().map(of).collect();
        let all = line("in all", self.began.elapsed(), processor::so_far(), "");
        format!("summary (time, processor time)\n{lines}{}", all.trim_end())
    }

    /// The number of failed steps.
    pub(crate) fn failures(&self) -> usize {
        self.done.iter().filter(|done| matches!(done.outcome, Outcome::Failed(_))).count()
    }
}

impl Outcome {
    /// The outcome as one readable line.
    fn words(&self) -> String {
        match self {
            Self::Passed => "ok".into(),
            Self::Failed(reason) => format!("FAILED: {reason}"),
            Self::NotRun(reason) => format!("not run: {reason}"),
        }
    }
}

/// A time with one decimal.
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// A time that may not be known.
pub(crate) fn known_seconds(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".into(), seconds)
}

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    // Cargo sets the variable when it runs us; the folder we were built from serves when we are run by hand.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let package = package.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    package.parent().map(Path::to_path_buf).unwrap_or(package)
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs a command in the workspace's folder; it writes to our output. A failure names it.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let line = words(command);
    eprintln!("   {line}");
    let status = command.current_dir(root()).status().with_context(|| format!("cannot run `{line}`"))?;
    ensure!(status.success(), "`{line}`: {status}");
    Ok(())
}

/// A command as a person would type it.
pub(crate) fn words(command: &Command) -> String {
    let name =
        Path::new(command.get_program()).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    command.get_args().fold(name, |line, word| line + " " + &word.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_and_later_steps_run() {
        let mut steps = Steps::default();
        assert_eq!(steps.run("one", || -> Result<()> { bail!("broken") }), None);
        assert_eq!(steps.run("two", || Ok(2)), Some(2));
        steps.not_run("three", "no tool");
        assert_eq!(steps.failures(), 1);
        let summary = steps.summary();
        assert!(summary.contains("FAILED: broken") && summary.contains("not run: no tool"), "{summary}");
        assert!(summary.lines().any(|line| line.trim_start().starts_with("two") && line.ends_with("ok")));
    }

    #[test]
    fn steps_of_another_process_count() {
        let mut steps = Steps::default();
        steps.run("one", || -> Result<()> { bail!("broken:\nin two lines") });
        steps.run("two", || Ok(()));
        steps.not_run("three", "no tool");
        let file = std::env::temp_dir().join(format!("steps-{}", std::process::id()));
        steps.write(&file).unwrap();
        let mut read = Steps::default();
        read.read(&file).unwrap();
        assert_eq!((read.failures(), read.done.len()), (1, 3));
        let lines = |steps: &Steps| steps.summary().lines().take(4).map(String::from).collect::<Vec<_>>();
        assert_eq!(lines(&read), lines(&steps));
        read.failed("four", "it ended early");
        assert_eq!(read.failures(), 2);
        std::fs::write(&file, "one\0passed").unwrap();
        assert!(read.read(&file).unwrap_err().to_string().contains("half a step"));
        std::fs::remove_file(file).unwrap();
    }

    #[test]
    fn commands_are_shown_as_typed() {
        assert_eq!(words(Command::new("/bin/cargo").args(["fmt", "--all"])), "cargo fmt --all");
    }
}
