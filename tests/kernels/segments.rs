//! Segments: the bound and the sets, over patterns, parts, orders, element types, packed heads, every tile.

use crate::support::{
    Case, Cut, PATTERNS, Placement, bound, bound_of_parts, check_all, count, count_of_parts, cut, gather,
    gpu, picked,
};
use wgpu_attention::ElementType::{Bf16, F16, F32};
use wgpu_attention::reference::Kind;
use wgpu_attention::{
    AttentionShape, Causal, KernelPath, Options, Relative, Score, Segments, Storage, Temperature,
};

fn segmented() -> Score {
    Score::new().with(Segments)
}

/// XLNet's score: relative rows of every distance, u, w, and segments.
fn of_xlnet(shape: &AttentionShape) -> Score {
    let relative = Relative::new(shape.kv_len as i32, shape.q_len + shape.kv_len).u(true).w(true);
    segmented().with(relative)
}

#[test]
fn every_pattern() {
    let shape = AttentionShape::new(2, 2, 150, 16).kv_len(170);
    let case =
        |(name, _): &(&str, _)| Case::new(shape.score(segmented())).pattern(picked(name, &shape.extent(), 2));
    let cases: Vec<_> = PATTERNS.iter().map(case).collect();
    check_all("segments: every pattern", cases.clone(), bound);
    check_all("segments: every set", cases, count);
}

#[test]
fn kinds_sizes_and_element_types() {
    let mut cases = vec![];
    for storage in
        [Storage::default(), Storage::all(F16), Storage::all(Bf16).out(F32), Storage::default().kv(F16)]
    {
        for (dim, value_dim) in [(16, 16), (7, 5), (64, 80)] {
            let shape = AttentionShape::new(2, 4, 67, dim).kv_heads(2).kv_len(90).value_dim(value_dim);
            let attention = shape.score(segmented()).storage(storage);
            for kind in [Kind::Normal, Kind::Offset, Kind::Tiny] {
                cases.push(Case::new(&attention).pattern(Causal).kind(kind));
            }
        }
    }
    check_all("segments: kinds, sizes and types", cases.clone(), bound);
    check_all("segments: gather", cases.into_iter().step_by(5), gather);
}

/// Under temperature and softcap, which act on the whole product, and beside relative rows, in both streams of XLNet: with lse it
/// would be one buffer more than every device has.
#[test]
fn beside_other_terms() {
    let shape = AttentionShape::new(2, 2, 67, 16).kv_len(75);
    let capped = segmented().softcap(2.0).with(Temperature);
    let mut cases = vec![Case::new(shape.score(capped)).pattern(Causal)];
    for stream in ["permutation", "permutation_query", "permutation_per_batch"] {
        let pattern = picked(stream, &shape.extent(), 4);
        cases.push(Case::new(shape.score(of_xlnet(&shape))).pattern(pattern).without_lse());
    }
    check_all("segments: beside other terms", cases.clone(), bound);
    check_all("segments: streams", cases, count);
}

#[test]
fn parts_and_orders() {
    let shape = AttentionShape::new(2, 2, 67, 16).kv_len(90);
    for how in [Cut::Keys, Cut::KeysPermuted, Cut::Gathers, Cut::Pairs] {
        let case = || [Case::new(shape.score(segmented())).pattern(Causal)];
        check_all(&format!("segments: {how:?}, bound"), case(), |case| {
            bound_of_parts(gpu(), case, &cut(case, how, 1))
        });
        check_all(&format!("segments: {how:?}, count"), case(), |case| {
            count_of_parts(gpu(), case, &cut(case, how, 1))
        });
    }
}

/// A query per head, heads packed into a tile, keys split over workgroups.
#[test]
fn few_queries() {
    let mut cases = vec![];
    for (q_len, heads, kv_heads, splits) in [(1, 8, 2, 3), (6, 6, 2, 2), (40, 4, 1, 1)] {
        let shape = AttentionShape::new(2, heads, q_len, 16).kv_heads(kv_heads).kv_len(600);
        let placed = Placement::Gap(4).apply(shape.score(segmented()));
        let options = Options::default().splits(splits);
        cases.push(Case::new(&placed).options(options).pattern(Causal).kind(Kind::Peaky));
    }
    check_all("segments, few queries: bound", cases.clone(), bound);
    check_all("segments, few queries: gather", cases, gather);
}

#[test]
fn on_matrices() {
    let shape = AttentionShape::new(2, 2, 70, 24).kv_len(99).value_dim(40);
    let attention = shape.score(segmented()).storage(Storage::all(F16).out(F32));
    let options = Options::default().path(KernelPath::Cooperative);
    let cases = [Kind::Normal, Kind::Peaky]
        .map(|kind| Case::new(&attention).pattern(Causal).kind(kind).options(options));
    check_all("segments: on matrices, bound", cases.clone(), bound);
    check_all("segments: on matrices, count", cases, count);
}
