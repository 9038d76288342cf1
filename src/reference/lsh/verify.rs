//! A kernel's buckets, order and rows against the reference.

use super::LshCall;
use super::bound::{bounded, solve};
use super::hash::{lsh_buckets, lsh_order};
use crate::Position;
use crate::construct::constructed;
use crate::inputs::check_len;
use crate::lsh::{LshInputs, LshOptions};
use crate::reference::verify::{Report, of_f32};
use crate::reference::{Expected, Rows};
use crate::{Attention, Element, Error, Result};
use rayon::prelude::*;
use std::fmt;

/// What a kernel wrote.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct LshGot<'a, O> {
    /// out `[B, H, L, dv]`, lying as the layout of out says.
    pub out: &'a [O],
    /// lse `[B, H, L]`.
    pub lse: Option<&'a [f32]>,
    /// buckets `[B, H, R, L]`.
    pub buckets: &'a [u32],
    /// order `[B, H, R, L]`.
    pub order: Option<&'a [u32]>,
}

constructed! {
    LshGot ['a, O] { out: &'a [O], buckets: &'a [u32] } { lse: &'a [f32], order: &'a [u32] }
}

/// What [`verify_lsh`] found.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LshReport {
    /// Buckets that the gap between the best projection and the next makes certain, and so must be right.
    pub certain: usize,
    /// Buckets in all.
    pub buckets: usize,
    /// Certain buckets that are wrong: index into `[B, H, R, L]`, got, expected.
    pub wrong_buckets: Vec<(usize, u32, u32)>,
    /// The first place at which the order is not the stable order of the kernel's own buckets.
    pub wrong_order: Option<usize>,
    /// out and lse, given the kernel's own buckets.
    pub attention: Report,
    /// Everything holds.
    pub pass: bool,
}

impl fmt::Display for LshReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.pass { "pass" } else { "FAIL" };
        write!(
            f,
            "{verdict}, {} of {} buckets certain, {} wrong",
            self.certain,
            self.buckets,
            self.wrong_buckets.len()
        )?;
        if let Some((at, got, expected)) = self.wrong_buckets.first() {
            write!(f, " (first at {at}: got {got}, expected {expected})")?;
        }
        if let Some(place) = self.wrong_order {
            write!(f, ", order wrong from place {place}")?;
        }
        write!(f, "; attention: {}", self.attention)
    }
}

/// Compares a kernel's output with the reference: the buckets wherever no rounding can change them; the order with the
/// stable order of the kernel's own buckets; out and lse with the f64 attention over the kernel's own buckets, within
/// the bound of `reference/lsh/bound.rs`.
///
/// With `expected`, out and lse are compared with what another system computed instead, `allowance` (the expected values' own
/// error) being added to the bounds.
///
/// # Errors
/// As [`lsh_with_buckets`](super::lsh_with_buckets), and [`Error::Argument`] for a `got` of the wrong length or type.
pub fn verify_lsh<E: Element, O: Element>(
    attention: impl Into<Attention>,
    options: &LshOptions,
    inputs: &LshInputs<'_, E>,
    got: LshGot<'_, O>,
    rows: Rows,
    expected: Option<(Expected<'_>, f64)>,
) -> Result<LshReport> {
    let attention = attention.into();
    let shape = &attention.shape;
    let call = LshCall::new(&attention, options, inputs)?;
    let exact = lsh_buckets(&attention, options, inputs)?;
    check_got(&attention, options, &got, expected.map(|e| e.0))?;
    let lines = call.meetings(got.buckets)?;
    let pairs = got.buckets.iter().zip(&exact.buckets).zip(&exact.certain).enumerate();
    let wrong_buckets: Vec<_> = pairs
        .filter(|(_, ((got, expected), certain))| **certain && got != expected)
        .map(|(n, ((got, expected), _))| (n, *got, *expected))
        .collect();
    let order = lsh_order(got.buckets, shape.q_len);
    let wrong_order = got.order.and_then(|got| got.iter().zip(&order).position(|(got, order)| got != order));

    let check = |at: &Position| {
        let n = at.row(shape);
        let row = solve(&call, &lines[n / shape.q_len], *at);
        let mut bound = bounded(&call, &row);
        let (mut exact, mut allowance) = (row.exact, 0.0);
        if let Some((expected, error)) = expected {
            let width = shape.value_dim;
            exact.out = expected.out[n * width..][..width].iter().map(|&x| f64::from(x)).collect();
            if let Some(lse) = expected.lse {
                exact.lse = f64::from(lse[n]);
                // A row without keys has the number that says so.
                bound.lse += if exact.keys.is_empty() { 0.0 } else { of_f32(exact.lse) };
            }
            allowance = error;
        }
        let start = call.attention.out_strides().at(at.batch, at.head, at.i);
        let out = got.out[start..start + shape.value_dim].iter().zip(&exact.out).zip(&bound.out);
        let out = out.map(|((&got, &expected), &bound)| (got.into(), expected, bound + allowance));
        let lse = got.lse.map(|lse| (f64::from(lse[n]), exact.lse, bound.lse + allowance));
        let expected_lse = expected.is_some_and(|(expected, _)| expected.lse.is_some());
        let strange = lse.filter(|(.., bound)| expected_lse && bound.is_finite());
        Report::of_row(*at, out, lse).with_strange_lse(*at, strange.map(|(got, expected, _)| (got, expected)))
    };
    let rows = rows.positions(shape);
    let rows_report = rows.par_iter().map(check).reduce(Report::empty, Report::merge).concluded();
    let pass = wrong_buckets.is_empty() && wrong_order.is_none() && rows_report.pass;
    let certain = exact.certain.iter().filter(|&&certain| certain).count();
    Ok(LshReport {
        certain,
        buckets: got.buckets.len(),
        wrong_buckets,
        wrong_order,
        attention: rows_report,
        pass,
    })
}

fn check_got<O: Element>(
    attention: &Attention,
    options: &LshOptions,
    got: &LshGot<'_, O>,
    expected: Option<Expected<'_>>,
) -> Result<()> {
    let (shape, output) = (&attention.shape, attention.storage.out);
    if O::TYPE != output {
        return Err(Error::argument("out", format!("{output}, as the storage says"), O::TYPE));
    }
    check_len("out", got.out.len(), attention.len_out(), attention.layouts.out)?;
    let rows = shape.len_lse();
    let lens = [
        ("lse", got.lse.map(<[_]>::len), rows),
        ("order", got.order.map(<[_]>::len), options.len_buckets(shape)),
        ("expected.out", expected.map(|e| e.out.len()), rows * shape.value_dim),
        ("expected.lse", expected.and_then(|e| e.lse).map(<[_]>::len), rows),
    ];
    for (name, got, need) in lens {
        if let Some(got) = got.filter(|&got| got != need) {
            return Err(Error::argument(name, format!("{need} elements"), format!("{got} elements")));
        }
    }
    Ok(())
}
