//! One row of LSH attention, and how far a kernel may be from it.
//!
//! The analysis of `reference/bound.rs`, with another score. In f32 the kernel has
//! `s = ((scale log2(e) q) . x_j) inv_j`, `inv_j = inverseSqrt(|x_j|^2 + eps)`: with A_j = |scale| sum |q_c x_jc| inv_j,
//!
//! ```text
//! product   gamma_{d+3} A_j + flushes      as there; nothing is promised where q . x_j or inv_j leave f32
//! inv_j     (gamma_{d+1} / 2 + 2 E) A_j    a sum of d squares and eps under the root (half its relative error), then
//!                                          inverseSqrt, 2 ULP; the product with it: one more u
//! ```
//!
//! together at most gamma_{2d+12} A_j. A pair with its own key scores the penalty: its rounding and that of the
//! product with log2(e), 2 u |penalty|. `count_once` subtracts log2(N): 2^-21 absolute or 3 ULP, and an addition. Weights, sums
//! and merges of the R rounds are those of `reference/bound.rs`, sections 2 to 4, with R parts; of the two bounds B1 and B2
//! there only B1 is used, so that rows whose scores are uncertain by more than 1 stay unspecified.

use super::LshCall;
use super::meet::Meetings;
use crate::reference::rounding::{E, TINY, U, gamma, min_normal, promised, stored};
use crate::{Attention, Element};
use std::collections::HashMap;

/// Past this a product may leave f32, and past its inverse fall below the normal numbers.
const FAR: f64 = (1u128 << 126) as f64;

/// A row in f64, with what it was made from.
pub(super) struct Exact {
    /// Keys, round by round; a key that is met twice is there twice.
    keys: Vec<usize>,
    /// Where the rounds end in `keys`.
    ends: Vec<usize>,
    scores: Vec<f64>,
    /// Largest error of each score.
    deltas: Vec<f64>,
    pub(super) out: Vec<f64>,
    pub(super) lse: f64,
}

/// One softmax over all that query `i` meets, by two passes.
pub(super) fn solve<T: Element>(call: &LshCall<'_, T>, meetings: &Meetings, line: usize, i: usize) -> Exact {
    let rounds = meetings.of(i);
    let ends = rounds.iter().scan(0, |end, keys| {
        *end += keys.len();
        Some(*end)
    });
    let ends = ends.collect();
    let keys = rounds.concat();
    let mut times: HashMap<usize, usize> = HashMap::new();
    keys.iter().for_each(|&j| *times.entry(j).or_default() += 1);

    let q = call.x(line, i);
    let (scores, deltas): (Vec<f64>, Vec<f64>) =
        keys.iter().map(|&j| score(call, &q, i, j, &call.x(line, j), times[&j])).unzip();
    let mut out = vec![0.0; call.shape.value_dim];
    if keys.is_empty() {
        return Exact { keys, ends, scores, deltas, out, lse: f64::from(f32::MIN) };
    }
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut l = 0.0;
    for (&j, score) in keys.iter().zip(&scores) {
        let p = (score - max).exp();
        l += p;
        out.iter_mut().zip(call.v(line, j)).for_each(|(o, v)| *o += p * v);
    }
    out.iter_mut().for_each(|o| *o /= l);
    Exact { keys, ends, scores, deltas, out, lse: max + f64::ln(l) }
}

/// The score of a pair that meets `times` times, and its largest error.
fn score<T: Element>(
    call: &LshCall<'_, T>,
    q: &[f64],
    i: usize,
    j: usize,
    x: &[f64],
    times: usize,
) -> (f64, f64) {
    let options = call.options;
    let (mut score, mut delta) = if i == j {
        let penalty = f64::from(options.self_penalty);
        (penalty, 2.0 * U * penalty.abs() + if penalty == 0.0 { 0.0 } else { TINY })
    } else {
        product(call.attention, f64::from(options.norm_eps), q, x)
    };
    if options.count_once {
        score -= (times as f64).ln();
        delta += 4.0 * E + 4.0 * U * (times as f64).ln() + U * (score.abs() + delta);
    }
    (score, delta)
}

/// scale q . x / sqrt(|x|^2 + eps), and its largest error.
fn product(attention: &Attention, eps: f64, q: &[f64], x: &[f64]) -> (f64, f64) {
    let squares: f64 = x.iter().map(|x| x * x).sum::<f64>() + eps;
    if squares == 0.0 {
        return (0.0, 0.0);
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
    let in_q = scale.abs() * std::f64::consts::LOG2_E;
    let out_of_range = !(1.0 / FAR..FAR).contains(&inverse)
        || !(0.0..FAR).contains(&(in_q * size.max(largest)))
        || !(0.0..FAR).contains(&(in_q * size * inverse));
    let delta = gamma(2 * d + 12) * condition
        + scale.abs() * flushed * inverse
        + condition * (flushed_squares / squares + d as f64 * 2f64.powi(-28))
        + TINY * (2 * d) as f64 * (1.0 + inverse * (1.0 + x.iter().map(|x| x.abs()).sum::<f64>()));
    (scale * sum * inverse, if out_of_range { f64::INFINITY } else { delta })
}

/// A row with its bounds.
pub(super) struct Bounded {
    pub(super) exact: Exact,
    /// `[dv]`, infinite where nothing is promised.
    pub(super) out: Vec<f64>,
    pub(super) lse: f64,
}

/// The bound of a row: sections 2 to 4 of `reference/bound.rs`.
pub(super) fn bounded<T: Element>(call: &LshCall<'_, T>, exact: Exact, line: usize) -> Bounded {
    let m = exact.keys.len();
    if m == 0 {
        return Bounded { out: vec![0.0; exact.out.len()], lse: 0.0, exact };
    }
    let parts = call.options.rounds;
    let rises = records(&exact) + 2 * (parts - 1);
    let sum_error = gamma(m + rises + 2 + 10 * (parts - 1));
    let top =
        exact.scores.iter().zip(&exact.deltas).map(|(s, delta)| s + delta).fold(f64::NEG_INFINITY, f64::max);
    let epsilon = |(s, delta): (&f64, &f64)| {
        let x = top - s + delta;
        (delta + x * (2.0 * U + 2.0 * E * std::f64::consts::LOG2_E + E) + 3.0 * E * (1 + rises) as f64)
            * 1.001
    };
    let errors: Vec<f64> = exact.scores.iter().zip(&exact.deltas).map(epsilon).collect();
    let weights: Vec<f64> = exact.scores.iter().map(|s| (s - exact.lse).exp()).collect();
    let total: f64 = weights.iter().sum();
    let lowest: f64 = weights.iter().zip(&errors).map(|(p, error)| p / total * (-error).exp()).sum();
    let highest: f64 = weights.iter().zip(&errors).map(|(p, error)| p / total * error.exp()).sum();

    // Sums over the keys for each column: moved (B1), size, largest.
    let mut columns = vec![[0.0f64; 3]; exact.out.len()];
    for (n, &j) in exact.keys.iter().enumerate() {
        let share = weights[n] / total / lowest;
        let (upper, error) = ((share * errors[n].exp()).min(1.0), share * errors[n].exp_m1());
        for (([moved, size, largest], &o), v) in columns.iter_mut().zip(&exact.out).zip(call.v(line, j)) {
            *moved += error * (v - o).abs();
            *size += upper * v.abs();
            *largest = largest.max(v.abs());
        }
    }
    let smallest = min_normal(call.attention.storage.q);
    let finish = |([moved, size, largest], &o): (&[f64; 3], &f64)| {
        let flushes = (m + rises + 2) as f64 * 4.0 * TINY * (1.0 + largest)
            + if smallest > TINY { smallest } else { 0.0 };
        let bound = (moved + sum_error * (size.min(*largest) + o.abs())) / (1.0 - sum_error) + flushes;
        stored(call.attention.storage.out, o.abs(), bound)
    };
    let out = columns.iter().zip(&exact.out).map(finish).collect();

    let max = exact.scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let shift = highest.ln().max(-lowest.ln());
    let lse = shift
        + sum_error / (1.0 - sum_error)
        + 4.0 * E
        + 3.0 * E * ((m + 1) as f64).ln()
        + 3.0 * U * (max.abs() + exact.lse.abs() + shift);
    Bounded { out, lse: promised(lse), exact }
}

/// How often the running maximum may rise, round by round.
fn records(exact: &Exact) -> usize {
    let (mut first, mut count) = (0, 0);
    for &end in &exact.ends {
        let mut max = f64::NEG_INFINITY;
        for n in first..end {
            count += usize::from(exact.scores[n] + exact.deltas[n] > max);
            max = max.max(exact.scores[n] - exact.deltas[n]);
        }
        first = end;
    }
    count
}
