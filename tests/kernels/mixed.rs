//! q in f32 over k and v in 16 bits, as a key cache keeps them.

use crate::support::{
    Case, Checked, Cut, Placement, bound, bound_of_parts, check_all, count, count_of_parts, cut, gather,
    gather_of_parts, gpu_with, picked,
};
use wgpu_attention::ElementType::{Bf16, F16, F32};
use wgpu_attention::reference::Kind;
use wgpu_attention::wgsl::TileKind;
use wgpu_attention::{AttentionShape, Causal, Gpu, Options, Parts, Storage};

/// Keys of 16 bits; the output in f32 or as the keys.
const STORAGES: [Storage; 4] = [
    Storage::all(F32).kv(F16),
    Storage::all(F32).kv(Bf16),
    Storage::all(F32).kv(F16).out(F16),
    Storage::all(F32).kv(Bf16).out(Bf16),
];

/// The kinds of tile, by turns: types are read and written by texts of their own, which both take in. Each type of keys comes under both,
/// and so does each alignment of rows.
const KINDS: [TileKind; 2] = [TileKind::Staged, TileKind::Direct];

/// Rows of whole groups of four, and rows that may begin in the middle of a word.
// A gathered key is told by its code, of 8 bits here: one bit per element of a head.
fn cases() -> Vec<Case> {
    let mut cases = vec![];
    for (m, storage) in STORAGES.into_iter().enumerate() {
        for (n, dim) in [16, 9].into_iter().enumerate() {
            let options = Options::default().tile_kind(KINDS[(m + n) % 2]);
            let shape = AttentionShape::new(2, 4, 67, dim).kv_heads(2).kv_len(150);
            for name in ["causal", "blocks_per_head"] {
                let pattern = picked(name, &shape.extent(), n as u64);
                let case = Case::new(shape.storage(storage)).pattern(pattern).seed(n as u64);
                cases.push(case.options(options));
            }
        }
    }
    cases
}

#[test]
fn rows_are_within_the_bound() {
    let of_kind = |kind| cases().into_iter().map(move |case| case.kind(kind));
    check_all("mixed: bound", Kind::ALL.into_iter().flat_map(of_kind), bound);
    let apart = Placement::Gap(3).apply(cases()[0].attention.clone());
    check_all("mixed: gaps", [Case::new(apart).kind(Kind::Arange)], bound);
}

#[test]
fn each_pair_counts_once() {
    check_all("mixed: count", cases(), count);
    check_all("mixed: gather", cases(), gather);
}

#[test]
fn parts_merge() {
    type Check = fn(&Gpu, &Case, &Parts) -> Checked;
    let checks: [(&str, Check); 3] =
        [("bound", bound_of_parts), ("count", count_of_parts), ("gather", gather_of_parts)];
    for (name, check) in checks {
        for how in [Cut::Keys, Cut::Gathers] {
            check_all(&format!("mixed: {name}, {how:?}"), cases(), |case: &Case| {
                check(&gpu_with(case.options), case, &cut(case, how, case.seed))
            });
        }
    }
}

#[test]
fn few_queries_over_split_keys() {
    let mut cases = vec![];
    for (m, storage) in STORAGES.into_iter().enumerate() {
        for (n, (q_len, splits)) in [(1, 3), (6, 2)].into_iter().enumerate() {
            let options = Options::default().tile_kind(KINDS[(m + n) % 2]).splits(splits);
            let attention = AttentionShape::new(2, 8, q_len, 16).kv_heads(2).kv_len(403).storage(storage);
            cases.push(Case::new(attention).options(options).pattern(Causal));
        }
    }
    check_all("mixed: splits, bound", cases.clone(), bound);
    check_all("mixed: splits, count", cases.clone(), count);
    check_all("mixed: splits, gather", cases, gather);
}
