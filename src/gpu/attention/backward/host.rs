//! Gradients for plain Rust users: slices in, `Vec`s out.

use super::{AttentionGradBuffers, Gradients};
use crate::gpu::attention::AttentionBuffers;
use crate::gpu::host::Gpu;
use crate::inputs::check_len;
use crate::pattern::Pattern;
use crate::{Attention, Element, ElementType, Inputs, Result, Storage};

/// What [`Gpu::attention_backward`] returns.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AttentionGradients<G> {
    /// dq `[B, H, Lq, d]`, lying as q does; gaps between rows are 0.
    pub dq: Vec<G>,
    /// dk `[B, Hkv, Lk, d]`, lying as k does.
    pub dk: Vec<G>,
    /// dv `[B, Hkv, Lk, dv]`, lying as v does.
    pub dv: Vec<G>,
}

impl Gpu {
    /// The gradients of sum(dout out) by q, k and v: of attention over slices, from the gradient of out, which lies as out does.
    /// Computes the forward pass, too, its out in f32. Blocks.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a slice of the wrong length, and as
    /// [`AttentionPlan::backward_with`](crate::AttentionPlan::backward_with).
    ///
    /// ```no_run
    /// use wgpu_attention::{AttentionShape, Causal, Gpu, Inputs};
    /// let (gpu, shape) = (Gpu::new()?, AttentionShape::new(1, 8, 512, 64));
    /// let [q, k, v, dout] = [0.1, 0.2, 0.3, 0.4].map(|x: f32| vec![x; shape.len_q()]);
    /// let gradients = gpu.attention_backward::<_, _, _, f32>(&shape, &Inputs::new(&q, &k, &v), &dout, &Causal)?;
    /// println!("{:?}", &gradients.dq[..4]);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn attention_backward<Q: Element, KV: Element, O: Element, G: Element>(
        &self,
        attention: impl Into<Attention>,
        inputs: &Inputs<'_, Q, KV>,
        dout: &[O],
        pattern: &dyn Pattern,
    ) -> Result<AttentionGradients<G>> {
        pollster::block_on(self.attention_backward_async(attention, inputs, dout, pattern))
    }

    /// [`Gpu::attention_backward`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::attention_backward`].
    pub async fn attention_backward_async<Q: Element, KV: Element, O: Element, G: Element>(
        &self,
        attention: impl Into<Attention>,
        inputs: &Inputs<'_, Q, KV>,
        dout: &[O],
        pattern: &dyn Pattern,
    ) -> Result<AttentionGradients<G>> {
        self.check_alive()?;
        let attention = attention.into().storage(Storage { q: Q::TYPE, kv: KV::TYPE, out: ElementType::F32 });
        attention.check()?;
        inputs.check(&attention)?;
        check_len("dout", dout.len(), attention.len_out(), attention.layouts.out)?;
        let plan = self.kernels().attention(&attention, pattern).map_err(|e| self.or_lost(e))?;
        let gradients = Gradients::of(&attention).dout(O::TYPE).storage(G::TYPE);
        let backward = plan.backward_with(gradients).map_err(|e| self.or_lost(e))?;
        let [len_dq, len_dk, len_dv, len_dout] = gradients.lens(&attention.shape);

        let q = self.upload("q", inputs.q, attention.len_q())?;
        let k = self.upload("k", inputs.k, attention.len_k())?;
        let v = self.upload("v", inputs.v, attention.len_v())?;
        let dout = self.upload("dout", dout, len_dout)?;
        let tensors = attention.score.tensors(&attention.shape).into_iter().filter_map(|tensor| {
            let values = inputs.get(tensor.name)?;
            Some(self.upload(tensor.name, values, tensor.len).map(|buffer| (tensor.name, buffer)))
        });
        let tensors = tensors.collect::<Result<Vec<_>>>()?;
        // A binding has at least one element, also that of an empty tensor.
        let output = |name, len: usize, element| self.output(name, len.max(1), element);
        let out = output("out", attention.len_out(), ElementType::F32)?;
        let state = output("state", 2 * attention.len_lse(), ElementType::F32)?;
        let dq = output("dq", len_dq, G::TYPE)?;
        let dk = output("dk", len_dk, G::TYPE)?;
        let dv = output("dv", len_dv, G::TYPE)?;

        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let named = || tensors.iter().map(|(name, buffer)| (*name, whole(buffer))).collect();
        let mut forward =
            AttentionBuffers::new(whole(&q), whole(&k), whole(&v), whole(&out)).state(whole(&state));
        forward.tensors = named();
        let forward = plan.bind(forward).map_err(|e| self.or_lost(e))?;
        let (out, state, dout) = (whole(&out), whole(&state), whole(&dout));
        let mut buffers = AttentionGradBuffers::new(whole(&q), whole(&k), whole(&v), out, state, dout)
            .dq(whole(&dq))
            .dk(whole(&dk))
            .dv(whole(&dv));
        buffers.tensors = named();
        let call = backward.bind(buffers).map_err(|e| self.or_lost(e))?;
        let record = |encoder: &mut wgpu::CommandEncoder| {
            forward.encode(encoder);
            call.encode(encoder);
        };
        let fetched = self.fetch(&[&dq, &dk, &dv], record).await?;
        Ok(AttentionGradients {
            dq: fetched.take(0, len_dq)?,
            dk: fetched.take(1, len_dk)?,
            dv: fetched.take(2, len_dv)?,
        })
    }
}
