//! What a bound over random inputs would miss, for a few pairs are lost among many; and relations that need no reference.

use crate::support::{Case, GradOutcome, Picked, gpu_with, picked, run_backward};
use crate::support::{drawn_dout, gradient_bounds, gradients_within};
use wgpu_attention::reference::gradient::{BoundOptions, bounded};
use wgpu_attention::reference::layer::Bounded;
use wgpu_attention::reference::{Kind, Tensors};
use wgpu_attention::{
    AttentionShape, BiasStrides, Causal, Custom, Full, Inputs, PairPredicate, Position, Score, Site,
    WeightsOptions,
};

fn run(case: &Case, tensors: &Tensors<f32, f32>, dout: &[f32]) -> GradOutcome<f32> {
    run_backward(&gpu_with(case.options), &case.attention, &tensors.inputs(), dout, &case.parts(), 1)
        .unwrap_or_else(|e| panic!("{e}\n{case}"))
}

/// The same, every element within its bound.
fn bounded_run(case: &Case, tensors: &Tensors<f32, f32>, dout: &[f32]) -> GradOutcome<f32> {
    let got = run(case, tensors, dout);
    let exact = gradient_bounds(case, &tensors.inputs(), dout, (&case.parts(), &[]));
    gradients_within(case, &exact, &got).unwrap_or_else(|e| panic!("{e}"));
    got
}

/// dout of one head holds the unit vectors: dv is then all of that head's weights, element by element, and exactly 0 for pairs that are
/// left out, for keys of other heads, and in dq of other heads.
#[test]
fn weights_are_read_out() {
    let shape = AttentionShape::new(1, 4, 90, 8).kv_heads(2).q_len(40).value_dim(40);
    for pattern in ["causal", "bigbird"] {
        let case = Case::new(shape).pattern(picked(pattern, &shape.extent(), 3));
        let tensors: Tensors<f32, f32> = case.tensors();
        let mut read = 0;
        for head in 0..4 {
            let mut dout = vec![0.0; shape.len_out()];
            (0..40).for_each(|i| dout[(head * 40 + i) * 40 + i] = 1.0);
            let got = bounded_run(&case, &tensors, &dout);
            let site = Site { batch: 0, head, extent: shape.extent() };
            for (n, p) in got.dv.iter().enumerate() {
                let (kv_head, j, i) = (n / 40 / 90, n / 40 % 90, n % 40);
                let kept = kv_head == shape.kv_head(head) && case.pattern.as_dyn().keep(&site, i, j);
                assert!((*p > 0.0) == kept, "p of query {i}, key {j} is {p}, head {head} of {case}");
                read += usize::from(kept);
            }
            let own = head * 40 * 8..(head + 1) * 40 * 8;
            let others = got.dq.iter().enumerate().filter(|(n, _)| !own.contains(n));
            assert!(others.into_iter().all(|(_, x)| *x == 0.0), "dq of other heads than {head} of {case}");
        }
        assert!(read > 100, "{case}");
    }
}

/// All keys but one.
fn without(lost: usize) -> Picked {
    PairPredicate::new(move |_, j| j != lost).into()
}

/// All queries but one.
fn without_query(lost: usize) -> Picked {
    PairPredicate::new(move |i, _| i != lost).into()
}

/// How many elements of `other` are beyond the bounds.
fn beyond(exact: &Bounded, other: &[f64]) -> usize {
    let each = exact.out.iter().zip(&exact.bound).zip(other);
    each.filter(|((exact, bound), other)| (*other - *exact).abs() > **bound).count()
}

/// Block edges, the first, the last, and some between.
const PLANTED: [usize; 8] = [0, 63, 64, 127, 128, 1000, 2048, 4094];

/// Rows of 4,095 keys, of which a few have values: a gradient that one of them is lost from is beyond its bound.
#[test]
fn planted_keys_show_in_long_rows() {
    let shape = AttentionShape::new(1, 1, 4095, 8).q_len(8);
    let case = Case::new(shape).pattern(Full).kind(Kind::Peaky);
    let mut tensors: Tensors<f32, f32> = case.tensors();
    tensors.q.iter_mut().for_each(|q| *q /= 16.0); // all weights of one size
    tensors.v.fill(0.0);
    PLANTED.iter().enumerate().for_each(|(c, j)| tensors.v[j * 8 + c] = 1.0);
    let dout = drawn_dout::<f32>(&case);
    bounded_run(&case, &tensors, &dout);
    let of = |pattern: &Picked| {
        bounded(&case.attention, &tensors.inputs(), &dout, pattern.as_dyn(), BoundOptions::default()).unwrap()
    };
    let exact = of(&Full.into());
    for lost in PLANTED {
        let found = beyond(&exact.dq, &of(&without(lost)).dq.out);
        assert!(found > 0, "key {lost} may be lost from dq");
    }
}

/// Columns of 4,095 queries, of which a few have a gradient.
#[test]
fn planted_queries_show_in_long_columns() {
    let shape = AttentionShape::new(1, 1, 8, 8).q_len(4095);
    let case = Case::new(shape).pattern(Full);
    let tensors: Tensors<f32, f32> = case.tensors();
    let mut dout = vec![0.0; shape.len_out()];
    PLANTED.iter().enumerate().for_each(|(c, i)| dout[i * 8 + c] = 1.0);
    bounded_run(&case, &tensors, &dout);
    let of = |pattern: &Picked| {
        bounded(&case.attention, &tensors.inputs(), &dout, pattern.as_dyn(), BoundOptions::default()).unwrap()
    };
    let exact = of(&Full.into());
    for lost in PLANTED {
        let other = of(&without_query(lost));
        for (name, exact, other) in [("dk", &exact.dk, &other.dk), ("dv", &exact.dv, &other.dv)] {
            assert!(beyond(exact, &other.out) > 0, "query {lost} may be lost from {name}");
        }
    }
}

/// sum_j dv_j = sum of dout_i over rows with keys, and sum q dq = sum k dk: within the sums of the bounds.
#[test]
fn sums_of_gradients() {
    let shape = AttentionShape::new(2, 4, 90, 16).kv_heads(2).q_len(120).value_dim(8);
    let bias = Score::new().bias(BiasStrides::broadcast([1, 4, 120, 90]));
    for score in [Score::new(), bias, Score::new().alibi()] {
        let case = Case::new(shape.score(score)).pattern(Causal); // 30 rows have no key
        let (tensors, dout): (Tensors<f32, f32>, _) = (case.tensors(), drawn_dout::<f32>(&case));
        let got = run(&case, &tensors, &dout);
        let exact = bounded(
            &case.attention,
            &tensors.inputs(),
            &dout,
            case.pattern.as_dyn(),
            BoundOptions::default(),
        )
        .unwrap();
        let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let [q, k, dq, dk] = [&tensors.q, &tensors.k, &got.dq, &got.dk].map(|x| wide(x));
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let size = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a.abs() * b).sum::<f64>();
        let allowed = size(&q, &exact.dq.bound) + size(&k, &exact.dk.bound);
        let (by_q, by_k) = (dot(&q, &dq), dot(&k, &dk));
        assert!(
            (by_q - by_k).abs() <= allowed,
            "sum q dq is {by_q}, sum k dk {by_k}, within {allowed}: {case}"
        );
        assert!(allowed < 0.1 * size(&q, &dq.iter().map(|x| x.abs()).collect::<Vec<_>>()), "{case}");
        for (n, dv) in wide(&got.dv).chunks(90 * 8).enumerate() {
            for c in 0..8 {
                let sum: f64 = dv.iter().skip(c).step_by(8).sum();
                let rows = (2 * n * 120..2 * (n + 1) * 120).filter(|row| row % 120 >= 30);
                let want: f64 = rows.map(|row| f64::from(dout[row * 8 + c])).sum();
                let allowed: f64 = exact.dv.bound[n * 90 * 8..][..90 * 8].iter().skip(c).step_by(8).sum();
                assert!(
                    (sum - want).abs() <= allowed,
                    "dv of column {c} adds up to {sum}, not {want}: {case}"
                );
                assert!(allowed < 0.1, "{case}");
            }
        }
    }
}

/// Where all values are equal, no score matters: dq and dk are rounding alone, and far below what they are elsewhere.
#[test]
fn equal_values_leave_no_gradient_of_scores() {
    let shape = AttentionShape::new(1, 4, 150, 16).kv_heads(2).q_len(70).value_dim(8);
    let case = Case::new(shape).pattern(Causal);
    let mut tensors: Tensors<f32, f32> = case.tensors();
    tensors.v.fill(3.0);
    let got = bounded_run(&case, &tensors, &drawn_dout::<f32>(&case));
    let largest = [got.dq, got.dk].concat().iter().fold(0.0f32, |max, x| max.max(x.abs()));
    assert!(largest < 1e-4, "{largest}");
}

/// v times a power of two: dq and dk are multiplied with it, dv keeps its bits.
#[test]
fn a_factor_of_two_of_v_is_one_of_dq_and_dk() {
    let shape = AttentionShape::new(2, 4, 90, 16).kv_heads(2).q_len(70).value_dim(8);
    let case = Case::new(shape.score(Score::new().softcap(5.0))).pattern(Causal);
    let (mut tensors, dout): (Tensors<f32, f32>, _) = (case.tensors(), drawn_dout::<f32>(&case));
    let one = run(&case, &tensors, &dout);
    tensors.v.iter_mut().for_each(|v| *v *= 16.0);
    let other = run(&case, &tensors, &dout);
    let times = |x: &[f32]| x.iter().map(|x| 16.0 * x).collect::<Vec<_>>();
    assert_eq!((other.dq, other.dk, other.dv), (times(&one.dq), times(&one.dk), one.dv));
}

/// Heads in another order: the same gradients in that order, bit by bit.
#[test]
fn heads_in_another_order() {
    let shape = AttentionShape::new(1, 4, 90, 16).kv_heads(2).q_len(70).value_dim(8);
    let case = Case::new(shape).pattern(Causal);
    let (tensors, dout): (Tensors<f32, f32>, _) = (case.tensors(), drawn_dout::<f32>(&case));
    let halves = |x: &[f32]| [&x[x.len() / 2..], &x[..x.len() / 2]].concat();
    let mut turned = tensors.clone();
    (turned.q, turned.k, turned.v) = (halves(&tensors.q), halves(&tensors.k), halves(&tensors.v));
    let one = run(&case, &tensors, &dout);
    let other = run(&case, &turned, &halves(&dout));
    assert_eq!((other.dq, other.dk, other.dv), (halves(&one.dq), halves(&one.dk), halves(&one.dv)));
}

/// A row whose every key has a mask of f32::MIN, or two that meet, has the gradients of the mean of its values, as one of -1e9 has; and the weights
/// of a mean.
#[test]
fn rows_of_masks_have_the_gradients_of_a_mean() {
    // Two biases need more buffers than a device promises: the other mask is a text.
    let text = "fn mask_score(pairs: Pairs, s: vec4<f32>) -> vec4<f32> { return s - select(vec4(0.0), vec4(3e38), pairs.i == 1u); }";
    let mask = Custom::adds("mask", text, |s, at| if at.i == 1 { s - f64::from(3e38f32) } else { s });
    let score = Score::new().bias(BiasStrides::broadcast([1, 1, 3, 4])).with(mask);
    let attention = AttentionShape::new(1, 1, 3, 1).kv_len(4).score(score);
    let (k, v) = ([0.5f32, -1.0, 2.0, 0.25], [1.0f32, 2.0, 4.0, 8.0]);
    let bias = [[f32::MIN; 4], [f32::MIN; 4], [-1e9; 4]].concat();
    let inputs = Inputs::new(&[0.0f32; 3], &k, &v).tensor("bias", &bias);
    for i in 0..3 {
        let mut dout = [0.0f32; 3];
        dout[i] = 1.0;
        let gpu = gpu_with(Default::default());
        let got = gpu.attention_backward_with::<_, _, _, f32>(&attention, &inputs, &dout, &Full, &["bias"]);
        let got = got.unwrap_or_else(|e| panic!("{e}"));
        let ds = v.map(|v| (v - 3.75) / 4.0);
        let dq = ds.iter().zip(k).map(|(ds, k)| ds * k).sum::<f32>();
        assert!((got.dq[i] - dq).abs() < 1e-6, "query {i}: {got:?}");
        let d_bias = &got.tensor("bias").expect("it was asked for")[4 * i..][..4];
        for ((dv, d_bias), ds) in got.dv.iter().zip(d_bias).zip(ds) {
            assert!((dv - 0.25).abs() < 1e-6 && (d_bias - ds).abs() < 1e-6, "query {i}: {got:?}");
        }
        let (rows, options) = ([Position { batch: 0, head: 0, i }], WeightsOptions::default());
        let weights = gpu.attention_weights(&attention, &inputs, &Full, &rows, options);
        let weights = weights.unwrap_or_else(|e| panic!("{e}")).weights.expect("asked for by default");
        assert!(weights.iter().all(|p| (p - 0.25).abs() < 1e-6), "query {i}: {weights:?}");
    }
}
