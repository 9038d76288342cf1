//! Linear attention.

use super::heads::{self, Head, call_of, part};
use super::{Bytes, Subject, check_sizes, sample, tensors};
use crate::call::{buffer, checked, poisoned, read};
use crate::record::Cost;
use anyhow::Result;
use wgpu::{Buffer, BufferBinding, BufferSize, BufferUsages};
use wgpu_attention::reference::verify_linear;
use wgpu_attention::{
    Attention, Call, Element, Error, Gpu, LinearBuffers, LinearInputs, LinearOptions, LinearPlan,
};

pub(super) async fn prepare<'g, E: Element>(
    gpu: &'g Gpu,
    attention: &Attention,
    options: &LinearOptions,
) -> Result<Subject<'g>> {
    let (attention, shape, options) = (attention.clone(), attention.shape, options.clone());
    heads::check(&shape)?;
    let [q_len, k_len, v_len, out_len] =
        [attention.len_q(), attention.len_k(), attention.len_v(), attention.len_out()];
    check_sizes(gpu, &[("q", q_len), ("k", k_len), ("v", v_len), ("out", out_len)], E::TYPE)?;
    let tensors = tensors::<E>(&attention)?;
    let upload = async |name, values: &[E]| {
        buffer(gpu, name, bytemuck::cast_slice(values), BufferUsages::STORAGE).await
    };
    let on_device = [
        upload("q", &tensors.q).await?,
        upload("k", &tensors.k).await?,
        upload("v", &tensors.v).await?,
        poisoned(gpu, "out", out_len, E::TYPE).await?,
    ];
    let (plan, calls) = pieces::<E>(gpu, &attention, &options, &on_device).await?;
    let bytes = Bytes {
        tensors: ((q_len + k_len + v_len + out_len) * E::TYPE.size_bytes()) as u64,
        mask: 0,
        scratch: plan.scratch_bytes() * calls.len() as u64,
    };
    let dispatches = calls.iter().map(Call::dispatches).sum();
    let cost = Cost::new(plan.flops() * calls.len() as f64, bytes, dispatches);
    let verify = async move {
        let [.., out] = &on_device;
        let out: Vec<E> = read(gpu, "out", out, out_len).await?;
        let (of_head, picked) = (call_of(&attention, 1), heads::compared(&shape).len());
        let features = options.map.features(shape.head_dim);
        let rows = sample(shape.q_len, shape.kv_len * (features + shape.value_dim) * picked);
        heads::judged(&shape, |Head { q, k, v, out: own }| {
            let inputs = LinearInputs::new(part(&tensors.q, q), part(&tensors.k, k), part(&tensors.v, v));
            verify_linear(&of_head, &options, &inputs, part(&out, own), rows, None)
        })
    };
    Ok(Subject::on_one_path(gpu, cost, calls, verify))
}

/// One call, or one after the other of as many heads as the features and the states of fit a binding of the device.
async fn pieces<E: Element>(
    gpu: &Gpu,
    attention: &Attention,
    options: &LinearOptions,
    buffers: &[Buffer; 4],
) -> Result<(LinearPlan, Vec<Call>)> {
    let all = attention.shape.heads;
    let mut counts = (1..=all).rev().filter(|count| all.is_multiple_of(*count)).peekable();
    while let Some(count) = counts.next() {
        match pieces_of::<E>(gpu, attention, options, buffers, count).await {
            Err(error) if counts.peek().is_some() && is_limit(&error) => {}
            done => return done,
        }
    }
    unreachable!("a head is tried at the end")
}

fn is_limit(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Limit { .. }))
}

async fn pieces_of<E: Element>(
    gpu: &Gpu,
    attention: &Attention,
    options: &LinearOptions,
    buffers: &[Buffer; 4],
    count: usize,
) -> Result<(LinearPlan, Vec<Call>)> {
    let call = call_of(attention, count);
    let plan =
        checked(gpu.device(), "plan", || gpu.kernels().linear_attention(&call, options.clone())).await??;
    let mut calls = vec![];
    for first in (0..attention.shape.heads).step_by(count) {
        let Head { q, k, v, out } = heads::heads(&attention.shape, first, count);
        let binding = |n: usize, (at, len): (usize, usize)| BufferBinding {
            buffer: &buffers[n],
            offset: (at * E::TYPE.size_bytes()) as u64,
            size: BufferSize::new((len * E::TYPE.size_bytes()) as u64),
        };
        let buffers = LinearBuffers::new(binding(0, q), binding(1, k), binding(2, v), binding(3, out));
        calls.push(checked(gpu.device(), "bind", || plan.bind(buffers)).await??);
    }
    Ok((plan, calls))
}
