//! LSH attention.

use super::{Bytes, Subject, check_sizes, sample, tensors, verification};
use crate::call::{buffer, checked, poisoned, read};
use crate::record::Cost;
use anyhow::{Result, ensure};
use wgpu::{Buffer, BufferUsages};
use wgpu_attention::reference::{LshGot, verify_lsh};
use wgpu_attention::{Attention, Element, ElementType, Gpu, LshBuffers, LshInputs, LshOptions};

pub(super) async fn prepare<'g, E: Element>(
    gpu: &'g Gpu,
    attention: &Attention,
    options: &LshOptions,
) -> Result<Subject<'g>> {
    let (attention, shape, options) = (attention.clone(), attention.shape, options.clone());
    let [qk_len, v_len, out_len] = [attention.len_q(), attention.len_v(), attention.len_out()];
    check_sizes(gpu, &[("qk", qk_len), ("v", v_len), ("out", out_len)], E::TYPE)?;
    let plan = checked(gpu.device(), "plan", || gpu.kernels().lsh(&attention, options.clone())).await??;
    let tensors = tensors::<E>(&attention)?;
    let upload = async |name, values: &[E]| {
        buffer(gpu, name, bytemuck::cast_slice(values), BufferUsages::STORAGE).await
    };
    let (qk, v) = (upload("qk", &tensors.q).await?, upload("v", &tensors.v).await?);
    let mut terms = vec![];
    for (name, values) in &tensors.terms {
        terms.push((*name, buffer(gpu, name, bytemuck::cast_slice(values), BufferUsages::STORAGE).await?));
    }
    let out = poisoned(gpu, "out", out_len, E::TYPE).await?;
    // A call has buckets and order in any case: here they are the caller's, so that they can be compared.
    let places = options.len_buckets(&shape);
    let buckets = poisoned(gpu, "buckets", places, ElementType::F32).await?;
    let order = poisoned(gpu, "order", places, ElementType::F32).await?;
    let whole = Buffer::as_entire_buffer_binding;
    let buffers =
        LshBuffers::new(whole(&qk), whole(&v), whole(&out)).buckets(whole(&buckets)).order(whole(&order));
    let buffers = terms.iter().fold(buffers, |buffers, (name, term)| buffers.tensor(name, whole(term)));
    let call = checked(gpu.device(), "bind", || plan.bind(buffers)).await??;
    let of_terms: usize = tensors.terms.iter().map(|(_, values)| size_of_val(&values[..])).sum();
    let bytes = Bytes {
        tensors: ((qk_len + v_len + out_len) * E::TYPE.size_bytes() + of_terms) as u64,
        mask: 0,
        scratch: plan.explain().scratch_bytes,
    };
    let flop = plan.explain().flops + plan.explain().hash_flops;
    let cost = Cost::new(flop, bytes, call.dispatches());
    let verify = async move {
        let out: Vec<E> = read(gpu, "out", &out, out_len).await?;
        let buckets: Vec<u32> = read(gpu, "buckets", &buckets, places).await?;
        let order: Vec<u32> = read(gpu, "order", &order, places).await?;
        let got = LshGot::new(&out, &buckets).order(&order[..]);
        let inputs = LshInputs::new(&tensors.q, &tensors.v);
        let inputs = tensors.terms.iter().fold(inputs, |inputs, (name, term)| inputs.tensor(name, term));
        let rows =
            sample(shape.len_lse(), options.rounds * 2 * options.chunk * (shape.head_dim + shape.value_dim));
        let report = verify_lsh(&attention, &options, &inputs, got, rows, None)?;
        ensure!(report.wrong_buckets.is_empty() && report.wrong_order.is_none(), "{report}");
        Ok(verification(&report.attention, shape.len_lse()))
    };
    Ok(Subject::on_one_path(gpu, cost, vec![call], verify))
}
