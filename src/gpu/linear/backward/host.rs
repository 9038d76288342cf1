//! Gradients of linear attention for plain Rust users: slices in, `Vec`s out.

use super::{LinearBackwardPlan, LinearGradBuffers};
use crate::gpu::Gpu;
use crate::gpu::attention::Gradients;
use crate::inputs::check_len;
use crate::linear::{LinearInputs, LinearOptions};
use crate::{Attention, Element, Result, Storage};

/// What [`Gpu::linear_backward`] returns.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LinearGradients<G> {
    /// dq `[B, H, Lq, d]`, lying as q does; gaps between rows are 0.
    pub dq: Vec<G>,
    /// dk `[B, Hkv, Lk, d]`, lying as k does.
    pub dk: Vec<G>,
    /// dv `[B, Hkv, Lk, dv]`, lying as v does.
    pub dv: Vec<G>,
}

impl Gpu {
    /// The gradients of sum(dout out) by q, k and v: of linear attention over slices, from the gradient of out, which lies as out does. Blocks.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a slice of the wrong length, and as [`Kernels::linear_attention`](crate::Kernels::linear_attention)
    /// and [`LinearPlan::backward_with`](crate::LinearPlan::backward_with).
    ///
    /// ```no_run
    /// use wgpu_attention::{AttentionShape, FeatureMap, Gpu, LinearInputs, LinearOptions};
    /// let shape = AttentionShape::new(1, 2, 1024, 64);
    /// let x: Vec<f32> = (0..shape.len_q()).map(|n| (n as f32).sin()).collect();
    /// let (options, dout) = (LinearOptions::new(FeatureMap::Elu).causal(true), vec![1.0f32; shape.len_out()]);
    /// let inputs = LinearInputs::new(&x, &x, &x);
    /// let gradients = Gpu::new()?.linear_backward::<_, _, _, f32>(&shape, &options, &inputs, &dout)?;
    /// assert_eq!(gradients.dq.len(), x.len());
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn linear_backward<Q: Element, KV: Element, O: Element, G: Element>(
        &self,
        attention: impl Into<Attention>,
        options: &LinearOptions,
        inputs: &LinearInputs<'_, Q, KV>,
        dout: &[O],
    ) -> Result<LinearGradients<G>> {
        pollster::block_on(self.linear_backward_async(attention, options, inputs, dout))
    }

    /// [`Gpu::linear_backward`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::linear_backward`].
    pub async fn linear_backward_async<Q: Element, KV: Element, O: Element, G: Element>(
        &self,
        attention: impl Into<Attention>,
        options: &LinearOptions,
        inputs: &LinearInputs<'_, Q, KV>,
        dout: &[O],
    ) -> Result<LinearGradients<G>> {
        self.check_alive()?;
        let attention = attention.into().storage(Storage::all(Q::TYPE).kv(KV::TYPE).out(O::TYPE));
        options.check(&attention)?;
        inputs.check(&attention, options)?;
        check_len("dout", dout.len(), attention.len_out(), attention.layouts.out)?;
        let gradients = Gradients::of(&attention).storage(G::TYPE);
        let plan = |kernels: &crate::Kernels| {
            kernels.linear_attention(&attention, options.clone())?.backward_with(gradients)
        };
        let plan = self.planned(plan, LinearBackwardPlan::flops)?;
        let shape = &attention.shape;
        if shape.is_empty() {
            return Ok(LinearGradients { dq: vec![], dk: vec![], dv: vec![] });
        }
        let [len_dq, len_dk, len_dv, len_dout] = gradients.lens(shape);
        let q = self.upload("q", inputs.q, attention.len_q())?;
        let k = self.upload("k", inputs.k, attention.len_k())?;
        let v = self.upload("v", inputs.v, attention.len_v())?;
        let dout = self.upload("dout", dout, len_dout)?;
        let projection = inputs.projection.map(|p| self.upload("projection", p, p.len())).transpose()?;
        let key_mask = inputs.key_mask.map(|mask| {
            let words: Vec<u32> = mask.iter().map(|&seen| seen.into()).collect();
            self.upload("key_mask", &words, words.len())
        });
        let key_mask = key_mask.transpose()?;
        let output = |name, len: usize| self.output(name, len.max(1), G::TYPE);
        let (dq, dk, dv) = (output("dq", len_dq)?, output("dk", len_dk)?, output("dv", len_dv)?);
        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let buffers = LinearGradBuffers::new(whole(&q), whole(&k), whole(&v), whole(&dout))
            .projection(projection.as_ref().map(whole))
            .key_mask(key_mask.as_ref().map(whole))
            .dq(whole(&dq))
            .dk(whole(&dk))
            .dv(whole(&dv));
        let call = plan.bind(buffers).map_err(|e| self.or_lost(e))?;
        let fetched = self.fetch(&[&dq, &dk, &dv], |encoder| call.encode(encoder)).await?;
        Ok(LinearGradients {
            dq: fetched.take(0, len_dq)?,
            dk: fetched.take(1, len_dk)?,
            dv: fetched.take(2, len_dv)?,
        })
    }
}
