//! `compare`: runs of `bench` side by side.

use crate::output::{json_line, say, seconds};
use crate::report::compare::{Comparison, File, Pair, Run, Verdict, comparisons};
use crate::report::view::ceiling_name;
use anyhow::{Result, ensure};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

/// Put runs side by side: machines, or versions on one machine
///
/// The first file is the base; each adapter of the others is held against the one of the base that is most like it. *change* is that
/// of the median time with hot caches, by the clock that both have. *slower* and *faster* need three things: a change past the
/// threshold, for what a machine does from minute to minute; past what the ceiling of the case drifted during either run; and samples
/// that confirm it: the interval that encloses the change with 99 % confidence, whatever the distribution of the samples, does not
/// hold 0. A change past the threshold without the other two is *unclear*.
///
/// Exit status 1 on a regression: a case that was timed and now fails its verification; on the same adapter, backend and CPU (another
/// version, another driver) also one that is slower or can no longer run. Exit status 2 if there is nothing to compare: no case that
/// both have and the base has timed, or a record with times that are none (0, below 0, or of a case that failed).
#[derive(Debug, Args)]
pub(super) struct Compare {
    /// The base, and what is held against it: what `bench --json` wrote
    #[arg(required = true, num_args = 2.., value_name = "RECORD")]
    records: Vec<PathBuf>,
    /// Changes of up to this many percent count as none
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
    threshold: f64,
    /// One JSON object per case, each on a line of its own
    #[arg(long)]
    json: bool,
}

/// A line of `--json`.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line<'a> {
    Pair {
        base: Side<'a>,
        other: Side<'a>,
        #[serde(flatten)]
        pair: &'a Pair,
    },
    /// A case that one of the two does not have.
    Only { of: Side<'a>, not_of: Side<'a>, case: &'a str },
}

#[derive(Clone, Copy, Serialize)]
struct Side<'a> {
    file: &'a str,
    adapter: &'a str,
    backend: &'a str,
}

impl<'a> Side<'a> {
    fn new(run: &Run<'a>) -> Self {
        Self { file: &run.file.name, adapter: &run.adapter.name, backend: &run.adapter.backend }
    }
}

impl Compare {
    /// All is well if nothing is a regression.
    pub(super) fn run(&self) -> Result<bool> {
        let percent = self.threshold;
        ensure!(
            percent >= 0.0 && percent.is_finite(),
            "--threshold: need a percentage of at least 0, got {percent}"
        );
        let files = self.records.iter().map(|path| File::load(path)).collect::<Result<Vec<_>>>()?;
        let comparisons = comparisons(&files);
        let (mut well, mut compared) = (true, false);
        for comparison in &comparisons {
            let pairs: Vec<Vec<Pair>> = comparison
                .others
                .iter()
                .map(|other| other.against(&comparison.base, percent / 100.0))
                .collect();
            well &= !pairs.iter().flatten().any(|pair| pair.regression);
            compared |= pairs.iter().flatten().any(|pair| pair.verdict.says_something());
            if self.json { lines(comparison, &pairs)? } else { self.table(comparison, &pairs)? }
        }
        // Nothing in common, or nothing of it timed, is no good news.
        ensure!(compared, "need a case that both records have and that the first has timed, got none");
        Ok(well)
    }

    fn table(&self, comparison: &Comparison<'_>, pairs: &[Vec<Pair>]) -> Result<()> {
        let base = &comparison.base;
        say!("\nbase  {}", title(base))?;
        if comparison.others.is_empty() {
            return say!("      nothing to hold against it");
        }
        for (n, other) in comparison.others.iter().enumerate() {
            say!("{:<5} {}", n + 1, title(other))?;
            if !other.same_machine(base) {
                say!("      another machine: slower there is no regression")?;
            }
            say!("      ceilings against the base: {}", ceilings(other, base))?;
        }
        say!("")?;
        for line in grid(comparison, pairs) {
            say!("{line}")?;
        }
        for (n, (other, pairs)) in comparison.others.iter().zip(pairs).enumerate() {
            say!("\n{}: {}", n + 1, self.tally(pairs))?;
            for (of, names) in [(base, base.without(other)), (other, other.without(base))] {
                if !names.is_empty() {
                    say!("only in {}: {}", of.file.name, names.join(", "))?;
                }
            }
        }
        Ok(())
    }

    fn tally(&self, pairs: &[Pair]) -> String {
        let all = [
            Verdict::Slower,
            Verdict::Failed,
            Verdict::CannotRun,
            Verdict::Faster,
            Verdict::Same,
            Verdict::Unclear,
            Verdict::New,
            Verdict::Interrupted,
            Verdict::Neither,
        ];
        let count = |verdict| pairs.iter().filter(|pair| pair.verdict == verdict).count();
        let counts = all.into_iter().map(|verdict| (count(verdict), verdict.words()));
        let counts: Vec<_> =
            counts.filter(|it| it.0 > 0).map(|(count, words)| format!("{count} {words}")).collect();
        format!("{} cases in both: {} (threshold {} %)", pairs.len(), counts.join(", "), self.threshold)
    }
}

/// File, adapter, versions, and what forbids to trust the figures.
fn title(run: &Run<'_>) -> String {
    let (record, adapter) = (&run.file.record, run.adapter);
    let mut text = format!(
        "{}: {}, {}; wgpu-attention {}, suite {}, {}",
        run.file.name,
        adapter.title(),
        adapter.driver,
        record.version,
        record.suite,
        record.date
    );
    for warning in adapter.warnings(record) {
        text += &format!("\n      warning: {warning}");
    }
    text
}

/// By how much each ceiling that both measured differs: what has nothing to do with the kernels.
fn ceilings(other: &Run<'_>, base: &Run<'_>) -> String {
    let changes = other.ceilings(base).into_iter();
    let changes: Vec<_> =
        changes.map(|(kind, change)| format!("{} {:+.1} %", ceiling_name(kind), 100.0 * change)).collect();
    if changes.is_empty() { "none measured in both".into() } else { changes.join(", ") }
}

/// The table: one row per case of the base, four columns per other record.
fn grid(comparison: &Comparison<'_>, pairs: &[Vec<Pair>]) -> Vec<String> {
    let mut rows = vec![vec!["case".to_owned(), "base".into()]];
    for n in 1..=pairs.len() {
        rows[0].extend([n.to_string(), "change".into(), "99 % interval".into(), "verdict".into()]);
    }
    for case in &comparison.base.adapter.cases {
        let found: Vec<_> =
            pairs.iter().map(|pairs| pairs.iter().find(|pair| pair.case == case.name)).collect();
        if found.iter().all(Option::is_none) {
            continue;
        }
        let base = found.iter().flatten().find_map(|pair| pair.base_s);
        let mut row = vec![case.name.clone(), base.map_or(String::new(), seconds)];
        found.into_iter().for_each(|pair| row.extend(cells(pair)));
        rows.push(row);
    }
    let columns = rows[0].len();
    let widths: Vec<_> =
        (0..columns).map(|n| rows.iter().map(|row| row[n].chars().count()).max().unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(n, (cell, &width))| match n {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        format!("| {} |", cells.collect::<Vec<_>>().join(" | "))
    };
    let dashes = |(n, &width): (usize, &usize)| match n {
        0 => "-".repeat(width + 2),
        _ => "-".repeat(width + 1) + ":",
    };
    let rule: Vec<_> = widths.iter().enumerate().map(dashes).collect();
    let mut lines: Vec<_> = rows.iter().map(line).collect();
    lines.insert(1, format!("|{}|", rule.join("|")));
    lines
}

fn cells(pair: Option<&Pair>) -> [String; 4] {
    let Some(pair) = pair else { return Default::default() };
    let percent = |value: f64| format!("{:+.1}", 100.0 * value);
    let interval =
        pair.low.zip(pair.high).map(|(low, high)| format!("{} to {}", percent(low), percent(high)));
    [
        pair.other_s.map_or(String::new(), seconds),
        pair.change.map_or(String::new(), |change| percent(change) + " %"),
        interval.unwrap_or_default(),
        format!("{}{}", pair.verdict.words(), if pair.unconverged { ", unconverged" } else { "" }),
    ]
}

fn lines(comparison: &Comparison<'_>, pairs: &[Vec<Pair>]) -> Result<()> {
    let base = &comparison.base;
    for (other, pairs) in comparison.others.iter().zip(pairs) {
        for pair in pairs {
            json_line(&Line::Pair { base: Side::new(base), other: Side::new(other), pair })?;
        }
        for (of, not_of) in [(base, other), (other, base)] {
            for case in of.without(not_of) {
                json_line(&Line::Only { of: Side::new(of), not_of: Side::new(not_of), case })?;
            }
        }
    }
    Ok(())
}
