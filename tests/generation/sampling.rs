//! Which token comes next.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use wgpu_attention_models::{Sampler, Sampling};

/// Logits with ties, far ones, and one that cannot be.
fn logits() -> Vec<f32> {
    let mut logits: Vec<f32> = (0..40u8).map(|n| ((f32::from(n) * 1.7).sin() * 6.0).round() / 2.0).collect();
    logits[11] = f32::NEG_INFINITY;
    logits[12] = -500.0;
    logits
}

/// The definition, step by step: (id, probability) of what is left, the likeliest first.
fn expected(logits: &[f32], Sampling { temperature, top_k, top_p, .. }: Sampling) -> Vec<(u32, f64)> {
    let mut all: Vec<(u32, f64)> =
        logits.iter().enumerate().map(|(id, &l)| (id as u32, f64::from(l) / temperature)).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    all.truncate(top_k.unwrap_or(all.len()));
    let softmax = |all: &[(u32, f64)]| -> Vec<(u32, f64)> {
        let total: f64 = all.iter().map(|(_, x)| (x - all[0].1).exp()).sum();
        all.iter().map(|&(id, x)| (id, (x - all[0].1).exp() / total)).collect()
    };
    if let Some(p) = top_p.filter(|p| *p < 1.0) {
        let shares = softmax(&all);
        let held = |count: usize| shares[..count].iter().map(|(_, share)| share).sum::<f64>();
        all.truncate((1..shares.len()).find(|&count| held(count) >= p).unwrap_or(shares.len()));
    }
    softmax(&all).into_iter().filter(|(_, share)| *share > 0.0).collect()
}

fn ways() -> Vec<Sampling> {
    let mut ways = vec![];
    for temperature in [0.05, 0.7, 1.0, 3.0] {
        for top_k in [None, Some(1), Some(3), Some(17), Some(40), Some(1000)] {
            for top_p in [None, Some(1e-6), Some(0.3), Some(0.9), Some(0.999), Some(1.0)] {
                ways.push(Sampling { temperature, top_k, top_p, seed: 5 });
            }
        }
    }
    ways
}

#[test]
fn the_distribution_is_the_definitions() {
    for way in ways() {
        let mut sampler = Sampler::new(way).expect("valid");
        let mut got = sampler.distribution(&logits()).expect("numbers").to_vec();
        if way.top_k.is_none() && way.top_p.is_none() {
            assert!(got.is_sorted_by_key(|(id, _)| *id), "{way:?}");
            got.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        }
        let want = expected(&logits(), way);
        let ids = |all: &[(u32, f64)]| all.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        assert_eq!(ids(&got), ids(&want), "{way:?}");
        let close = |(got, want): (&(u32, f64), &(u32, f64))| (got.1 - want.1).abs() <= 1e-13 * want.1;
        assert!(got.iter().zip(&want).all(close), "{way:?}: {got:?} {want:?}");
    }
}

#[test]
fn tokens_are_drawn_by_their_probabilities() {
    // Exactly: the token whose stretch of the cumulative sum holds the random number.
    for way in ways() {
        let mut sampler = Sampler::new(way).expect("valid");
        let shares = sampler.distribution(&logits()).expect("numbers").to_vec();
        let mut random = StdRng::seed_from_u64(way.seed);
        for _ in 0..50 {
            let (at, mut below): (f64, f64) = (random.random(), 0.0);
            let got = sampler.choose(&logits()).expect("a token");
            let share = shares.iter().find(|(id, share)| {
                below += share;
                *id == got
            });
            let share = share.expect("a token that may come").1;
            assert!((below - share - 1e-12..below + 1e-12).contains(&at), "{way:?}: {at} drew {got}");
        }
    }
    // And in number: chi-square with 9 degrees of freedom passes 40 less than once in 100,000 times; the seed is fixed.
    let way = Sampling { temperature: 1.5, top_k: Some(10), top_p: None, seed: 9 };
    let mut sampler = Sampler::new(way).expect("valid");
    let draws = 20_000;
    let mut counts = std::collections::HashMap::<u32, f64>::new();
    for _ in 0..draws {
        *counts.entry(sampler.choose(&logits()).expect("a token")).or_default() += 1.0;
    }
    let shares = expected(&logits(), way);
    assert_eq!((shares.len(), counts.len()), (10, 10));
    let square = |(id, share): &(u32, f64)| {
        let need = share * f64::from(draws);
        (counts[id] - need).powi(2) / need
    };
    let square: f64 = shares.iter().map(square).sum();
    assert!(square < 40.0, "{square}");
}

#[test]
fn a_seed_gives_the_same_tokens() {
    let tokens = |seed| {
        let way = Sampling { temperature: 1.0, seed, ..Default::default() };
        let mut sampler = Sampler::new(way).expect("valid");
        (0..30).map(|_| sampler.choose(&logits()).expect("a token")).collect::<Vec<_>>()
    };
    assert_eq!(tokens(1), tokens(1));
    assert_ne!(tokens(1), tokens(2));
}

#[test]
fn of_equal_logits_the_lower_id() {
    let equal = [1.0, 3.0, 3.0, -1.0, 3.0];
    let mut greedy = Sampler::new(Sampling::default()).expect("greedy");
    assert_eq!(greedy.choose(&equal).expect("a token"), 1);
    assert_eq!(greedy.distribution(&equal).expect("one"), [(1, 1.0)]);
    let way = Sampling { temperature: 1.0, top_k: Some(2), ..Default::default() };
    let mut sampler = Sampler::new(way).expect("valid");
    assert_eq!(sampler.distribution(&equal).expect("two"), [(1, 0.5), (2, 0.5)]);
    // Zeros of both signs are equal, too.
    assert_eq!(greedy.choose(&[-0.0, 0.0]).expect("a token"), 0);
}

#[test]
fn what_is_no_number_is_an_error() {
    let way = Sampling { temperature: 1.0, ..Default::default() };
    for way in [way, Sampling::default()] {
        let mut sampler = Sampler::new(way).expect("valid");
        let mut error = |logits: &[f32]| sampler.choose(logits).expect_err("wrong").to_string();
        assert_eq!(error(&[0.0, f32::NAN, 1.0]), "logits: need numbers, found NaN for id 1");
        assert_eq!(error(&[0.0, 1.0, f32::INFINITY]), "logits: need numbers, found inf for id 2");
        assert_eq!(error(&[f32::NEG_INFINITY; 3]), "logits: need one above minus infinity, found none");
        assert_eq!(error(&[]), "logits: need at least 1, found none");
        let one = [f32::NEG_INFINITY, f32::MIN, f32::NEG_INFINITY];
        assert_eq!(sampler.choose(&one).expect("the one"), 1);
    }
}

#[test]
fn ways_that_are_wrong() {
    let error = |way: Sampling| Sampler::new(way).expect_err("wrong").to_string();
    let warm = Sampling { temperature: 1.0, ..Default::default() };
    for temperature in [-0.1, f64::NAN, f64::INFINITY] {
        let need = format!("temperature: need a finite number of at least 0, found {temperature}");
        assert_eq!(error(Sampling { temperature, ..warm }), need);
    }
    assert_eq!(error(Sampling { top_k: Some(0), ..warm }), "top_k: need at least 1, found 0");
    for p in [0.0, -1.0, 1.1, f64::NAN] {
        assert_eq!(
            error(Sampling { top_p: Some(p), ..warm }),
            format!("top_p: need a number above 0 and at most 1, found {p}")
        );
    }
    let cold = Sampling { top_p: Some(0.5), ..Default::default() };
    assert_eq!(error(cold), "top_p: need a temperature above 0 beside it, found 0");
    let cold = Sampling { top_k: Some(5), ..Default::default() };
    assert_eq!(error(cold), "top_k: need a temperature above 0 beside it, found 0");
}
