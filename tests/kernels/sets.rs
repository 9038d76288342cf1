//! The exact set of attended keys, for every pattern under drawn parameters: the count test, where every sum is an
//! integer, and the gather test, where every query addresses one key.

use crate::support::{Case, Checked, PATTERNS, check_all, count, gather, picked};
use wgpu_attention::ElementType::{self, F16, F32};
use wgpu_attention::{AttentionShape, Storage};

/// (q_len, kv_len).
const LENGTHS: [(usize, usize); 7] = [(1, 1), (64, 64), (67, 67), (131, 131), (67, 130), (150, 41), (1, 99)];

/// Every pattern at every length, with its own parameters each time, as per-head and per-batch sets too.
fn cases(element: ElementType, blocks: &[[usize; 2]]) -> Vec<Case> {
    let mut cases = vec![];
    for (n, (name, _)) in PATTERNS.iter().enumerate() {
        for (m, (q_len, kv_len)) in LENGTHS.into_iter().enumerate() {
            let shape = AttentionShape::new(2, 4, q_len, 16).kv_heads(2).kv_len(kv_len);
            let seed = (100 * n + m) as u64;
            let [block_q, block_k] = blocks[(n + m) % blocks.len()];
            let pattern = picked(name, &shape.extent(), seed);
            let case = Case::new(shape.storage(Storage::all(element))).pattern(pattern);
            cases.push(case.blocks(block_q, block_k).seed(seed));
        }
    }
    cases
}

fn every_pattern(test: &str, element: ElementType, check: fn(&Case) -> Checked) {
    check_all(test, cases(element, &[[64, 64], [16, 16], [32, 128], [128, 32]]), check);
}

#[test]
fn every_pattern_counted_in_f32() {
    every_pattern("every_pattern_counted_in_f32", F32, count);
}

#[test]
fn every_pattern_gathered_in_f32() {
    every_pattern("every_pattern_gathered_in_f32", F32, gather);
}

#[test]
fn every_pattern_counted_in_f16() {
    every_pattern("every_pattern_counted_in_f16", F16, count);
}

#[test]
fn every_pattern_gathered_in_f16() {
    every_pattern("every_pattern_gathered_in_f16", F16, gather);
}

#[test]
fn every_pattern_within_the_bound() {
    check_all("every_pattern_within_the_bound", cases(F32, &[[64, 64], [16, 16]]), crate::support::bound);
}

#[test]
fn long_rows_lose_no_key() {
    use wgpu_attention::reference::Rows;
    let mut cases = vec![];
    for len in [1023, 4095, 4096, 4097] {
        for pattern in ["full", "causal", "window", "document"] {
            let shape = AttentionShape::new(1, 1, len, 16);
            let pattern = picked(pattern, &shape.extent(), len as u64);
            cases.push(Case::new(shape).pattern(pattern).rows(Rows::Sample { count: 64, seed: 4 }));
        }
    }
    check_all("long_rows_lose_no_key: count", cases.clone(), count);
    check_all("long_rows_lose_no_key: gather", cases, gather);
}

#[test]
fn rows_without_keys_are_exactly_zero() {
    use crate::support::{failed, gpu, run};
    for (name, blocks) in [("nothing", [64, 64]), ("causal", [64, 64]), ("window", [16, 16])] {
        // Bottom-right aligned, the first 60 of 90 queries stand before the first key.
        let shape = AttentionShape::new(1, 2, 90, 16).kv_len(30);
        let pattern = if name == "window" {
            wgpu_attention::Window { before: 2, after: 1 }.into()
        } else {
            picked(name, &shape.extent(), 0)
        };
        let case = Case::new(shape).pattern(pattern).blocks(blocks[0], blocks[1]);
        let got = run::<f32, f32, f32>(gpu(), &shape.into(), &case.tensors().inputs(), &case.parts(), true);
        let got = got.unwrap_or_else(|e| panic!("{}", failed("guards", &case, e)));
        let lse = got.lse.expect("asked for");
        let site = |head| wgpu_attention::Site { batch: 0, head, extent: shape.extent() };
        let mut empty = 0;
        for (n, (out, lse)) in got.out.chunks(16).zip(&lse).enumerate() {
            let (head, i) = (n / 90, n % 90);
            if (0..30).any(|j| case.pattern.as_dyn().keep(&site(head), i, j)) {
                continue;
            }
            empty += 1;
            assert!(out.iter().all(|x| x.to_bits() == 0), "row {i} is {out:?}\n{case}");
            assert_eq!(lse.to_bits(), f32::MIN.to_bits(), "lse of row {i} is {lse:e}\n{case}");
        }
        assert!(empty >= 110, "{name}: only {empty} rows are empty");
    }
}

/// Nothing is bound behind k and v: what a kernel read there would be NaN.
#[test]
fn without_keys_every_row_is_empty() {
    use crate::support::{gpu_with, run};
    use wgpu_attention::wgsl::TileKind;
    use wgpu_attention::{Causal, Full, Options, Parts, Pattern, Strided, Window};
    let strided = Strided::new(8).expect("a stride");
    let patterns: [&dyn Pattern; 4] = [&Full, &Causal, &Window { before: 3, after: 1 }, &strided];
    let shapes = [
        AttentionShape::new(2, 2, 70, 16).kv_len(0),
        AttentionShape::new(1, 8, 3, 16).kv_heads(2).kv_len(0),
        AttentionShape::new(1, 3, 9, 7).kv_len(0),
    ];
    for kind in [TileKind::Staged, TileKind::Direct] {
        let gpu = gpu_with(Options::default().tile_kind(kind));
        for (shape, pattern) in shapes.into_iter().flat_map(|shape| patterns.map(|pattern| (shape, pattern)))
        {
            let parts = Parts::lower(pattern, shape).expect("parts");
            let q = vec![1.0f32; shape.len_q()];
            let inputs = wgpu_attention::Inputs::new(&q, &[], &[]);
            let got = run::<f32, f32, f32>(&gpu, &shape.into(), &inputs, &parts, true).expect("guards");
            assert!(got.out.iter().all(|x| x.to_bits() == 0), "{pattern:?}, {shape:?}");
            let lse = got.lse.expect("asked for");
            assert!(lse.iter().all(|x| x.to_bits() == f32::MIN.to_bits()), "{pattern:?}, {shape:?}: {lse:?}");
        }
    }
}
