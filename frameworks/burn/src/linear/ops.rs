//! The operations of linear attention, as burn's backends have them.

use super::LinearCall;
use crate::attention::{dims, expect, layouts, out_spec};
use crate::buffers::Place;
use crate::check::dtype;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, backend_extension};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use wgpu_attention::{LinearBuffers, LinearGradBuffers, Result};

/// What a backend does for [`linear_attention`](super::linear_attention).
#[backend_extension(Cube, Fusion, Autodiff)]
pub(crate) trait LinearOps: Backend {
    /// out.
    #[fusion(meta = |q, _k, _v, call| out_spec(q, &call.attention))]
    fn wgpu_linear(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        call: LinearCall,
    ) -> FloatTensor<Self>;

    /// dq, dk, dv.
    #[fusion(meta = |q, k, v, _dout, _call| (q.clone(), k.clone(), v.clone()))]
    fn wgpu_linear_gradients(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        dout: FloatTensor<Self>,
        call: LinearCall,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

impl LinearOps for CubeBackend {
    fn wgpu_linear(q: CubeTensor, k: CubeTensor, v: CubeTensor, call: LinearCall) -> CubeTensor {
        expect(forward([q, k, v], &call))
    }

    fn wgpu_linear_gradients(
        q: CubeTensor,
        k: CubeTensor,
        v: CubeTensor,
        dout: CubeTensor,
        call: LinearCall,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        expect(gradients([q, k, v], dout, &call)).into()
    }
}

fn forward(inputs: [CubeTensor; 3], call: &LinearCall) -> Result<CubeTensor> {
    let device = call.on.kernels.device();
    let [q, k, v] = inputs.map(|tensor| Place::input(tensor, device));
    let (sizes, storage) = (dims(&call.attention.shape), call.attention.storage);
    let out = Place::output(&q, sizes.out, dtype(storage.out), device);
    let plans = call.plans(layouts(&q, &k, &v))?;
    let buffers = LinearBuffers::new(q.binding(), k.binding(), v.binding(), out.binding());
    call.on.submit(&plans.plan.bind(buffers)?);
    Ok(out.into_tensor())
}

/// dq, dk and dv.
fn gradients(inputs: [CubeTensor; 3], dout: CubeTensor, call: &LinearCall) -> Result<[CubeTensor; 3]> {
    let device = call.on.kernels.device();
    let [q, k, v] = inputs.map(|tensor| Place::input(tensor, device));
    let dout = Place::contiguous(dout, device);
    let (sizes, storage) = (dims(&call.attention.shape), call.attention.storage);
    let [dq, dk, dv] = sizes.inputs.map(|dims| Place::output(&q, dims, dtype(storage.q), device));
    let plans = call.plans(layouts(&q, &k, &v))?;
    let buffers = LinearGradBuffers::new(q.binding(), k.binding(), v.binding(), dout.binding());
    let buffers = buffers.dq(dq.binding()).dk(dk.binding()).dv(dv.binding());
    call.on.submit(&plans.backward()?.bind(buffers)?);
    Ok([dq, dk, dv].map(Place::into_tensor))
}

/// The gradients, as an operation of burn's autodiff.
#[derive(Debug)]
struct LinearBackward;

impl<B: LinearOps> Backward<B, 3> for LinearBackward {
    /// q, k, v; the call.
    type State = ([NodeId; 3], LinearCall);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let dout = grads.consume::<B>(&ops.node);
        let (inputs, call) = ops.state;
        let [q, k, v] = inputs.map(|node| checkpointer.retrieve_node_output::<FloatTensor<B>>(node));
        let (dq, dk, dv) = B::wgpu_linear_gradients(q, k, v, dout, call);
        for (parent, gradient) in ops.parents.into_iter().zip([dq, dk, dv]) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: LinearOps, C: CheckpointStrategy> LinearOps for Autodiff<B, C> {
    fn wgpu_linear(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        call: LinearCall,
    ) -> FloatTensor<Self> {
        let prepared = LinearBackward.prepare::<C>([q.node(), k.node(), v.node()]);
        match prepared.compute_bound().stateful() {
            OpsKind::Tracked(mut prepared) => {
                let inputs = [&q, &k, &v].map(|tensor| prepared.checkpoint(tensor));
                let [q, k, v] = [q, k, v].map(|tensor| tensor.into_primitive());
                let out = B::wgpu_linear(q, k, v, call.clone());
                prepared.finish((inputs, call), out)
            }
            OpsKind::UnTracked(prepared) => {
                let [q, k, v] = [q, k, v].map(|tensor| tensor.into_primitive());
                prepared.finish(B::wgpu_linear(q, k, v, call))
            }
        }
    }

    fn wgpu_linear_gradients(
        _q: FloatTensor<Self>,
        _k: FloatTensor<Self>,
        _v: FloatTensor<Self>,
        _dout: FloatTensor<Self>,
        _call: LinearCall,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("gradients have none of their own")
    }
}
