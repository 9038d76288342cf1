//! The gradients of LSH attention, by themselves or behind the forward call that they are of, as a step of training has them.

use super::{Bytes, Subject, check_sizes, check_terms, elementwise, gradient_of_out, tensors, term_bytes};
use crate::call::{buffer, checked, poisoned, read, submit};
use crate::record::{Cost, Direction};
use anyhow::Result;
use wgpu::{Buffer, BufferUsages};
use wgpu_attention::reference::bounded_lsh_gradient;
use wgpu_attention::{
    Attention, Call, Element, ElementType, Gpu, LshBackwardPlan, LshBuffers, LshGradBuffers, LshInputs,
    LshOptions, LshPlan,
};

pub(super) async fn prepare<'g, E: Element>(
    gpu: &'g Gpu,
    attention: &Attention,
    options: &LshOptions,
    direction: Direction,
) -> Result<Subject<'g>> {
    let (attention, shape, options) = (attention.clone(), attention.shape, options.clone());
    let [qk_len, v_len, out_len] = [attention.len_q(), attention.len_v(), attention.len_out()];
    check_sizes(gpu, &[("qk", qk_len), ("v", v_len), ("out", out_len)], E::TYPE)?;
    check_terms(gpu, &attention)?;
    let plan = checked(gpu.device(), "plan", || gpu.kernels().lsh(&attention, options.clone())).await??;
    let backward = checked(gpu.device(), "backward plan", || plan.backward()).await??;
    let tensors = tensors::<E>(&attention)?;
    let dout: Vec<E> = gradient_of_out(out_len);
    let upload = async |name, bytes: &[u8]| buffer(gpu, name, bytes, BufferUsages::STORAGE).await;
    let qk = upload("qk", bytemuck::cast_slice(&tensors.q)).await?;
    let v = upload("v", bytemuck::cast_slice(&tensors.v)).await?;
    let to_out = upload("dout", bytemuck::cast_slice(&dout)).await?;
    let mut terms = vec![];
    for (name, values) in &tensors.terms {
        terms.push((*name, upload(name, bytemuck::cast_slice(values)).await?));
    }
    let out = poisoned(gpu, "out", out_len, E::TYPE).await?;
    let state = poisoned(gpu, "state", 2 * shape.len_lse(), ElementType::F32).await?;
    let places = options.len_buckets(&shape);
    let buckets = poisoned(gpu, "buckets", places, ElementType::F32).await?;
    let dqk = poisoned(gpu, "dqk", qk_len, E::TYPE).await?;
    let dv = poisoned(gpu, "dv", v_len, E::TYPE).await?;
    let whole = Buffer::as_entire_buffer_binding;
    let buffers = LshBuffers::new(whole(&qk), whole(&v), whole(&out)).state(whole(&state));
    let buffers = terms.iter().fold(buffers, |buffers, (name, term)| buffers.tensor(name, whole(term)));
    let buffers = buffers.buckets(whole(&buckets));
    let forward = checked(gpu.device(), "bind", || plan.bind(buffers)).await??;
    let gradients = LshGradBuffers::new(whole(&qk), whole(&v), whole(&out), whole(&state), whole(&to_out));
    let gradients = terms.iter().fold(gradients, |buffers, (name, term)| buffers.tensor(name, whole(term)));
    let gradients = gradients.dqk(whole(&dqk)).dv(whole(&dv));
    let gradients = checked(gpu.device(), "bind", || backward.bind(gradients)).await??;
    // The gradients by themselves are of a call that was made before; its buckets tell which pairs they are of.
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    forward.encode(&mut encoder);
    submit(gpu, "forward", encoder.finish()).await?;
    let both = direction == Direction::Both;
    let calls = if both { vec![forward, gradients] } else { vec![gradients] };
    let cost = cost(&plan, &backward, both, calls.iter().map(Call::dispatches).sum());
    let verify = async move {
        let got = (read::<E>(gpu, "dqk", &dqk, qk_len).await?, read::<E>(gpu, "dv", &dv, v_len).await?);
        let buckets: Vec<u32> = read(gpu, "buckets", &buckets, places).await?;
        let inputs = LshInputs::new(&tensors.q, &tensors.v);
        let inputs = tensors.terms.iter().fold(inputs, |inputs, (name, term)| inputs.tensor(name, term));
        let exact = bounded_lsh_gradient(&attention, &options, &inputs, &dout, &buckets, E::TYPE)?;
        Ok(elementwise(2 * shape.len_lse(), &[("dqk", &got.0, &exact.dqk), ("dv", &got.1, &exact.dv)]))
    };
    Ok(Subject::on_one_path(gpu, cost, calls, verify))
}

/// Five of the seven products of a pair that are made would do.
fn cost(plan: &LshPlan, backward: &LshBackwardPlan, both: bool, dispatches: usize) -> Cost {
    let (attention, explained) = (plan.attention(), backward.explain());
    let shape = &attention.shape;
    let tensors = 2 * (attention.len_q() + attention.len_v() + attention.len_out());
    let forward = plan.explain();
    let hash = forward.hash_flops;
    let before = if both { forward.flops + hash } else { 0.0 };
    let useful = (6 * shape.head_dim + 4 * shape.value_dim) as f64 * explained.pairs as f64;
    let bytes = Bytes {
        // With out and its gradient, dqk and dv, and (m, l) of each query.
        tensors: (tensors * attention.storage.q.size_bytes() + 8 * shape.len_lse()) as u64
            + term_bytes(attention),
        mask: 0,
        scratch: explained.scratch_bytes + if both { forward.scratch_bytes } else { 0 },
    };
    Cost {
        useful_flop: before + hash + useful,
        executed_flop: before + hash + explained.flops,
        ..Cost::new(0.0, bytes, dispatches)
    }
}
