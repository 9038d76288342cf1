//! Buffers checked and bound to an LSH plan: a call, ready to record.

use super::places::{Places, Sources};
use super::{LshPlan, Pipelines};
use crate::gpu::attention::{Merge, Outputs};
use crate::gpu::bindings::{Access, Bindings, check_aliasing, checked_binding, scratch};
use crate::gpu::call::{Call, Stage};
use crate::gpu::pipeline::Step;
use crate::schedule::scratch_bytes;
use crate::{ElementType, Result};

/// The buffers of one call of LSH attention. All need `BufferUsages::STORAGE`; each output is a buffer of its own. Offsets
/// and sizes are as for [`AttentionBuffers`](crate::AttentionBuffers).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LshBuffers<'a> {
    /// Shared queries and keys `[B, H, L, d]`, of the input type.
    pub qk: wgpu::BufferBinding<'a>,
    /// v `[B, H, L, dv]`, of the input type.
    pub v: wgpu::BufferBinding<'a>,
    /// Projections `[H or 1, d, R, sum of the factors / 2]` in f32, if and only if the options say that they are given.
    pub projections: Option<wgpu::BufferBinding<'a>>,
    /// `[B, L]` in u32, not 0 where a key may be seen; if and only if the options say that there is a key mask.
    pub key_mask: Option<wgpu::BufferBinding<'a>>,
    /// Those of the score's terms, f32, by name: see [`Score::tensors`](crate::Score::tensors).
    pub tensors: Vec<(&'a str, wgpu::BufferBinding<'a>)>,
    /// out `[B, H, L, dv]`, of the output type.
    pub out: wgpu::BufferBinding<'a>,
    /// lse `[B, H, L]` in f32, where wanted, with the sink if there is one; `f32::MIN` for rows without either.
    pub lse: Option<wgpu::BufferBinding<'a>>,
    /// (m, l) `[B, H, L, 2]` in f32 over all rounds, where wanted: what the gradients need of a row. See
    /// [`AttentionBuffers::state`](crate::AttentionBuffers::state).
    pub state: Option<wgpu::BufferBinding<'a>>,
    /// Buckets `[B, H, R, L]` in u32, where wanted.
    pub buckets: Option<wgpu::BufferBinding<'a>>,
    /// The positions of each round, sorted by (bucket, position): `[B, H, R, L]` in u32, where wanted.
    pub order: Option<wgpu::BufferBinding<'a>>,
}

impl<'a> LshBuffers<'a> {
    /// The tensors that every call has.
    pub fn new(
        qk: wgpu::BufferBinding<'a>,
        v: wgpu::BufferBinding<'a>,
        out: wgpu::BufferBinding<'a>,
    ) -> Self {
        let (projections, key_mask, tensors) = (None, None, vec![]);
        let (lse, state, buckets, order) = (None, None, None, None);
        Self { qk, v, projections, key_mask, tensors, out, lse, state, buckets, order }
    }

    /// Sets where the projections lie.
    pub fn projections(mut self, projections: wgpu::BufferBinding<'a>) -> Self {
        self.projections = Some(projections);
        self
    }

    /// Sets where the key mask lies.
    pub fn key_mask(mut self, key_mask: wgpu::BufferBinding<'a>) -> Self {
        self.key_mask = Some(key_mask);
        self
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

    /// Asks for the state (m, l) of every row.
    pub fn state(mut self, state: wgpu::BufferBinding<'a>) -> Self {
        self.state = Some(state);
        self
    }

    /// Asks for the buckets.
    pub fn buckets(mut self, buckets: wgpu::BufferBinding<'a>) -> Self {
        self.buckets = Some(buckets);
        self
    }

    /// Asks for the order.
    pub fn order(mut self, order: wgpu::BufferBinding<'a>) -> Self {
        self.order = Some(order);
        self
    }
}

impl LshPlan {
    /// Checks the buffers and binds them: nothing is recorded yet. A call may be recorded many times, and many calls into
    /// one encoder.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a buffer that is missing, too small, lacks the usage, is misaligned, or serves
    /// twice where one is written; [`Error::Limit`](crate::Error::Limit) for buffers or scratch past the device's binding size;
    /// [`Error::Device`](crate::Error::Device) for what wgpu reports.
    pub fn bind(&self, buffers: LshBuffers<'_>) -> Result<Call> {
        self.check_given(buffers.projections.is_some(), buffers.key_mask.is_some())?;
        self.inner.terms.check_names(&buffers.tensors)?;
        if self.attention.shape.is_empty() {
            return Ok(Call::new("LSH attention", []));
        }
        let buffers = check_buffers(self, buffers)?;
        Binder::new(self, &buffers)?.call()
    }
}

/// The bindings, cut to the bytes that the tensors have.
fn check_buffers<'a>(plan: &LshPlan, buffers: LshBuffers<'a>) -> Result<LshBuffers<'a>> {
    let (attention, options) = (&plan.attention, &plan.options);
    let (shape, storage) = (&attention.shape, attention.storage);
    let limits = plan.kernels.device().limits();
    let word = ElementType::F32;
    let one = |name, binding: &wgpu::BufferBinding<'a>, len, element| {
        checked_binding(&limits, name, binding, len, element)
    };
    let optional = |name, binding: &Option<wgpu::BufferBinding<'a>>, len| {
        binding.as_ref().map(|binding| one(name, binding, len, word)).transpose()
    };
    let places = options.len_buckets(shape);
    let buffers = LshBuffers {
        qk: one("qk", &buffers.qk, attention.len_q(), storage.q)?,
        v: one("v", &buffers.v, attention.len_v(), storage.kv)?,
        projections: optional("projections", &buffers.projections, options.len_projections(shape))?,
        key_mask: optional("key_mask", &buffers.key_mask, options.len_key_mask(shape))?,
        tensors: plan.inner.terms.checked(&limits, &buffers.tensors)?,
        out: one("out", &buffers.out, attention.len_out(), storage.out)?,
        lse: optional("lse", &buffers.lse, shape.len_lse())?,
        state: optional("state", &buffers.state, 2 * shape.len_lse())?,
        buckets: optional("buckets", &buffers.buckets, places)?,
        order: optional("order", &buffers.order, places)?,
    };
    let mut named = vec![
        ("qk", Some(&buffers.qk), Access::Read),
        ("v", Some(&buffers.v), Access::Read),
        ("projections", buffers.projections.as_ref(), Access::Read),
        ("key_mask", buffers.key_mask.as_ref(), Access::Read),
        ("out", Some(&buffers.out), Access::Write),
        ("lse", buffers.lse.as_ref(), Access::Write),
        ("state", buffers.state.as_ref(), Access::Both),
        ("buckets", buffers.buckets.as_ref(), Access::Both),
        ("order", buffers.order.as_ref(), Access::Both),
    ];
    named.extend(buffers.tensors.iter().map(|(name, binding)| (*name, Some(binding), Access::Read)));
    check_aliasing(&named, plan.kernels.options().shared_buffers)?;
    Ok(buffers)
}

/// A call's buffers: the caller's, and scratch for the rest.
struct Binder<'p> {
    plan: &'p LshPlan,
    buffers: &'p LshBuffers<'p>,
    pipelines: &'p Pipelines,
    places: Places<'p>,
    state: Option<wgpu::Buffer>,
    merged: Option<wgpu::Buffer>,
}

impl<'p> Binder<'p> {
    fn new(plan: &'p LshPlan, buffers: &'p LshBuffers<'p>) -> Result<Self> {
        let [state_bytes, merged_bytes] = scratch_bytes(&plan.attention, plan.options.rounds > 1, 1);
        let device = plan.kernels.device();
        let some = |wanted: bool, label, bytes| wanted.then(|| scratch(device, label, bytes)).transpose();
        let outputs = Outputs { lse: buffers.lse.is_some(), state: buffers.state.is_some() };
        let sources = Sources {
            qk: buffers.qk.clone(),
            projections: buffers.projections.clone(),
            key_mask: buffers.key_mask.clone(),
            buckets: buffers.buckets.clone(),
            order: buffers.order.clone(),
        };
        Ok(Self {
            plan,
            buffers,
            pipelines: plan.pipelines(outputs)?,
            places: Places::new(plan, sources)?,
            state: some(state_bytes > 0 && !outputs.state, "the merged (m, l)", state_bytes)?,
            merged: some(merged_bytes > 0, "the merged rows", merged_bytes)?,
        })
    }

    fn call(&self) -> Result<Call> {
        let mut steps = self.places.steps()?;
        for round in 0..self.plan.options.rounds {
            steps.push((Stage::Main, self.round(round)?));
        }
        if let Some(merge) = self.merge()? {
            steps.push((Stage::Merge, merge));
        }
        Ok(Call::new("LSH attention", steps))
    }

    fn device(&self) -> &wgpu::Device {
        self.plan.kernels.device()
    }

    /// Where (m, l) goes: to the caller, or to scratch where rounds merge.
    fn state(&self) -> Option<wgpu::BufferBinding<'_>> {
        let own = self.state.as_ref().map(wgpu::Buffer::as_entire_buffer_binding);
        self.buffers.state.clone().or(own)
    }

    fn round(&self, round: usize) -> Result<Step> {
        let (mut params, work) = self.plan.round(round)?;
        if self.merged.is_some() {
            params = params.with_merged_rows(&self.plan.attention);
        }
        let pipeline = match &self.pipelines.later {
            Some(later) if round > 0 => later,
            _ => &self.pipelines.first,
        };
        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let bindings = Bindings::default()
            .with("q", self.buffers.qk.clone())
            .with("v", self.buffers.v.clone())
            .with("places", self.places.tables())
            .with("out", self.merged.as_ref().map_or_else(|| self.buffers.out.clone(), whole))
            .with_some("state", self.state())
            .with_some("lse", self.buffers.lse.clone())
            .with("norms", self.places.norms());
        let bindings = self.plan.inner.terms.bound(bindings, &self.buffers.tensors);
        Step::new(self.device(), pipeline, &params, work, &bindings)
    }

    fn merge(&self) -> Result<Option<Step>> {
        let (Some(pipeline), Some(state)) = (&self.pipelines.merge, self.state()) else { return Ok(None) };
        let merge = Merge {
            state,
            merged: self.merged.as_ref().map(wgpu::Buffer::as_entire_buffer_binding),
            out: self.buffers.out.clone(),
            total: None,
            lse: self.buffers.lse.clone(),
            heads: None,
        };
        merge.step(self.device(), pipeline, &self.plan.attention, 1).map(Some)
    }
}
