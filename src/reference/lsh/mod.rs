//! LSH attention by its definition: hash, sort, chunks, and one softmax over all that a query meets.
//!
//! | file | what |
//! |---|---|
//! | `hash.rs` | buckets, and where rounding cannot change them |
//! | `meet.rs` | which keys a query meets, from the buckets alone |
//! | `bound.rs` | one row, and the bound on a kernel's error |
//! | `gradient.rs` | gradients, given the buckets, and their bound |
//! | `verify.rs` | a kernel's buckets, order, rows against all that |

mod bound;
mod gradient;
mod hash;
mod meet;
mod verify;

pub use gradient::{BoundedLshGradients, LshGradients, bounded_lsh_gradient, lsh_gradient};
pub use hash::{LshBuckets, lsh_buckets, lsh_order};
pub use verify::{LshGot, LshReport, verify_lsh};

use super::Output;
use super::terms::Terms;
use crate::inputs::tensor_of;
use crate::lsh::{LshInputs, LshOptions};
use crate::score::Pair;
use crate::{Attention, AttentionShape, Element, Error, Position, Result};
use meet::Meetings;
use rayon::prelude::*;
use std::borrow::Cow;

/// LSH attention (Kitaev 2020) in f64: the buckets of [`lsh_buckets`], then [`lsh_with_buckets`].
///
/// Another algorithm than the kernel's: the rounds are not merged, but each query's keys of all rounds are collected,
/// and one softmax runs over them, whose scores have the terms of the call's [`Score`](crate::Score). NaN and infinity within
/// the tensors reach the rows that meet them, and no others. In time proportional to B H R L (chunks seen) (d + dv), rows in parallel.
///
/// # Errors
/// As [`LshOptions::check`] and [`LshInputs::check`].
///
/// ```
/// use wgpu_attention::{AttentionShape, LshInputs, LshOptions, reference};
/// let shape = AttentionShape::new(1, 1, 4, 2);
/// let options = LshOptions::new(1, 2, 4); // one chunk holds everything
/// let qk = [1.0f32, 0.0, -1.0, 0.0, 0.0, 1.0, 0.0, -1.0];
/// let v = [1.0f32, 0.0, 2.0, 0.0, 3.0, 0.0, 4.0, 0.0];
/// let exact = reference::lsh(&shape, &options, &LshInputs::new(&qk, &v))?;
/// // Query 0 is far from key 1, and as far from key 2 as from key 3; its own key does not count.
/// let weights = [(-(0.5f64.sqrt())).exp(), 1.0, 1.0];
/// let mean = (2.0 * weights[0] + 3.0 + 4.0) / weights.iter().sum::<f64>();
/// assert!((exact.out[0] - mean).abs() < 1e-6);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn lsh<E: Element>(
    attention: impl Into<Attention>,
    options: &LshOptions,
    inputs: &LshInputs<'_, E>,
) -> Result<Output> {
    let attention = attention.into();
    let buckets = lsh_buckets(&attention, options, inputs)?.buckets;
    lsh_with_buckets(&attention, options, inputs, &buckets)
}

/// LSH attention in f64 given the buckets `[B, H, R, L]`, which any system may have computed.
///
/// # Errors
/// As [`lsh`](fn@lsh), and [`Error::Argument`] for buckets of another length or past the last one.
pub fn lsh_with_buckets<E: Element>(
    attention: impl Into<Attention>,
    options: &LshOptions,
    inputs: &LshInputs<'_, E>,
    buckets: &[u32],
) -> Result<Output> {
    let attention = attention.into();
    let shape = &attention.shape;
    let call = LshCall::new(&attention, options, inputs)?;
    let lines = call.meetings(buckets)?;
    let rows = shape.len_lse();
    let mut out = vec![0.0; rows * shape.value_dim];
    let mut lse = vec![0.0; rows];
    out.par_chunks_mut(shape.value_dim).zip(lse.par_iter_mut()).enumerate().for_each(|(n, (out, lse))| {
        let row = bound::solve(&call, &lines[n / shape.q_len], Position::of_row(shape, n)).exact;
        out.copy_from_slice(&row.out);
        *lse = row.lse;
    });
    Ok(Output { out, lse })
}

/// Tensors whose sizes have been checked, read in f64; and the score.
struct LshCall<'a> {
    attention: &'a Attention,
    shape: &'a AttentionShape,
    options: &'a LshOptions,
    /// In f32, which holds every element type exactly, so that what follows is compiled once.
    qk: Cow<'a, [f32]>,
    v: Cow<'a, [f32]>,
    key_mask: Option<&'a [bool]>,
    terms: Terms<'a>,
}

impl<'a> LshCall<'a> {
    fn new<E: Element>(
        attention: &'a Attention,
        options: &'a LshOptions,
        inputs: &'a LshInputs<'a, E>,
    ) -> Result<Self> {
        options.check(attention)?;
        if attention.storage.q != E::TYPE {
            let need = format!("{}, as the storage says", attention.storage.q);
            return Err(Error::argument("qk and v", need, E::TYPE));
        }
        inputs.check(attention, options)?;
        Ok(Self {
            attention,
            shape: &attention.shape,
            options,
            qk: E::widened(inputs.qk),
            v: E::widened(inputs.v),
            key_mask: inputs.key_mask,
            terms: Terms::new(attention, |name| tensor_of(&inputs.tensors, name)),
        })
    }

    /// x_i, as it is stored, of a row's batch item and head.
    fn stored(&self, row: Position, i: usize) -> &[f32] {
        let at = self.attention.q_strides().at(row.batch, row.head, i);
        &self.qk[at..at + self.shape.head_dim]
    }

    /// The same in f64.
    fn x(&self, row: Position, i: usize) -> Vec<f64> {
        self.stored(row, i).iter().map(|&x| x.into()).collect()
    }

    fn v(&self, row: Position, j: usize) -> impl Iterator<Item = f64> + '_ {
        let at = self.attention.v_strides().at(row.batch, row.head, j);
        self.v[at..at + self.shape.value_dim].iter().map(|&v| v.into())
    }

    /// What terms are asked: by the positions, whatever the places. (None of them reads rows: those that do are refused.)
    fn pair(&self, row: Position, j: usize) -> Pair<'_> {
        Pair {
            batch: row.batch,
            head: row.head,
            i: row.i,
            j,
            position: row.i as i64,
            q: self.stored(row, row.i),
            k: self.stored(row, j),
            scale: f64::from(self.attention.scale_value()),
            shape: self.shape,
        }
    }

    /// Whether the key mask hides a position.
    fn hidden(&self, batch: usize, j: usize) -> bool {
        self.key_mask.is_some_and(|mask| !mask[batch * self.shape.q_len + j])
    }

    /// Who meets whom in each line, given all buckets.
    fn meetings(&self, buckets: &[u32]) -> Result<Vec<Meetings>> {
        let need = self.options.len_buckets(self.shape);
        if buckets.len() != need {
            let got = format!("{} elements", buckets.len());
            return Err(Error::argument("buckets", format!("{need} elements"), got));
        }
        let last = self.options.bucket_count() - usize::from(!self.options.key_mask);
        if let Some(bucket) = buckets.iter().find(|&&bucket| bucket as usize > last) {
            return Err(Error::argument("buckets", format!("at most {last}"), bucket));
        }
        if need == 0 {
            return Ok(vec![]);
        }
        let line_places = self.options.rounds * self.shape.q_len;
        Ok(buckets
            .par_chunks(line_places)
            .map(|line| Meetings::new(self.options, self.shape.q_len, line))
            .collect())
    }
}
