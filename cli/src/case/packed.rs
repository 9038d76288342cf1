//! Cases of packed sequences.

use super::{Content, number_of, size_of, unknown};
use crate::tensors::{Tensors, wrong};
use anyhow::Result;
use serde_json::{Map, Value};
use std::ops::Range;
use wgpu_attention::PackedShape;

/// Sequences that lie packed in tensors `[rows, heads, dim]`, and what their queries give.
#[derive(Debug)]
pub(crate) struct Packed {
    /// f32, with lse.
    pub(crate) shape: PackedShape,
    /// Where each sequence's queries begin, and where the last ones end, `[B + 1]`; and the same of keys.
    pub(crate) offsets: [Vec<u32>; 2],
    /// `[rows of queries, H, d]`.
    pub(crate) q: Vec<f32>,
    /// `[rows of keys, Hkv, d]`.
    pub(crate) k: Vec<f32>,
    /// `[rows of keys, Hkv, dv]`.
    pub(crate) v: Vec<f32>,
    /// `[rows of queries, H, dv]`.
    pub(crate) out: Vec<f32>,
    /// `[H, rows of queries]`.
    pub(crate) lse: Option<Vec<f32>>,
    pub(crate) allowance: f64,
}

const KEYS: [&str; 4] = ["scale", "before", "after", "sinks"];
const TENSORS: [&str; 7] = ["q", "k", "v", "cu_seqlens_q", "cu_seqlens_k", "out", "lse"];

/// Reads a case of the op `packed`.
pub(super) fn packed(file: &Tensors<'_>, keys: &Map<String, Value>) -> Result<Content> {
    if let Some(reason) = unknown(file, keys, &KEYS, &TENSORS) {
        return Ok(Content::Unsupported(reason));
    }
    let [q, k, v, out] = [file.need("q")?, file.need("k")?, file.need("v")?, file.need("out")?];
    let &[q_rows, heads, head_dim] = &q.shape[..] else {
        return Err(wrong("q", "[rows, H, d]", format!("{:?}", q.shape)));
    };
    let &[kv_rows, kv_heads, value_dim] = &v.shape[..] else {
        return Err(wrong("v", "[keys, Hkv, dv]", format!("{:?}", v.shape)));
    };
    k.expect(&[kv_rows, kv_heads, head_dim], "[keys, Hkv, d]")?;
    out.expect(&[q_rows, heads, value_dim], "[rows, H, dv]")?;
    let lse = file.find("lse");
    lse.as_ref().map(|lse| lse.expect(&[heads, q_rows], "[H, rows]")).transpose()?;
    let offsets = [offsets(file, "cu_seqlens_q", q_rows)?, offsets(file, "cu_seqlens_k", kv_rows)?];
    let sequences = offsets[0].len() - 1;
    if offsets[1].len() != sequences + 1 {
        return Err(wrong("cu_seqlens_k", format!("[B + 1] = [{}]", sequences + 1), offsets[1].len()));
    }
    if offsets[0][sequences] == 0 {
        return Err(wrong("cu_seqlens_q", "a query", "none"));
    }
    let shape = PackedShape::new(sequences, heads, [q_rows, kv_rows], head_dim)
        .kv_heads(kv_heads)
        .value_dim(value_dim)
        .scale(number_of(keys, "scale")?.map(|scale| scale as f32))
        .before(size_of(keys, "before")?)
        .after(size_of(keys, "after")?)
        .sinks(size_of(keys, "sinks")?.unwrap_or(0))
        .lse(true);
    shape.check()?;
    let (out, lse) = (out.floats()?, lse.map(|lse| lse.floats()).transpose()?);
    check_rows_of_nobody(&shape, offsets[0][sequences] as usize, &out, lse.as_deref())?;
    Ok(Content::Packed(Box::new(Packed {
        offsets,
        q: q.floats()?,
        k: k.floats()?,
        v: v.floats()?,
        out,
        lse,
        allowance: super::allowance(keys, "out")?.unwrap_or(0.0),
        shape,
    })))
}

/// Rows from `first` on belong to no sequence: they are 0, with the lse of a row without keys.
fn check_rows_of_nobody(shape: &PackedShape, first: usize, out: &[f32], lse: Option<&[f32]>) -> Result<()> {
    let width = shape.heads * shape.value_dim;
    if let Some(n) = out[first * width..].iter().position(|&x| x != 0.0) {
        return Err(wrong(
            "out",
            "0 in rows of no sequence",
            format!("another number in row {}", first + n / width),
        ));
    }
    let full = |(n, lse): &(usize, &f32)| n % shape.q_rows >= first && **lse != f32::MIN;
    match lse.into_iter().flatten().enumerate().find(full) {
        Some((n, _)) => Err(wrong(
            "lse",
            "f32::MIN in rows of no sequence",
            format!("another number in row {}", n % shape.q_rows),
        )),
        None => Ok(()),
    }
}

/// Offsets into so many rows: from 0 on, and never down.
fn offsets(file: &Tensors<'_>, name: &str, rows: usize) -> Result<Vec<u32>> {
    let tensor = file.need(name)?;
    let offsets = tensor.indices()?;
    if tensor.shape.len() != 1 || offsets.len() < 2 {
        return Err(wrong(name, "[B + 1]", format!("{:?}", tensor.shape)));
    }
    let last = offsets[offsets.len() - 1];
    match offsets[0] == 0 && offsets.is_sorted() && last as usize <= rows {
        true => Ok(offsets),
        false => Err(wrong(
            name,
            format!("offsets from 0 to at most {rows} that never fall"),
            format!("{offsets:?}"),
        )),
    }
}

impl Packed {
    /// The rows of sequence b: of queries, and of keys.
    pub(crate) fn rows(&self, b: usize) -> [Range<usize>; 2] {
        self.offsets.each_ref().map(|offsets| offsets[b] as usize..offsets[b + 1] as usize)
    }
}

/// Some rows of a tensor `[rows, heads, dim]`, as `[heads, rows, dim]`.
pub(crate) fn heads_first<T: Copy>(x: &[T], rows: Range<usize>, heads: usize, dim: usize) -> Vec<T> {
    let places = (0..heads).flat_map(|head| rows.clone().map(move |row| row * heads + head));
    places.flat_map(|place| x[place * dim..][..dim].iter().copied()).collect()
}
