//! Few queries, as in decoding: the keys of a row tile are split over workgroups, and heads that share a key head are packed
//! into one tile.

use crate::support::{
    BiasValues, Case, Cut, Placement, bound, bound_of_parts, check_all, count, count_of_parts, cut, gather,
    gather_of_parts, gpu, gpu_with, picked, run, stale_scratch,
};
use wgpu_attention::ElementType::{Bf16, F16, F32};
use wgpu_attention::reference::Kind;
use wgpu_attention::wgsl::TileKind;
use wgpu_attention::{
    AttentionShape, BiasStrides, BlockGrid, BlockMask, Buckets, Causal, Full, Kernels, Options, Schedule,
    Score, Storage, Temperature, Window, wgsl,
};

const SPLITS: [usize; 5] = [1, 2, 3, 7, 64];

fn split(splits: usize) -> Options {
    Options::default().splits(splits)
}

/// Grouped heads, more keys than queries.
fn shape(q_len: usize, group: usize) -> AttentionShape {
    AttentionShape::new(2, 2 * group, q_len, 16).kv_heads(2).kv_len(403)
}

/// Queries from 1 on, alone and in groups of heads, under patterns that all heads share and under one that they do not.
fn cases() -> Vec<Case> {
    let mut cases = vec![];
    for (q_len, group, splits) in [
        (1, 1, 64),
        (1, 4, 3),
        (1, 64, 2),
        (2, 3, 7),
        (5, 8, 2),
        (16, 5, 3),
        (32, 2, 1),
        (33, 2, 2),
        (70, 2, 5),
    ] {
        let shape = shape(q_len, group);
        let patterns = ["full", "causal", "window", "key_lengths", "blocks_per_head", "nothing"];
        for (n, name) in patterns.into_iter().enumerate() {
            let case = Case::new(shape).pattern(picked(name, &shape.extent(), n as u64)).seed(n as u64);
            cases.push(case.options(split(splits)));
        }
    }
    cases
}

#[test]
fn rows_are_within_the_bound() {
    check_all("few queries: bound", cases(), bound);
}

#[test]
fn each_pair_counts_once() {
    check_all("few queries: count", cases(), count);
    check_all("few queries: gather", cases(), gather);
}

#[test]
fn any_number_of_splits() {
    let mut cases = vec![];
    for splits in SPLITS {
        for (kind, q_len) in [(Kind::Normal, 3), (Kind::Peaky, 1), (Kind::Rising, 40)] {
            let shape = AttentionShape::new(1, 2, q_len, 64).kv_len(1030);
            let window = Window { before: 700, after: 0 };
            cases.push(Case::new(shape).options(split(splits)).kind(kind));
            cases.push(Case::new(shape).options(split(splits)).kind(kind).pattern(window));
            cases.push(Case::new(shape).options(split(splits)).kind(kind).pattern(Causal).blocks(16, 16));
        }
    }
    check_all("splits: bound", cases.clone(), bound);
    check_all("splits: count", cases, count);
}

#[test]
fn element_types_and_layouts() {
    let mut cases = vec![];
    // Types and layouts have texts of their own: the kinds of tile come by turns.
    let kinds = [TileKind::Staged, TileKind::Direct];
    let types = [(F32, F16), (F16, F16), (Bf16, Bf16), (F16, F32)];
    for (n, (input, output)) in types.into_iter().enumerate() {
        for (m, (group, q_len)) in [(1, 9), (4, 3)].into_iter().enumerate() {
            let options = split(3).tile_kind(kinds[(n + m) % 2]);
            let attention = shape(q_len, group).storage(Storage::all(input).out(output));
            for placement in [Placement::Bhld, Placement::Blhd, Placement::Gap(4), Placement::Reversed(4)] {
                cases.push(Case::new(placement.apply(&attention)).options(options).pattern(Causal));
            }
        }
    }
    check_all("few queries: types and layouts", cases, bound);
}

#[test]
fn score_terms_of_packed_heads() {
    let mut cases = vec![];
    for (q_len, group) in [(1, 4), (6, 3)] {
        let shape = shape(q_len, group);
        let sizes = [shape.batch, shape.heads, shape.q_len, shape.kv_len];
        let score = Score::new().bias(BiasStrides::broadcast(sizes)).softcap(3.0).alibi();
        let bucketed = shape.score(Score::new().with(Buckets::new(16, 64)));
        cases.push(Case::new(bucketed).options(split(2)).pattern(Causal));
        let case = Case::new(shape.score(score)).options(split(2));
        cases.push(case.clone().bias(BiasValues::Holes));
        cases.push(case.pattern(Causal));
    }
    check_all("few queries: terms", cases, bound);
}

#[test]
fn temperatures_of_packed_heads() {
    let mut cases = vec![];
    for (q_len, group, splits) in [(1, 4, 1), (6, 3, 3), (33, 2, 2)] {
        let attention = shape(q_len, group).score(Score::new().with(Temperature));
        cases.push(Case::new(attention).options(split(splits)).pattern(Causal).kind(Kind::Peaky));
    }
    check_all("few queries: temperature, bound", cases.clone(), bound);
    check_all("few queries: temperature, count", cases.clone(), count);
    check_all("few queries: temperature, gather", cases, gather);
}

#[test]
fn parts_and_splits_together() {
    let mut cases = vec![];
    for (n, (q_len, group)) in [(1, 4), (12, 2), (70, 1)].into_iter().enumerate() {
        let shape = shape(q_len, group);
        let case = Case::new(shape).options(split(3)).seed(n as u64);
        cases.push(case.clone().pattern(picked("key_lengths", &shape.extent(), 1)));
        cases.push(case.clone().storage(Storage::default().out(F16)));
        cases.push(case.without_lse());
    }
    for how in [Cut::Keys, Cut::Gathers, Cut::EmptyFirst] {
        for (name, check) in [
            ("bound", bound_of_parts as fn(&_, &_, &_) -> _),
            ("count", count_of_parts),
            ("gather", gather_of_parts),
        ] {
            let cases =
                cases.iter().filter(|case| name == "bound" || case.attention.storage.out == F32).cloned();
            check_all(&format!("parts and splits: {name}, {how:?}"), cases, |case: &Case| {
                check(&gpu_with(case.options), case, &cut(case, how, case.seed))
            });
        }
    }
}

#[test]
fn the_same_call_twice_gives_the_same_bits() {
    let case = Case::new(shape(2, 4)).options(split(5));
    let (gpu, tensors, parts) = (gpu_with(case.options), case.tensors::<f32, f32>(), case.parts());
    let once =
        || run::<f32, f32, f32>(&gpu, &case.attention, &tensors.inputs(), &parts, true).expect("guards");
    assert_eq!(once(), once());
}

#[test]
fn splits_without_keys_leave_nothing_of_another_call() {
    for kind in [TileKind::Direct, TileKind::Staged] {
        stale_scratch(&gpu_with(Options::default().tile_kind(kind).splits(3))).expect("the same rows");
    }
}

#[test]
fn a_schedule_splits_where_rows_are_few() {
    let schedule = |shape: &AttentionShape, limits| {
        let mask = BlockMask::new(&Full, BlockGrid::from(shape)).expect("a mask");
        Schedule::new(shape, &mask.into(), limits, None, None).expect("a schedule")
    };
    let (gpu, cpu) = (wgsl::TileLimits::WEBGPU, wgsl::TileLimits::CPU);
    let decode = AttentionShape::new(1, 32, 1, 128).kv_heads(8).kv_len(8192);
    let long = AttentionShape::new(1, 32, 4096, 128);
    assert_eq!(schedule(&decode, gpu).splits, 32, "8 tiles of rows: 64 would be too short");
    assert_eq!((schedule(&decode, cpu).splits, schedule(&long, gpu).splits), (2, 1));
    assert_eq!((schedule(&decode, gpu).packed, schedule(&long, gpu).packed), (vec![true], vec![false]));
    assert_eq!(schedule(&AttentionShape::new(1, 1, 1, 64).kv_len(100), gpu).splits, 1, "too few keys");

    // Scratch: a state and f32 rows for each split.
    let [state, rows] = schedule(&decode, gpu).scratch_bytes;
    assert_eq!((state, rows), (32 * 32 * 8, 32 * 32 * 128 * 4));
    let plan = gpu_with(split(4)).kernels().attention(decode, &Full).expect("a plan");
    assert_eq!((plan.explain().splits, plan.explain().scratch_bytes), (4, 4 * 32 * (8 + 512)));
    assert_eq!(plan.explain().dispatches, 2, "attention and the merge");

    // Heads with masks of their own are not packed, nor are as many queries as fill a tile by themselves.
    let per_head = picked("blocks_per_head", &decode.extent(), 1);
    let mask = BlockMask::new(per_head.as_dyn(), BlockGrid::from(&decode)).expect("a mask");
    let own = Schedule::new(decode, &mask.into(), gpu, None, None).expect("a schedule");
    let many = schedule(&AttentionShape::new(1, 4, 33, 64).kv_heads(1).kv_len(512), gpu);
    assert_eq!((own.packed, many.packed), (vec![false], vec![false]));
}

#[test]
fn no_split_is_an_error() {
    let kernels = Kernels::new(gpu().device(), split(0)).expect("checked with the plan");
    let shape = AttentionShape::new(1, 1, 1, 16);
    let error = kernels.attention(shape, &Full).expect_err("no split").to_string();
    assert!(error.contains("splits") && error.contains("at least 1"), "{error}");
}
