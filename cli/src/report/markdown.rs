//! The table of the README: made from the records beside it, between two marks.

use super::costs;
use super::trends::Group;
use super::view::digits;
use crate::output::seconds;
use anyhow::{Result, ensure};
use wgpu_attention_bench::record::{Adapter, Case, Record, Status};

const BEGIN: &str =
    "<!-- benchmarks: begin (cargo attention report benches/results/*.json --into docs/RESULTS.md) -->";
const END: &str = "<!-- benchmarks: end -->";

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

fn describe(record: &Record, adapter: &Adapter) -> String {
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
fn escaped(text: &str) -> String {
    text.replace(['\n', '\r'], " ").replace('|', "\\|").replace('<', "&lt;")
}

/// A text with what is between the marks replaced.
pub(crate) fn into(text: &str, table: &str) -> Result<String> {
    let parts = text.split_once(BEGIN).and_then(|(head, rest)| Some((head, rest.split_once(END)?.1)));
    ensure!(parts.is_some(), "need the lines `{BEGIN}` and `{END}`, in this order");
    let (head, tail) = parts.unwrap_or_default();
    Ok(format!("{head}{BEGIN}\n\n{table}\n{END}{tail}"))
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
        let page = format!("above\n{BEGIN}\nold\n{END}\nbelow\n");
        let new = into(&page, "new\n")?;
        assert_eq!(new, format!("above\n{BEGIN}\n\nnew\n\n{END}\nbelow\n"));
        assert_eq!(into(&new, "new\n")?, new);
        for wrong in ["nothing", BEGIN, END, &format!("{END} {BEGIN}")] {
            assert!(into(wrong, "new").is_err(), "{wrong}");
        }
        Ok(())
    }
}
