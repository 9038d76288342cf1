//! The operations of LSH attention, as burn's backends have them.

use super::LshCall;
use crate::attention::{dims, expect, layouts, out_spec, state_spec};
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
use wgpu_attention::{LshBuffers, LshGradBuffers, Result};

/// What a backend does for [`lsh_attention`](super::lsh_attention).
#[backend_extension(Cube, Fusion, Autodiff)]
pub(crate) trait LshOps: Backend {
    /// out.
    #[fusion(meta = |qk, _v, call| out_spec(qk, &call.attention))]
    fn wgpu_lsh(qk: FloatTensor<Self>, v: FloatTensor<Self>, call: LshCall) -> FloatTensor<Self>;

    /// out and (m, l) of every position, `[B, H, L, 2]`.
    #[fusion(meta = |qk, _v, call| (out_spec(qk, &call.attention), state_spec(&call.attention)))]
    fn wgpu_lsh_state(
        qk: FloatTensor<Self>,
        v: FloatTensor<Self>,
        call: LshCall,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// dqk, dv.
    #[fusion(meta = |qk, v, _out, _state, _dout, _call| (qk.clone(), v.clone()))]
    fn wgpu_lsh_gradients(
        qk: FloatTensor<Self>,
        v: FloatTensor<Self>,
        out: FloatTensor<Self>,
        state: FloatTensor<Self>,
        dout: FloatTensor<Self>,
        call: LshCall,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

impl LshOps for CubeBackend {
    fn wgpu_lsh(qk: CubeTensor, v: CubeTensor, call: LshCall) -> CubeTensor {
        expect(forward([qk, v], &call, false)).0
    }

    fn wgpu_lsh_state(qk: CubeTensor, v: CubeTensor, call: LshCall) -> (CubeTensor, CubeTensor) {
        let (out, state) = expect(forward([qk, v], &call, true));
        (out, state.expect("a state that was asked for"))
    }

    fn wgpu_lsh_gradients(
        qk: CubeTensor,
        v: CubeTensor,
        out: CubeTensor,
        state: CubeTensor,
        dout: CubeTensor,
        call: LshCall,
    ) -> (CubeTensor, CubeTensor) {
        expect(gradients([qk, v], [out, state, dout], &call)).into()
    }
}

/// out, and the state where it is wanted.
fn forward(inputs: [CubeTensor; 2], call: &LshCall, state: bool) -> Result<(CubeTensor, Option<CubeTensor>)> {
    let device = call.on.kernels.device();
    let [qk, v] = inputs.map(|tensor| Place::input(tensor, device));
    let (sizes, storage) = (dims(&call.attention.shape), call.attention.storage);
    let out = Place::output(&qk, sizes.out, dtype(storage.out), device);
    let state = state.then(|| Place::output(&qk, sizes.state, DType::F32, device));
    let plans = call.plans(layouts(&qk, &qk, &v))?;
    let mut buffers = LshBuffers::new(qk.binding(), v.binding(), out.binding());
    if let Some(state) = &state {
        buffers = buffers.state(state.binding());
    }
    call.on.submit(&plans.plan.bind(buffers)?);
    Ok((out.into_tensor(), state.map(Place::into_tensor)))
}

/// dqk and dv, from what the forward call had and left.
fn gradients(inputs: [CubeTensor; 2], left: [CubeTensor; 3], call: &LshCall) -> Result<[CubeTensor; 2]> {
    let device = call.on.kernels.device();
    let [qk, v] = inputs.map(|tensor| Place::input(tensor, device));
    let [out, state, dout] = left.map(|tensor| Place::contiguous(tensor, device));
    let (sizes, storage) = (dims(&call.attention.shape), call.attention.storage);
    let [dqk, _, dv] = sizes.inputs;
    let [dqk, dv] = [dqk, dv].map(|dims| Place::output(&qk, dims, dtype(storage.q), device));
    let plans = call.plans(layouts(&qk, &qk, &v))?;
    let buffers =
        LshGradBuffers::new(qk.binding(), v.binding(), out.binding(), state.binding(), dout.binding());
    let buffers = buffers.dqk(dqk.binding()).dv(dv.binding());
    call.on.submit(&plans.backward()?.bind(buffers)?);
    Ok([dqk, dv].map(Place::into_tensor))
}

/// The gradients, as an operation of burn's autodiff.
#[derive(Debug)]
struct LshBackward;

impl<B: LshOps> Backward<B, 2> for LshBackward {
    /// qk, v; out and the state; the call.
    type State = ([NodeId; 2], [FloatTensor<B>; 2], LshCall);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let dout = grads.consume::<B>(&ops.node);
        let (inputs, [out, state], call) = ops.state;
        let [qk, v] = inputs.map(|node| checkpointer.retrieve_node_output::<FloatTensor<B>>(node));
        let (dqk, dv) = B::wgpu_lsh_gradients(qk, v, out, state, dout, call);
        for (parent, gradient) in ops.parents.into_iter().zip([dqk, dv]) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: LshOps, C: CheckpointStrategy> LshOps for Autodiff<B, C> {
    fn wgpu_lsh(qk: FloatTensor<Self>, v: FloatTensor<Self>, call: LshCall) -> FloatTensor<Self> {
        let prepared = LshBackward.prepare::<C>([qk.node(), v.node()]);
        match prepared.compute_bound().stateful() {
            OpsKind::Tracked(mut prepared) => {
                let inputs = [&qk, &v].map(|tensor| prepared.checkpoint(tensor));
                let (out, state) = B::wgpu_lsh_state(qk.into_primitive(), v.into_primitive(), call.clone());
                prepared.finish((inputs, [out.clone(), state], call), out)
            }
            OpsKind::UnTracked(prepared) => {
                prepared.finish(B::wgpu_lsh(qk.into_primitive(), v.into_primitive(), call))
            }
        }
    }

    fn wgpu_lsh_state(
        _qk: FloatTensor<Self>,
        _v: FloatTensor<Self>,
        _call: LshCall,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("the state is asked for below autodiff")
    }

    fn wgpu_lsh_gradients(
        _qk: FloatTensor<Self>,
        _v: FloatTensor<Self>,
        _out: FloatTensor<Self>,
        _state: FloatTensor<Self>,
        _dout: FloatTensor<Self>,
        _call: LshCall,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("gradients have none of their own")
    }
}
