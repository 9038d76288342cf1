//! The errors of a row's scores, and what they make of its weights: sections 1, 2 and 5 of the derivation in `bound.rs`.

use super::call::Call;
use super::exact::Exact;
use super::rounding::{E, HUGE, TINY, U, gamma, min_normal};
use crate::score::Known;
use crate::{Attention, KernelPath, Position};
use std::f64::consts::LOG2_E;

/// Second-order terms: a relative error r is an error of -ln(1 - r) <= r (1 + 2^-10) in the exponent, for r < 2^-10.
const SECOND_ORDER: f64 = 1.0 + 1.0 / 1024.0;

/// How a kernel keeps the weights between the softmax and their product with the values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WeightFormat {
    /// The largest relative error of rounding a weight.
    pub rounding: f64,
    /// Its largest absolute error where the weight is below the normal numbers, in units of exp(0) at the row's maximum.
    pub smallest: f64,
    /// How far, in nats, a score may be above the maximum that the kernel still uses.
    pub late: f64,
    /// Whether the sums of each tile of keys are made by themselves before they are added.
    pub tiles: bool,
}

impl WeightFormat {
    /// Not rounded: the scalar path.
    pub const F32: Self = Self { rounding: 0.0, smallest: 0.0, late: 0.0, tiles: true };
    /// 2^7 times the weight in f16, the nearer neighbour, maxima up to 8 in base 2 late: the cooperative path.
    pub const F16: Self = Self {
        rounding: 1.0 / 2048.0,
        smallest: 1.0 / 2_097_152.0,
        late: 8.0 * std::f64::consts::LN_2,
        tiles: false,
    };

    /// Of a kernel.
    pub const fn of(path: KernelPath) -> Self {
        match path {
            KernelPath::Scalar => Self::F32,
            KernelPath::Cooperative => Self::F16,
        }
    }
}

impl Default for WeightFormat {
    fn default() -> Self {
        Self::F32
    }
}

/// What a row's gradients and its output share.
pub(super) struct RowErrors {
    /// M+.
    pub(super) top: f64,
    /// R.
    pub(super) rises: usize,
    /// gamma_K.
    pub(super) sum_error: f64,
    pub(super) weights: Weights,
}

impl RowErrors {
    /// Of a row that has keys or a sink; `None` where nothing can be promised. `parts` walks the places of `exact.keys`,
    /// each once; `chain` additions is the longest chain of a sum over them.
    pub(super) fn new(
        call: &Call<'_>,
        at: Position,
        exact: &Exact,
        parts: &[Vec<usize>],
        chain: usize,
        format: WeightFormat,
    ) -> Option<Self> {
        Self::of_scores(exact, score_errors(call, at, exact), call.attention, (parts, chain), format)
    }

    /// The same, of scores whose errors are known. `walk`: the parts and the chain.
    pub(super) fn of_scores(
        exact: &Exact,
        mut deltas: Vec<f64>,
        attention: &Attention,
        (parts, chain): (&[Vec<usize>], usize),
        format: WeightFormat,
    ) -> Option<Self> {
        let scores: Vec<f64> = exact.logits().collect();
        deltas.extend(exact.sink.map(|sink| if sink == 0.0 { 0.0 } else { TINY }));
        // A sink is a key more, behind the others here and before them in the walk.
        let mut parts = parts.to_vec();
        if let (Some(_), Some(first)) = (exact.sink, parts.first_mut()) {
            first.insert(0, exact.keys.len());
        }
        let chain = chain + usize::from(exact.sink.is_some());
        let base_2 = attention.score.is_plain();
        if deltas.iter().any(|delta| !delta.is_finite()) || (base_2 && spread_overflows(&scores)) {
            return None;
        }
        let rises = records(&scores, &deltas, &parts) + 2 * (parts.len() - 1);
        let sum_error = gamma(chain + rises + 2 + 10 * (parts.len() - 1));
        if !sum_error.is_finite() {
            return None;
        }
        let top = scores.iter().zip(&deltas).map(|(s, delta)| s + delta).fold(f64::NEG_INFINITY, f64::max);
        let errors = scores.iter().zip(&deltas);
        let errors: Vec<f64> =
            errors.map(|(s, &delta)| weight_error(top - s, delta, rises, format, base_2)).collect();
        Some(Self { top, rises, sum_error, weights: Weights::new(exact, &errors, top, format) })
    }
}

/// What the error of a score needs to know of the query.
pub(super) struct Query {
    elements: Vec<f64>,
    /// Whether scale log2(e) or an element times it may overflow.
    overflows: bool,
}

impl Query {
    pub(super) fn new(call: &Call<'_>, at: Position) -> Self {
        let elements = call.q(at);
        let largest = elements.iter().fold(1.0f64, |max, q| max.max(q.abs()));
        let overflows = f64::from(call.attention.scale_value()).abs() * LOG2_E * largest >= HUGE;
        Self { elements, overflows }
    }
}

/// Section 1, `product`: the error of scale q . k_j.
pub(super) fn product_error(call: &Call<'_>, q: &Query, at: Position, j: u32) -> f64 {
    let scale = f64::from(call.attention.scale_value()).abs();
    let storage = call.attention.storage;
    let [smallest_q, smallest_k] = [storage.q, storage.kv].map(min_normal);
    let (mut condition, mut flushed, mut sum) = (0.0, 0.0, 0.0);
    for (&q, k) in q.elements.iter().zip(call.k(at, j)) {
        let size = (q * k).abs();
        condition += size;
        flushed += if q.abs() < smallest_q || k.abs() < smallest_k { size } else { 0.0 };
        sum += k.abs() + q.abs();
    }
    let condition = scale * condition;
    if q.overflows || condition * LOG2_E >= HUGE {
        return f64::INFINITY;
    }
    // A sum of products that are all 0 is exact.
    if condition == 0.0 {
        return 0.0;
    }
    // A factor that is flushed takes the product with it.
    let flushed = if scale * LOG2_E < 2.0 * TINY { condition } else { scale * flushed };
    let d = q.elements.len();
    gamma(d + 3) * condition + flushed + TINY * (2.0 * d as f64 + sum)
}

/// Section 1: delta of each key.
pub(super) fn score_errors(call: &Call<'_>, at: Position, exact: &Exact) -> Vec<f64> {
    let q = Query::new(call, at);
    let error = |(&j, &product): (&u32, &f64)| score_error(call, &q, at, j, product);
    exact.keys.iter().zip(&exact.products).map(error).collect()
}

/// Section 1: delta of a key. Not finite where nothing can be said.
fn score_error(call: &Call<'_>, q: &Query, at: Position, j: u32, product: f64) -> f64 {
    let product = Known { score: product, error: product_error(call, q, at, j) };
    call.known(product, at, j).error
}

/// Whether score - maximum may overflow in base 2.
fn spread_overflows(scores: &[f64]) -> bool {
    let each = || scores.iter().copied();
    let (low, high) = (each().fold(f64::INFINITY, f64::min), each().fold(f64::NEG_INFINITY, f64::max));
    (high - low) * LOG2_E * SECOND_ORDER > f64::from(f32::MAX)
}

/// How often the running maximum may rise: section 2, R without the merges.
fn records(scores: &[f64], deltas: &[f64], parts: &[Vec<usize>]) -> usize {
    let in_part = |part: &Vec<usize>| {
        let mut max = f64::NEG_INFINITY;
        part.iter()
            .filter(|&&n| {
                let record = scores[n] + deltas[n] > max;
                max = max.max(scores[n] - deltas[n]);
                record
            })
            .count()
    };
    parts.iter().map(in_part).sum()
}

/// Sections 2 and 5: epsilon_j of a key whose score, known within `delta`, is `below` M+.
pub(super) fn weight_error(below: f64, delta: f64, rises: usize, format: WeightFormat, base_2: bool) -> f64 {
    let subtractions = if base_2 { 2.0 * U } else { 4.0 * U };
    let x = below + delta + 2.0 * format.late;
    let exponentials = x * (subtractions + 2.0 * E * LOG2_E + E) + 3.0 * E * (1 + rises) as f64;
    (delta + exponentials) * SECOND_ORDER + format.rounding * (1.0 + 1.0 / 256.0)
}

/// ln sum exp(x), minus infinity for nothing. In the logarithm, for here weights may pass f64's range.
fn log_sum_exp(terms: impl Iterator<Item = f64> + Clone) -> f64 {
    let max = terms.clone().fold(f64::NEG_INFINITY, f64::max);
    if !max.is_finite() {
        return max;
    }
    max + terms.map(|x| (x - max).exp()).sum::<f64>().ln()
}

/// Section 3: what the errors of the scores make of the weights.
pub(super) struct Weights {
    /// w+_j, the largest share of key j: at most 1.
    pub(super) upper: Vec<f64>,
    /// dw_j; may be infinite.
    pub(super) error: Vec<f64>,
    /// Whether w+_j > exp(-40).
    reachable: Vec<bool>,
    /// Section 5: phi_D.
    lost: f64,
    /// max( ln sum p exp(epsilon), -ln D ).
    pub(super) lse_error: f64,
}

impl Weights {
    /// `top`: M+.
    fn new(exact: &Exact, errors: &[f64], top: f64, format: WeightFormat) -> Self {
        // ln p_j; with every score below -1e15 even f64 cannot tell lse from the maximum, hence the sum again.
        let logs: Vec<f64> = exact.logits().map(|s| s - exact.lse).collect();
        let total = log_sum_exp(logs.iter().copied());
        let terms = || logs.iter().map(|log| log - total).zip(errors);
        let highest = log_sum_exp(terms().map(|(log, error)| log + error));
        let lowest = log_sum_exp(terms().map(|(log, error)| log - error));
        let upper_log = |(log, error): (f64, &f64)| log + error - lowest;
        let error = |(log, error): (f64, &f64)| {
            if *error < 1.0 { (log - lowest).exp() * error.exp_m1() } else { (log + error - lowest).exp() }
        };
        Self {
            upper: terms().map(|term| upper_log(term).exp().min(1.0)).collect(),
            error: terms().map(error).collect(),
            reachable: terms().map(|term| upper_log(term) > -40.0).collect(),
            lost: format.smallest * (top - exact.lse - lowest).exp().min(1.0 + 1.0 / 256.0),
            lse_error: highest.max(-lowest),
        }
    }

    /// Section 5: what of the n-th key's weight its format may lose.
    pub(super) fn lost_of(&self, n: usize) -> f64 {
        self.lost.min(self.upper[n] + self.lost / 1024.0)
    }
}

/// How far wrong weights may move a mean: the lesser of B1 and B2.
#[derive(Clone, Copy, Default)]
pub(super) struct Shift {
    /// B1.
    moved: f64,
    /// B2, its two terms.
    range: f64,
    unreached: f64,
}

impl Shift {
    /// Adds the n-th key, so far from the mean.
    pub(super) fn add(&mut self, weights: &Weights, n: usize, distance: f64) {
        // One of the two is 0: no branch where time is spent.
        let (near, far) = if weights.reachable[n] { (1.0, 0.0) } else { (0.0, weights.upper[n]) };
        self.moved += weights.error[n] * distance;
        self.range = self.range.max(near * distance);
        self.unreached += far * distance;
    }

    pub(super) fn size(&self) -> f64 {
        // B1 is NaN where an infinite weight met a value that equals the mean; `min` then takes B2.
        self.moved.min(self.range + self.unreached)
    }
}
