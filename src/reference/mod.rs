//! What the kernels must compute: attention in f64, by the formula, and how far a kernel may be from it.
//!
//! ```text
//! S_i   = { j : keep(i, j), and no term of the score removes the pair }         scores: none below that next above f32::MIN
//! lse_i = ln sum_{j in S_i} exp(score(i, j))
//! o_i   = sum_{j in S_i} exp(score(i, j) - lse_i) v_j          S_i empty: o_i = 0, lse_i = f32::MIN; with dropout keep_ij / (1 - rate) v_j
//! ```
//!
//! On purpose another algorithm than the kernels': no blocks, no running maximum, no base 2, no block mask; two
//! passes over the keys that [`Pattern::keep`] allows, row by row.
//!
//! | file | what |
//! |---|---|
//! | `call.rs` | the tensors of a call, their rows |
//! | `terms.rs` | the terms of its score |
//! | `exact.rs` | one row: softmax and output |
//! | `row.rs` | a row with its bound |
//! | `row_weights.rs` | the weights of a row, with their bound |
//! | `rounding.rs` | what f32 may do to a number |
//! | `weights.rs` | the errors of a row's scores and weights |
//! | `bound.rs` | the bound on a kernel's error, with its derivation |
//! | `rows.rs` | which rows a check looks at |
//! | `verify.rs` | a kernel's output against the reference, element by element |
//! | `inputs.rs` | seeded inputs of several kinds |
//! | `gradient/` | the gradients: the formula, its bound, verification |
//! | `linear/` | linear attention, and its own bound |
//! | `linformer/` | Linformer, and its own bound |
//! | `recurrent/` | recurrent networks, and their own bound |
//! | `lsh/` | LSH attention: hash, sort, chunks, and its own bound |
//! | `cache.rs` | rows of a cache of int8 |
//! | `layer/` | the kernels around attention, with their bounds |
//! | `reversible.rs` | reversible residual layers: forward, inverse, gradients |
//! | `oracle.rs` | the count and gather tests, which find index errors that a bound misses |
//!
//! ```
//! use wgpu_attention::{AttentionShape, Causal, reference};
//! let shape = AttentionShape::new(1, 2, 48, 16);
//! let tensors = reference::random::<f32, f32>(&shape, reference::Kind::Normal, 7)?;
//! let exact = reference::attention_with(&shape, &tensors.inputs(), &Causal)?;
//!
//! // A kernel's output: here the exact one, rounded.
//! let out: Vec<f32> = exact.out.iter().map(|&x| x as f32).collect();
//! let got = reference::Got::new(&out);
//! let report = reference::verify(&shape, &tensors.inputs(), &Causal, got, Default::default())?;
//! assert!(report.pass, "{report}");
//! # Ok::<(), wgpu_attention::Error>(())
//! ```

use crate::pattern::Pattern;
use crate::{Attention, Element, Result};
use rayon::prelude::*;

mod bound;
mod cache;
mod call;
mod compare;
mod exact;
pub mod gradient;
mod inputs;
pub mod layer;
mod linear;
mod linformer;
mod lsh;
pub mod oracle;
mod recurrent;
pub mod reversible;
mod rounding;
mod row;
mod row_weights;
mod rows;
mod terms;
mod verify;
mod weights;

pub use crate::Counter;
pub use crate::Inputs;
pub use crate::Position;
pub use cache::{INT8_STEPS, int8_row, int8_scale, int8_words};
pub use inputs::{Kind, Tensors, random};
pub use linear::{
    BoundedLinearGradients, linear_attention, linear_features, linear_gradient, verify_linear,
    verify_linear_steps,
};
pub use linformer::{BoundedLinformerGradients, linformer, linformer_gradient, verify_linformer};
pub use lsh::{
    BoundedLshGradients, LshBuckets, LshGot, LshGradients, LshReport, bounded_lsh_gradient, lsh, lsh_buckets,
    lsh_gradient, lsh_order, lsh_with_buckets, verify_lsh,
};
pub use recurrent::{RecurrentBounded, recurrent, recurrent_steps};
pub use row::{Row, Tiles, Walk, row, row_of_format};
pub use row_weights::{RowWeights, row_weights};
pub use rows::Rows;
pub use verify::{Expected, Got, Report, VerifyOptions, Worst, compare_expected, verify};
pub use weights::WeightFormat;

use call::Call;

/// What attention gives, in f64 and contiguous, whatever the layout of the call's `out`.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// `[B, H, Lq, dv]`.
    pub out: Vec<f64>,
    /// `[B, H, Lq]`; `f32::MIN` where a row has no key.
    pub lse: Vec<f64>,
}

/// Attention over q `[B, H, Lq, d]`, k `[B, Hkv, Lk, d]`, v `[B, Hkv, Lk, dv]` (Vaswani 2017, eq. 1), in the layouts
/// that `attention` says, with a score that needs no tensors. In time proportional to B H Lq Lk (d + dv), rows in parallel.
///
/// # Errors
/// As [`attention_with`].
///
/// ```
/// use wgpu_attention::{AttentionShape, Full, reference};
/// // One query, two keys of equal score: the mean of the values.
/// let shape = AttentionShape::new(1, 1, 2, 1).q_len(1);
/// let exact = reference::attention(&shape, &[0.0f32], &[1.0f32, 2.0], &[3.0, 5.0], &Full)?;
/// assert_eq!(exact.out, [4.0]);
/// assert!((exact.lse[0] - 2f64.ln()).abs() < 1e-15);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn attention<Q: Element, KV: Element>(
    attention: impl Into<Attention>,
    q: &[Q],
    k: &[KV],
    v: &[KV],
    pattern: &dyn Pattern,
) -> Result<Output> {
    attention_with(attention, &Inputs::new(q, k, v), pattern)
}

/// [`attention`] with all the inputs that a shape may ask for.
///
/// A contiguous layout wants exactly the tensor's elements ([`Attention::len_q`] and its like), a
/// [`Layout::Strided`](crate::Layout::Strided) one at least those: such a slice may go on behind the last row.
///
/// NaN and infinity within the tensors reach the rows that attend them, and no others: see [`Row::out`].
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) naming the tensor for a wrong length or element type, and whatever
/// [`Attention::check`] and [`Pattern::check`] refuse.
pub fn attention_with<Q: Element, KV: Element>(
    attention: impl Into<Attention>,
    inputs: &Inputs<'_, Q, KV>,
    pattern: &dyn Pattern,
) -> Result<Output> {
    let attention = attention.into();
    let shape = &attention.shape;
    let call = Call::new(&attention, inputs, pattern)?;
    let rows = shape.len_lse();
    let mut out = vec![0.0; rows * shape.value_dim];
    let mut lse = vec![0.0; rows];
    out.par_chunks_mut(shape.value_dim).zip(lse.par_iter_mut()).enumerate().for_each(|(n, (out, lse))| {
        let exact = exact::solve(&call, Position::of_row(shape, n));
        out.copy_from_slice(&exact.out);
        *lse = exact.lse;
    });
    Ok(Output { out, lse })
}
