use super::case::Case;
use super::guards::{Extents, Guarded, GuardedInputs};
use super::layouts::contiguous;
use super::run::read;
use wgpu_attention::reference::gradient::{BoundOptions, BoundedGradients, bounded};
use wgpu_attention::reference::{Position, WeightFormat};
use wgpu_attention::{
    Attention, AttentionBuffers, AttentionGradBuffers, Call, Counter, Element, ElementType, Gpu, Gradients,
    Inputs, KernelPath, Options, Parts,
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
    /// How many additions in a row make an element of theirs.
    pub chains: Vec<(&'static str, usize)>,
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
    bound.run(gpu, times)
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
    chains: Vec<(&'static str, usize)>,
}

impl BoundBackward {
    /// Runs both, the backward call so often, and takes what it wrote.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn run<G: Element>(&self, gpu: &Gpu, times: usize) -> Result<GradOutcome<G>, String> {
        self.take(&read(gpu, &self.written(), |encoder| {
            self.forward.encode(encoder);
            (0..times).for_each(|_| self.backward.encode(encoder));
        }))
    }

    /// What a call wrote.
    pub fn written(&self) -> Vec<&Guarded> {
        self.written.iter().chain(self.tensors.iter().map(|(_, tensor)| tensor)).collect()
    }

    /// What was read of it, with its poison checked.
    ///
    /// # Errors
    /// What was written where nothing may be.
    pub fn take<G: Element>(&self, bytes: &[Vec<u8>]) -> Result<GradOutcome<G>, String> {
        let take = |n: usize| {
            let all = self.written[n].take::<G>(&bytes[n])?;
            let Extents { strides, sizes, dim, .. } = self.at[n];
            Ok::<_, String>(contiguous(&all, strides, sizes, dim))
        };
        let of_tensor = |(n, (name, tensor)): (usize, &(&'static str, Guarded))| {
            Ok((*name, tensor.take::<f32>(&bytes[3 + n])?))
        };
        let tensors = self.tensors.iter().enumerate().map(of_tensor).collect::<Result<_, String>>()?;
        Ok(GradOutcome { dq: take(0)?, dk: take(1)?, dv: take(2)?, tensors, chains: self.chains.clone() })
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
        Self::in_types::<Q, KV, O, O>(gpu, attention, inputs, dout, parts, wanted)
    }

    /// The same where dout is of another type than out, and so are the gradients, of type `G`.
    pub fn in_types<Q: Element, KV: Element, D: Element, G: Element>(
        gpu: &Gpu,
        attention: &Attention,
        inputs: &Inputs<'_, Q, KV>,
        dout: &[D],
        parts: &Parts,
        wanted: &[&str],
    ) -> Self {
        let device = gpu.device();
        let [q_at, k_at, v_at] = Extents::of_inputs(attention);
        let own = GuardedInputs::new(device, attention, inputs);
        let dout = Guarded::input(device, "dout", dout, Extents::of_out(attention));
        let out = Guarded::of_rows(device, "out", attention.storage.out.size_bytes(), attention);
        let state = Guarded::output(device, "state", 4, Extents::of_one_row(2 * attention.len_lse()));
        let grad = |name, at| Guarded::output(device, name, size_of::<G>(), at);
        let is_computed = |head| attention.heads.computes(head);
        let shape = &attention.shape;
        let is_read = |kv_head| (0..shape.heads).any(|h| is_computed(h) && shape.kv_head(h) == kv_head);
        let written = [
            grad("dq", q_at).leaving(q_at, is_computed, 0.0),
            grad("dk", k_at).leaving(k_at, is_read, 0.0),
            grad("dv", v_at).leaving(v_at, is_read, 0.0),
        ];

        let all = attention.score.tensors(&attention.shape).into_iter();
        let wanted = all.filter(|tensor| wanted.contains(&tensor.name));
        let gradient = |name, len| (name, Guarded::output(device, name, 4, Extents::of_one_row(len)));
        let wanted: Vec<_> = wanted.map(|tensor| gradient(tensor.name, tensor.len)).collect();

        let refused = |e| -> ! { panic!("{e}\n{attention:?}") };
        let plan = gpu.kernels().attention_parts(attention, parts).unwrap_or_else(|e| refused(e));
        let mut buffers =
            AttentionBuffers::new(own.q.binding(), own.k.binding(), own.v.binding(), out.binding());
        buffers.tensors = own.tensors();
        let forward = plan.bind(buffers.state(state.binding())).unwrap_or_else(|e| refused(e));

        let gradients = Gradients::of(attention).dout(D::TYPE).storage(G::TYPE);
        let backward = plan.backward_with(gradients).unwrap_or_else(|e| refused(e));
        let (q, k, v, out) = (own.q.binding(), own.k.binding(), own.v.binding(), out.binding());
        let [dq, dk, dv] = &written;
        let mut buffers = AttentionGradBuffers::new(q, k, v, out, state.binding(), dout.binding())
            .dq(dq.binding())
            .dk(dk.binding())
            .dv(dv.binding());
        buffers.tensors = own.tensors();
        buffers.tensor_gradients = wanted.iter().map(|(name, tensor)| (*name, tensor.binding())).collect();
        let chains = backward.explain().chains();
        let backward = backward.bind(buffers).unwrap_or_else(|e| refused(e));
        Self { forward, backward, written, at: [q_at, k_at, v_at], tensors: wanted, chains }
    }
}

/// The gradient of out: N(0, 1).
pub fn drawn_dout<O: Element>(case: &Case) -> Vec<O> {
    let numbers = Counter::new(case.seed, 21);
    (0..case.attention.len_out()).map(|n| O::from_f64(numbers.normal(n as u64))).collect()
}

/// The gradients of a case by the formula, with the bounds on what kernels that walk these parts may give; `chains` as in
/// [`BoundOptions`].
pub fn gradient_bounds<Q: Element, KV: Element, O: Element>(
    case: &Case,
    inputs: &Inputs<'_, Q, KV>,
    dout: &[O],
    (parts, chains): (&Parts, &[(&'static str, usize)]),
) -> BoundedGradients {
    let weights = WeightFormat::of(case.options.path.unwrap_or(KernelPath::Scalar));
    let transposed = parts.transpose().unwrap_or_else(|e| panic!("{e}\n{case}"));
    let order = |at: Position| parts.key_order(at.batch, at.head, at.i);
    let tiles = |at: Position| parts.key_tiles(at.batch, at.head, at.i);
    let query_tiles = |at: Position| transposed.key_tiles(at.batch, at.head, at.i);
    let options = BoundOptions::default().order(&order).tiles(&tiles).query_tiles(&query_tiles);
    let options = options.chains(chains).weights(weights).path(gradient_path(case, O::TYPE)).storage(O::TYPE);
    let exact = bounded(&case.attention, inputs, dout, case.pattern.as_dyn(), options);
    exact.unwrap_or_else(|e| panic!("{e}\n{case}"))
}

/// The kernels of a case's gradients, where it says which attention itself has: cooperative matrices take those whose dout is f16.
fn gradient_path(case: &Case, dout: ElementType) -> KernelPath {
    let Options { path, gradient_path, .. } = case.options;
    let of_attention = path.filter(|_| dout == ElementType::F16);
    gradient_path.or(of_attention).unwrap_or(KernelPath::Scalar)
}

/// The largest error / bound of dq, dk and dv.
///
/// # Errors
/// An element outside of its bound, or of which nothing is promised.
pub fn gradients_within<O: Element>(
    case: &Case,
    exact: &BoundedGradients,
    got: &GradOutcome<O>,
) -> Result<[f64; 3], String> {
    let mut worst = [0.0; 3];
    for (n, (name, got, exact)) in
        [("dq", &got.dq, &exact.dq), ("dk", &got.dk, &exact.dk), ("dv", &got.dv, &exact.dv)]
            .into_iter()
            .enumerate()
    {
        let found = exact.compare(got.iter().copied(), 0.0);
        if !found.pass || found.unspecified > 0 {
            return Err(format!("{name}: {found}\n{case}"));
        }
        worst[n] = found.worst.map_or(0.0, |worst| worst.ratio);
    }
    Ok(worst)
}
