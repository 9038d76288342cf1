//! Recurrent networks for plain Rust users: slices in, `Vec`s out.

use super::{RecurrentBuffers, RecurrentPlan, RecurrentWeightBuffers};
use crate::gpu::Gpu;
use crate::gpu::bindings::whole;
use crate::{Element, ElementType, RecurrentInputs, RecurrentShape, RecurrentWeights, Result};

/// What [`Gpu::recurrent`] returns.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RecurrentOutput {
    /// h after every step, `[B, T, D H]`, or `[T, B, D H]`.
    pub out: Vec<f32>,
    /// h after the last one, `[layers D, B, H]`.
    pub h_n: Vec<f32>,
    /// c after the last one, of an LSTM.
    pub c_n: Option<Vec<f32>>,
}

/// The weights of a layer and direction on the device.
struct Uploaded {
    weights: [wgpu::Buffer; 2],
    biases: [Option<wgpu::Buffer>; 2],
}

impl Uploaded {
    fn new<W: Element>(gpu: &Gpu, part: &RecurrentWeights<'_, W>) -> Result<Self> {
        let upload = |name, data: &[W]| gpu.upload(name, data, data.len());
        let optional = |name, data: Option<&[W]>| data.map(|data| upload(name, data)).transpose();
        Ok(Self {
            weights: [upload("weight_ih", part.weight_ih)?, upload("weight_hh", part.weight_hh)?],
            biases: [optional("bias_ih", part.bias_ih)?, optional("bias_hh", part.bias_hh)?],
        })
    }

    fn buffers(&self) -> RecurrentWeightBuffers<'_> {
        let [weight_ih, weight_hh] = self.weights.each_ref().map(whole);
        let [bias_ih, bias_hh] = self.biases.each_ref().map(|bias| bias.as_ref().map(whole));
        RecurrentWeightBuffers::new(weight_ih, weight_hh).bias_ih(bias_ih).bias_hh(bias_hh)
    }
}

impl Gpu {
    /// A recurrent network over slices: uploads, computes, waits, reads back. The storage of the weights is that of their slices. See
    /// [`RecurrentShape`] for what is computed.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a slice of the wrong length, missing or not asked for, and as
    /// [`Kernels::recurrent`](crate::Kernels::recurrent).
    ///
    /// ```no_run
    /// use wgpu_attention::{Gpu, RecurrentCell, RecurrentInputs, RecurrentShape, RecurrentWeights};
    /// // One unit that adds up what it is given.
    /// let shape = RecurrentShape::new(RecurrentCell::RnnRelu, 1, 3, 1, 1).bias(false);
    /// let weights = [RecurrentWeights::new(&[1.0f32], &[1.0])];
    /// let y = Gpu::new()?.recurrent(&shape, &RecurrentInputs::new(&[1.0, 2.0, 3.0], &weights))?;
    /// assert_eq!((y.out, y.h_n), (vec![1.0, 3.0, 6.0], vec![6.0]));
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn recurrent<W: Element>(
        &self,
        shape: &RecurrentShape,
        inputs: &RecurrentInputs<'_, W>,
    ) -> Result<RecurrentOutput> {
        pollster::block_on(self.recurrent_async(shape, inputs))
    }

    /// [`Gpu::recurrent`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::recurrent`].
    pub async fn recurrent_async<W: Element>(
        &self,
        shape: &RecurrentShape,
        inputs: &RecurrentInputs<'_, W>,
    ) -> Result<RecurrentOutput> {
        self.check_alive()?;
        let shape = shape.weight(W::TYPE);
        shape.check()?;
        inputs.check(&shape)?;
        let has_c = shape.cell.has_c();
        if shape.batch == 0 {
            return Ok(RecurrentOutput { out: vec![], h_n: vec![], c_n: has_c.then(Vec::new) });
        }
        let plan = self.planned(|kernels| kernels.recurrent(&shape), RecurrentPlan::flops)?;
        let upload = |name, data: &[f32]| self.upload(name, data, data.len());
        let optional = |name, data: Option<&[f32]>| data.map(|data| upload(name, data)).transpose();
        let x = upload("x", inputs.x)?;
        let (h0, c0) = (optional("h0", inputs.h0)?, optional("c0", inputs.c0)?);
        let parts =
            inputs.weights.iter().map(|part| Uploaded::new(self, part)).collect::<Result<Vec<_>>>()?;
        let output = |name, len| self.output(name, len, ElementType::F32);
        let (out, h_n) = (output("out", shape.len_out())?, output("h_n", shape.len_state())?);
        let c_n = has_c.then(|| output("c_n", shape.len_state())).transpose()?;
        let buffers = RecurrentBuffers::new(whole(&x), whole(&out), whole(&h_n))
            .c_n(c_n.as_ref().map(whole))
            .h0(h0.as_ref().map(whole))
            .c0(c0.as_ref().map(whole))
            .weights(parts.iter().map(Uploaded::buffers));
        let call = plan.bind(buffers).map_err(|e| self.or_lost(e))?;
        let outputs: Vec<_> = [&out, &h_n].into_iter().chain(&c_n).collect();
        let fetched = self.fetch(&outputs, |encoder| call.encode(encoder)).await?;
        Ok(RecurrentOutput {
            out: fetched.take(0, shape.len_out())?,
            h_n: fetched.take(1, shape.len_state())?,
            c_n: has_c.then(|| fetched.take(2, shape.len_state())).transpose()?,
        })
    }
}
