//! What was predicted for a GPU beside what was measured on it.

use super::markdown::{describe, escaped};
use super::view::digits;
use anyhow::{Context, Result, ensure};
use wgpu_attention_bench::predictions::{
    CONFIRMS, Family, Likeness, Outcome, Verdict, families, family_of, measured_peak, outcomes, unpredicted,
};
use wgpu_attention_bench::record::{Adapter, Case, Record};

/// What the user knows better.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    /// The name of a family.
    pub(crate) family: Option<String>,
    /// The peak of f32 fma.
    pub(crate) peak_gflop_s: Option<f64>,
}

/// A section per adapter: where the predictions are from, the peak, a table.
pub(crate) fn markdown(records: &[Record], asked: &Asked) -> Result<String> {
    let peak = asked.peak_gflop_s;
    ensure!(peak.is_none_or(|peak| peak.is_finite() && peak > 0.0), "--peak: need a number above 0");
    let families = families()?;
    let mut text = String::new();
    for record in records {
        for adapter in &record.adapters {
            text += &format!("### {}\n\n{}\n\n", escaped(&adapter.name), describe(record, adapter));
            text += &section(adapter, asked, &families)?;
        }
    }
    Ok(text)
}

fn section(adapter: &Adapter, asked: &Asked, families: &[Family]) -> Result<String> {
    let named = |name: &str| families.iter().find(|family| family.name == name);
    let found = match &asked.family {
        Some(name) => {
            let names = || families.iter().map(|family| family.name.as_str()).collect::<Vec<_>>().join(", ");
            let family =
                named(name).with_context(|| format!("--family: need one of {}, got `{name}`", names()))?;
            Some((family, Likeness::Told))
        }
        None => family_of(adapter).and_then(|(name, likeness)| Some((named(name)?, likeness))),
    };
    let measured = measured_peak(adapter);
    let peak = asked.peak_gflop_s.map(|peak| 1e9 * peak).or(measured);
    let mut text = match found {
        None => "Nothing is predicted for this vendor's GPUs; `--family` names one to compare with.\n".into(),
        Some((family, likeness)) => {
            let why = match likeness {
                Likeness::Same => "the adapter's own",
                Likeness::Nearest => {
                    "the nearest of the vendor's; the adapter is none of it, so a refutation is one of the likeness first"
                }
                Likeness::Told => "as --family says",
            };
            format!("Predicted for: {} ({why}).\n", family.gpu)
        }
    };
    let reached = measured.map_or("not measured".into(), |peak| format!("{:.0} GFLOP/s", 1e-9 * peak));
    text += &format!("A plain kernel of f32 fma in this run: {reached}.");
    if let Some(peak) = asked.peak_gflop_s {
        text += &format!(" Shares are of {peak:.0} GFLOP/s, as --peak says.");
    }
    text += "\n\n| kernel | case | GFLOP/s | of the peak | predicted | bound by | measured / predicted | |\n";
    text += "|---|---|---:|---:|---:|---|---:|---|\n";
    let outcomes = found.map_or(vec![], |(family, _)| outcomes(family, adapter, peak));
    outcomes.iter().for_each(|outcome| text += &row(outcome));
    for case in unpredicted(found.map(|(family, _)| family), adapter) {
        text += &without(case, peak);
    }
    let count = |is: fn(&Verdict) -> bool| outcomes.iter().filter(|it| is(&it.verdict)).count();
    text += &format!(
        "\n{} confirmed (measured / predicted from {} to {}), {} refuted, {} not run.\n\n",
        count(|it| *it == Verdict::Confirmed),
        CONFIRMS.start(),
        CONFIRMS.end(),
        count(|it| *it == Verdict::Refuted),
        count(|it| matches!(it, Verdict::NotRun(_)))
    );
    Ok(text)
}

fn row(outcome: &Outcome<'_>) -> String {
    let predicted = outcome.predicted;
    let verdict = match (&outcome.verdict, outcome.ratio()) {
        (Verdict::NotRun(why), _) => format!("not run: {}", escaped(why)),
        (Verdict::Confirmed, _) => "confirmed".into(),
        (Verdict::Refuted, Some(ratio)) if ratio > 1.0 => "**refuted**: faster".into(),
        (Verdict::Refuted, _) => "**refuted**: slower".into(),
    };
    let spills = if predicted.spills > 0 { "; it spills, which is not in the figure" } else { "" };
    format!(
        "| {} | {} | {} | {} | {:.0} % | {} | {} | {verdict}{spills} |\n",
        predicted.kernel,
        outcome.case.map_or(String::new(), |case| escaped(&case.name)),
        digits(outcome.flop_s.map(|rate| 1e-9 * rate), 1),
        percent(outcome.percent),
        predicted.percent,
        predicted.bound,
        digits(outcome.ratio(), 2),
    )
}

/// A case of which nothing is predicted.
fn without(case: &Case, peak: Option<f64>) -> String {
    let rate = case.rates.as_ref().map(|rates| rates.executed_flop_s);
    let share = rate.zip(peak).map(|(rate, peak)| 100.0 * rate / peak);
    let shader = case.shaders.iter().rev().find(|shader| !shader.contains("records"));
    format!(
        "| {} | {} | {} | {} | | | | no prediction |\n",
        shader.map_or("", String::as_str),
        escaped(&case.name),
        digits(rate.map(|rate| 1e-9 * rate), 1),
        percent(share)
    )
}

fn percent(share: Option<f64>) -> String {
    share.map_or(String::new(), |share| format!("{share:.0} %"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::sample;

    /// The sample as a run on a GPU of NVIDIA's: a shader that is predicted, and one that is not.
    fn run() -> Record {
        let mut record = sample();
        record.adapters.truncate(1);
        let adapter = &mut record.adapters[0];
        (adapter.vendor, adapter.name) = (0x10de, "NVIDIA H200".into());
        let ampere = families().unwrap().into_iter().find(|family| family.name == "ampere").unwrap();
        let mut timed = adapter.cases.iter_mut().filter(|case| case.timed().is_some());
        let first = timed.next().unwrap();
        first.shaders = vec![ampere.kernels[0].shader.clone()];
        let peak = 1e9 * ampere.kernels[0].percent / 100.0;
        first.rates.as_mut().unwrap().executed_flop_s = peak;
        timed.next().unwrap().shaders = vec!["attention of another tile".into()];
        record
    }

    #[test]
    fn each_prediction_has_a_line_and_a_verdict() {
        let asked = Asked { peak_gflop_s: Some(1.0), ..Asked::default() };
        let text = markdown(&[run()], &asked).unwrap();
        let line =
            |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{text}"));
        assert!(text.contains("NVIDIA Ampere") && text.contains("the nearest of the vendor's"), "{text}");
        assert!(line("| attention, d = 64 |").ends_with("| 1.00 | confirmed |"), "{text}");
        assert!(line("| dq, d = 64 |").contains("| not run: no case ran this shader"), "{text}");
        assert!(line("| attention of another tile |").ends_with("| no prediction |"), "{text}");
        assert!(text.contains("1 confirmed") && text.contains("0 refuted, 8 not run."), "{text}");
        let columns = text.lines().filter(|line| line.starts_with('|')).map(|line| line.matches('|').count());
        assert!(columns.clone().count() == 12 && columns.clone().all(|count| count == 9), "{text}");
    }

    #[test]
    fn a_slower_and_a_faster_kernel_are_refuted_by_name() {
        for (peak, word) in [(2.0, "**refuted**: slower"), (0.5, "**refuted**: faster")] {
            let asked = Asked { peak_gflop_s: Some(peak), ..Asked::default() };
            let text = markdown(&[run()], &asked).unwrap();
            assert!(text.contains(word) && text.contains("1 refuted"), "{text}");
        }
    }

    #[test]
    fn a_family_can_be_told_and_must_exist() {
        let told = |name: &str| markdown(&[run()], &Asked { family: Some(name.into()), peak_gflop_s: None });
        assert!(told("navi31").unwrap().contains("as --family says"));
        let error = told("rtx").unwrap_err().to_string();
        assert!(error.contains("--family: need one of dg2, ") && error.contains("`rtx`"), "{error}");
        let text = markdown(&[sample()], &Asked::default()).unwrap();
        assert!(text.contains("Nothing is predicted for this vendor's GPUs"), "{text}");
        let wrong = Asked { peak_gflop_s: Some(0.0), ..Asked::default() };
        assert!(markdown(&[run()], &wrong).unwrap_err().to_string().contains("--peak"));
    }
}
