#![doc = include_str!("../README.md")]

mod checks;
mod operation;
mod options;
mod rows;

pub use options::AttentionOptions;
pub use wgpu_attention;
pub use wgpu_attention::{Gpu, pattern};

use candle_core::{Error, Result, Tensor};
use operation::Operation;
use wgpu_attention::Storage;
use wgpu_attention::pattern::Pattern;

/// softmax(score) v over the pairs of a pattern: out `[B, H, Lq, dv]`, of the type of q, on candle's CPU device.
///
/// q is `[B, H, Lq, d]`, k `[B, Hkv, Lk, d]`, v `[B, Hkv, Lk, dv]`, all f32, all f16 or all bf16, where H is a multiple of Hkv: query head h reads
/// key head h / (H / Hkv). Sums are f32. A query without a key gives 0.
///
/// q, k and v are copied to the device of the [`Gpu`], and out is copied back; the caller waits. A tensor whose elements lie together, the
/// last axis contiguous, is read where it lies (so `transpose(1, 2)` of `[B, L, H, d]` costs nothing); of any other, candle makes a
/// contiguous copy first. In candle's backward pass, gradients by q, k and v come from this crate's own, which computes the forward pass once
/// more and never holds a matrix of scores.
///
/// # Errors
/// [`candle_core::Error`] with the words of [`wgpu_attention::Error`]: for shapes, types and devices that do not fit, a score with tensors, and as
/// [`Gpu::attention`](wgpu_attention::Gpu::attention). candle's `backward` returns those of
/// [`Gpu::attention_backward`](wgpu_attention::Gpu::attention_backward).
///
/// ```no_run
/// use candle_core::{Device, Tensor};
/// use wgpu_attention_candle::pattern::Window;
/// use wgpu_attention_candle::{AttentionOptions, attention};
///
/// // [B, L, H, d], as a linear layer leaves it.
/// let x = Tensor::randn(0f32, 1.0, (1, 4096, 8, 64), &Device::Cpu)?.transpose(1, 2)?;
/// let window = Window { before: 255, after: 0 };
/// let out = attention(&x, &x, &x, &window, AttentionOptions::default())?;
/// assert_eq!(out.dims(), [1, 8, 4096, 64]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    pattern: &dyn Pattern,
    options: AttentionOptions,
) -> Result<Tensor> {
    let element = checks::element(q, k, v)?;
    let attention = checks::shape(q.dims(), k.dims(), v.dims())?.storage(Storage::all(element));
    checks::score(&options.score, &attention.shape)?;
    let attention = attention.score(options.score);
    let gpu = options.gpu.map_or_else(options::shared, Ok).map_err(Error::wrap)?;
    let (q, k, v) = (rows::together(q)?, rows::together(k)?, rows::together(v)?);
    q.apply_op3(&k, &v, Operation { gpu, attention, pattern: pattern.identity().to_pattern() })
}
