//! The operations of attention, as burn's backends have them.

use super::{AttentionCall, dims, expect, layouts, out_spec, state_spec};
use crate::buffers::Place;
use crate::check::dtype;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, backend_extension};
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use wgpu_attention::{AttentionBuffers, AttentionGradBuffers, Result};

/// What a backend does for [`attention`](super::attention).
#[backend_extension(Cube, Fusion, Autodiff)]
pub(crate) trait AttentionOps: Backend {
    /// out.
    #[fusion(meta = |q, _k, _v, call| out_spec(q, &call.attention))]
    fn wgpu_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        call: AttentionCall,
    ) -> FloatTensor<Self>;

    /// out and (m, l) of every query, `[B, H, Lq, 2]`.
    #[fusion(meta = |q, _k, _v, call| (out_spec(q, &call.attention), state_spec(&call.attention)))]
    fn wgpu_attention_state(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        call: AttentionCall,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// dq, dk, dv.
    #[fusion(meta = |q, k, v, _out, _state, _dout, _call| (q.clone(), k.clone(), v.clone()))]
    fn wgpu_attention_gradients(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        out: FloatTensor<Self>,
        state: FloatTensor<Self>,
        dout: FloatTensor<Self>,
        call: AttentionCall,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

impl AttentionOps for CubeBackend {
    fn wgpu_attention(q: CubeTensor, k: CubeTensor, v: CubeTensor, call: AttentionCall) -> CubeTensor {
        expect(forward([q, k, v], &call, false)).0
    }

    fn wgpu_attention_state(
        q: CubeTensor,
        k: CubeTensor,
        v: CubeTensor,
        call: AttentionCall,
    ) -> (CubeTensor, CubeTensor) {
        let (out, state) = expect(forward([q, k, v], &call, true));
        (out, state.expect("a state that was asked for"))
    }

    fn wgpu_attention_gradients(
        q: CubeTensor,
        k: CubeTensor,
        v: CubeTensor,
        out: CubeTensor,
        state: CubeTensor,
        dout: CubeTensor,
        call: AttentionCall,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        expect(gradients([q, k, v], [out, state, dout], &call)).into()
    }
}

/// out, and the state where it is wanted.
fn forward(
    inputs: [CubeTensor; 3],
    call: &AttentionCall,
    state: bool,
) -> Result<(CubeTensor, Option<CubeTensor>)> {
    let device = call.on.kernels.device();
    let [q, k, v] = inputs.map(|tensor| Place::input(tensor, device));
    let (sizes, storage) = (dims(&call.attention.shape), call.attention.storage);
    let out = Place::output(&q, sizes.out, dtype(storage.out), device);
    let state = state.then(|| Place::output(&q, sizes.state, DType::F32, device));
    let plans = call.plans(layouts(&q, &k, &v))?;
    let mut buffers = AttentionBuffers::new(q.binding(), k.binding(), v.binding(), out.binding());
    if let Some(state) = &state {
        buffers = buffers.state(state.binding());
    }
    call.on.submit(&plans.plan.bind(buffers)?);
    Ok((out.into_tensor(), state.map(Place::into_tensor)))
}

/// dq, dk and dv, from what the forward call had and left.
fn gradients(
    inputs: [CubeTensor; 3],
    left: [CubeTensor; 3],
    call: &AttentionCall,
) -> Result<[CubeTensor; 3]> {
    let device = call.on.kernels.device();
    let [q, k, v] = inputs.map(|tensor| Place::input(tensor, device));
    let [out, state, dout] = left.map(|tensor| Place::contiguous(tensor, device));
    let (sizes, storage) = (dims(&call.attention.shape), call.attention.storage);
    let [dq, dk, dv] = sizes.inputs.map(|dims| Place::output(&q, dims, dtype(storage.q), device));
    let plans = call.plans(layouts(&q, &k, &v))?;
    let buffers = AttentionGradBuffers::new(
        q.binding(),
        k.binding(),
        v.binding(),
        out.binding(),
        state.binding(),
        dout.binding(),
    );
    let buffers = buffers.dq(dq.binding()).dk(dk.binding()).dv(dv.binding());
    call.on.submit(&plans.backward()?.bind(buffers)?);
    Ok([dq, dk, dv].map(Place::into_tensor))
}

/// The gradients, as an operation of burn's autodiff.
#[derive(Debug)]
struct AttentionBackward;

impl<B: AttentionOps> Backward<B, 3> for AttentionBackward {
    /// q, k, v; out and the state; the call.
    type State = ([NodeId; 3], [FloatTensor<B>; 2], AttentionCall);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let dout = grads.consume::<B>(&ops.node);
        let (inputs, [out, state], call) = ops.state;
        let [q, k, v] = inputs.map(|node| checkpointer.retrieve_node_output::<FloatTensor<B>>(node));
        let (dq, dk, dv) = B::wgpu_attention_gradients(q, k, v, out, state, dout, call);
        for (parent, gradient) in ops.parents.into_iter().zip([dq, dk, dv]) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: AttentionOps, C: CheckpointStrategy> AttentionOps for Autodiff<B, C> {
    fn wgpu_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        call: AttentionCall,
    ) -> FloatTensor<Self> {
        let prepared = AttentionBackward.prepare::<C>([q.node(), k.node(), v.node()]);
        match prepared.compute_bound().stateful() {
            OpsKind::Tracked(mut prepared) => {
                let inputs = [&q, &k, &v].map(|tensor| prepared.checkpoint(tensor));
                let [q, k, v] = [q, k, v].map(|tensor| tensor.into_primitive());
                let (out, state) = B::wgpu_attention_state(q, k, v, call.clone());
                prepared.finish((inputs, [out.clone(), state], call), out)
            }
            OpsKind::UnTracked(prepared) => {
                let [q, k, v] = [q, k, v].map(|tensor| tensor.into_primitive());
                prepared.finish(B::wgpu_attention(q, k, v, call))
            }
        }
    }

    fn wgpu_attention_state(
        _q: FloatTensor<Self>,
        _k: FloatTensor<Self>,
        _v: FloatTensor<Self>,
        _call: AttentionCall,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("the state is asked for below autodiff")
    }

    fn wgpu_attention_gradients(
        _q: FloatTensor<Self>,
        _k: FloatTensor<Self>,
        _v: FloatTensor<Self>,
        _out: FloatTensor<Self>,
        _state: FloatTensor<Self>,
        _dout: FloatTensor<Self>,
        _call: AttentionCall,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("gradients have none of their own")
    }
}
