//! A product of the query with one of two rows: whether the key is of its segment (XLNet).

use super::rule::{
    Known, Pair, Products, Rule, SUBNORMAL, TINY, TensorGradient, Tensors, TermTensor, U, added,
};
use crate::{AttentionShape, Error, Result};
use std::borrow::Cow;

/// Adds to the product what the segments of query and key make of it (Yang 2019, section 2.5, relative segment encodings):
///
/// ```text
/// scale (q_i + s_h) . e_h,     e_h = e[0, h] where both have the same segment, e[1, h] where not
/// ```
///
/// It is part of the product: temperature, softcap and what is added act on the sum. The tensor `segments`, f32, holds
/// s `[H, d]`, e `[2, H, d]`, the segments of the queries `[B, Lq]` and those of the keys `[B, Lk]`, one behind the other:
/// one tensor, since a kernel has 8 buffers. [`Segments::tensor`] puts them together. Segments are compared for equality.
///
/// Its gradient has those of s and e in their places, and 0 for the segments.
///
/// Keys of a memory have a segment of their own choice (XLNet's: 0).
///
/// ```
/// use wgpu_attention::{AttentionShape, Score, Segments};
/// // 1 head of size 2; 2 queries, of segments 0 and 1, behind one key of memory.
/// let attention = AttentionShape::new(1, 1, 2, 2).kv_len(3).score(Score::new().with(Segments));
/// let segments = Segments::tensor(&[0.1, 0.2], &[1.0, 2.0, 3.0, 4.0], &[0, 1], &[0, 0, 1]);
/// assert_eq!(attention.score.tensors(&attention.shape)[0].len, segments.len());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Segments;

impl Segments {
    /// The tensor `segments`: s `[H, d]`, e `[2, H, d]`, the segments of queries `[B, Lq]` and of keys `[B, Lk]`, which f32 holds
    /// exactly up to 16,777,216.
    pub fn tensor(s: &[f32], e: &[f32], queries: &[u32], keys: &[u32]) -> Vec<f32> {
        let ids = queries.iter().chain(keys).map(|&id| id as f32);
        s.iter().chain(e).copied().chain(ids).collect()
    }

    /// Which row of the tensor's first three [H, d] the pair has: 1 where the segments are the same, or 2.
    fn row(at: &Pair<'_>, values: &[f32]) -> usize {
        let AttentionShape { batch, heads, q_len, kv_len, .. } = *at.shape;
        let queries = 3 * heads * at.q.len();
        let keys = queries + batch * q_len;
        let same = values[queries + at.batch * q_len + at.i] == values[keys + at.batch * kv_len + at.j];
        if same { 1 } else { 2 }
    }

    /// Where the row of a head begins.
    fn start(at: &Pair<'_>, row: usize) -> usize {
        (row * at.shape.heads + at.head) * at.q.len()
    }

    /// (q, s, e) of each element.
    fn elements<'a>(at: &Pair<'a>, tensors: &'a Tensors<'_>) -> impl Iterator<Item = [f64; 3]> + 'a {
        let (d, values) = (at.q.len(), &tensors[0]);
        let row = |n: usize| &values[Self::start(at, n)..][..d];
        let (q, s, e) = (at.q, row(0), row(Self::row(at, values)));
        (0..d).map(move |c| [q[c], s[c], e[c]].map(f64::from))
    }
}

impl Rule for Segments {
    fn name(&self) -> &'static str {
        "segments"
    }

    fn check(&self, shape: &AttentionShape) -> Result<()> {
        let sizes = [3, shape.heads, shape.head_dim].iter().map(|&size| size as u128).product::<u128>();
        let len = sizes + shape.batch as u128 * (shape.q_len as u128 + shape.kv_len as u128);
        if len > u128::from(u32::MAX) {
            return Err(Error::limit(
                "segments",
                "the largest 32-bit element index",
                len.min(u64::MAX.into()) as u64,
                u32::MAX.into(),
            ));
        }
        Ok(())
    }

    fn tensors(&self, shape: &AttentionShape) -> Vec<TermTensor> {
        let len = 3 * shape.heads * shape.head_dim + shape.batch * (shape.q_len + shape.kv_len);
        vec![TermTensor { name: "segments", len, strided: false }]
    }

    fn score(&self, before: f64, at: &Pair<'_>, tensors: &Tensors<'_>) -> f64 {
        before + at.scale * Self::elements(at, tensors).map(|[q, s, e]| (q + s) * e).sum::<f64>()
    }

    /// With A = |scale| sum (|q| + |s|) |e|: a chain of d products, behind the addition of s and the factor, gamma_{d+4} A; then
    /// one addition to the score before. Flushes: of elements that may be read as 0, of q + s, of it times the factor, of products
    /// and partial sums.
    fn error(&self, before: Known, after: f64, at: &Pair<'_>, tensors: &Tensors<'_>) -> f64 {
        let scale = at.scale.abs();
        let (mut condition, mut lost, mut flushed, mut largest) = (0.0, 0.0, 0.0, 1.0f64);
        for element in Self::elements(at, tensors) {
            let [q, s, e] = element.map(f64::abs);
            condition += (q + s) * e;
            lost += if q < SUBNORMAL { q * e } else { 0.0 };
            flushed += scale * (q + s + 2.0 * e) + e + 2.0;
            largest = largest.max(q + s);
        }
        let limit = f64::from(f32::MAX) / 4.0;
        let steps = (at.q.len() as f64 + 4.0) * U;
        if scale * condition >= limit || scale.max(1.0) * largest >= limit || steps > 0.5 {
            return f64::INFINITY;
        }
        // A factor that is subnormal may take all of it.
        let factor = if scale < 2.0 * TINY { scale * condition } else { 0.0 };
        let flushed = if condition == 0.0 { 0.0 } else { TINY * flushed };
        let own = steps / (1.0 - steps) * scale * condition + scale * lost + factor + flushed;
        added(Known { error: before.error + own, ..before }, after)
    }

    /// By q and by s: e. By e: q + s. All times scale.
    fn products(&self, at: &Pair<'_>, tensors: &Tensors<'_>) -> Option<Products> {
        let elements: Vec<_> = Self::elements(at, tensors).collect();
        let e: Vec<f64> = elements.iter().map(|[_, _, e]| at.scale * e).collect();
        let by_e = elements.iter().map(|[q, s, _]| at.scale * (q + s)).collect();
        let own = Self::row(at, &tensors[0]);
        let rows = vec![(0, Self::start(at, 0), e.clone()), (0, Self::start(at, own), by_e)];
        Some(Products { q: e, k: vec![0.0; at.k.len()], rows })
    }

    fn gradient(&self, _: &str, _: &AttentionShape) -> Option<TensorGradient> {
        let vectors = Some(include_str!("../../shaders/backward/vectors_segments.wgsl"));
        Some(TensorGradient { vectors, ..TensorGradient::per_head() })
    }

    /// A whole number of halves, so that segments meet.
    fn drawn(&self, normal: f64) -> f32 {
        ((2.0 * normal).round() / 2.0) as f32
    }

    fn silent(&self, _: u64) -> Option<f32> {
        Some(0.0)
    }

    fn shader(&self) -> Cow<'static, str> {
        include_str!("../../shaders/score/segments.wgsl").into()
    }

    fn in_product(&self) -> bool {
        true
    }

    fn scales(&self) -> bool {
        false
    }
}
