//! Calls so small that the right result is a formula written here, without the reference.

use crate::support::{Case, gpu_with, run};
use wgpu_attention::wgsl::TileKind;
use wgpu_attention::{
    Attention, AttentionShape, Bias, BiasStrides, Causal, Full, Inputs, Options, Parts, Pattern, Score,
};

/// What a call gives under each kind of tile, with one workgroup and with two for the keys.
fn results(
    attention: &Attention,
    inputs: &Inputs<'_, f32>,
    pattern: &dyn Pattern,
) -> Vec<(Vec<f32>, Vec<f32>)> {
    let parts = Parts::lower(pattern, attention.shape).expect("parts");
    let mut results = vec![];
    for kind in [TileKind::Staged, TileKind::Direct] {
        for splits in [1, 2] {
            let gpu = gpu_with(Options::default().tile_kind(kind).splits(splits));
            let got = run::<f32, f32, f32>(&gpu, attention, inputs, &parts, true).expect("guards");
            results.push((got.out, got.lse.expect("asked for")));
        }
    }
    results
}

#[track_caller]
fn close(got: f32, want: f64, allowed: f64) {
    assert!((f64::from(got) - want).abs() <= allowed, "{got:e}, not {want:e}");
}

/// One head, slope 2^-8; the last three of seven positions. Scores are -slope times the distance alone, so that row i, at
/// position 4 + i, is ln of a geometric series.
#[test]
fn alibi_counts_from_the_last_key() {
    let attention = AttentionShape::new(1, 1, 7, 1).q_len(3).score(Score::new().alibi());
    let values: Vec<f32> = (0..7).map(|j| j as f32).collect();
    let inputs = Inputs::new(&[0.0f32; 3], &[0.0; 7], &values);
    for (out, lse) in results(&attention, &inputs, &Causal) {
        for i in 0..3 {
            let weights: Vec<f64> = (0..=4 + i).map(|j| (-((4 + i - j) as f64) / 256.0).exp()).collect();
            let sum: f64 = weights.iter().sum();
            let mean = weights.iter().enumerate().map(|(j, w)| j as f64 * w).sum::<f64>() / sum;
            close(lse[i], sum.ln(), 2e-6);
            close(out[i], mean, 4e-6);
        }
    }
}

/// The last rows, alone with all keys, are those of the whole to a few units in the last place.
#[test]
fn alibi_of_the_last_rows_alone() {
    let whole = AttentionShape::new(1, 3, 150, 16);
    let score = Score::new().alibi();
    let tensors = Case::new(whole.score(score.clone())).tensors::<f32, f32>();
    let all = results(&whole.score(score.clone()), &tensors.inputs(), &Causal);
    for rows in [1, 3, 20] {
        let q: Vec<f32> =
            tensors.q.chunks(150 * 16).flat_map(|head| &head[(150 - rows) * 16..]).copied().collect();
        let last = whole.q_len(rows).score(score.clone());
        let alone = results(&last, &Inputs::new(&q, &tensors.k, &tensors.v), &Causal);
        for ((out, lse), (some, some_lse)) in all.iter().zip(&alone) {
            for (n, (got, lse_got)) in some.chunks(16).zip(some_lse).enumerate() {
                let row = n / rows * 150 + 150 - rows + n % rows;
                let places = 4.0 * f64::from(f32::EPSILON);
                close(*lse_got, lse[row].into(), places * f64::from(lse[row].abs().max(1.0)));
                for (got, want) in got.iter().zip(&out[row * 16..]) {
                    // Outputs are means of numbers of size 1.
                    close(*got, (*want).into(), places);
                }
            }
        }
    }
}

/// Caps far above the scores leave them as they are: tanh(x) = x for small x.
#[test]
fn a_huge_cap_changes_nothing() {
    for cap in [1e-3f32, 50.0, 3e6, 1e30, 3e38, f32::MAX] {
        let shape = AttentionShape::new(1, 1, 4, 1).q_len(2);
        let attention = shape.score(Score::new().scale(1.0).softcap(cap));
        let (q, k, v) = ([1.0f32, 0.5], [0.3f32, -0.7, 0.001, 0.25], [1.0f32, 2.0, 3.0, 4.0]);
        for (out, lse) in results(&attention, &Inputs::new(&q, &k, &v), &Full) {
            for i in 0..2 {
                let capped = |k: f32| f64::from(cap) * (f64::from(q[i] * k) / f64::from(cap)).tanh();
                let weights = k.map(|k| capped(k).exp());
                let sum: f64 = weights.iter().sum();
                let mean = weights.iter().zip(v).map(|(w, v)| w * f64::from(v)).sum::<f64>() / sum;
                close(lse[i], sum.ln(), 2e-6);
                close(out[i], mean, 2e-6);
            }
        }
    }
}

/// A whole row of huge negative biases: lse is the largest of them, for ln n is far below its last place; equal ones leave the
/// mean of the values.
#[test]
fn lse_of_biases_near_the_end_of_f32() {
    let len = 70;
    for floor in [-1e9, -1e30, -2e38, -3e38, f32::MIN.next_up(), f32::MIN] {
        let strides = BiasStrides { query: len as isize, key: 1, ..Default::default() };
        let attention = AttentionShape::new(1, 1, len, 1).q_len(2).score(Score::new().bias(strides));
        // Of query 1 every key but one is at f32::MIN.
        let mut bias = vec![floor; 2 * len];
        bias[len..].fill(f32::MIN);
        bias[len + 5] = floor;
        let values: Vec<f32> = (0..len).map(|j| j as f32).collect();
        let zeros = vec![0.0f32; len];
        for (out, lse) in
            results(&attention, &Inputs::new(&[0.0; 2], &zeros, &values).tensor("bias", &bias), &Full)
        {
            // One place: -1e9 has one of 64, in which ln 70 is lost.
            let place = f64::from(floor.abs()) * f64::from(f32::EPSILON);
            close(lse[0], floor.into(), place);
            close(out[0], 34.5, 2e-5);
            // f32::MIN itself, and the number next to it, which it counts as, are equals; the others are alone.
            close(lse[1], floor.into(), place);
            close(out[1], if floor <= f32::MIN.next_up() { 34.5 } else { 5.0 }, 2e-5);
        }
    }
}

/// Two masks of f32::MIN that meet weigh nothing beside a score; where a row has nothing else, its scores are equal, one next above
/// f32::MIN: the mean of the values.
#[test]
fn masks_that_meet() {
    let len = 70;
    let strides = BiasStrides { query: len as isize, key: 1, ..Default::default() };
    let score = Score::new().bias(strides).with(Bias::second(strides));
    let attention = AttentionShape::new(1, 1, len, 1).q_len(2).score(score);
    let mut bias = vec![f32::MIN; 2 * len];
    bias[5] = 0.0;
    // Of query 1 the sums differ, and all are below f32::MIN.
    let second: Vec<f32> = (0..2 * len).map(|n| if n == 5 { 1.0 } else { -1e36 * (n + 1) as f32 }).collect();
    let values: Vec<f32> = (0..len).map(|j| j as f32).collect();
    let zeros = vec![0.0f32; len];
    let inputs = Inputs::new(&[0.0f32; 2], &zeros, &values).tensor("bias", &bias);
    for (out, lse) in results(&attention, &inputs.tensor("second_bias", &second), &Full) {
        assert_eq!((out[0], lse[0], lse[1]), (5.0, 1.0, f32::MIN.next_up()));
        close(out[1], 34.5, 2e-5);
    }
}

/// Biases that take each other back leave the score: they are added to each other first.
#[test]
fn biases_that_take_each_other_back() {
    let strides = BiasStrides::broadcast([1, 1, 1, 4]);
    let score = Score::new().bias(strides).with(Bias::second(strides));
    let attention = AttentionShape::new(1, 1, 4, 1).q_len(1).score(score);
    let (k, v) = ([0.5f32, -1.0, 2.0, 0.25], [1.0f32, 2.0, 4.0, 8.0]);
    let weights = k.map(|k| f64::from(k).exp());
    let sum: f64 = weights.iter().sum();
    let mean = weights.iter().zip(v).map(|(weight, v)| weight * f64::from(v)).sum::<f64>() / sum;
    for huge in [1e9f32, 1e30, 3e38] {
        let (first, second) = ([-huge, 0.0, huge, 0.0], [huge, 0.0, -huge, 0.0]);
        let inputs = Inputs::new(&[1.0f32], &k, &v).tensor("bias", &first).tensor("second_bias", &second);
        for (out, lse) in results(&attention, &inputs, &Full) {
            close(lse[0], sum.ln(), 2e-6);
            close(out[0], mean, 1e-5);
        }
    }
}
