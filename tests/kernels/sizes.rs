//! Every element at or below its bound: lengths, dimensions, element types, heads.

use crate::support::{Case, bound, check_all, picked, summary};
use wgpu_attention::ElementType::{self, Bf16, F16, F32};
use wgpu_attention::reference::{Kind, Rows};
use wgpu_attention::wgsl::{Tile, TileKind, TileLimits};
use wgpu_attention::{AttentionShape, Causal, Full, Options, Pattern, Storage, Window};

/// 1, and around the sizes of tiles and blocks.
const LENGTHS: [usize; 13] = [1, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129, 130];

/// head_dim and value_dim.
const DIMS: [(usize, usize); 15] = [
    (1, 1),
    (7, 7),
    (16, 16),
    (64, 64),
    (80, 80),
    (128, 128),
    (256, 256),
    (1, 80),
    (256, 1),
    (7, 64),
    (64, 7),
    (16, 256),
    (80, 33),
    (192, 128),
    (36, 132),
];

/// The case with all kinds of inputs.
fn of_all_kinds(case: Case) -> Vec<Case> {
    Kind::ALL.map(|kind| case.clone().kind(kind)).to_vec()
}

#[test]
fn every_length() {
    let lengths = LENGTHS.into_iter().chain([2 * 64 + 3, 2 * 32 + 3]);
    let cases = lengths.flat_map(|len| {
        let case = Case::new(AttentionShape::new(1, 2, len, 64));
        let mut cases = of_all_kinds(case.clone());
        cases.extend(of_all_kinds(case.clone().pattern(Causal)));
        cases.push(case.seed(2).without_lse());
        cases
    });
    check_all("every_length", cases, bound);
    summary("every_length");
}

#[test]
fn more_queries_than_keys_and_fewer() {
    let mut cases = vec![];
    for (q_len, kv_len) in
        [(1, 1), (1, 2), (1, 130), (130, 1), (63, 64), (65, 128), (129, 65), (64, 300), (200, 67)]
    {
        let shape = AttentionShape::new(1, 2, q_len, 64).kv_len(kv_len);
        for pattern in ["full", "causal", "causal_top_left", "window", "not"] {
            let case = Case::new(shape).pattern(picked(pattern, &shape.extent(), q_len as u64));
            cases.extend([Kind::Normal, Kind::Peaky, Kind::Arange].map(|kind| case.clone().kind(kind)));
        }
    }
    check_all("more_queries_than_keys_and_fewer", cases, bound);
}

fn dims(element: ElementType, (head_dim, value_dim): (usize, usize)) -> Case {
    let shape = AttentionShape::new(1, 2, 70, head_dim).kv_heads(1).kv_len(99).value_dim(value_dim);
    Case::new(shape.storage(Storage::all(element)))
}

#[test]
fn every_dimension_in_f32() {
    // Without lse a pipeline is another, but what it leaves out knows nothing of dimensions: two of them will do.
    let without_lse = [(7, 64), (80, 33)].map(|d| dims(F32, d).without_lse());
    let cases = DIMS.into_iter().flat_map(|d| of_all_kinds(dims(F32, d))).chain(without_lse);
    check_all("every_dimension_in_f32", cases, bound);
    summary("every_dimension_in_f32");
}

#[test]
fn large_dimensions_under_the_smallest_limits() {
    // The tiles of a device with 16 KiB of workgroup memory, whatever this one has.
    let cases = [(64, 64), (80, 33), (128, 128), (256, 256)].into_iter().flat_map(|(head_dim, value_dim)| {
        let tile = Tile::choose(head_dim, value_dim, 64, 64, TileLimits::WEBGPU).expect("it fits");
        of_all_kinds(dims(F32, (head_dim, value_dim)).options(Options::default().tile(tile)))
    });
    check_all("large_dimensions_under_the_smallest_limits", cases, bound);
}

// How elements are read and written depends neither on the dimensions, beyond their alignment, nor on the tile: fewer will do, the
// two kinds of tile by turns.

fn by_turns(element: ElementType, list: &[(usize, usize)]) -> impl Iterator<Item = Case> {
    let kinds = [TileKind::Staged, TileKind::Direct].into_iter().cycle();
    let case = move |(&d, kind)| dims(element, d).options(Options::default().tile_kind(kind));
    list.iter().zip(kinds).map(case).flat_map(of_all_kinds)
}

#[test]
fn every_dimension_in_f16() {
    let list = [(1, 1), (7, 7), (16, 16), (64, 64), (80, 80), (128, 128), (256, 256), (7, 64), (80, 33)];
    check_all("every_dimension_in_f16", by_turns(F16, &list), bound);
}

#[test]
fn every_dimension_in_bf16() {
    let list = [(1, 1), (7, 7), (64, 64), (256, 256), (33, 80)];
    check_all("every_dimension_in_bf16", by_turns(Bf16, &list), bound);
}

#[test]
fn outputs_of_another_type_than_the_inputs() {
    let types =
        [(F32, F16, 16), (F32, Bf16, 7), (F16, F32, 7), (F16, Bf16, 16), (Bf16, F32, 16), (Bf16, F16, 7)];
    let cases = types.into_iter().flat_map(|(input, output, dim)| {
        let shape = AttentionShape::new(2, 2, 70, dim).storage(Storage::all(input).out(output));
        let case = Case::new(shape).pattern(Causal);
        [of_all_kinds(case.clone()), vec![case.without_lse()]].concat()
    });
    check_all("outputs_of_another_type_than_the_inputs", cases, bound);
    summary("outputs_of_another_type_than_the_inputs");
}

#[test]
fn odd_sixteen_bit_rows_share_words() {
    // Rows of an odd number of elements, so that two rows, and two workgroups, meet in one 32-bit word.
    let mut cases = vec![];
    for element in [F16, Bf16] {
        for (len, heads) in [(1, 3), (2, 1), (64, 3), (65, 2), (129, 3)] {
            let shape = AttentionShape::new(2, heads, len, 7).storage(Storage::all(element));
            cases.extend(of_all_kinds(Case::new(shape)));
        }
    }
    check_all("odd_sixteen_bit_rows_share_words", cases, bound);
}

#[test]
fn grouped_heads_and_batch() {
    let mut cases = vec![];
    for (batch, heads, kv_heads) in [(1, 4, 1), (1, 4, 2), (2, 6, 3), (3, 6, 2), (2, 3, 3), (4, 1, 1)] {
        let shape = AttentionShape::new(batch, heads, 66, 16).kv_heads(kv_heads).kv_len(41);
        for pattern in ["full", "causal", "key_lengths", "blocks_per_head", "predicate"] {
            let case = Case::new(shape).pattern(picked(pattern, &shape.extent(), heads as u64));
            cases.extend([Kind::Normal, Kind::Arange].map(|kind| case.clone().kind(kind)));
        }
    }
    check_all("grouped_heads_and_batch", cases, bound);
}

#[test]
fn long_sequences() {
    let rows = Rows::Sample { count: 64, seed: 3 };
    let mut cases = vec![];
    for len in [4095, 4096, 4097] {
        let shape = AttentionShape::new(1, 1, len, 16);
        for (kind, element) in
            [(Kind::Normal, F32), (Kind::Peaky, F16), (Kind::Rising, F32), (Kind::Offset, F32)]
        {
            cases.push(Case::new(shape.storage(Storage::all(element))).pattern(Causal).kind(kind).rows(rows));
        }
        cases.push(Case::new(shape).pattern(Full).kind(Kind::Rising).rows(rows));
        cases.push(Case::new(shape).pattern(Window { before: 512, after: 3 }).rows(rows));
        cases.push(Case::new(shape.q_len(1)).pattern(Causal).kind(Kind::Offset).rows(rows));
        cases.push(Case::new(shape.kv_len(1)).rows(rows));
    }
    check_all("long_sequences", cases, bound);
}

#[test]
fn more_workgroups_than_a_dimension_holds() {
    // 65,535 is every device's limit: the work goes on in the second dimension.
    let shape = AttentionShape::new(66, 1000, 1, 4).kv_heads(1).kv_len(3);
    let case = Case::new(shape).rows(Rows::Sample { count: 1000, seed: 5 });
    check_all("more_workgroups_than_a_dimension_holds", [case], bound);
}

#[test]
fn one_mask_serves_all_heads_and_batch_items() {
    use crate::support::{failed, gpu, run, verified};
    use wgpu_attention::{BlockGrid, BlockMask};
    let shape = AttentionShape::new(2, 3, 70, 16);
    let patterns: [(&str, &dyn Pattern); 2] =
        [("causal", &Causal), ("window", &Window { before: 9, after: 2 })];
    for (name, pattern) in patterns {
        let shared = BlockMask::new(pattern, BlockGrid::new(70, 70)).expect("a valid grid");
        let case = Case::new(shape).pattern(picked(name, &shape.extent(), 1));
        let case = if name == "window" { case.pattern(Window { before: 9, after: 2 }) } else { case };
        let tensors = case.tensors::<f32, f32>();
        let got = run::<f32, f32, f32>(gpu(), &shape.into(), &tensors.inputs(), &shared.into(), true);
        let got = got.unwrap_or_else(|e| panic!("{}", failed("guards", &case, e)));
        verified(&case, &tensors.inputs(), &case.parts(), &got).unwrap_or_else(|e| panic!("{e}"));
    }
}
