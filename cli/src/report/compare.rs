//! Runs side by side: what of a difference is not noise.
//!
//! Times are medians. Two of the ordered samples enclose a median with a confidence that needs no distribution: `n` samples lie
//! below and above it like tosses of a coin (Conover, Practical Nonparametric Statistics, section 3.2). With 99.5 % for each of two
//! medians, the change between them is enclosed with 99 %. Beyond that, two runs of the same code differ by what a machine does
//! from minute to minute, which no sample of one run shows: the threshold stands for it.

use super::load;
use super::view::Timed;
use crate::bench::record::{Adapter, Case, Clock, Record, Status, Timing};
use crate::bench::stats::summary;
use anyhow::Result;
use serde::Serialize;
use std::path::Path;

/// Two-sided quantile of the normal distribution that leaves 0.5 %.
const Z: f64 = 2.807;

/// One file.
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) record: Record,
}

impl File {
    pub(crate) fn load(path: &Path) -> Result<Self> {
        Ok(Self { name: path.display().to_string(), record: load(path)? })
    }
}

/// One adapter of a file.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a> {
    pub(crate) file: &'a File,
    pub(crate) adapter: &'a Adapter,
}

/// An adapter of the first file, and those of the others that are held against it.
pub(crate) struct Comparison<'a> {
    pub(crate) base: Run<'a>,
    pub(crate) others: Vec<Run<'a>>,
}

/// What is to be said of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// The medians differ by no more than the threshold.
    Same,
    Faster,
    Slower,
    /// The medians differ by more than the threshold, but the samples of both overlap.
    Unclear,
    /// It was timed, and now fails verification.
    Failed,
    /// It was timed, and now cannot run.
    CannotRun,
    /// It was timed, and was not reached by now.
    Interrupted,
    /// It was not timed, and now is.
    New,
    /// Timed by neither.
    Neither,
}

/// A case of the base against the same of another run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Pair {
    pub(crate) case: String,
    pub(crate) verdict: Verdict,
    /// Median seconds, by the clock that both have.
    pub(crate) base_s: Option<f64>,
    pub(crate) other_s: Option<f64>,
    /// other / base - 1, and the interval that encloses it with 99 %.
    pub(crate) change: Option<f64>,
    pub(crate) low: Option<f64>,
    pub(crate) high: Option<f64>,
    /// One of them has not converged.
    pub(crate) unconverged: bool,
}

impl Verdict {
    /// What a comparison fails for.
    pub(crate) fn is_regression(self) -> bool {
        matches!(self, Self::Slower | Self::Failed | Self::CannotRun)
    }

    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Faster => "faster",
            Self::Slower => "SLOWER",
            Self::Unclear => "unclear",
            Self::Failed => "FAILED",
            Self::CannotRun => "CANNOT RUN",
            Self::Interrupted => "interrupted",
            Self::New => "new",
            Self::Neither => "neither",
        }
    }
}

/// Every adapter of the first file with those of the others that are most like it. An adapter without its like is held against
/// the first that was of use.
pub(crate) fn comparisons(files: &[File]) -> Vec<Comparison<'_>> {
    let runs = |file| Run::of(file).into_iter();
    let Some((first, rest)) = files.split_first() else { return vec![] };
    let mut comparisons: Vec<_> = runs(first).map(|base| Comparison { base, others: vec![] }).collect();
    for other in rest.iter().flat_map(runs) {
        let likeness = |base: &Adapter| {
            let same = [
                base.cases.iter().any(|case| case.timed().is_some()),
                base.name == other.adapter.name,
                (base.vendor, base.device) == (other.adapter.vendor, other.adapter.device),
                base.backend == other.adapter.backend,
            ];
            // Whatever is earlier in the list weighs more than all that follows.
            same.iter().fold(0, |sum, same| 2 * sum + u32::from(*same))
        };
        // The first of equals.
        let best = comparisons.iter_mut().rev().max_by_key(|it| likeness(it.base.adapter));
        best.into_iter().for_each(|it| it.others.push(other));
    }
    comparisons
}

impl<'a> Run<'a> {
    fn of(file: &'a File) -> Vec<Self> {
        file.record.adapters.iter().map(|adapter| Self { file, adapter }).collect()
    }

    fn case(&self, name: &str) -> Option<&'a Case> {
        self.adapter.cases.iter().find(|case| case.name == name)
    }

    /// The cases that both have. The threshold is a share: 0.05.
    pub(crate) fn against(&self, base: &Run<'_>, threshold: f64) -> Vec<Pair> {
        let both = base.adapter.cases.iter().filter_map(|case| Some((case, self.case(&case.name)?)));
        both.map(|(base, other)| pair(base, other, threshold)).collect()
    }

    /// The names of the cases that only this one has.
    pub(crate) fn without(&self, other: &Run<'_>) -> Vec<&'a str> {
        let names = self.adapter.cases.iter().map(|case| case.name.as_str());
        names.filter(|name| other.case(name).is_none()).collect()
    }
}

/// The clock that decides in both; where one of them has no sound timestamps, the wall clock of both.
fn clocks<'a>(a: &'a Timing, b: &'a Timing) -> (&'a Clock, &'a Clock) {
    match (&a.timestamps, &b.timestamps) {
        (Some(a), Some(b)) => (a, b),
        _ => (&a.wall, &b.wall),
    }
}

fn pair(base: &Case, other: &Case, threshold: f64) -> Pair {
    let blank = Pair {
        case: base.name.clone(),
        verdict: Verdict::Neither,
        base_s: base.timed().map(|it| it.rates.time_s),
        other_s: other.timed().map(|it| it.rates.time_s),
        change: None,
        low: None,
        high: None,
        unconverged: [base, other].iter().any(|case| case.status == Status::Unconverged),
    };
    // A case that fails its verification has no time; one that was cut short may have.
    let timed = |case: &'_ Case| case.timed().map(|Timed { hot, .. }| hot.clone());
    let (a, b) = match (timed(base), timed(other)) {
        (Some(a), Some(b)) => (a, b),
        (None, None) => return blank,
        (None, Some(_)) => return Pair { verdict: Verdict::New, ..blank },
        (Some(_), None) => {
            let verdict = match other.status {
                Status::Failed => Verdict::Failed,
                Status::CannotRun => Verdict::CannotRun,
                _ => Verdict::Interrupted,
            };
            return Pair { verdict, ..blank };
        }
    };
    let (a, b) = clocks(&a, &b);
    let (Some(a), Some(b)) = (Median::of(&a.samples_s), Median::of(&b.samples_s)) else { return blank };
    let (change, low, high) = (b.median / a.median - 1.0, b.low / a.high - 1.0, b.high / a.low - 1.0);
    let verdict = match () {
        () if change.abs() <= threshold => Verdict::Same,
        () if low > 0.0 => Verdict::Slower,
        () if high < 0.0 => Verdict::Faster,
        () => Verdict::Unclear,
    };
    let finite = |value: f64| value.is_finite().then_some(value);
    Pair {
        verdict,
        base_s: Some(a.median),
        other_s: Some(b.median),
        change: finite(change),
        low: finite(low),
        high: finite(high),
        ..blank
    }
}

/// A median, and two samples that enclose it with 99.5 %; the extremes where there are too few for that.
#[derive(Debug, PartialEq)]
struct Median {
    median: f64,
    low: f64,
    high: f64,
}

impl Median {
    fn of(samples: &[f64]) -> Option<Self> {
        let median = summary(samples)?.median_s;
        let mut ascending = samples.to_vec();
        ascending.sort_by(f64::total_cmp);
        let n = ascending.len() as f64;
        let below = ((n - Z * n.sqrt()) / 2.0).floor().max(1.0) as usize - 1;
        Some(Self { median, low: ascending[below], high: ascending[ascending.len() - 1 - below] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::stats::clock;
    use crate::report::samples::sample;

    /// The first adapter of the sample, each sample of a case changed.
    fn changed(name: &str, change: impl Fn(usize, f64) -> f64) -> File {
        let mut record = sample();
        for case in record.adapters[0].cases.iter_mut().filter(|case| case.name.starts_with(name)) {
            let hot = case.hot.as_mut().expect("timed");
            for side in [Some(&mut hot.wall), hot.timestamps.as_mut()].into_iter().flatten() {
                let samples =
                    side.samples_s.iter().enumerate().map(|(n, &sample)| change(n, sample)).collect();
                *side = clock(samples).expect("samples");
            }
        }
        File { name: "changed".into(), record }
    }

    fn verdict(of: &str, a: &File, b: &File) -> Pair {
        let pairs = Run::of(b)[0].against(&Run::of(a)[0], 0.05);
        assert_eq!(pairs.len(), 17);
        pairs.into_iter().find(|pair| pair.case.starts_with(of)).expect("the case")
    }

    const CASE: &str = "matmul f32";

    #[test]
    fn a_run_is_the_same_as_itself() {
        let file = File { name: "a".into(), record: sample() };
        for pair in Run::of(&file)[0].against(&Run::of(&file)[0], 0.0) {
            assert!(matches!(pair.verdict, Verdict::Same | Verdict::Neither), "{pair:?}");
        }
    }

    #[test]
    fn planted_changes_are_found_and_what_is_within_the_threshold_is_not_one() {
        let base = File { name: "a".into(), record: sample() };
        for (factor, expected) in [
            (2.0, Verdict::Slower),
            (1.08, Verdict::Slower),
            (1.03, Verdict::Same),
            (0.97, Verdict::Same),
            (0.9, Verdict::Faster),
        ] {
            let pair = verdict(CASE, &base, &changed(CASE, |_, sample| factor * sample));
            assert_eq!(pair.verdict, expected, "{factor}");
            let change = pair.change.expect("a change");
            assert!((change - (factor - 1.0)).abs() < 1e-9, "{pair:?}");
            assert!(pair.low.expect("an end") <= change && change <= pair.high.expect("an end"), "{pair:?}");
        }
    }

    #[test]
    fn a_change_within_the_noise_is_unclear() {
        let base = changed(CASE, |n, sample| sample * if n % 2 == 0 { 1.0 } else { 1.4 });
        let slower = changed(CASE, |n, sample| 1.2 * sample * if n % 2 == 0 { 1.0 } else { 1.4 });
        assert_eq!(verdict(CASE, &base, &slower).verdict, Verdict::Unclear);
        // The same noise does not hide what is larger.
        let slower = changed(CASE, |n, sample| 2.0 * sample * if n % 2 == 0 { 1.0 } else { 1.4 });
        assert_eq!(verdict(CASE, &base, &slower).verdict, Verdict::Slower);
    }

    #[test]
    fn one_delayed_sample_is_no_regression() {
        let base = File { name: "a".into(), record: sample() };
        let delayed = changed(CASE, |n, sample| if n == 3 { 50.0 * sample } else { sample });
        assert_eq!(verdict(CASE, &base, &delayed).verdict, Verdict::Same);
    }

    #[test]
    fn what_is_no_longer_timed_has_its_own_verdict() {
        let base = File { name: "a".into(), record: sample() };
        for (status, expected, regression) in [
            (Status::Failed, Verdict::Failed, true),
            (Status::CannotRun, Verdict::CannotRun, true),
            (Status::Interrupted, Verdict::Interrupted, false),
        ] {
            let mut record = sample();
            let case =
                record.adapters[0].cases.iter_mut().find(|case| case.name.starts_with(CASE)).expect("it");
            (case.status, case.hot, case.rates) = (status, None, None);
            let other = File { name: "b".into(), record };
            let pair = verdict(CASE, &base, &other);
            assert_eq!((pair.verdict, pair.verdict.is_regression()), (expected, regression));
            assert_eq!(verdict(CASE, &other, &base).verdict, Verdict::New);
        }
    }

    #[test]
    fn where_one_has_no_timestamps_the_wall_clocks_are_compared() {
        let base = File { name: "a".into(), record: sample() };
        let mut other = changed(CASE, |_, sample| sample);
        let case = other.record.adapters[0].cases.iter_mut().find(|case| case.name.starts_with(CASE));
        let hot = case.and_then(|case| case.hot.as_mut()).expect("timed");
        hot.timestamps = None;
        let median = hot.wall.summary.median_s;
        let pair = verdict(CASE, &base, &other);
        assert_eq!((pair.change, pair.base_s), (Some(0.0), Some(median)));
    }

    #[test]
    fn adapters_are_paired_by_likeness() {
        let (a, mut b) = (sample(), sample());
        b.adapters.reverse();
        // Another version of the same driver, and an adapter that is like none.
        b.adapters[1].name = "Hardware Example 2".into();
        let stranger = Adapter {
            name: "Other".into(),
            vendor: 1,
            device: 2,
            backend: "metal".into(),
            ..a.adapters[1].clone()
        };
        b.adapters.push(stranger);
        let files = [File { name: "a".into(), record: a }, File { name: "b".into(), record: b }];
        let paired: Vec<Vec<&str>> = comparisons(&files)
            .iter()
            .map(|it| it.others.iter().map(|run| run.adapter.name.as_str()).collect())
            .collect();
        assert_eq!(paired[1], ["Hardware Example 2"]);
        assert!(paired[0].contains(&"Software Example") && paired[0].contains(&"Other"), "{paired:?}");
    }

    #[test]
    fn the_interval_of_a_median_holds_as_much_as_it_says() {
        let of = |n: usize| Median::of(&(1..=n).map(|x| x as f64).collect::<Vec<_>>()).expect("samples");
        assert_eq!(of(10), Median { median: 5.5, low: 1.0, high: 10.0 });
        assert_eq!(of(101), Median { median: 51.0, low: 36.0, high: 66.0 });
        // Exactly, by the binomial distribution: the chance that fewer than `rank` of n samples lie below the median.
        for n in 8..400usize {
            let rank = of(n).low as usize;
            let (mut chance, mut term) = (0.0, 0.5f64.powi(n as i32));
            for k in 0..rank {
                chance += term;
                term *= (n - k) as f64 / (k + 1) as f64;
            }
            assert!(2.0 * chance <= 0.008, "{n} samples, rank {rank}: {}", 2.0 * chance);
        }
        assert_eq!(Median::of(&[]), None);
    }
}
