//! Properties that hold for any inputs; `PROPTEST_CASES` runs more.

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use wgpu_attention::pattern::Identity;
use wgpu_attention::reference::{self, Kind, Position};
use wgpu_attention::{
    Attention, AttentionShape, BiasStrides, Causal, Extent, Full, Inputs, Pattern, Result, Score, Site,
};

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    }
}

fn calls() -> impl Strategy<Value = Attention> {
    (
        1..3usize,
        1..4usize,
        1..12usize,
        1..20usize,
        1..9usize,
        1..6usize,
        prop::option::of(0.5f32..40.0),
        any::<bool>(),
    )
        .prop_map(|(batch, heads, q_len, kv_len, d, dv, softcap, alibi)| {
            let score = softcap.map_or(Score::new(), |cap| Score::new().softcap(cap));
            let score = if alibi { score.alibi() } else { score };
            AttentionShape::new(batch, heads, kv_len, d).q_len(q_len).value_dim(dv).score(score)
        })
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop::sample::select(Kind::ALL.to_vec())
}

/// The keys of `Causal` whose hash bit is `side`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Half {
    seed: u64,
    side: bool,
}

impl Pattern for Half {
    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        let bit = reference::Counter::new(self.seed, i as u64).bits(j as u64) & 1 == 1;
        Causal.keep(site, i, j) && bit == self.side
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }

    fn check(&self, extent: &Extent) -> Result<()> {
        Causal.check(extent)
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn permuting_heads_permutes_outputs(call in calls(), kind in kinds(), seed: u64, turn in 0..3usize) {
        // ALiBi's slopes belong to the heads' numbers.
        let score = call.score.softcap_value().map_or(Score::new(), |cap| Score::new().softcap(cap));
        let call = call.score(score);
        let shape = call.shape;
        let tensors = reference::random::<f32, f32>(&call, kind, seed).unwrap();
        let exact = reference::attention_with(&call, &tensors.inputs(), &Causal).unwrap();
        let turned = |x: &[f32], head: usize| -> Vec<f32> {
            x.chunks(shape.heads * head)
                .flat_map(|item| [&item[turn % shape.heads * head..], &item[..turn % shape.heads * head]].concat())
                .collect()
        };
        let q = turned(&tensors.q, shape.q_len * shape.head_dim);
        let k = turned(&tensors.k, shape.kv_len * shape.head_dim);
        let v = turned(&tensors.v, shape.kv_len * shape.value_dim);
        let got = reference::attention(&call, &q, &k, &v, &Causal).unwrap();
        for batch in 0..shape.batch {
            for head in 0..shape.heads {
                let rows = shape.q_len * shape.value_dim;
                let place = |head: usize| (batch * shape.heads + head) * rows;
                let from = (head + turn) % shape.heads;
                let (got, want) = (&got.out[place(head)..], &exact.out[place(from)..]);
                prop_assert_eq!(&got[..rows], &want[..rows]);
            }
        }
    }

    #[test]
    fn a_constant_added_to_all_scores_changes_only_lse(
        call in calls(), kind in kinds(), seed: u64, constant in -100f32..100.0
    ) {
        let shape = call.shape;
        let plain = reference::random::<f32, f32>(&call, kind, seed).unwrap();
        let with_bias = call.clone().score(call.score.clone().bias(BiasStrides::broadcast([1; 4])));
        let bias = [constant];
        let biased: Inputs<'_, f32> = plain.inputs().tensor("bias", &bias);
        for (head, i) in [(0, 0), (shape.heads - 1, shape.q_len - 1)] {
            let at = Position { batch: shape.batch - 1, head, i };
            let a = reference::row(&call, &plain.inputs(), &Full, at, None).unwrap();
            let b = reference::row(&with_bias, &biased, &Full, at, None).unwrap();
            for c in 0..shape.value_dim {
                let error = (a.out[c] - b.out[c]).abs();
                prop_assert!(error <= a.bound[c] && error <= b.bound[c] && error <= 1e-6 * b.bound[c]);
                prop_assert!(b.bound[c].is_finite());
            }
            prop_assert!((b.lse - a.lse - f64::from(constant)).abs() <= 1e-12 * (1.0 + a.lse.abs()));
        }
    }

    #[test]
    fn a_set_split_in_two_merges_by_lse(call in calls(), kind in kinds(), seed: u64) {
        let shape = call.shape;
        let tensors = reference::random::<f32, f32>(&call, kind, seed).unwrap();
        let of = |pattern: &dyn Pattern| reference::attention_with(&call, &tensors.inputs(), pattern).unwrap();
        let (all, one, two) = (of(&Causal), of(&Half { seed, side: false }), of(&Half { seed, side: true }));
        for row in 0..shape.len_lse() {
            let (a, b) = (one.lse[row], two.lse[row]);
            let max = a.max(b);
            let lse = max + ((a - max).exp() + (b - max).exp()).ln();
            let empty = max == f64::from(f32::MIN);
            let expected = if empty { max } else { lse };
            prop_assert!((expected - all.lse[row]).abs() <= 1e-13 * (1.0 + lse.abs()) * f64::from(!empty));
            for c in 0..shape.value_dim {
                let n = row * shape.value_dim + c;
                let merged = one.out[n] * (a - lse).exp() + two.out[n] * (b - lse).exp();
                let merged = if empty { 0.0 } else { merged };
                let error = (merged - all.out[n]).abs();
                prop_assert!(error <= 1e-12 * (1.0 + all.out[n].abs()), "{} {}", merged, all.out[n]);
            }
        }
    }

    #[test]
    fn outputs_lie_within_the_values_and_bounds_are_numbers(call in calls(), kind in kinds(), seed: u64) {
        let shape = call.shape;
        let tensors = reference::random::<f32, f32>(&call, kind, seed).unwrap();
        let at = Position { batch: 0, head: 0, i: shape.q_len - 1 };
        let row = reference::row(&call, &tensors.inputs(), &Causal, at, None).unwrap();
        prop_assert_eq!(row.kept, shape.kv_len);
        for c in 0..shape.value_dim {
            let column = || (0..shape.kv_len).map(|j| f64::from(tensors.v[j * shape.value_dim + c]));
            let (low, high) = (column().fold(f64::INFINITY, f64::min), column().fold(f64::NEG_INFINITY, f64::max));
            prop_assert!(row.out[c] >= low - 1e-12 && row.out[c] <= high + 1e-12);
            prop_assert!(row.bound[c].is_finite() && row.bound[c] > 0.0);
            prop_assert!(row.bound[c] <= 1.01 * (high - low) + 1e-4 * low.abs().max(high.abs()) + 1e-30);
        }
        prop_assert!(row.lse_bound.is_finite() && row.lse_bound > 0.0);
    }

    #[test]
    fn counters_depend_on_all_their_parts(seed: u64, stream: u64, n in 0..u64::MAX - 1) {
        let bits = reference::Counter::new(seed, stream).bits(n);
        prop_assert_ne!(bits, reference::Counter::new(seed ^ 1, stream).bits(n));
        prop_assert_ne!(bits, reference::Counter::new(seed, stream ^ 1).bits(n));
        prop_assert_ne!(bits, reference::Counter::new(seed, stream).bits(n + 1));
        let uniform = reference::Counter::new(seed, stream).uniform(n);
        prop_assert!((0.0..1.0).contains(&uniform));
        prop_assert!(reference::Counter::new(seed, stream).normal(n).abs() < 9.0);
    }
}
