//! What must hold whatever the numbers.

use super::{Case, gpu};
use wgpu_attention::reference::{Kind, Rows};
use wgpu_attention::{AttentionShape, Causal, Full, LshOptions, Pattern, Projections};

fn case(len: usize, options: LshOptions) -> Case<f32> {
    Case::new(AttentionShape::new(1, 2, len, 16), options, Kind::Normal, len as u64)
}

fn close(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |max, x| if x.is_finite() { f32::max(max, x) } else { f32::INFINITY })
}

/// Shared queries and keys through the dense kernel: keys normalised on the host, the own key's score far below.
fn dense(case: &Case<f32>, pattern: &dyn Pattern) -> Vec<f32> {
    use wgpu_attention::{BiasStrides, Inputs, Outputs, Score};
    let (d, len) = (case.attention.shape.head_dim, case.attention.shape.q_len);
    let normalised: Vec<f32> = case
        .qk
        .chunks(d)
        .flat_map(|x| {
            let norm = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            x.iter().map(move |x| (f64::from(*x) / norm) as f32)
        })
        .collect();
    let mut bias = vec![0.0; len * len];
    (0..len).for_each(|i| bias[i * len + i] = -1e5);
    let biased = case.attention.clone().score(Score::new().bias(BiasStrides::broadcast([1, 1, len, len])));
    let inputs = Inputs::new(&case.qk, &normalised, &case.v).tensor("bias", &bias);
    gpu().run::<f32, f32, f32>(biased, &inputs, pattern, Outputs::default()).unwrap().out
}

#[test]
fn one_chunk_over_everything_is_dense_shared_qk_attention() {
    for (causal, pattern) in [(false, &Full as &dyn Pattern), (true, &Causal)] {
        for rounds in [1, 2] {
            // Each round sees everything, so that all rounds say the same.
            let options = LshOptions::new(rounds, 2, 200).chain_rounds(false).causal(causal);
            let case = case(200, options);
            let error = close(&case.run().out, &dense(&case, pattern));
            assert!(error < 2e-5, "{error}");
        }
    }
}

#[test]
fn positions_that_do_not_matter_may_be_permuted() {
    // Not causal and all keys distinct: only the order within a bucket depends on the positions, and one bucket a chunk
    // sees all of it.
    let case = case(96, LshOptions::new(3, 2, 96).chain_rounds(false));
    let got = case.run();
    let mut permuted = case.clone();
    let from = |i: usize| (i * 35 + 11) % 96;
    for head in 0..2 {
        for i in 0..96 {
            let (to, from) = ((head * 96 + i) * 16, (head * 96 + from(i)) * 16);
            permuted.qk[to..to + 16].copy_from_slice(&case.qk[from..from + 16]);
            permuted.v[to..to + 16].copy_from_slice(&case.v[from..from + 16]);
        }
    }
    let result = permuted.check(Rows::All);
    let back: Vec<f32> = (0..2)
        .flat_map(|head| (0..96).flat_map(move |i| (0..16).map(move |c| (head * 96 + from(i)) * 16 + c)))
        .map(|n| got.out[n])
        .collect();
    assert!(close(&result.out, &back) < 1e-5);
    for round in 0..3 {
        for i in 0..96 {
            assert_eq!(
                result.buckets[round * 96 + i],
                got.buckets[round * 96 + from(i)],
                "buckets move along"
            );
        }
    }
}

#[test]
fn the_order_of_the_rounds_does_not_matter() {
    let options = LshOptions::new(3, 8, 16).chain_rounds(false);
    let case = case(100, options.clone());
    let first = case.run();
    let projections = options.seeded_projections(&case.attention.shape).unwrap();
    let mut turned = case.clone();
    turned.options = options.projections(Projections::Given { per_head: true });
    // [H, d, R, columns], the rounds in reverse.
    turned.projections = Some(
        projections.chunks(3 * 4).flat_map(|element| element.chunks(4).rev().flatten().copied()).collect(),
    );
    let second = turned.check(Rows::All);
    assert!(close(&first.out, &second.out) < 1e-5 && close(&first.lse, &second.lse) < 1e-5);
    assert_eq!(first.buckets[..100], second.buckets[200..300], "round 0 became round 2");
}

#[test]
fn heads_may_be_permuted() {
    let options = LshOptions::new(2, 8, 16).projections(Projections::Seeded { seed: 3, per_head: false });
    let case = case(90, options);
    let swap = |data: &[f32]| [&data[90 * 16..], &data[..90 * 16]].concat();
    let mut swapped = case.clone();
    (swapped.qk, swapped.v) = (swap(&case.qk), swap(&case.v));
    assert_eq!(swapped.run().out, swap(&case.run().out), "bit for bit");
}

#[test]
fn equal_rounds_counted_once_are_one_round() {
    let once = LshOptions::new(1, 8, 16).chain_rounds(false);
    let case = case(100, once.clone());
    let one = case.run();
    let mut twice = case.clone();
    twice.options =
        once.clone().rounds(2).count_once(true).projections(Projections::Given { per_head: true });
    let projections = once.seeded_projections(&case.attention.shape).unwrap();
    twice.projections = Some(projections.chunks(4).flat_map(|columns| [columns, columns].concat()).collect());
    let two = twice.check(Rows::All);
    assert!(close(&one.out, &two.out) < 1e-5 && close(&one.lse, &two.lse) < 1e-5);
    // Counted each time, every weight doubles: the same output, and ln 2 more.
    twice.options = twice.options.clone().count_once(false);
    let doubled = twice.check(Rows::All);
    assert!(close(&one.out, &doubled.out) < 1e-5);
    let shifted: Vec<f32> = one.lse.iter().map(|lse| lse + 2f32.ln()).collect();
    assert!(close(&shifted, &doubled.lse) < 1e-5);
}

#[test]
fn repeats_are_equal_bit_for_bit() {
    let case = case(300, LshOptions::new(4, 16, 32).count_once(true).key_mask(true));
    let first = case.run();
    for _ in 0..3 {
        assert!(case.run() == first);
    }
}

#[test]
fn masked_keys_do_not_matter() {
    let case = case(80, LshOptions::new(2, 8, 16).key_mask(true));
    let first = case.run();
    let mask = case.key_mask.clone().unwrap();
    let mut other = case.clone();
    for (n, x) in other.v.iter_mut().enumerate() {
        if !mask[n / 16 % 80] {
            *x = f32::NAN;
        }
    }
    let second = other.run();
    // A masked position asks, too: its own row of v is not in it.
    assert!(first.out == second.out, "v of masked keys is not read into any row");
}

#[test]
fn nan_in_one_position_stays_in_the_rows_that_see_it() {
    let case = case(64, LshOptions::new(2, 8, 16));
    let mut other = case.clone();
    other.qk[5 * 16..6 * 16].fill(f32::NAN);
    let got = other.run();
    assert!(got.buckets.iter().all(|&bucket| bucket < 8));
    let mut order = got.order[..64].to_vec();
    order.sort_unstable();
    assert!(order.iter().copied().eq(0..64), "still a permutation");
    assert_eq!(got.out[64 * 16..], case.run().out[64 * 16..], "the other head is as it was");
}
