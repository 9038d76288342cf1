//! A run as lines on the terminal.

use crate::output::{say, seconds};
use anyhow::Result;
use wgpu_attention_bench::record::{Adapter, Case, Ceiling, CeilingKind, Record, Status};

/// Columns behind the name.
const HEAD: &str =
    "|  time hot |  +- % | time cold |   GFLOP/s |   GB/s | roofline % | waste | error/bound |";
const RULE: &str =
    "|----------:|------:|----------:|----------:|-------:|-----------:|------:|------------:|";

/// The lines of one adapter, with names in a column of this width.
pub(super) struct Table {
    width: usize,
}

impl Table {
    pub(super) fn of(cases: &[Case]) -> Self {
        Self { width: cases.iter().map(|case| case.name.len()).max().unwrap_or(4).max(4) }
    }

    pub(super) fn head(&self) -> Result<()> {
        say!("\n| {:<width$} {HEAD}", "case", width = self.width)?;
        say!("|{:-<width$}{RULE}", "", width = self.width + 2)
    }

    pub(super) fn case(&self, case: &Case) -> Result<()> {
        say!("| {:<width$} {}", case.name, columns(case), width = self.width)
    }
}

fn columns(case: &Case) -> String {
    let why = case.why.as_deref().unwrap_or_default();
    let (Some(hot), Some(rates), Some(cost)) = (&case.hot, &case.rates, &case.cost) else {
        return match case.status {
            Status::Failed => format!("| FAILED: {why} |"),
            Status::CannotRun => format!("| cannot run: {why} |"),
            Status::NotRun => format!("| not run: {why} |"),
            _ => "| interrupted |".into(),
        };
    };
    let cold = case.cold.as_ref().map_or("".into(), |cold| seconds(cold.clock().summary.median_s));
    let percent = |value: Option<f64>| value.map_or("".into(), |value| format!("{value:.1}"));
    let ratio = case.verification.as_ref().and_then(|verification| verification.worst_ratio);
    let mut notes = vec![];
    if case.status == Status::Unconverged {
        notes.push("unconverged");
    }
    if hot.clocks_disagree {
        notes.push("clocks disagree");
    }
    if case.status == Status::Interrupted {
        notes.push("interrupted");
    }
    let notes = if notes.is_empty() { "".into() } else { format!(" {} |", notes.join(", ")) };
    format!(
        "| {:>9} | {:>5} | {cold:>9} | {:>9.2} | {:>6.2} | {:>10} | {:>5} | {:>11} |{notes}",
        seconds(hot.clock().summary.median_s),
        wgpu_attention_bench::stats::deviation_text(hot.clock()),
        1e-9 * rates.useful_flop_s,
        1e-9 * rates.bytes_s,
        percent(rates.roofline_percent),
        cost.block_waste.map_or("".into(), |waste| format!("{waste:.2}")),
        ratio.map_or("".into(), |ratio| format!("{ratio:.3}")),
    )
}

/// A ceiling in its unit.
pub(super) fn ceiling(ceiling: &Ceiling) -> String {
    let name = match ceiling.kind {
        CeilingKind::FmaF32 => "fma f32",
        CeilingKind::FmaF16 => "fma f16",
        CeilingKind::MatrixF16 => "matrix f16",
        CeilingKind::Copy => "copy",
        CeilingKind::Read => "read",
        CeilingKind::Workgroup => "workgroup memory",
        CeilingKind::Launch => "launch",
    };
    let text = match (ceiling.value(), ceiling.kind) {
        (None, _) => return format!("  {name:<17} {}", ceiling.why.as_deref().unwrap_or("not measured")),
        (Some(value), CeilingKind::Launch) => seconds(value),
        (Some(value), CeilingKind::FmaF32 | CeilingKind::FmaF16 | CeilingKind::MatrixF16) => {
            format!("{:.1} GFLOP/s", 1e-9 * value)
        }
        (Some(value), _) => format!("{:.1} GB/s", 1e-9 * value),
    };
    let drift = ceiling.drift.map_or("".into(), |drift| format!(", {:+.1} % since", 100.0 * drift));
    format!("  {name:<17} {text}{drift}")
}

/// What is to be said of an adapter at its end.
pub(super) fn end(adapter: &Adapter, record: &Record) -> Result<()> {
    if adapter.ceilings.iter().any(|ceiling| ceiling.drift.is_some()) {
        say!("\nceilings, before and after:")?;
        adapter.ceilings.iter().try_for_each(|it| say!("{}", ceiling(it)))?;
    }
    if adapter.drifted {
        say!(
            "DRIFT: a ceiling changed by more than {:.0} % during the run: compare nothing with it",
            100.0 * record.rules.drift
        )?;
    }
    let count = |status| adapter.cases.iter().filter(|case| case.status == status).count();
    let not_run = match count(Status::NotRun) {
        0 => String::new(),
        count => format!(", {count} not run"),
    };
    say!(
        "\n{} cases: {} measured, {} unconverged, {} failed verification, {} cannot run{not_run}, {} interrupted",
        adapter.cases.len(),
        count(Status::Measured),
        count(Status::Unconverged),
        count(Status::Failed),
        count(Status::CannotRun),
        count(Status::Interrupted)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_unconverged_and_impossible_cases_are_shown_as_such() -> Result<()> {
        let record = Record::parse(include_str!("../../../crates/bench/tests/data/bench.json"))?;
        let line = |status| {
            let case = record.adapters[0].cases.iter().find(|case| case.status == status);
            columns(case.expect("the sample has every status"))
        };
        assert!(line(Status::Failed).starts_with("| FAILED: out of its bound"));
        assert!(line(Status::CannotRun).starts_with("| cannot run: q: need"));
        assert!(line(Status::Unconverged).ends_with("| unconverged |"));
        assert_eq!(line(Status::Interrupted), "| interrupted |");
        let disagree = record.adapters[0].cases.iter().find(|case| {
            case.status == Status::Measured && case.hot.as_ref().is_some_and(|hot| hot.clocks_disagree)
        });
        assert!(columns(disagree.expect("the sample has one")).ends_with("| clocks disagree |"));
        Ok(())
    }
}
