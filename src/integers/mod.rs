//! Integer tensors: what their elements are, which of them share a scale, how they lie in memory.
//!
//! | file | what |
//! |---|---|
//! | `format.rs` | [`IntegerFormat`]: elements, scales, zero points; the layout in words |
//! | `quantized.rs` | [`Quantized`]: a tensor on the host, and what was lost on the way to it |
//! | `quantize.rs` | [`QuantizeShape`]: how numbers become integers |
//! | `product.rs` | [`IntegerMatmulShape`]: products of integers, whose sums are exact |
//!
//! `docs/integers.md` has the conventions, the layout and the costs.

mod format;
mod product;
mod quantize;
mod quantized;

pub use format::{IntegerFormat, IntegerType, ScaleGroups};
pub use product::{IntegerMatmulShape, IntegerOutput};
#[cfg(feature = "gpu")]
pub(crate) use quantize::LEAST_SCALE;
pub use quantize::{QuantizeRule, QuantizeShape};
pub use quantized::{QuantizationError, Quantized};
