//! The gradient of an embedding's table.

use super::super::{Bounded, check_len};
use super::{Sum, element, into, push};
use crate::shape::EmbedShape;
use crate::{ElementType, Error, Result};

/// The gradient of an embedding by its table `[table_rows, width]`: row t is the sum of the rows of dout whose id is t. The row `padding` has none;
/// ids past the table count nowhere. `before` is what the gradient is added to, if it is; the combination of the shape does not count here.
///
/// m rows that share an id meet at most 64 roundings in a block of 64 places, and one per block.
///
/// # Errors
/// [`Error::Argument`] for a tensor that is too short, ids that are not `rows`, and as [`EmbedShape::check`].
///
/// ```
/// use wgpu_attention::{EmbedShape, reference::layer::{Bounded, backward::embed_backward}};
/// let dout = Bounded::exact(&[1.0f32, 2.0, 4.0]);
/// let dtable = embed_backward(&EmbedShape::new(3, 4, 1), &[2, 0, 2], &dout, None, None)?;
/// assert_eq!(dtable.out, [2.0, 0.0, 5.0, 0.0]);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn embed_backward(
    shape: &EmbedShape,
    ids: &[u32],
    dout: &Bounded,
    padding: Option<u32>,
    before: Option<&Bounded>,
) -> Result<Bounded> {
    shape.check()?;
    check_len("dout", dout, shape.rows * shape.width)?;
    if let Some(before) = before {
        check_len("before", before, shape.len_table())?;
    }
    if ids.len() != shape.rows {
        return Err(Error::argument("ids", format!("{} ids", shape.rows), ids.len()));
    }
    let width = shape.width;
    let mut sums = vec![Sum::default(); shape.len_table()];
    for (row, &id) in ids.iter().enumerate() {
        if (id as usize) < shape.table_rows && Some(id) != padding {
            for c in 0..width {
                sums[id as usize * width + c].add(element(dout, row * width + c));
            }
        }
    }
    let mut dtable = Bounded::default();
    for (at, sum) in sums.into_iter().enumerate() {
        let roundings = sum.terms.min(64) + sum.terms.div_ceil(64) + 1;
        // A row that no id names is not touched.
        let named = if sum.terms == 0 { None } else { Some(sum.total(roundings)) };
        let value = match (named, before) {
            (Some(sum), before) => into(sum, before, at),
            (None, Some(before)) => element(before, at),
            (None, None) => super::Running::exact(0.0),
        };
        push(&mut dtable, value);
    }
    Ok(dtable.stored(ElementType::F32))
}
