//! What a feed-forward layer computes.

use super::{Combine, MatmulShape, WeightOrder};
use crate::layout::check_u32;
use crate::{Activation, ElementType, Error, Result};

/// A feed-forward layer over the rows of x `[rows, model_dim]`, which are independent of each other:
///
/// ```text
/// y = act(x W1 + b1) W2 + b2                                 plain (Vaswani 2017, section 3.3)
/// y = ( act(x W1 + b1) * (x W3 + b3) ) W2 + b2               gated (Shazeer 2020: SwiGLU with SiLU, GEGLU with GELU)
/// y = residual + ...                                         where there is one
/// ```
///
/// W1 and W3 are `[model_dim, hidden_dim]`, W2 `[hidden_dim, model_dim]`, or their transposes. Rows are processed
/// `chunk` at a time (Kitaev 2020, section 3), so that what is between the products takes chunk x `hidden_dim` elements
/// instead of rows x `hidden_dim`; the result is the same, bit for bit, for every chunk.
///
/// What is between the products is f32, unless [`hidden`](Self::hidden) says otherwise. In f16, as other frameworks have it in half
/// precision, it takes half of the memory, and the second product runs on [matrix units](crate::KernelPath::Cooperative), too,
/// where W2 is f16. Every hidden value is rounded to 11 bits then (twice where gated: act(...), then its product), and stops at 65,504. Which of the two
/// a layer has never follows the device.
///
/// ```
/// use wgpu_attention::{Activation, FeedForwardShape};
/// let llama = FeedForwardShape::new(2048, 4096, 11008, Activation::Silu).gated(true);
/// llama.check()?;
/// assert_eq!(llama.len_x(), 2048 * 4096);
/// assert_eq!(llama.flops(), 6.0 * 2048.0 * 4096.0 * 11008.0);
/// // All of it in f16, what is between the products too.
/// let half = llama.elements(wgpu_attention::ElementType::F16).hidden(wgpu_attention::ElementType::F16);
/// # half.check()?;
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct FeedForwardShape {
    /// Rows (positions of all batch items). May be 0: then nothing is written.
    pub rows: usize,
    /// Width of x and y, d_model.
    pub model_dim: usize,
    /// Width between the products, d_ff.
    pub hidden_dim: usize,
    /// The function act.
    pub activation: Activation,
    /// Whether act(x W1) is multiplied by x W3.
    pub gated: bool,
    /// Whether biases are added: b1, b2, and b3 where gated.
    pub bias: bool,
    /// Whether a residual `[rows, model_dim]` is added.
    pub residual: bool,
    /// How the weights lie.
    pub weights: WeightOrder,
    /// Rows of a chunk; `None` lets the plan choose.
    pub chunk: Option<usize>,
    /// Storage of x.
    pub input: ElementType,
    /// Storage of weights and biases.
    pub weight: ElementType,
    /// Storage of y and of the residual.
    pub output: ElementType,
    /// Storage of what is between the products.
    pub hidden: ElementType,
}

impl FeedForwardShape {
    /// A plain layer without biases and residual, f32, weights `[in, out]`.
    pub fn new(rows: usize, model_dim: usize, hidden_dim: usize, activation: Activation) -> Self {
        Self {
            rows,
            model_dim,
            hidden_dim,
            activation,
            gated: false,
            bias: false,
            residual: false,
            weights: WeightOrder::InOut,
            chunk: None,
            input: ElementType::F32,
            weight: ElementType::F32,
            output: ElementType::F32,
            hidden: ElementType::F32,
        }
    }

    setters! {
        /// Sets whether the layer is gated.
        gated: bool,
        /// Sets whether biases are added.
        bias: bool,
        /// Sets whether a residual is added.
        residual: bool,
        /// Sets how the weights lie.
        weights: WeightOrder,
        /// Sets the rows of a chunk.
        chunk: Option<usize>,
        /// Sets the storage of x.
        input: ElementType,
        /// Sets the storage of weights and biases.
        weight: ElementType,
        /// Sets the storage of y and of the residual.
        output: ElementType,
        /// Sets the storage of what is between the products.
        hidden: ElementType,
    }

    /// Sets the storage of all tensors, but not of what is between the products.
    pub fn elements(self, element: ElementType) -> Self {
        self.input(element).weight(element).output(element)
    }

    /// Elements of x, of y and of the residual.
    pub fn len_x(&self) -> usize {
        self.rows * self.model_dim
    }

    /// Elements of each weight matrix.
    pub fn len_weight(&self) -> usize {
        self.model_dim * self.hidden_dim
    }

    /// Floating-point operations of the products.
    pub fn flops(&self) -> f64 {
        let products = if self.gated { 3.0 } else { 2.0 };
        2.0 * products * self.rows as f64 * self.model_dim as f64 * self.hidden_dim as f64
    }

    /// Checks everything that can be said without a device.
    ///
    /// # Errors
    /// [`Error::Argument`] for a width or a chunk of 0, [`Error::Limit`] where an element offset would pass 32 bits.
    pub fn check(&self) -> Result<()> {
        let sizes = [
            ("model_dim", self.model_dim),
            ("hidden_dim", self.hidden_dim),
            ("chunk", self.chunk.unwrap_or(1)),
        ];
        for (name, size) in sizes {
            if size == 0 {
                return Err(Error::argument(name, "at least 1", 0));
            }
        }
        check_u32("rows", self.rows as u128)?;
        check_u32("x", self.rows as u128 * self.model_dim as u128)?;
        check_u32("w1", self.model_dim as u128 * self.hidden_dim as u128)
    }

    /// The product with W1, or with W3, of a number of rows: into scratch.
    pub(crate) fn first(&self, rows: usize, gate: bool) -> MatmulShape {
        let (combine, activation) =
            if gate { (Combine::MultiplyInto, None) } else { (Combine::Store, Some(self.activation)) };
        MatmulShape::new(rows, self.model_dim, self.hidden_dim)
            .weights(self.weights)
            .bias(self.bias)
            .activation(activation)
            .combine(combine)
            .input(self.input)
            .weight(self.weight)
            .output(self.hidden)
    }

    /// The product of the scratch with W2.
    pub(crate) fn second(&self, rows: usize) -> MatmulShape {
        MatmulShape::new(rows, self.hidden_dim, self.model_dim)
            .weights(self.weights)
            .bias(self.bias)
            .combine(if self.residual { Combine::Add } else { Combine::Store })
            .input(self.hidden)
            .weight(self.weight)
            .output(self.output)
    }
}
