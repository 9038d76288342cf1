//! Gradients of Linformer for plain Rust users: slices in, `Vec`s out.

use super::{LinformerBackwardPlan, LinformerGradBuffers};
use crate::gpu::Gpu;
use crate::gpu::attention::Gradients;
use crate::inputs::check_len;
use crate::linformer::{LinformerInputs, LinformerOptions};
use crate::{Attention, Element, ElementType, Result, Storage};

/// What [`Gpu::linformer_backward`] returns.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LinformerGradients<G> {
    /// dq `[B, H, Lq, d]`, lying as q does; gaps between rows are 0.
    pub dq: Vec<G>,
    /// dk `[B, Hkv, Lk, d]`, lying as k does.
    pub dk: Vec<G>,
    /// dv `[B, Hkv, Lk, dv]`, lying as v does, where there is a v.
    pub dv: Option<Vec<G>>,
    /// dE, as E.
    pub de: Vec<f32>,
    /// dF, as F, where there is an F.
    pub df: Option<Vec<f32>>,
}

impl Gpu {
    /// The gradients of sum(dout out) by q, k, v, E and F: of Linformer over slices, from the gradient of out, which lies as out does. Blocks.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a slice of the wrong length, missing or not asked for, and as
    /// [`Kernels::linformer`](crate::Kernels::linformer) and [`LinformerPlan::backward_with`](crate::LinformerPlan::backward_with).
    ///
    /// ```no_run
    /// use wgpu_attention::{AttentionShape, Gpu, LinformerInputs, LinformerOptions};
    /// let shape = AttentionShape::new(1, 2, 1024, 64);
    /// let options = LinformerOptions::new(1024, 128).value_projection(false);
    /// let x: Vec<f32> = (0..shape.len_q()).map(|n| (n as f32).sin()).collect();
    /// let (e, dout) = (vec![1.0 / 1024.0; options.len_projection(&shape)], vec![1.0f32; shape.len_out()]);
    /// let inputs = LinformerInputs::new(&x, &x, &e).v(&x[..]);
    /// let gradients = Gpu::new()?.linformer_backward::<_, _, _, f32>(&shape, &options, &inputs, &dout)?;
    /// assert_eq!((gradients.de.len(), gradients.df), (e.len(), None));
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn linformer_backward<Q: Element, KV: Element, O: Element, G: Element>(
        &self,
        attention: impl Into<Attention>,
        options: &LinformerOptions,
        inputs: &LinformerInputs<'_, Q, KV>,
        dout: &[O],
    ) -> Result<LinformerGradients<G>> {
        pollster::block_on(self.linformer_backward_async(attention, options, inputs, dout))
    }

    /// [`Gpu::linformer_backward`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::linformer_backward`].
    pub async fn linformer_backward_async<Q: Element, KV: Element, O: Element, G: Element>(
        &self,
        attention: impl Into<Attention>,
        options: &LinformerOptions,
        inputs: &LinformerInputs<'_, Q, KV>,
        dout: &[O],
    ) -> Result<LinformerGradients<G>> {
        self.check_alive()?;
        let attention = attention.into().storage(Storage::all(Q::TYPE).kv(KV::TYPE).out(O::TYPE));
        options.check(&attention)?;
        inputs.check(&attention, options)?;
        check_len("dout", dout.len(), attention.len_out(), attention.layouts.out)?;
        let gradients = Gradients::of(&attention).storage(G::TYPE);
        let plan =
            |kernels: &crate::Kernels| kernels.linformer(&attention, *options)?.backward_with(gradients);
        let plan = self.planned(plan, LinformerBackwardPlan::flops)?;
        let shape = &attention.shape;
        let [len_dq, len_dk, len_dv, len_dout] = gradients.lens(shape);
        let projection = options.len_projection(shape);
        if shape.is_empty() {
            let zeros = |len| vec![G::from_f64(0.0); len];
            let (dq, dk, dv) = (zeros(len_dq), zeros(len_dk), options.values.then(|| zeros(len_dv)));
            let df = options.value_projection.then(|| vec![0.0; projection]);
            return Ok(LinformerGradients { dq, dk, dv, de: vec![0.0; projection], df });
        }
        let q = self.upload("q", inputs.q, attention.len_q())?;
        let k = self.upload("k", inputs.k, attention.len_k())?;
        let v = inputs.v.map(|v| self.upload("v", v, attention.len_v())).transpose()?;
        let e = self.upload("e", inputs.e, inputs.e.len())?;
        let f = inputs.f.map(|f| self.upload("f", f, f.len())).transpose()?;
        let dout = self.upload("dout", dout, len_dout)?;
        let key_mask = inputs.key_mask.map(|mask| {
            let words: Vec<u32> = mask.iter().map(|&counts| counts.into()).collect();
            self.upload("key_mask", &words, words.len())
        });
        let key_mask = key_mask.transpose()?;
        let (dq, dk) = (self.output("dq", len_dq, G::TYPE)?, self.output("dk", len_dk, G::TYPE)?);
        let dv = options.values.then(|| self.output("dv", len_dv, G::TYPE)).transpose()?;
        let de = self.output("de", projection, ElementType::F32)?;
        let df =
            options.value_projection.then(|| self.output("df", projection, ElementType::F32)).transpose()?;
        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let buffers = LinformerGradBuffers::new(whole(&q), whole(&k), whole(&e), whole(&dout))
            .v(v.as_ref().map(whole))
            .f(f.as_ref().map(whole))
            .key_mask(key_mask.as_ref().map(whole))
            .dq(whole(&dq))
            .dk(whole(&dk))
            .dv(dv.as_ref().map(whole))
            .de(whole(&de))
            .df(df.as_ref().map(whole));
        let call = plan.bind(buffers).map_err(|e| self.or_lost(e))?;
        let written: Vec<_> =
            [Some(&dq), Some(&dk), Some(&de), dv.as_ref(), df.as_ref()].into_iter().flatten().collect();
        let fetched = self.fetch(&written, |encoder| call.encode(encoder)).await?;
        Ok(LinformerGradients {
            dq: fetched.take(0, len_dq)?,
            dk: fetched.take(1, len_dk)?,
            de: fetched.take(2, projection)?,
            dv: dv.is_some().then(|| fetched.take(3, len_dv)).transpose()?,
            df: df.is_some().then(|| fetched.take(written.len() - 1, projection)).transpose()?,
        })
    }
}
