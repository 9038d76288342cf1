//! Buffers checked and bound to a plan of Linformer: a call, ready to record.

use super::{LinformerPlan, Product, source};
use crate::construct::constructed;
use crate::gpu::attention::AttentionBuffers;
use crate::gpu::bindings::{
    Access, Bindings, check_aliasing, checked_binding, optional_binding, scratch, whole,
};
use crate::gpu::call::Call;
use crate::gpu::layer::MatmulBuffers;
use crate::gpu::linear::FeatureRows;
use crate::gpu::pipeline::Pipeline;
use crate::{ElementType, Error, Result};

/// The buffers of one call of Linformer. All need `BufferUsages::STORAGE`; out may not be a buffer that is also read. Offsets and sizes are as
/// for [`AttentionBuffers`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LinformerBuffers<'a> {
    /// q `[B, H, Lq, d]`.
    pub q: wgpu::BufferBinding<'a>,
    /// k `[B, Hkv, Lk, d]`.
    pub k: wgpu::BufferBinding<'a>,
    /// E in f32, `[n, kk]`, or `[Hkv, n, kk]` where it is per head.
    pub e: wgpu::BufferBinding<'a>,
    /// out `[B, H, Lq, dv]`.
    pub out: wgpu::BufferBinding<'a>,
    /// v `[B, Hkv, Lk, dv]`, if and only if [`LinformerOptions::values`](crate::LinformerOptions::values).
    pub v: Option<wgpu::BufferBinding<'a>>,
    /// F in f32, as E, if and only if [`LinformerOptions::value_projection`](crate::LinformerOptions::value_projection).
    pub f: Option<wgpu::BufferBinding<'a>>,
    /// `[B, Lk]` in u32, not 0 where a key counts; if and only if [`LinformerOptions::key_mask`](crate::LinformerOptions::key_mask).
    pub key_mask: Option<wgpu::BufferBinding<'a>>,
}

constructed! {
    LinformerBuffers ['a] { q: wgpu::BufferBinding<'a>, k: wgpu::BufferBinding<'a>, e: wgpu::BufferBinding<'a>, out: wgpu::BufferBinding<'a> } { v: wgpu::BufferBinding<'a>, f: wgpu::BufferBinding<'a>, key_mask: wgpu::BufferBinding<'a> }
}

/// Scratch that several calls share: those recorded one after the other need it only while they run. Made by
/// [`LinformerPlan::scratch`]; it serves every plan of Linformer that needs no more bytes of it, on the same device.
#[derive(Debug, Clone)]
pub struct LinformerScratch {
    /// K' and V'.
    projected: [wgpu::Buffer; 2],
    /// k and v without masked rows, where there is a mask.
    seen: [wgpu::Buffer; 2],
}

/// The scratch of a call in bytes: K', V', copies of k and of v; 0 where it is not needed.
fn sizes(plan: &LinformerPlan) -> [u64; 4] {
    let (shape, options) = (&plan.attention.shape, &plan.options);
    let rows = |rows: usize, dim: usize| 4 * (shape.batch * shape.kv_heads * rows * dim) as u64;
    let width = |dim: usize| dim.next_multiple_of(4);
    let copies = |dim: usize| if options.key_mask { rows(shape.kv_len, width(dim)) } else { 0 };
    [
        rows(options.projected, shape.head_dim),
        if options.one_product() { 0 } else { rows(options.projected, shape.value_dim) },
        copies(shape.head_dim),
        if options.values { copies(shape.value_dim) } else { 0 },
    ]
}

impl LinformerPlan {
    /// Bytes of a call's scratch: projected keys and values in f32, and copies of k and v where there is a key mask.
    pub fn scratch_bytes(&self) -> u64 {
        sizes(self).iter().sum()
    }

    /// Scratch for calls of this plan.
    ///
    /// # Errors
    /// [`Error::Limit`] past the device's limits, [`Error::OutOfMemory`].
    pub fn scratch(&self) -> Result<LinformerScratch> {
        let [k, v, seen_k, seen_v] = sizes(self);
        let make = |bytes| scratch(self.kernels.device(), "projected keys and values", bytes);
        Ok(LinformerScratch { projected: [make(k)?, make(v)?], seen: [make(seen_k)?, make(seen_v)?] })
    }

    /// Checks the buffers and binds them: nothing is recorded yet. Scratch of [`scratch_bytes`](Self::scratch_bytes) is allocated for this
    /// call alone.
    ///
    /// # Errors
    /// [`Error::Argument`] for a buffer that is too small, missing, not asked for, lacks the usage, is misaligned, or serves as input and as
    /// output; [`Error::Limit`] for buffers or scratch past the device's binding size; [`Error::Device`] for what wgpu reports.
    pub fn bind(&self, buffers: LinformerBuffers<'_>) -> Result<Call> {
        let buffers = self.checked(buffers)?;
        if self.attention.shape.is_empty() {
            return Ok(Call::new("Linformer", []));
        }
        self.bound(&buffers, &self.scratch()?)
    }

    /// [`bind`](Self::bind) with scratch that other calls use, too.
    ///
    /// # Errors
    /// As [`bind`](Self::bind), and [`Error::Argument`] for scratch that is too small.
    pub fn bind_with(&self, buffers: LinformerBuffers<'_>, scratch: &LinformerScratch) -> Result<Call> {
        let buffers = self.checked(buffers)?;
        if self.attention.shape.is_empty() {
            return Ok(Call::new("Linformer", []));
        }
        let have = scratch.projected.iter().chain(&scratch.seen).map(wgpu::Buffer::size);
        if let Some((need, have)) = sizes(self).into_iter().zip(have).find(|(need, have)| need > have) {
            return Err(Error::argument("scratch", format!("{need} bytes"), format!("{have} bytes")));
        }
        self.bound(&buffers, scratch)
    }

    /// The buffers, each cut to its tensor.
    fn checked<'a>(&self, buffers: LinformerBuffers<'a>) -> Result<LinformerBuffers<'a>> {
        let (attention, options) = (&self.attention, &self.options);
        let (shape, storage) = (&attention.shape, attention.storage);
        let limits = self.kernels.device().limits();
        let one = |name, binding: &wgpu::BufferBinding<'a>, len, element| {
            checked_binding(&limits, name, binding, len, element)
        };
        let optional = |name, binding: &Option<wgpu::BufferBinding<'a>>, wanted, len, element| {
            optional_binding(&limits, name, binding, wanted, len, element)
        };
        let (projection, mask) = (options.len_projection(shape), options.len_key_mask(shape));
        let word = ElementType::F32;
        let buffers = LinformerBuffers {
            q: one("q", &buffers.q, attention.len_q(), storage.q)?,
            k: one("k", &buffers.k, attention.len_k(), storage.kv)?,
            e: one("e", &buffers.e, projection, word)?,
            out: one("out", &buffers.out, attention.len_out(), storage.out)?,
            v: optional("v", &buffers.v, options.values, attention.len_v(), storage.kv)?,
            f: optional("f", &buffers.f, options.value_projection, projection, word)?,
            key_mask: optional("key_mask", &buffers.key_mask, options.key_mask, mask, word)?,
        };
        let named = [
            ("q", Some(&buffers.q), Access::Read),
            ("k", Some(&buffers.k), Access::Read),
            ("v", buffers.v.as_ref(), Access::Read),
            ("e", Some(&buffers.e), Access::Read),
            ("f", buffers.f.as_ref(), Access::Read),
            ("key_mask", buffers.key_mask.as_ref(), Access::Read),
            ("out", Some(&buffers.out), Access::Write),
        ];
        check_aliasing(&named, self.kernels.options().shared_buffers)?;
        Ok(buffers)
    }

    /// Copies where there is a mask, products, attention.
    fn bound(&self, buffers: &LinformerBuffers<'_>, scratch: &LinformerScratch) -> Result<Call> {
        let calls = self.projections(buffers, scratch)?;
        let [keys, values] = self.projected(scratch);
        let attend = AttentionBuffers::new(buffers.q.clone(), keys, values, buffers.out.clone());
        Ok(Call::in_turn("Linformer", calls, self.inner.attend.bind(attend)?))
    }

    /// K' and V', which come to scratch.
    pub(super) fn projections(
        &self,
        buffers: &LinformerBuffers<'_>,
        scratch: &LinformerScratch,
    ) -> Result<Vec<Call>> {
        let mut calls = vec![];
        if let Some([copy_k, copy_v]) = &self.inner.seen {
            calls.push(self.copy(copy_k, buffers, false, &scratch.seen[0])?);
            if self.options.values {
                calls.push(self.copy(copy_v, buffers, true, &scratch.seen[1])?);
            }
        }
        let f = buffers.f.as_ref().unwrap_or(&buffers.e);
        let [k, v] = self.seen(buffers, scratch);
        let matrices = [(&buffers.e, &k), (f, &v)];
        for ((product, (matrix, rows)), to) in
            self.inner.products.iter().zip(matrices).zip(&scratch.projected)
        {
            calls.extend(product.calls(matrix, rows, to)?);
        }
        Ok(calls)
    }

    /// K' and V', in scratch.
    pub(super) fn projected<'s>(&self, scratch: &'s LinformerScratch) -> [wgpu::BufferBinding<'s>; 2] {
        [0, self.inner.products.len() - 1].map(|n| whole(&scratch.projected[n]))
    }

    /// The rows that are projected: the caller's, or copies where there is a mask.
    pub(super) fn seen<'a>(
        &self,
        buffers: &LinformerBuffers<'a>,
        scratch: &'a LinformerScratch,
    ) -> [wgpu::BufferBinding<'a>; 2] {
        if self.options.key_mask {
            return [0, usize::from(self.options.values)].map(|n| whole(&scratch.seen[n]));
        }
        [buffers.k.clone(), buffers.v.as_ref().unwrap_or(&buffers.k).clone()]
    }

    /// k or v in f32, masked rows as 0.
    fn copy(
        &self,
        pipeline: &Pipeline,
        buffers: &LinformerBuffers<'_>,
        values: bool,
        to: &wgpu::Buffer,
    ) -> Result<Call> {
        let shape = &self.attention.shape;
        let (strides, dim) = source(&self.attention, values);
        let rows = FeatureRows {
            batch: shape.batch,
            heads: shape.kv_heads,
            len: shape.kv_len,
            dim,
            features: dim,
            eps: 0.0,
            strides,
        };
        let x = if values { buffers.v.as_ref().unwrap_or(&buffers.k) } else { &buffers.k };
        let bindings = Bindings::default()
            .with("x", x.clone())
            .with("phi", whole(to))
            .with_some("key_mask", buffers.key_mask.clone());
        Ok(Call::of_steps("Linformer", [rows.step(&self.kernels, pipeline, &bindings)?]))
    }
}

impl Product {
    fn calls(
        &self,
        matrix: &wgpu::BufferBinding<'_>,
        rows: &wgpu::BufferBinding<'_>,
        to: &wgpu::Buffer,
    ) -> Result<Vec<Call>> {
        let bind =
            |plan: &crate::MatmulPlan| plan.bind(MatmulBuffers::new(matrix.clone(), rows.clone(), whole(to)));
        self.plans.iter().map(bind).collect()
    }
}
