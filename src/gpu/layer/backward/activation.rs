//! Gradients through an activation.

use crate::construct::constructed;
use crate::gpu::Kernels;
use crate::gpu::bindings::{Access, Bindings, check_aliasing, checked_binding, optional_binding};
use crate::gpu::call::Call;
use crate::gpu::layer::activation::{ActivationKernel, ActivationPlan};
use crate::wgsl::ActivationPass;
use crate::{ActivationShape, Result};

/// The gradients of an activation: made by [`ActivationPlan::backward`].
#[derive(Debug, Clone)]
pub struct ActivationBackwardPlan {
    kernels: Kernels,
    shape: ActivationShape,
}

/// The buffers of an activation's gradients. All need `BufferUsages::STORAGE`; what is written may not be a buffer that is also
/// read. A gradient that is not given is not computed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ActivationGradBuffers<'a> {
    /// x `[len]`.
    pub x: wgpu::BufferBinding<'a>,
    /// The gradient of out `[len]`, in its type.
    pub dout: wgpu::BufferBinding<'a>,
    /// The gate `[len]`, if and only if the shape has one.
    pub gate: Option<wgpu::BufferBinding<'a>>,
    /// The gradient by x `[len]`, in its type, if wanted.
    pub dx: Option<wgpu::BufferBinding<'a>>,
    /// The gradient by the gate `[len]`, in its type, if wanted.
    pub dgate: Option<wgpu::BufferBinding<'a>>,
}

constructed! {
    ActivationGradBuffers ['a] { x: wgpu::BufferBinding<'a>, dout: wgpu::BufferBinding<'a> }
    { gate: wgpu::BufferBinding<'a>, dx: wgpu::BufferBinding<'a>, dgate: wgpu::BufferBinding<'a> }
}

impl ActivationPlan {
    /// Plans the gradients: dx = dout gate act'(x), dgate = dout act(x). Of ReLU at 0 the derivative is 0.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) for what wgpu reports while compiling.
    pub fn backward(&self) -> Result<ActivationBackwardPlan> {
        let (kernels, shape) = (self.kernels().clone(), *self.shape());
        let plan = ActivationBackwardPlan { kernels, shape };
        // Compiling here, not in `bind`, keeps the cost where the caller expects it.
        plan.kernel(true, shape.gated)?;
        Ok(plan)
    }
}

impl ActivationBackwardPlan {
    /// The shape that was planned.
    pub fn shape(&self) -> &ActivationShape {
        &self.shape
    }

    /// Checks the buffers and binds them: nothing is recorded yet.
    ///
    /// # Errors
    /// As [`MatmulPlan::bind`](crate::MatmulPlan::bind).
    pub fn bind(&self, buffers: ActivationGradBuffers<'_>) -> Result<Call> {
        let (shape, limits) = (&self.shape, self.kernels.device().limits());
        let ActivationShape { len, gated, input, .. } = *shape;
        let optional =
            |name, binding: &_, wanted| optional_binding(&limits, name, binding, wanted, len, input);
        let (wants_dx, wants_dgate) = (buffers.dx.is_some(), gated && buffers.dgate.is_some());
        let dgate = optional("dgate", &buffers.dgate, wants_dgate)?;
        if len == 0 || !(wants_dx || wants_dgate) {
            return Ok(Call::new("activation backward", []));
        }
        let x = checked_binding(&limits, "x", &buffers.x, len, input)?;
        let gate = optional("gate", &buffers.gate, gated)?;
        let dout = checked_binding(&limits, "dout", &buffers.dout, len, shape.output)?;
        let dx = optional("dx", &buffers.dx, wants_dx)?;
        check_aliasing(
            &[
                ("x", Some(&x), Access::Read),
                ("gate", gate.as_ref(), Access::Read),
                ("dout", Some(&dout), Access::Read),
                ("dx", dx.as_ref(), Access::Write),
                ("dgate", dgate.as_ref(), Access::Write),
            ],
            self.kernels.options().shared_buffers,
        )?;
        let bindings = Bindings::default()
            .with("x", x)
            .with_some("gate", gate)
            .with("dout", dout)
            .with_some("dx", dx)
            .with_some("dgate", dgate);
        let step = self.kernel(wants_dx, wants_dgate)?.step(&self.kernels, len, &bindings)?;
        Ok(Call::of_steps("activation backward", [step]))
    }

    /// The kernel of these gradients.
    fn kernel(&self, dx: bool, dgate: bool) -> Result<ActivationKernel> {
        ActivationKernel::new(&self.kernels, &self.shape, ActivationPass::Backward { dx, dgate })
    }
}
