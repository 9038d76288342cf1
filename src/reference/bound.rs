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
//!        + 2^-126 (2 d + sum |k_jc| + |q_c|)   flushed products and partial sums; flushed elements of q or k times the factor
//! terms    as each term of the score derives for itself (`src/score/NAME.rs`): it takes the score and the error
//!          before it, and adds its own; two biases are added to each other first, then to the score
//! lowest   0 where s + delta <= L      L = -(2 - 2^-22) 2^127, next above f32::MIN, which says that a pair is left out: what terms
//!                                      made is kept at L or above, in the kernel and in the reference (`terms.rs`)
//!          s - L at least              where a sum on the way may pass f32's range downwards: then a kernel has L, whatever is added later
//! ```
//!
//! So two masks of f32::MIN that meet are one of L: beside a finite score its weight is 0, and where a row has nothing else, all its
//! scores are equal.
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
//! rescale by a factor that is flushed, which loses what it multiplies, once per key; l >= 1 - 3E since the key at
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
//! # Dropout
//!
//! is attention to other values: with f = 1 / (1 - rate) the value of key j is f v_j for a query that keeps the pair, and 0 for one that
//! drops it. All of section 3 holds with these in place of v_j. The kernel adds up v_j, and multiplies at the end by f, rounded to f32: before
//! the storage B_c grows by gamma_2 (|o_c| + B_c), and a flush counts f times: (f + max_j |f v_jc|) in place of (1 + max_j |v_jc|).
//!
//! # Sinks
//!
//! A sink is one more key of a row, the first of the first part: its score is read as it is (delta = 2^-126, a flush), its
//! value is 0. A row that has nothing but a sink has o = 0 and l = 1: lse is the sink, within 4 E and the roundings.
//!
//! # Where nothing is promised
//!
//! The bound is infinite, which [`verify`](super::verify()) counts as *unspecified*, where
//! - f32 may overflow on the way: |scale| log2(e) max(1, |q|) or log2(e) A_j reaches 2^127; a score passes f32's range upwards, be it
//!   before a later term takes it back; what has passed it downwards is then multiplied, or changed by a term of the caller's;
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

use super::call::{Call, most_share, share, share_roundings};
use super::exact::Exact;
use super::rounding::{E, HUGE, TINY, U, gamma, min_normal, promised, stored};
use super::weights::{RowErrors, Shift, WeightFormat};
use crate::{Attention, ElementType, Position};

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
    let errors = RowErrors::new(call, at, exact, parts, chain, format);
    bound_of(call.attention, at, exact, errors, |j| call.v(at, j))
}

/// The same, of a row whose scores and their errors are known.
pub(super) fn bound_of<V: Iterator<Item = f64>>(
    attention: &Attention,
    at: Position,
    exact: &Exact,
    errors: Option<RowErrors>,
    value: impl Fn(u32) -> V,
) -> Bound {
    let m = exact.logits().count();
    let Some(errors) = errors else {
        return Bound { out: vec![f64::INFINITY; exact.out.len()], lse: f64::INFINITY };
    };
    let each = output_errors(attention, at, exact, &errors, value).into_iter().zip(&exact.out);
    let out = each.map(|(error, o)| error.stored(attention.storage.out, *o)).collect();

    let max = exact.logits().fold(f64::NEG_INFINITY, f64::max);
    let (shift, sum_error) = (errors.weights.lse_error, errors.sum_error);
    let roundings =
        3.0 * U * (max.abs() + exact.lse.abs() + shift) + 4.0 * E + 3.0 * E * ((m + 1) as f64).ln();
    let lse = shift + sum_error / (1.0 - sum_error) + roundings + (m + 1) as f64 * 4.0 * TINY;
    Bound { out, lse: promised(lse) }
}

/// The error of an element of a row before it is stored: section 3, B_c.
#[derive(Clone, Copy)]
pub(super) struct OutError {
    /// What wrong weights move: min(B1, B2) / (1 - gamma_K).
    pub(super) moved: f64,
    /// All else.
    pub(super) rest: f64,
}

impl OutError {
    /// With the last division and the storage, of an element that is `o`.
    pub(super) fn stored(self, output: ElementType, o: f64) -> f64 {
        // What is not finite is to be seen, not bounded.
        if o.is_finite() { stored(output, o.abs(), self.moved + self.rest) } else { 0.0 }
    }
}

/// Section 3, for each element of a row.
pub(super) fn output_errors<V: Iterator<Item = f64>>(
    attention: &Attention,
    at: Position,
    exact: &Exact,
    errors: &RowErrors,
    value: impl Fn(u32) -> V,
) -> Vec<OutError> {
    let RowErrors { weights, sum_error, .. } = errors;
    let (smallest, count) = (min_normal(attention.storage.kv), exact.keys.len() as f64);
    let mut columns = vec![Column::default(); exact.out.len()];
    for (n, &j) in exact.keys.iter().enumerate() {
        let (upper, lost) = (weights.upper[n], weights.lost_of(n));
        let share = share(attention, at, j);
        for ((column, &o), v) in columns.iter_mut().zip(&exact.out).zip(value(j)) {
            let size = share * v.abs();
            column.shift.add(weights, n, (share * v - o).abs());
            column.size += upper * size;
            column.max = column.max.max(size);
            column.flushed += if v.abs() < smallest { upper * size } else { 0.0 };
            column.lost += lost * size;
        }
    }
    if exact.sink.is_some() {
        // A key whose values are 0.
        let each = columns.iter_mut().zip(&exact.out);
        each.for_each(|(column, o)| column.shift.add(weights, exact.keys.len(), o.abs()));
    }
    let flushes = (exact.logits().count() + errors.rises + 2) as f64 * 4.0 * TINY;
    let (most, factor_error) = (most_share(attention), gamma(share_roundings(attention)));
    let finish = |(column, &o): (&Column, &f64)| {
        let overflow = column.max * count >= HUGE;
        let sums = sum_error * (column.size.min(column.max) + o.abs());
        let rest = sums / (1.0 - sum_error) + column.flushed + column.lost + flushes * (most + column.max);
        let moved = column.shift.size() / (1.0 - sum_error);
        let rest = rest + factor_error * (o.abs() + moved + rest);
        OutError { moved, rest: if overflow { f64::INFINITY } else { rest } }
    };
    columns.iter().zip(&exact.out).map(finish).collect()
}

/// Sums over the keys for one column of the values.
#[derive(Clone, Copy, Default)]
struct Column {
    shift: Shift,
    /// sum w+ |v|.
    size: f64,
    /// max |v|.
    max: f64,
    /// sum' w+ |v|.
    flushed: f64,
    /// Section 5.
    lost: f64,
}
