//! A step of an optimizer, and the norm that its gradients are clipped by.

use crate::construct::constructed;
use crate::gpu::Kernels;
use crate::gpu::bindings::{Access, Bindings, check_aliasing, checked_binding, optional_binding, scratch};
use crate::gpu::call::{Call, Stage};
use crate::gpu::params::{AdamwParams, ClipParams, OptimizerParams, Params, SgdParams, SquaresParams};
use crate::gpu::pipeline::{Pipeline, Step, Work};
use crate::wgsl::{ClipFactor, OptimizerVariant, SquaresVariant};
use crate::{ClipShape, ElementType, Error, OptimizerRule, OptimizerShape, OptimizerStep, Result};
use std::sync::Arc;

/// A planned optimizer: made by [`Kernels::optimizer`].
#[derive(Debug, Clone)]
pub struct OptimizerPlan {
    kernels: Kernels,
    shape: OptimizerShape,
    pipeline: Arc<Pipeline>,
    work: Work,
}

/// The buffers of an optimizer's step, each `[len]`. All need `BufferUsages::STORAGE`; what is written may not be a buffer that is
/// also read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OptimizerBuffers<'a> {
    /// The parameters, f32: read and written.
    pub parameters: wgpu::BufferBinding<'a>,
    /// Their gradient.
    pub gradient: wgpu::BufferBinding<'a>,
    /// SGD's b, where there is a momentum, or AdamW's m, f32: written, and read except in the first step.
    pub first: Option<wgpu::BufferBinding<'a>>,
    /// AdamW's v, f32: as `first`.
    pub second: Option<wgpu::BufferBinding<'a>>,
    /// The copy of the parameters, if and only if the shape has one.
    pub rounded: Option<wgpu::BufferBinding<'a>>,
    /// Norm and factor `[2]`, f32, which a [`ClipPlan`] left; if and only if the shape is clipped.
    pub clip: Option<wgpu::BufferBinding<'a>>,
}

constructed! {
    OptimizerBuffers ['a] { parameters: wgpu::BufferBinding<'a>, gradient: wgpu::BufferBinding<'a> }
    {
        first: wgpu::BufferBinding<'a>, second: wgpu::BufferBinding<'a>, rounded: wgpu::BufferBinding<'a>,
        clip: wgpu::BufferBinding<'a>
    }
}

/// A planned norm of gradients: made by [`Kernels::clip`].
#[derive(Debug, Clone)]
pub struct ClipPlan {
    kernels: Kernels,
    shape: ClipShape,
    /// Of each tensor that has an element.
    squares: Vec<Option<(Arc<Pipeline>, Work)>>,
    factor: (Arc<Pipeline>, Work),
}

impl Kernels {
    /// Plans an optimizer's step.
    ///
    /// # Errors
    /// As [`OptimizerShape::check`]; [`Error::Device`](crate::Error::Device) for what wgpu reports while compiling.
    ///
    /// ```no_run
    /// use wgpu_attention::{ClipShape, ElementType, Kernels, OptimizerBuffers, OptimizerRule, OptimizerShape, OptimizerStep};
    /// # fn example(kernels: &Kernels, device: &wgpu::Device, queue: &wgpu::Queue, buffers: [&wgpu::Buffer; 5])
    /// # -> wgpu_attention::Result<()> {
    /// let plan = kernels.optimizer(&OptimizerShape::new(1 << 20, OptimizerRule::ADAMW).clipped(true))?; // once
    /// let norm = kernels.clip(&ClipShape::new(1.0).tensor(1 << 20, ElementType::F32))?;
    /// let [p, g, m, v, clip] = buffers.map(wgpu::Buffer::as_entire_buffer_binding);
    /// let norm = norm.bind(&[g.clone()], clip.clone())?;
    /// for step in 1..=1000 {
    ///     let mut encoder = device.create_command_encoder(&Default::default());
    ///     // .. the gradient; then
    ///     norm.encode(&mut encoder);
    ///     let tensors = OptimizerBuffers::new(p.clone(), g.clone()).first(m.clone()).second(v.clone()).clip(clip.clone());
    ///     plan.bind(tensors, OptimizerStep::new(step, 3e-4))?.encode(&mut encoder);
    ///     queue.submit([encoder.finish()]);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn optimizer(&self, shape: &OptimizerShape) -> Result<OptimizerPlan> {
        shape.check()?;
        let variant = OptimizerVariant {
            adamw: matches!(shape.rule, OptimizerRule::AdamW { .. }),
            first: shape.rule.has_first(),
            gradient: shape.gradient,
            rounded: shape.rounded,
            clipped: shape.clipped,
            aligned: shape.len.is_multiple_of(4),
        };
        let shader = variant.shader();
        let workgroups = shape.len.div_ceil(OptimizerVariant::PER_WORKGROUP) as u128;
        let work = self.work(shader.entry, workgroups, 20.0 * OptimizerVariant::PER_WORKGROUP as f64)?;
        Ok(OptimizerPlan { kernels: self.clone(), shape: *shape, pipeline: self.pipeline(shader)?, work })
    }

    /// Plans the norm of gradients and the factor that clips it.
    ///
    /// # Errors
    /// As [`ClipShape::check`]; [`Error::Device`](crate::Error::Device) for what wgpu reports while compiling.
    pub fn clip(&self, shape: &ClipShape) -> Result<ClipPlan> {
        shape.check()?;
        let squares = |&(len, input): &(usize, ElementType)| {
            if len == 0 {
                return Ok(None);
            }
            let shader = SquaresVariant { input, aligned: len.is_multiple_of(4) }.shader();
            let chunks = len.div_ceil(ClipShape::CHUNK) as u128;
            let work = self.work(shader.entry, chunks, 4.0 * ClipShape::CHUNK as f64)?;
            Ok(Some((self.pipeline(shader)?, work)))
        };
        let squares = shape.tensors.iter().map(squares).collect::<Result<_>>()?;
        let shader = ClipFactor::shader();
        let work = self.work(shader.entry, 1, 8.0 * shape.partials() as f64)?;
        let factor = (self.pipeline(shader)?, work);
        Ok(ClipPlan { kernels: self.clone(), shape: shape.clone(), squares, factor })
    }
}

impl OptimizerPlan {
    /// The shape that was planned.
    pub fn shape(&self) -> &OptimizerShape {
        &self.shape
    }

    /// Checks the buffers and the step and binds them: nothing is recorded yet. A call is for one step; binding the next one
    /// compiles and plans nothing.
    ///
    /// # Errors
    /// As [`OptimizerStep::check`] and [`MatmulPlan::bind`](super::MatmulPlan::bind).
    pub fn bind(&self, buffers: OptimizerBuffers<'_>, step: OptimizerStep) -> Result<Call> {
        step.check()?;
        let (shape, limits) = (&self.shape, self.kernels.device().limits());
        let (len, f32) = (shape.len, ElementType::F32);
        if len == 0 {
            return Ok(Call::new("optimizer", []));
        }
        let state = |name, binding: &_, wanted| optional_binding(&limits, name, binding, wanted, len, f32);
        let parameters = checked_binding(&limits, "parameters", &buffers.parameters, len, f32)?;
        let gradient = checked_binding(&limits, "gradient", &buffers.gradient, len, shape.gradient)?;
        let first = state("first", &buffers.first, shape.rule.has_first())?;
        let second = state("second", &buffers.second, shape.rule.has_second())?;
        let element = shape.rounded.unwrap_or_default();
        let rounded =
            optional_binding(&limits, "rounded", &buffers.rounded, shape.rounded.is_some(), len, element)?;
        let clip = optional_binding(&limits, "clip", &buffers.clip, shape.clipped, 2, f32)?;
        check_aliasing(
            &[
                ("gradient", Some(&gradient), Access::Read),
                ("clip", clip.as_ref(), Access::Read),
                ("parameters", Some(&parameters), Access::Write),
                ("first", first.as_ref(), Access::Write),
                ("second", second.as_ref(), Access::Write),
                ("rounded", rounded.as_ref(), Access::Write),
            ],
            self.kernels.options().shared_buffers,
        )?;
        let bindings = Bindings::default()
            .with("parameters", parameters)
            .with("gradient", gradient)
            .with_some("first", first)
            .with_some("second", second)
            .with_some("rounded", rounded)
            .with_some("clip", clip);
        let params = self.params(step);
        let step = Step::new(self.kernels.device(), &self.pipeline, &params, self.work, &bindings)?;
        Ok(Call::of_steps("optimizer", [step]))
    }

    fn params(&self, step: OptimizerStep) -> Params {
        let kernel = OptimizerParams {
            len: self.shape.len as u32,
            is_first: (step.step == 1).into(),
            ..Default::default()
        };
        let params = Params::default().with("kernel", kernel);
        match self.shape.rule {
            OptimizerRule::Sgd { momentum, nesterov, weight_decay } => {
                let (rate, nesterov) = (step.learning_rate, nesterov.into());
                params.with("rule", SgdParams { rate, momentum, decay: weight_decay, nesterov })
            }
            OptimizerRule::AdamW { beta1, beta2, eps, weight_decay } => params.with(
                "rule",
                AdamwParams {
                    rate: step.adam_rate(beta1) as f32,
                    kept: step.kept(weight_decay) as f32,
                    beta1,
                    new1: 1.0 - beta1,
                    beta2,
                    new2: 1.0 - beta2,
                    root: step.adam_root(beta2) as f32,
                    eps,
                },
            ),
        }
    }
}

impl ClipPlan {
    /// The shape that was planned.
    pub fn shape(&self) -> &ClipShape {
        &self.shape
    }

    /// Checks the buffers and binds them: the tensors in the order of the shape, and clip `[2]`, f32, which gets norm and factor.
    /// Partial sums get scratch of the call's own. Nothing is recorded yet; the call serves every step.
    ///
    /// # Errors
    /// [`Error::Argument`] for another number of tensors, and as [`MatmulPlan::bind`](super::MatmulPlan::bind).
    pub fn bind(&self, tensors: &[wgpu::BufferBinding<'_>], clip: wgpu::BufferBinding<'_>) -> Result<Call> {
        let (shape, device) = (&self.shape, self.kernels.device());
        let limits = device.limits();
        if tensors.len() != shape.tensors.len() {
            return Err(Error::argument(
                "tensors",
                format!("{} tensors", shape.tensors.len()),
                tensors.len(),
            ));
        }
        let clip = checked_binding(&limits, "clip", &clip, 2, ElementType::F32)?;
        let partials = scratch(device, "partial sums of squares", 8 * shape.partials() as u64)?;
        let partials = partials.as_entire_buffer_binding();
        let shared = self.kernels.options().shared_buffers;
        let (mut steps, mut at) = (vec![], 0);
        for ((tensor, &(len, element)), planned) in tensors.iter().zip(&shape.tensors).zip(&self.squares) {
            let Some((pipeline, work)) = planned else { continue };
            let tensor = checked_binding(&limits, "tensors", tensor, len, element)?;
            check_aliasing(
                &[("tensors", Some(&tensor), Access::Read), ("clip", Some(&clip), Access::Write)],
                shared,
            )?;
            let params = SquaresParams { len: len as u32, partials_at: at, ..Default::default() };
            let bindings = Bindings::default().with("x", tensor).with("partials", partials.clone());
            let step = Step::new(device, pipeline, &Params::of(params), *work, &bindings)?;
            steps.push((Stage::Prepare, step));
            at += len.div_ceil(ClipShape::CHUNK) as u32;
        }
        let params = ClipParams { count: at, max_norm: shape.max_norm, ..Default::default() };
        let bindings = Bindings::default().with("partials", partials).with("clip", clip);
        let (pipeline, work) = &self.factor;
        steps.push((Stage::Main, Step::new(device, pipeline, &Params::of(params), *work, &bindings)?));
        Ok(Call::new("clip", steps))
    }
}
