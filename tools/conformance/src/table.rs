//! Kernels by implementations.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::Result;

use crate::results::{self, Device, Line, Outcome};

/// The results of one implementation.
pub(crate) struct Column {
    name: String,
    device: Device,
    lines: Vec<Line>,
}

impl Column {
    pub(crate) fn read(name: &str, path: &Path) -> Result<Self> {
        let (device, lines) = results::read(path)?;
        Ok(Self { name: name.into(), device, lines })
    }

    /// The cell of a kernel and element type: worst error / bound, or what else happened.
    fn cell(&self, (kernel, element): &(String, String)) -> String {
        let lines = self.lines.iter().filter(|line| (&line.kernel, &line.element) == (kernel, element));
        let (mut worst, mut failed, mut not_run) = (None, 0usize, 0usize);
        for line in lines {
            match &line.outcome {
                Outcome::Worst(ratio) => worst = Some(worst.unwrap_or(0f64).max(*ratio)),
                Outcome::Failed(_) => failed += 1,
                Outcome::NotRun(_) => not_run += 1,
            }
        }
        match (failed, worst) {
            (1.., _) => format!("{failed} FAILED"),
            (0, Some(0.0)) => "exact".into(),
            (0, Some(worst)) => format!("{worst:.3}"),
            (0, None) if not_run > 0 => "not run".into(),
            (0, None) => "".into(),
        }
    }

    fn count(&self, is: fn(&Outcome) -> bool) -> usize {
        self.lines.iter().filter(|line| is(&line.outcome)).count()
    }
}

/// Kernels and element types, in the order of the cases.
fn rows(columns: &[Column]) -> Vec<(String, String)> {
    let mut rows: Vec<(String, String)> = Vec::new();
    for line in columns.iter().flat_map(|column| &column.lines) {
        let row = (line.kernel.clone(), line.element.clone());
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    // The element types of a kernel side by side, whatever the order of its cases.
    let first = |kernel: &str| rows.iter().position(|row| row.0 == kernel);
    let mut sorted = rows.clone();
    sorted.sort_by_key(|row| first(&row.0));
    sorted
}

/// The table for a terminal.
pub(crate) fn text(columns: &[Column], missing: &[String]) -> String {
    let mut text = String::new();
    for (n, column) in columns.iter().enumerate() {
        writeln!(text, "[{n}] {}: {}", column.name, column.device).expect("writing to a String succeeds");
    }
    let width = rows(columns).iter().map(|row| row.0.len() + row.1.len() + 1).max().unwrap_or(0);
    let heads: String = (0..columns.len()).map(|n| format!("{:>9}", format!("[{n}]"))).collect();
    writeln!(text, "\n{:width$}{heads}   worst error / bound", "").expect("writing to a String succeeds");
    for row in rows(columns) {
        let cells: String = columns.iter().map(|column| format!("{:>9}", column.cell(&row))).collect();
        writeln!(text, "{:width$}{cells}", format!("{} {}", row.0, row.1))
            .expect("writing to a String succeeds");
    }
    for missing in missing {
        writeln!(text, "missing: {}", missing.replacen('=', ": ", 1)).expect("writing to a String succeeds");
    }
    text
}

/// The table as a page.
pub(crate) fn page(columns: &[Column], missing: &[String], date: &str) -> String {
    let mut text = String::from(
        "# Kernels by implementations\n\n\
         Written by `cargo xtask conformance --bless`. The worst error / bound of all cases of a kernel, 1 being the bound\n\
         that `src/reference` proves for each element; *exact* where nothing may be rounded. Cases: the bound, count and\n\
         gather tests over sizes, score terms, patterns, layouts and parts (`tools/conformance/src`).\n\n",
    );
    let mut add = |line: String| {
        text += &line;
        text.push('\n');
    };
    add(format!("Of {date}.\n"));
    add("| | implementation | adapter | driver | through | cases | failed | not run | seconds |".into());
    add("|---|---|---|---|---|---:|---:|---:|---:|".into());
    for (column, letter) in columns.iter().zip('A'..) {
        let Device { adapter, driver, through } = &column.device;
        let failed = column.count(|outcome| matches!(outcome, Outcome::Failed(_)));
        let not_run = column.count(|outcome| matches!(outcome, Outcome::NotRun(_)));
        let seconds: f64 = column.lines.iter().map(|line| line.seconds).sum();
        let cases = column.lines.len();
        add(format!(
            "| {letter} | {} | {adapter} | {driver} | {through} | {cases} | {failed} | {not_run} | {seconds:.0} |",
            column.name
        ));
    }
    for missing in missing {
        let (name, reason) = missing.split_once('=').unwrap_or((missing, ""));
        add(format!("| | {name} | missing: {reason} | | | | | | |"));
    }
    let letters: String = columns.iter().zip('A'..).map(|(_, letter)| format!(" {letter} |")).collect();
    add(format!("\n| kernel | elements |{letters}"));
    add(format!("|---|---|{}", "---:|".repeat(columns.len())));
    for row in rows(columns) {
        let cells: String = columns.iter().map(|column| format!(" {} |", column.cell(&row))).collect();
        add(format!("| {} | {} |{cells}", row.0, row.1));
    }
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for line in columns.iter().flat_map(|column| &column.lines) {
        if let Outcome::NotRun(reason) = &line.outcome {
            *reasons.entry(reason).or_default() += 1;
        }
    }
    for (reason, cases) in reasons {
        add(format!("\nNot run ({cases} cases): {reason}."));
    }
    text
}
