//! A kernel's rows against the reference: |error| <= bound, element by element.

use super::bound::solve;
use super::call::LinearCall;
use crate::linear::{LinearInputs, LinearOptions};
use crate::reference::compare::compared;
use crate::reference::{Report, Rows};
use crate::{Attention, Element, Error, Result};

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
    compare(&call, got, rows, expected)
}

/// [`verify_linear`] of a sequence that was computed in steps of these lengths, each of which carried the state of those before it
/// ([`LinearState`](crate::LinearState)). The call is the whole sequence, `got` the outputs of all steps.
///
/// # Errors
/// As [`verify_linear`], and [`Error::Argument`] where there are not as many queries as keys, or the steps are not as long as the sequence.
pub fn verify_linear_steps<Q: Element, KV: Element, O: Element>(
    attention: impl Into<Attention>,
    options: &LinearOptions,
    inputs: &LinearInputs<'_, Q, KV>,
    steps: &[usize],
    got: &[O],
    rows: Rows,
) -> Result<Report> {
    let attention = attention.into();
    let (q_len, kv_len) = (attention.shape.q_len, attention.shape.kv_len);
    if q_len != kv_len {
        return Err(Error::argument("q_len", format!("{kv_len}, as many as keys"), q_len));
    }
    let len = steps.iter().sum::<usize>();
    if len != kv_len {
        return Err(Error::argument("steps", format!("{kv_len} keys"), format!("{len}")));
    }
    let call = LinearCall::new(&attention, options, inputs)?.in_steps(steps);
    compare(&call, got, rows, None)
}

fn compare<O: Element>(
    call: &LinearCall<'_>,
    got: &[O],
    rows: Rows,
    expected: Option<(&[f32], f64)>,
) -> Result<Report> {
    let lines = call.lines();
    compared(call.attention, got, rows, expected, |at| Ok(solve(call, call.line(&lines, at), at)))
}
