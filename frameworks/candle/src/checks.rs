//! What q, k, v and the score must be.

use candle_core::{DType, Error, Result, Tensor};
use std::fmt::Display;
use wgpu_attention::{AttentionShape, ElementType, Score};

fn refused(name: &'static str, need: impl Display, got: impl Display) -> Error {
    Error::wrap(wgpu_attention::Error::argument(name, need, got))
}

/// The one type of the tensors, all on candle's CPU device.
pub(crate) fn element(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<ElementType> {
    for (name, tensor) in [("q", q), ("k", k), ("v", v)] {
        if !tensor.device().is_cpu() {
            let got = format!("{:?}", tensor.device().location());
            return Err(refused(name, "a tensor on candle's CPU device, since the GPU is wgpu's", got));
        }
        if tensor.dtype() != q.dtype() {
            return Err(refused(
                name,
                format!("the type of q ({:?})", q.dtype()),
                format!("{:?}", tensor.dtype()),
            ));
        }
    }
    match q.dtype() {
        DType::F32 => Ok(ElementType::F32),
        DType::F16 => Ok(ElementType::F16),
        DType::BF16 => Ok(ElementType::Bf16),
        other => Err(refused("q", "f32, f16 or bf16", format!("{other:?}"))),
    }
}

/// q `[B, H, Lq, d]`, k `[B, Hkv, Lk, d]`, v `[B, Hkv, Lk, dv]`.
pub(crate) fn shape(q: &[usize], k: &[usize], v: &[usize]) -> Result<AttentionShape> {
    let [batch, heads, q_len, head_dim] = axes("q", q)?;
    let [_, kv_heads, kv_len, _] = axes("k", k)?;
    let [.., value_dim] = axes("v", v)?;
    for (name, dims, need, beside) in [
        ("k", k, [batch, kv_heads, kv_len, head_dim], format!("q {q:?}")),
        ("v", v, [batch, kv_heads, kv_len, value_dim], format!("k {k:?}")),
    ] {
        if dims != need {
            return Err(refused(name, format!("{need:?}, beside {beside}"), format!("{dims:?}")));
        }
    }
    let shape = AttentionShape::new(batch, heads, q_len, head_dim);
    let shape = shape.kv_heads(kv_heads).kv_len(kv_len).value_dim(value_dim);
    shape.check().map_err(Error::wrap)?;
    Ok(shape)
}

fn axes(name: &'static str, dims: &[usize]) -> Result<[usize; 4]> {
    dims.try_into().map_err(|_| refused(name, "4 axes", format!("{dims:?}")))
}

/// Terms that read tensors have no place in an operation of three.
pub(crate) fn score(score: &Score, shape: &AttentionShape) -> Result<()> {
    match score.tensors(shape).first() {
        Some(tensor) => {
            let got = format!("one that reads `{}`", tensor.name);
            Err(refused("options.score", "terms without tensors", got))
        }
        None => Ok(()),
    }
}
