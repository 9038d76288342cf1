//! Gradients of LSH attention for plain Rust users: slices in, `Vec`s out.

use super::{LshBackwardPlan, LshGradBuffers};
use crate::gpu::attention::Gradients;
use crate::gpu::host::{Fetched, Gpu};
use crate::gpu::lsh::uploaded::Uploaded;
use crate::gpu::lsh::{LshBuffers, LshPlan};
use crate::inputs::check_len;
use crate::lsh::{LshInputs, LshOptions};
use crate::{Attention, Element, ElementType, Result, Storage};

/// What [`Gpu::lsh_backward`] returns.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LshGradients<G> {
    /// dqk `[B, H, L, d]`, lying as qk does; gaps between rows are 0.
    pub dqk: Vec<G>,
    /// dv `[B, H, L, dv]`, lying as v does.
    pub dv: Vec<G>,
    /// The buckets `[B, H, R, L]`, which are constants: with others there would be other pairs.
    pub buckets: Vec<u32>,
}

impl Gpu {
    /// The gradients of sum(dout out) by the shared queries and keys and by v: of LSH attention over slices, from the gradient of out, which
    /// lies as out does. Computes the forward pass, too, its out in f32. Blocks.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a slice of the wrong length, and as [`Kernels::lsh`](crate::Kernels::lsh) and
    /// [`LshPlan::backward_with`](crate::LshPlan::backward_with).
    ///
    /// ```no_run
    /// use wgpu_attention::{AttentionShape, Gpu, LshInputs, LshOptions};
    /// let shape = AttentionShape::new(1, 2, 1024, 64);
    /// let qk: Vec<f32> = (0..shape.len_q()).map(|n| (n as f32).sin()).collect();
    /// let (inputs, dout) = (LshInputs::new(&qk, &qk), vec![1.0f32; shape.len_out()]);
    /// let gradients = Gpu::new()?.lsh_backward::<_, _, f32>(&shape, &LshOptions::new(4, 32, 64), &inputs, &dout)?;
    /// assert_eq!(gradients.dqk.len(), qk.len());
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn lsh_backward<I: Element, O: Element, G: Element>(
        &self,
        attention: impl Into<Attention>,
        options: &LshOptions,
        inputs: &LshInputs<'_, I>,
        dout: &[O],
    ) -> Result<LshGradients<G>> {
        pollster::block_on(self.lsh_backward_async(attention, options, inputs, dout))
    }

    /// [`Gpu::lsh_backward`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::lsh_backward`].
    pub async fn lsh_backward_async<I: Element, O: Element, G: Element>(
        &self,
        attention: impl Into<Attention>,
        options: &LshOptions,
        inputs: &LshInputs<'_, I>,
        dout: &[O],
    ) -> Result<LshGradients<G>> {
        self.check_alive()?;
        let attention = attention.into().storage(Storage::all(I::TYPE).out(ElementType::F32));
        let shape = attention.shape;
        options.check(&attention)?;
        inputs.check(&attention, options)?;
        check_len("dout", dout.len(), attention.len_out(), attention.layouts.out)?;
        let gradients = Gradients::of(&attention).dout(O::TYPE).storage(G::TYPE);
        let (plan, backward) = self.lsh_plans(&attention, options, gradients)?;
        if shape.is_empty() {
            return Ok(LshGradients { dqk: vec![], dv: vec![], buckets: vec![] });
        }
        #[cfg(not(target_arch = "wasm32"))]
        self.check_plan_async(&backward).await?;
        let [len_dqk, _, len_dv, len_dout] = gradients.lens(&shape);
        let dout = self.upload("dout", dout, len_dout)?;
        let fetched = self.run_lsh_backward((&plan, &backward), inputs, &dout).await?;
        Ok(LshGradients {
            dqk: fetched.take(0, len_dqk)?,
            dv: fetched.take(1, len_dv)?,
            buckets: fetched.take(2, options.len_buckets(&shape))?,
        })
    }

    /// Both directions, planned, over inputs that have been checked: brings back dqk, dv and the buckets.
    pub(crate) async fn run_lsh_backward<I: Element>(
        &self,
        (plan, backward): (&LshPlan, &LshBackwardPlan),
        inputs: &LshInputs<'_, I>,
        dout: &wgpu::Buffer,
    ) -> Result<Fetched> {
        let (attention, options, gradients) = (plan.attention(), plan.options(), backward.gradients());
        let shape = &attention.shape;
        let [len_dqk, _, len_dv, _] = gradients.lens(shape);
        let uploaded = Uploaded::new(self, attention, inputs)?;
        let out = self.output("out", attention.len_out(), attention.storage.out)?;
        let state = self.output("state", 2 * shape.len_lse(), ElementType::F32)?;
        let buckets = self.output("buckets", options.len_buckets(shape), ElementType::F32)?;
        let dqk = self.output("dqk", len_dqk, gradients.dq)?;
        let dv = self.output("dv", len_dv, gradients.dkv)?;
        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let [qk, v] = uploaded.rows();
        let forward = LshBuffers {
            projections: uploaded.projections(),
            key_mask: uploaded.key_mask(),
            tensors: uploaded.tensors(),
            ..LshBuffers::new(qk.clone(), v.clone(), whole(&out))
                .state(whole(&state))
                .buckets(whole(&buckets))
        };
        let call = LshGradBuffers {
            projections: uploaded.projections(),
            key_mask: uploaded.key_mask(),
            tensors: uploaded.tensors(),
            ..LshGradBuffers::new(qk, v, whole(&out), whole(&state), whole(dout))
                .dqk(whole(&dqk))
                .dv(whole(&dv))
        };
        let forward = plan.bind(forward).map_err(|e| self.or_lost(e))?;
        let call = backward.bind(call).map_err(|e| self.or_lost(e))?;
        let record = |encoder: &mut wgpu::CommandEncoder| {
            forward.encode(encoder);
            call.encode(encoder);
        };
        self.fetch(&[&dqk, &dv, &buckets], record).await
    }

    /// Both directions.
    fn lsh_plans(
        &self,
        attention: &Attention,
        options: &LshOptions,
        gradients: Gradients,
    ) -> Result<(LshPlan, LshBackwardPlan)> {
        let flops = |plan: &LshPlan| plan.explain().flops + plan.explain().hash_flops;
        let plan = self.planned(|kernels| kernels.lsh(attention, options.clone()), flops)?;
        let backward = plan.backward_with(gradients).map_err(|e| self.or_lost(e))?;
        Ok((plan, backward))
    }
}
