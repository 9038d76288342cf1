//! The bound against a simulated kernel: never exceeded, and never far above what f32 arithmetic can do.

use super::rounding::{Device, Mode};
use super::simulator::{Walk, attention_row};
use rayon::prelude::*;
use wgpu_attention::reference::{self, Counter, Kind, Position, Tensors, WeightFormat};
use wgpu_attention::{
    Attention, AttentionShape, BiasStrides, Buckets, Causal, Element, ElementType, Full, Inputs, Pattern,
    Relative, Score, Segments, Sinks, Storage, Temperature,
};

use ElementType::{Bf16, F16, F32};

/// A random configuration of everything that the bound depends on; `seed` reproduces it.
#[derive(Debug, Clone)]
pub(super) struct Config {
    pub(super) seed: u64,
    pub(super) attention: Attention,
    pub(super) kind: Kind,
    bias: Option<Bias>,
    pub(super) causal: bool,
    pub(super) parts: usize,
    pub(super) tile: usize,
    reversed: bool,
    /// q, k and v times 2^-13, which are subnormal in f16 in good part; the scale makes up for it.
    subnormal: bool,
    /// Weights in f16.
    halves: bool,
}

/// What is added to N(0, 4) biases.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bias {
    Plain,
    Removing,
    Some(f32),
    All(f32),
    /// -1e30 on some keys, -1e9 on all others.
    TwoLevels,
}

fn pick<T: Copy>(draw: &Counter, n: u64, list: &[T]) -> T {
    list[(draw.bits(n) % list.len() as u64) as usize]
}

impl Config {
    fn random(seed: u64, len: usize) -> Self {
        Self::sized(seed, len, 3)
    }

    /// With up to `len` keys.
    pub(super) fn sized(seed: u64, len: usize, q_len: usize) -> Self {
        let draw = Counter::new(seed, 50);
        let heads = pick(&draw, 0, &[1, 2, 4]);
        // Of short rows some terms of the bound are all there is.
        let len = if draw.bits(19).is_multiple_of(3) { len.min(3) } else { len };
        let len = 1 + (draw.bits(1) % len as u64) as usize;
        let shape = AttentionShape::new(1, heads, len, pick(&draw, 2, &[1, 3, 7, 16, 32, 64]))
            .q_len(q_len)
            .kv_heads(pick(&draw, 3, &[1, heads]))
            .value_dim(pick(&draw, 4, &[1, 2, 5]));
        let input = pick(&draw, 5, &[F32, F32, F16, Bf16]);
        let storage = Storage::all(input).out(pick(&draw, 6, &[F32, F32, F16, Bf16]));
        let storage = if draw.bits(23).is_multiple_of(6) { storage.q(F32) } else { storage };
        let huge = pick(&draw, 12, &[-1e4, -1e9, -1e30, f32::MIN]);
        let bias = match draw.bits(13) % 12 {
            0 => Some(Bias::Plain),
            1 => Some(Bias::Removing),
            2 => Some(Bias::Some(huge)),
            3 => Some(Bias::All(huge)),
            4 => Some(Bias::TwoLevels),
            _ => None,
        };
        let subnormal = draw.bits(20).is_multiple_of(8);
        let score = Self::score(&draw, &shape, bias, subnormal);
        let halves = (storage.q, storage.kv) == (F16, F16) && draw.bits(21).is_multiple_of(2);
        // Matrices do not drop.
        let rate = pick(&draw, 29, &[0.1, 0.5, 0.9]);
        let drops = !halves && draw.bits(28).is_multiple_of(4);
        let score = if drops { score.dropout(rate, seed) } else { score };
        let kind = pick(&draw, 14, &Kind::ALL);
        let tile = pick(&draw, 15, &[1, 4, 16, 64, 128]);
        let (parts, reversed) = (pick(&draw, 16, &[1, 1, 2, 3]), draw.bits(17).is_multiple_of(2));
        Self {
            seed,
            attention: shape.storage(storage).score(score),
            kind,
            bias,
            causal: draw.bits(18).is_multiple_of(4),
            parts,
            tile,
            reversed,
            subnormal,
            halves,
        }
    }

    fn score(draw: &Counter, shape: &AttentionShape, bias: Option<Bias>, subnormal: bool) -> Score {
        let mut score = Score::new();
        if draw.bits(7).is_multiple_of(4) {
            score = score.alibi();
        }
        if draw.bits(8).is_multiple_of(4) {
            score = score.scale(pick(draw, 9, &[0.01, 1.0, -0.5, 8.0, 300.0]));
        }
        if draw.bits(10).is_multiple_of(4) {
            score = score.softcap(pick(draw, 11, &[0.5, 3.0, 50.0, 3e6]));
        }
        if draw.bits(22).is_multiple_of(6) {
            score = score.with(Temperature);
        }
        if draw.bits(23).is_multiple_of(6) {
            score = score.with(Buckets::new(8, 20).bidirectional(true));
        }
        if draw.bits(27).is_multiple_of(5) {
            score = score.with(Sinks);
        }
        if draw.bits(26).is_multiple_of(5) {
            let relative = Relative::new(shape.kv_len as i32 - 1, shape.q_len + shape.kv_len - 1);
            let [u, w] = [24, 25].map(|n| !subnormal && draw.bits(n).is_multiple_of(2));
            score = score.with(relative.u(u).w(w));
        }
        if draw.bits(27).is_multiple_of(5) {
            score = score.with(Segments);
        }
        if bias.is_some() {
            score = score.bias(BiasStrides::broadcast([1, 1, shape.q_len, shape.kv_len]));
        }
        if subnormal {
            let scale = score.scale_value(shape.head_dim);
            score = score.scale(scale * 2f32.powi(26));
        }
        score
    }

    pub(super) fn tensors<Q: Element, KV: Element>(&self) -> Tensors<Q, KV> {
        let mut tensors = reference::random::<Q, KV>(&self.attention, self.kind, self.seed).unwrap();
        if self.subnormal {
            shrink(&mut tensors.q);
            shrink(&mut tensors.k);
            shrink(&mut tensors.v);
        }
        let draw = Counter::new(self.seed, 51);
        for (n, x) in tensors.term_mut("bias").into_iter().flatten().enumerate() {
            let one_of_three = draw.bits(n as u64).is_multiple_of(3);
            match self.bias {
                Some(Bias::Removing) if one_of_three => *x = f32::NEG_INFINITY,
                Some(Bias::Some(huge)) if one_of_three => *x = (*x + huge).max(f32::MIN),
                Some(Bias::All(huge)) => *x = (*x + huge).max(f32::MIN),
                Some(Bias::TwoLevels) => *x += if one_of_three { -1e30 } else { -1e9 },
                _ => {}
            }
        }
        tensors
    }

    /// All keys, dealt to the parts, ascending or descending.
    pub(super) fn walk(&self) -> Vec<Vec<u32>> {
        let mut keys: Vec<u32> = (0..self.attention.shape.kv_len as u32).collect();
        if self.reversed {
            keys.reverse();
        }
        (0..self.parts as u32)
            .map(|part| keys.iter().copied().filter(|j| j / 8 % self.parts as u32 == part).collect())
            .collect()
    }

    /// The largest error / bound over all modes, and how many elements nothing was promised for.
    fn worst<Q: Element, KV: Element>(&self) -> (f64, f64, usize) {
        let (tensors, shape) = (self.tensors::<Q, KV>(), &self.attention.shape);
        let inputs = tensors.inputs();
        let pattern: &dyn Pattern = if self.causal { &Causal } else { &Full };
        let (mut worst_out, mut worst_lse, mut unspecified) = (0.0f64, 0.0f64, 0);
        for i in 0..shape.q_len {
            let at = Position { batch: 0, head: shape.heads - 1, i };
            let walk = self.walk();
            let order = |_: Position| walk.clone();
            // In natural order the reference takes tiles for what they are: 16 to 128 keys, each added up by itself.
            let natural = self.parts == 1 && !self.reversed && self.tile >= 16;
            let order: Option<reference::Walk<'_>> = if natural { None } else { Some(&order) };
            let format = if self.halves { WeightFormat::F16 } else { WeightFormat::F32 };
            let row = reference::row_of_format(&self.attention, &inputs, pattern, at, order, format).unwrap();
            let site = wgpu_attention::Site { batch: 0, head: at.head, extent: shape.extent() };
            let kept: Vec<Vec<u32>> = walk
                .iter()
                .map(|part| part.iter().copied().filter(|&j| pattern.keep(&site, i, j as usize)).collect())
                .collect();
            for (mode, flush) in Mode::ALL.into_iter().flat_map(|mode| [(mode, false), (mode, true)]) {
                let mut device = Device::new(mode, flush, self.seed);
                let walk = Walk {
                    parts: &kept,
                    tile: self.tile,
                    center: &row.out,
                    halves: self.halves,
                    base_e: !self.attention.score.is_plain(),
                    sink: inputs.get("sinks").map(|sinks| sinks[at.head].into()),
                    dropout: self.attention.score.dropout_term().map(|dropout| (*dropout, at)),
                };
                let (out, lse) = attention_row(&mut device, &self.attention, &inputs, at, walk);
                let elements =
                    out.iter().zip(&row.out).zip(&row.bound).map(|((got, exact), bound)| (got, exact, bound));
                for (got, exact, &bound) in elements.chain([(&lse, &row.lse, &row.lse_bound)]) {
                    assert!(!bound.is_nan() && bound >= 0.0);
                    if bound == f64::INFINITY {
                        unspecified += 1;
                        continue;
                    }
                    let error = (got - exact).abs();
                    let is_lse = std::ptr::eq(exact, &row.lse);
                    let what = if is_lse { "lse" } else { "out" };
                    assert!(
                        got.is_finite() && error <= bound,
                        "{what}: got {got:e}, exact {exact:e}, bound {bound:e}; {mode:?} {flush} {at} {self:?}"
                    );
                    let ratio = if error == 0.0 { 0.0 } else { error / bound };
                    let worst = if is_lse { &mut worst_lse } else { &mut worst_out };
                    *worst = worst.max(ratio);
                }
            }
        }
        (worst_out, worst_lse, unspecified)
    }

    pub(super) fn has(&self, term: &str) -> bool {
        self.attention.score.term(term).is_some()
    }

    fn worst_of_any_type(&self) -> (f64, f64, usize) {
        let Storage { q, kv, .. } = self.attention.storage;
        match (q, kv) {
            (F32, F32) => self.worst::<f32, f32>(),
            (F16, F16) => self.worst::<half::f16, half::f16>(),
            (Bf16, Bf16) => self.worst::<half::bf16, half::bf16>(),
            (F32, F16) => self.worst::<f32, half::f16>(),
            (F32, Bf16) => self.worst::<f32, half::bf16>(),
            other => panic!("{other:?} is not drawn"),
        }
    }
}

/// A bound is at most 20 times what the worst of 12 rounding behaviours reaches: a wider one would follow a weakness of the
/// kernel, or promise nothing.
pub(super) const LEAST: f64 = 0.05;

/// Times 2^-13.
fn shrink<E: Element>(tensor: &mut [E]) {
    tensor.iter_mut().for_each(|x| *x = E::from_f64(Into::<f64>::into(*x) * 2f64.powi(-13)));
}

pub(super) fn largest(ratios: impl Iterator<Item = f64>) -> f64 {
    ratios.fold(0.0, f64::max)
}

/// `WGPU_ATTENTION_BOUND_CASES` runs more.
#[test]
fn no_rounding_exceeds_the_bound() {
    let cases = std::env::var("WGPU_ATTENTION_BOUND_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(2000);
    let configs: Vec<Config> = (0..cases).map(|seed| Config::random(seed, 150)).collect();
    let results: Vec<_> = configs.par_iter().map(Config::worst_of_any_type).collect();

    println!("{cases} configurations, 12 rounding behaviours each: worst error / bound");
    for kind in Kind::ALL {
        let of_kind = || {
            configs.iter().zip(&results).filter(|(config, _)| config.kind == kind).map(|(_, result)| result)
        };
        let (out, lse) = (largest(of_kind().map(|r| r.0)), largest(of_kind().map(|r| r.1)));
        println!("  {:8} out {out:.4} lse {lse:.4}", format!("{kind:?}"));
        assert!(out > LEAST && lse > LEAST, "{kind:?}: a bound that nothing comes near is vacuous");
    }
    for (name, is) in [
        ("softcap", 0),
        ("bias", 1),
        ("alibi", 2),
        ("parts", 3),
        ("f16 out", 4),
        ("plain f32", 5),
        ("the same, 32 keys or more", 6),
        ("weights in f16, out f32", 7),
        ("temperature", 8),
        ("q f32, k and v in 16 bits", 9),
        ("relative", 10),
        ("sinks", 11),
        ("segments", 12),
        ("dropout", 13),
    ] {
        let has = |config: &Config| match is {
            0 => config.has("softcap"),
            1 => config.bias == Some(Bias::Plain),
            2 => config.has("alibi"),
            3 => config.parts > 1,
            4 => config.attention.storage.out == F16,
            7 => config.halves && config.attention.storage.out == F32,
            8 => config.has("temperature"),
            10 => config.has("relative"),
            11 => config.has("sinks"),
            12 => config.has("segments"),
            13 => config.has("dropout"),
            9 => config.attention.storage.q != config.attention.storage.kv,
            _ => {
                let long = is == 5 || config.attention.shape.kv_len >= 32 && !config.causal;
                let f32 = config.attention.storage == Storage::all(F32);
                long && f32 && config.attention.score.is_plain() && config.parts == 1
            }
        };
        let with =
            || configs.iter().zip(&results).filter(|(config, _)| has(config)).map(|(_, result)| result);
        let (out, lse) = (largest(with().map(|r| r.0)), largest(with().map(|r| r.1)));
        println!("  {name:9} out {out:.4} lse {lse:.4}");
        assert!(out > LEAST && lse > LEAST, "{name}: a bound that nothing comes near is vacuous");
    }
    let unspecified: usize = results.iter().map(|r| r.2).sum();
    println!("  elements without a promise: {unspecified}");
    assert_eq!(unspecified, 0, "finite inputs of ordinary size always have a bound");
}

#[test]
fn long_rows_stay_within_the_bound() {
    let configs: Vec<Config> = (0..12)
        .map(|seed| {
            let mut config = Config::random(seed, 1);
            config.attention = AttentionShape::new(1, 1, 4097, 16).q_len(1).value_dim(2).into();
            let kind = pick(&Counter::new(seed, 0), 0, &Kind::ALL);
            Config { kind, bias: None, causal: false, subnormal: false, halves: false, ..config }
        })
        .collect();
    let worst = largest(
        configs.par_iter().map(|config| config.worst::<f32, f32>().0).collect::<Vec<_>>().into_iter(),
    );
    println!("4,097 keys: worst error / bound {worst:.4}");
    assert!(worst > LEAST);
}

/// A row and its bound for one query of given scores: d = 1, q = 1, k = scores.
fn row_of_scores(scores: &[f32], values: &[f32], bias: Option<&[f32]>) -> reference::Row {
    let shape = AttentionShape::new(1, 1, scores.len(), 1).q_len(1);
    let inputs = Inputs::new(&[1.0f32], scores, values);
    let (score, inputs) = match bias {
        Some(bias) => {
            let strides = BiasStrides::broadcast([1, 1, 1, scores.len()]);
            (Score::new().bias(strides), inputs.tensor("bias", bias))
        }
        None => (Score::new(), inputs),
    };
    reference::row(shape.score(score), &inputs, &Full, Position { batch: 0, head: 0, i: 0 }, None).unwrap()
}

#[test]
fn equal_values_leave_only_rounding() {
    let row = row_of_scores(&[0.0, 100.0, -3.0], &[7.0; 3], None);
    assert_eq!(row.out, [7.0]);
    assert!(row.bound[0] < 20.0 * 7.0 * 2f64.powi(-23), "{row:?}");
}

#[test]
fn huge_negative_biases_have_finite_bounds() {
    for huge in [-1e9, -1e30, f32::MIN] {
        // On some keys: the others are as certain as ever.
        let row = row_of_scores(&[0.0, 1.0, 2.0], &[1.0, 2.0, 3.0], Some(&[0.0, huge, 0.0]));
        assert!(row.bound[0] < 1e-5 && row.lse_bound < 1e-5, "{huge}: {row:?}");
        // On all keys: any mean of the values may come out, and lse is known to a few roundings of the bias.
        let row = row_of_scores(&[0.0, 1.0, 2.0], &[1.0, 2.0, 3.0], Some(&[huge; 3]));
        assert!(row.bound[0] < 2.1, "{huge}: {row:?}");
        assert!(row.lse_bound <= 1e-5 * f64::from(huge).abs(), "{huge}: {row:?}");
    }
    // -1e30 against -1e9: not reachable, however uncertain both are.
    let row = row_of_scores(&[0.0, 1.0, 2.0], &[1.0, 2.0, 1e6], Some(&[-1e9, -1e9, -1e30]));
    assert!(row.bound[0] < 1.1, "{row:?}");
}

#[test]
fn nothing_is_promised_where_f32_overflows() {
    for (scores, values) in [([f32::MAX, 1.0], [1.0, 1.0]), ([0.0, 1.0], [f32::MAX, 1.0])] {
        let row = row_of_scores(&scores, &values, None);
        assert_eq!(row.bound, [f64::INFINITY], "{scores:?} {values:?}");
    }
}

#[test]
fn rows_of_inputs_that_are_not_finite_must_not_be_finite() {
    for (scores, values, bias) in [
        ([f32::NAN, 1.0], [1.0, 1.0], 0.0),
        ([f32::INFINITY, 1.0], [1.0, 1.0], 0.0),
        ([f32::NEG_INFINITY, 1.0], [1.0, 1.0], 0.0),
        ([0.0, 1.0], [f32::NAN, 1.0], 0.0),
        ([0.0, 1.0], [f32::INFINITY, 1.0], 0.0),
        ([0.0, 1.0], [1.0, 1.0], f32::INFINITY),
        ([0.0, 1.0], [1.0, 1.0], f32::NAN),
    ] {
        let row = row_of_scores(&scores, &values, Some(&[bias, 0.0]));
        assert!(row.out[0].is_nan() && row.lse.is_nan(), "{scores:?} {values:?} {bias}: {row:?}");
        assert_eq!((row.bound[0], row.lse_bound), (0.0, 0.0), "{scores:?} {values:?} {bias}");
    }
}

#[test]
fn ties_of_exact_zeros_are_no_rescales() {
    let tied = row_of_scores(&[0.0; 1000], &[1.0; 1000], None);
    let sorted: Vec<f32> = (0..1000).map(|n| n as f32 / 1000.0).collect();
    let rising = row_of_scores(&sorted, &[1.0; 1000], None);
    assert!(rising.bound[0] > 1.5 * tied.bound[0], "{} against {}", rising.bound[0], tied.bound[0]);
}

#[test]
fn a_wrong_order_is_refused() {
    let shape = AttentionShape::new(1, 1, 3, 1).q_len(1);
    let inputs = Inputs::new(&[1.0f32], &[1.0f32; 3], &[1.0; 3]);
    let at = Position { batch: 0, head: 0, i: 0 };
    for (walk, message) in [(vec![vec![0, 1]], "no key 2"), (vec![vec![0, 1, 2], vec![1]], "key 1 twice")] {
        let order = move |_| walk.clone();
        let error = reference::row(shape, &inputs, &Full, at, Some(&order)).unwrap_err().to_string();
        assert!(error.starts_with("order: ") && error.contains(message), "{error}");
    }
}
