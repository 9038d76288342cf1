//! Buffers checked and bound to a plan: a call, ready to record.

use super::dropout;
use super::merge::Merge;
use super::{AttentionPlan, Compiled, Outputs};
use crate::gpu::bindings::{Access, Bindings, check_aliasing, checked_binding, scratch};
use crate::gpu::call::{Call, Stage};
use crate::gpu::pipeline::Step;
use crate::{ElementType, Result};

/// The buffers of one call. All need `BufferUsages::STORAGE`; out and lse may not be buffers that are also read, unless
/// [`Options::shared_buffers`](crate::Options::shared_buffers) is set.
///
/// A binding's offset must be a multiple of the device's `min_storage_buffer_offset_alignment`, its size whole 32-bit
/// words; where it names no size, what lies behind the offset is used. Only the tensor's own elements are touched: the
/// bytes between its rows, and behind it, stay as they are.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AttentionBuffers<'a> {
    /// q `[B, H, Lq, d]`, [`Attention::len_q`](crate::Attention::len_q) elements.
    pub q: wgpu::BufferBinding<'a>,
    /// k `[B, Hkv, Lk, d]`.
    pub k: wgpu::BufferBinding<'a>,
    /// v `[B, Hkv, Lk, dv]`.
    pub v: wgpu::BufferBinding<'a>,
    /// Those of the score's terms, f32, by name: see [`Score::tensors`](crate::Score::tensors).
    pub tensors: Vec<(&'a str, wgpu::BufferBinding<'a>)>,
    /// out `[B, H, Lq, dv]`.
    pub out: wgpu::BufferBinding<'a>,
    /// lse `[B, H, Lq]` in f32, where wanted, with the sink if there is one; `f32::MIN` for rows without either.
    pub lse: Option<wgpu::BufferBinding<'a>>,
    /// The state (m, l) `[B, H, Lq, 2]` in f32, where wanted: what the backward pass needs of a row. m is the largest score, a sink among them, in
    /// units of ln 2 where the score is scale q . k alone and in nats where it has terms; l the sum of the weights against it, so that lse = m +
    /// ln l in nats. A row with neither a key nor a sink has l = 0. Unlike lse, the two lose nothing where all of a row's scores are huge.
    pub state: Option<wgpu::BufferBinding<'a>>,
    /// The seed of [`Dropout`](crate::Dropout), where it is another than the score's.
    pub dropout_seed: Option<u64>,
}

impl<'a> AttentionBuffers<'a> {
    /// The tensors that every call has.
    pub fn new(
        q: wgpu::BufferBinding<'a>,
        k: wgpu::BufferBinding<'a>,
        v: wgpu::BufferBinding<'a>,
        out: wgpu::BufferBinding<'a>,
    ) -> Self {
        Self { q, k, v, tensors: vec![], out, lse: None, state: None, dropout_seed: None }
    }

    /// Adds a tensor of one of the score's terms.
    pub fn tensor(mut self, name: &'a str, tensor: wgpu::BufferBinding<'a>) -> Self {
        self.tensors.push((name, tensor));
        self
    }

    /// Asks for lse.
    pub fn lse(mut self, lse: wgpu::BufferBinding<'a>) -> Self {
        self.lse = Some(lse);
        self
    }

    /// Asks for the state.
    pub fn state(mut self, state: wgpu::BufferBinding<'a>) -> Self {
        self.state = Some(state);
        self
    }

    /// Sets the seed of this call's [`Dropout`](crate::Dropout), in place of the score's: nothing is planned or compiled again.
    ///
    /// ```no_run
    /// use wgpu_attention::wgpu::{Buffer, CommandEncoder, Device};
    /// use wgpu_attention::{AttentionBuffers, AttentionShape, Causal, Kernels, Options, Score};
    ///
    /// fn train(device: &Device, encoder: &mut CommandEncoder, buffers: [&Buffer; 4]) -> wgpu_attention::Result<()> {
    ///     let kernels = Kernels::new(device, Options::default())?;
    ///     let shape = AttentionShape::new(1, 8, 1024, 64).score(Score::new().dropout(0.1, 0));
    ///     let plan = kernels.attention(shape, &Causal)?;
    ///     let [q, k, v, out] = buffers.map(Buffer::as_entire_buffer_binding);
    ///     for step in 0..100 {
    ///         let buffers = AttentionBuffers::new(q.clone(), k.clone(), v.clone(), out.clone());
    ///         plan.bind(buffers.dropout_seed(step))?.encode(encoder);
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn dropout_seed(self, seed: u64) -> Self {
        Self { dropout_seed: Some(seed), ..self }
    }

    fn outputs(&self) -> Outputs {
        Outputs { lse: self.lse.is_some(), state: self.state.is_some() }
    }
}

/// Scratch that several calls share: those recorded one after the other need it only while they run. Made by
/// [`AttentionPlan::scratch`]; it serves every plan that needs no more bytes of it, on the same device.
#[derive(Debug, Clone)]
pub struct Scratch {
    buffer: wgpu::Buffer,
}

impl AttentionPlan {
    /// Scratch for calls of this plan: [`Explanation::scratch_bytes`](super::Explanation::scratch_bytes), rounded up.
    ///
    /// # Errors
    /// [`Error::Limit`](crate::Error::Limit) past the device's limits, [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn scratch(&self) -> Result<Scratch> {
        let bytes = self.scratch_ranges().map_or(0, |[_, merged]| merged.end);
        Ok(Scratch { buffer: scratch(self.kernels.device(), "merged rows and their (m, l)", bytes)? })
    }

    /// Where the state and the merged rows lie in scratch, if there is any.
    fn scratch_ranges(&self) -> Option<[std::ops::Range<u64>; 2]> {
        let [state, merged] = self.inner.schedule.scratch_bytes;
        let alignment = self.kernels.device().limits().min_storage_buffer_offset_alignment.max(16);
        let merged_at = state.next_multiple_of(alignment.into());
        (state > 0).then(|| [0..state, merged_at..merged_at + merged])
    }

    /// Checks the buffers and binds them: nothing is recorded yet. A call may be recorded many times, and many calls
    /// into one encoder. Scratch, if any is needed, is allocated for this call alone.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a buffer that is too small, lacks the usage, is misaligned, is missing
    /// or has no use, or serves as an input and as an output; [`Error::Limit`](crate::Error::Limit) for one past the device's
    /// binding size; [`Error::Device`](crate::Error::Device) for what wgpu reports. That a device is lost shows here
    /// ([`Error::DeviceLost`](crate::Error::DeviceLost)) where a buffer has to be made, else where the call is submitted.
    pub fn bind(&self, buffers: AttentionBuffers<'_>) -> Result<Call> {
        let own = self.scratch_ranges().map(|_| self.scratch()).transpose()?;
        self.bound(buffers, own.as_ref())
    }

    /// [`bind`](Self::bind) with scratch that other calls use, too.
    ///
    /// # Errors
    /// As [`bind`](Self::bind), and [`Error::Argument`](crate::Error::Argument) for scratch that is too small.
    pub fn bind_with(&self, buffers: AttentionBuffers<'_>, scratch: &Scratch) -> Result<Call> {
        self.bound(buffers, Some(scratch))
    }

    fn bound(&self, buffers: AttentionBuffers<'_>, scratch: Option<&Scratch>) -> Result<Call> {
        let checked = self.checked(&buffers)?;
        if self.inner.attention.shape.is_empty() {
            return Ok(Call::new("attention", []));
        }
        let ranges = self.scratch_ranges();
        let piece = |n: usize| -> Result<Option<wgpu::BufferBinding<'_>>> {
            let (Some(ranges), Some(scratch)) = (&ranges, scratch) else { return Ok(None) };
            let size = wgpu::BufferSize::new(ranges[n].end - ranges[n].start);
            let binding = wgpu::BufferBinding { buffer: &scratch.buffer, offset: ranges[n].start, size };
            let elements = (ranges[n].end - ranges[n].start) as usize / 4;
            let limits = self.kernels.device().limits();
            size.map(|_| checked_binding(&limits, "scratch", &binding, elements, ElementType::F32))
                .transpose()
        };
        self.steps(&checked, piece(0)?, piece(1)?)
    }

    /// The buffers, each checked and cut to its tensor.
    fn checked<'a>(&self, buffers: &AttentionBuffers<'a>) -> Result<AttentionBuffers<'a>> {
        let attention = &self.inner.attention;
        let (storage, limits) = (attention.storage, self.kernels.device().limits());
        self.inner.terms.check_names(&buffers.tensors)?;
        dropout::check(attention, buffers.dropout_seed)?;
        if attention.shape.is_empty() {
            return Ok(buffers.clone());
        }
        let check = |name, binding: &wgpu::BufferBinding<'a>, elements, element| {
            checked_binding(&limits, name, binding, elements, element)
        };
        let tensors = self.inner.terms.checked(&limits, &buffers.tensors)?;
        let (lse, state) = (buffers.lse.as_ref(), buffers.state.as_ref());
        let len_state = 2 * attention.len_lse();
        let checked = AttentionBuffers {
            q: check("q", &buffers.q, attention.len_q(), storage.q)?,
            k: check("k", &buffers.k, attention.len_k(), storage.kv)?,
            v: check("v", &buffers.v, attention.len_v(), storage.kv)?,
            out: check("out", &buffers.out, attention.len_out(), storage.out)?,
            lse: lse.map(|lse| check("lse", lse, attention.len_lse(), ElementType::F32)).transpose()?,
            state: state.map(|state| check("state", state, len_state, ElementType::F32)).transpose()?,
            tensors: vec![],
            dropout_seed: buffers.dropout_seed,
        };
        let mut named = vec![
            ("q", Some(&checked.q), Access::Read),
            ("k", Some(&checked.k), Access::Read),
            ("v", Some(&checked.v), Access::Read),
            ("out", Some(&checked.out), Access::Write),
            ("lse", checked.lse.as_ref(), Access::Write),
            // Later parts and the merge read what the first part wrote.
            ("state", checked.state.as_ref(), Access::Both),
        ];
        named.extend(tensors.iter().map(|(name, binding)| (*name, Some(binding), Access::Read)));
        check_aliasing(&named, self.kernels.options().shared_buffers)?;
        Ok(AttentionBuffers { tensors, ..checked })
    }

    /// The dispatches over checked buffers: the parts, then a merge where there is one.
    fn steps(
        &self,
        buffers: &AttentionBuffers<'_>,
        state: Option<wgpu::BufferBinding<'_>>,
        merged: Option<wgpu::BufferBinding<'_>>,
    ) -> Result<Call> {
        let (device, inner) = (self.kernels.device(), &self.inner);
        let Compiled { parts: pipelines, merge } = self.compiled(buffers.outputs())?;
        // Of one split, the caller's state serves all parts.
        let splits = inner.schedule.splits;
        let state = if splits == 1 { buffers.state.clone().or(state) } else { state };
        let total = if splits == 1 { None } else { buffers.state.clone() };
        let mut steps = vec![];
        for (part, pipeline) in inner.parts.iter().zip(pipelines) {
            let params = dropout::reseeded(part.params.clone(), &inner.attention, buffers.dropout_seed);
            let params = if merged.is_some() { params.with_merged_rows(&inner.attention) } else { params };
            let mut bindings = Bindings::default()
                .with("q", buffers.q.clone())
                .with("k", buffers.k.clone())
                .with("v", buffers.v.clone())
                .with("mask", part.tables.as_entire_buffer_binding())
                .with("out", merged.clone().unwrap_or(buffers.out.clone()))
                .with_some("state", state.clone())
                .with_some("lse", buffers.lse.clone());
            bindings = inner.terms.bound(bindings, &buffers.tensors);
            steps.push((Stage::Main, Step::new(device, pipeline, &params, part.work, &bindings)?));
        }
        if let (Some(pipeline), Some(state)) = (merge, state) {
            let heads = inner.attention.heads.chosen().and(inner.parts.first());
            let heads = heads.map(|part| (part.tables.as_entire_buffer_binding(), part.keep.heads_at));
            let merge =
                Merge { state, merged, out: buffers.out.clone(), total, lse: buffers.lse.clone(), heads };
            let step = merge.step(device, pipeline, &inner.attention, splits)?;
            steps.push((Stage::Merge, step));
        }
        Ok(Call::new("attention", steps))
    }
}
