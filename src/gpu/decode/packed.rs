//! Packed sequences whose keys and values are the caller's own.

use super::attend::DecodeScratch;
use super::keys::{Cut, Sizes};
use crate::construct::constructed;
use crate::gpu::attention::{Merge, merge_variant};
use crate::gpu::bindings::{Access, Bindings, check_aliasing, checked_binding, optional_binding, whole};
use crate::gpu::call::{Call, Stage};
use crate::gpu::kernels::Kernels;
use crate::gpu::params::Params;
use crate::gpu::pipeline::{Pipeline, Step};
use crate::wgsl::{AttendedRows, CacheText, DecodeVariant, NewRows};
use crate::{Attention, ElementType, PackedShape, Result, Strides};
use std::sync::Arc;

/// Attention of packed sequences, planned and compiled: one plan for all lengths that its tensors hold. Made by
/// [`Kernels::packed_sequences`]; clones share it.
#[derive(Debug, Clone)]
pub struct PackedPlan {
    pub(super) kernels: Kernels,
    pub(super) shape: PackedShape,
    /// The call as attention of all rows to all rows.
    attention: Attention,
    pub(super) cut: Cut,
    pub(super) decode: Arc<Pipeline>,
    pub(super) merge: Arc<Pipeline>,
}

/// The buffers of packed sequences. All need `BufferUsages::STORAGE`; what is written may not be a buffer that is also read. Offsets and sizes are as for
/// [`AttentionBuffers`](crate::AttentionBuffers). k and v may be one buffer: a latent row of which values are a part, say, by
/// [`PackedShape::layouts`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PackedBuffers<'a> {
    /// q `[rows of queries, H, d]`.
    pub q: wgpu::BufferBinding<'a>,
    /// k `[rows of keys, Hkv, d]`.
    pub k: wgpu::BufferBinding<'a>,
    /// v `[rows of keys, Hkv, dv]`.
    pub v: wgpu::BufferBinding<'a>,
    /// Where each sequence's queries begin, and where the last ones end, `[B + 1]` in u32.
    pub q_offsets: wgpu::BufferBinding<'a>,
    /// The same of keys. May be the buffer of `q_offsets`.
    pub k_offsets: wgpu::BufferBinding<'a>,
    /// out `[rows of queries, H, dv]`.
    pub out: wgpu::BufferBinding<'a>,
    /// The log-sum-exp `[H, rows of queries]` in f32, if and only if the shape has [`lse`](crate::PackedShape::lse).
    pub lse: Option<wgpu::BufferBinding<'a>>,
}

constructed! {
    PackedBuffers ['a] {
        q: wgpu::BufferBinding<'a>, k: wgpu::BufferBinding<'a>, v: wgpu::BufferBinding<'a>, q_offsets: wgpu::BufferBinding<'a>,
        k_offsets: wgpu::BufferBinding<'a>, out: wgpu::BufferBinding<'a>,
    }
    { lse: wgpu::BufferBinding<'a> }
}

impl Kernels {
    /// Plans attention of packed sequences: checks the shape, and compiles what is not compiled yet.
    ///
    /// # Errors
    /// As [`PackedShape::check`]; [`Error::Limit`](crate::Error::Limit) past the device's limits; [`Error::Device`](crate::Error::Device) for what
    /// wgpu reports while compiling.
    ///
    /// ```no_run
    /// use wgpu_attention::{Kernels, PackedBuffers, PackedShape};
    /// # fn example(kernels: &Kernels, device: &wgpu::Device, queue: &wgpu::Queue, buffers: [&wgpu::Buffer; 6])
    /// # -> wgpu_attention::Result<()> {
    /// let plan = kernels.packed_sequences(&PackedShape::new(16, 8, [4096; 2], 128))?; // compiles, once
    /// let [q, k, v, q_offsets, k_offsets, out] = buffers.map(wgpu::Buffer::as_entire_buffer_binding);
    /// let call = plan.bind(PackedBuffers::new(q, k, v, q_offsets, k_offsets, out))?; // once
    /// for _ in 0..100 {
    ///     // ... the next sequences and their offsets ...
    ///     let mut encoder = device.create_command_encoder(&Default::default());
    ///     call.encode(&mut encoder);
    ///     queue.submit([encoder.finish()]);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn packed_sequences(&self, shape: &PackedShape) -> Result<PackedPlan> {
        shape.check()?;
        self.packed_cut(shape, Sizes::from(shape).cut(self)?)
    }

    /// A call of a valid shape, cut in this way.
    pub(super) fn packed_cut(&self, shape: &PackedShape, cut: Cut) -> Result<PackedPlan> {
        let attention = shape.attention();
        let merge = merge_variant(&attention, true, shape.lse).shader();
        Ok(PackedPlan {
            decode: self.pipeline(variant(shape, cut).shader())?,
            merge: self.pipeline(merge)?,
            kernels: self.clone(),
            shape: *shape,
            attention,
            cut,
        })
    }
}

fn variant(shape: &PackedShape, cut: Cut) -> DecodeVariant {
    let attention = shape.attention();
    let aligned = |strides: Strides, dim: usize| strides.is_aligned() && dim.is_multiple_of(4);
    DecodeVariant {
        head_dim: shape.head_dim,
        value_dim: shape.value_dim,
        row_groups: cut.tile_rows / 4,
        q: shape.storage.q,
        aligned_q: aligned(attention.q_strides(), shape.head_dim),
        storage: shape.storage.kv.into(),
        rows: AttendedRows::Packed([
            aligned(attention.k_strides(), shape.head_dim),
            aligned(attention.v_strides(), shape.value_dim),
        ]),
        cache: CacheText { page: None, new: NewRows::Packed },
        // Rows of other heads lie between those of one.
        touches: false,
    }
}

impl PackedPlan {
    /// The call as attention of all rows to all rows.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn attention(&self) -> &Attention {
        &self.attention
    }

    /// The shape that was planned.
    pub fn shape(&self) -> &PackedShape {
        &self.shape
    }

    /// The most workgroups that share the keys of a row.
    pub fn splits(&self) -> usize {
        self.cut.splits
    }

    fn scratch_sizes(&self) -> [u64; 3] {
        let [state, merged] = Sizes::from(&self.shape).scratch_sizes(self.cut, self.shape.len_lse());
        [state, merged, 0]
    }

    /// Bytes of a call's scratch: what splits leave.
    pub fn scratch_bytes(&self) -> u64 {
        self.scratch_sizes().iter().sum()
    }

    /// Scratch for calls of this plan. It serves plans of decoding, too.
    ///
    /// # Errors
    /// [`Error::Limit`](crate::Error::Limit) past the device's limits, [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn scratch(&self) -> Result<DecodeScratch> {
        DecodeScratch::new(&self.kernels, self.scratch_sizes())
    }

    /// Checks the buffers and binds them, for all that they and the offsets will hold. Scratch is allocated for this call alone. Nothing is recorded yet.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a buffer that is too small, missing, not asked for, lacks the usage, is misaligned, or is written and
    /// read, too; [`Error::Limit`](crate::Error::Limit) past the device's binding size; [`Error::Device`](crate::Error::Device) for what wgpu reports.
    pub fn bind(&self, buffers: PackedBuffers<'_>) -> Result<Call> {
        self.bind_with(buffers, &self.scratch()?)
    }

    /// [`bind`](Self::bind) with scratch that other calls use, too, which run one after the other.
    ///
    /// # Errors
    /// As [`bind`](Self::bind), and [`Error::Argument`](crate::Error::Argument) for scratch that is too small.
    pub fn bind_with(&self, buffers: PackedBuffers<'_>, scratch: &DecodeScratch) -> Result<Call> {
        let buffers = self.checked(buffers)?;
        scratch.check(self.scratch_sizes())?;
        let (device, attention) = (self.kernels.device(), &self.attention);
        let sizes = Sizes::from(&self.shape);
        let params = Params::default()
            .with("kernel", sizes.kernel_params(self.cut, attention))
            .with("cache", sizes.cache_params())
            .with("q", crate::uniform::Rows::from(attention.q_strides()))
            .with("k", crate::uniform::Rows::from(attention.k_strides()))
            .with("v", crate::uniform::Rows::from(attention.v_strides()));
        let (items, flops) = sizes.work(self.cut);
        let work = self.kernels.work("the queries", items, flops)?;
        let [state, merged, _] = scratch.buffers();
        let bindings = Bindings::default()
            .with("q", buffers.q)
            .with("keys", buffers.k)
            .with("values", buffers.v)
            .with("offsets", buffers.q_offsets)
            .with("k_offsets", buffers.k_offsets)
            .with("state", whole(state))
            .with("merged", whole(merged));
        let decode = Step::new(device, &self.decode, &params, work, &bindings)?;
        let merge = Merge {
            state: whole(state),
            merged: Some(whole(merged)),
            out: buffers.out,
            total: None,
            lse: buffers.lse,
            heads: None,
        };
        let merge = merge.step(device, &self.merge, attention, self.cut.splits)?;
        Ok(Call::new("packed sequences", vec![(Stage::Main, decode), (Stage::Merge, merge)]))
    }

    /// All buffers, each cut to its tensor.
    fn checked<'a>(&self, buffers: PackedBuffers<'a>) -> Result<PackedBuffers<'a>> {
        let (shape, limits) = (&self.shape, self.kernels.device().limits());
        let (storage, word, ends) = (shape.storage, ElementType::F32, shape.sequences + 1);
        let checked = |name, binding, len, element| checked_binding(&limits, name, binding, len, element);
        let q = checked("q", &buffers.q, shape.len_q(), storage.q)?;
        let k = checked("k", &buffers.k, shape.len_k(), storage.kv)?;
        let v = checked("v", &buffers.v, shape.len_v(), storage.kv)?;
        let q_offsets = checked("q_offsets", &buffers.q_offsets, ends, word)?;
        let k_offsets = checked("k_offsets", &buffers.k_offsets, ends, word)?;
        let out = checked("out", &buffers.out, shape.len_out(), storage.out)?;
        let lse = optional_binding(&limits, "lse", &buffers.lse, shape.lse, shape.len_lse(), word)?;
        let named = [
            ("q", Some(&q), Access::Read),
            ("k", Some(&k), Access::Read),
            ("v", Some(&v), Access::Read),
            ("q_offsets", Some(&q_offsets), Access::Read),
            ("k_offsets", Some(&k_offsets), Access::Read),
            ("out", Some(&out), Access::Write),
            ("lse", lse.as_ref(), Access::Write),
        ];
        check_aliasing(&named, self.kernels.options().shared_buffers)?;
        Ok(PackedBuffers { q, k, v, q_offsets, k_offsets, out, lse })
    }
}
