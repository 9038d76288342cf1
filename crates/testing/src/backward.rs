use super::guards::{Extents, Guarded};
use super::layouts::contiguous;
use super::run::read;
use wgpu_attention::{
    Attention, AttentionBuffers, AttentionGradBuffers, AttentionShape, Call, Element, Gpu, Gradients, Inputs,
    Parts, Strides,
};

/// What the backward kernels wrote, contiguous.
#[derive(Debug, Clone, PartialEq)]
pub struct GradOutcome<G> {
    /// `[B, H, Lq, d]`.
    pub dq: Vec<G>,
    /// `[B, Hkv, Lk, d]`.
    pub dk: Vec<G>,
    /// `[B, Hkv, Lk, dv]`.
    pub dv: Vec<G>,
    /// Of the tensors of the score's terms that were asked for.
    pub tensors: Vec<(&'static str, Vec<f32>)>,
}

/// Forward and backward on buffers of their own, as [`run`](super::run) has them: outputs poisoned, poison around all tensors and
/// between their rows. Gradients are stored as out and dout are, and lie as their tensors do. The backward call is recorded so often.
pub fn run_backward<Q: Element, KV: Element, O: Element>(
    gpu: &Gpu,
    attention: &Attention,
    inputs: &Inputs<'_, Q, KV>,
    dout: &[O],
    parts: &Parts,
    times: usize,
) -> Result<GradOutcome<O>, String> {
    run_backward_with(gpu, attention, inputs, dout, parts, times, &[])
}

/// The same with the gradients of these tensors of the score's terms.
pub fn run_backward_with<Q: Element, KV: Element, O: Element>(
    gpu: &Gpu,
    attention: &Attention,
    inputs: &Inputs<'_, Q, KV>,
    dout: &[O],
    parts: &Parts,
    times: usize,
    wanted: &[&str],
) -> Result<GradOutcome<O>, String> {
    let bound = BoundBackward::new(gpu, attention, inputs, dout, parts, wanted);
    bound.take(&read(gpu, &bound.written(), |encoder| {
        bound.forward.encode(encoder);
        (0..times).for_each(|_| bound.backward.encode(encoder));
    }))
}

/// A forward and a backward call on buffers of their own, ready to record.
pub struct BoundBackward {
    /// Leaves out and the state.
    pub forward: Call,
    /// Reads them.
    pub backward: Call,
    written: [Guarded; 3],
    at: [Extents; 3],
    tensors: Vec<(&'static str, Guarded)>,
}

impl BoundBackward {
    fn written(&self) -> Vec<&Guarded> {
        self.written.iter().chain(self.tensors.iter().map(|(_, tensor)| tensor)).collect()
    }

    fn take<G: Element>(&self, bytes: &[Vec<u8>]) -> Result<GradOutcome<G>, String> {
        let take = |n: usize| {
            let all = self.written[n].take::<G>(&bytes[n])?;
            let Extents { strides, sizes, dim, .. } = self.at[n];
            Ok::<_, String>(contiguous(&all, strides, sizes, dim))
        };
        let of_tensor = |(n, (name, tensor)): (usize, &(&'static str, Guarded))| {
            Ok((*name, tensor.take::<f32>(&bytes[3 + n])?))
        };
        let tensors = self.tensors.iter().enumerate().map(of_tensor).collect::<Result<_, String>>()?;
        Ok(GradOutcome { dq: take(0)?, dk: take(1)?, dv: take(2)?, tensors })
    }

    /// Uploads the inputs, poisons the outputs, binds.
    pub fn new<Q: Element, KV: Element, O: Element>(
        gpu: &Gpu,
        attention: &Attention,
        inputs: &Inputs<'_, Q, KV>,
        dout: &[O],
        parts: &Parts,
        wanted: &[&str],
    ) -> Self {
        let device = gpu.device();
        let AttentionShape { batch, heads, kv_heads, q_len, kv_len, head_dim, value_dim, .. } =
            attention.shape;
        let rows =
            |strides, heads, rows, dim, len| Extents { strides, sizes: [batch, heads, rows], dim, len };
        let one_row = |len: usize| Extents { strides: Strides::default(), sizes: [1, 1, 1], dim: len, len };
        let q_at = rows(attention.q_strides(), heads, q_len, head_dim, attention.len_q());
        let k_at = rows(attention.k_strides(), kv_heads, kv_len, head_dim, attention.len_k());
        let v_at = rows(attention.v_strides(), kv_heads, kv_len, value_dim, attention.len_v());
        let out_at = rows(attention.out_strides(), heads, q_len, value_dim, attention.len_out());

        let q = Guarded::input(device, "q", inputs.q, q_at);
        let k = Guarded::input(device, "k", inputs.k, k_at);
        let v = Guarded::input(device, "v", inputs.v, v_at);
        let dout = Guarded::input(device, "dout", dout, out_at);
        let of_term = |term: wgpu_attention::TermTensor| {
            let values = inputs.get(term.name).expect("the inputs have the tensors of the score");
            (term.name, Guarded::input(device, term.name, values, one_row(term.len)))
        };
        let terms: Vec<_> = attention.score.tensors(&attention.shape).into_iter().map(of_term).collect();
        let out = Guarded::of_rows(device, "out", size_of::<O>(), attention);
        let state = Guarded::output(device, "state", 4, one_row(2 * attention.len_lse()));
        let grad = |name, at| Guarded::output(device, name, size_of::<O>(), at);
        let written = [grad("dq", q_at), grad("dk", k_at), grad("dv", v_at)];

        let all = attention.score.tensors(&attention.shape).into_iter();
        let wanted = all.filter(|tensor| wanted.contains(&tensor.name));
        let gradient = |name, len| (name, Guarded::output(device, name, 4, one_row(len)));
        let wanted: Vec<_> = wanted.map(|tensor| gradient(tensor.name, tensor.len)).collect();

        let refused = |e| -> ! { panic!("{e}\n{attention:?}") };
        let plan = gpu.kernels().attention_parts(attention, parts).unwrap_or_else(|e| refused(e));
        let tensors = || terms.iter().map(|(name, tensor)| (*name, tensor.binding())).collect();
        let mut buffers = AttentionBuffers::new(q.binding(), k.binding(), v.binding(), out.binding());
        buffers.tensors = tensors();
        let forward = plan.bind(buffers.state(state.binding())).unwrap_or_else(|e| refused(e));

        let gradients = Gradients::of(attention).storage(O::TYPE);
        let backward = plan.backward_with(gradients).unwrap_or_else(|e| refused(e));
        let (q, k, v, out) = (q.binding(), k.binding(), v.binding(), out.binding());
        let [dq, dk, dv] = &written;
        let mut buffers = AttentionGradBuffers::new(q, k, v, out, state.binding(), dout.binding())
            .dq(dq.binding())
            .dk(dk.binding())
            .dv(dv.binding());
        buffers.tensors = tensors();
        buffers.tensor_gradients = wanted.iter().map(|(name, tensor)| (*name, tensor.binding())).collect();
        let backward = backward.bind(buffers).unwrap_or_else(|e| refused(e));
        Self { forward, backward, written, at: [q_at, k_at, v_at], tensors: wanted }
    }
}
