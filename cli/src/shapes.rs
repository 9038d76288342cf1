//! From the shapes of q, k and v to the shape of a call.

use crate::tensors::{Tensor, wrong};
use anyhow::Result;
use wgpu_attention::{Attention, AttentionShape, Layout};

/// The shape of a call over these tensors, in `[B, H, L, D]` or `[B, L, H, D]`; without batch, or without batch and
/// heads, both 1, where the tensors have fewer axes.
pub(crate) fn attention_shape(
    q: &Tensor<'_>,
    k: &Tensor<'_>,
    v: &Tensor<'_>,
    layout: Layout,
) -> Result<AttentionShape> {
    let axes = q.shape.len();
    let [batch, heads, q_len, head_dim] = sizes(q, layout)?;
    let same_axes = |tensor: &Tensor<'_>| match tensor.shape.len() == axes {
        true => sizes(tensor, layout),
        false => Err(wrong(&tensor.name, format!("{axes} axes, as q has"), format!("{:?}", tensor.shape))),
    };
    let [k_batch, kv_heads, kv_len, k_dim] = same_axes(k)?;
    let [v_batch, v_heads, v_len, value_dim] = same_axes(v)?;
    let agree = |tensor: &Tensor<'_>, axis: &str, of: &str, need: usize, got: usize| match need == got {
        true => Ok(()),
        false => {
            Err(wrong(&tensor.name, format!("{axis} {need}, as {of} has"), format!("{:?}", tensor.shape)))
        }
    };
    agree(k, "batch", "q", batch, k_batch)?;
    agree(v, "batch", "q", batch, v_batch)?;
    agree(k, "head size", "q", head_dim, k_dim)?;
    agree(v, "heads", "k", kv_heads, v_heads)?;
    agree(v, "length", "k", kv_len, v_len)?;
    let shape = AttentionShape::new(batch, heads, q_len, head_dim)
        .kv_heads(kv_heads)
        .kv_len(kv_len)
        .value_dim(value_dim);
    shape.check()?;
    Ok(shape)
}

/// Batch, heads, length, dimension of a tensor.
fn sizes(tensor: &Tensor<'_>, layout: Layout) -> Result<[usize; 4]> {
    let meaning = match layout {
        Layout::Blhd => "[B, L, H, D], [L, H, D] or [L, D]",
        _ => "[B, H, L, D], [H, L, D] or [L, D]",
    };
    match (layout, tensor.shape[..].len()) {
        (_, 2..=4) if layout != Layout::Blhd => tensor.padded(meaning),
        (_, 2) => Ok([1, 1, tensor.shape[0], tensor.shape[1]]),
        (_, 3 | 4) => tensor.padded(meaning).map(|[b, l, h, d]| [b, h, l, d]),
        _ => Err(wrong(&tensor.name, meaning, format!("{:?}", tensor.shape))),
    }
}

/// The shape of a tensor `[B, H, L, dim]` with as many axes, and in the layout, of q; `dim` is left out for lse.
pub(crate) fn like_q(call: &Attention, axes: usize, dim: Option<usize>) -> Vec<usize> {
    let AttentionShape { batch, heads, q_len, .. } = call.shape;
    // lse is [B, H, Lq] in every layout.
    let full = match call.layouts.q {
        Layout::Blhd if dim.is_some() => [batch, q_len, heads],
        _ => [batch, heads, q_len],
    };
    let kept = match axes {
        // Without heads and batch only the length is left, wherever it stood.
        2 => vec![q_len],
        axes => full[4 - axes..].to_vec(),
    };
    kept.into_iter().chain(dim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_have_the_axes_of_q() {
        let call = AttentionShape::new(2, 3, 5, 8).layout(Layout::Bhld);
        assert_eq!(like_q(&call, 4, Some(7)), [2, 3, 5, 7]);
        assert_eq!(like_q(&call, 3, Some(7)), [3, 5, 7]);
        assert_eq!(like_q(&call, 2, Some(7)), [5, 7]);
        assert_eq!(like_q(&call, 4, None), [2, 3, 5]);
        let call = call.layout(Layout::Blhd);
        assert_eq!(like_q(&call, 4, Some(7)), [2, 5, 3, 7]);
        assert_eq!(like_q(&call, 3, Some(7)), [5, 3, 7]);
        assert_eq!(like_q(&call, 2, Some(7)), [5, 7]);
        assert_eq!(like_q(&call, 3, None), [3, 5]);
    }
}
