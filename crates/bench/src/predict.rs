//! How long a call would take, from shorter ones of its kind.

use crate::record::{Case, Rules, Shape};

/// What twice the length costs at least and at most; the most as long as no two lengths say what it is.
const GROWTH: (f64, f64) = (2.0, 4.0);

/// Seconds of a call, from cases before it that differ from it by their length alone: the longest of those that were timed, grown as operations grew
/// from the one before it (times sway), but at least in proportion to the length and at most to its square. None where nothing of the kind was timed.
fn seconds(before: &[Case], case: &Case) -> Option<f64> {
    let length = |it: &Case| it.shape.length() as f64;
    let kind = before.iter().filter(|it| of_its_kind(it, case) && it.shape.length() < case.shape.length());
    let mut known: Vec<(f64, f64, f64)> = kind
        .filter_map(|it| {
            let time = it.hot.as_ref()?.clock().summary.median_s;
            Some((length(it), time, it.cost.as_ref()?.executed_flop))
        })
        .collect();
    known.sort_by(|a, b| a.0.total_cmp(&b.0));
    let &(len, time, flop) = known.last()?;
    let growth = match known.iter().rev().nth(1) {
        Some(&(shorter, _, fewer)) if fewer > 0.0 => (flop / fewer).powf(1.0 / (len / shorter).log2()),
        _ => GROWTH.1,
    };
    Some(time * growth.clamp(GROWTH.0, GROWTH.1).powf((length(case) / len).log2()))
}

/// Whether they differ by their length alone.
fn of_its_kind(a: &Case, b: &Case) -> bool {
    let sizes = |case: &Case| {
        let mut shape = case.shape;
        match &mut shape {
            Shape::Attention { q_len, kv_len, .. } => (*q_len, *kv_len) = (0, 0),
            Shape::Block { positions, .. } => *positions = 0,
            Shape::Recurrent { steps, .. } => *steps = 0,
            Shape::Matmul { rows, .. } | Shape::FeedForward { rows, .. } | Shape::Rows { rows, .. } => {
                *rows = 0
            }
        }
        shape
    };
    // Which gradients, and how lanes share the work, the name alone says; words with digits are sizes.
    let words = |case: &Case| -> Vec<String> {
        let words = case.name.split(' ').filter(|word| !word.contains(|c: char| c.is_ascii_digit()));
        words.map(Into::into).collect()
    };
    let key = |case: &Case| {
        (case.family(), case.dtype.clone(), case.direction, case.known_as.clone(), sizes(case), words(case))
    };
    key(a) == key(b)
}

/// Why a case is not run after so many seconds, if it is not.
pub(crate) fn too_long(rules: &Rules, spent_s: f64, before: &[Case], case: &Case) -> Option<String> {
    let call = rules.most_call_s.and_then(|most| Some((seconds(before, case)?, most)));
    if let Some((seconds, most)) = call.filter(|(seconds, most)| seconds > most) {
        return Some(format!("a call would take {seconds:.1} s, more than {most:.1} s"));
    }
    let most = rules.most_run_s.filter(|most| spent_s > *most)?;
    Some(format!("the {most:.0} s of the run were over"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;

    /// The sample's causal attention at a length, with a time.
    fn case(len: usize, time: Option<f64>) -> Case {
        let record = Record::parse(include_str!("../tests/data/bench.json")).expect("the sample is a record");
        let timed = |case: &&Case| case.pattern.as_deref() == Some("causal") && case.hot.is_some();
        let mut case = record.adapters[0].cases.iter().find(timed).expect("it was measured").clone();
        let Shape::Attention { q_len, kv_len, .. } = &mut case.shape else { panic!("attention") };
        (*q_len, *kv_len) = (len, len);
        let hot = case.hot.as_mut().expect("timed");
        hot.timestamps = None;
        match time {
            Some(time) => hot.wall.summary.median_s = time,
            None => case.hot = None,
        }
        case
    }

    #[test]
    fn times_grow_as_operations_grew() {
        let near = |got: Option<f64>, want: f64| assert!((got.unwrap() / want - 1.0).abs() < 1e-9, "{got:?}");
        let asked = |before: &[Case], len| seconds(before, &case(len, None));
        let with = |len, time, flop| {
            let mut case = case(len, Some(time));
            case.cost.as_mut().expect("timed").executed_flop = flop;
            case
        };
        assert_eq!(asked(&[], 1024), None);
        assert_eq!(asked(&[case(512, None), case(2048, Some(1.0))], 1024), None, "not timed, or longer");
        near(asked(&[case(512, Some(1.0))], 1024), 4.0);
        let three = [with(512, 7.0, 10.0), with(1024, 3.0, 30.0), case(2048, None)];
        near(asked(&three, 2048), 9.0);
        near(asked(&three, 4096), 27.0);
        near(asked(&[with(512, 1.0, 10.0), with(1024, 1.1, 10.0)], 2048), 2.2);
        near(asked(&[with(512, 1.0, 1.0), with(1024, 9.0, 100.0)], 2048), 36.0);
        near(asked(&[with(512, 1.0, 0.0), with(1024, 2.0, 0.0)], 2048), 8.0);
        let mut other = case(512, Some(1.0));
        other.known_as = Some("Example".into());
        assert_eq!(asked(&[other], 1024), None);
    }

    #[test]
    fn long_calls_and_long_runs_end() {
        let rules =
            Rules { most_call_s: Some(4.0), most_run_s: Some(240.0), ..crate::suites::Suite::Quick.rules() };
        let before = [case(512, Some(3.1))];
        let asked = |rules: &Rules, spent, len| too_long(rules, spent, &before, &case(len, None));
        assert_eq!(asked(&rules, 9.0, 1024).unwrap(), "a call would take 12.4 s, more than 4.0 s");
        assert_eq!(asked(&rules, 9.0, 256), None);
        assert_eq!(asked(&rules, 240.5, 256).unwrap(), "the 240 s of the run were over");
        let none = crate::suites::Suite::Quick.rules();
        assert_eq!(asked(&none, 1e6, 1 << 20), None);
    }
}
