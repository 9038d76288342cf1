//! Steps with their times on stderr: a spinner for people, plain lines where stderr is no terminal.

use crate::output::seconds;
use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
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
