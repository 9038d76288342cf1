//! The input tensors of one call, as slices.

use crate::{AttentionShape, Error, Layout, Result};

/// The input tensors of one call, lying as the [`AttentionShape`] says.
///
/// A contiguous layout wants exactly the tensor's elements ([`AttentionShape::len_q`] and its like), a
/// [`Layout::Strided`] one and the bias at least those: the slice may go on behind the last row.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a, E> {
    /// q `[B, H, Lq, d]`.
    pub q: &'a [E],
    /// k `[B, Hkv, Lk, d]`.
    pub k: &'a [E],
    /// v `[B, Hkv, Lk, dv]`.
    pub v: &'a [E],
    /// bias over `[B, H, Lq, Lk]` by [`AttentionShape::bias`]'s strides; given if and only if the shape has one.
    pub bias: Option<&'a [f32]>,
}

impl<E> Inputs<'_, E> {
    /// Checks the lengths against a shape.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the tensor.
    pub fn check(&self, shape: &AttentionShape) -> Result<()> {
        check_len("q", self.q.len(), shape.len_q(), shape.q_layout)?;
        check_len("k", self.k.len(), shape.len_k(), shape.k_layout)?;
        check_len("v", self.v.len(), shape.len_v(), shape.v_layout)?;
        match (shape.bias, self.bias) {
            (None, Some(_)) => Err(Error::argument("bias", "none, since the shape has no bias", "a tensor")),
            (Some(_), None) => Err(Error::argument("bias", "a tensor, since the shape has a bias", "none")),
            (Some(_), Some(bias)) if bias.len() < shape.len_bias() => {
                let need = format!("at least {} elements", shape.len_bias());
                Err(Error::argument("bias", need, format!("{} elements", bias.len())))
            }
            _ => Ok(()),
        }
    }
}

/// Exactly the tensor for a contiguous layout; a strided view may be followed by more.
pub(crate) fn check_len(name: &'static str, got: usize, need: usize, layout: Layout) -> Result<()> {
    check_slice(name, got, need, matches!(layout, Layout::Strided(_)))
}

/// As [`check_len`], for tensors that have strides of their own.
pub(crate) fn check_slice(name: &'static str, got: usize, need: usize, strided: bool) -> Result<()> {
    if got == need || (strided && got > need) {
        return Ok(());
    }
    let need = format!("{}{need} elements", if strided { "at least " } else { "" });
    Err(Error::argument(name, need, format!("{got} elements")))
}
