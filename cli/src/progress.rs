//! Steps with their times on stderr: a spinner for people, plain lines where stderr is no terminal.

use crate::output::seconds;
use anyhow::Result;
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Shows which step of how many is being done.
pub(crate) struct Progress {
    bar: ProgressBar,
    of: usize,
    done: usize,
    /// Nothing is shown.
    quiet: bool,
}

impl Progress {
    /// For so many steps.
    pub(crate) fn new(of: usize, quiet: bool) -> Self {
        let bar = if quiet || !std::io::stderr().is_terminal() {
            ProgressBar::hidden()
        } else {
            ProgressBar::new_spinner()
        };
        // The template is a constant: where it were wrong, the default serves as well.
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar, of, done: 0, quiet }
    }

    /// Does one step.
    pub(crate) fn step<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.done += 1;
        let label = format!("[{}/{}] {name}", self.done, self.of);
        self.bar.reset_elapsed();
        self.bar.set_message(label.clone());
        let start = Instant::now();
        let value = work()?;
        if !self.quiet {
            let line = format!("{label:<20} {}", seconds(start.elapsed().as_secs_f64()));
            self.bar.suspend(|| eprintln!("{line}"));
        }
        Ok(value)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Many steps of which nobody wants a line each: a bar with the time left, or lines where stderr is no terminal.
pub(crate) struct Countdown {
    bar: ProgressBar,
    /// Nothing is shown.
    quiet: bool,
    lines: bool,
}

impl Countdown {
    /// For so many steps.
    pub(crate) fn new(of: usize, quiet: bool) -> Self {
        let lines = !std::io::stderr().is_terminal();
        let target = if quiet || lines { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(of as u64), target);
        bar.set_style(Self::style("{bar:20} {pos}/{len}  {msg}"));
        bar.enable_steady_tick(Duration::from_millis(500));
        Self { bar, quiet, lines }
    }

    /// The templates are constants: where one were wrong, the default serves as well.
    fn style(template: &str) -> ProgressStyle {
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
    }

    /// Names the step that begins.
    pub(crate) fn begin(&self, name: &str) {
        self.bar.set_message(name.to_owned());
        if self.lines && !self.quiet {
            let (at, of) = (self.bar.position() + 1, self.bar.length().unwrap_or(0));
            let left = if at > 1 { format!(", {} left", HumanDuration(self.bar.eta())) } else { "".into() };
            eprintln!("[{at}/{of}{left}] {name}");
        }
    }

    /// The step is done.
    pub(crate) fn done(&self) {
        self.bar.inc(1);
        // Before, there is nothing to estimate by.
        if self.bar.position() == 1 {
            self.bar.set_style(Self::style("{bar:20} {pos}/{len}, {eta} left  {msg}"));
        }
    }

    /// Prints something else meanwhile.
    pub(crate) fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }
}

impl Drop for Countdown {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
