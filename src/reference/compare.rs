//! Rows of an output that has no lse, against the reference.

use super::call::check_type;
use super::{Position, Report, Rows};
use crate::inputs::check_len;
use crate::{Attention, Element, Error, Result};
use rayon::prelude::*;

/// A row of the reference, `[dv]`, and the bound of each of its elements.
pub(super) struct BoundedRow {
    pub(super) out: Vec<f64>,
    pub(super) bound: Vec<f64>,
}

/// Compares `got`, lying as the layout of out says, with the rows that `solve` gives. With `expected`, it is compared with what another
/// system computed instead, contiguous, and that value's own error is added to the bounds.
pub(super) fn compared<O: Element>(
    attention: &Attention,
    got: &[O],
    rows: Rows,
    expected: Option<(&[f32], f64)>,
    solve: impl Fn(Position) -> Result<BoundedRow> + Sync,
) -> Result<Report> {
    let (shape, width) = (&attention.shape, attention.shape.value_dim);
    check_type::<O>("out", attention.storage.out)?;
    check_len("out", got.len(), attention.len_out(), attention.layouts.out)?;
    let need = shape.len_lse() * width;
    if let Some(got) = expected.map(|(expected, _)| expected.len()).filter(|&got| got != need) {
        return Err(Error::argument("expected", format!("{need} elements"), format!("{got} elements")));
    }
    let check = |at: &Position| {
        let mut row = solve(*at)?;
        let mut allowance = 0.0;
        if let Some((expected, error)) = expected {
            row.out = expected[at.row(shape) * width..][..width].iter().map(|&x| x.into()).collect();
            allowance = error;
        }
        let start = attention.out_strides().at(at.batch, at.head, at.i);
        let out = got[start..start + width].iter().zip(&row.out).zip(&row.bound);
        let each = out.map(|((&got, &expected), &bound)| (got.into(), expected, bound + allowance));
        Ok(Report::of_row(*at, each, None))
    };
    let reports = rows.positions(shape).par_iter().map(check).collect::<Result<Vec<_>>>()?;
    Ok(reports.into_iter().fold(Report::empty(), Report::merge).concluded())
}
