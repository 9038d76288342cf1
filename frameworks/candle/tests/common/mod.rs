//! What the tests share: tensors, attention by candle's own operations.

#![allow(dead_code)] // Each test uses its part.

use candle_core::{D, DType, Device, Result, Tensor, Var};
use wgpu_attention_candle::pattern::{Extent, Pattern, Site};
use wgpu_attention_candle::wgpu_attention::Counter;
use wgpu_attention_candle::{AttentionOptions, attention};

/// The names of gradients, in the order of the inputs.
pub(crate) const GRADIENTS: [&str; 3] = ["dq", "dk", "dv"];

/// Normal values, the same in every run.
pub(crate) fn tensor(dims: [usize; 4], seed: u64) -> Tensor {
    let draw = Counter::new(seed, 0);
    let values: Vec<f32> =
        (0..dims.iter().product::<usize>() as u64).map(|n| draw.normal(n) as f32).collect();
    Tensor::from_vec(values, &dims, &Device::Cpu).expect("a tensor")
}

/// q, k and v of one size.
pub(crate) fn tensors(dims: [usize; 4]) -> [Tensor; 3] {
    [1, 2, 3].map(|seed| tensor(dims, seed))
}

/// The same values, as what gradients are asked of.
pub(crate) fn variables(tensors: [Tensor; 3]) -> [Var; 3] {
    tensors.map(|tensor| Var::from_tensor(&tensor).expect("a variable"))
}

/// Ours, with the default options.
pub(crate) fn ours(q: &Tensor, k: &Tensor, v: &Tensor, pattern: &dyn Pattern) -> Result<Tensor> {
    attention(q, k, v, pattern, AttentionOptions::default())
}

/// softmax(q k^T / sqrt(d)) v by candle's operations, over a pattern in which every query has a key.
pub(crate) fn plain(q: &Tensor, k: &Tensor, v: &Tensor, pattern: &dyn Pattern) -> Result<Tensor> {
    let (batch, heads, q_len, dim) = q.dims4()?;
    let (_, kv_heads, kv_len, _) = k.dims4()?;
    let spread = |x: &Tensor| -> Result<Tensor> {
        let dim = x.dim(D::Minus1)?;
        let groups = x.unsqueeze(2)?.broadcast_as((batch, kv_heads, heads / kv_heads, kv_len, dim))?;
        groups.contiguous()?.reshape((batch, heads, kv_len, dim))
    };
    let keys = spread(k)?.t()?.contiguous()?;
    let scores = (q.contiguous()?.matmul(&keys)? / (dim as f64).sqrt())?;
    let scores = scores.add(&left_out(pattern, [batch, heads, q_len, kv_len])?)?;
    let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?.matmul(&spread(v)?)
}

/// 0 for the pairs of a pattern, -1e30 for the others, `[B, H, Lq, Lk]`.
fn left_out(pattern: &dyn Pattern, dims: [usize; 4]) -> Result<Tensor> {
    let [batch, heads, q_len, kv_len] = dims;
    let extent = Extent { batch, heads, q_len, kv_len };
    let mut bias = vec![];
    for (batch, head) in (0..batch).flat_map(|batch| (0..heads).map(move |head| (batch, head))) {
        let site = Site { batch, head, extent };
        let pairs = (0..q_len).flat_map(|i| (0..kv_len).map(move |j| (i, j)));
        bias.extend(pairs.map(|(i, j)| if pattern.keep(&site, i, j) { 0f32 } else { -1e30 }));
    }
    Tensor::from_vec(bias, &dims, &Device::Cpu)
}

/// Every element within a distance of the other's, and not all of them 0.
pub(crate) fn assert_close(what: &str, got: &Tensor, want: &Tensor, tolerance: f32) -> Result<()> {
    assert_eq!(got.dims(), want.dims(), "{what}");
    let (got, want) = (values(got)?, values(want)?);
    assert!(want.iter().any(|x| x.abs() > 10.0 * tolerance), "{what}: nothing to compare");
    for (n, (got, want)) in got.iter().zip(&want).enumerate() {
        // A NaN is not within.
        assert!((got - want).abs() <= tolerance, "{what}: element {n} is {got}, not {want}");
    }
    Ok(())
}

/// In f32.
pub(crate) fn values(x: &Tensor) -> Result<Vec<f32>> {
    x.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}
