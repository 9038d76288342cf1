//! Linformer by its definition: two products in f64, then attention.
//!
//! | file | what |
//! |---|---|
//! | `call.rs` | the tensors of a call, its projected keys and values |
//! | `bound.rs` | one row, and the bound on a kernel's error |
//! | `gradient.rs` | gradients, and the bound on a kernel's |

mod bound;
mod call;
mod gradient;

pub use gradient::{BoundedLinformerGradients, linformer_gradient};

use super::compare::compared;
use super::{Position, Report, Rows};
use crate::linformer::{LinformerInputs, LinformerOptions};
use crate::{Attention, Element, Result};
use bound::solve;
use call::LinformerCall;
use rayon::prelude::*;

/// Linformer in f64, `[B, H, Lq, dv]`, contiguous whatever the layout.
///
/// # Errors
/// As [`LinformerOptions::check`] and [`LinformerInputs::check`], and [`Error::Argument`](crate::Error::Argument) for another element type than the storage says.
///
/// ```
/// use wgpu_attention::{AttentionShape, LinformerInputs, LinformerOptions, reference};
/// // One projected row is attended alone: here the sum of the values.
/// let shape = AttentionShape::new(1, 1, 3, 1);
/// let (x, v, e) = ([0.5f32; 3], [3.0f32, 5.0, 10.0], [1.0f32; 3]);
/// let options = LinformerOptions::new(3, 1).value_projection(false);
/// let out = reference::linformer(&shape, &options, &LinformerInputs::new(&x, &x, &e).v(&v[..]))?;
/// assert_eq!(out, [18.0; 3]);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn linformer<Q: Element, KV: Element>(
    attention: impl Into<Attention>,
    options: &LinformerOptions,
    inputs: &LinformerInputs<'_, Q, KV>,
) -> Result<Vec<f64>> {
    let attention = attention.into();
    let call = LinformerCall::new(&attention, options, inputs)?;
    let lines = call.lines()?;
    let rows = (0..attention.shape.len_lse()).into_par_iter().map(|n| {
        let at = Position::of_row(&attention.shape, n);
        solve(&call, call.line(&lines, at), at).map(|row| row.out)
    });
    Ok(rows.collect::<Result<Vec<_>>>()?.concat())
}

/// Compares a kernel's output `[B, H, Lq, dv]`, lying as the layout of out says, with [`linformer`] under the bound of
/// `reference/linformer/bound.rs`.
///
/// With `expected`, it is compared with what another system computed instead, contiguous, and that value's own error is added to the
/// bounds.
///
/// # Errors
/// As [`linformer`], and [`Error::Argument`](crate::Error::Argument) for a `got` or `expected` of the wrong length or type.
pub fn verify_linformer<Q: Element, KV: Element, O: Element>(
    attention: impl Into<Attention>,
    options: &LinformerOptions,
    inputs: &LinformerInputs<'_, Q, KV>,
    got: &[O],
    rows: Rows,
    expected: Option<(&[f32], f64)>,
) -> Result<Report> {
    let attention = attention.into();
    let call = LinformerCall::new(&attention, options, inputs)?;
    let lines = call.lines()?;
    compared(&attention, got, rows, expected, |at| solve(&call, call.line(&lines, at), at))
}
