//! Named steps with their time, and the summary at the end.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// How a step ended.
enum Outcome {
    /// All is well.
    Passed,
    /// With the reason.
    Failed(String),
    /// With the reason; never counted as passed.
    NotRun(String),
}

/// Runs steps one after the other and remembers how they ended.
pub(crate) struct Steps {
    began: Instant,
    done: Vec<(String, Outcome, Duration)>,
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
        let start = Instant::now();
        let result = step();
        let (outcome, value) = match result {
            Ok(value) => (Outcome::Passed, Some(value)),
            Err(error) => (Outcome::Failed(format!("{error:#}")), None),
        };
        eprintln!("== {name}: {} ({})", outcome.words(), seconds(start.elapsed()));
        self.done.push((name.into(), outcome, start.elapsed()));
        value
    }

    /// Runs a step that leaves processors idle while the ones of `others` run. Both write to the same output.
    pub(crate) fn beside(
        &mut self,
        name: &str,
        step: impl FnOnce() -> Result<()> + Send,
        others: impl FnOnce(&mut Self),
    ) {
        let done = std::thread::scope(|scope| {
            let step = scope.spawn(|| {
                let mut own = Self::default();
                own.run(name, step);
                own.done
            });
            others(self);
            step.join()
        });
        match done {
            Ok(done) => self.done.extend(done),
            Err(_) => self.done.push((name.into(), Outcome::Failed("it panicked".into()), Duration::ZERO)),
        }
    }

    /// Remembers that a step could not be run on this machine.
    pub(crate) fn not_run(&mut self, name: &str, reason: impl Into<String>) {
        self.done.push((name.into(), Outcome::NotRun(reason.into()), Duration::ZERO));
    }

    /// All steps in a table.
    pub(crate) fn summary(&self) -> String {
        let width = self.done.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
        let line = |(name, outcome, time): &(String, Outcome, Duration)| {
            format!("  {name:width$}  {:>8}  {}\n", seconds(*time), outcome.words())
        };
        let lines: String = self.done.iter().map(line).collect();
        format!("summary\n{lines}  {:width$}  {:>8}", "in all", seconds(self.began.elapsed()))
    }

    /// The number of failed steps.
    pub(crate) fn failures(&self) -> usize {
        self.done.iter().filter(|(_, outcome, _)| matches!(outcome, Outcome::Failed(_))).count()
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
fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
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
    use anyhow::bail;

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
    fn a_step_beside_others_counts() {
        let mut steps = Steps::default();
        steps.beside(
            "one",
            || bail!("broken"),
            |steps| {
                steps.run("two", || Ok(()));
            },
        );
        assert_eq!((steps.failures(), steps.done.len()), (1, 2));
        steps.beside("three", || panic!("on purpose"), |_| ());
        assert_eq!(steps.failures(), 2);
    }

    #[test]
    fn commands_are_shown_as_typed() {
        assert_eq!(words(Command::new("/bin/cargo").args(["fmt", "--all"])), "cargo fmt --all");
    }
}
