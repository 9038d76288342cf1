//! Activations by themselves.

use crate::construct::constructed;
use crate::gpu::Kernels;
use crate::gpu::bindings::{Access, Bindings, check_aliasing, checked_binding, optional_binding};
use crate::gpu::call::Call;
use crate::gpu::params::{ActivationParams, Params};
use crate::gpu::pipeline::{Pipeline, Step, Work};
use crate::wgsl::{ActivationPass, ActivationVariant};
use crate::{ActivationShape, Result};
use std::sync::Arc;

/// A planned activation: made by [`Kernels::activation`].
#[derive(Debug, Clone)]
pub struct ActivationPlan {
    kernels: Kernels,
    shape: ActivationShape,
    kernel: ActivationKernel,
}

/// The buffers of an activation. All need `BufferUsages::STORAGE`; out may not be a buffer that is also read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ActivationBuffers<'a> {
    /// x `[len]`.
    pub x: wgpu::BufferBinding<'a>,
    /// The gate `[len]`, if and only if the shape has one.
    pub gate: Option<wgpu::BufferBinding<'a>>,
    /// out `[len]`.
    pub out: wgpu::BufferBinding<'a>,
}

constructed! {
    ActivationBuffers ['a] { x: wgpu::BufferBinding<'a>, out: wgpu::BufferBinding<'a> } { gate: wgpu::BufferBinding<'a> }
}

impl Kernels {
    /// Plans an activation by itself.
    ///
    /// # Errors
    /// As [`ActivationShape::check`]; [`Error::Device`](crate::Error::Device) for what wgpu reports while compiling.
    ///
    /// ```no_run
    /// use wgpu_attention::{Activation, ActivationBuffers, ActivationGradBuffers, ActivationShape, Kernels};
    /// # fn example(kernels: &Kernels, encoder: &mut wgpu::CommandEncoder, buffers: [&wgpu::Buffer; 4])
    /// # -> wgpu_attention::Result<()> {
    /// let plan = kernels.activation(&ActivationShape::new(512 * 3072, Activation::GeluErf))?;
    /// let [x, out, dout, dx] = buffers.map(wgpu::Buffer::as_entire_buffer_binding);
    /// plan.bind(ActivationBuffers::new(x.clone(), out))?.encode(encoder);
    /// plan.backward()?.bind(ActivationGradBuffers::new(x, dout).dx(dx))?.encode(encoder);
    /// # Ok(())
    /// # }
    /// ```
    pub fn activation(&self, shape: &ActivationShape) -> Result<ActivationPlan> {
        shape.check()?;
        let kernel = ActivationKernel::new(self, shape, ActivationPass::Forward)?;
        Ok(ActivationPlan { kernels: self.clone(), shape: *shape, kernel })
    }
}

impl ActivationPlan {
    /// The shape that was planned.
    pub fn shape(&self) -> &ActivationShape {
        &self.shape
    }

    /// The kernels that it was planned on.
    pub(super) fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    /// Checks the buffers and binds them: nothing is recorded yet.
    ///
    /// # Errors
    /// As [`MatmulPlan::bind`](super::MatmulPlan::bind).
    pub fn bind(&self, buffers: ActivationBuffers<'_>) -> Result<Call> {
        let (shape, limits) = (&self.shape, self.kernels.device().limits());
        if shape.len == 0 {
            return Ok(Call::new("activation", []));
        }
        let x = checked_binding(&limits, "x", &buffers.x, shape.len, shape.input)?;
        let gate = optional_binding(&limits, "gate", &buffers.gate, shape.gated, shape.len, shape.input)?;
        let out = checked_binding(&limits, "out", &buffers.out, shape.len, shape.output)?;
        check_aliasing(
            &[
                ("x", Some(&x), Access::Read),
                ("gate", gate.as_ref(), Access::Read),
                ("out", Some(&out), Access::Write),
            ],
            self.kernels.options().shared_buffers,
        )?;
        let bindings = Bindings::default().with("x", x).with_some("gate", gate).with("out", out);
        Ok(Call::of_steps("activation", [self.kernel.step(&self.kernels, shape.len, &bindings)?]))
    }
}

/// One of the shaders of an activation, compiled.
#[derive(Debug, Clone)]
pub(super) struct ActivationKernel {
    pipeline: Arc<Pipeline>,
}

impl ActivationKernel {
    pub(super) fn new(kernels: &Kernels, shape: &ActivationShape, pass: ActivationPass) -> Result<Self> {
        let kernel = Self { pipeline: kernels.pipeline(ActivationVariant::of(shape, pass).shader())? };
        Self::work(kernels, shape.len)?;
        Ok(kernel)
    }

    /// Of so many elements.
    pub(super) fn step(&self, kernels: &Kernels, len: usize, bindings: &Bindings<'_>) -> Result<Step> {
        let params = Params::of(ActivationParams { first_work: 0, end_work: 0, len: len as u32 });
        Step::new(kernels.device(), &self.pipeline, &params, Self::work(kernels, len)?, bindings)
    }

    fn work(kernels: &Kernels, len: usize) -> Result<Work> {
        let workgroups = len.div_ceil(ActivationVariant::PER_WORKGROUP) as u128;
        kernels.work("the activation", workgroups, 60.0 * ActivationVariant::PER_WORKGROUP as f64)
    }
}
