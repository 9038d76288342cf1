//! Linear attention for plain Rust users: slices in, `Vec` out.

use super::LinearBuffers;
use crate::gpu::Gpu;
use crate::linear::{LinearInputs, LinearOptions};
use crate::{Attention, Element, Result, Storage};

impl Gpu {
    /// Linear attention over slices: uploads, computes, waits, reads back. The element types are those of the slices and of
    /// the `Vec`. See [`LinearOptions`] for what is computed. Gaps between rows of out are 0.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a slice of the wrong length, and as
    /// [`Kernels::linear_attention`](crate::Kernels::linear_attention).
    ///
    /// ```no_run
    /// use wgpu_attention::{AttentionShape, FeatureMap, Gpu, LinearInputs, LinearOptions};
    /// let shape = AttentionShape::new(1, 2, 1024, 64);
    /// let x: Vec<f32> = (0..shape.len_q()).map(|n| (n as f32).sin()).collect();
    /// let options = LinearOptions::new(FeatureMap::favor(128)).causal(true);
    /// let out: Vec<f32> = Gpu::new()?.linear_attention(&shape, &options, &LinearInputs::new(&x, &x, &x))?;
    /// assert_eq!(out.len(), shape.len_out());
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn linear_attention<Q: Element, KV: Element, O: Element>(
        &self,
        attention: impl Into<Attention>,
        options: &LinearOptions,
        inputs: &LinearInputs<'_, Q, KV>,
    ) -> Result<Vec<O>> {
        pollster::block_on(self.linear_attention_async(attention, options, inputs))
    }

    /// [`Gpu::linear_attention`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::linear_attention`].
    pub async fn linear_attention_async<Q: Element, KV: Element, O: Element>(
        &self,
        attention: impl Into<Attention>,
        options: &LinearOptions,
        inputs: &LinearInputs<'_, Q, KV>,
    ) -> Result<Vec<O>> {
        self.check_alive()?;
        let attention = attention.into().storage(Storage::all(Q::TYPE).kv(KV::TYPE).out(O::TYPE));
        options.check(&attention)?;
        inputs.check(&attention, options)?;
        let (shape, features) = (&attention.shape, options.map.features(attention.shape.head_dim));
        // Features by values, once for the states and once for the outputs.
        let products = (shape.len_q() / shape.head_dim.max(1) * features) as f64;
        let kernels = self.kernels_for(4.0 * products * shape.value_dim as f64)?;
        let plan = kernels.linear_attention(&attention, options.clone());
        let plan = plan.map_err(|e| self.or_lost(e))?;
        if attention.shape.is_empty() {
            return Ok(vec![]);
        }
        let q = self.upload("q", inputs.q, attention.len_q())?;
        let k = self.upload("k", inputs.k, attention.len_k())?;
        let v = self.upload("v", inputs.v, attention.len_v())?;
        let projection = inputs.projection.map(|p| self.upload("projection", p, p.len())).transpose()?;
        let key_mask = inputs.key_mask.map(|mask| {
            let words: Vec<u32> = mask.iter().map(|&seen| seen.into()).collect();
            self.upload("key_mask", &words, words.len())
        });
        let key_mask = key_mask.transpose()?;
        let out = self.output("out", attention.len_out(), O::TYPE)?;
        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let buffers = LinearBuffers::new(whole(&q), whole(&k), whole(&v), whole(&out))
            .projection(projection.as_ref().map(whole))
            .key_mask(key_mask.as_ref().map(whole));
        let call = plan.bind(buffers).map_err(|e| self.or_lost(e))?;
        self.fetch(&[&out], |encoder| call.encode(encoder)).await?.take(0, attention.len_out())
    }
}
