//! Activations and their gradients for plain Rust users: slices in, `Vec`s out.

use super::{ActivationBuffers, ActivationGradBuffers};
use crate::gpu::Gpu;
use crate::gpu::bindings::whole;
use crate::{ActivationShape, Element, Result};

/// What [`Gpu::activation_backward`] returns.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ActivationGradientsOutput<I> {
    /// The gradient by x `[len]`.
    pub dx: Vec<I>,
    /// The gradient by the gate `[len]`, if there is one.
    pub dgate: Option<Vec<I>>,
}

impl Gpu {
    /// An activation of every element of x, times the gate if the shape has one.
    ///
    /// # Errors
    /// As [`Gpu::matmul`] and [`Kernels::activation`](crate::Kernels::activation).
    ///
    /// ```no_run
    /// use wgpu_attention::{Activation, ActivationShape, Gpu};
    /// let shape = ActivationShape::new(2, Activation::Relu);
    /// let out: Vec<f32> = Gpu::new()?.activation(&shape, &[2.0f32, -2.0], None)?;
    /// assert_eq!(out, [2.0, 0.0]);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn activation<I: Element, O: Element>(
        &self,
        shape: &ActivationShape,
        x: &[I],
        gate: Option<&[I]>,
    ) -> Result<Vec<O>> {
        pollster::block_on(self.activation_async(shape, x, gate))
    }

    /// [`Gpu::activation`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::activation`].
    pub async fn activation_async<I: Element, O: Element>(
        &self,
        shape: &ActivationShape,
        x: &[I],
        gate: Option<&[I]>,
    ) -> Result<Vec<O>> {
        let shape = shape.input(I::TYPE).output(O::TYPE);
        let plan = self.kernels().activation(&shape)?;
        let x = self.slice("x", x, shape.len, false)?;
        let gate = self.optional("gate", gate, shape.gated, shape.len, false)?;
        let bind = |out: &_| {
            plan.bind(ActivationBuffers { x: whole(&x), gate: gate.as_ref().map(whole), out: whole(out) })
        };
        self.layer(shape.len, None, bind).await
    }

    /// The gradients of sum(dout out), out = act(x) or act(x) gate, by x and by the gate.
    ///
    /// # Errors
    /// As [`Gpu::activation`].
    ///
    /// ```no_run
    /// use wgpu_attention::{Activation, ActivationShape, Gpu};
    /// let shape = ActivationShape::new(2, Activation::Relu);
    /// let gradients = Gpu::new()?.activation_backward(&shape, &[2.0f32, -2.0], None, &[5.0f32, 7.0])?;
    /// assert_eq!(gradients.dx, [5.0, 0.0]);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn activation_backward<I: Element, O: Element>(
        &self,
        shape: &ActivationShape,
        x: &[I],
        gate: Option<&[I]>,
        dout: &[O],
    ) -> Result<ActivationGradientsOutput<I>> {
        pollster::block_on(self.activation_backward_async(shape, x, gate, dout))
    }

    /// [`Gpu::activation_backward`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::activation_backward`].
    pub async fn activation_backward_async<I: Element, O: Element>(
        &self,
        shape: &ActivationShape,
        x: &[I],
        gate: Option<&[I]>,
        dout: &[O],
    ) -> Result<ActivationGradientsOutput<I>> {
        let shape = shape.input(I::TYPE).output(O::TYPE);
        let plan = self.kernels().activation(&shape)?.backward()?;
        let x = self.slice("x", x, shape.len, false)?;
        let gate = self.optional("gate", gate, shape.gated, shape.len, false)?;
        let dout = self.slice("dout", dout, shape.len, false)?;
        self.check_alive()?;
        if shape.len == 0 {
            return Ok(ActivationGradientsOutput { dx: vec![], dgate: shape.gated.then(Vec::new) });
        }
        let dx = self.output("dx", shape.len, I::TYPE)?;
        let dgate = shape.gated.then(|| self.output("dgate", shape.len, I::TYPE)).transpose()?;
        let buffers = ActivationGradBuffers::new(whole(&x), whole(&dout))
            .gate(gate.as_ref().map(whole))
            .dx(whole(&dx))
            .dgate(dgate.as_ref().map(whole));
        let call = plan.bind(buffers).map_err(|e| self.or_lost(e))?;
        let outputs: Vec<_> = std::iter::once(&dx).chain(&dgate).collect();
        let fetched = self.fetch(&outputs, |encoder| call.encode(encoder)).await?;
        Ok(ActivationGradientsOutput {
            dx: fetched.take(0, shape.len)?,
            dgate: shape.gated.then(|| fetched.take(1, shape.len)).transpose()?,
        })
    }
}
