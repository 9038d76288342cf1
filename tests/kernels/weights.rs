//! The weights of chosen rows: each within its bound, exactly 0 where a pair is left out; their summary.

use crate::support::{Case, Cut, PATTERNS, Placement, cut, gpu, gpu_with, picked, weights_on};
use wgpu_attention::ElementType::{Bf16, F16, F32};
use wgpu_attention::reference::{self, Kind, Position};
use wgpu_attention::{
    Alibi, AttentionShape, BiasStrides, Causal, Full, Inputs, KernelPath, Options, Parts, Relative, Score,
    Segments, Sinks, Storage, Temperature, WeightsOptions, Window,
};

fn check(case: &Case, parts: &Parts, options: WeightsOptions) {
    weights_on(&gpu_with(case.options), case, parts, options).unwrap_or_else(|e| panic!("{e}"));
}

fn shape() -> AttentionShape {
    AttentionShape::new(2, 4, 70, 16).kv_heads(2).kv_len(300).value_dim(8)
}

#[test]
fn every_pattern() {
    for (name, _) in PATTERNS {
        let case = Case::new(shape()).pattern(picked(name, &shape().extent(), 3)).seed(3);
        check(&case, &case.parts(), WeightsOptions::default());
    }
}

#[test]
fn parts_and_orders() {
    for pattern in ["causal", "blocks_per_head", "mask_of_all"] {
        let case = Case::new(shape()).pattern(picked(pattern, &shape().extent(), 3));
        for how in Cut::ALL {
            check(&case, &cut(&case, how, 1), WeightsOptions::default().top(7));
        }
    }
    let case = Case::new(shape()).pattern(picked("strided", &shape().extent(), 1));
    let lowered = Parts::lower(case.pattern.as_dyn(), case.grid()).expect("a pattern of the crate");
    check(&case, &lowered, WeightsOptions::default().matrix(false).top(24));
}

#[test]
fn terms() {
    let bias = BiasStrides::broadcast([2, 4, 70, 300]);
    for score in [
        Score::new().scale(-0.7).softcap(2.0),
        Score::new().with(Temperature).with(Alibi::default()),
        Score::new().bias(bias),
        Score::new().with(Relative::new(299, 370)),
        Score::new().with(Relative::new(299, 370).u(true).w(true)),
        Score::new().with(Segments),
        Score::new().with(Sinks),
        // Weights are those of the softmax.
        Score::new().dropout(0.5, 1),
    ] {
        for pattern in ["causal", "mask_of_all"] {
            let case = Case::new(shape().score(score.clone())).pattern(picked(pattern, &shape().extent(), 2));
            // Both at once would be more buffers than every device has: two passes.
            check(&case, &case.parts(), WeightsOptions::default());
        }
    }
}

#[test]
fn kinds_sizes_and_element_types() {
    for kind in Kind::ALL {
        let case = Case::new(shape()).pattern(Causal).kind(kind);
        check(&case, &case.parts(), WeightsOptions::default().top(1));
    }
    for storage in [Storage::all(F16), Storage::all(Bf16).out(F32), Storage::default().kv(F16)] {
        for dim in [64, 7] {
            let shape = AttentionShape::new(1, 2, 33, dim).kv_len(65);
            let case = Case::new(shape.storage(storage)).pattern(Window { before: 40, after: 3 });
            check(&case, &case.parts(), WeightsOptions::default().top(0));
        }
    }
    for (head_dim, q_len, kv_len) in [(1, 1, 1), (256, 3, 1000), (130, 17, 256)] {
        let shape = AttentionShape::new(1, 2, q_len, head_dim).q_len(q_len).kv_len(kv_len).value_dim(4);
        let case = Case::new(shape).pattern(Full);
        check(&case, &case.parts(), WeightsOptions::default());
    }
}

#[test]
fn layouts_and_few_queries() {
    for placement in [Placement::Blhd, Placement::PackedQkv, Placement::Gap(3), Placement::Reversed(2)] {
        let case = Case::new(placement.apply(AttentionShape::new(2, 2, 40, 8))).pattern(Causal);
        check(&case, &case.parts(), WeightsOptions::default());
    }
    // Keys split over workgroups.
    let shape = AttentionShape::new(1, 4, 900, 16).q_len(2).kv_heads(2);
    let case = Case::new(shape).options(Options::default().splits(3));
    check(&case, &case.parts(), WeightsOptions::default());
}

#[test]
fn after_cooperative_matrices() {
    let storage = Storage::all(F16).out(F32);
    let shape = AttentionShape::new(1, 2, 200, 64);
    for kind in [Kind::Normal, Kind::Rising] {
        let case = Case::new(shape.storage(storage)).pattern(Causal).kind(kind);
        let case = case.options(Options::default().path(KernelPath::Cooperative));
        check(&case, &case.parts(), WeightsOptions::default());
    }
}

#[test]
fn equal_scores_share_equally() {
    // q = 0: of n keys each has 1 / n, and the first are named.
    let shape = AttentionShape::new(1, 1, 8, 4).q_len(8);
    let (q, k, v) = (vec![0f32; 32], vec![1f32; 32], vec![1f32; 32]);
    let rows: Vec<_> = (0..8).map(|i| Position { batch: 0, head: 0, i }).collect();
    let got =
        gpu().attention_weights(shape, &Inputs::new(&q, &k, &v), &Causal, &rows, WeightsOptions::default());
    let got = got.expect("a good call");
    let (weights, summaries) =
        (got.weights.clone().expect("asked for"), got.summaries.clone().expect("asked for"));
    for (i, row) in summaries.iter().enumerate() {
        let n = i + 1;
        assert_eq!(row.keys as usize, n);
        assert!((f64::from(row.entropy) - (n as f64).ln()).abs() < 1e-6, "{row:?}");
        let named: Vec<_> = row.top.iter().map(|(key, _)| *key).collect();
        assert_eq!(named, (0..n.min(4) as u32).collect::<Vec<_>>());
        for j in 0..8 {
            let want = if j < n { 1.0 / n as f32 } else { 0.0 };
            assert!((weights[8 * i + j] - want).abs() < 1e-7, "row {i}, key {j}");
        }
    }
    let mean = got.mean_entropy().expect("there are rows");
    assert!((mean - (1..=8).map(|n| f64::from(n).ln()).sum::<f64>() / 8.0).abs() < 1e-6);
}

#[test]
fn what_is_not_finite_shows_in_its_rows_alone() {
    let shape = AttentionShape::new(1, 1, 20, 4);
    let tensors = reference::random::<f32, f32>(shape, Kind::Normal, 1).expect("a good shape");
    let (mut q, k, v) = (tensors.q, tensors.k, tensors.v);
    q[4 * 7] = f32::NAN;
    let rows: Vec<_> = (0..20).map(|i| Position { batch: 0, head: 0, i }).collect();
    let got =
        gpu().attention_weights(shape, &Inputs::new(&q, &k, &v), &Causal, &rows, WeightsOptions::default());
    let got = got.expect("a good call");
    let (weights, summaries) = (got.weights.expect("asked for"), got.summaries.expect("asked for"));
    for i in 0..20 {
        let row = &weights[20 * i..20 * (i + 1)];
        assert!(row[..=i].iter().all(|p| p.is_nan() == (i == 7)), "row {i}: {row:?}");
        assert!(row[i + 1..].iter().all(|&p| p == 0.0), "row {i}: {row:?}");
        assert_eq!(summaries[i].entropy.is_nan(), i == 7);
    }
}

#[test]
fn bad_calls_say_what_is_wrong() {
    let plan = gpu().kernels().attention(AttentionShape::new(1, 2, 10, 4), &Causal).expect("a good call");
    let at = |head, i| Position { batch: 0, head, i };
    let message =
        |rows: &[Position], options| plan.weights(rows, options).expect_err("a bad one").to_string();
    let all = WeightsOptions::default();
    assert_eq!(message(&[at(0, 0), at(2, 0)], all), "rows[1].head: need below 2, got 2");
    assert_eq!(message(&[at(1, 10)], all), "rows[0].i: need below 10, got 10");
    let none = all.matrix(false).without_summary();
    assert_eq!(message(&[], none), "options: need weights, a summary, or both, got neither");
    assert_eq!(message(&[], all.top(25)), "options.summary: need at most 24 keys, got 25");
    // No row: nothing to do.
    let (q, k, v) = (vec![0f32; 80], vec![0f32; 80], vec![0f32; 80]);
    let inputs = Inputs::new(&q, &k, &v);
    let got = gpu().attention_weights(plan.attention().shape, &inputs, &Full, &[], all).expect("no rows");
    assert_eq!((got.weights, got.summaries.map(|rows| rows.len())), (Some(vec![]), Some(0)));
    assert_eq!(plan.weights(&[at(0, 3)], all).expect("a good call").len_summaries(), 10);
}
