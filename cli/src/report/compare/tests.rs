//! Planted changes, found or not.

use super::*;
use crate::report::samples::sample;
use wgpu_attention_bench::stats::clock;

/// The first adapter of the sample, each sample of a case changed.
fn changed(name: &str, change: impl Fn(usize, f64) -> f64) -> File {
    let mut record = sample();
    for case in record.adapters[0].cases.iter_mut().filter(|case| case.name.starts_with(name)) {
        let hot = case.hot.as_mut().expect("timed");
        for side in [Some(&mut hot.wall), hot.timestamps.as_mut()].into_iter().flatten() {
            let samples = side.samples_s.iter().enumerate().map(|(n, &sample)| change(n, sample)).collect();
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
fn too_few_samples_confirm_nothing() {
    let few = |factor: f64, count: usize| {
        let mut file = changed(CASE, |_, sample| factor * sample);
        let case = file.record.adapters[0].cases.iter_mut().find(|case| case.name.starts_with(CASE));
        let hot = case.and_then(|case| case.hot.as_mut()).expect("timed");
        for side in [Some(&mut hot.wall), hot.timestamps.as_mut()].into_iter().flatten() {
            *side = clock(side.samples_s[..count].to_vec()).expect("samples");
        }
        file
    };
    for (count, expected) in [(1, Verdict::Unclear), (8, Verdict::Unclear), (9, Verdict::Slower)] {
        let pair = verdict(CASE, &few(1.0, 9), &few(3.0, count));
        assert_eq!(pair.verdict, expected, "{count} samples");
        assert_eq!((pair.low.is_some(), pair.high.is_some()), (count == 9, count == 9), "{pair:?}");
    }
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
        let case = record.adapters[0].cases.iter_mut().find(|case| case.name.starts_with(CASE)).expect("it");
        (case.status, case.hot, case.rates) = (status, None, None);
        let other = File { name: "b".into(), record };
        let pair = verdict(CASE, &base, &other);
        assert_eq!((pair.verdict, pair.regression), (expected, regression));
        assert_eq!(verdict(CASE, &other, &base).verdict, Verdict::New);
    }
}

/// What another machine has, and what is another version on the same.
#[test]
fn another_machine_may_be_slower_but_not_wrong() {
    let base = File { name: "a".into(), record: sample() };
    let slower = || changed(CASE, |_, sample| 2.0 * sample);
    assert!(verdict(CASE, &base, &slower()).regression);
    let edits: [fn(&mut Record); 6] = [
        |record| record.adapters[0].name = "Other".into(),
        |record| record.adapters[0].backend = "gl".into(),
        |record| record.adapters[0].vendor = 1,
        |record| record.adapters[0].device = 1,
        |record| record.host.cpu = "Other".into(),
        |record| record.host.arch = "Other".into(),
    ];
    for edit in edits {
        let mut other = slower();
        edit(&mut other.record);
        let pair = verdict(CASE, &base, &other);
        assert_eq!((pair.verdict, pair.regression), (Verdict::Slower, false));
        let case = other.record.adapters[0].cases.iter_mut().find(|case| case.name.starts_with(CASE));
        let case = case.expect("the case");
        (case.status, case.hot, case.rates) = (Status::Failed, None, None);
        assert!(verdict(CASE, &base, &other).regression);
    }
    let mut version = slower();
    version.record.version = "9.9.9".into();
    version.record.adapters[0].driver = "Other".into();
    assert!(verdict(CASE, &base, &version).regression);
}

#[test]
fn what_is_within_the_drift_of_its_ceiling_is_unclear() {
    let base = File { name: "a".into(), record: sample() };
    let with_drift = |kind, drift| {
        let mut other = changed(CASE, |_, sample| 1.2 * sample);
        let ceilings = &mut other.record.adapters[0].ceilings;
        ceilings.iter_mut().find(|it| it.kind == kind).expect("the ceiling").drift = Some(drift);
        other
    };
    for (kind, drift, expected) in [
        (CeilingKind::FmaF32, -0.25, Verdict::Unclear),
        (CeilingKind::FmaF32, 0.15, Verdict::Slower),
        // Not what binds the case.
        (CeilingKind::Copy, 0.25, Verdict::Slower),
    ] {
        let other = with_drift(kind, drift);
        assert_eq!(verdict(CASE, &base, &other).verdict, expected);
        // Whichever of the two drifted.
        let back = if expected == Verdict::Slower { Verdict::Faster } else { expected };
        assert_eq!(verdict(CASE, &other, &base).verdict, back);
    }
}

#[test]
fn ceilings_are_compared_too() {
    let base = File { name: "a".into(), record: sample() };
    let mut other = File { name: "b".into(), record: sample() };
    let fma = &mut other.record.adapters[0].ceilings[0];
    [&mut fma.before, &mut fma.after].into_iter().flatten().for_each(|probe| probe.value *= 2.0);
    let changes = Run::of(&other)[0].ceilings(&Run::of(&base)[0]);
    assert_eq!(changes.len(), 5, "f16 was not measured");
    assert_eq!(changes[0], (CeilingKind::FmaF32, 1.0));
    assert!(changes[1..].iter().all(|change| change.1 == 0.0));
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
        kind: "virtual".into(),
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
    for n in 9..600usize {
        let rank = of(n).low as usize;
        let (mut chance, mut term) = (0.0, 0.5f64.powi(n as i32));
        for k in 0..rank {
            chance += term;
            term *= (n - k) as f64 / (k + 1) as f64;
        }
        assert!(2.0 * chance <= 0.005, "{n} samples, rank {rank}: {}", 2.0 * chance);
    }
    assert_eq!(of(8), Median { median: 4.5, low: 0.0, high: f64::INFINITY });
    assert_eq!(Median::of(&[]), None);
}
