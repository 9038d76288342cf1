//! Every element at or below its bound: scale, softcap, bias, ALiBi, and what they are together.

use crate::support::{BiasValues, Case, bound, check_all, count, gather, picked, summary};
use wgpu_attention::ElementType::{Bf16, F16};
use wgpu_attention::reference::Kind;
use wgpu_attention::{AttentionShape, BiasStrides, Causal};

const KINDS: [Kind; 4] = [Kind::Normal, Kind::Peaky, Kind::Offset, Kind::Rising];

fn shape() -> AttentionShape {
    AttentionShape::new(2, 2, 67, 16).kv_len(75)
}

/// A bias with every axis of its own.
fn full_bias(shape: AttentionShape) -> AttentionShape {
    shape.bias(BiasStrides::broadcast([shape.batch, shape.heads, shape.q_len, shape.kv_len]))
}

#[test]
fn scales() {
    let scales = [1.0, 0.0, -0.7, 1e-3, 8.0, 1e-30];
    let cases = scales
        .into_iter()
        .flat_map(|scale| KINDS.map(|kind| Case::new(shape().scale(scale)).pattern(Causal).kind(kind)));
    check_all("scales", cases, bound);
}

#[test]
fn softcaps() {
    let cases = [0.5, 5.0, 50.0, 1e4, 1e-3]
        .into_iter()
        .flat_map(|cap| KINDS.map(|kind| Case::new(shape().softcap(cap)).pattern(Causal).kind(kind)));
    check_all("softcaps", cases, bound);
}

#[test]
fn every_broadcast_of_a_bias() {
    let shape = shape();
    let sizes = [shape.batch, shape.heads, shape.q_len, shape.kv_len];
    let mut cases = vec![];
    for axes in 0..16 {
        let sizes = std::array::from_fn(|axis| if axes >> axis & 1 == 1 { sizes[axis] } else { 1 });
        let shape = shape.bias(BiasStrides::broadcast(sizes));
        for values in [BiasValues::Normal, BiasValues::Holes, BiasValues::Floors] {
            cases.push(Case::new(shape).bias(values).seed(axes));
            cases.push(Case::new(shape).pattern(Causal).bias(values).kind(Kind::Peaky).seed(axes));
        }
    }
    // Rows and heads further apart than they are long.
    let strides = BiasStrides { batch: 20_000, head: 9_000, query: 81, key: 1 };
    let transposed = BiasStrides { batch: 0, head: 75 * 67, query: 1, key: 67 };
    for strides in [strides, transposed] {
        cases.push(Case::new(shape.bias(strides)));
    }
    check_all("every_broadcast_of_a_bias", cases, bound);
}

#[test]
fn rows_that_a_bias_empties_or_floors() {
    let mut cases = vec![];
    for seed in 0..4 {
        for values in [BiasValues::Holes, BiasValues::Floors] {
            for shape in [shape(), shape().softcap(4.0), shape().elements(F16), shape().elements(Bf16)] {
                let shape = full_bias(shape);
                for pattern in ["full", "causal", "blocks", "one_key_a_row"] {
                    let pattern = picked(pattern, &shape.extent(), seed);
                    cases.push(Case::new(shape).pattern(pattern).bias(values).kind(Kind::Peaky).seed(seed));
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
        let shape = full_bias(AttentionShape::new(2, 2, 67, 16).kv_len(130));
        for pattern in ["full", "causal", "mask"] {
            cases.push(Case::new(shape).pattern(picked(pattern, &shape.extent(), seed)).seed(seed));
        }
    }
    check_all("counted", cases.clone(), count);
    check_all("gathered", cases, gather);
}

#[test]
fn alibi() {
    let mut cases = vec![];
    for (heads, q_len, kv_len) in [(1, 70, 70), (3, 67, 200), (8, 200, 67), (2, 1, 130)] {
        let shape = AttentionShape::new(2, heads, q_len, 16).kv_heads(1).kv_len(kv_len).alibi(true);
        cases.extend(KINDS.map(|kind| Case::new(shape).kind(kind)));
        cases.extend(KINDS.map(|kind| Case::new(shape).pattern(Causal).kind(kind)));
    }
    check_all("alibi", cases, bound);
}

#[test]
fn all_terms_together() {
    let mut cases = vec![];
    for (softcap, bias, alibi) in
        [(true, true, false), (true, false, true), (false, true, true), (true, true, true)]
    {
        let odd = AttentionShape::new(1, 2, 67, 7).elements(F16);
        let shapes =
            if (softcap, bias, alibi) == (true, true, true) { vec![shape(), odd] } else { vec![shape()] };
        for shape in shapes {
            let mut shape = shape.scale(0.3).alibi(alibi);
            if softcap {
                shape = shape.softcap(3.0);
            }
            if bias {
                shape = full_bias(shape);
            }
            for kind in KINDS {
                cases.push(Case::new(shape).pattern(Causal).kind(kind));
                cases.push(Case::new(shape).kind(kind).bias(BiasValues::Holes).without_lse());
            }
        }
    }
    check_all("all_terms_together", cases, bound);
}
