//! The page of the suite `crossover`: which computation is the fastest at which length, and the Sparse Transformer's own table.

use super::markdown::{describe, escaped};
use super::plots;
use super::trends::Group;
use super::view::short_len;
use crate::output::seconds;
use anyhow::{Result, ensure};
use wgpu_attention_bench::record::{Adapter, Case, Kernel, Record, Shape, Status};

/// Those that let a position look at all others, or at all before it: what they compute differs, how far they look does not.
const WHOLE: [&str; 6] = ["full", "causal", "linformer", "performer", "performer-causal", "lstm"];

/// Child 2019, the table's part on Enwik8: pattern as here, as there, seconds per iteration over 12,288 positions.
const PUBLISHED: [(&str, &str, f64); 3] =
    [("causal", "dense", 1.31), ("fixed", "fixed", 0.55), ("strided", "strided", 0.35)];

/// A section of Markdown per adapter, and its picture, by the picture's file name.
pub(crate) struct Page {
    pub(crate) text: String,
    pub(crate) pictures: Vec<(String, String)>,
}

/// The page of records of that suite; `stem` begins the names of the pictures.
pub(crate) fn page(records: &[Record], stem: &str) -> Result<Page> {
    let runs = records.iter().flat_map(|record| record.adapters.iter().map(move |adapter| (record, adapter)));
    let (mut text, mut pictures) = (String::new(), vec![]);
    for (record, adapter) in runs {
        ensure!(
            record.suite == "crossover",
            "need a record of the suite crossover, got one of {}",
            record.suite
        );
        if !text.is_empty() {
            text += "\n";
        }
        text += &format!("{}.\n\n", describe(record, adapter));
        let name = match pictures.len() {
            0 => format!("{stem}.svg"),
            n => format!("{stem}-{}.svg", n + 1),
        };
        let lengths = of_lengths(adapter);
        let groups = Group::of(&lengths);
        if let Some(group) = groups.first() {
            text += &by_length(group, &lengths, &name);
            pictures.push((name, on_white(&plots::time(group)?, &caption(group))));
        }
        text += &paper(adapter);
    }
    Ok(Page { text, pictures })
}

/// The cases by length, without those of the paper's table; a recurrent network of the same width as if it had the heads of the others.
fn of_lengths(adapter: &Adapter) -> Vec<Case> {
    let cases = adapter.cases.iter().filter(|case| case.known_as.is_none());
    let attention =
        cases.clone().find(|case| matches!(case.shape, Shape::Attention { .. })).map(|case| case.shape);
    let alike = |case: &Case| {
        let mut case = case.clone();
        if let (Shape::Recurrent { steps, hidden, .. }, Some(mut shape)) = (case.shape, attention)
            && let Shape::Attention { heads, q_len, kv_len, head_dim, .. } = &mut shape
            && *heads * *head_dim == hidden
        {
            (*q_len, *kv_len) = (steps, steps);
            case.shape = shape;
        }
        case
    };
    cases.map(alike).collect()
}

fn caption(group: &Group<'_>) -> String {
    format!(
        "Time of a call against the number of positions, both on logarithmic scales ({}): the numbers are in the table. A ring: there full attention is \
         overtaken. Hollow: the samples did not agree as closely as the suite asks.",
        group.title
    )
}

/// An SVG of its own: with a ground, and its content in words.
fn on_white(svg: &str, words: &str) -> String {
    let Some((head, rest)) = svg.split_once('>') else { return svg.into() };
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    format!(
        "{head} role=\"img\">\n<title>{words}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#FFFFFF\"/>{rest}"
    )
}

/// Picture, answers, table.
fn by_length(group: &Group<'_>, cases: &[Case], picture: &str) -> String {
    let mut text = format!("![{}]({picture})\n\n", caption(group));
    let whole: Vec<Case> =
        cases.iter().filter(|case| WHOLE.contains(&label(case).as_str())).cloned().collect();
    let of_whole = Group::of(&whole).first().and_then(|group| from_on(group));
    text.extend(from_on(group).map(|answer| format!("* Of all: {answer}.\n")));
    text.extend(of_whole.map(|answer| {
        format!("* Of those that look at all positions, or at all before their own: {answer}.\n")
    }));
    text += &format!("* {}\n", group.fastest_text());
    text.extend(group.crossings_text().map(|crossings| format!("* {crossings}\n")));
    text + "\n" + &table(group, cases)
}

/// `from 2k positions on, x is the fastest`: of the longest length that was compared, and all from there down.
fn from_on(group: &Group<'_>) -> Option<String> {
    let compared: Vec<(usize, Vec<&str>)> =
        group.lens.iter().filter_map(|&len| Some((len, group.fastest(len)?.0))).collect();
    let (_, fastest) = compared.last()?;
    let winner = fastest.first()?;
    let first = compared.iter().rev().take_while(|(_, names)| names.contains(winner)).last()?;
    Some(format!("from {} positions on, {winner} is the fastest", short_len(first.0)))
}

/// What a row of the table, and a curve, is called.
fn label(case: &Case) -> String {
    match case.kernel {
        Kernel::Attention | Kernel::Linear | Kernel::Recurrent => case.pattern.clone().unwrap_or_default(),
        kernel => kernel.name().into(),
    }
}

/// A row per subject, a column per length; the fastest in bold.
fn table(group: &Group<'_>, cases: &[Case]) -> String {
    let mut lens: Vec<usize> = cases.iter().map(|case| case.shape.length()).collect();
    lens.sort_unstable();
    lens.dedup();
    let heads: String = lens.iter().map(|&len| format!(" {} |", short_len(len))).collect();
    let mut text = format!("| positions |{heads}\n|---|{}\n", "---:|".repeat(lens.len()));
    let mut labels: Vec<String> = vec![];
    for case in cases {
        let label = label(case);
        if !labels.contains(&label) {
            labels.push(label);
        }
    }
    for name in labels {
        text += &format!("| {} |", escaped(&name));
        for &len in &lens {
            let case = cases.iter().find(|case| case.shape.length() == len && label(case) == name);
            let best = group.fastest(len).is_some_and(|(names, _)| names.contains(&name.as_str()));
            text += &format!(" {} |", case.map_or(String::new(), |case| cell(case, best)));
        }
        text += "\n";
    }
    text + "\n~: the samples did not agree as closely as the suite asks. *not run*: a call would take so long, by the times before, which is more than the run allows; or the run's time was over.\n"
}

fn cell(case: &Case, best: bool) -> String {
    let why = || escaped(case.why.as_deref().unwrap_or_default());
    match (case.timed(), case.status) {
        (Some(timed), status) => {
            let time = seconds(timed.rates.time_s);
            let doubt = if status == Status::Unconverged { "~ " } else { "" };
            if best { format!("{doubt}**{time}**") } else { format!("{doubt}{time}") }
        }
        (None, Status::NotRun) => format!("not run: {}", predicted(&why())),
        (None, Status::CannotRun) => format!("cannot run: {}", why()),
        (None, Status::Failed) => "**FAILED**".into(),
        (None, _) => "interrupted".into(),
    }
}

/// Of a reason the time alone, or that there was none left; the whole reason where it has another form.
fn predicted(why: &str) -> String {
    if why.ends_with("of the run were over") {
        return "no time left".into();
    }
    let time = why.strip_prefix("a call would take ").and_then(|rest| rest.split_once(','));
    time.map_or_else(|| why.to_owned(), |(time, _)| time.to_owned())
}

/// The paper's table beside this adapter's.
fn paper(adapter: &Adapter) -> String {
    let of_paper = |kernel: Kernel, pattern: &str| {
        let mut cases = adapter.cases.iter().filter(|case| case.known_as.is_some() && case.kernel == kernel);
        cases.find(|case| case.pattern.as_deref() == Some(pattern))
    };
    if of_paper(Kernel::Attention, "causal").is_none() {
        return String::new();
    }
    let time = |kernel, pattern| Some(of_paper(kernel, pattern)?.timed()?.rates.time_s);
    let mut text = String::from(
        "\n### The Sparse Transformer's table\n\n12,288 positions (Child 2019: Enwik8, seconds per iteration of training on V100s; here one call, forward, f32).\n\n\
         | attention | published | dense / it | attention alone | dense / it | whole layer | dense / it |\n|---|---:|---:|---:|---:|---:|---:|\n",
    );
    for (pattern, name, published) in PUBLISHED {
        text += &format!("| {name} | {published:.2} s | {:.1} |", PUBLISHED[0].2 / published);
        for kernel in [Kernel::Attention, Kernel::Block] {
            let ratio = time(kernel, "causal").zip(time(kernel, pattern)).map(|(dense, it)| dense / it);
            let words = of_paper(kernel, pattern).map_or(String::new(), |case| cell(case, false));
            text += &format!(" {words} | {} |", ratio.map_or(String::new(), |ratio| format!("{ratio:.1}")));
        }
        text += "\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::sample;

    /// The sample as a record of the suite, with a subject that was not run and the paper's cases.
    fn record() -> Record {
        let mut record = sample();
        record.suite = "crossover".into();
        record.adapters.truncate(1);
        let cases = &mut record.adapters[0].cases;
        let full =
            cases.iter().find(|case| case.name.starts_with("attention/full f32")).expect("one").clone();
        let mut longer = full.clone();
        (longer.status, longer.why) =
            (Status::NotRun, Some("a call would take 12.3 s, more than 4.0 s".into()));
        (longer.hot, longer.cold, longer.rates, longer.cost) = (None, None, None, None);
        let Shape::Attention { q_len, kv_len, .. } = &mut longer.shape else { panic!("attention") };
        (*q_len, *kv_len) = (65_536, 65_536);
        cases.push(longer);
        let mut lstm = full.clone();
        (lstm.kernel, lstm.pattern) = (Kernel::Recurrent, Some("lstm".into()));
        lstm.shape = Shape::Recurrent { batch: 1, steps: full.shape.length(), input: 64, hidden: 64 };
        lstm.rates.as_mut().expect("timed").time_s = 77.0;
        cases.push(lstm);
        for (kernel, pattern, time) in [
            (Kernel::Attention, "causal", 8.0),
            (Kernel::Attention, "fixed", 2.0),
            (Kernel::Block, "causal", 9.0),
            (Kernel::Block, "fixed", 3.0),
        ] {
            let mut case = full.clone();
            (case.kernel, case.pattern, case.known_as) = (kernel, Some(pattern.into()), Some("paper".into()));
            case.rates.as_mut().expect("timed").time_s = time;
            cases.push(case);
        }
        record
    }

    #[test]
    fn answers_a_picture_and_both_tables() {
        let Page { text, pictures } = page(&[record()], "crossover").unwrap();
        assert!(text.contains("* Of all: from 512 positions on, window is the fastest.\n"), "{text}");
        assert!(
            text.contains("Of those that look at all positions, or at all before their own: from "),
            "{text}"
        );
        assert!(text.contains("* Fastest pattern by length (f32, 1 head, d 64): window"), "{text}");
        assert!(text.contains("| full |") && text.contains(" not run: 12.3 s |"), "{text}");
        assert!(text.contains("| lstm | 77.00 s |"), "{text}");
        assert!(text.contains("| dense | 1.31 s | 1.0 | 8.00 s | 1.0 | 9.00 s | 1.0 |"), "{text}");
        assert!(text.contains("| fixed | 0.55 s | 2.4 | 2.00 s | 4.0 | 3.00 s | 3.0 |"), "{text}");
        assert!(text.contains("| strided | 0.35 s | 3.7 |"), "{text}");
        let [(name, svg)] = &pictures[..] else { panic!("one picture") };
        assert!(name == "crossover.svg" && text.contains("](crossover.svg)"));
        assert!(svg.starts_with("<svg ") && svg.contains("<title>Time of a call") && svg.contains("#FFFFFF"));
    }

    #[test]
    fn other_suites_are_refused() {
        let error = page(&[sample()], "x").err().expect("refused").to_string();
        assert!(error.contains("suite crossover") && error.contains("quick"), "{error}");
    }
}
