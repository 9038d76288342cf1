//! The table of the README: made from the records beside it, between two marks.

use super::costs;
use super::trends::Group;
use super::view::digits;
use crate::output::seconds;
use anyhow::{Result, ensure};
use wgpu_attention_bench::record::{Adapter, Case, Record, Status};

/// Lines between which a page has what is made of records.
pub(crate) struct Marks {
    begin: &'static str,
    end: &'static str,
}

/// Of the table.
pub(crate) const TABLE: Marks = Marks {
    begin: "<!-- benchmarks: begin (cargo attention report benches/results/*.json --into docs/RESULTS.md) -->",
    end: "<!-- benchmarks: end -->",
};

/// Of the page of the suite `crossover`.
pub(crate) const CROSSOVER: Marks = Marks {
    begin: "<!-- crossover: begin (cargo attention report benches/results/crossover/*.json --crossover docs/CROSSOVER.md) -->",
    end: "<!-- crossover: end -->",
};

/// A list of the runs with the patterns that are fastest on them, and a table with one row per case and four columns per run.
pub(crate) fn markdown(records: &[Record]) -> String {
    let runs = records.iter().flat_map(|record| record.adapters.iter().map(move |adapter| (record, adapter)));
    let (runs, dead): (Vec<_>, Vec<_>) = runs.partition(|(_, adapter)| adapter.error.is_none());
    let mut text = String::new();
    for (n, (record, adapter)) in runs.iter().enumerate() {
        text += &format!("{}. {}\n", n + 1, describe(record, adapter));
        for group in Group::of(&adapter.cases) {
            text += &format!("   * {}\n", escaped(&group.fastest_text()));
            if let Some(crossings) = group.crossings_text() {
                text += &format!("   * {}\n", escaped(&crossings));
            }
        }
        for line in costs::lines(&adapter.cases) {
            text += &format!("   * {}\n", escaped(&line));
        }
    }
    for (record, adapter) in dead {
        text += &format!("* {}\n", describe(record, adapter));
    }
    // A page that shows it starts with the answers.
    text += "\n<details><summary>All cases</summary>\n\n| case |";
    for n in 1..=runs.len() {
        text += &format!(" {n}: time | GFLOP/s | roofline % | error/bound |");
    }
    text += &format!("\n|---|{}\n", "---:|---:|---:|---:|".repeat(runs.len()));
    let mut names: Vec<&str> = vec![];
    for case in runs.iter().flat_map(|(_, adapter)| &adapter.cases) {
        if !names.contains(&case.name.as_str()) {
            names.push(&case.name);
        }
    }
    for name in names {
        text += &format!("| {} |", escaped(name));
        for (_, adapter) in &runs {
            text += &adapter.cases.iter().find(|case| case.name == name).map_or(" | | | |".into(), columns);
        }
        text += "\n";
    }
    text + "\n~: the samples did not agree as closely as the suite asks (unconverged).\n\n</details>\n"
}

pub(super) fn describe(record: &Record, adapter: &Adapter) -> String {
    let Record { version, date, suite, host, .. } = record;
    let mut text = format!(
        "{}, {}, {}; {} ({} threads), {}; wgpu-attention {version}, `bench --suite {suite}`, {date}: {}",
        adapter.name,
        adapter.backend,
        adapter.driver,
        host.cpu,
        host.threads,
        host.os,
        adapter.tally(),
    );
    for warning in adapter.warnings(record) {
        text += &format!("; **{warning}**");
    }
    escaped(&text)
}

fn columns(case: &Case) -> String {
    let Some(timed) = case.timed() else {
        let word = match case.status {
            Status::Failed => "**FAILED**",
            Status::CannotRun => "cannot run",
            Status::NotRun => "not run",
            _ => "interrupted",
        };
        return format!(" {word} | | | |");
    };
    let doubt = if case.status == Status::Unconverged { "~ " } else { "" };
    let ratio = case.verification.as_ref().and_then(|it| it.worst_ratio);
    format!(
        " {doubt}{} | {:.2} | {} | {} |",
        seconds(timed.rates.time_s),
        1e-9 * timed.rates.useful_flop_s,
        digits(timed.rates.roofline_percent, 1),
        digits(ratio, 3)
    )
}

/// A text that ends neither a cell nor the section.
pub(super) fn escaped(text: &str) -> String {
    text.replace(['\n', '\r'], " ").replace('|', "\\|").replace('<', "&lt;")
}

impl Marks {
    /// A text with what is between the marks replaced.
    pub(crate) fn filled(&self, text: &str, made: &str) -> Result<String> {
        let Self { begin, end } = self;
        let parts = text.split_once(begin).and_then(|(head, rest)| Some((head, rest.split_once(end)?.1)));
        ensure!(parts.is_some(), "need the lines `{begin}` and `{end}`, in this order");
        let (head, tail) = parts.unwrap_or_default();
        Ok(format!("{head}{begin}\n\n{made}\n{end}{tail}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::sample;

    #[test]
    fn a_row_a_case_and_each_status_as_such() {
        let text = markdown(&[sample()]);
        let line = |name: &str| text.lines().find(|line| line.contains(name)).expect("a line");
        assert!(
            line("bigbird f32").starts_with("| attention/bigbird f32 b1 h1 n4096 d64 | ~ 30.80 ms | "),
            "{text}"
        );
        assert!(line("strided f32").ends_with("| **FAILED** | | | | **FAILED** | | | |"), "{text}");
        assert!(line("n1048576").ends_with("| cannot run | | | | cannot run | | | |"), "{text}");
        assert!(line("add f32").ends_with("| interrupted | | | | interrupted | | | |"), "{text}");
        assert!(
            line("1. Software Example").contains("`bench --suite quick`, 2026-11-21T10:00:00Z: 13 measured")
        );
        assert!(line("* Fastest pattern by length (f32, 1 head, d 64)").contains(" window from 2k to 8k."));
        assert!(line("2. Hardware Example").contains("**drift: a ceiling changed"));
        assert!(line("* Small Example").contains("**the adapter could not be used"));
        let pipes = text.lines().filter(|line| line.starts_with('|')).map(|line| line.matches('|').count());
        assert!(pipes.clone().all(|count| count == 10), "{text}");
    }

    #[test]
    fn names_cannot_break_the_table() {
        assert_eq!(escaped("a|b\nc<!-- benchmarks: end -->"), "a\\|b c&lt;!-- benchmarks: end -->");
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() -> Result<()> {
        for marks in [TABLE, CROSSOVER] {
            let Marks { begin, end } = marks;
            let page = format!("above\n{begin}\nold\n{end}\nbelow\n");
            let new = marks.filled(&page, "new\n")?;
            assert_eq!(new, format!("above\n{begin}\n\nnew\n\n{end}\nbelow\n"));
            assert_eq!(marks.filled(&new, "new\n")?, new);
            for wrong in ["nothing", begin, end, &format!("{end} {begin}")] {
                assert!(marks.filled(wrong, "new").is_err(), "{wrong}");
            }
        }
        Ok(())
    }
}
