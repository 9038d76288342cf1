//! Runs side by side: what of a difference is not noise.
//!
//! Times are medians. Two of the ordered samples enclose a median with a confidence that needs no distribution: `n` samples lie
//! below and above it like tosses of a coin (Conover, Practical Nonparametric Statistics, section 3.2). With 99.5 % for each of two
//! medians, the change between them is enclosed with 99 %. Beyond that, two runs of the same code differ by what a machine does
//! from minute to minute, which no sample of one run shows: the threshold stands for it, and where a run saw the ceiling of a case
//! drift by more, that drift.

use crate::report::load;
use anyhow::Result;
use serde::Serialize;
use std::path::Path;
use wgpu_attention_bench::record::{Adapter, Case, CeilingKind, Clock, Record, Status, Timing};
use wgpu_attention_bench::stats::summary;
use wgpu_attention_bench::view::Timed;

/// Two-sided quantile of the normal distribution that leaves 0.5 %.
const Z: f64 = 2.807;

/// Samples at least: the extremes of fewer enclose the median with less than 99.5 %.
const ENOUGH: usize = 9;

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
    /// The medians differ by more than the threshold, but the samples do not confirm it, or the case's ceiling drifted as much.
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
    /// other / base - 1, and the interval that encloses it with 99 %; none of too few samples.
    pub(crate) change: Option<f64>,
    pub(crate) low: Option<f64>,
    pub(crate) high: Option<f64>,
    /// One of them has not converged.
    pub(crate) unconverged: bool,
    /// What a comparison fails for: slower or lost on the same machine, or out of its bound on any.
    pub(crate) regression: bool,
}

impl Verdict {
    /// Another machine may be slower, and may lack what a case needs; a wrong result is wrong on any.
    fn is_regression(self, same_machine: bool) -> bool {
        match self {
            Self::Failed => true,
            Self::Slower | Self::CannotRun => same_machine,
            _ => false,
        }
    }

    /// Whether it holds one run against the other: a case that the base has timed, and what came of it.
    pub(crate) fn says_something(self) -> bool {
        !matches!(self, Self::Interrupted | Self::New | Self::Neither)
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
        let likeness = |base: &Run<'_>| {
            let (base, other, same_machine) = (base.adapter, other.adapter, other.same_machine(base));
            let same = [
                same_machine,
                base.cases.iter().any(|case| case.timed().is_some()),
                base.name == other.name,
                base.kind == other.kind,
                (base.vendor, base.device) == (other.vendor, other.device),
                base.backend == other.backend,
            ];
            // Whatever is earlier in the list weighs more than all that follows.
            same.iter().fold(0, |sum, same| 2 * sum + u32::from(*same))
        };
        // The first of equals.
        let best = comparisons.iter_mut().rev().max_by_key(|it| likeness(&it.base));
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

    /// The same adapter in the same kind of machine; its driver may be another.
    pub(crate) fn same_machine(&self, other: &Run<'_>) -> bool {
        let [ours, theirs] = [self, other].map(|run| {
            let Adapter { name, backend, vendor, device, .. } = run.adapter;
            (name, backend, vendor, device, &run.file.record.host.cpu, &run.file.record.host.arch)
        });
        ours == theirs
    }

    /// The cases that both have. The threshold is a share: 0.05.
    pub(crate) fn against(&self, base: &Run<'_>, threshold: f64) -> Vec<Pair> {
        let same_machine = self.same_machine(base);
        let both = base.adapter.cases.iter().filter_map(|case| Some((case, self.case(&case.name)?)));
        both.map(|(case, other)| {
            let drift = base.drift(case).max(self.drift(other));
            let pair = pair(case, other, threshold, drift);
            Pair { regression: pair.verdict.is_regression(same_machine), ..pair }
        })
        .collect()
    }

    /// By how much the ceiling that binds a case changed during this run.
    fn drift(&self, case: &Case) -> f64 {
        let bound_by = case.rates.as_ref().and_then(|rates| rates.bound_by);
        let ceiling = self.adapter.ceilings.iter().find(|ceiling| Some(ceiling.kind) == bound_by);
        ceiling.and_then(|ceiling| ceiling.drift).map_or(0.0, f64::abs)
    }

    /// The ceilings that both measured: this one's / the base's - 1.
    pub(crate) fn ceilings(&self, base: &Run<'_>) -> Vec<(CeilingKind, f64)> {
        let changes = base.adapter.ceilings.iter().filter_map(|ceiling| {
            let change = self.adapter.ceiling(ceiling.kind)? / ceiling.value()? - 1.0;
            change.is_finite().then_some((ceiling.kind, change))
        });
        changes.collect()
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

/// `drift`: of the ceilings of either.
fn pair(base: &Case, other: &Case, threshold: f64, drift: f64) -> Pair {
    let blank = Pair {
        case: base.name.clone(),
        verdict: Verdict::Neither,
        base_s: base.timed().map(|it| it.rates.time_s),
        other_s: other.timed().map(|it| it.rates.time_s),
        change: None,
        low: None,
        high: None,
        unconverged: [base, other].iter().any(|case| case.status == Status::Unconverged),
        regression: false,
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
                Status::CannotRun | Status::NotRun => Verdict::CannotRun,
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
        () if change.abs() <= drift => Verdict::Unclear,
        () if low > 0.0 => Verdict::Slower,
        () if high < 0.0 => Verdict::Faster,
        () => Verdict::Unclear,
    };
    let enclosed = low.is_finite() && high.is_finite();
    Pair {
        verdict,
        base_s: Some(a.median),
        other_s: Some(b.median),
        change: change.is_finite().then_some(change),
        low: enclosed.then_some(low),
        high: enclosed.then_some(high),
        ..blank
    }
}

/// A median, and two samples that enclose it with 99.5 %; fewer than [`ENOUGH`] enclose nothing.
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
        if ascending.len() < ENOUGH {
            return Some(Self { median, low: 0.0, high: f64::INFINITY });
        }
        let below = ((n - Z * n.sqrt()) / 2.0).floor().max(1.0) as usize - 1;
        Some(Self { median, low: ascending[below], high: ascending[ascending.len() - 1 - below] })
    }
}

#[cfg(test)]
mod tests;
