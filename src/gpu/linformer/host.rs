//! Linformer for plain Rust users: slices in, `Vec` out.

use super::{LinformerBuffers, LinformerPlan};
use crate::gpu::Gpu;
use crate::linformer::{LinformerInputs, LinformerOptions};
use crate::{Attention, Element, Result, Storage};

impl Gpu {
    /// Linformer over slices: uploads, computes, waits, reads back. The element types are those of the slices and of the `Vec`. See
    /// [`LinformerOptions`] for what is computed. Gaps between rows of out are 0.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a slice of the wrong length, missing or not asked for, and as
    /// [`Kernels::linformer`](crate::Kernels::linformer).
    ///
    /// ```no_run
    /// use wgpu_attention::{AttentionShape, Gpu, LinformerInputs, LinformerOptions};
    /// let shape = AttentionShape::new(1, 2, 1024, 64);
    /// let options = LinformerOptions::new(1024, 128).value_projection(false);
    /// let x: Vec<f32> = (0..shape.len_q()).map(|n| (n as f32).sin()).collect();
    /// let e = vec![1.0 / 1024.0; options.len_projection(&shape)];
    /// let out: Vec<f32> = Gpu::new()?.linformer(&shape, &options, &LinformerInputs::new(&x, &x, &e).v(&x[..]))?;
    /// assert_eq!(out.len(), shape.len_out());
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn linformer<Q: Element, KV: Element, O: Element>(
        &self,
        attention: impl Into<Attention>,
        options: &LinformerOptions,
        inputs: &LinformerInputs<'_, Q, KV>,
    ) -> Result<Vec<O>> {
        pollster::block_on(self.linformer_async(attention, options, inputs))
    }

    /// [`Gpu::linformer`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::linformer`].
    pub async fn linformer_async<Q: Element, KV: Element, O: Element>(
        &self,
        attention: impl Into<Attention>,
        options: &LinformerOptions,
        inputs: &LinformerInputs<'_, Q, KV>,
    ) -> Result<Vec<O>> {
        self.check_alive()?;
        let attention = attention.into().storage(Storage::all(Q::TYPE).kv(KV::TYPE).out(O::TYPE));
        options.check(&attention)?;
        inputs.check(&attention, options)?;
        let plan = self.planned(|kernels| kernels.linformer(&attention, *options), LinformerPlan::flops)?;
        if attention.shape.is_empty() {
            return Ok(vec![]);
        }
        let q = self.upload("q", inputs.q, attention.len_q())?;
        let k = self.upload("k", inputs.k, attention.len_k())?;
        let v = inputs.v.map(|v| self.upload("v", v, attention.len_v())).transpose()?;
        let e = self.upload("e", inputs.e, inputs.e.len())?;
        let f = inputs.f.map(|f| self.upload("f", f, f.len())).transpose()?;
        let key_mask = inputs.key_mask.map(|mask| {
            let words: Vec<u32> = mask.iter().map(|&counts| counts.into()).collect();
            self.upload("key_mask", &words, words.len())
        });
        let key_mask = key_mask.transpose()?;
        let out = self.output("out", attention.len_out(), O::TYPE)?;
        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let buffers = LinformerBuffers::new(whole(&q), whole(&k), whole(&e), whole(&out))
            .v(v.as_ref().map(whole))
            .f(f.as_ref().map(whole))
            .key_mask(key_mask.as_ref().map(whole));
        let call = plan.bind(buffers).map_err(|e| self.or_lost(e))?;
        self.fetch(&[&out], |encoder| call.encode(encoder)).await?.take(0, attention.len_out())
    }
}
