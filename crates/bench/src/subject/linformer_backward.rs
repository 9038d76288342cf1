//! The gradients of Linformer, by themselves or behind a forward call: nothing is kept of that.

use super::{Bytes, Subject, check_sizes, elementwise, gradient_of_out, tensors};
use crate::call::{buffer, checked, poisoned, read};
use crate::record::{Cost, Direction};
use anyhow::{Context, Result, ensure};
use wgpu::{Buffer, BufferUsages};
use wgpu_attention::reference::linformer_gradient;
use wgpu_attention::{
    Attention, AttentionShape, Call, Counter, Element, ElementType, Gpu, LinformerBuffers,
    LinformerGradBuffers, LinformerInputs, LinformerOptions,
};

pub(super) async fn prepare<'g, E: Element>(
    gpu: &'g Gpu,
    attention: &Attention,
    options: &LinformerOptions,
    direction: Direction,
) -> Result<Subject<'g>> {
    let (attention, shape, options) = (attention.clone(), attention.shape, *options);
    ensure!(options == LinformerOptions::new(options.rows, options.projected), "need E and F of all heads");
    let lens = [attention.len_q(), attention.len_k(), attention.len_v(), attention.len_out()];
    let [q_len, k_len, v_len, out_len] = lens;
    check_sizes(gpu, &[("q", q_len), ("k", k_len), ("v", v_len), ("out", out_len)], E::TYPE)?;
    let projection = options.len_projection(&shape);
    check_sizes(gpu, &[("e", projection)], ElementType::F32)?;
    let plan = checked(gpu.device(), "plan", || gpu.kernels().linformer(&attention, options)).await??;
    let backward = checked(gpu.device(), "backward plan", || plan.backward()).await??;
    let tensors = tensors::<E>(&attention)?;
    let [e, f] = projections(&shape, projection);
    let dout: Vec<E> = gradient_of_out(out_len);
    let upload = async |name, bytes: &[u8]| buffer(gpu, name, bytes, BufferUsages::STORAGE).await;
    let q = upload("q", bytemuck::cast_slice(&tensors.q)).await?;
    let k = upload("k", bytemuck::cast_slice(&tensors.k)).await?;
    let v = upload("v", bytemuck::cast_slice(&tensors.v)).await?;
    let to_out = upload("dout", bytemuck::cast_slice(&dout)).await?;
    let e_ = upload("e", bytemuck::cast_slice(&e)).await?;
    let f_ = upload("f", bytemuck::cast_slice(&f)).await?;
    let out = poisoned(gpu, "out", out_len, E::TYPE).await?;
    let [dq, dk, dv] = [
        poisoned(gpu, "dq", q_len, E::TYPE).await?,
        poisoned(gpu, "dk", k_len, E::TYPE).await?,
        poisoned(gpu, "dv", v_len, E::TYPE).await?,
    ];
    let de = poisoned(gpu, "de", projection, ElementType::F32).await?;
    let df = poisoned(gpu, "df", projection, ElementType::F32).await?;
    let whole = Buffer::as_entire_buffer_binding;
    let gradients = LinformerGradBuffers::new(whole(&q), whole(&k), whole(&e_), whole(&to_out));
    let gradients = gradients.v(whole(&v)).f(whole(&f_)).dq(whole(&dq)).dk(whole(&dk));
    let gradients = gradients.dv(whole(&dv)).de(whole(&de)).df(whole(&df));
    let mut calls: Vec<Call> = vec![];
    let (mut flop, mut scratch) = (backward.flops(), backward.scratch_bytes());
    if direction == Direction::Both {
        let forward = LinformerBuffers::new(whole(&q), whole(&k), whole(&e_), whole(&out));
        let forward = forward.v(whole(&v)).f(whole(&f_));
        calls.push(checked(gpu.device(), "bind", || plan.bind(forward)).await??);
        (flop, scratch) = (flop + plan.flops(), scratch + plan.scratch_bytes());
    }
    calls.push(checked(gpu.device(), "bind", || backward.bind(gradients)).await??);
    let bytes = Bytes {
        // With the gradient of out, dq, dk and dv; E, F and their gradients.
        tensors: (2 * lens.iter().sum::<usize>() * E::TYPE.size_bytes() + 16 * projection) as u64,
        mask: 0,
        scratch,
    };
    let cost = Cost::new(flop, bytes, calls.iter().map(Call::dispatches).sum());
    let verify = async move {
        let (dq, dk) = (read::<E>(gpu, "dq", &dq, q_len).await?, read::<E>(gpu, "dk", &dk, k_len).await?);
        let dv: Vec<E> = read(gpu, "dv", &dv, v_len).await?;
        let de: Vec<f32> = read(gpu, "de", &de, projection).await?;
        let df: Vec<f32> = read(gpu, "df", &df, projection).await?;
        let inputs = LinformerInputs::new(&tensors.q, &tensors.k, &e).v(&tensors.v[..]).f(&f[..]);
        let exact = linformer_gradient(&attention, &options, &inputs, &dout, E::TYPE)?;
        let (exact_dv, exact_df) = (exact.dv.context("dv")?, exact.df.context("dF")?);
        let rows = shape.len_lse() + 2 * shape.batch * shape.kv_heads * shape.kv_len;
        let of_rows =
            elementwise(rows, &[("dq", &dq, &exact.dq), ("dk", &dk, &exact.dk), ("dv", &dv, &exact_dv)]);
        let of_projections = elementwise(2 * options.rows, &[("dE", &de, &exact.de), ("dF", &df, &exact_df)]);
        Ok(super::joined(Some(of_rows), of_projections))
    };
    Ok(Subject::on_one_path(gpu, cost, calls, verify))
}

/// E and F, so that projected rows are of the size of keys.
fn projections(shape: &AttentionShape, len: usize) -> [Vec<f32>; 2] {
    let size = (shape.kv_len as f64).sqrt().recip();
    [3, 4].map(|stream| {
        let draw = Counter::new(1, stream);
        (0..len as u64).map(|n| (size * draw.normal(n)) as f32).collect()
    })
}
