//! The weights of one row by the formula, and how far a kernel may be from them.
//!
//! It makes a weight as exp(s - m) / l, from the state that attention left: with the score's error epsilon of `weights.rs`, one
//! exponential, and Lambda, the error of ln(exp(m) l) (`gradient/bound.rs`, section 1),
//!
//! ```text
//! a     = min( p expm1(epsilon + Lambda), 1 + 2^-9 ) + 2^-126                                          of p
//! b     = epsilon + Lambda + 4 u (M+ - s + late + ln(n + 1)) + 4 E + 3 E ln(n + 1)                      of -ln p = m - s + ln l
//! B_H   = sum_j [ a (|ln p| + b) + p b ] + gamma_{n+8} sum_j (p + a)(|ln p| + b) + 2 n 2^-126           of H = -sum p ln p
//! ```
//!
//! over the n keys of the row; a weight that is 0 in f32 adds nothing to H, which a holds.

use super::call::Call;
use super::exact::solve;
use super::layer::Bounded;
use super::rounding::{E, TINY, U, gamma, promised};
use super::row::{Walk, walked};
use super::weights::{RowErrors, WeightFormat, score_errors, weight_error};
use crate::Position;
use crate::pattern::Pattern;
use crate::{Attention, Element, Inputs, Result};

/// The weights of one row, in f64, with bounds on a kernel's.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RowWeights {
    /// S_i, ascending.
    pub keys: Vec<u32>,
    /// exp(score(i, j) - lse_i) of each, NaN where the row attends something that is not finite.
    pub weights: Bounded,
    /// -sum p ln p over the keys, in nats: one element, 0 without keys.
    pub entropy: Bounded,
}

/// The weights of a row of [`attention_with`](super::attention_with). `order` and `format`: how attention walked the keys and kept its
/// weights, as [`row_of_format`](super::row_of_format) has them.
///
/// # Errors
/// As [`row`](super::row()).
///
/// ```
/// use wgpu_attention::reference::{self, Position, WeightFormat};
/// use wgpu_attention::{AttentionShape, Causal};
/// // Two keys of equal score.
/// let shape = AttentionShape::new(1, 1, 2, 1);
/// let inputs = reference::Inputs::new(&[0.0f32, 0.0], &[1.0f32, 2.0], &[3.0, 5.0]);
/// let at = Position { batch: 0, head: 0, i: 1 };
/// let row = reference::row_weights(&shape, &inputs, &Causal, at, None, WeightFormat::F32)?;
/// assert_eq!((&row.keys[..], &row.weights.out[..]), (&[0, 1][..], &[0.5, 0.5][..]));
/// assert!((row.entropy.out[0] - 2f64.ln()).abs() < 1e-15);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn row_weights<Q: Element, KV: Element>(
    attention: impl Into<Attention>,
    inputs: &Inputs<'_, Q, KV>,
    pattern: &dyn Pattern,
    at: Position,
    order: Option<Walk<'_>>,
    format: WeightFormat,
) -> Result<RowWeights> {
    let attention = attention.into();
    let call = Call::new(&attention, inputs, pattern)?;
    call.check_position(at)?;
    let exact = solve(&call, at);
    let (parts, chain) = walked(&exact.keys, at, order, None, format)?;
    let n = exact.keys.len();
    let p: Vec<f64> = exact.scores.iter().map(|s| (s - exact.lse).exp()).collect();
    // 0 ln 0 = 0.
    let share = |(&p, s): (&f64, &f64)| if p == 0.0 { 0.0 } else { p * (exact.lse - s) };
    let entropy = p.iter().zip(&exact.scores).map(share).sum::<f64>();
    let found = |bounds: (Vec<f64>, f64), p: Vec<f64>, entropy: f64| RowWeights {
        keys: exact.keys.clone(),
        weights: Bounded { out: p, bound: bounds.0 },
        entropy: Bounded { out: vec![entropy], bound: vec![bounds.1] },
    };
    if exact.lse.is_nan() {
        return Ok(found((vec![0.0; n], 0.0), vec![f64::NAN; n], f64::NAN));
    }
    if n == 0 {
        return Ok(found((vec![], 0.0), vec![], 0.0));
    }
    let Some(errors) = RowErrors::new(&call, at, &exact, &parts, chain, format) else {
        return Ok(found((vec![f64::INFINITY; n], f64::INFINITY), p, entropy));
    };
    let lambda = errors.weights.lse_error + errors.sum_error / (1.0 - errors.sum_error) + 2.5 * E + 3.0 * U;
    let base_2 = attention.score.is_plain();
    let one_exponential = WeightFormat { late: format.late, ..WeightFormat::F32 };
    let log_n = ((n + 1) as f64).ln();
    let (mut bound, mut moved, mut size) = (Vec::with_capacity(n), 0.0, 0.0);
    for ((p, s), delta) in p.iter().zip(&exact.scores).zip(score_errors(&call, at, &exact)) {
        let error = weight_error(errors.top - s, delta, 0, one_exponential, base_2) + lambda;
        let a = if error < 1.0 { p * error.exp_m1() } else { (s - exact.lse + error).exp() };
        let a = a.min(1.0 + 1.0 / 512.0) + TINY;
        let b = error + 4.0 * U * (errors.top - s + format.late + log_n) + 4.0 * E + 3.0 * E * log_n;
        let log = (exact.lse - s).abs() + b;
        moved += a * log + p * b;
        size += (p + a) * log;
        bound.push(promised(a));
    }
    let of_entropy = promised(moved + gamma(n + 8) * size + 2.0 * n as f64 * TINY);
    Ok(found((bound, of_entropy), p, entropy))
}
