//! Parts: disjoint sets that merge by their maxima and sums, over queries and keys in orders of their own.

use crate::support::{
    BiasValues, Case, Checked, Cut, PATTERNS, Placement, bound_of_parts, check_all, count_of_parts, cut,
    failed, gather_of_parts, gpu_with, picked, summary,
};
use wgpu_attention::ElementType::{Bf16, F16, F32};
use wgpu_attention::reference::Kind;
use wgpu_attention::wgsl::TileKind;
use wgpu_attention::{
    Attention, AttentionShape, BiasStrides, Buckets, Gpu, Options, Parts, Score, Sinks, Storage, Temperature,
};

type Check = fn(&Gpu, &Case, &Parts) -> Checked;

/// Checks every case under every cut.
fn under_every_cut(test: &str, cases: Vec<Case>, check: Check) {
    under(&Cut::ALL, test, cases, check);
    summary(test);
}

/// Checks every case under these cuts. Each kind of part is a pipeline of its own: 2 to 5 a cut.
fn under(cuts: &[Cut], test: &str, cases: Vec<Case>, check: Check) {
    let check_cut = |case: &Case, how| {
        let parts = cut(case, how, case.seed);
        check(&gpu_with(case.options), case, &parts)
            .map_err(|e| format!("{e}; cut(&case, Cut::{how:?}, {})", case.seed))
    };
    for &how in cuts {
        check_all(&format!("{test}, {how:?}"), cases.clone(), |case| check_cut(case, how));
    }
}

fn patterns(attention: impl Into<Attention>, seeds: std::ops::Range<u64>) -> Vec<Case> {
    let attention = attention.into();
    let extent = attention.shape.extent();
    let mut cases = vec![];
    for seed in seeds {
        for name in ["full", "causal", "window", "blocks_per_head", "predicate", "key_lengths", "nothing"] {
            cases.push(Case::new(&attention).pattern(picked(name, &extent, seed)).seed(seed));
        }
    }
    cases
}

#[test]
fn lowered_patterns_are_the_patterns() {
    // The library's own parts: the same set, in the order that suits it.
    let mut cases = vec![];
    for (n, (name, _)) in PATTERNS.iter().enumerate() {
        for (m, (q_len, kv_len)) in [(150, 150), (67, 200), (90, 41)].into_iter().enumerate() {
            let shape = AttentionShape::new(2, 2, q_len, 16).kv_len(kv_len);
            let seed = (10 * n + m) as u64;
            cases.push(Case::new(shape).pattern(picked(name, &shape.extent(), seed)).seed(seed));
        }
    }
    let lowered = |check: Check| {
        move |case: &Case| {
            let parts =
                Parts::lower(case.pattern.as_dyn(), case.grid()).map_err(|e| failed("lower", case, e))?;
            check(&gpu_with(case.options), case, &parts).map_err(|e| format!("{e}; Parts::lower"))
        }
    };
    check_all("lowered: count", cases.clone(), lowered(count_of_parts));
    check_all("lowered: gather", cases.clone(), lowered(gather_of_parts));
    check_all("lowered: bound", cases, lowered(bound_of_parts));
}

#[test]
fn parts_merge_within_the_bound() {
    let shape = AttentionShape::new(2, 2, 67, 16).kv_len(90);
    let mut cases = patterns(shape, 0..2);
    let calls = [shape.q_len(1).into(), shape.q_len(150).into(), Placement::BlhdGap(4).apply(shape)];
    for (n, kind) in Kind::ALL.into_iter().enumerate() {
        cases.extend(patterns(&calls[n % 3], 2..3).into_iter().map(|case| case.kind(kind)));
    }
    under_every_cut("parts_merge_within_the_bound", cases, bound_of_parts);
}

/// A sink counts once, however many parts there are.
#[test]
fn a_sink_counts_once() {
    let shape = AttentionShape::new(2, 2, 67, 16).kv_len(90);
    let cases = patterns(shape.score(Score::new().with(Sinks)), 0..1);
    let cuts = [Cut::Pairs, Cut::Gathers, Cut::KeysPermuted];
    under(&cuts, "a_sink_counts_once: bound", cases.clone(), bound_of_parts);
    under(&cuts, "a_sink_counts_once: count", cases, count_of_parts);
    let split = |n: u64| Options::default().splits(3 + n as usize);
    let few = AttentionShape::new(2, 8, 3, 16).kv_heads(2).kv_len(400).score(Score::new().with(Sinks));
    let few = (0..2).map(|n| Case::new(&few).options(split(n)).seed(n));
    check_all("a_sink_counts_once: splits, bound", few.clone(), crate::support::bound);
    check_all("a_sink_counts_once: splits, count", few, crate::support::count);
}

#[test]
fn parts_merge_without_lse() {
    let shape = AttentionShape::new(2, 2, 67, 16).kv_len(90);
    let cases = patterns(shape, 0..1).into_iter().map(Case::without_lse).collect();
    under_every_cut("parts_merge_without_lse", cases, bound_of_parts);
}

#[test]
fn parts_lose_and_add_no_key() {
    let shape = AttentionShape::new(2, 2, 67, 16).kv_len(90);
    under_every_cut("count", patterns(shape, 0..3), count_of_parts);
    under_every_cut("gather", patterns(shape, 0..3), gather_of_parts);
}

#[test]
fn sixteen_bit_outputs_merge_in_f32() {
    let mut cases = vec![];
    // With lse under one kind of tile, without it under the other, by turns.
    let mut kinds = [TileKind::Staged, TileKind::Direct];
    for (input, output, dim) in [(F16, F16, 7), (Bf16, Bf16, 16), (F32, F16, 16)] {
        let attention = AttentionShape::new(1, 3, 67, dim).storage(Storage::all(input).out(output));
        let [with, without] = kinds.map(|kind| Options::default().tile_kind(kind));
        cases.extend(patterns(&attention, 0..1).into_iter().map(|case| case.options(with)));
        let later = patterns(&attention, 1..2).into_iter().map(|case| case.options(without));
        cases.extend(later.map(Case::without_lse));
        kinds.reverse();
    }
    under(
        &[Cut::Pairs, Cut::EmptyFirst, Cut::Gathers],
        "sixteen_bit_outputs_merge_in_f32",
        cases,
        bound_of_parts,
    );
    summary("sixteen_bit_outputs_merge_in_f32");
}

#[test]
fn unaligned_rows_merge() {
    let shape = AttentionShape::new(2, 2, 67, 7).value_dim(5).kv_len(90);
    let cuts = [Cut::Keys, Cut::KeysPermuted, Cut::Gathers];
    under(&cuts, "unaligned_rows_merge", patterns(shape, 0..2), bound_of_parts);
}

#[test]
fn scores_that_need_positions_go_by_the_tensors_positions() {
    let shape = AttentionShape::new(1, 2, 67, 16).kv_len(90);
    let biased = Score::new().bias(BiasStrides::broadcast([1, 2, 67, 90]));
    let all = shape.score(biased.clone().alibi().softcap(3.0));
    let mut cases = patterns(&all, 0..2);
    cases.extend(patterns(&all, 2..3).into_iter().map(|case| case.bias(BiasValues::Holes)));
    let cuts = [Cut::Keys, Cut::KeysPermuted, Cut::Gathers];
    under(&cuts, "scores_that_need_positions_go_by_the_tensors_positions", cases, bound_of_parts);
    under(&cuts, "counted", patterns(shape.score(biased), 0..2), count_of_parts);
}

#[test]
fn buckets_of_parts() {
    let shape = AttentionShape::new(1, 3, 67, 16).kv_len(90);
    let score = Score::new().with(Buckets::new(16, 40).bidirectional(true));
    under(&[Cut::Keys, Cut::Gathers], "buckets_of_parts", patterns(shape.score(score), 0..1), bound_of_parts);
}

#[test]
fn temperatures_of_parts() {
    let shape = AttentionShape::new(1, 3, 67, 16).kv_len(90);
    let cases = || patterns(shape.score(Score::new().with(Temperature)), 0..1);
    let cuts = [Cut::Keys, Cut::Gathers];
    under(&cuts, "temperatures: bound", cases(), bound_of_parts);
    under(&cuts, "temperatures: count", cases(), count_of_parts);
    under(&cuts, "temperatures: gather", cases(), gather_of_parts);
}

#[test]
fn huge_negative_scores_merge() {
    // exp(score - lse) of a published merge is off by up to 12 here: lse cannot hold both -1e30 and ln 2.
    let cases = |element| {
        let attention = AttentionShape::new(1, 2, 67, 16).kv_len(90).storage(Storage::all(element));
        let strides = |key| BiasStrides { query: 90, key, ..Default::default() };
        let biased = |key| attention.clone().score(Score::new().bias(strides(key)));
        let cases = [0, 1].map(|key| patterns(biased(key), 0..1)).into_iter().flatten();
        cases.map(|case| case.bias(BiasValues::Floors)).collect()
    };
    under_every_cut("huge_negative_scores_merge", cases(F32), bound_of_parts);
    under(&[Cut::Pairs, Cut::Gathers], "huge_negative_scores_merge in f16", cases(F16), bound_of_parts);
}
