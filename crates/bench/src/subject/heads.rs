//! A few heads of a call, as calls of their own: for kernels whose reference must look at all keys of a head, whatever rows are compared.

use super::{joined, verification};
use crate::record::Verification;
use anyhow::{Context, Result, ensure};
use wgpu_attention::reference::Report;
use wgpu_attention::{Attention, AttentionShape};

/// Refuses calls whose heads are not one behind the other.
pub(super) fn check(shape: &AttentionShape) -> Result<()> {
    let plain = shape.batch == 1 && shape.heads == shape.kv_heads;
    ensure!(plain, "need one batch item, and as many key heads as query heads");
    Ok(())
}

/// The heads that [`compared`] picks, each judged by itself.
pub(super) fn judged(
    shape: &AttentionShape,
    judge: impl Fn(Head) -> wgpu_attention::Result<Report>,
) -> Result<Verification> {
    let mut all = None;
    for head in compared(shape) {
        let mut report = judge(heads(shape, head, 1))?;
        report.worst_out.iter_mut().for_each(|worst| worst.position.head = head);
        all = Some(joined(all, verification(&report, shape.len_lse())));
    }
    all.context("need a head")
}

/// Elements of q, of k, of v and of out from a head's first on, of contiguous tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) q: (usize, usize),
    pub(super) k: (usize, usize),
    pub(super) v: (usize, usize),
    pub(super) out: (usize, usize),
}

/// A range of heads, of a batch of 1.
pub(super) fn heads(shape: &AttentionShape, first: usize, count: usize) -> Head {
    let queries = |dim: usize| (first * shape.q_len * dim, count * shape.q_len * dim);
    let keys = |dim: usize| (first * shape.kv_len * dim, count * shape.kv_len * dim);
    Head {
        q: queries(shape.head_dim),
        k: keys(shape.head_dim),
        v: keys(shape.value_dim),
        out: queries(shape.value_dim),
    }
}

/// The call of so many of the heads.
pub(super) fn call_of(attention: &Attention, count: usize) -> Attention {
    let mut call = attention.clone();
    call.shape.heads = count;
    call.shape.kv_heads = count;
    call
}

/// A part of a tensor.
pub(super) fn part<E>(tensor: &[E], (at, len): (usize, usize)) -> &[E] {
    &tensor[at..at + len]
}

/// The heads that are compared: all of a short call, else the first and the last.
pub(super) fn compared(shape: &AttentionShape) -> Vec<usize> {
    const SHORT: usize = 2048;
    if shape.kv_len <= SHORT {
        return (0..shape.heads).collect();
    }
    let mut heads = vec![0, shape.heads - 1];
    heads.dedup();
    heads
}
