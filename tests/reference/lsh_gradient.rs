//! The gradients of LSH attention in the reference against central differences of its own forward pass, the buckets being constants.

use rayon::prelude::*;
use wgpu_attention::reference::{self, Counter, Kind, lsh_gradient, lsh_with_buckets};
use wgpu_attention::{
    Attention, AttentionShape, BiasStrides, Buckets, LshInputs, LshOptions, Score, Sinks, Temperature,
};

/// A power of two, so that x + STEP and x - STEP are exact for what is drawn.
const STEP: f32 = 1.0 / 65_536.0;

struct Case {
    attention: Attention,
    options: LshOptions,
    qk: Vec<f32>,
    v: Vec<f32>,
    dout: Vec<f32>,
    key_mask: Option<Vec<bool>>,
    tensors: Vec<(&'static str, Vec<f32>)>,
    buckets: Vec<u32>,
}

impl Case {
    /// qk and v in multiples of 2^-10; a mask hides every fourth key; a bias removes some pairs.
    fn new(score: Score, options: LshOptions, seed: u64) -> Self {
        let attention = AttentionShape::new(2, 2, 11, 3).value_dim(2).score(score);
        let drawn = reference::random::<f32, f32>(&attention, Kind::Normal, seed).unwrap();
        let grid = |x: &[f32]| x.iter().map(|x| (x * 1024.0).round() / 1024.0).collect::<Vec<_>>();
        let numbers = Counter::new(seed, 40);
        let dout = (0..attention.len_out()).map(|n| numbers.normal(n as u64) as f32).collect();
        let key_mask = options.key_mask.then(|| (0..22).map(|n| n % 4 != 1).collect());
        let of_term = |tensor: wgpu_attention::TermTensor| {
            let mut values = drawn.inputs().get(tensor.name).unwrap().to_vec();
            if tensor.name == "bias" {
                values.iter_mut().step_by(7).for_each(|bias| *bias = f32::NEG_INFINITY);
            }
            (tensor.name, values)
        };
        let tensors = attention.score.tensors(&attention.shape).into_iter().map(of_term).collect();
        let (qk, v) = (grid(drawn.inputs().q), grid(drawn.inputs().v));
        let mut case = Self { attention, options, qk, v, dout, key_mask, tensors, buckets: vec![] };
        case.buckets =
            reference::lsh_buckets(&case.attention, &case.options, &case.inputs(&case.qk, &case.v))
                .unwrap()
                .buckets;
        case
    }

    fn inputs<'a>(&'a self, qk: &'a [f32], v: &'a [f32]) -> LshInputs<'a, f32> {
        let inputs = LshInputs::new(qk, v).key_mask(self.key_mask.as_deref());
        self.tensors.iter().fold(inputs, |inputs, (name, values)| inputs.tensor(name, values))
    }

    /// sum(out * dout).
    fn loss(&self, qk: &[f32], v: &[f32]) -> f64 {
        let out = lsh_with_buckets(&self.attention, &self.options, &self.inputs(qk, v), &self.buckets);
        out.unwrap().out.iter().zip(&self.dout).map(|(o, d)| o * f64::from(*d)).sum()
    }

    /// Every element of both gradients against (loss(x + h) - loss(x - h)) / 2h.
    #[track_caller]
    fn check(&self) {
        let inputs = self.inputs(&self.qk, &self.v);
        let exact = lsh_gradient(&self.attention, &self.options, &inputs, &self.dout, &self.buckets).unwrap();
        let moved = |of: &[f32], n: usize, step: f32| {
            let mut moved = of.to_vec();
            moved[n] += step;
            moved
        };
        let slope = |up: f64, down: f64| (up - down) / f64::from(2.0 * STEP);
        let by_qk = |n| {
            let at = |step| self.loss(&moved(&self.qk, n, step), &self.v);
            slope(at(STEP), at(-STEP))
        };
        let by_v = |n| {
            let at = |step| self.loss(&self.qk, &moved(&self.v, n, step));
            slope(at(STEP), at(-STEP))
        };
        compare("dqk", &exact.dqk, by_qk);
        compare("dv", &exact.dv, by_v);
    }
}

#[track_caller]
fn compare(name: &str, gradient: &[f64], by_differences: impl Fn(usize) -> f64 + Sync) {
    let off = |n: usize| ((by_differences(n) - gradient[n]).abs(), n);
    let (worst, n) = (0..gradient.len()).into_par_iter().map(off).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    assert!(worst < 1e-8, "{name}, element {n}: {} by differences, {}", by_differences(n), gradient[n]);
    assert!(gradient.iter().any(|x| x.abs() > 1e-2), "{name} is all but 0");
}

fn options() -> LshOptions {
    LshOptions::new(3, 4, 4).self_penalty(-0.5)
}

#[test]
fn every_option() {
    let all = [
        options(),
        options().chain_rounds(false).causal(true),
        options().wrap(false).look_back(0).look_ahead(1),
        options().within_bucket(true),
        options().count_once(true),
        options().count_once(true).within_bucket(true).look_back(2),
        options().key_mask(true),
        options().key_mask(true).causal(true).count_once(true),
        options().rounds(1).chunk(11),
        options().self_penalty(-1e5),
        options().norm_eps(0.5),
        options().norm_eps(1e-6).buckets(vec![2, 4]),
    ];
    for (seed, options) in all.into_iter().enumerate() {
        Case::new(Score::new().scale(0.8), options, seed as u64).check();
    }
}

#[test]
fn every_term_of_the_score() {
    let bias = BiasStrides::broadcast([2, 2, 11, 11]);
    let scores = [
        Score::new().scale(-0.7),
        Score::new().softcap(0.8),
        Score::new().alibi(),
        Score::new().with(Temperature),
        Score::new().with(Buckets::new(8, 20).bidirectional(true)),
        Score::new().bias(bias),
        Score::new().with(Sinks),
        Score::new().softcap(2.0).with(Temperature).bias(bias).with(Sinks),
    ];
    for (n, score) in scores.into_iter().enumerate() {
        Case::new(score, options().count_once(n % 2 == 0).norm_eps(0.25), 7 + n as u64).check();
    }
}

/// Without an eps a zero vector is a key of 0 whose norm has no derivative: it gets what a query gets, here by hand.
#[test]
fn a_zero_vector_has_no_gradient_as_a_key() {
    let mut case = Case::new(Score::new(), options().rounds(1).chunk(11), 3);
    case.qk[..3].fill(0.0);
    let inputs = case.inputs(&case.qk, &case.v);
    let exact = lsh_gradient(&case.attention, &case.options, &inputs, &case.dout, &case.buckets).unwrap();
    // Moved as a query, and as a key, by the same small step: what differs is of the order of the key's length, 1.
    let mut want = [0.0; 3];
    let x = |j: usize| case.qk[3 * j..][..3].iter().map(|&x| f64::from(x));
    let dot = |j: usize| -> f64 {
        let row = |i: usize| case.v[2 * i..][..2].iter();
        row(j).zip(&case.dout[..2]).map(|(v, d)| f64::from(*v) * f64::from(*d)).sum()
    };
    // All products with a zero query are 0; its own key scores the penalty.
    let weight = |j: usize| if j == 0 { (-0.5f64).exp() } else { 1.0 };
    let l: f64 = (0..11).map(weight).sum();
    let mean: f64 = (0..11).map(|j| weight(j) / l * dot(j)).sum();
    for j in 1..11 {
        let norm = x(j).map(|x| x * x).sum::<f64>().sqrt();
        let scale = f64::from(case.attention.scale_value());
        want.iter_mut().zip(x(j)).for_each(|(want, x)| *want += scale * (dot(j) - mean) / l * x / norm);
    }
    for (got, want) in exact.dqk[..3].iter().zip(want) {
        assert!((got - want).abs() < 1e-12, "{got} instead of {want}");
    }
}
