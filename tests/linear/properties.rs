//! What must hold whatever the numbers.

use super::{Case, maps, shape};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use wgpu_attention::reference::Kind;
use wgpu_attention::{AttentionShape, FeatureMap, LinearOptions, Projection, reference};
use wgpu_attention_testing::cases;

fn case(options: LinearOptions) -> Case<f32> {
    Case::new(AttentionShape::new(1, 2, 150, 8), options, Kind::Normal, 12)
}

fn causal(map: FeatureMap) -> LinearOptions {
    LinearOptions::new(map).causal(true)
}

#[test]
fn repeats_are_equal_bit_for_bit() {
    let case = case(causal(FeatureMap::favor(16)).key_mask(true));
    let first = case.run();
    assert!((0..3).all(|_| case.run() == first));
}

#[test]
fn later_keys_do_not_matter_where_causal() {
    for map in [FeatureMap::favor(16), FeatureMap::Elu] {
        let case = case(causal(map));
        let first = case.run();
        // In a chunk's middle, and at its end.
        for len in [70, 128] {
            for x in [1e3, f32::NAN, f32::INFINITY] {
                let mut other = case.clone();
                for head in 0..2 {
                    other.k[(head * 150 + len) * 8..(head + 1) * 150 * 8].fill(x);
                    other.v[(head * 150 + len) * 8..(head + 1) * 150 * 8].fill(x);
                }
                let second = other.run();
                for head in 0..2 {
                    let rows = head * 150 * 8..(head * 150 + len) * 8;
                    assert_eq!(second[rows.clone()], first[rows], "{map:?}: {x} from key {len} on");
                }
            }
        }
    }
}

#[test]
fn masked_keys_do_not_matter() {
    for (name, map) in maps() {
        for causal in [false, true] {
            let case = case(LinearOptions::new(map).causal(causal).key_mask(true));
            let (first, mask) = (case.run(), case.key_mask.clone().expect("asked for"));
            let mut other = case.clone();
            for n in (0..other.k.len()).filter(|n| !mask[n / 8 % 150]) {
                (other.k[n], other.v[n]) = (f32::NAN, f32::INFINITY);
            }
            assert_eq!(other.run(), first, "{name}, causal {causal}");
        }
    }
}

#[test]
fn seeded_projections_are_those_that_may_be_given() {
    let seeded = case(causal(FeatureMap::favor(20).projection(Projection::Seeded { seed: 5 })));
    let mut given = seeded.clone();
    given.projection = Some(Projection::orthogonal(5, 20, 8));
    given.options.map = given.options.map.projection(Projection::Given);
    assert_eq!(seeded.run(), given.run());
    let redrawn = case(causal(FeatureMap::favor(20).projection(Projection::Seeded { seed: 6 })));
    assert_ne!(seeded.run(), redrawn.run());
}

#[test]
fn projections_are_orthogonal_block_by_block() {
    let (m, d) = (20, 8);
    let rows = Projection::orthogonal(1, m, d);
    let dot = |a: usize, b: usize| {
        (0..d).map(|c| f64::from(rows[a * d + c]) * f64::from(rows[b * d + c])).sum::<f64>()
    };
    for a in 0..m {
        for b in 0..a {
            assert!(a / d != b / d || dot(a, b).abs() < 1e-5, "{a} {b}");
        }
        // Lengths of normal rows: of squares that are 8 in the mean.
        assert!((0.5..40.0).contains(&dot(a, a)), "{a}");
    }
}

/// Retention as its recurrence: another way to the same numbers.
#[test]
fn the_reference_is_the_recurrence() {
    let decay = 0.875f32;
    let case = case(causal(FeatureMap::Elu).decay(vec![decay; 2]));
    let [q, k] = reference::linear_features(&case.attention, &case.options, &case.inputs()).unwrap();
    let exact = reference::linear_attention(&case.attention, &case.options, &case.inputs()).unwrap();
    let log = f64::from(f64::from(decay).ln() as f32);
    for head in 0..2 {
        let (mut s, mut z) = ([[0.0; 8]; 8], [0.0; 8]);
        for i in 0..150 {
            let at = (head * 150 + i) * 8;
            let (mut sum, mut l) = ([0.0; 8], 0.0);
            for f in 0..8 {
                z[f] = z[f] * log.exp() + k[at + f];
                l += q[at + f] * z[f];
                for c in 0..8 {
                    s[f][c] = s[f][c] * log.exp() + k[at + f] * f64::from(case.v[at + c]);
                    sum[c] += q[at + f] * s[f][c];
                }
            }
            for c in 0..8 {
                assert!((sum[c] / l - exact[at + c]).abs() < 1e-12, "{i} {c}");
            }
        }
    }
    case.check();
}

#[test]
fn heads_may_be_permuted() {
    let case = case(causal(FeatureMap::favor(16)).decay(vec![0.5, 0.99]));
    let swap = |data: &[f32]| [&data[150 * 8..], &data[..150 * 8]].concat();
    let mut other = case.clone();
    (other.q, other.k, other.v) = (swap(&case.q), swap(&case.k), swap(&case.v));
    other.options = other.options.decay(vec![0.99, 0.5]);
    assert_eq!(other.run(), swap(&case.run()));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(32),
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    })]

    /// Sizes are free; what pipelines are compiled for comes from a short list.
    #[test]
    fn drawn_calls_are_within_their_bounds(
        batch in 1..3usize,
        group in 1..3usize,
        kv_heads in 1..3usize,
        q_len in 1..150usize,
        kv_len in 0..200usize,
        map in 0..3usize,
        causal: bool,
        masked: bool,
        decays: bool,
        seed: u64,
    ) {
        let (_, map) = [maps()[0], maps()[4], maps()[3]][map];
        let shape = AttentionShape::new(batch, group * kv_heads, q_len, 8).kv_heads(kv_heads).kv_len(kv_len);
        let decay = (decays && causal).then(|| vec![0.93; kv_heads]);
        let options = LinearOptions::new(map).causal(causal).key_mask(masked).decay(decay);
        Case::<f32>::new(shape, options, Kind::Normal, seed).check();
    }
}

#[test]
fn nothing_is_asked_of_an_empty_call() {
    for empty in [shape().q_len(0), AttentionShape::new(0, 1, 5, 4)] {
        assert!(Case::<f32>::new(empty, causal(FeatureMap::Elu), Kind::Normal, 1).run().is_empty());
    }
}
