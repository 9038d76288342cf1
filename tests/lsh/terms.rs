//! The terms of the score: each alone and together, against formulas that are written here, at positions whatever the places.

use super::{Case, both_kinds_of_tile};
use half::{bf16, f16};
use wgpu_attention::reference::{self, Kind, Position, Rows};
use wgpu_attention::{
    Alibi, AttentionShape, BiasStrides, Buckets, Custom, Element, LshOptions, Score, Sinks, Slopes,
    Temperature,
};
use wgpu_attention_testing::combinations;

const LEN: usize = 70;

fn shape() -> AttentionShape {
    AttentionShape::new(2, 2, LEN, 16)
}

/// The tensors of a call, by name.
type Tensor<'a> = &'a dyn Fn(&str) -> &'a [f32];
/// A term's formula: the score before it, where the pair is, the tensors. None removes the pair.
type Formula = fn(f64, Position, usize, Tensor<'_>) -> Option<f64>;

/// A score, and what its terms are, one after the other; sinks aside.
struct Scored {
    name: &'static str,
    score: Score,
    formulas: Vec<Formula>,
}

fn distance(at: Position, j: usize) -> f64 {
    at.i as f64 - j as f64
}

/// T5's bucket of a distance from key to query, by the logarithm of the paper's code.
fn bucket(distance: f64, count: usize, max_distance: f64, bidirectional: bool) -> usize {
    let (side, base, n) = match bidirectional {
        true => (count / 2, if distance < 0.0 { count / 2 } else { 0 }, distance.abs()),
        false => (count, 0, distance.max(0.0)),
    };
    let exact = side / 2;
    if n < exact as f64 {
        return base + n as usize;
    }
    let log = (n / exact as f64).ln() / (max_distance / exact as f64).ln();
    base + (side - 1).min(exact + ((side - exact) as f64 * log) as usize)
}

fn bias_at(at: Position, j: usize) -> usize {
    // 3 + [H, L, L], keys first.
    3 + at.head * LEN * LEN + j * LEN + at.i
}

fn all() -> Vec<Scored> {
    let softcap: Formula = |s, _, _, _| Some(0.5 * (s / 0.5).tanh());
    let temperature: Formula = |s, at, _, tensor| Some(s / f64::from(tensor("temperature")[at.head]));
    // 2^(-8 h / H) of 2 heads.
    let alibi: Formula = |s, at, j, _| Some(s - [0.0625, 0.00390625][at.head] * distance(at, j));
    let symmetric: Formula =
        |s, at, j, tensor| Some(s - f64::from(tensor("slopes")[at.head]) * distance(at, j).abs());
    let one_way: Formula = |s, at, j, tensor| {
        Some(s + f64::from(tensor("bucket_table")[bucket(distance(at, j), 8, 20.0, false) * 2 + at.head]))
    };
    let both_ways: Formula = |s, at, j, tensor| {
        Some(s + f64::from(tensor("bucket_table")[bucket(distance(at, j), 8, 20.0, true) * 2 + at.head]))
    };
    let bias: Formula = |s, at, j, tensor| match tensor("bias")[bias_at(at, j)] {
        f32::NEG_INFINITY => None,
        bias => Some(s + f64::from(bias)),
    };
    let toeplitz: Formula = |s, at, j, tensor| {
        let ascending = 2 * LEN - 1;
        Some(s + f64::from(tensor("bias")[at.head * ascending + (LEN - 1 + at.i - j)]))
    };
    let near: Formula = |s, at, j, _| Some(s - (1.0 + distance(at, j).abs()).ln());
    let strides = BiasStrides {
        offset: 3,
        head: (LEN * LEN) as isize,
        query: 1,
        key: LEN as isize,
        ..Default::default()
    };
    let new = Score::new;
    let given = Alibi::new(Slopes::Given).symmetric(true);
    let scored = |name, score, formulas: &[Formula]| Scored { name, score, formulas: formulas.into() };
    vec![
        scored("softcap", new().softcap(0.5), &[softcap]),
        scored("temperature", new().with(Temperature), &[temperature]),
        scored("alibi", new().alibi(), &[alibi]),
        scored("given symmetric slopes", new().with(given.clone()), &[symmetric]),
        scored("buckets", new().with(Buckets::new(8, 20)), &[one_way]),
        scored("buckets of both sides", new().with(Buckets::new(8, 20).bidirectional(true)), &[both_ways]),
        scored("bias", new().bias(strides), &[bias]),
        scored("toeplitz", new().bias(BiasStrides::toeplitz(LEN, LEN)), &[toeplitz]),
        scored("sinks", new().with(Sinks), &[]),
        scored("custom", new().with(custom()), &[near]),
        scored(
            "softcap, alibi, bias, sinks",
            new().softcap(0.5).alibi().bias(strides).with(Sinks),
            &[softcap, alibi, bias],
        ),
        scored(
            "temperature, slopes, buckets, a scale",
            new().scale(-1.5).with(Temperature).with(given).with(Buckets::new(8, 20)),
            &[temperature, symmetric, one_way],
        ),
    ]
}

/// A prior on nearness.
fn custom() -> Custom {
    let text = "fn near_score(pairs: Pairs, s: vec4<f32>) -> vec4<f32> {
        return s - log(vec4(1.0) + vec4<f32>(abs(pairs.distance)));
    }";
    // A logarithm is right to 2^-21 or 3 ULP.
    Custom::adds("near", text, |s, at| s - (1.0 + at.distance.unsigned_abs() as f64).ln()).error(
        |_, error, after, at| {
            let log = (1.0 + at.distance.unsigned_abs() as f64).ln();
            error + f64::from(f32::EPSILON) * (4.0 + 3.0 * log + after.abs() + error)
        },
    )
}

/// A call with drawn tensors; a bias has minus infinity here and there, one's own key included.
fn case<E: Element>(score: &Score, options: LshOptions, seed: u64) -> Case<E> {
    let case = Case::<E>::new(shape().score(score.clone()), options, Kind::Normal, seed);
    if score.term("bias").is_none_or(|_| case.tensor("bias").len() < LEN * LEN) {
        return case;
    }
    let holes =
        case.tensor("bias").iter().enumerate().map(|(n, &b)| if n % 7 == 0 { f32::NEG_INFINITY } else { b });
    let holes = holes.collect();
    case.with_tensor("bias", holes)
}

/// Every element of the reference as the formula has it, and of the device within the reference's bound.
fn check<E: Element>(scored: &Scored, case: &Case<E>, gpu: &wgpu_attention::Gpu) {
    let got = case.check_on(gpu, Rows::All);
    let tensors = case.tensors.clone();
    let tensor = |name: &str| {
        let found = tensors.iter().find(|(own, _)| *own == name);
        &found.expect("the score has it").1[..]
    };
    let score = |product: f64, at: Position, j: usize| {
        scored.formulas.iter().try_fold(product, |s, formula| formula(s, at, j, &tensor))
    };
    let removes = scored.score.term("bias").is_some() && scored.name != "toeplitz";
    let own = |at: Position| !removes || tensor("bias")[bias_at(at, at.i)] > f32::NEG_INFINITY;
    let sink = |head: usize| scored.score.term("sinks").map(|_| f64::from(tensor("sinks")[head]));
    let expected = case.expected(&got.buckets, score, own, sink);
    let exact =
        reference::lsh_with_buckets(&case.attention, &case.options, &case.inputs(), &got.buckets).unwrap();
    for (name, exact, expected) in [("out", &exact.out, &expected[0]), ("lse", &exact.lse, &expected[1])] {
        assert_eq!(exact.len(), expected.len());
        for (n, (exact, expected)) in exact.iter().zip(expected).enumerate() {
            let off = (exact - expected).abs();
            let what = (scored.name, &case.options);
            assert!(off <= 1e-11 * (1.0 + expected.abs()), "{what:?}: {name} {n}: {exact}, not {expected}");
        }
    }
}

/// Rounds that are chained and not, causal and not, pairs counted once, a key mask, factors; one round, whose lse is written at once.
fn option_list() -> Vec<LshOptions> {
    let three = LshOptions::new(3, 8, 12);
    vec![
        three.clone(),
        three.clone().chain_rounds(false).causal(true),
        three.clone().count_once(true).key_mask(true).buckets(vec![2, 4]),
        LshOptions::new(2, 4, 24).within_bucket(true).count_once(true).causal(true).self_penalty(-0.5),
        LshOptions::new(1, 8, 16).norm_eps(0.3),
    ]
}

#[test]
fn each_term_under_every_kind_of_option() {
    let (terms, options) = (all(), option_list());
    for [term, n] in combinations([terms.len(), options.len()]) {
        let (scored, tile) = (&terms[term], &both_kinds_of_tile()[(term + n) % 2]);
        check(scored, &case::<f32>(&scored.score, options[n].clone(), n as u64), tile);
    }
}

#[test]
fn sixteen_bits() {
    for scored in all().iter().rev().take(3) {
        for options in &option_list()[..2] {
            check(scored, &case::<f16>(&scored.score, options.clone(), 5), &both_kinds_of_tile()[0]);
        }
    }
    let scored = &all()[10];
    check(scored, &case::<bf16>(&scored.score, option_list()[0].clone(), 6), &both_kinds_of_tile()[0]);
}

/// A term that changes nothing: what is left is the call without it, in base e.
#[test]
fn terms_of_nothing() {
    let options = || LshOptions::new(3, 8, 12).causal(true);
    let plain = Case::<f32>::new(shape(), options(), Kind::Normal, 3).check(Rows::All);
    let zeros = vec![0.0; 1];
    for (score, name, values) in [
        (Score::new().bias(BiasStrides::default()), "bias", zeros),
        (Score::new().with(Sinks), "sinks", vec![f32::NEG_INFINITY; 2]),
        (Score::new().with(Temperature), "temperature", vec![1.0; 2]),
        (Score::new().with(Alibi::new(Slopes::Given)), "slopes", vec![0.0; 2]),
    ] {
        let case =
            Case::<f32>::new(shape().score(score), options(), Kind::Normal, 3).with_tensor(name, values);
        let got = case.check(Rows::All);
        assert_eq!(got.buckets, plain.buckets);
        // A row that sees itself alone has an lse of -1e5.
        let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-5 * (1.0 + a.abs());
        let mut pairs = got.out.iter().zip(&plain.out).chain(got.lse.iter().zip(&plain.lse));
        assert!(pairs.all(close), "{name}");
    }
}
