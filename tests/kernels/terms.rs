//! Every element at or below its bound: scale, temperature, softcap, ALiBi, buckets, bias, and what they are together.

use crate::support::{BiasValues, Case, bound, check_all, count, gather, picked, summary};
use wgpu_attention::ElementType::{Bf16, F16};
use wgpu_attention::reference::Kind;
use wgpu_attention::{
    Alibi, Attention, AttentionShape, Bias, BiasStrides, Buckets, Causal, Score, Sinks, Slopes, Storage,
    Temperature,
};

const KINDS: [Kind; 4] = [Kind::Normal, Kind::Peaky, Kind::Offset, Kind::Rising];

fn shape() -> AttentionShape {
    AttentionShape::new(2, 2, 67, 16).kv_len(75)
}

/// The same score with a bias that has every axis of its own.
fn with_bias(attention: impl Into<Attention>) -> Attention {
    let attention = attention.into();
    let AttentionShape { batch, heads, q_len, kv_len, .. } = attention.shape;
    let score = attention.score.clone().bias(BiasStrides::broadcast([batch, heads, q_len, kv_len]));
    attention.score(score)
}

#[test]
fn scales() {
    let scales = [1.0, 0.0, -0.7, 1e-3, 8.0, 1e-30];
    let scaled = |scale| Case::new(shape().score(Score::new().scale(scale))).pattern(Causal);
    let cases = scales.into_iter().flat_map(|scale| KINDS.map(|kind| scaled(scale).kind(kind)));
    check_all("scales", cases, bound);
}

#[test]
fn softcaps() {
    let caps = [0.5, 5.0, 50.0, 1e4, 1e-3, 3e6, 1e30];
    let capped = |cap| Case::new(shape().score(Score::new().softcap(cap))).pattern(Causal);
    let cases = caps.into_iter().flat_map(|cap| KINDS.map(|kind| capped(cap).kind(kind)));
    check_all("softcaps", cases, bound);
}

#[test]
fn every_broadcast_of_a_bias() {
    let shape = shape();
    let sizes = [shape.batch, shape.heads, shape.q_len, shape.kv_len];
    let mut cases = vec![];
    for axes in 0..16 {
        let sizes = std::array::from_fn(|axis| if axes >> axis & 1 == 1 { sizes[axis] } else { 1 });
        let case = Case::new(shape.score(Score::new().bias(BiasStrides::broadcast(sizes)))).seed(axes);
        for values in [BiasValues::Normal, BiasValues::Holes, BiasValues::Floors] {
            cases.push(case.clone().bias(values));
            cases.push(case.clone().pattern(Causal).bias(values).kind(Kind::Peaky));
        }
    }
    // Rows and heads further apart than they are long; transposed; from an element on; every axis in reverse; by distance.
    let apart = BiasStrides { offset: 0, batch: 20_000, head: 9_000, query: 81, key: 1 };
    let transposed = BiasStrides { head: 75 * 67, query: 1, key: 67, ..Default::default() };
    let later = BiasStrides { offset: 5, ..apart };
    let [batch, head, query, key] = [2 * 67 * 75, 67 * 75, 75, 1];
    let last = (2 * batch - 1) as usize;
    let reversed = BiasStrides { offset: last, batch: -batch, head: -head, query: -query, key: -key };
    for strides in [apart, transposed, later, reversed, BiasStrides::toeplitz(67, 75)] {
        let case = Case::new(shape.score(Score::new().bias(strides)));
        cases.extend([case.clone(), case.pattern(Causal).kind(Kind::Peaky)]);
    }
    check_all("every_broadcast_of_a_bias", cases, bound);
}

/// One per pair and one by distance, alone and under a cap; the first removes pairs, too.
#[test]
fn two_biases() {
    let by_distance = Bias::second(BiasStrides::toeplitz(67, 75));
    let mut cases = vec![];
    for score in [Score::new(), Score::new().softcap(2.0)] {
        let case = Case::new(with_bias(shape().score(score.with(by_distance))));
        cases.extend(KINDS.map(|kind| case.clone().kind(kind)));
        cases.push(case.clone().pattern(Causal).bias(BiasValues::Holes));
        let [f16, bf16] = [F16, Bf16].map(|element| case.clone().storage(Storage::all(element)));
        cases.extend([f16, bf16]);
    }
    let alone = Case::new(shape().score(Score::new().with(by_distance)));
    cases.push(alone.clone().pattern(Causal).kind(Kind::Peaky));
    check_all("two_biases", cases, bound);
    // Here either removes pairs.
    let both = Case::new(with_bias(alone.attention.clone()));
    let counted = [both.clone(), both.pattern(Causal), alone];
    check_all("two_biases: count", counted, count);
}

#[test]
fn rows_that_a_bias_empties_or_floors() {
    let mut cases = vec![];
    for seed in 0..4 {
        for values in [BiasValues::Holes, BiasValues::Floors] {
            let capped = Score::new().softcap(4.0);
            let [f16, bf16] = [F16, Bf16].map(|element| shape().storage(Storage::all(element)));
            for attention in [shape().into(), shape().score(capped), f16, bf16].map(with_bias) {
                for pattern in ["full", "causal", "blocks", "one_key_a_row"] {
                    let pattern = picked(pattern, &shape().extent(), seed);
                    let case = Case::new(&attention).pattern(pattern);
                    cases.push(case.bias(values).kind(Kind::Peaky).seed(seed));
                }
            }
        }
    }
    check_all("rows_that_a_bias_empties_or_floors", cases, bound);
    summary("rows_that_a_bias_empties_or_floors");
}

#[test]
fn a_bias_of_minus_infinity_removes_pairs_exactly() {
    let mut cases = vec![];
    for seed in 0..8 {
        let shape = AttentionShape::new(2, 2, 67, 16).kv_len(130);
        for pattern in ["full", "causal", "mask"] {
            let pattern = picked(pattern, &shape.extent(), seed);
            cases.push(Case::new(with_bias(shape)).pattern(pattern).seed(seed));
        }
    }
    check_all("counted", cases.clone(), count);
    check_all("gathered", cases, gather);
}

#[test]
fn alibi() {
    let mut cases = vec![];
    for (heads, q_len, kv_len) in [(1, 70, 70), (3, 67, 200), (8, 200, 67), (2, 1, 130)] {
        let shape = AttentionShape::new(2, heads, q_len, 16).kv_heads(1).kv_len(kv_len);
        let alibi = Case::new(shape.score(Score::new().alibi()));
        cases.extend(KINDS.map(|kind| alibi.clone().kind(kind)));
        cases.extend(KINDS.map(|kind| alibi.clone().pattern(Causal).kind(kind)));
        for slopes in [Slopes::Given, Slopes::Bloom, Slopes::Mpt] {
            let term = Alibi::new(slopes).symmetric(slopes != Slopes::Bloom);
            cases.push(Case::new(shape.score(Score::new().with(term))));
        }
    }
    check_all("alibi", cases, bound);
}

/// Distances on both sides of 0 and far beyond the last edge; tables of their own for heads; one edge and none.
#[test]
fn buckets() {
    let mut cases = vec![];
    for (buckets, max_distance, bidirectional, (q_len, kv_len)) in [
        (32, 128, true, (67, 200)),
        (32, 128, false, (200, 67)),
        (8, 20, true, (70, 70)),
        (4, 3, false, (1, 130)),
        (2, 2, false, (33, 33)),
        (600, 1000, true, (40, 900)),
    ] {
        let shape = AttentionShape::new(2, 3, q_len, 16).kv_heads(1).kv_len(kv_len);
        let term = Buckets::new(buckets, max_distance).bidirectional(bidirectional);
        let case = Case::new(shape.score(Score::new().scale(1.0).with(term)));
        cases.push(case.clone().kind(Kind::Peaky));
        cases.push(case.clone().pattern(Causal).storage(Storage::all(F16)));
        cases.push(case.without_lse().pattern(Causal));
    }
    check_all("buckets: bound", cases.clone(), bound);
    let short = |case: &Case| case.attention.shape.kv_len < 256;
    check_all("buckets: count", cases.iter().filter(|case| short(case)).cloned(), count);
    check_all("buckets: gather", cases, gather);
}

/// Each head has a temperature of its own, drawn around 1.
#[test]
fn temperatures() {
    let tempered = Score::new().with(Temperature);
    let mut cases = vec![];
    for (heads, dim, storage) in [
        (2, 16, Storage::default()),
        (6, 7, Storage::default()),
        (3, 16, Storage::all(F16)),
        (4, 16, Storage::all(Bf16)),
    ] {
        let shape = AttentionShape::new(2, heads, 67, dim).kv_heads(1).kv_len(75);
        let case = Case::new(shape.score(tempered.clone())).storage(storage);
        cases.extend(KINDS.map(|kind| case.clone().kind(kind)));
        cases.push(case.pattern(Causal).without_lse());
    }
    check_all("temperatures: bound", cases.clone(), bound);
    check_all("temperatures: count", cases.clone(), count);
    check_all("temperatures: gather", cases, gather);
}

/// A sink of each head: near the scores, far above and far below them, none; grouped heads in one tile of few queries; rows
/// without keys; every type.
#[test]
fn sinks() {
    let mut cases = vec![];
    for (heads, q_len, kv_len) in [(4, 67, 75), (4, 90, 41), (8, 2, 130)] {
        let shape = AttentionShape::new(2, heads, q_len, 16).kv_heads(2).kv_len(kv_len);
        let case = Case::new(shape.score(Score::new().with(Sinks)));
        cases.extend(KINDS.map(|kind| case.clone().pattern(Causal).kind(kind)));
        cases.push(case.clone().score(Score::new().scale(300.0).with(Sinks)));
        cases.push(case.clone().storage(Storage::all(F16)).pattern(Causal).without_lse());
        cases.push(case.clone().storage(Storage::all(Bf16)).without_lse());
        cases.push(case.clone().pattern(picked("nothing", &shape.extent(), 1)));
        cases.push(case.pattern(Causal).score(Score::new().softcap(3.0).with(Temperature).with(Sinks)));
    }
    check_all("sinks: bound", cases.clone(), bound);
    let f32 = |case: &Case| case.attention.storage == Storage::default();
    check_all("sinks: count", cases.iter().filter(|case| f32(case)).cloned(), count);
    let deep = |case: &Case| case.attention.score.softcap_value().is_none();
    check_all("sinks: gather", cases.into_iter().filter(deep), gather);
}

#[test]
fn all_terms_together() {
    let mut cases = vec![];
    let scaled = Score::new().scale(0.3);
    let odd = AttentionShape::new(1, 2, 67, 7).storage(Storage::all(F16));
    let all = scaled.clone().softcap(3.0).alibi();
    let calls = [
        with_bias(shape().score(scaled.clone().softcap(3.0))),
        shape().score(all.clone()),
        with_bias(shape().score(scaled.clone().alibi())),
        with_bias(shape().score(all.clone())),
        with_bias(odd.score(all)),
        with_bias(shape().score(scaled.softcap(3.0).with(Temperature))),
    ];
    for call in calls {
        for kind in KINDS {
            cases.push(Case::new(&call).pattern(Causal).kind(kind));
            cases.push(Case::new(&call).kind(kind).bias(BiasValues::Holes).without_lse());
        }
    }
    check_all("all_terms_together", cases, bound);
}
