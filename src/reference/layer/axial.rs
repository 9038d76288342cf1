//! Axial positions and their gradients.

use super::backward::embed_backward;
use super::{Bounded, check_len};
use crate::shape::{AxialShape, Combine};
use crate::{Error, Result};

/// Axial positions from tables `[n0, d0]` and `[n1, d1]`: row p of out is [weight0[p / n1], weight1[p mod n1]], which has no error of its own but
/// for its storage. The combination of the shape does not count here.
///
/// # Errors
/// [`Error::Argument`] for a table that is too short, and as [`AxialShape::check`].
///
/// ```
/// use wgpu_attention::{AxialShape, reference::layer::{Bounded, axial_positions}};
/// let tables = [&[5.0f32][..], &[1.0, 2.0]].map(Bounded::exact);
/// let out = axial_positions(&AxialShape::new([1, 2], [1, 1]), [&tables[0], &tables[1]])?.out;
/// assert_eq!(out, [5.0, 1.0, 5.0, 2.0]);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn axial_positions(shape: &AxialShape, tables: [&Bounded; 2]) -> Result<Bounded> {
    shape.combine(Combine::Store).check()?;
    for ((name, table), lookup) in ["weight0", "weight1"].into_iter().zip(tables).zip(shape.lookups()) {
        check_len(name, table, lookup.len_table())?;
    }
    let mut out = Bounded::default();
    for position in 0..shape.positions {
        for ((id, width), table) in shape.ids(position).into_iter().zip(shape.widths).zip(tables) {
            let row = id as usize * width..(id as usize + 1) * width;
            out.out.extend(&table.out[row.clone()]);
            out.bound.extend(&table.bound[row]);
        }
    }
    Ok(out.stored(shape.output))
}

/// Gradients of [`axial_positions`] by both tables, given dout `[positions, d0 + d1]`: those of two embeddings.
///
/// # Errors
/// [`Error::Argument`] for a dout that is too short, and as [`AxialShape::check`].
///
/// ```
/// use wgpu_attention::{AxialShape, reference::layer::{Bounded, axial_backward}};
/// let dout = Bounded::exact(&[1.0f32, 2.0, 4.0, 8.0]);
/// let [first, second] = axial_backward(&AxialShape::new([1, 2], [1, 1]), &dout)?;
/// assert_eq!((first.out, second.out), (vec![5.0], vec![2.0, 8.0]));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn axial_backward(shape: &AxialShape, dout: &Bounded) -> Result<[Bounded; 2]> {
    shape.combine(Combine::Store).check()?;
    check_len("dout", dout, shape.positions * shape.width())?;
    let of = |axis: usize| {
        let lookup = shape.lookups()[axis];
        let columns = |values: &[f64]| -> Vec<f64> {
            let rows = values.chunks(shape.width()).take(shape.positions);
            rows.flat_map(|row| row[lookup.out_at..][..lookup.width].to_vec()).collect()
        };
        let own = Bounded { out: columns(&dout.out), bound: columns(&dout.bound) };
        let ids: Vec<u32> = (0..shape.positions).map(|position| shape.ids(position)[axis]).collect();
        embed_backward(&lookup, &ids, &own, None, None)
    };
    Ok::<_, Error>([of(0)?, of(1)?])
}
