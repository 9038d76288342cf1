//! Linear attention for plain Rust users: slices in, `Vec` out.

use super::LinearBuffers;
use crate::gpu::Gpu;
use crate::linear::{LinearInputs, LinearOptions, LinearState};
use crate::{Attention, Element, ElementType, Error, Result, Storage};

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
        if options.state != LinearState::Absent {
            let need = "none, or Gpu::linear_attention_from, which takes it";
            return Err(Error::argument("state", need, format!("{:?}", options.state)));
        }
        self.linear_attention_from_async(attention, options, inputs, &mut []).await
    }

    /// Linear attention over a piece of a sequence, from the state that earlier pieces left: see [`LinearState`]. `state` has
    /// [`LinearOptions::len_state`] elements, and is replaced by that of all keys so far. On a device of your own
    /// [`LinearBuffers::state`] stays where it is, and one recorded call serves every token.
    ///
    /// # Errors
    /// As [`Gpu::linear_attention`], and [`Error::Argument`] for a state of the wrong length.
    ///
    /// ```no_run
    /// use wgpu_attention::{AttentionShape, FeatureMap, Gpu, LinearInputs, LinearOptions, LinearState};
    /// let gpu = Gpu::new()?;
    /// let options = LinearOptions::new(FeatureMap::favor(128)).causal(true).state(LinearState::Carried);
    /// let token = AttentionShape::new(1, 8, 1, 64);
    /// let mut state = vec![0.0; options.len_state(&token)]; // of no key
    /// for n in 0..3 {
    ///     let x = vec![n as f32; token.len_q()];
    ///     let out: Vec<f32> = gpu.linear_attention_from(&token, &options, &LinearInputs::new(&x, &x, &x), &mut state)?;
    ///     assert_eq!(out.len(), token.len_out());
    /// }
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn linear_attention_from<Q: Element, KV: Element, O: Element>(
        &self,
        attention: impl Into<Attention>,
        options: &LinearOptions,
        inputs: &LinearInputs<'_, Q, KV>,
        state: &mut [f32],
    ) -> Result<Vec<O>> {
        pollster::block_on(self.linear_attention_from_async(attention, options, inputs, state))
    }

    /// [`Gpu::linear_attention_from`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::linear_attention_from`].
    pub async fn linear_attention_from_async<Q: Element, KV: Element, O: Element>(
        &self,
        attention: impl Into<Attention>,
        options: &LinearOptions,
        inputs: &LinearInputs<'_, Q, KV>,
        state: &mut [f32],
    ) -> Result<Vec<O>> {
        self.check_alive()?;
        let attention = attention.into().storage(Storage::all(Q::TYPE).kv(KV::TYPE).out(O::TYPE));
        options.check(&attention)?;
        inputs.check(&attention, options)?;
        let len_state = options.len_state(&attention.shape);
        if state.len() != len_state {
            return Err(Error::argument("state", format!("{len_state} elements"), state.len()));
        }
        let (shape, features) = (&attention.shape, options.map.features(attention.shape.head_dim));
        // Features by values, once for the states and once for the outputs.
        let products = (shape.len_q() / shape.head_dim.max(1) * features) as f64;
        let kernels = self.kernels_for(4.0 * products * shape.value_dim as f64)?;
        let plan = kernels.linear_attention(&attention, options.clone());
        let plan = plan.map_err(|e| self.or_lost(e))?;
        if options.is_empty(&attention.shape) {
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
        // Without queries a state may still be left.
        let out = self.output("out", attention.len_out().max(1), O::TYPE)?;
        let carried =
            (len_state > 0).then(|| self.output("state", len_state, ElementType::F32)).transpose()?;
        if let Some(carried) = &carried {
            self.queue().write_buffer(carried, 0, bytemuck::cast_slice(state));
        }
        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let buffers = LinearBuffers::new(whole(&q), whole(&k), whole(&v), whole(&out))
            .state(carried.as_ref().map(whole))
            .projection(projection.as_ref().map(whole))
            .key_mask(key_mask.as_ref().map(whole));
        let call = plan.bind(buffers).map_err(|e| self.or_lost(e))?;
        let wanted: Vec<_> = [&out].into_iter().chain(&carried).collect();
        let fetched = self.fetch(&wanted, |encoder| call.encode(encoder)).await?;
        if carried.is_some() {
            state.copy_from_slice(&fetched.take(1, len_state)?);
        }
        fetched.take(0, attention.len_out())
    }
}
