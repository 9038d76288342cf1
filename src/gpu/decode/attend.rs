//! Queries against the cache.

use super::append::{Beside, CacheBindings, cache_bindings, with_cache};
use super::keys::Sizes;
use super::{DecodePlan, KvCache, Rows};
use crate::construct::constructed;
use crate::gpu::attention::Merge;
use crate::gpu::bindings::{Access, check_aliasing, checked_binding, optional_binding, scratch, whole};
use crate::gpu::call::{Call, Stage};
use crate::gpu::kernels::Kernels;
use crate::gpu::params::Params;
use crate::gpu::pipeline::Step;
use crate::{ElementType, Error, Result};

/// The buffers of new queries and their outputs. All need `BufferUsages::STORAGE`; what is written may not be a buffer that is also read. Offsets and
/// sizes are as for [`AttentionBuffers`](crate::AttentionBuffers).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AttendBuffers<'a> {
    /// q `[B, H, new, d]`.
    pub q: wgpu::BufferBinding<'a>,
    /// out `[B, H, new, dv]`.
    pub out: wgpu::BufferBinding<'a>,
    /// cos in f32, `[capacity, r/2]`, if and only if queries turn.
    pub cos: Option<wgpu::BufferBinding<'a>>,
    /// sin, as cos.
    pub sin: Option<wgpu::BufferBinding<'a>>,
    /// The counts that were appended, if and only if the shape has [`counts`](crate::DecodeShape::counts).
    pub counts: Option<wgpu::BufferBinding<'a>>,
    /// The offsets that were appended, if and only if the shape is [`packed`](crate::DecodeShape::packed).
    pub offsets: Option<wgpu::BufferBinding<'a>>,
    /// The log-sum-exp `[B, H, new]` in f32, if and only if the shape has [`lse`](crate::DecodeShape::lse).
    pub lse: Option<wgpu::BufferBinding<'a>>,
}

constructed! {
    AttendBuffers ['a] { q: wgpu::BufferBinding<'a>, out: wgpu::BufferBinding<'a> }
    { cos: wgpu::BufferBinding<'a>, sin: wgpu::BufferBinding<'a>, counts: wgpu::BufferBinding<'a>, offsets: wgpu::BufferBinding<'a>, lse: wgpu::BufferBinding<'a> }
}

/// Scratch that several calls share: those recorded one after the other need it only while they run. Made by [`DecodePlan::scratch`]; it serves every plan
/// of decoding that needs no more bytes of it, on the same device.
#[derive(Debug, Clone)]
pub struct DecodeScratch {
    /// The state (m, l) of each split's rows, the rows, queries that have turned.
    buffers: [wgpu::Buffer; 3],
}

impl DecodeScratch {
    pub(super) fn new(kernels: &Kernels, [state, merged, turned]: [u64; 3]) -> Result<Self> {
        let make = |what, bytes| scratch(kernels.device(), what, bytes);
        let buffers = [
            make("states of splits", state)?,
            make("rows of splits", merged)?,
            make("turned queries", turned)?,
        ];
        Ok(Self { buffers })
    }

    pub(super) fn check(&self, sizes: [u64; 3]) -> Result<()> {
        let have = self.buffers.iter().map(wgpu::Buffer::size);
        match sizes.into_iter().zip(have).find(|(need, have)| need > have) {
            None => Ok(()),
            Some((need, have)) => {
                Err(Error::argument("scratch", format!("{need} bytes"), format!("{have} bytes")))
            }
        }
    }

    pub(super) fn buffers(&self) -> &[wgpu::Buffer; 3] {
        &self.buffers
    }
}

impl DecodePlan {
    fn scratch_sizes(&self) -> [u64; 3] {
        let (shape, rows) = (&self.shape, self.shape.len_lse());
        let turned = if shape.rotary.is_some() { rows } else { 0 };
        let [state, merged] = Sizes::from(shape).scratch_sizes(self.inner.cut, rows);
        [state, merged, 16 * turned as u64 * shape.cache.head_dim.div_ceil(4) as u64]
    }

    /// Bytes of a call's scratch: what splits leave, and turned queries.
    pub fn scratch_bytes(&self) -> u64 {
        self.scratch_sizes().iter().sum()
    }

    /// Scratch for calls of this plan.
    ///
    /// # Errors
    /// [`Error::Limit`] past the device's limits, [`Error::OutOfMemory`].
    pub fn scratch(&self) -> Result<DecodeScratch> {
        DecodeScratch::new(&self.kernels, self.scratch_sizes())
    }

    /// Checks the buffers of new queries and binds them: the call attends the cache as it is then, in which the queries' own keys are the last.
    /// Scratch is allocated for this call alone. Nothing is recorded yet.
    ///
    /// # Errors
    /// As [`append`](Self::append), and [`Error::Limit`] for scratch past the device's binding size.
    pub fn attend(&self, cache: &KvCache, buffers: AttendBuffers<'_>) -> Result<Call> {
        self.attend_with(cache, buffers, &self.scratch()?)
    }

    /// [`attend`](Self::attend) with scratch that other calls use, too.
    ///
    /// # Errors
    /// As [`attend`](Self::attend), and [`Error::Argument`] for scratch that is too small.
    pub fn attend_with(
        &self,
        cache: &KvCache,
        buffers: AttendBuffers<'_>,
        scratch: &DecodeScratch,
    ) -> Result<Call> {
        let beside = self.beside(&buffers.cos, &buffers.sin, &buffers.counts, &buffers.offsets)?;
        let buffers = self.checked(cache, buffers, &beside)?;
        scratch.check(self.scratch_sizes())?;
        let mut steps = vec![];
        let mut q = buffers.q.clone();
        if let Some(pipeline) = &self.inner.turn_q {
            let turned = whole(&scratch.buffers[2]);
            let step = self.row_step(pipeline, Rows::Queries, cache, q, turned.clone(), &beside)?;
            steps.push((Stage::Prepare, step));
            q = turned;
        }
        steps.push((Stage::Main, self.decode_step(cache, q, &beside, scratch)?));
        let merge = Merge {
            state: whole(&scratch.buffers[0]),
            merged: Some(whole(&scratch.buffers[1])),
            out: buffers.out,
            total: None,
            lse: buffers.lse,
            heads: None,
        };
        let device = self.kernels.device();
        let merge = merge.step(device, &self.inner.merge, &self.attention, self.inner.cut.splits)?;
        steps.push((Stage::Merge, merge));
        Ok(Call::new("decode", steps))
    }

    /// q, out and lse, each cut to its tensor.
    fn checked<'a>(
        &self,
        cache: &KvCache,
        buffers: AttendBuffers<'a>,
        beside: &Beside<'a>,
    ) -> Result<AttendBuffers<'a>> {
        self.check_cache(cache)?;
        let (shape, limits) = (&self.shape, self.kernels.device().limits());
        let q = checked_binding(&limits, "q", &buffers.q, shape.len_q(), shape.input)?;
        let out = checked_binding(&limits, "out", &buffers.out, shape.len_out(), shape.output)?;
        let word = ElementType::F32;
        let lse = optional_binding(&limits, "lse", &buffers.lse, shape.lse, shape.len_lse(), word)?;
        let CacheBindings { keys, values, lengths } = cache_bindings(cache);
        let named = [
            ("q", Some(&q), Access::Read),
            ("cos", beside.cos.as_ref(), Access::Read),
            ("sin", beside.sin.as_ref(), Access::Read),
            ("counts", beside.counts.as_ref(), Access::Read),
            ("offsets", beside.offsets.as_ref(), Access::Read),
            ("the cache's keys", Some(&keys), Access::Read),
            ("the cache's values", values.as_ref(), Access::Read),
            ("the cache's lengths", Some(&lengths), Access::Read),
            ("out", Some(&out), Access::Write),
            ("lse", lse.as_ref(), Access::Write),
        ];
        check_aliasing(&named, self.kernels.options().shared_buffers)?;
        Ok(AttendBuffers { q, out, lse, ..buffers })
    }

    fn decode_step(
        &self,
        cache: &KvCache,
        q: wgpu::BufferBinding<'_>,
        beside: &Beside<'_>,
        scratch: &DecodeScratch,
    ) -> Result<Step> {
        let (shape, inner) = (&self.shape, &self.inner);
        let rows = match inner.turn_q {
            Some(_) => {
                let groups = shape.cache.head_dim.div_ceil(4);
                crate::uniform::Rows::of_groups(shape.heads, shape.new, groups)
            }
            None => self.attention.q_strides().into(),
        };
        let sizes = Sizes::from(shape);
        let params = Params::default()
            .with("kernel", sizes.kernel_params(inner.cut, &self.attention))
            .with("cache", sizes.cache_params())
            .with("q", rows);
        let (items, flops) = sizes.work(inner.cut);
        let work = self.kernels.work("the queries", items, flops)?;
        let CacheBindings { keys, values, .. } = cache_bindings(cache);
        let bindings = with_cache(cache, beside)
            .with("q", q)
            .with("keys", keys)
            .with_some("values", values)
            .with("state", whole(&scratch.buffers[0]))
            .with("merged", whole(&scratch.buffers[1]));
        Step::new(self.kernels.device(), &inner.decode, &params, work, &bindings)
    }
}
