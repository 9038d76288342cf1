//! Kernel by kernel: what each judge said of each, and when, is kept from run to run. So a run that has not the time for all of them goes on where the
//! last one stopped.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

/// What became of a kernel under a judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// No message that nobody knows.
    Clean,
    /// Such messages, or a program that failed.
    Faulty,
    /// Its processor time was up.
    TooLong,
}

const VERDICTS: [(Verdict, &str); 3] =
    [(Verdict::Clean, "clean"), (Verdict::Faulty, "faulty"), (Verdict::TooLong, "too long")];

impl Verdict {
    pub(super) fn name(self) -> &'static str {
        VERDICTS.iter().find(|(verdict, _)| *verdict == self).map_or("", |(_, name)| name)
    }
}

/// A line of the file.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    judge: String,
    kernel: String,
    verdict: Verdict,
    /// Of the processor.
    seconds: u64,
    /// Since 1970.
    at: u64,
}

impl Entry {
    fn parse(line: &str) -> Option<Self> {
        let [judge, kernel, verdict, seconds, at] = line.split('\t').collect::<Vec<_>>().try_into().ok()?;
        let (verdict, _) = *VERDICTS.iter().find(|(_, name)| *name == verdict)?;
        let (judge, kernel) = (judge.into(), kernel.into());
        Some(Self { judge, kernel, verdict, seconds: seconds.parse().ok()?, at: at.parse().ok()? })
    }

    fn line(&self) -> String {
        let Self { judge, kernel, seconds, at, .. } = self;
        format!("{judge}\t{kernel}\t{}\t{seconds}\t{at}\n", self.verdict.name())
    }
}

/// What is known of kernels, by judge.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    entries: Mutex<Vec<Entry>>,
}

impl Kept {
    /// From a file, which need not be there. A line that cannot be read is of a kernel that nobody has judged.
    pub(super) fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_default();
        let entries = text.lines().filter_map(Entry::parse).collect();
        Self { path: path.into(), entries: Mutex::new(entries) }
    }

    /// Kernels, those first that a judge has not seen, or not for the longest.
    pub(super) fn in_turn(&self, judge: &str, kernels: &[String]) -> Vec<String> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |kernel: &String| {
            entries
                .iter()
                .find(|entry| entry.judge == judge && entry.kernel == *kernel)
                .map_or(0, |entry| entry.at)
        };
        let mut kernels = kernels.to_vec();
        kernels.sort_by_key(at);
        kernels
    }

    /// Notes what became of a kernel, now.
    pub(super) fn note(&self, judge: &str, kernel: &str, verdict: Verdict, took: Duration) -> Result<()> {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (judge, kernel) = (judge.to_owned(), kernel.to_owned());
        let entry = Entry { judge, kernel, verdict, seconds: took.as_secs(), at };
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|old| (&old.judge, &old.kernel) != (&entry.judge, &entry.kernel));
        entries.push(entry);
        let text: String = entries.iter().map(Entry::line).collect();
        fs::write(&self.path, text).with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// What a judge said of a kernel last, in words.
    pub(super) fn last(&self, judge: &str, kernel: &str) -> String {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let own = entries.iter().find(|entry| entry.judge == judge && entry.kernel == kernel);
        let Some(own) = own else { return "never judged".into() };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let days = now.saturating_sub(own.at) / 86_400;
        format!("{} {days} days ago", own.verdict.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_wait_longest_that_nobody_judged() {
        let path = std::env::temp_dir().join(format!("kept-{}", std::process::id()));
        let kernels: Vec<String> = ["a", "b b", "c"].map(String::from).into();
        let line = |kernel: &str, at| format!("bounds\t{kernel}\tclean\t3\t{at}\n");
        fs::write(
            &path,
            line("a", 30) + &line("c", 20) + "bounds\tb b\tgood\t1\t9\nraces\tb b\tclean\t1\t9\n",
        )
        .unwrap();
        let kept = Kept::read(&path);
        assert_eq!(kept.in_turn("bounds", &kernels), ["b b", "c", "a"]);
        assert_eq!(kept.in_turn("races", &kernels), ["a", "c", "b b"]);
        kept.note("bounds", "b b", Verdict::TooLong, Duration::from_secs(120)).unwrap();
        let kept = Kept::read(&path);
        assert_eq!(kept.in_turn("bounds", &kernels), ["c", "a", "b b"]);
        assert_eq!(kept.last("bounds", "b b"), "too long 0 days ago");
        assert_eq!(kept.last("bounds", "d"), "never judged");
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().filter(|line| line.starts_with("bounds\tb b\t")).count(), 1);
        fs::remove_file(&path).unwrap();
    }
}
