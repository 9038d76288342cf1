//! The tensors of a call of Linformer, checked once, and its projected keys and values.

use crate::linformer::{LinformerInputs, LinformerOptions};
use crate::reference::call::check_type;
use crate::reference::layer::{Bounded, MatmulInputs, matmul};
use crate::reference::rounding::min_normal;
use crate::{AOrder, Attention, Element, MatmulShape, Position, Result, Strides};
use rayon::prelude::*;
use std::borrow::Cow;

/// A call whose sizes have been checked: nothing below can index past an end.
pub(super) struct LinformerCall<'a> {
    pub(super) attention: &'a Attention,
    /// The attention over projected keys.
    pub(super) attended: Attention,
    pub(super) options: LinformerOptions,
    q: Cow<'a, [f32]>,
    k: Cow<'a, [f32]>,
    v: Option<Cow<'a, [f32]>>,
    pub(super) e: &'a [f32],
    pub(super) f: &'a [f32],
    key_mask: Option<&'a [bool]>,
}

/// K' `[kk, d]` and V' `[kk, dv]` of a batch item and key head.
pub(super) struct Projected {
    pub(super) k: Bounded,
    pub(super) v: Bounded,
}

impl<'a> LinformerCall<'a> {
    pub(super) fn new<Q: Element, KV: Element>(
        attention: &'a Attention,
        options: &LinformerOptions,
        inputs: &LinformerInputs<'a, Q, KV>,
    ) -> Result<Self> {
        options.check(attention)?;
        check_type::<Q>("q", attention.storage.q)?;
        check_type::<KV>("k and v", attention.storage.kv)?;
        inputs.check(attention, options)?;
        Ok(Self {
            attention,
            attended: options.attended(attention),
            options: *options,
            q: Q::widened(inputs.q),
            k: KV::widened(inputs.k),
            v: inputs.v.map(KV::widened),
            e: inputs.e,
            f: inputs.f.unwrap_or(inputs.e),
            key_mask: inputs.key_mask,
        })
    }

    /// Of every batch item and key head.
    pub(super) fn lines(&self) -> Result<Vec<Projected>> {
        let (shape, heads) = (&self.attention.shape, self.attention.shape.kv_heads);
        let line = |n: usize| {
            let (batch, head) = (n / heads, n % heads);
            Ok(Projected {
                k: self.project(self.e, self.projected(false), batch, head)?,
                v: self.project(self.f, self.projected(true), batch, head)?,
            })
        };
        (0..shape.batch * heads).into_par_iter().map(line).collect()
    }

    pub(super) fn line<'l>(&self, lines: &'l [Projected], at: Position) -> &'l Projected {
        &lines[at.batch * self.attention.shape.kv_heads + self.attention.shape.kv_head(at.head)]
    }

    pub(super) fn q(&self, at: Position) -> &[f32] {
        let start = self.attention.q_strides().at(at.batch, at.head, at.i);
        &self.q[start..start + self.attention.shape.head_dim]
    }

    /// matrix[:Lk]^T rows, masked rows as 0.
    fn project(
        &self,
        matrix: &[f32],
        tensor: (&[f32], Strides, usize),
        batch: usize,
        head: usize,
    ) -> Result<Bounded> {
        let (len, projected) = (self.attention.shape.kv_len, self.options.projected);
        let rows = self.rows(tensor, batch, head);
        let a = Bounded::exact(self.of_head(matrix, head));
        let shape = MatmulShape::new(projected, len, tensor.2).a_order(AOrder::InnerRows);
        matmul(&shape, &MatmulInputs { a: &a, b: &rows, bias: None, other: None })
    }

    /// matrix[:Lk] of a key head.
    pub(super) fn of_head<'m>(&self, matrix: &'m [f32], head: usize) -> &'m [f32] {
        let (len, projected) = (self.attention.shape.kv_len, self.options.projected);
        let own = if self.options.per_head { head * self.options.rows * projected } else { 0 };
        &matrix[own..own + len * projected]
    }

    /// Rows `[Lk, dim]` of a line, masked ones as 0.
    pub(super) fn rows(
        &self,
        (data, strides, dim): (&[f32], Strides, usize),
        batch: usize,
        head: usize,
    ) -> Bounded {
        let smallest = min_normal(self.attention.storage.kv);
        let mut rows = Bounded::default();
        for j in 0..self.attention.shape.kv_len {
            let start = strides.at(batch, head, j);
            for &x in &data[start..start + dim] {
                let x = if self.counts(batch, j) { f64::from(x) } else { 0.0 };
                rows.out.push(x);
                // A subnormal may be read as 0.
                rows.bound.push(if x.abs() < smallest { x.abs() } else { 0.0 });
            }
        }
        rows
    }

    /// Whether a key is not masked.
    pub(super) fn counts(&self, batch: usize, j: usize) -> bool {
        self.key_mask.is_none_or(|mask| mask[batch * self.attention.shape.kv_len + j])
    }

    /// k or v, as they are projected.
    pub(super) fn projected(&self, values: bool) -> (&[f32], Strides, usize) {
        let (attention, shape) = (self.attention, &self.attention.shape);
        match &self.v {
            Some(v) if values => (&v[..], attention.v_strides(), shape.value_dim),
            _ => (&self.k[..], attention.k_strides(), shape.head_dim),
        }
    }
}
