//! One row of attention by the formula, and how far a kernel may be from it.

use super::bound::{self, WeightFormat};
use super::call::{Call, Position};
use crate::pattern::Pattern;
use crate::{AttentionShape, Element, Error, Inputs, Result};

/// The order in which a kernel walks the keys of a row: per part, the attended keys as they are met. The parts are
/// merged one after the other by log-sum-exp. Keys that the row does not attend may be listed; they are ignored.
pub type Walk<'a> = &'a (dyn Fn(Position) -> Vec<Vec<u32>> + Sync);

/// One row of the reference, with the bound of `reference/bound.rs` on a kernel's error.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// o_i, `[dv]`; 0 without keys.
    pub out: Vec<f64>,
    /// lse_i; `f32::MIN` without keys.
    pub lse: f64,
    /// Largest error of each element of `out`, `[dv]`: 0 without keys, infinite where nothing can be promised.
    pub bound: Vec<f64>,
    /// Largest error of `lse`.
    pub lse_bound: f64,
    /// |S_i|, the number of keys attended.
    pub kept: usize,
}

/// One row of [`attention_with`](super::attention_with) and the bound on what a kernel may give for it.
///
/// `order` tells how the kernel walks the keys, which the bound depends on a little (how often the running maximum
/// rises, how many parts are merged); `None` is one part in ascending order.
///
/// # Errors
/// As [`attention_with`](super::attention_with); for a position out of range; for an order that does not meet each
/// attended key exactly once.
///
/// ```
/// use wgpu_attention::{AttentionShape, Full, reference};
/// let shape = AttentionShape::new(1, 1, 2, 1).q_len(1);
/// let inputs = reference::Inputs { q: &[1.0f32], k: &[1.0, 2.0], v: &[3.0, 5.0], bias: None };
/// let row = reference::row(&shape, &inputs, &Full, reference::Position { batch: 0, head: 0, i: 0 }, None)?;
/// let e = std::f64::consts::E;
/// assert!((row.out[0] - (3.0 + 5.0 * e) / (1.0 + e)).abs() < 1e-15);
/// assert!(row.bound[0] > 0.0 && row.bound[0] < 1e-5);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn row<E: Element>(
    shape: &AttentionShape,
    inputs: &Inputs<'_, E>,
    pattern: &dyn Pattern,
    at: Position,
    order: Option<Walk<'_>>,
) -> Result<Row> {
    let call = Call::new(shape, inputs, pattern)?;
    call.check_position(at)?;
    bounded_row(&call, at, order, WeightFormat::F32)
}

/// [`row`], with the bound of a kernel that keeps weights in another format.
///
/// # Errors
/// As [`row`].
pub fn row_of_format<E: Element>(
    shape: &AttentionShape,
    inputs: &Inputs<'_, E>,
    pattern: &dyn Pattern,
    at: Position,
    order: Option<Walk<'_>>,
    weights: WeightFormat,
) -> Result<Row> {
    let call = Call::new(shape, inputs, pattern)?;
    call.check_position(at)?;
    bounded_row(&call, at, order, weights)
}

/// [`row`] of a call that has been checked.
pub(super) fn bounded_row<E: Element>(
    call: &Call<'_, E>,
    at: Position,
    order: Option<Walk<'_>>,
    weights: WeightFormat,
) -> Result<Row> {
    let exact = solve(call, at);
    let kept = exact.keys.len();
    if kept == 0 {
        let bound = vec![0.0; exact.out.len()];
        return Ok(Row { out: exact.out, lse: exact.lse, bound, lse_bound: 0.0, kept });
    }
    let parts = match order {
        None => vec![(0..kept).collect()],
        Some(order) => locate(&exact.keys, order(at), at)?,
    };
    let bound = bound::bound(call, at, &exact, &parts, weights);
    Ok(Row { out: exact.out, lse: exact.lse, bound: bound.out, lse_bound: bound.lse, kept })
}

/// A row in f64, with what it was made from.
pub(super) struct Exact {
    /// S_i, ascending.
    pub(super) keys: Vec<u32>,
    /// scale q_i . k_j for each of `keys`.
    pub(super) products: Vec<f64>,
    /// score(i, j) for each of `keys`.
    pub(super) scores: Vec<f64>,
    /// o_i, `[dv]`.
    pub(super) out: Vec<f64>,
    pub(super) lse: f64,
}

/// Two passes over S_i: the scores with their maximum M, then
/// l = sum exp(s_j - M), o = sum exp(s_j - M) v_j / l, lse = M + ln l.
pub(super) fn solve<E: Element>(call: &Call<'_, E>, at: Position) -> Exact {
    let keys = call.keys(at);
    let mut out = vec![0.0; call.shape.value_dim];
    if keys.is_empty() {
        return Exact { keys, products: Vec::new(), scores: Vec::new(), out, lse: f64::from(f32::MIN) };
    }
    let q = call.q(at);
    let products: Vec<f64> = keys.iter().map(|&j| call.product(&q, at, j)).collect();
    let scores: Vec<f64> =
        keys.iter().zip(&products).map(|(&j, &product)| call.score(product, at, j)).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);

    let mut l = 0.0;
    for (&j, score) in keys.iter().zip(&scores) {
        let p = (score - max).exp();
        l += p;
        for (o, v) in out.iter_mut().zip(call.v(at, j)) {
            *o += p * v;
        }
    }
    out.iter_mut().for_each(|o| *o /= l);
    Exact { keys, products, scores, out, lse: max + f64::ln(l) }
}

/// The walk in terms of places in `keys`, checked to meet each of them exactly once.
fn locate(keys: &[u32], walk: Vec<Vec<u32>>, at: Position) -> Result<Vec<Vec<usize>>> {
    let mut met = vec![false; keys.len()];
    let mut parts = Vec::with_capacity(walk.len());
    for part in walk {
        let mut places = Vec::with_capacity(part.len());
        for j in part {
            let Ok(place) = keys.binary_search(&j) else { continue };
            if std::mem::replace(&mut met[place], true) {
                return Err(Error::argument(
                    "order",
                    "each attended key once",
                    format!("key {j} twice at {at}"),
                ));
            }
            places.push(place);
        }
        // An empty part is kept: the kernel still reads and rewrites what came before it.
        parts.push(places);
    }
    if let Some(place) = met.iter().position(|met| !met) {
        let got = format!("no key {} at {at}", keys[place]);
        return Err(Error::argument("order", "each attended key once", got));
    }
    Ok(parts)
}
