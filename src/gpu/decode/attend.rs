//! Queries against the cache.

use super::append::{Beside, cache_bindings, with_cache};
use super::{DecodePlan, KvCache, Rows, tiles};
use crate::construct::constructed;
use crate::gpu::attention::{Merge, q_scale};
use crate::gpu::bindings::{Access, check_aliasing, checked_binding, optional_binding, scratch, whole};
use crate::gpu::call::{Call, Stage};
use crate::gpu::params::{DecodeParams, Params};
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

impl DecodePlan {
    fn scratch_sizes(&self) -> [u64; 3] {
        let (rows, cache) = (self.shape.len_lse() as u64, &self.shape.cache);
        let splits = self.inner.splits as u64;
        let turned = if self.shape.rotary.is_some() { rows } else { 0 };
        [
            8 * rows * splits,
            16 * rows * splits * cache.value_dim.div_ceil(4) as u64,
            16 * turned * cache.head_dim.div_ceil(4) as u64,
        ]
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
        let [state, merged, turned] = self.scratch_sizes();
        let make = |what, bytes| scratch(self.kernels.device(), what, bytes);
        let buffers = [
            make("states of splits", state)?,
            make("rows of splits", merged)?,
            make("turned queries", turned)?,
        ];
        Ok(DecodeScratch { buffers })
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
        let have = scratch.buffers.iter().map(wgpu::Buffer::size);
        if let Some((need, have)) =
            self.scratch_sizes().into_iter().zip(have).find(|(need, have)| need > have)
        {
            return Err(Error::argument("scratch", format!("{need} bytes"), format!("{have} bytes")));
        }
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
        let merge = merge.step(device, &self.inner.merge, &self.attention, self.inner.splits)?;
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
        let [keys, values, lengths] = cache_bindings(cache);
        let named = [
            ("q", Some(&q), Access::Read),
            ("cos", beside.cos.as_ref(), Access::Read),
            ("sin", beside.sin.as_ref(), Access::Read),
            ("counts", beside.counts.as_ref(), Access::Read),
            ("offsets", beside.offsets.as_ref(), Access::Read),
            ("the cache's keys", Some(&keys), Access::Read),
            ("the cache's values", Some(&values), Access::Read),
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
        let (shape, inner, cached) = (&self.shape, &self.inner, &self.shape.cache);
        let group = shape.heads / cached.kv_heads;
        let [tiles, row_tiles] = tiles(shape, inner.tile_rows);
        // All positions lie below the capacity, a u32.
        let clamped = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let kernel = DecodeParams {
            row_tiles: row_tiles as u32,
            splits: inner.splits as u32,
            heads: shape.heads as u32,
            heads_per_kv_head: group as u32,
            before: shape.window.map_or(u32::MAX, clamped),
            sinks: clamped(shape.sinks),
            q_scale: q_scale(&self.attention, false),
            ..Default::default()
        };
        let rows = match inner.turn_q {
            Some(_) => crate::uniform::Rows::of_groups(shape.heads, shape.new, cached.head_dim.div_ceil(4)),
            None => self.attention.q_strides().into(),
        };
        let params =
            Params::default().with("kernel", kernel).with("cache", self.cache_params()).with("q", rows);
        let items = tiles as u128 * inner.splits as u128;
        let pairs = inner.tile_rows * cached.capacity.div_ceil(inner.splits);
        let flops = 2.0 * (cached.head_dim + cached.value_dim) as f64 * pairs as f64;
        let work = self.kernels.work("the queries", items, flops)?;
        let bindings = with_cache(cache, beside)
            .with("q", q)
            .with("keys", whole(cache.keys()))
            .with("values", whole(cache.values()))
            .with("state", whole(&scratch.buffers[0]))
            .with("merged", whole(&scratch.buffers[1]));
        Step::new(self.kernels.device(), &inner.decode, &params, work, &bindings)
    }
}
