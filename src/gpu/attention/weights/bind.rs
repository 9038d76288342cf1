//! Buffers checked and bound to the plan of weights.

use super::WeightsPlan;
use crate::gpu::bindings::{Access, Bindings, check_aliasing, checked_binding};
use crate::gpu::call::{Call, Stage};
use crate::gpu::params::{Params, ZeroParams};
use crate::gpu::pipeline::Step;
use crate::wgsl::CopyPass;
use crate::{ElementType, Error, Result};

/// The buffers of the weights of rows. All need `BufferUsages::STORAGE`; offsets and sizes as
/// [`AttentionBuffers`](crate::AttentionBuffers) has them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WeightsBuffers<'a> {
    /// q `[B, H, Lq, d]`, as attention had it.
    pub q: wgpu::BufferBinding<'a>,
    /// k `[B, Hkv, Lk, d]`.
    pub k: wgpu::BufferBinding<'a>,
    /// Those of the score's terms, f32, by name.
    pub tensors: Vec<(&'a str, wgpu::BufferBinding<'a>)>,
    /// (m, l) `[B, H, Lq, 2]`, as attention left it: see [`AttentionBuffers::state`](crate::AttentionBuffers::state).
    pub state: wgpu::BufferBinding<'a>,
    /// The weights `[N, Lk]` of N rows, f32: see [`WeightsPlan::len_weights`]. 0 for pairs that are not attended.
    pub weights: Option<wgpu::BufferBinding<'a>>,
    /// The summaries: see [`WeightsPlan::len_summaries`].
    pub summaries: Option<wgpu::BufferBinding<'a>>,
}

impl<'a> WeightsBuffers<'a> {
    /// What every call reads.
    pub fn new(
        q: wgpu::BufferBinding<'a>,
        k: wgpu::BufferBinding<'a>,
        state: wgpu::BufferBinding<'a>,
    ) -> Self {
        Self { q, k, tensors: vec![], state, weights: None, summaries: None }
    }

    /// Adds a tensor of one of the score's terms.
    pub fn tensor(mut self, name: &'a str, tensor: wgpu::BufferBinding<'a>) -> Self {
        self.tensors.push((name, tensor));
        self
    }

    /// Where the weights go.
    pub fn weights(self, weights: wgpu::BufferBinding<'a>) -> Self {
        Self { weights: Some(weights), ..self }
    }

    /// Where the summaries go.
    pub fn summaries(self, summaries: wgpu::BufferBinding<'a>) -> Self {
        Self { summaries: Some(summaries), ..self }
    }
}

impl WeightsPlan {
    /// Checks the buffers and binds them: nothing is recorded yet. The call of attention must run before, with these tensors.
    ///
    /// # Errors
    /// [`Error::Argument`] for a buffer of what was not planned, or none of what was, and as
    /// [`AttentionPlan::bind`](crate::AttentionPlan::bind).
    pub fn bind(&self, buffers: WeightsBuffers<'_>) -> Result<Call> {
        let checked = self.checked(&buffers)?;
        let (forward, device) = (&self.forward, self.forward.kernels.device());
        let mut shared = Bindings::default()
            .with("q", checked.q.clone())
            .with("k", checked.k.clone())
            .with("state", checked.state.clone())
            .with_some("weights", checked.weights.clone())
            .with_some("summaries", checked.summaries.clone());
        shared = forward.inner.terms.bound(shared, &checked.tensors);
        let mut steps = vec![];
        if let (Some(weights), true) = (&checked.weights, self.len_weights() > 0) {
            steps.push((Stage::Prepare, self.zero(weights.clone())?));
        }
        for pass in &self.inner.passes {
            for part in pass.parts.iter().filter(|part| part.work.items > 0) {
                let bindings = shared
                    .clone()
                    .with("mask", forward.inner.parts[part.n].tables.as_entire_buffer_binding())
                    .with("chosen", part.chosen.as_entire_buffer_binding());
                steps.push((
                    Stage::Main,
                    Step::new(device, &part.pipeline, &part.params, part.work, &bindings)?,
                ));
            }
        }
        Ok(Call::new("attention weights", steps))
    }

    /// Sets the weights to 0.
    fn zero(&self, weights: wgpu::BufferBinding<'_>) -> Result<Step> {
        let kernels = &self.forward.kernels;
        let pipeline = kernels.pipeline(CopyPass::Zeros.shader())?;
        let params = Params::of(ZeroParams { len: self.len_weights() as u32, ..Default::default() });
        let items = self.len_weights().div_ceil(CopyPass::LANES) as u128;
        let work = kernels.work("weights", items, CopyPass::LANES as f64)?;
        Step::new(kernels.device(), &pipeline, &params, work, &Bindings::default().with("sums", weights))
    }

    /// The buffers, each checked and cut to its tensor.
    fn checked<'a>(&self, buffers: &WeightsBuffers<'a>) -> Result<WeightsBuffers<'a>> {
        let attention = self.attention();
        let limits = self.forward.kernels.device().limits();
        let terms = &self.forward.inner.terms;
        terms.check_names(&buffers.tensors)?;
        let check = |name, binding: &wgpu::BufferBinding<'a>, elements, element| {
            checked_binding(&limits, name, binding, elements, element)
        };
        let tensors = terms.checked(&limits, &buffers.tensors)?;
        let options = self.inner.options;
        let wanted = |name: &'static str, binding: &Option<wgpu::BufferBinding<'a>>, planned, len| match (
            binding, planned,
        ) {
            (Some(binding), true) => check(name, binding, len, ElementType::F32).map(Some),
            (None, false) => Ok(None),
            (Some(_), false) => {
                Err(Error::argument(name, "none, since the plan has no such output", "a buffer"))
            }
            (None, true) => Err(Error::argument(name, "a buffer, since the plan has this output", "none")),
        };
        let checked = WeightsBuffers {
            q: check("q", &buffers.q, attention.len_q(), attention.storage.q)?,
            k: check("k", &buffers.k, attention.len_k(), attention.storage.kv)?,
            tensors: vec![],
            state: check("state", &buffers.state, 2 * attention.len_lse(), ElementType::F32)?,
            weights: wanted("weights", &buffers.weights, options.matrix, self.len_weights())?,
            summaries: wanted(
                "summaries",
                &buffers.summaries,
                options.summary.is_some(),
                self.len_summaries(),
            )?,
        };
        let mut named = vec![
            ("q", Some(&checked.q), Access::Read),
            ("k", Some(&checked.k), Access::Read),
            ("state", Some(&checked.state), Access::Read),
            ("weights", checked.weights.as_ref(), Access::Write),
            ("summaries", checked.summaries.as_ref(), Access::Write),
        ];
        named.extend(tensors.iter().map(|(name, binding)| (*name, Some(binding), Access::Read)));
        check_aliasing(&named, self.forward.kernels.options().shared_buffers)?;
        Ok(WeightsBuffers { tensors, ..checked })
    }
}
