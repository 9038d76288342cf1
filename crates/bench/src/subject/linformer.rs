//! Linformer.

use super::heads::{self, Head, call_of, part};
use super::{Bytes, Subject, check_sizes, sample, tensors};
use crate::call::{buffer, checked, poisoned, read};
use crate::record::Cost;
use anyhow::{Result, ensure};
use wgpu::{Buffer, BufferUsages};
use wgpu_attention::reference::verify_linformer;
use wgpu_attention::{
    Attention, Counter, Element, ElementType, Gpu, LinformerBuffers, LinformerInputs, LinformerOptions,
};

pub(super) async fn prepare<'g, E: Element>(
    gpu: &'g Gpu,
    attention: &Attention,
    options: &LinformerOptions,
) -> Result<Subject<'g>> {
    let (attention, shape, options) = (attention.clone(), attention.shape, *options);
    heads::check(&shape)?;
    ensure!(options == LinformerOptions::new(options.rows, options.projected), "need E and F of all heads");
    let [q_len, k_len, v_len, out_len] =
        [attention.len_q(), attention.len_k(), attention.len_v(), attention.len_out()];
    check_sizes(gpu, &[("q", q_len), ("k", k_len), ("v", v_len), ("out", out_len)], E::TYPE)?;
    let projection = options.len_projection(&shape);
    check_sizes(gpu, &[("e", projection)], ElementType::F32)?;
    let plan = checked(gpu.device(), "plan", || gpu.kernels().linformer(&attention, options)).await??;
    let tensors = tensors::<E>(&attention)?;
    // So that projected rows are of the size of keys.
    let size = (shape.kv_len as f64).sqrt().recip();
    let [e, f] = [3, 4].map(|stream| {
        let draw = Counter::new(1, stream);
        (0..projection as u64).map(|n| (size * draw.normal(n)) as f32).collect::<Vec<_>>()
    });
    let upload = async |name, bytes| buffer(gpu, name, bytes, BufferUsages::STORAGE).await;
    let q = upload("q", bytemuck::cast_slice(&tensors.q)).await?;
    let k = upload("k", bytemuck::cast_slice(&tensors.k)).await?;
    let v = upload("v", bytemuck::cast_slice(&tensors.v)).await?;
    let (e_, f_) =
        (upload("e", bytemuck::cast_slice(&e)).await?, upload("f", bytemuck::cast_slice(&f)).await?);
    let out = poisoned(gpu, "out", out_len, E::TYPE).await?;
    let whole = Buffer::as_entire_buffer_binding;
    let buffers =
        LinformerBuffers::new(whole(&q), whole(&k), whole(&e_), whole(&out)).v(whole(&v)).f(whole(&f_));
    let call = checked(gpu.device(), "bind", || plan.bind(buffers)).await??;
    let bytes = Bytes {
        tensors: ((q_len + k_len + v_len + out_len) * E::TYPE.size_bytes() + 8 * projection) as u64,
        mask: 0,
        scratch: plan.scratch_bytes(),
    };
    let cost = Cost::new(plan.flops(), bytes, call.dispatches());
    let verify = async move {
        let out: Vec<E> = read(gpu, "out", &out, out_len).await?;
        let (of_head, picked) = (call_of(&attention, 1), heads::compared(&shape).len());
        let rows = sample(shape.q_len, options.projected * (shape.head_dim + shape.value_dim) * picked);
        heads::judged(&shape, |Head { q, k, v, out: own }| {
            let inputs = LinformerInputs::new(part(&tensors.q, q), part(&tensors.k, k), &e);
            let inputs = inputs.v(part(&tensors.v, v)).f(&f[..]);
            verify_linformer(&of_head, &options, &inputs, part(&out, own), rows, None)
        })
    };
    Ok(Subject::on_one_path(gpu, cost, vec![call], verify))
}
