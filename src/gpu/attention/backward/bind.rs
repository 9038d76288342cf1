//! Buffers checked and bound to a backward plan.

use super::tensors::Source;
use super::{BackwardPlan, Pass, TensorPass};
use crate::gpu::attention::dropout;
use crate::gpu::bindings::{Access, Bindings, check_aliasing, checked_binding, scratch};
use crate::gpu::call::{Call, Stage};
use crate::gpu::params::{Params, RecordParams};
use crate::gpu::pipeline::{Step, Work};
use crate::score::Rule;
use crate::uniform::Rows;
use crate::wgsl::RecordVariant;
use crate::{ElementType, Error, Result};

/// The buffers of one backward call. All need `BufferUsages::STORAGE`; those that are written may not be buffers that are also
/// read, unless [`Options::shared_buffers`](crate::Options::shared_buffers) is set. Only gradients that are asked for are computed.
/// Offsets and sizes as [`AttentionBuffers`](crate::AttentionBuffers) has them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AttentionGradBuffers<'a> {
    /// q `[B, H, Lq, d]`, as the forward call had it.
    pub q: wgpu::BufferBinding<'a>,
    /// k `[B, Hkv, Lk, d]`.
    pub k: wgpu::BufferBinding<'a>,
    /// v `[B, Hkv, Lk, dv]`.
    pub v: wgpu::BufferBinding<'a>,
    /// Those of the score's terms, f32, by name.
    pub tensors: Vec<(&'a str, wgpu::BufferBinding<'a>)>,
    /// out `[B, H, Lq, dv]`, as the forward call left it. In 16 bits it costs the gradients digits.
    pub out: wgpu::BufferBinding<'a>,
    /// (m, l) `[B, H, Lq, 2]`, as the forward call left it: see [`AttentionBuffers::state`](crate::AttentionBuffers::state).
    pub state: wgpu::BufferBinding<'a>,
    /// The gradient of out, `[B, H, Lq, dv]`.
    pub dout: wgpu::BufferBinding<'a>,
    /// dq `[B, H, Lq, d]`, where wanted; 0 for queries without a key.
    pub dq: Option<wgpu::BufferBinding<'a>>,
    /// dk `[B, Hkv, Lk, d]`, where wanted; 0 for keys that no query attends.
    pub dk: Option<wgpu::BufferBinding<'a>>,
    /// dv `[B, Hkv, Lk, dv]`, where wanted; 0 for keys that no query attends.
    pub dv: Option<wgpu::BufferBinding<'a>>,
    /// The gradients of tensors of the score's terms that are wanted, f32, by the tensors' names: each as large as its tensor, with 0
    /// wherever no pair reads an element.
    pub tensor_gradients: Vec<(&'a str, wgpu::BufferBinding<'a>)>,
    /// The seed of [`Dropout`](crate::Dropout) that the forward call had, where it is another than the score's.
    pub dropout_seed: Option<u64>,
}

impl<'a> AttentionGradBuffers<'a> {
    /// What every call reads.
    pub fn new(
        q: wgpu::BufferBinding<'a>,
        k: wgpu::BufferBinding<'a>,
        v: wgpu::BufferBinding<'a>,
        out: wgpu::BufferBinding<'a>,
        state: wgpu::BufferBinding<'a>,
        dout: wgpu::BufferBinding<'a>,
    ) -> Self {
        Self {
            q,
            k,
            v,
            tensors: vec![],
            out,
            state,
            dout,
            dq: None,
            dk: None,
            dv: None,
            tensor_gradients: vec![],
            dropout_seed: None,
        }
    }

    /// Adds a tensor of one of the score's terms.
    pub fn tensor(mut self, name: &'a str, tensor: wgpu::BufferBinding<'a>) -> Self {
        self.tensors.push((name, tensor));
        self
    }

    /// Asks for dq.
    pub fn dq(self, dq: wgpu::BufferBinding<'a>) -> Self {
        Self { dq: Some(dq), ..self }
    }

    /// Asks for dk.
    pub fn dk(self, dk: wgpu::BufferBinding<'a>) -> Self {
        Self { dk: Some(dk), ..self }
    }

    /// Asks for the gradient of a tensor of one of the score's terms: of a bias per pair, or summed over the axes that it is
    /// broadcast along; of `slopes`, `temperature`, `bucket_table`, `relative_rows`, `relative_biases`, `sinks`.
    pub fn tensor_gradient(mut self, name: &'a str, gradient: wgpu::BufferBinding<'a>) -> Self {
        self.tensor_gradients.push((name, gradient));
        self
    }

    /// Sets the seed of [`Dropout`](crate::Dropout) that the forward call had: see [`AttentionBuffers::dropout_seed`](crate::AttentionBuffers::dropout_seed).
    pub fn dropout_seed(self, seed: u64) -> Self {
        Self { dropout_seed: Some(seed), ..self }
    }

    /// Asks for dv.
    pub fn dv(self, dv: wgpu::BufferBinding<'a>) -> Self {
        Self { dv: Some(dv), ..self }
    }
}

impl BackwardPlan {
    /// Checks the buffers and binds them: nothing is recorded yet. The forward call must run before, with these tensors. Scratch,
    /// [`scratch_bytes`](super::BackwardExplanation::scratch_bytes), is allocated for this call alone.
    ///
    /// # Errors
    /// [`Error::Argument`] for a call that asks for no gradient, and as [`AttentionPlan::bind`](crate::AttentionPlan::bind).
    pub fn bind(&self, buffers: AttentionGradBuffers<'_>) -> Result<Call> {
        let checked = self.checked(&buffers)?;
        let shape = &self.attention().shape;
        let device = self.forward.kernels.device();
        let records = scratch(device, "records of the queries", super::record_bytes(self.attention()))?;
        let records = records.as_entire_buffer_binding();
        let mut steps = vec![];
        if shape.batch > 0 && shape.len_lse() > 0 {
            steps.push((Stage::Prepare, self.record_step(&checked, records.clone())?));
        }
        let seed = checked.dropout_seed;
        let passes = self.passes(buffers.dq.is_some(), buffers.dk.is_some(), buffers.dv.is_some());
        let asked = [("dq", &checked.dq), ("dk", &checked.dk), ("dv", &checked.dv)];
        let mut bindings = self.bindings(&checked, records);
        let mut narrow = vec![];
        // Sums of several parts, of gradients that are narrower.
        let scratches = asked.iter().zip(&self.inner.narrow).map(|((_, gradient), last)| {
            let bytes = last.as_ref().filter(|_| gradient.is_some()).map(|last| last.bytes);
            bytes.map(|bytes| scratch(device, "sums of a gradient", bytes)).transpose()
        });
        let scratches = scratches.collect::<Result<Vec<_>>>()?;
        for (((name, gradient), last), sums) in asked.into_iter().zip(&self.inner.narrow).zip(&scratches) {
            let sums = sums.as_ref().map(wgpu::Buffer::as_entire_buffer_binding);
            if let (Some(gradient), Some(last), Some(sums)) = (gradient, last, &sums) {
                narrow.push((Stage::Merge, last.step(device, sums.clone(), gradient.clone(), None)?));
            }
            bindings = bindings.with_some(name, sums.or(gradient.clone()));
        }
        for pass in passes {
            steps.extend(self.pass_steps(pass, &bindings, seed)?.into_iter().map(|step| (Stage::Main, step)));
        }
        steps.extend(narrow);
        for (name, gradient) in &checked.tensor_gradients {
            steps.extend(self.tensor_steps(name, gradient, &bindings, seed)?);
        }
        Ok(Call::new("attention backward", steps))
    }

    /// The buffers, each checked and cut to its tensor.
    fn checked<'a>(&self, buffers: &AttentionGradBuffers<'a>) -> Result<AttentionGradBuffers<'a>> {
        let (attention, gradients) = (self.attention(), self.gradients());
        let (shape, storage) = (&attention.shape, attention.storage);
        let rows = buffers.dq.is_some() || buffers.dk.is_some() || buffers.dv.is_some();
        if !rows && buffers.tensor_gradients.is_empty() {
            let need = "a buffer for at least one of dq, dk, dv and the tensors of the score";
            return Err(Error::argument("gradients", need, "none"));
        }
        dropout::check(attention, buffers.dropout_seed)?;
        let terms = &self.forward.inner.terms;
        terms.check_names(&buffers.tensors)?;
        let limits = self.forward.kernels.device().limits();
        let check = |name, binding: &wgpu::BufferBinding<'a>, elements, element| {
            checked_binding(&limits, name, binding, elements, element)
        };
        let some = |name, binding: &Option<wgpu::BufferBinding<'a>>, elements, element| {
            binding.as_ref().map(|binding| check(name, binding, elements, element)).transpose()
        };
        let [dq, dk, dv, dout] = gradients.lens(shape);
        let tensors = terms.checked(&limits, &buffers.tensors)?;
        let mut tensor_gradients = vec![];
        for (n, (name, binding)) in buffers.tensor_gradients.iter().enumerate() {
            let name = self.tensor(name)?.name;
            if buffers.tensor_gradients[..n].iter().any(|(other, _)| *other == name) {
                return Err(Error::argument(gradient_name(name), "one buffer", "2 of them"));
            }
            let len = self.tensor(name)?.len;
            let binding = checked_binding(&limits, &gradient_name(name), binding, len, ElementType::F32)?;
            tensor_gradients.push((name, binding));
        }
        let checked = AttentionGradBuffers {
            q: check("q", &buffers.q, attention.len_q(), storage.q)?,
            k: check("k", &buffers.k, attention.len_k(), storage.kv)?,
            v: check("v", &buffers.v, attention.len_v(), storage.kv)?,
            tensors: vec![],
            out: check("out", &buffers.out, attention.len_out(), storage.out)?,
            state: check("state", &buffers.state, 2 * attention.len_lse(), ElementType::F32)?,
            dout: check("dout", &buffers.dout, dout, gradients.dout)?,
            dq: some("dq", &buffers.dq, dq, gradients.dq)?,
            dk: some("dk", &buffers.dk, dk, gradients.dkv)?,
            dv: some("dv", &buffers.dv, dv, gradients.dkv)?,
            tensor_gradients,
            dropout_seed: buffers.dropout_seed,
        };
        let names: Vec<_> = checked.tensor_gradients.iter().map(|(name, _)| gradient_name(name)).collect();
        let mut named = vec![
            ("q", Some(&checked.q), Access::Read),
            ("k", Some(&checked.k), Access::Read),
            ("v", Some(&checked.v), Access::Read),
            ("out", Some(&checked.out), Access::Read),
            ("state", Some(&checked.state), Access::Read),
            ("dout", Some(&checked.dout), Access::Read),
            ("dq", checked.dq.as_ref(), Access::Write),
            ("dk", checked.dk.as_ref(), Access::Write),
            ("dv", checked.dv.as_ref(), Access::Write),
        ];
        named.extend(tensors.iter().map(|(name, binding)| (*name, Some(binding), Access::Read)));
        let written = names.iter().zip(&checked.tensor_gradients);
        named.extend(written.map(|(name, (_, binding))| (name.as_str(), Some(binding), Access::Write)));
        check_aliasing(&named, self.forward.kernels.options().shared_buffers)?;
        Ok(AttentionGradBuffers { tensors, ..checked })
    }

    fn record_step(
        &self,
        buffers: &AttentionGradBuffers<'_>,
        records: wgpu::BufferBinding<'_>,
    ) -> Result<Step> {
        let (attention, device) = (self.attention(), self.forward.kernels.device());
        let shape = &attention.shape;
        let computed = shape.batch * attention.computed_heads() * shape.q_len;
        // The mask of any part lists the heads.
        let first = self.forward.inner.parts.first().filter(|_| attention.heads.chosen().is_some());
        let kernel = RecordParams {
            rows: shape.len_lse() as u32,
            heads: shape.heads as u32,
            q_len: shape.q_len as u32,
            behind: super::relative_biases(attention) as u32,
            computed: computed as u32,
            heads_at: first.map_or(0, |part| part.keep.heads_at),
            ..Default::default()
        };
        let [.., dout] = self.gradients().strides(shape);
        let params = Params::default()
            .with("kernel", kernel)
            .with("out", Rows::from(attention.out_strides()))
            .with("dout", Rows::from(dout));
        let lanes = computed + super::record_bytes(attention) as usize / 16 - shape.len_lse();
        let items = lanes.div_ceil(RecordVariant::LANES) as u32;
        let biases = buffers.tensors.iter().find(|(name, _)| *name == "relative_biases");
        let bindings = Bindings::default()
            .with("state", buffers.state.clone())
            .with("o", buffers.out.clone())
            .with("dout", buffers.dout.clone())
            .with("records", records)
            .with_some("mask", first.map(|part| part.tables.as_entire_buffer_binding()))
            .with_some("relative_biases", biases.map(|(_, binding)| binding.clone()));
        Step::new(device, &self.inner.records, &params, Work { items, per_dispatch: items }, &bindings)
    }

    /// What the passes read, but for their masks.
    fn bindings<'a>(
        &'a self,
        buffers: &AttentionGradBuffers<'a>,
        records: wgpu::BufferBinding<'a>,
    ) -> Bindings<'a> {
        let mut shared = Bindings::default()
            .with("q", buffers.q.clone())
            .with("k", buffers.k.clone())
            .with("v", buffers.v.clone())
            .with("dout", buffers.dout.clone())
            .with("records", records);
        shared = self.forward.inner.terms.bound(shared, &buffers.tensors);
        shared
    }

    fn pass_steps(&self, pass: &Pass, shared: &Bindings<'_>, seed: Option<u64>) -> Result<Vec<Step>> {
        let device = self.forward.kernels.device();
        // No row, no work: keys of a call without any, or queries.
        let parts =
            pass.parts.iter().zip(pass.compiled(&self.forward)?).filter(|(part, _)| part.work.items > 0);
        let step = |(part, pipeline): (&super::PassPart, &std::sync::Arc<_>)| {
            let bindings = shared.clone().with("mask", part.tables.as_entire_buffer_binding());
            let params = dropout::reseeded(part.params.clone(), self.attention(), seed);
            Step::new(device, pipeline, &params, part.work, &bindings)
        };
        parts.map(step).collect()
    }

    /// The pass of a tensor's gradient.
    pub(super) fn tensor(&self, name: &str) -> Result<&TensorPass> {
        self.inner.tensors.iter().find(|pass| pass.name == name).ok_or_else(|| {
            let names: Vec<_> = self.inner.tensors.iter().map(|pass| pass.name).collect();
            let customs = self.attention().score.customs();
            let mut constants = customs.flat_map(|custom| custom.tensors(&self.attention().shape));
            if constants.any(|tensor| tensor.name == name) {
                let need = "`Custom::tensor_gradient` of it, and its two functions in the text";
                return Error::argument(gradient_name(name), need, "none");
            }
            let need = match names.as_slice() {
                [] => "none, since no tensor of the score has one".into(),
                names => format!("a tensor of the score that has one: {}", names.join(", ")),
            };
            Error::argument(gradient_name(name), need, "another name")
        })
    }

    /// The steps of a tensor's gradient, one after the other.
    fn tensor_steps(
        &self,
        name: &str,
        gradient: &wgpu::BufferBinding<'_>,
        bindings: &Bindings<'_>,
        seed: Option<u64>,
    ) -> Result<Vec<(Stage, Step)>> {
        let pass = self.tensor(name)?;
        if pass.len == 0 {
            return Ok(vec![]);
        }
        let copies = match pass.scratch_bytes() {
            0 => None,
            bytes => Some(scratch(self.forward.kernels.device(), "copies of a tensor's gradient", bytes)?),
        };
        let sums = copies.as_ref().map_or(gradient.clone(), wgpu::Buffer::as_entire_buffer_binding);
        let bindings = bindings.clone().with("sums", sums.clone());
        let mut main = vec![];
        match &pass.source {
            Source::Pairs(pairs) => {
                main.push(pass.zero(&self.forward, sums.clone())?);
                main.extend(self.pass_steps(pairs, &bindings, seed)?);
            }
            // Mesa's software adapter crashes in a loop that has no turn.
            Source::Rows { params, .. } if params.rows == 0 => {
                main.push(pass.zero(&self.forward, sums.clone())?);
            }
            Source::Rows { pass, params, work } => {
                let kernels = &self.forward.kernels;
                let pipeline = kernels.pipeline(pass.shader())?;
                main.push(Step::new(kernels.device(), &pipeline, &Params::of(*params), *work, &bindings)?);
            }
        }
        let mut steps: Vec<_> = main.into_iter().map(|step| (Stage::Main, step)).collect();
        if copies.is_some() {
            steps.push((Stage::Merge, pass.sum(&self.forward, sums, gradient.clone())?));
        }
        Ok(steps)
    }
}

/// What a message calls the gradient of a tensor.
fn gradient_name(tensor: &str) -> String {
    format!("gradient of {tensor}")
}
