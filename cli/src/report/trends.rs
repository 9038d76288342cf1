//! Patterns by length: which is fastest at which, and from where on a pattern is faster than full attention.

use super::view::short_len;
use std::collections::BTreeMap;
use wgpu_attention_bench::record::{Case, Direction, Kernel, Shape};
use wgpu_attention_bench::view::Timed;

/// What every sparse pattern is held against.
const DENSE: &str = "full";

/// Who is slower than the fastest by no more than this is as fast.
pub(super) const TIE: f64 = 0.02;

/// Self-attention of the same sizes but for the length.
pub(super) struct Group<'a> {
    /// `f32, 1 head, d 64`, or `f32, 1 head, d 64, score alibi`
    pub(super) title: String,
    /// In the order of the record.
    pub(super) patterns: Vec<&'a str>,
    /// Ascending.
    pub(super) lens: Vec<usize>,
    cells: BTreeMap<(&'a str, usize), &'a Case>,
}

/// Where a pattern becomes faster than [`DENSE`], for good.
#[derive(Debug, PartialEq)]
pub(super) enum Crossing {
    /// At the shortest length that both have.
    Before(usize),
    /// Between two lengths, as straight lines on logarithmic scales have it: length, seconds.
    At(f64, f64),
    /// Not up to the longest length that both have.
    After(usize),
}

impl<'a> Group<'a> {
    /// Groups with at least two lengths, and patterns to choose from at one of them; the one with the most cases first.
    pub(super) fn of(cases: &'a [Case]) -> Vec<Self> {
        let mut groups: Vec<(String, Self)> = vec![];
        for case in cases.iter().filter(|case| case.timed().is_some()) {
            let (Some(title), Some(pattern)) = (title(case), pattern(case)) else { continue };
            let at = groups.iter().position(|(known, _)| *known == title).unwrap_or_else(|| {
                let group =
                    Self { title: title.clone(), patterns: vec![], lens: vec![], cells: BTreeMap::new() };
                groups.push((title, group));
                groups.len() - 1
            });
            let group = &mut groups[at].1;
            if !group.patterns.contains(&pattern) {
                group.patterns.push(pattern);
            }
            group.lens.push(case.shape.length());
            group.cells.entry((pattern, case.shape.length())).or_insert(case);
        }
        let mut groups: Vec<Self> = groups.into_iter().map(|(_, group)| group).collect();
        for group in &mut groups {
            group.lens.sort_unstable();
            group.lens.dedup();
        }
        groups.retain(|group| {
            group.lens.len() > 1 && group.lens.iter().any(|&len| group.fastest(len).is_some())
        });
        groups.sort_by_key(|group| std::cmp::Reverse(group.cells.len()));
        groups
    }

    pub(super) fn case(&self, pattern: &str, len: usize) -> Option<(&'a Case, Timed<'a>)> {
        let case: &'a Case = self.cells.iter().find(|(key, _)| **key == (pattern, len))?.1;
        Some((case, case.timed()?))
    }

    pub(super) fn time(&self, pattern: &str, len: usize) -> Option<f64> {
        self.case(pattern, len).map(|(_, timed)| timed.rates.time_s)
    }

    /// The patterns that are the fastest at a length, the very fastest first, and its time; none where there is only one to choose
    /// from.
    pub(super) fn fastest(&self, len: usize) -> Option<(Vec<&'a str>, f64)> {
        let times = self.patterns.iter().filter_map(|pattern| Some((*pattern, self.time(pattern, len)?)));
        let mut times: Vec<_> = times.collect();
        times.sort_by(|a, b| a.1.total_cmp(&b.1));
        let best = times.get(1).and(times.first())?.1;
        times.retain(|(_, time)| *time <= (1.0 + TIE) * best);
        Some((times.into_iter().map(|(pattern, _)| pattern).collect(), best))
    }

    /// The answer in one line.
    pub(super) fn fastest_text(&self) -> String {
        let mut spans: Vec<(Vec<&str>, usize, usize)> = vec![];
        for &len in &self.lens {
            let Some((patterns, _)) = self.fastest(len) else { continue };
            match spans.last_mut() {
                Some(span) if span.0 == patterns => span.2 = len,
                _ => spans.push((patterns, len, len)),
            }
        }
        let spans = spans.into_iter().map(|(patterns, first, last)| {
            let tie =
                if patterns.len() > 1 { format!(" (within {:.0} %)", 100.0 * TIE) } else { String::new() };
            let patterns = patterns.join(" or ");
            match first == last {
                true => format!("{patterns}{tie} at {}", short_len(first)),
                false => format!("{patterns}{tie} from {} to {}", short_len(first), short_len(last)),
            }
        });
        let spans: Vec<_> = spans.collect();
        format!("Fastest pattern by length ({}): {}.", self.title, spans.join(", "))
    }

    /// Each pattern that shares a length with [`DENSE`].
    pub(super) fn crossings(&self) -> Vec<(&'a str, Crossing)> {
        let sparse = self.patterns.iter().filter(|pattern| **pattern != DENSE);
        sparse.filter_map(|pattern| Some((*pattern, self.crossing(pattern)?))).collect()
    }

    fn crossing(&self, pattern: &str) -> Option<Crossing> {
        let both: Vec<(usize, f64, f64)> = (self.lens.iter())
            .filter_map(|&len| Some((len, self.time(pattern, len)?, self.time(DENSE, len)?)))
            .collect();
        let (first, last) = (both.first()?.0, both.last()?.0);
        let Some(slow) = both.iter().rposition(|(_, sparse, dense)| sparse >= dense) else {
            return Some(Crossing::Before(first));
        };
        let Some(&(len, sparse, dense)) = both.get(slow + 1) else { return Some(Crossing::After(last)) };
        let (len_0, sparse_0, dense_0) = both[slow];
        let (gap_0, gap) = ((sparse_0 / dense_0).ln(), (sparse / dense).ln());
        let share = gap_0 / (gap_0 - gap);
        let between = |from: f64, to: f64| from * (to / from).powf(share);
        Some(Crossing::At(between(len_0 as f64, len as f64), between(dense_0, dense)))
    }

    /// The crossings in one line; none where full attention was not measured beside another.
    pub(super) fn crossings_text(&self) -> Option<String> {
        let crossings = self.crossings();
        let of = |wanted: fn(&Crossing) -> bool, text: &dyn Fn(&str, &Crossing) -> String| {
            let found: Vec<_> = crossings
                .iter()
                .filter(|(_, it)| wanted(it))
                .map(|(pattern, it)| text(pattern, it))
                .collect();
            (!found.is_empty()).then(|| found.join(", "))
        };
        let len = |crossing: &Crossing| match crossing {
            Crossing::Before(len) | Crossing::After(len) => short_len(*len),
            Crossing::At(len, _) => format!("{len:.0}"),
        };
        let parts = [
            of(|it| matches!(it, Crossing::At(..)), &|pattern, it| {
                format!("{pattern} from about {}", len(it))
            }),
            of(|it| matches!(it, Crossing::Before(_)), &|pattern, it| format!("{pattern} ({})", len(it)))
                .map(|text| format!("already at the shortest length measured of both: {text}")),
            of(|it| matches!(it, Crossing::After(_)), &|pattern, it| format!("{pattern} ({})", len(it)))
                .map(|text| format!("not up to the longest length measured of both: {text}")),
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| format!("Faster than full attention: {}.", parts.join("; ")))
    }
}

/// LSH is a pattern of its own here: its set is found, not given. So are Linformer and linear attention by its feature map, which have no set.
fn pattern(case: &Case) -> Option<&str> {
    match case.kernel {
        Kernel::Lsh => Some("lsh"),
        Kernel::Linformer => Some("linformer"),
        _ => case.pattern.as_deref(),
    }
}

/// Everything but the pattern and the length; none where queries and keys differ in number. Scores are apart: who has one has no use for a
/// pattern's time under another.
fn title(case: &Case) -> Option<String> {
    let sizes = sizes(case)?;
    Some(case.score.iter().fold(sizes, |title, score| format!("{title}, score {score}")))
}

/// Everything but pattern, score and length; none where queries and keys differ in number.
pub(super) fn sizes(case: &Case) -> Option<String> {
    let Shape::Attention { batch, heads, kv_heads, q_len, kv_len, head_dim, value_dim } = case.shape else {
        return None;
    };
    if q_len != kv_len {
        return None;
    }
    let mut words = vec![case.dtype.clone()];
    if batch > 1 {
        words.push(format!("batch {batch}"));
    }
    words.push(match (heads, kv_heads) {
        (1, 1) => "1 head".into(),
        (heads, kv_heads) if heads == kv_heads => format!("{heads} heads"),
        (heads, kv_heads) => format!("{heads} heads on {kv_heads}"),
    });
    words.push(if head_dim == value_dim {
        format!("d {head_dim}")
    } else {
        format!("d {head_dim}, {value_dim}")
    });
    match case.direction {
        Direction::Forward => {}
        Direction::Backward => words.push("backward".into()),
        Direction::Both => words.push("forward and backward".into()),
    }
    Some(words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::sample;
    use wgpu_attention_bench::record::Record;

    /// The sample's first adapter, with other times of `window`.
    fn with_window(times: [f64; 3]) -> Record {
        let mut record = sample();
        let cases = &mut record.adapters[0].cases;
        let windows = cases.iter_mut().filter(|case| case.pattern.as_deref() == Some("window"));
        for (case, time) in windows.zip(times) {
            case.rates.as_mut().expect("measured").time_s = time;
        }
        record
    }

    #[test]
    fn the_fastest_at_each_length_in_one_line() {
        let record = sample();
        let groups = Group::of(&record.adapters[0].cases);
        assert_eq!(groups.len(), 1);
        assert_eq!(groups[0].lens, [512, 2048, 4096, 8192]);
        assert_eq!(
            groups[0].fastest_text(),
            "Fastest pattern by length (f32, 1 head, d 64): window or causal (within 2 %) at 512, window from 2k to 8k."
        );
        // Alone at its length.
        assert!(groups[0].time("bigbird", 4096).is_some() && groups[0].fastest(4096).is_none());
    }

    /// The same times once more, under a score: a group of its own, and the plain one is as it was.
    #[test]
    fn scores_are_groups_of_their_own() {
        let mut record = sample();
        let cases = &mut record.adapters[0].cases;
        let scored = cases.iter().filter(|case| case.pattern.is_some()).cloned().map(|case| Case {
            name: format!("{} scored", case.name),
            score: Some("t5".into()),
            ..case
        });
        let scored: Vec<_> = scored.collect();
        cases.extend(scored);
        let groups = Group::of(&record.adapters[0].cases);
        let titles: Vec<_> = groups.iter().map(|group| group.title.as_str()).collect();
        assert_eq!(titles, ["f32, 1 head, d 64", "f32, 1 head, d 64, score t5"]);
        assert_eq!(groups[0].patterns, groups[1].patterns);
        assert!(
            groups[1].fastest_text().starts_with("Fastest pattern by length (f32, 1 head, d 64, score t5): ")
        );
    }

    #[test]
    fn where_a_pattern_overtakes_full_attention() {
        let crossing = |record: &Record| Group::of(&record.adapters[0].cases)[0].crossing("window");
        let record = sample();
        let full = |len| Group::of(&record.adapters[0].cases)[0].time("full", len).expect("measured");
        let (a, b, c) = (full(512), full(2048), full(8192));
        assert_eq!(crossing(&with_window([a / 2.0, b / 2.0, c / 2.0])), Some(Crossing::Before(512)));
        assert_eq!(crossing(&with_window([a * 2.0, b * 2.0, c * 2.0])), Some(Crossing::After(8192)));
        // As far above at 512 as below at 2048: in the middle of the logarithms.
        let Some(Crossing::At(len, time)) = crossing(&with_window([a * 3.0, b / 3.0, c / 9.0])) else {
            panic!("between the two")
        };
        assert!((len - 1024.0).abs() < 1e-6 && (time / (a * b).sqrt() - 1.0).abs() < 1e-9, "{len} {time}");
        // Faster, slower, faster: from the last time on.
        let Some(Crossing::At(len, _)) = crossing(&with_window([a / 2.0, b * 2.0, c / 2.0])) else {
            panic!("between the two")
        };
        assert!((len - 4096.0).abs() < 1e-6, "{len}");
    }

    #[test]
    fn the_crossings_in_one_line() {
        let record = sample();
        let text = Group::of(&record.adapters[0].cases)[0].crossings_text().expect("there is full attention");
        assert!(text.starts_with("Faster than full attention: "), "{text}");
        assert!(
            text.contains("already at the shortest length measured of both: causal (512), window (512)"),
            "{text}"
        );
    }
}
