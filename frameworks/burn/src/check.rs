//! What q, k and v must be.

use crate::device::{self, OnDevice, wgpu_device};
use burn::tensor::{DType, Tensor};
use std::sync::Arc;
use wgpu_attention::{Attention, AttentionShape, ElementType, Error, Result, Storage};

/// A call's tensors, checked against each other.
pub(crate) struct Checked {
    pub(crate) on: Arc<OnDevice>,
    /// Sizes and storage, contiguous tensors, the plain score.
    pub(crate) attention: Attention,
    /// Whether the call may be asked for gradients.
    pub(crate) autodiff: bool,
}

/// q `[B, H, Lq, d]`, k `[B, Hkv, Lk, d]`, v `[B, Hkv, Lk, dv]` of one type on one device.
pub(crate) fn checked(q: &Tensor<4>, k: &Tensor<4>, v: &Tensor<4>) -> Result<Checked> {
    let on = device::on("q", &q.device())?;
    for (name, tensor) in [("k", k), ("v", v)] {
        let (need, got) = (wgpu_device("q", &q.device())?, wgpu_device(name, &tensor.device())?);
        if got != need {
            return Err(Error::argument(name, format!("the device of q ({need:?})"), format!("{got:?}")));
        }
        if tensor.dtype() != q.dtype() {
            return Err(Error::argument(
                name,
                format!("the type of q ({:?})", q.dtype()),
                format!("{:?}", tensor.dtype()),
            ));
        }
    }
    let shape = shape(q.dims(), k.dims(), v.dims())?;
    shape.check()?;
    let attention = shape.storage(Storage::all(element(q.dtype())?));
    let autodiff = [q, k, v].iter().any(|tensor| tensor.device().is_autodiff());
    Ok(Checked { on, attention, autodiff })
}

fn shape(q: [usize; 4], k: [usize; 4], v: [usize; 4]) -> Result<AttentionShape> {
    for (name, dims) in [("q", q), ("k", k), ("v", v)] {
        if dims.contains(&0) {
            return Err(Error::argument(name, "at least 1 element along every axis", format!("{dims:?}")));
        }
    }
    let ([batch, heads, q_len, head_dim], [_, kv_heads, kv_len, _], [.., value_dim]) = (q, k, v);
    for (name, dims, need) in
        [("k", k, [batch, kv_heads, kv_len, head_dim]), ("v", v, [batch, kv_heads, kv_len, value_dim])]
    {
        if dims != need {
            let beside = if name == "k" { format!("q {q:?}") } else { format!("k {k:?}") };
            return Err(Error::argument(name, format!("{need:?}, beside {beside}"), format!("{dims:?}")));
        }
    }
    let shape = AttentionShape::new(batch, heads, q_len, head_dim);
    Ok(shape.kv_heads(kv_heads).kv_len(kv_len).value_dim(value_dim))
}

fn element(dtype: DType) -> Result<ElementType> {
    match dtype {
        DType::F32 => Ok(ElementType::F32),
        DType::F16 => Ok(ElementType::F16),
        other => Err(Error::argument("q", "f32 or f16", format!("{other:?}"))),
    }
}

/// burn's name of it.
pub(crate) fn dtype(element: ElementType) -> DType {
    match element {
        ElementType::F16 => DType::F16,
        _ => DType::F32,
    }
}
