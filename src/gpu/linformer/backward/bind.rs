//! Buffers checked and bound to a plan of gradients.

use super::{LABEL, LinformerBackwardPlan};
use crate::construct::constructed;
use crate::gpu::attention::{AttentionBuffers, AttentionGradBuffers};
use crate::gpu::bindings::{Access, check_aliasing, checked_binding, optional_binding, scratch, whole};
use crate::gpu::call::Call;
use crate::gpu::linformer::{LinformerBuffers, LinformerScratch};
use crate::{ElementType, Error, Result};

/// The buffers of the gradients of one call of Linformer. All need `BufferUsages::STORAGE`; each gradient is a buffer of its own, and at
/// least one is asked for. Offsets and sizes are as for [`AttentionBuffers`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LinformerGradBuffers<'a> {
    /// q `[B, H, Lq, d]`, of the call.
    pub q: wgpu::BufferBinding<'a>,
    /// k `[B, Hkv, Lk, d]`, of the call.
    pub k: wgpu::BufferBinding<'a>,
    /// E in f32, of the call.
    pub e: wgpu::BufferBinding<'a>,
    /// The gradient of out, `[B, H, Lq, dv]`.
    pub dout: wgpu::BufferBinding<'a>,
    /// v `[B, Hkv, Lk, dv]`, if and only if [`LinformerOptions::values`](crate::LinformerOptions::values).
    pub v: Option<wgpu::BufferBinding<'a>>,
    /// F in f32, if and only if [`LinformerOptions::value_projection`](crate::LinformerOptions::value_projection).
    pub f: Option<wgpu::BufferBinding<'a>>,
    /// `[B, Lk]` in u32, if and only if [`LinformerOptions::key_mask`](crate::LinformerOptions::key_mask).
    pub key_mask: Option<wgpu::BufferBinding<'a>>,
    /// dq `[B, H, Lq, d]`, where wanted.
    pub dq: Option<wgpu::BufferBinding<'a>>,
    /// dk `[B, Hkv, Lk, d]`, where wanted: through K', and through V' where keys are the values; 0 where masked.
    pub dk: Option<wgpu::BufferBinding<'a>>,
    /// dv `[B, Hkv, Lk, dv]`, where there is a v and it is wanted; 0 where masked.
    pub dv: Option<wgpu::BufferBinding<'a>>,
    /// dE in f32, as E, where wanted: the sum over all that share it, and through V' where F is E; 0 in rows behind the last key.
    pub de: Option<wgpu::BufferBinding<'a>>,
    /// dF in f32, as F, where there is an F and it is wanted.
    pub df: Option<wgpu::BufferBinding<'a>>,
}

constructed! {
    LinformerGradBuffers ['a] { q: wgpu::BufferBinding<'a>, k: wgpu::BufferBinding<'a>, e: wgpu::BufferBinding<'a>, dout: wgpu::BufferBinding<'a> }
    { v: wgpu::BufferBinding<'a>, f: wgpu::BufferBinding<'a>, key_mask: wgpu::BufferBinding<'a>, dq: wgpu::BufferBinding<'a>, dk: wgpu::BufferBinding<'a>, dv: wgpu::BufferBinding<'a>, de: wgpu::BufferBinding<'a>, df: wgpu::BufferBinding<'a> }
}

/// The scratch of a call beside the forward call's: what for, and its bytes.
pub(super) fn sizes(plan: &LinformerBackwardPlan) -> [(&'static str, u64); 4] {
    let (shape, projected) = (&plan.attention().shape, plan.options().projected);
    let (queries, keys) = (shape.len_lse(), shape.batch * shape.kv_heads * projected);
    [
        ("rows", queries * shape.value_dim),
        ("state of the rows", 2 * queries),
        ("gradients of projected keys", keys * shape.head_dim),
        ("gradients of projected values", keys * shape.value_dim),
    ]
    .map(|(what, elements)| (what, 4 * elements as u64))
}

/// Scratch of a call.
struct Own {
    forward: LinformerScratch,
    /// As [`sizes`] has them.
    buffers: [wgpu::Buffer; 4],
    /// f32 sums of dk and dv.
    sums: [wgpu::Buffer; 2],
}

impl LinformerBackwardPlan {
    /// Checks the buffers and binds them: nothing is recorded yet. Scratch, [`scratch_bytes`](Self::scratch_bytes) at most, is allocated. A
    /// call without queries writes nothing.
    ///
    /// # Errors
    /// [`Error::Argument`] where no gradient is asked for, for a buffer that is too small, missing, not asked for, lacks the usage, is
    /// misaligned, or serves twice where one is written; [`Error::Limit`] for buffers or scratch past the device's binding size;
    /// [`Error::Device`] for what wgpu reports.
    pub fn bind(&self, buffers: LinformerGradBuffers<'_>) -> Result<Call> {
        let asked = [&buffers.dq, &buffers.dk, &buffers.dv, &buffers.de, &buffers.df];
        if asked.iter().all(|gradient| gradient.is_none()) {
            return Err(Error::argument("dq, dk, dv, de, df", "at least one", "none"));
        }
        let buffers = self.checked(buffers)?;
        if self.attention().shape.is_empty() {
            return Ok(Call::new(LABEL, []));
        }
        let device = self.forward.kernels.device();
        let mut own = vec![];
        for (what, bytes) in sizes(self) {
            own.push(scratch(device, what, bytes)?);
        }
        let sums = |bytes| scratch(device, "sums of a gradient", bytes);
        let of_v = self.inner.dv.as_ref().filter(|_| buffers.dv.is_some());
        let of_k = buffers.dk.as_ref().map_or(0, |_| self.inner.dk.sum_bytes());
        let own = Own {
            forward: self.forward.scratch()?,
            buffers: own.try_into().expect("as many as sizes"),
            sums: [sums(of_k)?, sums(of_v.map_or(0, |dv| dv.sum_bytes()))?],
        };
        self.call(&buffers, &own)
    }

    /// The buffers, each cut to its tensor.
    fn checked<'a>(&self, buffers: LinformerGradBuffers<'a>) -> Result<LinformerGradBuffers<'a>> {
        let (attention, options) = (self.attention(), self.options());
        let (shape, storage, gradients) = (&attention.shape, attention.storage, self.gradients());
        let limits = self.forward.kernels.device().limits();
        let one = |name, binding: &wgpu::BufferBinding<'a>, len, element| {
            checked_binding(&limits, name, binding, len, element)
        };
        let optional = |name, binding: &Option<wgpu::BufferBinding<'a>>, wanted, len, element| {
            optional_binding(&limits, name, binding, wanted, len, element)
        };
        // One that may be asked for, or not.
        let gradient = |name, binding: &Option<wgpu::BufferBinding<'a>>, there: bool, len, element| {
            optional_binding(&limits, name, binding, there && binding.is_some(), len, element)
        };
        let (projection, mask) = (options.len_projection(shape), options.len_key_mask(shape));
        let [len_dq, len_dk, len_dv, len_dout] = gradients.lens(shape);
        let word = ElementType::F32;
        let buffers = LinformerGradBuffers {
            q: one("q", &buffers.q, attention.len_q(), storage.q)?,
            k: one("k", &buffers.k, attention.len_k(), storage.kv)?,
            e: one("e", &buffers.e, projection, word)?,
            dout: one("dout", &buffers.dout, len_dout, gradients.dout)?,
            v: optional("v", &buffers.v, options.values, attention.len_v(), storage.kv)?,
            f: optional("f", &buffers.f, options.value_projection, projection, word)?,
            key_mask: optional("key_mask", &buffers.key_mask, options.key_mask, mask, word)?,
            dq: gradient("dq", &buffers.dq, true, len_dq, gradients.dq)?,
            dk: gradient("dk", &buffers.dk, true, len_dk, gradients.dkv)?,
            dv: gradient("dv", &buffers.dv, options.values, len_dv, gradients.dkv)?,
            de: gradient("de", &buffers.de, true, projection, word)?,
            df: gradient("df", &buffers.df, options.value_projection, projection, word)?,
        };
        let named = [
            ("q", Some(&buffers.q), Access::Read),
            ("k", Some(&buffers.k), Access::Read),
            ("v", buffers.v.as_ref(), Access::Read),
            ("e", Some(&buffers.e), Access::Read),
            ("f", buffers.f.as_ref(), Access::Read),
            ("key_mask", buffers.key_mask.as_ref(), Access::Read),
            ("dout", Some(&buffers.dout), Access::Read),
            ("dq", buffers.dq.as_ref(), Access::Write),
            ("dk", buffers.dk.as_ref(), Access::Write),
            ("dv", buffers.dv.as_ref(), Access::Write),
            ("de", buffers.de.as_ref(), Access::Write),
            ("df", buffers.df.as_ref(), Access::Write),
        ];
        check_aliasing(&named, self.forward.kernels.options().shared_buffers)?;
        Ok(buffers)
    }

    /// The forward pass, attention's gradients, products.
    fn call(&self, buffers: &LinformerGradBuffers<'_>, own: &Own) -> Result<Call> {
        let (inner, plan) = (&self.inner, &self.forward);
        let [out, state, dk, dv] = own.buffers.each_ref().map(whole);
        let of_call =
            LinformerBuffers::new(buffers.q.clone(), buffers.k.clone(), buffers.e.clone(), out.clone())
                .v(buffers.v.clone())
                .f(buffers.f.clone())
                .key_mask(buffers.key_mask.clone());
        let mut before = plan.projections(&of_call, &own.forward)?;
        let [keys, values] = plan.projected(&own.forward);
        let (q, dout) = (buffers.q.clone(), buffers.dout.clone());
        let attend = AttentionBuffers::new(q.clone(), keys.clone(), values.clone(), out.clone());
        before.push(inner.attend.bind(attend.state(state.clone()))?);
        let wanted = |values| {
            (buffers.dk.is_some() && inner.dk.needs(values))
                || (buffers.dv.is_some() && inner.dv.as_ref().is_some_and(|dv| dv.needs(values)))
                || (buffers.de.is_some() && inner.de.needs(values))
                || (buffers.df.is_some() && inner.df.as_ref().is_some_and(|df| df.needs(values)))
        };
        let mut attended = AttentionGradBuffers::new(q, keys, values, out, state, dout);
        attended.dq = buffers.dq.clone();
        attended.dk = wanted(false).then(|| dk.clone());
        attended.dv = wanted(true).then(|| dv.clone());
        let attended = Call::in_turn(LABEL, before, inner.attended.bind(attended)?);
        let f = buffers.f.as_ref().unwrap_or(&buffers.e);
        let (projections, rows) = ([buffers.e.clone(), f.clone()], plan.seen(&of_call, &own.forward));
        let mut calls = vec![attended];
        let [sums_k, sums_v] = own.sums.each_ref().map(whole);
        let gradients = [dk, dv];
        for (gradient, out, sums) in
            [(Some(&inner.dk), &buffers.dk, &sums_k), (inner.dv.as_ref(), &buffers.dv, &sums_v)]
        {
            if let (Some(gradient), Some(out)) = (gradient, out) {
                let to = (out, sums, &buffers.key_mask);
                calls.extend(gradient.calls(&plan.kernels, [&projections, &gradients], to)?);
            }
        }
        for (gradient, out) in [(Some(&inner.de), &buffers.de), (inner.df.as_ref(), &buffers.df)] {
            if let (Some(gradient), Some(out)) = (gradient, out) {
                calls.extend(gradient.calls(&plan.kernels, [&rows, &gradients], out)?);
            }
        }
        Ok(Call::chain(LABEL, calls))
    }
}
