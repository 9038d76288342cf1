//! What axial positions are made of.

use super::{Combine, EmbedShape};
use crate::{ElementType, Error, Result};

/// Axial position embeddings (Kitaev 2020, section 4; Ho 2019): a grid of n0 x n1 positions, of which two small tables, `[n0, d0]` and `[n1, d1]`, make
/// rows of d0 + d1 elements:
///
/// ```text
/// row p of out `[positions, d0 + d1]`  =  [ weight0[p / n1], weight1[p mod n1] ]
/// ```
///
/// ```
/// use wgpu_attention::AxialShape;
/// let shape = AxialShape::new([512, 128], [64, 192]).positions(65536);
/// assert_eq!((shape.width(), shape.ids(300)), (256, [2, 44]));
/// let error = shape.positions(65537).check().unwrap_err().to_string();
/// assert!(error.contains("positions: need at most 65536"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct AxialShape {
    /// Rows of the tables, n0 and n1.
    pub sizes: [usize; 2],
    /// Elements of their rows, d0 and d1.
    pub widths: [usize; 2],
    /// Rows of out: the first ones of the grid, at most all of them. May be 0: then nothing is written.
    pub positions: usize,
    /// [`Combine::Store`], or [`Combine::AddInto`] with f32 output.
    pub combine: Combine,
    /// Storage of the tables.
    pub table: ElementType,
    /// Storage of out.
    pub output: ElementType,
}

impl AxialShape {
    /// All positions of the grid; f32 tensors; out is overwritten.
    pub fn new(sizes: [usize; 2], widths: [usize; 2]) -> Self {
        let (positions, f32) = (sizes[0].saturating_mul(sizes[1]), ElementType::F32);
        Self { sizes, widths, positions, combine: Combine::Store, table: f32, output: f32 }
    }

    setters! {
        /// Sets how many positions of the grid there are.
        positions: usize,
        /// Sets whether rows are stored or added.
        combine: Combine,
        /// Sets the storage of the tables.
        table: ElementType,
        /// Sets the storage of out.
        output: ElementType,
    }

    /// Elements of a row of out, d0 + d1.
    pub fn width(&self) -> usize {
        self.widths[0] + self.widths[1]
    }

    /// The rows of the tables that a position has.
    pub fn ids(&self, position: usize) -> [u32; 2] {
        [(position / self.sizes[1]) as u32, (position % self.sizes[1]) as u32]
    }

    /// The lookup that each table is.
    pub fn lookups(&self) -> [EmbedShape; 2] {
        [0, 1].map(|axis| {
            EmbedShape::new(self.positions, self.sizes[axis], self.widths[axis])
                .combine(self.combine)
                .table(self.table)
                .output(self.output)
                .out_at(if axis == 0 { 0 } else { self.widths[0] })
                .out_row(Some(self.width()))
        })
    }

    /// Checks everything that can be said without a device.
    ///
    /// # Errors
    /// [`Error::Argument`] for more positions than the grid has, and as [`EmbedShape::check`].
    pub fn check(&self) -> Result<()> {
        let most = self.sizes[0].saturating_mul(self.sizes[1]);
        if self.positions > most {
            return Err(Error::argument("positions", format!("at most {most}, the grid's"), self.positions));
        }
        self.lookups().iter().try_for_each(EmbedShape::check)
    }
}
