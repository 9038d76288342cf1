//! The feed-forward layer.

use super::{Bounded, MatmulInputs, check_optional, matmul};
use crate::Result;
use crate::shape::FeedForwardShape;

/// The tensors of a feed-forward layer, contiguous.
#[derive(Debug, Clone, Copy)]
pub struct FeedForwardInputs<'a> {
    /// x `[rows, model_dim]`.
    pub x: &'a Bounded,
    /// W1 `[model_dim, hidden_dim]` or its transpose.
    pub w1: &'a Bounded,
    /// b1 `[hidden_dim]`.
    pub b1: Option<&'a Bounded>,
    /// W3 `[model_dim, hidden_dim]` or its transpose, where gated.
    pub w3: Option<&'a Bounded>,
    /// b3 `[hidden_dim]`, where gated.
    pub b3: Option<&'a Bounded>,
    /// W2 `[hidden_dim, model_dim]` or its transpose.
    pub w2: &'a Bounded,
    /// b2 `[model_dim]`.
    pub b2: Option<&'a Bounded>,
    /// The residual `[rows, model_dim]`.
    pub residual: Option<&'a Bounded>,
}

/// y of a [`FeedForwardShape`], contiguous `[rows, model_dim]`. The bound is that of the [products](matmul()) one after
/// the other, with what is between them stored in the shape's [`hidden`](FeedForwardShape::hidden): with f16 a hidden value h known within dh
/// enters the second product within
///
/// ```text
/// dh + (|h| + dh) 2^-11 + min( |h| + dh, 2^-14 )
/// ```
///
/// and stops at 65,504, which takes two values no further apart. Where gated, act(x W1 + b1) and its product with the gate are stored one
/// after the other.
///
/// # Errors
/// As [`matmul()`] and [`FeedForwardShape::check`].
///
/// ```
/// use wgpu_attention::{Activation, FeedForwardShape, reference::layer::{Bounded, FeedForwardInputs, feed_forward}};
/// let [x, w1, w2] = [[2.0f32], [3.0], [5.0]].map(|values| Bounded::exact(&values));
/// let none = None;
/// let inputs =
///     FeedForwardInputs { x: &x, w1: &w1, b1: none, w3: none, b3: none, w2: &w2, b2: none, residual: none };
/// let y = feed_forward(&FeedForwardShape::new(1, 1, 1, Activation::Relu), &inputs)?;
/// assert_eq!(y.out, [30.0]);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn feed_forward(shape: &FeedForwardShape, inputs: &FeedForwardInputs<'_>) -> Result<Bounded> {
    shape.check()?;
    check_optional("w3", inputs.w3, shape.gated, shape.len_weight())?;
    check_optional("b3", inputs.b3, shape.gated && shape.bias, shape.hidden_dim)?;
    let first = MatmulInputs { a: inputs.x, b: inputs.w1, bias: inputs.b1, other: None };
    let mut hidden = matmul(&shape.first(shape.rows, false), &first)?;
    if let Some(w3) = inputs.w3 {
        let gate = MatmulInputs { a: inputs.x, b: w3, bias: inputs.b3, other: Some(&hidden) };
        hidden = matmul(&shape.first(shape.rows, true), &gate)?;
    }
    let second = MatmulInputs { a: &hidden, b: inputs.w2, bias: inputs.b2, other: inputs.residual };
    matmul(&shape.second(shape.rows), &second)
}
