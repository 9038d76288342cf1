//! Attention for plain Rust users: slices in, `Vec`s out. The plans of the last calls are kept.

use super::uploaded::Uploaded;
use super::{AttentionPlan, Outputs};
use crate::gpu::host::Gpu;
use crate::mask::Parts;
use crate::pattern::Pattern;
use crate::{Attention, Element, ElementType, Error, Inputs, Result, Storage};

/// What [`Gpu::run`] returns.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AttentionOutput<O> {
    /// out `[B, H, Lq, dv]`, lying as the layout of out says; gaps between rows are 0.
    pub out: Vec<O>,
    /// lse `[B, H, Lq]`, if it was asked for; `f32::MIN` for rows without a key.
    pub lse: Option<Vec<f32>>,
    /// (m, l) `[B, H, Lq, 2]`, if it was asked for: see [`AttentionBuffers::state`](crate::AttentionBuffers::state).
    pub state: Option<Vec<f32>>,
}

impl Gpu {
    /// Attention over slices: q `[B, H, Lq, d]`, k `[B, Hkv, Lk, d]` and v `[B, Hkv, Lk, dv]`, lying as the call's layouts say, to out
    /// `[B, H, Lq, dv]`. The element types are those of the slices and of the `Vec`.
    ///
    /// Uploads, computes, waits, reads back. The plans of the last calls are kept: the same call under the same pattern is not
    /// planned again. A call that is too long for one dispatch is cut by how fast the device is, which is measured once, when
    /// the first such call comes ([`Gpu::calibrated`]).
    ///
    /// # Errors
    /// [`Error::Argument`] for a slice of the wrong length, and as [`Kernels::attention`](crate::Kernels::attention);
    /// [`Error::Device`](crate::Error::Device) where the plan's pipelines fail their test ([`Gpu::self_tests`]);
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory), [`Error::DeviceLost`](crate::Error::DeviceLost).
    ///
    /// ```no_run
    /// use wgpu_attention::{AttentionShape, Gpu, Window};
    /// // 8 query heads share 2 key heads; a query attends itself and the 255 keys before it.
    /// let shape = AttentionShape::new(1, 8, 4096, 64).kv_heads(2);
    /// let (q, k, v) = (vec![0.1f32; shape.len_q()], vec![0.2f32; shape.len_k()], vec![0.3f32; shape.len_v()]);
    /// let out: Vec<f32> = Gpu::new()?.attention(shape, &q, &k, &v, &Window { before: 255, after: 0 })?;
    /// assert_eq!(out.len(), shape.len_out());
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn attention<Q: Element, KV: Element, O: Element>(
        &self,
        attention: impl Into<Attention>,
        q: &[Q],
        k: &[KV],
        v: &[KV],
        pattern: &dyn Pattern,
    ) -> Result<Vec<O>> {
        pollster::block_on(self.attention_async(attention, q, k, v, pattern))
    }

    /// [`Gpu::attention`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::attention`].
    pub async fn attention_async<Q: Element, KV: Element, O: Element>(
        &self,
        attention: impl Into<Attention>,
        q: &[Q],
        k: &[KV],
        v: &[KV],
        pattern: &dyn Pattern,
    ) -> Result<Vec<O>> {
        let inputs = Inputs::new(q, k, v);
        Ok(self.run_async(attention, &inputs, pattern, Outputs::default()).await?.out)
    }

    /// [`Gpu::attention`] with all that a call may ask for: tensors of the score's terms, and lse and the state beside out.
    ///
    /// # Errors
    /// As [`Gpu::attention`].
    ///
    /// ```no_run
    /// use wgpu_attention::{AttentionShape, Causal, Gpu, Inputs, Outputs, Score, Sinks};
    /// let shape = AttentionShape::new(1, 2, 128, 64);
    /// let attention = shape.score(Score::new().with(Sinks));
    /// let x = vec![0.1f32; shape.len_q()];
    /// let inputs = Inputs::new(&x, &x, &x).tensor("sinks", &[0.5, -1.0]);
    /// let result = Gpu::new()?.run::<_, _, f32>(attention, &inputs, &Causal, Outputs::default().lse())?;
    /// assert_eq!(result.lse.map(|lse| lse.len()), Some(2 * 128));
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn run<Q: Element, KV: Element, O: Element>(
        &self,
        attention: impl Into<Attention>,
        inputs: &Inputs<'_, Q, KV>,
        pattern: &dyn Pattern,
        outputs: Outputs,
    ) -> Result<AttentionOutput<O>> {
        pollster::block_on(self.run_async(attention, inputs, pattern, outputs))
    }

    /// [`Gpu::run`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::attention`].
    pub async fn run_async<Q: Element, KV: Element, O: Element>(
        &self,
        attention: impl Into<Attention>,
        inputs: &Inputs<'_, Q, KV>,
        pattern: &dyn Pattern,
        outputs: Outputs,
    ) -> Result<AttentionOutput<O>> {
        let attention = self.checked::<Q, KV, O>(attention.into(), inputs)?;
        let plan = match self.plans.get(&attention, pattern) {
            Some(plan) => plan,
            None => {
                let planned =
                    self.planned(|kernels| kernels.attention(&attention, pattern), AttentionPlan::flops)?;
                #[cfg(not(target_arch = "wasm32"))]
                let planned = self.trusted(planned).await?;
                self.plans.put(pattern, &planned);
                planned
            }
        };
        self.run_plan_async(&plan, inputs, outputs).await
    }

    /// [`Gpu::run`] over parts or a block mask that were built before.
    ///
    /// # Errors
    /// As [`Gpu::attention`].
    ///
    /// ```no_run
    /// use wgpu_attention::{AttentionShape, BlockGrid, Causal, Gpu, Inputs, Outputs, Parts};
    /// let shape = AttentionShape::new(1, 2, 4096, 64);
    /// let parts = Parts::lower(&Causal, BlockGrid::from(shape))?; // once
    /// let x = vec![0.1f32; shape.len_q()];
    /// let result = Gpu::new()?.run_parts::<_, _, f32>(shape, &Inputs::new(&x, &x, &x), parts, Outputs::default())?;
    /// assert_eq!(result.out.len(), shape.len_out());
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn run_parts<Q: Element, KV: Element, O: Element>(
        &self,
        attention: impl Into<Attention>,
        inputs: &Inputs<'_, Q, KV>,
        parts: impl Into<Parts>,
        outputs: Outputs,
    ) -> Result<AttentionOutput<O>> {
        pollster::block_on(self.run_parts_async(attention, inputs, parts, outputs))
    }

    /// [`Gpu::run_parts`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::attention`].
    pub async fn run_parts_async<Q: Element, KV: Element, O: Element>(
        &self,
        attention: impl Into<Attention>,
        inputs: &Inputs<'_, Q, KV>,
        parts: impl Into<Parts>,
        outputs: Outputs,
    ) -> Result<AttentionOutput<O>> {
        let attention = self.checked::<Q, KV, O>(attention.into(), inputs)?;
        let parts = parts.into();
        let plan =
            self.planned(|kernels| kernels.attention_parts(&attention, &parts), AttentionPlan::flops)?;
        #[cfg(not(target_arch = "wasm32"))]
        let plan = self.trusted(plan).await?;
        self.run_plan_async(&plan, inputs, outputs).await
    }

    /// Runs a plan of this device's [`kernels`](Gpu::kernels) on slices: nothing is planned or compiled again.
    ///
    /// # Errors
    /// [`Error::Argument`] for a slice of the wrong length or type.
    ///
    /// ```no_run
    /// use wgpu_attention::{AttentionShape, Causal, Gpu, Inputs, Outputs};
    /// let (gpu, shape) = (Gpu::new()?, AttentionShape::new(1, 8, 512, 64));
    /// let plan = gpu.kernels().attention(&shape, &Causal)?;
    /// for step in 0..3 {
    ///     let x = vec![0.1 * step as f32; shape.len_q()];
    ///     let result = gpu.run_plan::<f32, f32, f32>(&plan, &Inputs::new(&x, &x, &x), Outputs::default())?;
    ///     println!("{}", result.out[0]);
    /// }
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn run_plan<Q: Element, KV: Element, O: Element>(
        &self,
        plan: &AttentionPlan,
        inputs: &Inputs<'_, Q, KV>,
        outputs: Outputs,
    ) -> Result<AttentionOutput<O>> {
        pollster::block_on(self.run_plan_async(plan, inputs, outputs))
    }

    /// [`Gpu::run_plan`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::run_plan`].
    pub async fn run_plan_async<Q: Element, KV: Element, O: Element>(
        &self,
        plan: &AttentionPlan,
        inputs: &Inputs<'_, Q, KV>,
        outputs: Outputs,
    ) -> Result<AttentionOutput<O>> {
        self.check_alive()?;
        let attention = plan.attention();
        let types = of_types::<Q, KV, O>(attention.clone()).storage;
        if types != attention.storage {
            let need = format!("slices of the plan's types, {:?}", attention.storage);
            return Err(Error::argument("inputs", need, format!("{types:?}")));
        }
        inputs.check(attention)?;
        if attention.shape.is_empty() {
            let [lse, state] = [outputs.lse, outputs.state].map(|wanted| wanted.then(Vec::new));
            return Ok(AttentionOutput { out: vec![], lse, state });
        }
        let uploaded = Uploaded::new(self, attention, inputs)?;
        let out = self.output("out", attention.len_out(), O::TYPE)?;
        let stats =
            |name, wanted: bool, len| wanted.then(|| self.output(name, len, ElementType::F32)).transpose();
        let lse = stats("lse", outputs.lse, attention.len_lse())?;
        let state = stats("state", outputs.state, 2 * attention.len_lse())?;

        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let mut buffers = uploaded.forward(&out);
        buffers.lse = lse.as_ref().map(whole);
        buffers.state = state.as_ref().map(whole);
        let call = plan.bind(buffers).map_err(|e| self.or_lost(e))?;
        let written: Vec<_> = [&out].into_iter().chain(&lse).chain(&state).collect();
        let fetched = self.fetch(&written, |encoder| call.encode(encoder)).await?;
        let mut output = AttentionOutput {
            out: fetched.take(0, attention.len_out())?,
            lse: outputs.lse.then(|| fetched.take(1, attention.len_lse())).transpose()?,
            state: outputs
                .state
                .then(|| fetched.take(written.len() - 1, 2 * attention.len_lse()))
                .transpose()?,
        };
        output.empty_heads(attention);
        Ok(output)
    }

    /// The call over tensors of these types, if it and its tensors are right.
    fn checked<Q: Element, KV: Element, O: Element>(
        &self,
        attention: Attention,
        inputs: &Inputs<'_, Q, KV>,
    ) -> Result<Attention> {
        self.check_alive()?;
        let attention = of_types::<Q, KV, O>(attention);
        attention.check()?;
        inputs.check(&attention)?;
        Ok(attention)
    }
}

impl<O> AttentionOutput<O> {
    /// Rows of heads that are not computed end as rows without keys do. Their out is 0 already, as new buffers are.
    fn empty_heads(&mut self, attention: &Attention) {
        let shape = &attention.shape;
        let left_out = |row: usize| !attention.heads.computes(row / shape.q_len % shape.heads);
        if attention.heads.chosen().is_none() {
            return;
        }
        let lse = self.lse.iter_mut().flatten().enumerate();
        lse.filter(|(row, _)| left_out(*row)).for_each(|(_, lse)| *lse = f32::MIN);
        let state = self.state.iter_mut().flat_map(|state| state.chunks_exact_mut(2)).enumerate();
        state.filter(|(row, _)| left_out(*row)).for_each(|(_, own)| own.copy_from_slice(&[f32::MIN, 0.0]));
    }
}

/// The call over tensors of these types.
fn of_types<Q: Element, KV: Element, O: Element>(attention: Attention) -> Attention {
    attention.storage(Storage::all(Q::TYPE).kv(KV::TYPE).out(O::TYPE))
}
