//! A kernel's rows against the reference: |error| <= bound, element by element.

use super::bound::solve;
use super::call::LinearCall;
use crate::Position;
use crate::inputs::check_len;
use crate::linear::{LinearInputs, LinearOptions};
use crate::reference::call::check_type;
use crate::reference::{Report, Rows};
use crate::{Attention, Element, Error, Result};
use rayon::prelude::*;

/// Compares a kernel's output `[B, H, Lq, dv]`, lying as the layout of out says, with [`linear_attention`](super::linear_attention) under the bound of
/// `reference/linear/bound.rs`.
///
/// With `expected`, it is compared with what another system computed instead, contiguous, and that value's own error is added to the
/// bounds.
///
/// # Errors
/// As [`linear_attention`](super::linear_attention), and [`Error::Argument`] for a `got` or `expected` of the wrong length or type.
pub fn verify_linear<Q: Element, KV: Element, O: Element>(
    attention: impl Into<Attention>,
    options: &LinearOptions,
    inputs: &LinearInputs<'_, Q, KV>,
    got: &[O],
    rows: Rows,
    expected: Option<(&[f32], f64)>,
) -> Result<Report> {
    let attention = attention.into();
    let call = LinearCall::new(&attention, options, inputs)?;
    let (shape, width) = (&attention.shape, attention.shape.value_dim);
    check_type::<O>("out", attention.storage.out)?;
    check_len("out", got.len(), attention.len_out(), attention.layouts.out)?;
    let need = shape.len_lse() * width;
    if let Some(got) = expected.map(|(expected, _)| expected.len()).filter(|&got| got != need) {
        return Err(Error::argument("expected", format!("{need} elements"), format!("{got} elements")));
    }
    let lines = call.lines();
    let check = |at: &Position| {
        let mut row = solve(&call, call.line(&lines, *at), *at);
        let mut allowance = 0.0;
        if let Some((expected, error)) = expected {
            row.out = expected[at.row(shape) * width..][..width].iter().map(|&x| x.into()).collect();
            allowance = error;
        }
        let start = attention.out_strides().at(at.batch, at.head, at.i);
        let out = got[start..start + width].iter().zip(&row.out).zip(&row.bound);
        Report::of_row(
            *at,
            out.map(|((&got, &expected), &bound)| (got.into(), expected, bound + allowance)),
            None,
        )
    };
    let rows = rows.positions(shape);
    Ok(rows.par_iter().map(check).reduce(Report::empty, Report::merge).concluded())
}
