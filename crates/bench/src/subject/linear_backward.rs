//! The gradients of linear attention, by themselves or behind a forward call: nothing is kept of that.

use super::{Bytes, Subject, check_sizes, elementwise, gradient_of_out, tensors};
use crate::call::{buffer, checked, poisoned, read};
use crate::record::{Cost, Direction};
use anyhow::Result;
use wgpu::{Buffer, BufferUsages};
use wgpu_attention::reference::linear_gradient;
use wgpu_attention::{
    Attention, Call, Element, Gpu, LinearBuffers, LinearGradBuffers, LinearInputs, LinearOptions,
};

pub(super) async fn prepare<'g, E: Element>(
    gpu: &'g Gpu,
    attention: &Attention,
    options: &LinearOptions,
    direction: Direction,
) -> Result<Subject<'g>> {
    let (attention, shape, options) = (attention.clone(), attention.shape, options.clone());
    let lens = [attention.len_q(), attention.len_k(), attention.len_v(), attention.len_out()];
    let [q_len, k_len, v_len, out_len] = lens;
    check_sizes(gpu, &[("q", q_len), ("k", k_len), ("v", v_len), ("out", out_len)], E::TYPE)?;
    let plan = checked(gpu.device(), "plan", || gpu.kernels().linear_attention(&attention, options.clone()));
    let plan = plan.await??;
    let backward = checked(gpu.device(), "backward plan", || plan.backward()).await??;
    let tensors = tensors::<E>(&attention)?;
    let dout: Vec<E> = gradient_of_out(out_len);
    let upload = async |name, values: &[E]| {
        buffer(gpu, name, bytemuck::cast_slice(values), BufferUsages::STORAGE).await
    };
    let (q, k, v) =
        (upload("q", &tensors.q).await?, upload("k", &tensors.k).await?, upload("v", &tensors.v).await?);
    let to_out = upload("dout", &dout).await?;
    let out = poisoned(gpu, "out", out_len, E::TYPE).await?;
    let dq = poisoned(gpu, "dq", q_len, E::TYPE).await?;
    let dk = poisoned(gpu, "dk", k_len, E::TYPE).await?;
    let dv = poisoned(gpu, "dv", v_len, E::TYPE).await?;
    let whole = Buffer::as_entire_buffer_binding;
    let gradients = LinearGradBuffers::new(whole(&q), whole(&k), whole(&v), whole(&to_out));
    let gradients = gradients.dq(whole(&dq)).dk(whole(&dk)).dv(whole(&dv));
    let mut calls: Vec<Call> = vec![];
    let (mut flop, mut scratch) = (backward.flops(), backward.scratch_bytes());
    if direction == Direction::Both {
        let forward = LinearBuffers::new(whole(&q), whole(&k), whole(&v), whole(&out));
        calls.push(checked(gpu.device(), "bind", || plan.bind(forward)).await??);
        (flop, scratch) = (flop + plan.flops(), scratch + plan.scratch_bytes());
    }
    calls.push(checked(gpu.device(), "bind", || backward.bind(gradients)).await??);
    let bytes = Bytes {
        // With the gradient of out, dq, dk and dv.
        tensors: (2 * lens.iter().sum::<usize>() * E::TYPE.size_bytes()) as u64,
        mask: 0,
        scratch,
    };
    let cost = Cost::new(flop, bytes, calls.iter().map(Call::dispatches).sum());
    let verify = async move {
        let dq: Vec<E> = read(gpu, "dq", &dq, q_len).await?;
        let (dk, dv) = (read::<E>(gpu, "dk", &dk, k_len).await?, read::<E>(gpu, "dv", &dv, v_len).await?);
        let inputs = LinearInputs::new(&tensors.q, &tensors.k, &tensors.v);
        let exact = linear_gradient(&attention, &options, &inputs, &dout, E::TYPE)?;
        let rows = shape.len_lse() + 2 * shape.batch * shape.kv_heads * shape.kv_len;
        Ok(elementwise(rows, &[("dq", &dq, &exact.dq), ("dk", &dk, &exact.dk), ("dv", &dv, &exact.dv)]))
    };
    Ok(Subject::on_one_path(gpu, cost, calls, verify))
}
