//! One row of Linformer, and how far a correct kernel may be from it.
//!
//! The products leave K' and V' within dK' and dV' (`reference/layer/matmul.rs`: gamma_{Lk+2} sum |E||K|, flushes, subnormals that are read as 0).
//! What attention makes of them is `reference/bound.rs` with two errors more, of scores and of values:
//!
//! ```text
//! delta_r = |scale| sum_c |q_c| dK'_rc + gamma_{d+3} |scale| sum_c |q_c| (|K'_rc| + dK'_rc) + flushes
//! B_c    += (1 + gamma_K) / (1 - gamma_K) min( sum_r w+_r dV'_rc, max_r dV'_rc )
//! ```
//!
//! delta is all that sections 2 and 3 there want to know of a score. The kernel's row is the mean of its own V' by its weights: with w+ the largest
//! share that a row may have, what its V' are off by moves that mean by no more than the second line.

use super::call::{LinformerCall, Projected};
use crate::reference::bound::{OutError, output_errors};
use crate::reference::compare::BoundedRow;
use crate::reference::exact::{Exact, softmax};
use crate::reference::rounding::{HUGE, TINY, gamma, min_normal};
use crate::reference::row::walked;
use crate::reference::weights::{RowErrors, WeightFormat};
use crate::{Position, Result};
use std::f64::consts::LOG2_E;

pub(super) fn solve(call: &LinformerCall<'_>, line: &Projected, at: Position) -> Result<BoundedRow> {
    let row = Attended::new(call, line, at)?;
    let exact = row.exact;
    if exact.lse.is_nan() {
        // What is not finite is to be seen, not bounded.
        return Ok(BoundedRow { bound: vec![0.0; exact.out.len()], out: exact.out });
    }
    let Some((_, columns)) = row.errors else {
        return Ok(BoundedRow { bound: vec![f64::INFINITY; exact.out.len()], out: exact.out });
    };
    let storage = call.attended.storage.out;
    let bound = columns.into_iter().zip(&exact.out).map(|(error, &o)| error.stored(storage, o));
    Ok(BoundedRow { bound: bound.collect(), out: exact.out })
}

/// A row of attention over projected keys.
pub(super) struct Attended {
    pub(super) q: Vec<f64>,
    pub(super) exact: Exact,
    /// delta of each projected key.
    pub(super) deltas: Vec<f64>,
    /// And what they make of the row, with the errors of its columns; none where nothing is promised, or something is not finite.
    pub(super) errors: Option<(RowErrors, Vec<OutError>)>,
}

impl Attended {
    pub(super) fn new(call: &LinformerCall<'_>, line: &Projected, at: Position) -> Result<Self> {
        let shape = &call.attended.shape;
        let q: Vec<f64> = call.q(at).iter().map(|&x| x.into()).collect();
        let scale = f64::from(call.attended.scale_value());
        let products: Vec<f64> = line
            .k
            .out
            .chunks(shape.head_dim)
            .map(|k| scale * q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>())
            .collect();
        let keys: Vec<u32> = (0..shape.kv_len as u32).collect();
        let value = |j: u32| line.v.out[j as usize * shape.value_dim..][..shape.value_dim].iter().copied();
        let row = Exact { keys, scores: products.clone(), products, sink: None, out: vec![], lse: 0.0 };
        let exact = softmax(row, &call.attended, at, value);
        if exact.lse.is_nan() {
            return Ok(Self { q, exact, deltas: vec![], errors: None });
        }
        let (parts, chain) = walked(&exact.keys, at, None, None, WeightFormat::F32)?;
        let deltas = score_errors(call, line, &q);
        let walk = (&parts[..], chain);
        let errors = RowErrors::of_scores(&exact, deltas.clone(), &call.attended, walk, WeightFormat::F32);
        let errors = errors.map(|errors| {
            let apart = value_errors(line, &errors, shape.value_dim);
            let mut columns = output_errors(&call.attended, at, &exact, &errors, value);
            columns.iter_mut().zip(apart).for_each(|(error, apart)| error.rest += apart);
            (errors, columns)
        });
        Ok(Self { q, exact, deltas, errors })
    }
}

/// delta of each projected key.
fn score_errors(call: &LinformerCall<'_>, line: &Projected, q: &[f64]) -> Vec<f64> {
    let scale = f64::from(call.attended.scale_value()).abs();
    let largest = q.iter().fold(1.0f64, |max, q| max.max(q.abs()));
    let smallest = min_normal(call.attended.storage.q);
    let rows = line.k.out.chunks(q.len()).zip(line.k.bound.chunks(q.len()));
    let delta = |(k, dk): (&[f64], &[f64])| {
        let (mut moved, mut condition, mut flushed, mut sum) = (0.0, 0.0, 0.0, 0.0);
        for ((q, k), dk) in q.iter().zip(k).zip(dk) {
            let most = k.abs() + dk;
            moved += q.abs() * dk;
            condition += q.abs() * most;
            flushed += if q.abs() < smallest { q.abs() * most } else { q.abs() * most.min(TINY) };
            sum += most + q.abs();
        }
        let condition = scale * condition;
        if !condition.is_finite() || scale * LOG2_E * largest >= HUGE || condition * LOG2_E >= HUGE {
            return f64::INFINITY;
        }
        // A factor that is flushed takes the product with it.
        let flushed = if scale * LOG2_E < 2.0 * TINY { condition } else { scale * flushed };
        scale * moved + gamma(q.len() + 3) * condition + flushed + TINY * (2.0 * q.len() as f64 + sum)
    };
    rows.map(delta).collect()
}

/// What wrong V' move an output by, per column.
fn value_errors(line: &Projected, errors: &RowErrors, width: usize) -> Vec<f64> {
    let (mut sums, mut largest) = (vec![0.0; width], vec![0.0f64; width]);
    for (upper, dv) in errors.weights.upper.iter().zip(line.v.bound.chunks(width)) {
        for (c, dv) in dv.iter().enumerate() {
            sums[c] += upper * dv;
            largest[c] = largest[c].max(*dv);
        }
    }
    let more = (1.0 + errors.sum_error) / (1.0 - errors.sum_error);
    sums.iter().zip(&largest).map(|(sum, largest)| more * sum.min(*largest)).collect()
}
