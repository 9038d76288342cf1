//! One row of LSH attention, and how far a kernel may be from it.
//!
//! The analysis of `reference/bound.rs`, with another product. In f32 the kernel has
//! `s = ((scale q) . x_j) inv_j`, `inv_j = inverseSqrt(|x_j|^2 + eps)` (without terms in base 2: log2(e) is in scale): with
//! A_j = |scale| sum |q_c x_jc| inv_j,
//!
//! ```text
//! product   gamma_{d+3} A_j + flushes      as there; nothing is promised where q . x_j or inv_j leave f32
//! inv_j     (gamma_{d+1} / 2 + 2 E) A_j    a sum of d squares and eps under the root (half its relative error), then
//!                                          inverseSqrt, 2 ULP; the product with it: one more u
//! ```
//!
//! (The pass over keys of the gradients has the scale in x_j: flushes of either count.)
//! together at most gamma_{2d+12} A_j. Terms add their errors as there. A pair with its own key scores the penalty: in base 2 its
//! rounding and that of the product with log2(e), 2 u |penalty|. `count_once` subtracts ln N: 2^-21 absolute or 3 ULP, and an
//! addition; and scores in base e are kept above f32::MIN, last of all.
//! Weights, sums and merges of the R rounds are those of `reference/bound.rs`, sections 2 to 4, with R parts: a key that is met twice is there
//! twice, and a sink is the first key of the first round.

use super::LshCall;
use super::meet::Meetings;
use crate::reference::bound::{Bound, bound_of};
use crate::reference::exact::{Exact, softmax};
use crate::reference::rounding::{E, TINY, U, gamma, min_normal};
use crate::reference::terms::no_lower;
use crate::reference::weights::{RowErrors, WeightFormat};
use crate::score::Known;
use crate::{Attention, Position};
use std::collections::HashMap;
use std::f64::consts::LOG2_E;

/// Past this a product may leave f32, and past its inverse fall below the normal numbers.
const FAR: f64 = (1u128 << 126) as f64;

/// A row in f64, with what it was made from.
pub(super) struct LshRow {
    /// Keys round by round.
    pub(super) exact: Exact,
    at: Position,
    /// The places of each round in the keys.
    pub(super) rounds: Vec<Vec<usize>>,
    /// Largest error of each score.
    pub(super) errors: Vec<f64>,
}

/// One softmax over all that a query meets.
pub(super) fn solve(call: &LshCall<'_>, meetings: &Meetings, at: Position) -> LshRow {
    let met = meetings.of(at.i).into_iter().map(|mut keys| {
        keys.retain(|&j| call.terms.keep(&call.pair(at, j)));
        keys
    });
    let met: Vec<Vec<usize>> = met.collect();
    let mut first = 0;
    let places = met.iter().map(|keys| {
        first += keys.len();
        (first - keys.len()..first).collect()
    });
    let rounds = places.collect();
    let keys = met.concat();
    let mut times: HashMap<usize, usize> = HashMap::new();
    keys.iter().for_each(|&j| *times.entry(j).or_default() += 1);

    let q = call.x(at, at.i);
    let scores: Vec<(f64, Known)> = keys.iter().map(|&j| score(call, &q, at, j, times[&j])).collect();
    let exact = Exact {
        keys: keys.iter().map(|&j| j as u32).collect(),
        products: scores.iter().map(|(product, _)| *product).collect(),
        scores: scores.iter().map(|(_, known)| known.score).collect(),
        sink: call.terms.sink(at.head),
        out: vec![],
        lse: f64::from(f32::MIN),
    };
    let exact = softmax(exact, call.attention, at, |j| call.v(at, j as usize));
    LshRow { exact, at, rounds, errors: scores.iter().map(|(_, known)| known.error).collect() }
}

/// The product of a pair that meets `times` times, and its score within the largest error.
fn score(call: &LshCall<'_>, q: &[f64], at: Position, j: usize, times: usize) -> (f64, Known) {
    let (options, attention) = (call.options, call.attention);
    let product = product(attention, f64::from(options.norm_eps), q, &call.x(at, j));
    let mut known = if at.i == j {
        let score = f64::from(options.self_penalty);
        let flush = if score == 0.0 { 0.0 } else { TINY };
        let error = if attention.score.is_plain() { own_error(score) + flush } else { flush };
        // The product is made all the same, and a row shows one that is not finite.
        Known { score, error: if product.own_overflows { f64::INFINITY } else { error } }
    } else {
        call.terms.known(product.known, &call.pair(at, j))
    };
    if options.count_once {
        let log = (times as f64).ln();
        known.score -= log;
        known.error += 4.0 * E + 4.0 * U * log + U * (known.score.abs() + known.error);
    }
    let known = if attention.score.is_plain() { known } else { no_lower(known) };
    (product.known.score, known)
}

/// Of a penalty that is brought to base 2; infinite where it leaves f32 there.
fn own_error(penalty: f64) -> f64 {
    if penalty.abs() * LOG2_E < 3.3e38 { 2.0 * U * penalty.abs() } else { f64::INFINITY }
}

/// 1 / sqrt(|x|^2 + eps), which a kernel has within this; 0 for a zero vector.
pub(super) fn inverse_norm(attention: &Attention, eps: f64, x: &[f64]) -> Known {
    let squares: f64 = x.iter().map(|x| x * x).sum::<f64>() + eps;
    if squares == 0.0 {
        return Known { score: 0.0, error: 0.0 };
    }
    let (inverse, smallest) = (1.0 / squares.sqrt(), min_normal(attention.storage.q));
    let flushed: f64 = x.iter().filter(|x| x.abs() < smallest).map(|x| x * x).sum();
    let d = x.len();
    let relative = gamma((d + 1).div_ceil(2) + 4) + flushed / squares + d as f64 * 2f64.powi(-28);
    let in_range = (1.0 / FAR..FAR).contains(&inverse);
    Known { score: inverse, error: if in_range { relative * inverse } else { f64::INFINITY } }
}

/// scale q . x / sqrt(|x|^2 + eps).
pub(super) struct Product {
    /// With its largest error.
    pub(super) known: Known,
    /// Whether q . x itself may leave f32.
    own_overflows: bool,
}

pub(super) fn product(attention: &Attention, eps: f64, q: &[f64], x: &[f64]) -> Product {
    let squares: f64 = x.iter().map(|x| x * x).sum::<f64>() + eps;
    if squares == 0.0 {
        return Product { known: Known { score: 0.0, error: 0.0 }, own_overflows: false };
    }
    let (scale, inverse, smallest) =
        (f64::from(attention.scale_value()), 1.0 / squares.sqrt(), min_normal(attention.storage.q));
    let (mut sum, mut size, mut flushed, mut flushed_squares) = (0.0, 0.0, 0.0, 0.0);
    // The squares themselves cannot leave f32: such keys are scaled. Below 2^-126 an element may be 0.
    for (q, x) in q.iter().zip(x) {
        sum += q * x;
        size += (q * x).abs();
        flushed += if q.abs() < smallest || x.abs() < smallest { (q * x).abs() } else { 0.0 };
        flushed_squares += if x.abs() < smallest { x * x } else { 0.0 };
    }
    let d = q.len();
    let condition = scale.abs() * size * inverse;
    let largest = q.iter().fold(1.0f64, |max, q| max.max(q.abs()));
    let in_q = scale.abs() * LOG2_E;
    let own_overflows = !(0.0..FAR).contains(&(in_q * size.max(largest)));
    let out_of_range = !(1.0 / FAR..FAR).contains(&inverse)
        || own_overflows
        || !(0.0..FAR).contains(&(in_q * size * inverse));
    let error = gamma(2 * d + 12) * condition
        + scale.abs() * flushed * inverse
        + condition * (flushed_squares / squares + d as f64 * 2f64.powi(-28))
        + TINY * (2 * d) as f64 * (1.0 + inverse * (1.0 + x.iter().chain(q).map(|x| x.abs()).sum::<f64>()));
    let error = if out_of_range { f64::INFINITY } else { error };
    Product { known: Known { score: scale * sum * inverse, error }, own_overflows }
}

/// The bound of a row.
pub(super) fn bounded(call: &LshCall<'_>, row: &LshRow) -> Bound {
    let exact = &row.exact;
    let nothing = exact.keys.is_empty();
    // What is not finite is to be seen, not bounded.
    if (nothing && exact.sink.is_none()) || exact.lse.is_nan() {
        return Bound { out: vec![0.0; exact.out.len()], lse: 0.0 };
    }
    let walk = (&row.rounds[..], exact.keys.len());
    let errors = RowErrors::of_scores(exact, row.errors.clone(), call.attention, walk, WeightFormat::F32);
    let mut bound = bound_of(call.attention, row.at, exact, errors, |j| call.v(row.at, j as usize));
    if nothing {
        bound.out.fill(0.0);
    }
    bound
}
