//! Buffers checked and bound to a plan of gradients.

use super::{LABEL, LinearBackwardPlan};
use crate::construct::constructed;
use crate::gpu::bindings::{Access, check_aliasing, checked_binding, optional_binding};
use crate::gpu::call::Call;
use crate::linear::Projection;
use crate::{ElementType, Error, Result};

/// The buffers of the gradients of one call of linear attention. All need `BufferUsages::STORAGE`; each gradient is a buffer of its own, and at
/// least one is asked for. Offsets and sizes are as for [`AttentionBuffers`](crate::AttentionBuffers).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LinearGradBuffers<'a> {
    /// q `[B, H, Lq, d]`, of the call.
    pub q: wgpu::BufferBinding<'a>,
    /// k `[B, Hkv, Lk, d]`, of the call.
    pub k: wgpu::BufferBinding<'a>,
    /// v `[B, Hkv, Lk, dv]`, of the call.
    pub v: wgpu::BufferBinding<'a>,
    /// The gradient of out, `[B, H, Lq, dv]`.
    pub dout: wgpu::BufferBinding<'a>,
    /// P `[m, d]` in f32, if and only if [`Projection::Given`].
    pub projection: Option<wgpu::BufferBinding<'a>>,
    /// `[B, Lk]` in u32, if and only if [`LinearOptions::key_mask`](crate::LinearOptions::key_mask).
    pub key_mask: Option<wgpu::BufferBinding<'a>>,
    /// dq `[B, H, Lq, d]`, where wanted.
    pub dq: Option<wgpu::BufferBinding<'a>>,
    /// dk `[B, Hkv, Lk, d]`, where wanted; 0 where masked.
    pub dk: Option<wgpu::BufferBinding<'a>>,
    /// dv `[B, Hkv, Lk, dv]`, where wanted; 0 where masked.
    pub dv: Option<wgpu::BufferBinding<'a>>,
}

constructed! {
    LinearGradBuffers ['a] { q: wgpu::BufferBinding<'a>, k: wgpu::BufferBinding<'a>, v: wgpu::BufferBinding<'a>, dout: wgpu::BufferBinding<'a> } { projection: wgpu::BufferBinding<'a>, key_mask: wgpu::BufferBinding<'a>, dq: wgpu::BufferBinding<'a>, dk: wgpu::BufferBinding<'a>, dv: wgpu::BufferBinding<'a> }
}

impl LinearBackwardPlan {
    /// Checks the buffers and binds them: nothing is recorded yet. Scratch of [`scratch_bytes`](Self::scratch_bytes) is allocated.
    ///
    /// # Errors
    /// [`Error::Argument`] where no gradient is asked for, for a buffer that is too small, missing, not asked for, lacks the usage, is
    /// misaligned, or serves twice where one is written; [`Error::Limit`] for buffers or scratch past the device's binding size;
    /// [`Error::Device`] for what wgpu reports.
    pub fn bind(&self, buffers: LinearGradBuffers<'_>) -> Result<Call> {
        if [&buffers.dq, &buffers.dk, &buffers.dv].iter().all(|gradient| gradient.is_none()) {
            return Err(Error::argument("dq, dk, dv", "at least one", "none"));
        }
        let buffers = self.checked(buffers)?;
        if self.attention().shape.is_empty() {
            return Ok(Call::new(LABEL, []));
        }
        self.call(&buffers)
    }

    /// The buffers, each cut to its tensor.
    fn checked<'a>(&self, buffers: LinearGradBuffers<'a>) -> Result<LinearGradBuffers<'a>> {
        let (attention, options) = (&self.forward.attention, &self.forward.options);
        let (shape, storage, gradients) = (&attention.shape, attention.storage, &self.inner.gradients);
        let limits = self.forward.kernels.device().limits();
        let one = |name, binding: &wgpu::BufferBinding<'a>, len, element| {
            checked_binding(&limits, name, binding, len, element)
        };
        let optional = |name, binding: &Option<wgpu::BufferBinding<'a>>, wanted, len, element| {
            optional_binding(&limits, name, binding, wanted, len, element)
        };
        let gradient = |name, binding: &Option<wgpu::BufferBinding<'a>>, len, element| {
            binding.as_ref().map(|binding| one(name, binding, len, element)).transpose()
        };
        let given = options.map.source() == Some(Projection::Given);
        let (projection, mask) = (options.len_projection(shape), options.len_key_mask(shape));
        let [len_dq, len_dk, len_dv, len_dout] = gradients.lens(shape);
        let word = ElementType::F32;
        let buffers = LinearGradBuffers {
            q: one("q", &buffers.q, attention.len_q(), storage.q)?,
            k: one("k", &buffers.k, attention.len_k(), storage.kv)?,
            v: one("v", &buffers.v, attention.len_v(), storage.kv)?,
            dout: one("dout", &buffers.dout, len_dout, gradients.dout)?,
            projection: optional("projection", &buffers.projection, given, projection, word)?,
            key_mask: optional("key_mask", &buffers.key_mask, options.key_mask, mask, word)?,
            dq: gradient("dq", &buffers.dq, len_dq, gradients.dq)?,
            dk: gradient("dk", &buffers.dk, len_dk, gradients.dkv)?,
            dv: gradient("dv", &buffers.dv, len_dv, gradients.dkv)?,
        };
        let named = [
            ("q", Some(&buffers.q), Access::Read),
            ("k", Some(&buffers.k), Access::Read),
            ("v", Some(&buffers.v), Access::Read),
            ("dout", Some(&buffers.dout), Access::Read),
            ("projection", buffers.projection.as_ref(), Access::Read),
            ("key_mask", buffers.key_mask.as_ref(), Access::Read),
            ("dq", buffers.dq.as_ref(), Access::Write),
            ("dk", buffers.dk.as_ref(), Access::Write),
            ("dv", buffers.dv.as_ref(), Access::Write),
        ];
        check_aliasing(&named, self.forward.kernels.options().shared_buffers)?;
        Ok(buffers)
    }
}
