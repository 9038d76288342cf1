//! Tensors of integers: made of numbers, made numbers again, multiplied. Weights of integers beside numbers are
//! [`MatmulPlan`](super::MatmulPlan)'s.
//!
//! | file | what |
//! |---|---|
//! | `quantize.rs` | [`QuantizePlan`], [`DequantizePlan`] |
//! | `product.rs` | [`IntegerMatmulPlan`]: exact sums |
//! | `host.rs` | all of them on slices |

mod host;
mod product;
mod quantize;

pub use product::{IntegerMatmulBuffers, IntegerMatmulPlan};
pub use quantize::{DequantizePlan, QuantizePlan};

use crate::construct::constructed;
use crate::gpu::bindings::{checked_binding, optional_binding};
use crate::{ElementType, IntegerFormat, Result};

/// The buffers of a tensor of integers. All need `BufferUsages::STORAGE`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct IntegerBuffers<'a> {
    /// The elements, [`IntegerFormat::len_words`] words.
    pub words: wgpu::BufferBinding<'a>,
    /// The scales, f32, [`IntegerFormat::len_scales`]; none where a call has no use for them.
    pub scales: Option<wgpu::BufferBinding<'a>>,
    /// The zero points, i32, as many as scales, if and only if the format has them.
    pub zero_points: Option<wgpu::BufferBinding<'a>>,
}

constructed! {
    IntegerBuffers ['a] { words: wgpu::BufferBinding<'a> }
    { scales: wgpu::BufferBinding<'a>, zero_points: wgpu::BufferBinding<'a> }
}

/// [`IntegerBuffers`] that are checked.
#[derive(Debug, Clone)]
struct Checked<'a> {
    words: wgpu::BufferBinding<'a>,
    scales: Option<wgpu::BufferBinding<'a>>,
    zero_points: Option<wgpu::BufferBinding<'a>>,
}

/// Checks the buffers of a tensor `[rows, inner]` under these names. Words, scales and zero points have the size of f32.
fn checked<'a>(
    limits: &wgpu::Limits,
    [words, scales, zero_points]: [&'static str; 3],
    buffers: &IntegerBuffers<'a>,
    format: IntegerFormat,
    [rows, inner]: [usize; 2],
    has_scales: bool,
) -> Result<Checked<'a>> {
    let (len, word) = (format.len_scales(rows, inner), ElementType::F32);
    Ok(Checked {
        words: checked_binding(limits, words, &buffers.words, format.len_words(rows, inner), word)?,
        scales: optional_binding(limits, scales, &buffers.scales, has_scales, len, word)?,
        zero_points: optional_binding(
            limits,
            zero_points,
            &buffers.zero_points,
            format.zero_points,
            len,
            word,
        )?,
    })
}
