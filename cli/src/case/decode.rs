//! Cases of decoding with a key cache.

use super::{Content, flag_of, number_of, size_of, unknown};
use crate::tensors::{Tensors, wrong};
use anyhow::{Context, Result};
use serde_json::{Map, Value};
use wgpu_attention::{CacheShape, DecodeShape, RotaryPairs};

/// Sequences that a cache takes step by step, and what their queries give.
#[derive(Debug)]
pub(crate) struct Decode {
    /// f32, contiguous, with counts and lse.
    pub(crate) shape: DecodeShape,
    /// New positions by step and sequence.
    pub(crate) steps: Vec<Vec<usize>>,
    /// L, positions of every tensor: the sequences have their own lengths.
    pub(crate) len: usize,
    /// `[B, H, L, d]`.
    pub(crate) q: Vec<f32>,
    /// `[B, Hkv, L, d]`.
    pub(crate) k: Vec<f32>,
    /// `[B, Hkv, L, dv]`; a part of k, where the shape says so.
    pub(crate) v: Vec<f32>,
    /// cos and sin, `[capacity, r/2]`.
    pub(crate) tables: Option<[Vec<f32>; 2]>,
    /// `[B, H, L, dv]`.
    pub(crate) out: Vec<f32>,
    /// `[B, H, L]`.
    pub(crate) lse: Option<Vec<f32>>,
    pub(crate) allowance: f64,
}

const KEYS: [&str; 7] =
    ["capacity", "scale", "window", "sinks", "rotary_dim", "interleaved", "values_in_keys"];
const TENSORS: [&str; 8] = ["q", "k", "v", "counts", "cos", "sin", "out", "lse"];

/// Reads a case of the op `decode`.
pub(super) fn decode(file: &Tensors<'_>, keys: &Map<String, Value>) -> Result<Content> {
    if let Some(reason) = unknown(file, keys, &KEYS, &TENSORS) {
        return Ok(Content::Unsupported(reason));
    }
    let [q, k, out] = [file.need("q")?, file.need("k")?, file.need("out")?];
    let &[batch, heads, len, head_dim] = &q.shape[..] else {
        return Err(wrong("q", "[B, H, L, d]", format!("{:?}", q.shape)));
    };
    let (&[_, kv_heads, ..], &[.., value_dim]) = (&k.shape[..], &out.shape[..]) else {
        return Err(wrong("k", "[B, Hkv, L, d], and out likewise", format!("{:?}", k.shape)));
    };
    k.expect(&[batch, kv_heads, len, head_dim], "[B, Hkv, L, d]")?;
    out.expect(&[batch, heads, len, value_dim], "[B, H, L, dv]")?;
    let lse = file.find("lse");
    lse.as_ref().map(|lse| lse.expect(&[batch, heads, len], "[B, H, L]")).transpose()?;
    let capacity = size_of(keys, "capacity")?.context("capacity: need a whole number, got none")?;
    let steps = steps(file, batch, len.min(capacity))?;
    let most_new = steps.iter().flatten().copied().max().unwrap_or(0);
    let cache = CacheShape::new(batch, kv_heads, capacity, head_dim).value_dim(value_dim);
    let cache = match size_of(keys, "values_in_keys")? {
        Some(start) => cache.values_in_keys(start..start.saturating_add(value_dim)),
        None => cache,
    };
    let shape = DecodeShape::new(cache, heads, most_new)
        .scale(number_of(keys, "scale")?.map(|scale| scale as f32))
        .window(size_of(keys, "window")?)
        .sinks(size_of(keys, "sinks")?.unwrap_or(0))
        .rotary(rotary(file, keys)?)
        .counts(true)
        .lse(true);
    shape.check()?;
    let k = k.floats()?;
    Ok(Content::Decode(Box::new(Decode {
        steps,
        len,
        q: q.floats()?,
        v: values(file, &shape, &k, [batch, kv_heads, len, value_dim])?,
        k,
        tables: tables(file, &shape)?,
        out: out.floats()?,
        lse: lse.map(|lse| lse.floats()).transpose()?,
        allowance: super::allowance(keys, "out")?.unwrap_or(0.0),
        shape,
    })))
}

/// v, which is there unless values are a part of keys.
fn values(file: &Tensors<'_>, shape: &DecodeShape, k: &[f32], sizes: [usize; 4]) -> Result<Vec<f32>> {
    match (shape.cache.value_start, file.find("v")) {
        (None, _) => {
            let v = file.need("v")?;
            v.expect(&sizes, "[B, Hkv, L, dv]")?;
            v.floats()
        }
        (Some(_), Some(_)) => Err(wrong("v", "none, as values are a part of keys", "a tensor")),
        (Some(start), None) => {
            let part = |key: &[f32]| key[start..start + shape.cache.value_dim].to_vec();
            Ok(k.chunks(shape.cache.head_dim).flat_map(part).collect())
        }
    }
}

/// How many elements turn, and which together.
fn rotary(file: &Tensors<'_>, keys: &Map<String, Value>) -> Result<Option<(usize, RotaryPairs)>> {
    let Some(dim) = size_of(keys, "rotary_dim")? else {
        return match ["cos", "sin"].into_iter().find(|table| file.find(table).is_some()) {
            Some(table) => Err(wrong(table, "none, as there is no rotary_dim", "a tensor")),
            None => Ok(None),
        };
    };
    let interleaved = flag_of(keys, "interleaved")?.unwrap_or(false);
    Ok(Some((dim, if interleaved { RotaryPairs::Interleaved } else { RotaryPairs::HalfSplit })))
}

fn tables(file: &Tensors<'_>, shape: &DecodeShape) -> Result<Option<[Vec<f32>; 2]>> {
    let Some((dim, _)) = shape.rotary else { return Ok(None) };
    let table = |name| {
        let table = file.need(name)?;
        table.expect(&[shape.cache.capacity, dim / 2], "[capacity, rotary_dim / 2]")?;
        table.floats()
    };
    Ok(Some([table("cos")?, table("sin")?]))
}

/// New positions by step and sequence, of which no sequence has more than `most` in all.
fn steps(file: &Tensors<'_>, batch: usize, most: usize) -> Result<Vec<Vec<usize>>> {
    let counts = file.need("counts")?;
    let &[steps, _] = &counts.shape[..] else {
        return Err(wrong("counts", "[steps, B]", format!("{:?}", counts.shape)));
    };
    counts.expect(&[steps, batch], "[steps, B]")?;
    let counts: Vec<usize> = counts.indices()?.into_iter().map(|count| count as usize).collect();
    let steps: Vec<Vec<usize>> = counts.chunks(batch.max(1)).map(<[usize]>::to_vec).collect();
    for b in 0..batch {
        let length: usize = steps.iter().map(|counts| counts[b]).sum();
        if length > most {
            let need = format!("at most {most} positions of a sequence, by L and the capacity");
            return Err(wrong("counts", need, format!("{length} of sequence {b}")));
        }
    }
    match counts.iter().any(|&count| count > 0) {
        true => Ok(steps),
        false => Err(wrong("counts", "a new position", "none")),
    }
}

impl Decode {
    /// How long the sequences are after the last step.
    pub(crate) fn lengths(&self) -> Vec<usize> {
        let length = |b: usize| self.steps.iter().map(|counts| counts[b]).sum();
        (0..self.shape.cache.batch).map(length).collect()
    }

    /// Sequence b of a tensor `[B, heads, L, dim]`, without what is behind its length: `[heads, length, dim]`.
    pub(crate) fn sequence<T: Copy>(&self, x: &[T], heads: usize, dim: usize, b: usize) -> Vec<T> {
        let length = self.lengths()[b];
        let of_head = |head: usize| &x[(b * heads + head) * self.len * dim..][..length * dim];
        (0..heads).flat_map(|head| of_head(head).iter().copied()).collect()
    }
}
