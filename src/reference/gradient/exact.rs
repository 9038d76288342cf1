//! Gradients by the formula, in f64.

use super::call::{Derivatives, GradientCall, Row};
use crate::pattern::Pattern;
use crate::reference::Position;
use crate::score::Known;
use crate::{Attention, Element, Inputs, Result};
use rayon::prelude::*;

/// The gradients of an attention call, in f64 and contiguous, whatever the layouts of its tensors.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Gradients {
    /// By q, `[B, H, Lq, d]`.
    pub dq: Vec<f64>,
    /// By k, `[B, Hkv, Lk, d]`: summed over the query heads that share it.
    pub dk: Vec<f64>,
    /// By v, `[B, Hkv, Lk, dv]`: summed like `dk`.
    pub dv: Vec<f64>,
    /// By each tensor that the caller gives for a term of the score, by its name and in its own shape: summed over all pairs
    /// that read an element. In the order of [`Score::tensors`](crate::Score::tensors), without those of a
    /// [`Custom`](crate::Custom) term that have no gradient.
    pub terms: Vec<(&'static str, Vec<f64>)>,
}

impl Gradients {
    /// By the tensor of a term.
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
    let call = GradientCall::new(&attention, inputs, dout, pattern)?;
    Ok(gradients(&call, &call.rows()))
}

/// The gradients from what the softmax of every row leaves.
pub(super) fn gradients(call: &GradientCall<'_>, rows: &[Row]) -> Gradients {
    let shape = call.shape();
    let mut dq = vec![0.0; rows.len() * shape.head_dim];
    dq.par_chunks_mut(shape.head_dim).zip(rows).for_each(|(dq, row)| query(call, row, dq));

    let keys = shape.key_rows().iter().product::<usize>();
    let (mut dk, mut dv) = (vec![0.0; keys * shape.head_dim], vec![0.0; keys * shape.value_dim]);
    let columns = dk.par_chunks_mut(shape.head_dim).zip(dv.par_chunks_mut(shape.value_dim)).enumerate();
    columns.for_each(|(n, (dk, dv))| key(call, rows, n, dk, dv));
    Gradients { dq, dk, dv, terms: terms(call, rows) }
}

/// p_ij, ds_ij, and the derivatives of the score.
pub(super) fn pair(call: &GradientCall<'_>, row: &Row, j: u32) -> (f64, f64, Derivatives) {
    let product = Known { score: row.product(call, j), error: 0.0 };
    let by = call.derivatives(row.at, j, product);
    let p = row.weight(by.score.score);
    (p, p * (row.dp(call, j) - row.d), by)
}

/// dq_i.
fn query(call: &GradientCall<'_>, row: &Row, dq: &mut [f64]) {
    for &j in &row.keys {
        let (_, ds, by) = pair(call, row, j);
        let factor = call.scale() * ds * by.slope.score;
        dq.iter_mut().zip(call.call.k(row.at, j)).for_each(|(dq, k)| *dq += factor * k);
        for added in &by.products {
            add(dq, ds * added.slope.score, &added.products.q);
        }
    }
}

/// dk_j and dv_j of the n-th row of `[B, Hkv, Lk]`.
fn key(call: &GradientCall<'_>, rows: &[Row], n: usize, dk: &mut [f64], dv: &mut [f64]) {
    for (row, j) in queries(call, rows, n) {
        let (p, ds, by) = pair(call, row, j);
        let factor = call.scale() * ds * by.slope.score;
        add(dk, factor, &row.q);
        add(dv, p * call.call.share(row.at, j), &row.dout);
        for added in &by.products {
            add(dk, ds * added.slope.score, &added.products.k);
        }
    }
}

fn add(sum: &mut [f64], factor: f64, x: &[f64]) {
    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += factor * x);
}

/// The rows that see the n-th key of `[B, Hkv, Lk]`, and the key: head after head of the group.
pub(super) fn queries<'r>(
    call: &GradientCall<'_>,
    rows: &'r [Row],
    n: usize,
) -> impl Iterator<Item = (&'r Row, u32)> {
    let shape = *call.shape();
    let (rest, j) = (n / shape.kv_len, (n % shape.kv_len) as u32);
    let (batch, kv_head) = (rest / shape.kv_heads, rest % shape.kv_heads);
    let group = shape.heads / shape.kv_heads;
    let at = Position { batch, head: kv_head * group, i: 0 };
    let first = at.row(&shape);
    let rows = rows[first..first + group * shape.q_len].iter();
    rows.filter(move |row| row.keys.binary_search(&j).is_ok()).map(move |row| (row, j))
}

/// Rows whose pairs are held at a time, before they are added up.
const ROWS_AT_ONCE: usize = 32;

/// The gradients of the terms' tensors, added up in the order of the rows.
fn terms(call: &GradientCall<'_>, rows: &[Row]) -> Vec<(&'static str, Vec<f64>)> {
    let tensors = call.call.attention.score.tensors(call.shape());
    let mut sums: Vec<_> = tensors.iter().map(|tensor| (tensor.name, vec![0.0; tensor.len])).collect();
    if sums.is_empty() {
        return sums;
    }
    let of_row = |row: &Row| -> Vec<(usize, usize, f64)> {
        let of_pair = |&j: &u32| {
            let (_, ds, by) = pair(call, row, j);
            elements(&by).map(|(tensor, n, by)| (tensor, n, ds * by)).collect::<Vec<_>>()
        };
        row.keys.iter().flat_map(of_pair).collect()
    };
    for rows in rows.chunks(ROWS_AT_ONCE) {
        let parts: Vec<_> = rows.par_iter().map(of_row).collect();
        parts.into_iter().flatten().for_each(|(tensor, n, ds)| sums[tensor].1[n] += ds);
    }
    sums.retain(|(name, _)| call.call.attention.score.gradient(name, call.shape()).is_some());
    if let Some((_, sinks)) = sums.iter_mut().find(|(name, _)| *name == "sinks") {
        rows.iter().for_each(|row| sinks[row.at.head] += row.sink_gradient());
    }
    sums
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
