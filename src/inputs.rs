//! The input tensors of one call, as slices.

/// The input tensors of one call, lying as the [`AttentionShape`](crate::AttentionShape) says.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a, E> {
    /// q `[B, H, Lq, d]`.
    pub q: &'a [E],
    /// k `[B, Hkv, Lk, d]`.
    pub k: &'a [E],
    /// v `[B, Hkv, Lk, dv]`.
    pub v: &'a [E],
    /// bias over `[B, H, Lq, Lk]` by [`AttentionShape::bias`](crate::AttentionShape::bias)'s strides; given if and only
    /// if the shape has one.
    pub bias: Option<&'a [f32]>,
}
