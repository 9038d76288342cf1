//! Gradients for plain Rust users: slices in, `Vec`s out.

use super::{AttentionGradBuffers, BackwardPlan, Gradients};
use crate::gpu::attention::AttentionPlan;
use crate::gpu::attention::uploaded::Uploaded;
use crate::gpu::host::Gpu;
use crate::inputs::check_len;
use crate::pattern::Pattern;
use crate::{Attention, Element, ElementType, Error, Inputs, Layout, Result, Storage};

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
    /// Of the tensors of the score's terms that were asked for, by their names: each as its tensor, and 0 wherever no pair reads it.
    pub tensors: Vec<(&'static str, Vec<f32>)>,
}

impl<G> AttentionGradients<G> {
    /// The gradient of a tensor of the score's terms, if it was asked for.
    pub fn tensor(&self, name: &str) -> Option<&[f32]> {
        self.tensors.iter().find(|(own, _)| *own == name).map(|(_, values)| values.as_slice())
    }
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
        pollster::block_on(self.attention_backward_async(attention, inputs, dout, pattern, &[]))
    }

    /// [`Gpu::attention_backward`] with the gradients of these tensors of the score's terms, too.
    ///
    /// # Errors
    /// As [`Gpu::attention_backward`], and [`Error::Argument`](crate::Error::Argument) for a tensor that the score does not have.
    ///
    /// ```no_run
    /// use wgpu_attention::{AttentionShape, BiasStrides, Full, Gpu, Inputs, Score};
    /// let (gpu, shape) = (Gpu::new()?, AttentionShape::new(8, 12, 197, 64));
    /// // One bias for all batch items: its gradient is summed over them.
    /// let attention = shape.score(Score::new().bias(BiasStrides::broadcast([1, 12, 197, 197])));
    /// let [q, k, v, dout] = [0.1, 0.2, 0.3, 0.4].map(|x: f32| vec![x; shape.len_q()]);
    /// let bias = vec![0.0; 12 * 197 * 197];
    /// let inputs = Inputs::new(&q, &k, &v).tensor("bias", &bias);
    /// let gradients = gpu.attention_backward_with::<_, _, _, f32>(&attention, &inputs, &dout, &Full, &["bias"])?;
    /// assert_eq!(gradients.tensor("bias").map(|bias| bias.len()), Some(bias.len()));
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn attention_backward_with<Q: Element, KV: Element, O: Element, G: Element>(
        &self,
        attention: impl Into<Attention>,
        inputs: &Inputs<'_, Q, KV>,
        dout: &[O],
        pattern: &dyn Pattern,
        tensors: &[&str],
    ) -> Result<AttentionGradients<G>> {
        pollster::block_on(self.attention_backward_async(attention, inputs, dout, pattern, tensors))
    }

    /// [`Gpu::attention_backward_with`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::attention_backward_with`].
    pub async fn attention_backward_async<Q: Element, KV: Element, O: Element, G: Element>(
        &self,
        attention: impl Into<Attention>,
        inputs: &Inputs<'_, Q, KV>,
        dout: &[O],
        pattern: &dyn Pattern,
        wanted: &[&str],
    ) -> Result<AttentionGradients<G>> {
        self.check_alive()?;
        let attention = attention.into().storage(Storage { q: Q::TYPE, kv: KV::TYPE, out: ElementType::F32 });
        attention.check()?;
        attention.shape.check_narrow("gradients")?;
        inputs.check(&attention)?;
        check_len("dout", dout.len(), attention.len_out(), attention.layouts.out)?;
        let plan = self.planned(|kernels| kernels.attention(&attention, pattern), AttentionPlan::flops)?;
        let gradients = Gradients::of(&attention).dout(O::TYPE).storage(G::TYPE);
        #[cfg(not(target_arch = "wasm32"))]
        let (plan, backward) = self.trusted_backward(self.trusted(plan).await?, gradients).await?;
        #[cfg(target_arch = "wasm32")]
        let backward = plan.backward_with(gradients).map_err(|e| self.or_lost(e))?;
        let [len_dq, len_dk, len_dv, len_dout] = gradients.lens(&attention.shape);

        let uploaded = Uploaded::new(self, &attention, inputs)?;
        let dout = self.upload("dout", dout, len_dout)?;
        // A binding has at least one element, also that of an empty tensor.
        let output = |name, len: usize, element| self.output(name, len.max(1), element);
        let out = output("out", attention.len_out(), ElementType::F32)?;
        let state = output("state", 2 * attention.len_lse(), ElementType::F32)?;
        let dq = output("dq", len_dq, G::TYPE)?;
        let dk = output("dk", len_dk, G::TYPE)?;
        let dv = output("dv", len_dv, G::TYPE)?;

        let wanted = wanted.iter().map(|name| {
            let pass = backward.tensor(name)?;
            Ok((pass.name, pass.len, output(pass.name, pass.len, ElementType::F32)?))
        });
        let wanted = wanted.collect::<Result<Vec<_>>>()?;

        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let forward = plan.bind(uploaded.forward(&out).state(whole(&state))).map_err(|e| self.or_lost(e))?;
        let [q, k, v] = uploaded.rows();
        let mut buffers = AttentionGradBuffers::new(q, k, v, whole(&out), whole(&state), whole(&dout))
            .dq(whole(&dq))
            .dk(whole(&dk))
            .dv(whole(&dv));
        buffers.tensors = uploaded.tensors();
        buffers.tensor_gradients =
            wanted.iter().map(|(name, _, gradient)| (*name, whole(gradient))).collect();
        let call = backward.bind(buffers).map_err(|e| self.or_lost(e))?;
        let record = |encoder: &mut wgpu::CommandEncoder| {
            forward.encode(encoder);
            call.encode(encoder);
        };
        let fetch: Vec<_> = [&dq, &dk, &dv].into_iter().chain(wanted.iter().map(|(.., it)| it)).collect();
        let fetched = self.fetch(&fetch, record).await?;
        let tensors =
            wanted.iter().enumerate().map(|(n, (name, len, _))| Ok((*name, fetched.take(n + 3, *len)?)));
        Ok(AttentionGradients {
            dq: fetched.take(0, len_dq)?,
            dk: fetched.take(1, len_dk)?,
            dv: fetched.take(2, len_dv)?,
            tensors: tensors.collect::<Result<_>>()?,
        })
    }

    /// The gradients of a plan of this device's [`kernels`](Gpu::kernels) on slices, from the out and the state (m, l) that the forward
    /// call left ([`Outputs::state`](crate::Outputs::state)): nothing is planned, compiled or computed again. Blocks.
    ///
    /// Out and state may be those of more keys than the plan has: then dk and dv are those of its own keys, and dq is their
    /// part of the whole. So a sequence can be cut along its keys.
    ///
    /// # Errors
    /// [`Error::Argument`] for a slice of the wrong length or type.
    ///
    /// ```no_run
    /// use wgpu_attention::{AttentionShape, Causal, Gpu, Inputs, Outputs};
    /// let (gpu, shape) = (Gpu::new()?, AttentionShape::new(1, 8, 512, 64));
    /// let plan = gpu.kernels().attention(&shape, &Causal)?;
    /// let backward = plan.backward()?;
    /// let [q, k, v, dout] = [0.1, 0.2, 0.3, 0.4].map(|x: f32| vec![x; shape.len_q()]);
    /// let inputs = Inputs::new(&q, &k, &v);
    /// let forward = gpu.run_plan::<_, _, f32>(&plan, &inputs, Outputs::default().state())?;
    /// let state = forward.state.unwrap_or_default();
    /// let gradients = gpu.run_backward_plan::<_, _, _, _, f32>(&backward, &inputs, (&forward.out, &state), &dout)?;
    /// println!("{:?}", &gradients.dq[..4]);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn run_backward_plan<Q: Element, KV: Element, O: Element, D: Element, G: Element>(
        &self,
        plan: &BackwardPlan,
        inputs: &Inputs<'_, Q, KV>,
        (out, state): (&[O], &[f32]),
        dout: &[D],
    ) -> Result<AttentionGradients<G>> {
        pollster::block_on(self.run_backward_plan_async(plan, inputs, (out, state), dout))
    }

    /// [`Gpu::run_backward_plan`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::run_backward_plan`].
    pub async fn run_backward_plan_async<Q: Element, KV: Element, O: Element, D: Element, G: Element>(
        &self,
        plan: &BackwardPlan,
        inputs: &Inputs<'_, Q, KV>,
        (out, state): (&[O], &[f32]),
        dout: &[D],
    ) -> Result<AttentionGradients<G>> {
        self.check_alive()?;
        let (attention, gradients) = (plan.attention(), plan.gradients());
        check_types::<Q, KV, O, D, G>(attention, gradients)?;
        inputs.check(attention)?;
        let [len_dq, len_dk, len_dv, len_dout] = gradients.lens(&attention.shape);
        check_len("out", out.len(), attention.len_out(), attention.layouts.out)?;
        check_len("state", state.len(), 2 * attention.len_lse(), Layout::Bhld)?;
        check_len("dout", dout.len(), len_dout, gradients.dout_layout)?;

        let uploaded = Uploaded::new(self, attention, inputs)?;
        let out = self.upload("out", out, attention.len_out())?;
        let state = self.upload("state", state, 2 * attention.len_lse())?;
        let dout = self.upload("dout", dout, len_dout)?;
        // A binding has at least one element, also that of an empty tensor.
        let output = |name, len: usize| self.output(name, len.max(1), G::TYPE);
        let (dq, dk, dv) = (output("dq", len_dq)?, output("dk", len_dk)?, output("dv", len_dv)?);
        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let [q, k, v] = uploaded.rows();
        let mut buffers = AttentionGradBuffers::new(q, k, v, whole(&out), whole(&state), whole(&dout))
            .dq(whole(&dq))
            .dk(whole(&dk))
            .dv(whole(&dv));
        buffers.tensors = uploaded.tensors();
        let call = plan.bind(buffers).map_err(|e| self.or_lost(e))?;
        let written = [&dq, &dk, &dv];
        let fetched = self.fetch(&written, |encoder| call.encode(encoder)).await?;
        Ok(AttentionGradients {
            dq: fetched.take(0, len_dq)?,
            dk: fetched.take(1, len_dk)?,
            dv: fetched.take(2, len_dv)?,
            tensors: vec![],
        })
    }
}

/// The slices must have the types that were planned.
fn check_types<Q: Element, KV: Element, O: Element, D: Element, G: Element>(
    attention: &Attention,
    gradients: &Gradients,
) -> Result<()> {
    let storage = attention.storage;
    let planned = [storage.q, storage.kv, storage.out, gradients.dout, gradients.dq, gradients.dkv];
    let given = [Q::TYPE, KV::TYPE, O::TYPE, D::TYPE, G::TYPE, G::TYPE];
    match planned == given {
        true => Ok(()),
        false => {
            let need = format!("slices of the plan's types (q, kv, out, dout, dq, dkv), {planned:?}");
            Err(Error::argument("inputs", need, format!("{given:?}")))
        }
    }
}
