//! LSH attention for plain Rust users: slices in, `Vec`s out.

use super::uploaded::Uploaded;
use super::{LshBuffers, LshPlan};
use crate::gpu::Gpu;
use crate::lsh::{LshInputs, LshOptions};
use crate::{Attention, Element, ElementType, Result, Storage};

/// What [`Gpu::lsh`] returns.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LshOutput<E> {
    /// out `[B, H, L, dv]`, lying as the layout of out says; gaps between rows are 0.
    pub out: Vec<E>,
    /// lse `[B, H, L]`, with the sink if there is one; `f32::MIN` for rows without either.
    pub lse: Vec<f32>,
    /// Buckets `[B, H, R, L]`; masked positions are in the one after the last.
    pub buckets: Vec<u32>,
    /// The positions of each round, sorted by (bucket, position): `[B, H, R, L]`.
    pub order: Vec<u32>,
}

impl Gpu {
    /// LSH attention over slices: uploads, computes, waits, reads back. The element types are those of the slices and of
    /// the `Vec`. See [`LshOptions`] for what is computed.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a slice of the wrong length, and as
    /// [`Kernels::lsh`](crate::Kernels::lsh).
    ///
    /// ```no_run
    /// use wgpu_attention::{AttentionShape, Gpu, LshInputs, LshOptions};
    /// let shape = AttentionShape::new(1, 2, 1024, 64);
    /// let qk: Vec<f32> = (0..shape.len_q()).map(|n| (n as f32).sin()).collect();
    /// let inputs = LshInputs::new(&qk, &qk);
    /// let result = Gpu::new()?.lsh::<f32, f32>(&shape, &LshOptions::new(4, 32, 64), &inputs)?;
    /// assert_eq!(result.out.len(), shape.len_out());
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn lsh<I: Element, O: Element>(
        &self,
        attention: impl Into<Attention>,
        options: &LshOptions,
        inputs: &LshInputs<'_, I>,
    ) -> Result<LshOutput<O>> {
        pollster::block_on(self.lsh_async(attention, options, inputs))
    }

    /// [`Gpu::lsh`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::lsh`].
    pub async fn lsh_async<I: Element, O: Element>(
        &self,
        attention: impl Into<Attention>,
        options: &LshOptions,
        inputs: &LshInputs<'_, I>,
    ) -> Result<LshOutput<O>> {
        self.check_alive()?;
        let attention = attention.into().storage(Storage::all(I::TYPE).out(O::TYPE));
        let shape = attention.shape;
        options.check(&attention)?;
        inputs.check(&attention, options)?;
        let flops = |plan: &LshPlan| plan.explain().flops + plan.explain().hash_flops;
        let plan = self.planned(|kernels| kernels.lsh(&attention, options.clone()), flops)?;
        if shape.is_empty() {
            return Ok(LshOutput { out: vec![], lse: vec![], buckets: vec![], order: vec![] });
        }
        #[cfg(not(target_arch = "wasm32"))]
        self.check_plan_async(&plan).await?;
        self.run_lsh(&plan, inputs).await
    }

    /// A planned call, over inputs that have been checked.
    pub(crate) async fn run_lsh<I: Element, O: Element>(
        &self,
        plan: &LshPlan,
        inputs: &LshInputs<'_, I>,
    ) -> Result<LshOutput<O>> {
        let (attention, options) = (plan.attention(), plan.options());
        let shape = &attention.shape;
        let uploaded = Uploaded::new(self, attention, inputs)?;
        let places = options.len_buckets(shape);
        let out = self.output("out", attention.len_out(), O::TYPE)?;
        let lse = self.output("lse", shape.len_lse(), ElementType::F32)?;
        let buckets = self.output("buckets", places, ElementType::F32)?;
        let order = self.output("order", places, ElementType::F32)?;
        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let [qk, v] = uploaded.rows();
        let buffers = LshBuffers {
            projections: uploaded.projections(),
            key_mask: uploaded.key_mask(),
            tensors: uploaded.tensors(),
            lse: Some(whole(&lse)),
            buckets: Some(whole(&buckets)),
            order: Some(whole(&order)),
            ..LshBuffers::new(qk, v, whole(&out))
        };
        let call = plan.bind(buffers).map_err(|e| self.or_lost(e))?;
        let fetched = self.fetch(&[&out, &lse, &buckets, &order], |encoder| call.encode(encoder)).await?;
        Ok(LshOutput {
            out: fetched.take(0, attention.len_out())?,
            lse: fetched.take(1, shape.len_lse())?,
            buckets: fetched.take(2, places)?,
            order: fetched.take(3, places)?,
        })
    }
}
