//! Gradients by the formula, in f64.

use super::call::{GradientCall, Row, add};
use super::derivatives::Derivatives;
use crate::pattern::Pattern;
use crate::reference::Position;
use crate::{Attention, AttentionShape, Element, Inputs, Result};
use rayon::prelude::*;
use std::ops::Range;

/// The gradients of an attention call, in f64 and contiguous, whatever the layouts of its tensors.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Gradients {
    /// The gradient by q, `[B, H, Lq, d]`.
    pub dq: Vec<f64>,
    /// The gradient by k, `[B, Hkv, Lk, d]`: summed over the query heads that share it.
    pub dk: Vec<f64>,
    /// The gradient by v, `[B, Hkv, Lk, dv]`: summed like `dk`.
    pub dv: Vec<f64>,
    /// The gradient by each tensor that the caller gives for a term of the score, by its name and in its own shape: summed over all pairs
    /// that read an element. In the order of [`Score::tensors`](crate::Score::tensors), without those of a
    /// [`Custom`](crate::Custom) term that have no gradient.
    pub terms: Vec<(&'static str, Vec<f64>)>,
}

impl Gradients {
    /// The gradient by the tensor of this name.
    pub fn term(&self, name: &str) -> Option<&[f64]> {
        self.terms.iter().find(|(own, _)| *own == name).map(|(_, values)| values.as_slice())
    }
}

/// The gradients of sum(out * dout), where out is what [`attention_with`](crate::reference::attention_with) gives; dout
/// `[B, H, Lq, dv]` in the element type and layout of out. In time proportional to B H Lq Lk (d + dv), in parallel.
///
/// A row without keys, and a key that no query attends, get exactly 0. Values that are not finite reach the gradients of the rows
/// and keys that depend on them, and no others: dout of a row without keys, and what no pair of S reads, reach none.
///
/// # Errors
/// As [`attention_with`](crate::reference::attention_with), and [`Error::Argument`](crate::Error::Argument) for a `dout` of the
/// wrong length or element type.
pub fn attention_gradient<Q: Element, KV: Element, O: Element>(
    attention: impl Into<Attention>,
    inputs: &Inputs<'_, Q, KV>,
    dout: &[O],
    pattern: &dyn Pattern,
) -> Result<Gradients> {
    let attention = attention.into();
    Ok(of_call(&GradientCall::new(&attention, inputs, dout, pattern)?))
}

/// The gradients of a call.
pub(in crate::reference) fn of_call(call: &GradientCall<'_>) -> Gradients {
    let mut sums = Sums::new(call);
    for rows in blocks(call.shape()) {
        let rows = rows.into_par_iter().map(|n| Row::new(call, Position::of_row(call.shape(), n)));
        sums.add(&rows.collect::<Vec<_>>());
    }
    sums.gradients()
}

/// The gradients, added up row by row.
pub(super) struct Sums<'a> {
    call: &'a GradientCall<'a>,
    dq: Vec<f64>,
    /// dk and dv of each key.
    keys: Vec<[Vec<f64>; 2]>,
    terms: Vec<(&'static str, Vec<f64>)>,
}

impl<'a> Sums<'a> {
    pub(super) fn new(call: &'a GradientCall<'a>) -> Self {
        let shape = call.shape();
        let key = || [vec![0.0; shape.head_dim], vec![0.0; shape.value_dim]];
        let keys = (0..shape.key_rows().iter().product()).map(|_| key()).collect();
        let tensors = call.call.attention.score.tensors(shape).into_iter();
        let terms = tensors.map(|tensor| (tensor.name, vec![0.0; tensor.len])).collect();
        Self { call, dq: vec![], keys, terms }
    }

    /// Adds the next rows.
    pub(super) fn add(&mut self, rows: &[Row]) {
        let call = self.call;
        rows.iter().for_each(|row| self.dq.extend(&row.dq));
        by_key(call.shape(), rows, &mut self.keys, |[dk, dv], n, key| {
            let row = &rows[n];
            let (j, pair) = (row.keys()[key], &row.pairs[key]);
            add(dk, call.scale() * pair.ds * pair.by.slope.score, &row.q);
            add(dv, pair.p * call.call.share(row.at, j), &row.dout);
            for added in &pair.by.products {
                add(dk, pair.ds * added.slope.score, &added.products.k);
            }
        });
        if !self.terms.is_empty() {
            rows.iter().for_each(|row| self.add_terms(row));
        }
    }

    fn add_terms(&mut self, row: &Row) {
        for pair in &row.pairs {
            for (tensor, n, by) in elements(&pair.by) {
                self.terms[tensor].1[n] += pair.ds * by;
            }
        }
        if let Some((_, sinks)) = self.terms.iter_mut().find(|(name, _)| *name == "sinks") {
            sinks[row.at.head] += row.sink_gradient();
        }
    }

    pub(super) fn gradients(mut self) -> Gradients {
        let (shape, score) = (self.call.shape(), &self.call.call.attention.score);
        self.terms.retain(|(name, _)| score.gradient(name, shape).is_some());
        let (dk, dv): (Vec<_>, Vec<_>) = self.keys.into_iter().map(|[dk, dv]| (dk, dv)).unzip();
        Gradients { dq: self.dq, dk: dk.concat(), dv: dv.concat(), terms: self.terms }
    }
}

/// Pairs that are held at a time, before they are added up: enough for every core, few enough for its cache.
const PAIRS_AT_ONCE: usize = 1 << 13;

/// The rows of a call, in order, as many at a time as have so many pairs at most.
pub(super) fn blocks(shape: &AttentionShape) -> impl Iterator<Item = Range<usize>> {
    let at_once = (PAIRS_AT_ONCE / shape.kv_len.max(1)).max(rayon::current_num_threads());
    let rows = shape.len_lse();
    (0..rows).step_by(at_once).map(move |first| first..rows.min(first + at_once))
}

/// Calls `add` with the sums of a key, a row of the block that sees it, and the key's place in the row: for each key row after row.
pub(super) fn by_key<S: Send>(
    shape: &AttentionShape,
    rows: &[Row],
    sums: &mut [S],
    add: impl Fn(&mut S, usize, usize) + Sync,
) {
    let first_key = |row: &Row| (row.at.batch * shape.kv_heads + shape.kv_head(row.at.head)) * shape.kv_len;
    let (Some(first), Some(last)) = (rows.first().map(first_key), rows.last().map(first_key)) else { return };
    let sums = &mut sums[first..last + shape.kv_len];
    // A few pieces per core, so that none waits for long.
    let at_once = sums.len().div_ceil(4 * rayon::current_num_threads()).max(1);
    sums.par_chunks_mut(at_once).enumerate().for_each(|(piece, sums)| {
        let begin = first + piece * at_once;
        for (n, row) in rows.iter().enumerate() {
            let (keys, own) = (row.keys(), first_key(row));
            let below = |end: usize| keys.partition_point(|&j| own + (j as usize) < end);
            for key in below(begin)..below(begin + sums.len()) {
                add(&mut sums[own + keys[key] as usize - begin], n, key);
            }
        }
    });
}

/// The elements of the terms' tensors that a pair reads: which tensor, which element, and the derivative of the score by it.
pub(super) fn elements(by: &Derivatives) -> impl Iterator<Item = (usize, usize, f64)> {
    let of_rows = by.products.iter().flat_map(|added| {
        added.products.rows.iter().flat_map(move |(tensor, first, values)| {
            let at = move |(n, value): (usize, &f64)| {
                (added.first_tensor + tensor, first + n, added.slope.score * value)
            };
            values.iter().enumerate().map(at)
        })
    });
    by.elements.iter().map(|element| (element.tensor, element.n, element.by.score)).chain(of_rows)
}
