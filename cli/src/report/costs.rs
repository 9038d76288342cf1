//! What a score costs: its time over that of the plain score, all else the same, in one run.

use super::trends::sizes;
use super::view::short_len;
use wgpu_attention_bench::record::Case;

/// The scores of calls of the same sizes but for the length, under one pattern.
struct Line<'a> {
    /// `causal; f32, 1 head, d 64`
    title: String,
    /// Each score, and its costs: keys, ratio of times.
    scores: Vec<(&'a str, Vec<(usize, f64)>)>,
}

/// A line for each pattern and each kind of sizes: `Time of scores over the plain one's (causal; f32, 1 head, d 64): alibi 1.04 at 1k.`
pub(super) fn lines(cases: &[Case]) -> Vec<String> {
    let mut lines: Vec<Line<'_>> = vec![];
    for case in cases {
        let (Some(score), Some(title), Some(ratio)) = (&case.score, title(case), ratio(case, cases)) else {
            continue;
        };
        let at = lines.iter().position(|line| line.title == title).unwrap_or_else(|| {
            lines.push(Line { title, scores: vec![] });
            lines.len() - 1
        });
        let scores = &mut lines[at].scores;
        let point = (case.shape.length(), ratio);
        match scores.iter_mut().find(|(known, _)| *known == score.as_str()) {
            Some((_, points)) => points.push(point),
            None => scores.push((score, vec![point])),
        }
    }
    lines.into_iter().map(|line| line.text()).collect()
}

impl Line<'_> {
    fn text(mut self) -> String {
        let score = |(score, points): &mut (&str, Vec<(usize, f64)>)| {
            points.sort_by_key(|(len, _)| *len);
            let points = points.iter().map(|(len, ratio)| format!("{ratio:.2} at {}", short_len(*len)));
            format!("{score} {}", points.collect::<Vec<_>>().join(", "))
        };
        let scores: Vec<_> = self.scores.iter_mut().map(score).collect();
        format!("Time of scores over the plain one's ({}): {}.", self.title, scores.join("; "))
    }
}

fn title(case: &Case) -> Option<String> {
    Some(format!("{}; {}", case.pattern.as_ref()?, sizes(case)?))
}

/// The time of a case over that of the case that differs from it by the score alone; none where one of them was not timed.
fn ratio(case: &Case, cases: &[Case]) -> Option<f64> {
    let is_plain = |other: &&Case| {
        other.score.is_none()
            && (other.kernel, other.direction, other.shape) == (case.kernel, case.direction, case.shape)
            && (&other.pattern, &other.pattern_text, &other.dtype)
                == (&case.pattern, &case.pattern_text, &case.dtype)
    };
    let plain = cases.iter().filter(is_plain).find_map(Case::timed)?;
    Some(case.timed()?.rates.time_s / plain.rates.time_s)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::sample;
    use wgpu_attention_bench::record::Status;

    /// The sample's first cases once more under a score, so many times as slow.
    fn scored(cases: &[Case], pattern: &str, score: &str, times: f64) -> Vec<Case> {
        let of_pattern =
            |case: &&Case| case.pattern.as_deref() == Some(pattern) && case.shape.length() <= 2048;
        let slower = |case: &Case| {
            let mut case =
                Case { score: Some(score.into()), name: format!("{}+", case.name), ..case.clone() };
            case.rates.iter_mut().for_each(|rates| rates.time_s *= times);
            case
        };
        cases.iter().filter(of_pattern).map(slower).collect()
    }

    #[test]
    fn each_score_beside_the_plain_one() {
        let mut cases = sample().adapters[0].cases.clone();
        assert!(lines(&cases).is_empty(), "no scores, no lines");
        let [alibi, rows, window] =
            [("causal", "alibi", 1.04), ("causal", "txl", 1.5), ("window", "txl", 1.25)]
                .map(|(pattern, score, times)| scored(&cases, pattern, score, times));
        // Longer ones first: they are told by length all the same.
        cases.extend(alibi.into_iter().rev());
        cases.extend(rows);
        cases.extend(window);
        assert_eq!(
            lines(&cases),
            [
                "Time of scores over the plain one's (causal; f32, 1 head, d 64): alibi 1.04 at 512, 1.04 at 2k; txl 1.50 at 512, 1.50 at 2k.",
                "Time of scores over the plain one's (window; f32, 1 head, d 64): txl 1.25 at 512, 1.25 at 2k.",
            ]
        );
    }

    #[test]
    fn without_a_time_or_a_plain_twin_nothing_is_said() {
        let mut cases = sample().adapters[0].cases.clone();
        let mut failed = scored(&cases, "causal", "alibi", 2.0);
        for case in &mut failed {
            (case.status, case.hot, case.rates) = (Status::Failed, None, None);
        }
        let mut other = scored(&cases, "causal", "alibi", 2.0);
        other.iter_mut().for_each(|case| case.dtype = "f16".into());
        cases.extend(failed);
        cases.extend(other);
        assert!(lines(&cases).is_empty());
    }
}
