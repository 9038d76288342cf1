//! A kernel's output against the reference: |error| <= bound, element by element.
//!
//! The measure is error / bound, not ULP and not an average: outputs are cancelling sums, and one wrong row must
//! show.

use super::call::{Call, check_type};
use super::row::{Row, Tiles, Walk, bounded_row};
use super::rows::Rows;
use super::weights::WeightFormat;
use crate::Position;
use crate::construct::constructed;
use crate::inputs::check_len;
use crate::pattern::Pattern;
use crate::{Attention, Element, Error, Inputs, Result, Strides};
use rayon::prelude::*;
use std::borrow::Cow;
use std::fmt;

/// What a kernel wrote.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Got<'a, O> {
    /// out `[B, H, Lq, dv]`, lying as the layout of out says.
    pub out: &'a [O],
    /// lse `[B, H, Lq]`, contiguous.
    pub lse: Option<&'a [f32]>,
}

constructed! {
    Got ['a, O] { out: &'a [O] } { lse: &'a [f32] }
}

/// What another system computed for the same inputs, contiguous.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Expected<'a> {
    /// out `[B, H, Lq, dv]`.
    pub out: &'a [f32],
    /// lse `[B, H, Lq]`; `f32::MIN` where a row has no key.
    pub lse: Option<&'a [f32]>,
}

constructed! {
    Expected ['a] { out: &'a [f32] } { lse: &'a [f32] }
}

/// How to verify.
#[derive(Clone, Copy, Default)]
#[non_exhaustive]
pub struct VerifyOptions<'a> {
    /// Which rows; by default [`Rows::auto`].
    pub rows: Rows,
    /// The order in which the kernel walked the keys; by default ascending, in one part. See [`Walk`].
    pub order: Option<Walk<'a>>,
    /// In how many tiles it met them; by default as `order` allows. See [`Tiles`].
    pub tiles: Option<Tiles<'a>>,
    /// The expected values' own absolute error, added to every bound: 0 where they are the reference's.
    pub allowance: f64,
    /// How the kernel keeps the weights; by default in f32, as the scalar path does.
    pub weights: WeightFormat,
}

impl<'a> VerifyOptions<'a> {
    /// Sets which rows are compared.
    pub fn rows(self, rows: Rows) -> Self {
        Self { rows, ..self }
    }

    /// Sets the order in which the kernel walked the keys.
    pub fn order(self, order: Walk<'a>) -> Self {
        Self { order: Some(order), ..self }
    }

    /// Sets in how many tiles the kernel met the keys.
    pub fn tiles(self, tiles: Tiles<'a>) -> Self {
        Self { tiles: Some(tiles), ..self }
    }

    /// Sets the expected values' own absolute error.
    pub fn allowance(self, allowance: f64) -> Self {
        Self { allowance, ..self }
    }

    /// Sets how the kernel keeps the weights.
    pub fn weights(self, weights: WeightFormat) -> Self {
        Self { weights, ..self }
    }
}

/// What [`verify`] found.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// Rows compared.
    pub rows_checked: usize,
    /// Elements compared. A check that compared none, of a call that has some, is no pass.
    pub compared: usize,
    /// Elements of these rows for which nothing is promised (infinite bound: overflow of f32). They are not compared; 0 in
    /// any sane call.
    pub unspecified: usize,
    /// Of those compared, elements where NaN or infinity was due and came. A check that compared nothing else has seen no number.
    pub not_finite: usize,
    /// The element of `out` with the largest error / bound; `None` if no element was compared.
    pub worst_out: Option<Worst>,
    /// The same for `lse`.
    pub worst_lse: Option<Worst>,
    /// At least one element was compared, unless there is none, and each is within its bound; where NaN or infinity is due,
    /// it is not finite. An lse that another system computed is met by NaN where it is NaN, by the same infinity where it is one.
    pub pass: bool,
}

/// The element with the largest error / bound.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Worst {
    /// Its row.
    pub position: Position,
    /// Its place in the row; `None` for lse.
    pub column: Option<usize>,
    /// What the kernel gave.
    pub got: f64,
    /// What it should be.
    pub expected: f64,
    /// How far it may be off, allowance included.
    pub bound: f64,
    /// |got - expected| / bound: 0 if they are equal or both not finite, infinite if one of them alone is not finite.
    pub ratio: f64,
}

impl Report {
    /// The largest error / bound of out and lse; 0 if nothing was compared.
    pub fn ratio(&self) -> f64 {
        [&self.worst_out, &self.worst_lse]
            .into_iter()
            .flatten()
            .fold(0.0, |ratio, worst| worst.ratio.max(ratio))
    }

    pub(super) fn empty() -> Self {
        Self {
            rows_checked: 0,
            compared: 0,
            unspecified: 0,
            not_finite: 0,
            worst_out: None,
            worst_lse: None,
            pass: true,
        }
    }

    /// The verdict over all rows: where nothing was compared although there are elements, nothing was proven.
    pub(super) fn concluded(self) -> Self {
        let nothing = self.compared == 0 && self.rows_checked > 0;
        Self { pass: self.pass && !nothing, ..self }
    }

    /// Adds one element.
    fn add(&mut self, position: Position, column: Option<usize>, got: f64, expected: f64, bound: f64) {
        if !bound.is_finite() {
            self.unspecified += 1;
            return;
        }
        self.compared += 1;
        let error = (got - expected).abs();
        // Finite first, then `<=`: a comparison that NaN passes is no comparison.
        let (ratio, within) = match (got.is_finite(), expected.is_finite()) {
            (true, true) if error == 0.0 => (0.0, true),
            (true, true) => (error / bound, error <= bound),
            (false, false) => {
                self.not_finite += 1;
                (0.0, true)
            }
            _ => (f64::INFINITY, false),
        };
        self.pass &= within;
        let worst = Worst { position, column, got, expected, bound, ratio };
        let place = if column.is_some() { &mut self.worst_out } else { &mut self.worst_lse };
        *place = worse(*place, Some(worst));
    }

    pub(super) fn merge(self, other: Self) -> Self {
        Self {
            rows_checked: self.rows_checked + other.rows_checked,
            compared: self.compared + other.compared,
            unspecified: self.unspecified + other.unspecified,
            not_finite: self.not_finite + other.not_finite,
            worst_out: worse(self.worst_out, other.worst_out),
            worst_lse: worse(self.worst_lse, other.worst_lse),
            pass: self.pass && other.pass,
        }
    }

    /// Notes an lse of a row that another system has as NaN or an infinity, if it is another here.
    pub(super) fn with_strange_lse(mut self, position: Position, lse: Option<(f64, f64)>) -> Self {
        let same = |(got, expected): &(f64, f64)| got == expected || got.is_nan() && expected.is_nan();
        if let Some((got, expected)) = lse.filter(|lse| !lse.1.is_finite() && !same(lse)) {
            let worst = Worst { position, column: None, got, expected, bound: 0.0, ratio: f64::INFINITY };
            (self.pass, self.worst_lse) = (false, worse(self.worst_lse, Some(worst)));
        }
        self
    }

    /// Compares one row. `got` and `expected` are `[dv]`.
    pub(super) fn of_row(
        at: Position,
        out: impl Iterator<Item = (f64, f64, f64)>,
        lse: Option<(f64, f64, f64)>,
    ) -> Self {
        let mut report = Self { rows_checked: 1, ..Self::empty() };
        for (column, (got, expected, bound)) in out.enumerate() {
            report.add(at, Some(column), got, expected, bound);
        }
        if let Some((got, expected, bound)) = lse {
            report.add(at, None, got, expected, bound);
        }
        report
    }
}

/// The worse of two; the first row wins a tie, so that reports do not depend on the threads.
fn worse(a: Option<Worst>, b: Option<Worst>) -> Option<Worst> {
    let (Some(x), Some(y)) = (a, b) else { return a.or(b) };
    let b_wins = y.ratio > x.ratio || (y.ratio == x.ratio && (y.position, y.column) < (x.position, x.column));
    Some(if b_wins { y } else { x })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match (self.pass, self.compared, self.rows_checked) {
            (false, 0, 1..) => "FAIL, nothing could be compared",
            (false, ..) => "FAIL",
            (true, ..) => "pass",
        };
        write!(f, "{verdict}, {} rows", self.rows_checked)?;
        if self.unspecified > 0 {
            write!(f, ", {} elements unspecified", self.unspecified)?;
        }
        for (name, worst) in [("out", &self.worst_out), ("lse", &self.worst_lse)] {
            if let Some(worst) = worst {
                write!(f, "; worst {name}: {worst}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Worst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.position)?;
        if let Some(column) = self.column {
            write!(f, ", column {column}")?;
        }
        let Self { got, expected, bound, ratio, .. } = self;
        write!(f, ": got {got:e}, expected {expected:e}, bound {bound:.3e}, error/bound {ratio:.4}")
    }
}

/// Compares a kernel's output with [`attention_with`](super::attention_with) under the bound of
/// [`row`](super::row()).
///
/// An output that was never written fails, provided that it was poisoned (NaN, or any value that is not the answer).
///
/// # Errors
/// As [`row`](super::row()), and for a `got` of the wrong length or element type.
pub fn verify<Q: Element, KV: Element, O: Element>(
    attention: impl Into<Attention>,
    inputs: &Inputs<'_, Q, KV>,
    pattern: &dyn Pattern,
    got: Got<'_, O>,
    options: VerifyOptions<'_>,
) -> Result<Report> {
    let attention = attention.into();
    let call = Call::new(&attention, inputs, pattern)?;
    compare(&call, &GotRows::new(&attention, &got)?, options, false, &|_, row| row)
}

/// Compares a kernel's output with what another system computed, under the bound of [`row`](super::row()) plus
/// [`VerifyOptions::allowance`], the expected values' own error. An expected lse may also be off by its rounding to
/// f32.
///
/// # Errors
/// As [`verify`], and for `expected` of the wrong length.
pub fn compare_expected<Q: Element, KV: Element, O: Element>(
    attention: impl Into<Attention>,
    inputs: &Inputs<'_, Q, KV>,
    pattern: &dyn Pattern,
    got: Got<'_, O>,
    expected: Expected<'_>,
    options: VerifyOptions<'_>,
) -> Result<Report> {
    let attention = attention.into();
    let shape = &attention.shape;
    attention.check()?;
    let width = shape.value_dim;
    check_exact("expected.out", expected.out.len(), shape.len_lse() * width)?;
    if let Some(lse) = expected.lse {
        check_exact("expected.lse", lse.len(), shape.len_lse())?;
    }
    let call = Call::new(&attention, inputs, pattern)?;
    let expected_lse = expected.lse.is_some();
    compare(&call, &GotRows::new(&attention, &got)?, options, expected_lse, &|at, mut row| {
        let n = at.row(shape);
        row.out = expected.out[n * width..(n + 1) * width].iter().map(|&x| f64::from(x)).collect();
        if let Some(lse) = expected.lse {
            row.lse = f64::from(lse[n]);
            if row.kept > 0 {
                row.lse_bound += of_f32(row.lse);
            }
        }
        row
    })
}

/// How far a number that was rounded to f32 may be off.
pub(super) fn of_f32(x: f64) -> f64 {
    // Where it is NaN or an infinity there is nothing to allow.
    if x.is_finite() { x.abs() * 2f64.powi(-24) } else { 0.0 }
}

/// `expect` turns the reference's row into the expected one; `expected_lse`: with an lse that is not the reference's.
fn compare(
    call: &Call<'_>,
    got: &GotRows<'_>,
    options: VerifyOptions<'_>,
    expected_lse: bool,
    expect: &(dyn Fn(Position, Row) -> Row + Sync),
) -> Result<Report> {
    let allowance = options.allowance;
    if !(allowance.is_finite() && allowance >= 0.0) {
        return Err(Error::argument("allowance", "a finite number, at least 0", allowance));
    }
    let check = |&at: &Position| {
        let row = expect(at, bounded_row(call, at, options.order, options.tiles, options.weights)?);
        let out = got.row(at).zip(&row.out).zip(&row.bound);
        let out = out.map(|((got, &expected), &bound)| (got, expected, bound + allowance));
        let lse = got.lse(at).map(|lse| (lse, row.lse, row.lse_bound + allowance));
        // The reference's own NaN says no more than that the row is not finite.
        let strange = lse.filter(|(.., bound)| expected_lse && bound.is_finite());
        Ok(Report::of_row(at, out, lse)
            .with_strange_lse(at, strange.map(|(got, expected, _)| (got, expected))))
    };
    let rows = options.rows.positions(call.shape);
    rows.par_iter().map(check).try_reduce(Report::empty, |a, b| Ok(a.merge(b))).map(Report::concluded)
}

/// What a kernel wrote, checked against the call's sizes, in f32.
pub(super) struct GotRows<'a> {
    attention: &'a Attention,
    strides: Strides,
    out: Cow<'a, [f32]>,
    lse: Option<&'a [f32]>,
}

impl<'a> GotRows<'a> {
    pub(super) fn new<O: Element>(attention: &'a Attention, got: &Got<'a, O>) -> Result<Self> {
        check_type::<O>("out", attention.storage.out)?;
        check_len("out", got.out.len(), attention.len_out(), attention.layouts.out)?;
        got.lse.map_or(Ok(()), |lse| check_exact("lse", lse.len(), attention.len_lse()))?;
        let strides = attention.out_strides();
        Ok(Self { attention, strides, out: O::widened(got.out), lse: got.lse })
    }

    /// One row of out.
    pub(super) fn row(&self, at: Position) -> impl Iterator<Item = f64> + '_ {
        let start = self.strides.at(at.batch, at.head, at.i);
        self.out[start..start + self.attention.shape.value_dim].iter().map(|&x| f64::from(x))
    }

    pub(super) fn lse(&self, at: Position) -> Option<f64> {
        self.lse.map(|lse| f64::from(lse[at.row(&self.attention.shape)]))
    }
}

fn check_exact(name: &'static str, got: usize, need: usize) -> Result<()> {
    if got != need {
        return Err(Error::argument(name, format!("{need} elements"), format!("{got} elements")));
    }
    Ok(())
}
