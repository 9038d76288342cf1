//! Tables and matrices past the largest binding of a device: bound by bands of rows, a dispatch for each.

use crate::Error;
use wgpu_attention::{IntegerFormat, MatmulShape, RowStrides, WeightOrder};

/// Rows of a table that are bound together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Band {
    pub(crate) first: usize,
    pub(crate) rows: usize,
}

/// A band begins at a multiple of so many rows: at a multiple of 256 bytes, where every device's bindings may begin, whatever the words of a row.
const ALIGNED: usize = 64;

impl Band {
    /// The number within the band of a row of the table; for rows of other bands one that it does not have.
    pub(crate) fn number(self, row: u32) -> u32 {
        let within = (row as usize).wrapping_sub(self.first);
        if within < self.rows { within as u32 } else { self.rows as u32 }
    }
}

/// The bands of a table of so many rows, none past `most` bytes: one where it can be bound as it is.
pub(crate) fn bands(what: &str, rows: usize, row_bytes: usize, most: u64) -> Result<Vec<Band>, Error> {
    let bytes = row_bytes.max(1) as u64;
    if rows as u64 * bytes <= most {
        return Ok(vec![Band { first: 0, rows }]);
    }
    let step = (most / bytes) as usize / ALIGNED * ALIGNED;
    if step == 0 {
        let need = format!("{ALIGNED} rows of {bytes} bytes");
        return Err(format!("{what}: need a max_storage_buffer_binding_size for {need}, found {most}").into());
    }
    Ok((0..rows).step_by(step).map(|first| Band { first, rows: step.min(rows - first) }).collect())
}

/// Words of a row of a matrix `[out, in]`, and scales.
pub(crate) fn row_words(shape: &MatmulShape) -> [usize; 2] {
    let of = |format: IntegerFormat| [format.len_words(1, shape.inner), format.len_scales(1, shape.inner)];
    shape.integers.map_or([shape.inner, 0], of)
}

/// A product's bands of columns: of rows of its matrix, where that is `[out, in]`; others are one band, whatever their size.
pub(crate) fn of_product(shape: &MatmulShape, most: u64) -> Result<Vec<Band>, Error> {
    match shape.weights {
        WeightOrder::OutIn => bands("a matrix of products", shape.columns, 4 * row_words(shape)[0], most),
        WeightOrder::InOut => Ok(vec![Band { first: 0, rows: shape.columns }]),
    }
}

/// The columns of a band, where all of them would write and add to them.
pub(crate) fn cut(shape: &MatmulShape, band: Band) -> MatmulShape {
    if band.rows == shape.columns {
        return *shape;
    }
    let rows = RowStrides::contiguous(shape.rows, shape.columns).offset(band.first);
    let mut part = shape.out_strides(rows).residual_strides(rows);
    part.columns = band.rows;
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_have_every_row_once() {
        assert_eq!(bands("x", 100, 40, 4000).expect("one"), [Band { first: 0, rows: 100 }]);
        let some = bands("x", 200, 40, 3999).expect("bands");
        assert_eq!(
            some.iter().map(|band| (band.first, band.rows)).collect::<Vec<_>>(),
            [(0, 64), (64, 64), (128, 64), (192, 8)]
        );
        let of = |row| some.iter().map(|band| band.number(row)).collect::<Vec<_>>();
        assert_eq!((of(63), of(64), of(199)), (vec![63, 64, 64, 8], vec![64, 0, 64, 8], vec![64, 64, 64, 7]));
        let error = bands("the table", 200, 64, 4095).expect_err("too large").to_string();
        assert_eq!(
            error,
            "the table: need a max_storage_buffer_binding_size for 64 rows of 64 bytes, found 4095"
        );
    }
}
