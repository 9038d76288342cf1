//! One row of attention by the formula, and how far a kernel may be from it.

use super::bound;
use super::call::Call;
use super::exact::solve;
use super::weights::WeightFormat;
use crate::Position;
use crate::pattern::Pattern;
use crate::{Attention, Element, Error, Inputs, Result};

/// The order in which a kernel walks the keys of a row: per part, the attended keys as they are met. The parts are
/// merged one after the other by log-sum-exp. Keys that the row does not attend may be listed; they are ignored.
pub type Walk<'a> = &'a (dyn Fn(Position) -> Vec<Vec<u32>> + Sync);

/// In how many tiles of 16 keys, counted in places of the walk, a kernel meets the keys of a row, over all parts: it adds up
/// each tile by itself, so that its longest chain of additions is that much shorter. See
/// [`Parts::key_tiles`](crate::Parts::key_tiles).
pub type Tiles<'a> = &'a (dyn Fn(Position) -> usize + Sync);

/// Keys of the smallest tile that a kernel adds up by itself.
pub(super) const LEAST_TILE: u32 = 16;
/// And of the largest.
const MOST_TILE: usize = 128;

/// One row of the reference, with the bound of `reference/bound.rs` on a kernel's error.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Row {
    /// o_i, `[dv]`; 0 without keys; all NaN where the row attends a NaN or an infinity, be it of q, of k or of v.
    pub out: Vec<f64>,
    /// lse_i; without keys the sink, or `f32::MIN` without one; NaN where `out` is.
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
/// let inputs = reference::Inputs::new(&[1.0f32], &[1.0f32, 2.0], &[3.0, 5.0]);
/// let row = reference::row(&shape, &inputs, &Full, reference::Position { batch: 0, head: 0, i: 0 }, None)?;
/// let e = std::f64::consts::E;
/// assert!((row.out[0] - (3.0 + 5.0 * e) / (1.0 + e)).abs() < 1e-15);
/// assert!(row.bound[0] > 0.0 && row.bound[0] < 1e-5);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn row<Q: Element, KV: Element>(
    attention: impl Into<Attention>,
    inputs: &Inputs<'_, Q, KV>,
    pattern: &dyn Pattern,
    at: Position,
    order: Option<Walk<'_>>,
) -> Result<Row> {
    let attention = attention.into();
    let call = Call::new(&attention, inputs, pattern)?;
    call.check_position(at)?;
    bounded_row(&call, at, order, None, WeightFormat::F32)
}

/// [`row`], with the bound of a kernel that keeps weights in another format.
///
/// # Errors
/// As [`row`].
pub fn row_of_format<Q: Element, KV: Element>(
    attention: impl Into<Attention>,
    inputs: &Inputs<'_, Q, KV>,
    pattern: &dyn Pattern,
    at: Position,
    order: Option<Walk<'_>>,
    weights: WeightFormat,
) -> Result<Row> {
    let attention = attention.into();
    let call = Call::new(&attention, inputs, pattern)?;
    call.check_position(at)?;
    bounded_row(&call, at, order, None, weights)
}

/// [`row`] of a call that has been checked.
pub(super) fn bounded_row(
    call: &Call<'_>,
    at: Position,
    order: Option<Walk<'_>>,
    tiles: Option<Tiles<'_>>,
    weights: WeightFormat,
) -> Result<Row> {
    let exact = solve(call, at);
    let kept = exact.keys.len();
    if kept == 0 && exact.sink.is_none() {
        let bound = vec![0.0; exact.out.len()];
        return Ok(Row { out: exact.out, lse: exact.lse, bound, lse_bound: 0.0, kept });
    }
    let (parts, chain) = walked(&exact.keys, at, order, tiles, weights)?;
    if exact.lse.is_nan() {
        // What is not finite is to be seen, not bounded.
        let bound = vec![0.0; exact.out.len()];
        return Ok(Row { out: exact.out, lse: exact.lse, bound, lse_bound: 0.0, kept });
    }
    let mut bound = bound::bound(call, at, &exact, &parts, chain, weights);
    if kept == 0 {
        bound.out.fill(0.0);
    }
    Ok(Row { out: exact.out, lse: exact.lse, bound: bound.out, lse_bound: bound.lse, kept })
}

/// How a kernel walks the keys of a row: the places in `keys` by parts, and the longest chain of additions over them.
pub(super) fn walked(
    keys: &[u32],
    at: Position,
    order: Option<Walk<'_>>,
    tiles: Option<Tiles<'_>>,
    weights: WeightFormat,
) -> Result<(Vec<Vec<usize>>, usize)> {
    let kept = keys.len();
    let parts = match order {
        None => vec![(0..kept).collect()],
        Some(order) => locate(keys, order(at), at)?,
    };
    // In natural order tiles are stretches of keys; in another, each key may have a tile of its own.
    let tiles = match (tiles, order) {
        (Some(tiles), _) => tiles(at),
        (None, None) => keys.chunk_by(|a, b| a / LEAST_TILE == b / LEAST_TILE).count(),
        (None, Some(_)) => kept,
    };
    let chain = if weights.tiles { chain(kept, tiles) } else { kept };
    Ok((parts, chain))
}

/// The longest chain of additions over so many pairs in so many tiles.
pub(super) fn chain(pairs: usize, tiles: usize) -> usize {
    pairs.min(MOST_TILE + tiles)
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
