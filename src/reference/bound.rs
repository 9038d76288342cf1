//! How far a correct kernel may be from the formula, per element of the output.
//!
//! A first-order error analysis in the manner of Higham (*Accuracy and Stability of Numerical Algorithms*, chapter 3)
//! of any blocked online softmax (Milakov 2018, Dao 2022) in base 2, evaluated in f64 from the inputs as they are
//! stored. It asks of the kernel what WGSL promises and no more:
//!
//! - +, -, *: either neighbour, u = 2^-23; so a chain of k operations has a factor within 1 +- gamma_k,
//!   gamma_k = k u / (1 - k u). Sums may be reassociated, fma may be split.
//! - exp2: 3 + 2|x| ULP, E = 2^-23 relative each (and a true result below 2^-200 comes out subnormal or 0, which
//!   the letter of the specification does not say where |x| is past 10^30); division 2.5 ULP; log: 3 ULP, or 2^-21
//!   = 4E absolute near 1.
//! - Subnormal numbers may be flushed to 0 wherever they turn up, also when a tensor is read or written:
//!   an absolute error of up to the smallest normal number, 2^-126 (2^-14 in f16).
//!
//! # 1. The score: |s^_j - s_j| <= delta_j
//!
//! With A_j = |scale| sum_c |q_c k_jc|, the condition of the product:
//!
//! ```text
//! product  gamma_{d+3} A_j             d products, d - 1 additions (one more with split sums), q times the factor,
//!                                      the factor scale log2(e) itself, rounded to f32
//!        + |scale| sum' |q_c k_jc|     sum' over what is subnormal in its storage and may be read as 0
//!        + 2^-126 (2 d + sum |k_jc|)   flushed products and partial sums; flushed elements of q times the factor
//! terms    as each term of the score derives for itself (`src/score/NAME.rs`): it takes the score and the error
//!          before it, and adds its own
//! clamp    u |s|                       at f32's end: a score is kept above f32::MIN, which says that a pair is left out
//! ```
//!
//! Where the score is scale q . k alone, it is kept in base 2 (the factor log2(e) is in q); with terms in base e.
//!
//! # 2. The weight: p^_j / p_j within exp(+-epsilon_j) but for a common factor
//!
//! With M+ = max_i (s_i + delta_i), no computed maximum m is above it, so x_j = M+ - s_j + delta_j is at least m -
//! s^_j. The weight of key j is exp2(s^_j - m_1) exp2(m_1 - m_2) ... : the exponents add up to at most x_j log2(e),
//! however many blocks raise the maximum. Whatever m is, it cancels.
//!
//! ```text
//! epsilon_j = delta_j + x_j (2 u + 2 E log2 e + E) + 3 E (1 + R)
//! ```
//!
//! 2u: the subtractions, with one to spare (base e: 4u, for the product with log2(e), which is rounded too); 2E log2 e: the
//! exp2; E: second-order terms; R: how often a maximum rises,
//! each time with one more exp2. R is counted as the strict records of the scores in walking order, a score counting
//! as a record when s + delta exceeds the largest s - delta before it, for rounding may reorder near ties.
//!
//! Parts merge by their maxima and sums, which are kept apart (never by a rounded lse): with m+ = max(m, m'), the
//! weights are exp2(m - m+) l and exp2(m' - m+) l'. That is two more exponentials, whose arguments belong to the same
//! sum of exponents: each part after the first adds 2 to R, and 10 roundings to K below.
//!
//! # 3. The output
//!
//! Let D = sum_j p_j exp(-epsilon_j), a lower bound of sum_j p^_j (with p summing to 1), w+_j = p_j exp(epsilon_j)
//! / D, dw_j = p_j (exp(epsilon_j) - 1) / D. Numerator and denominator add up the *same* p^, each with a factor
//! within 1 +- gamma_K: o^ - o = sum_j p^_j [(1 + eta_j)(v_j - o) + (eta_j - zeta_j) o] / sum p^_j (1 + zeta_j), so
//!
//! ```text
//! B_c = [ min(B1, B2) + gamma_K ( min(sum_j w+_j |v_jc|, max_j |v_jc|) + |o_c| ) ] / (1 - gamma_K)
//!     + sum_j' w+_j |v_jc| + (m + R + 2) 2^-124 (1 + max_j |v_jc|)
//! B1  = sum_j dw_j |v_jc - o_c|
//! B2  = max over reachable j of |v_jc - o_c| + sum over the others of w+_j |v_jc - o_c|
//! K   = n + R + 2 + 10 (parts - 1),   n = min(m, 128 + tiles)
//! ```
//!
//! K: n - 1 additions (a tile of up to 128 keys is added up by itself, then the tiles that have a key; with weights of 16 bits
//! n = m: matrix units add straight through), the product p v, a product per rescale; per merge the normalisation of the part (its
//! division, 2.5 ULP), four products with weights and sums and their additions. B2 holds because o^ is nearly a
//! mean of the v_j with *some* weights: it is what remains when the scores themselves are uncertain by more than 1,
//! as in a row whose every key has a bias of -1e9. A key is reachable if w+_j > exp(-40). sum': values that are
//! subnormal in their storage. The last term is for flushes: p_j, p_j v_j, a partial sum, each 2^-126, and a
//! rescale by a factor that is flushed, which loses what it multiplies, once a key; l >= 1 - 3E since the key at
//! the maximum is in it. Then the division by l, and the storage of the output:
//!
//! ```text
//! bound_c = B_c + (2.5 E + u + u_out)(|o_c| + B_c) + 2^-125
//!         + min(|o_c| + B_c, 2^-14) + 2^-24                          f16 only, if |o_c| - B_c < 2^-14
//! ```
//!
//! with u_out = [`ElementType::rounding`]; the second line for results that may be subnormal in f16.
//!
//! # 4. The log-sum-exp
//!
//! ```text
//! |lse^ - lse| <= max( ln sum_j p_j exp(epsilon_j), -ln D ) + gamma_K / (1 - gamma_K)
//!               + 4 E + 3 E ln(m + 1) + 3 u (|M| + |lse| + first term) + (m + 1) 2^-124
//! ```
//!
//! 3u: lse = m ln 2 + ln l or (m + log2 l) ln 2, either way at most ln 2, a product and a sum.
//!
//! A sink is one more key of a row, the first of the first part: its score is read as it is (delta = 2^-126, a flush), its
//! value is 0. A row that has nothing but a sink has o = 0 and l = 1: lse is the sink, within 4 E and the roundings.
//!
//! # Where nothing is promised
//!
//! The bound is infinite, which [`verify`](super::verify()) counts as *unspecified*, where
//! - f32 may overflow on the way: |scale| log2(e) max(1, |q|) or log2(e) A_j reaches 2^127; a score passes f32's range;
//!   in base 2 two scores of a row are more than f32::MAX / log2(e) apart; m max |v_jc| reaches 2^127;
//! - the result may pass the range of the output's element type;
//! - K u reaches 1/2 (at 2^21 to 2^22 keys): the worst case of such a sum in f32 is of the size of its terms.
//!
//! The f64 evaluation itself errs by the same expressions with 2^-53 for u: 2^-30 of the bound, and ignored.
//!
//! # 5. Weights in 16 bits
//!
//! A kernel may round each weight before the second product ([`WeightFormat`]), if it adds the *same* rounded weights up
//! to l: then the rounding is one more relative error of p^_j, by u_P, common to numerator and denominator. The kernel may
//! also keep an m of which scores are up to `late` above; the exponents of section 2 then add up to 2 `late` more, which
//! x_j takes in:
//!
//! ```text
//! epsilon_j = delta_j + (x_j + 2 late)(2 u + 2 E log2 e + E) + 3 E (1 + R) + (1 + 2^-8) u_P
//! ```
//!
//! A weight below the format's normal numbers may be off by phi more, in the product alone. No m is above M+, so beside p_j
//! that is at most phi exp(M+ - lse); and the weight at m itself is 1, so it is at most a share phi of the sum. It may be lost
//! whole, or become the smallest number, 2^-10 phi. So B_c grows by
//!
//! ```text
//! sum_j min( phi_D, w+_j + 2^-10 phi_D ) |v_jc|,   phi_D = phi min( exp(M+ - lse) / D, 1 + 2^-8 )
//! ```
//!
//! Products of two f16 are exact in f32. Matrix units add several of them at once, aligned to the largest and cut off:
//! one error of u times the sum of the sizes for each, as for a chain of additions.

use super::call::{Call, Position};
use super::exact::Exact;
use super::rounding::{E, HUGE, TINY, U, gamma, min_normal, promised, stored};
use crate::KernelPath;
use crate::score::Known;
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

/// Bounds of one row.
pub(super) struct Bound {
    /// `[dv]`
    pub(super) out: Vec<f64>,
    pub(super) lse: f64,
}

/// The bound of a row that has keys or a sink. `parts` walks the places of `exact.keys`, each once; `chain` additions is the
/// longest chain of a sum over them.
pub(super) fn bound(
    call: &Call<'_>,
    at: Position,
    exact: &Exact,
    parts: &[Vec<usize>],
    chain: usize,
    format: WeightFormat,
) -> Bound {
    let q = Query::new(call, at);
    let mut deltas: Vec<f64> = (0..exact.keys.len()).map(|n| score_error(call, &q, at, exact, n)).collect();
    // A sink is a key more, behind the others here and before them in the walk.
    let mut scores = exact.scores.clone();
    scores.extend(exact.sink);
    deltas.extend(exact.sink.map(|sink| if sink == 0.0 { 0.0 } else { TINY }));
    let mut parts = parts.to_vec();
    if let (Some(_), Some(first)) = (exact.sink, parts.first_mut()) {
        first.insert(0, exact.keys.len());
    }
    let (scores, parts, m) = (&scores, &parts, scores.len());
    let chain = chain + usize::from(exact.sink.is_some());
    let unbounded = || Bound { out: vec![f64::INFINITY; exact.out.len()], lse: f64::INFINITY };
    let base_2 = call.attention.score.is_plain();
    if deltas.iter().any(|delta| !delta.is_finite()) || (base_2 && spread_overflows(scores)) {
        return unbounded();
    }

    let rises = records(scores, &deltas, parts) + 2 * (parts.len() - 1);
    let sum_error = gamma(chain + rises + 2 + 10 * (parts.len() - 1));
    if !sum_error.is_finite() {
        return unbounded();
    }
    let top = scores.iter().zip(&deltas).map(|(s, delta)| s + delta).fold(f64::NEG_INFINITY, f64::max);
    let weights = Weights::new(
        scores,
        exact.lse,
        &weight_errors(scores, &deltas, top, rises, format, base_2),
        top,
        format,
    );
    let out = output_bound(call, at, exact, &weights, sum_error, (m + rises + 2) as f64);

    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let shift = weights.lse_error;
    let roundings =
        3.0 * U * (max.abs() + exact.lse.abs() + shift) + 4.0 * E + 3.0 * E * ((m + 1) as f64).ln();
    let lse = shift + sum_error / (1.0 - sum_error) + roundings + (m + 1) as f64 * 4.0 * TINY;
    Bound { out, lse: promised(lse) }
}

/// What the error of a score needs to know of the query.
struct Query {
    elements: Vec<f64>,
    /// Whether scale log2(e) or an element times it may overflow.
    overflows: bool,
}

impl Query {
    fn new(call: &Call<'_>, at: Position) -> Self {
        let elements = call.q(at);
        let largest = elements.iter().fold(1.0f64, |max, q| max.max(q.abs()));
        let overflows = f64::from(call.attention.scale_value()).abs() * LOG2_E * largest >= HUGE;
        Self { elements, overflows }
    }
}

/// Section 1, `product`: the error of scale q . k_j.
fn product_error(call: &Call<'_>, q: &Query, at: Position, j: u32) -> f64 {
    let scale = f64::from(call.attention.scale_value()).abs();
    let storage = call.attention.storage;
    let [smallest_q, smallest_k] = [storage.q, storage.kv].map(min_normal);
    let (mut condition, mut flushed, mut k_sum) = (0.0, 0.0, 0.0);
    for (&q, k) in q.elements.iter().zip(call.k(at, j)) {
        let size = (q * k).abs();
        condition += size;
        flushed += if q.abs() < smallest_q || k.abs() < smallest_k { size } else { 0.0 };
        k_sum += k.abs();
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
    gamma(d + 3) * condition + flushed + TINY * (2.0 * d as f64 + k_sum)
}

/// Section 1: delta of the n-th key. Not finite where nothing can be said.
fn score_error(call: &Call<'_>, q: &Query, at: Position, exact: &Exact, n: usize) -> f64 {
    let j = exact.keys[n];
    let pair = call.pair(at, j as usize);
    let mut known = Known { score: exact.products[n], error: product_error(call, q, at, j) };
    for (rule, tensors) in call.terms() {
        let score = rule.score(known.score, &pair, tensors);
        known = Known { score, error: rule.error(known, score, &pair, tensors) };
    }
    if call.attention.score.is_plain() {
        return known.error;
    }
    // Kept above f32::MIN, by one place, whatever rounding makes of it on that side; on the other it may overflow.
    let largest = f64::from(f32::MAX);
    if known.score.abs() > largest + 2f64.powi(102) || known.score + known.error > largest {
        return f64::INFINITY;
    }
    known.error + if known.score.abs() > 0.5 * HUGE { U * known.score.abs() } else { 0.0 }
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

/// Sections 2 and 5: epsilon_j.
fn weight_errors(
    scores: &[f64],
    deltas: &[f64],
    top: f64,
    rises: usize,
    format: WeightFormat,
    base_2: bool,
) -> Vec<f64> {
    let subtractions = if base_2 { 2.0 * U } else { 4.0 * U };
    let error = |(s, delta): (&f64, &f64)| {
        let x = top - s + delta + 2.0 * format.late;
        let exponentials = x * (subtractions + 2.0 * E * LOG2_E + E) + 3.0 * E * (1 + rises) as f64;
        (delta + exponentials) * SECOND_ORDER + format.rounding * (1.0 + 1.0 / 256.0)
    };
    scores.iter().zip(deltas).map(error).collect()
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
struct Weights {
    /// w+_j, the largest share of key j: at most 1.
    upper: Vec<f64>,
    /// dw_j; may be infinite.
    error: Vec<f64>,
    /// Whether w+_j > exp(-40).
    reachable: Vec<bool>,
    /// Section 5: phi_D.
    lost: f64,
    /// max( ln sum p exp(epsilon), -ln D ).
    lse_error: f64,
}

impl Weights {
    /// `top`: M+.
    fn new(scores: &[f64], lse: f64, errors: &[f64], top: f64, format: WeightFormat) -> Self {
        // ln p_j; with every score below -1e15 even f64 cannot tell lse from the maximum, hence the sum again.
        let logs: Vec<f64> = scores.iter().map(|s| s - lse).collect();
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
            lost: format.smallest * (top - lse - lowest).exp().min(1.0 + 1.0 / 256.0),
            lse_error: highest.max(-lowest),
        }
    }

    /// Takes the values of the n-th key into the columns.
    fn add(
        &self,
        n: usize,
        columns: &mut [Column],
        out: &[f64],
        values: impl Iterator<Item = f64>,
        smallest: f64,
    ) {
        let (upper, error) = (self.upper[n], self.error[n]);
        let lost = self.lost.min(upper + self.lost / 1024.0);
        // One of the two is 0: no branch where time is spent.
        let (near, far) = if self.reachable[n] { (1.0, 0.0) } else { (0.0, upper) };
        for ((column, &o), v) in columns.iter_mut().zip(out).zip(values) {
            let (size, distance) = (v.abs(), (v - o).abs());
            column.moved += error * distance;
            column.range = column.range.max(near * distance);
            column.unreached += far * distance;
            column.size += upper * size;
            column.max = column.max.max(size);
            column.flushed += if size < smallest { upper * size } else { 0.0 };
            column.lost += lost * size;
        }
    }
}

/// Section 3: the bound of each element of a row.
fn output_bound(
    call: &Call<'_>,
    at: Position,
    exact: &Exact,
    weights: &Weights,
    sum_error: f64,
    flushes: f64,
) -> Vec<f64> {
    let (smallest, count) = (min_normal(call.attention.storage.kv), exact.keys.len() as f64);
    let mut columns = vec![Column::default(); exact.out.len()];
    for (n, &j) in exact.keys.iter().enumerate() {
        weights.add(n, &mut columns, &exact.out, call.v(at, j), smallest);
    }
    if exact.sink.is_some() {
        weights.add(exact.keys.len(), &mut columns, &exact.out, std::iter::repeat(0.0), smallest);
    }
    let finish = |(column, &o): (&Column, &f64)| {
        // What is not finite is to be seen, not bounded.
        if !o.is_finite() {
            return 0.0;
        }
        if column.max * count >= HUGE {
            return f64::INFINITY;
        }
        // B1 is NaN where an infinite weight met a value that equals the output; `min` then takes B2.
        let moved = column.moved.min(column.range + column.unreached);
        let sums = sum_error * (column.size.min(column.max) + o.abs());
        let bound = (moved + sums) / (1.0 - sum_error)
            + column.flushed
            + column.lost
            + flushes * 4.0 * TINY * (1.0 + column.max);
        stored(call.attention.storage.out, o.abs(), bound)
    };
    columns.iter().zip(&exact.out).map(finish).collect()
}

/// Sums over the keys for one column of the values.
#[derive(Clone, Copy, Default)]
struct Column {
    /// B1.
    moved: f64,
    /// B2, its two terms.
    range: f64,
    unreached: f64,
    /// sum w+ |v|.
    size: f64,
    /// max |v|.
    max: f64,
    /// sum' w+ |v|.
    flushed: f64,
    /// Section 5.
    lost: f64,
}
