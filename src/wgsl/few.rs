//! Tiles of the matrix product for few rows, which reads B at the speed of memory.

use super::Header;
use super::limits::check_powers;
use crate::{Error, MatmulShape, Result};

/// Sizes of a workgroup whose lanes share the inner dimension, or are rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FewRows {
    /// Lanes.
    pub lanes: usize,
    /// Rows that a lane holds: 1, 2 or 4, and 1 where lanes are rows.
    pub rows: usize,
    /// Groups of 4 columns, all of which a lane holds: 1, 2 or 4.
    pub column_groups: usize,
    /// Groups of 4 neighbours in k that a lane takes at a time: 1, 2 or 4.
    pub fours: usize,
    /// Every lane is a row, and goes over all of the inner dimension.
    pub row_lanes: bool,
}

impl FewRows {
    /// The most rows for which [`MatmulTile::few`](super::MatmulTile::few) gives a tile.
    pub const MOST: usize = 8;

    pub(super) fn choose(shape: &MatmulShape, cpu: bool) -> Self {
        let rows = shape.rows.next_power_of_two();
        // A word or two of what is packed, a vector of what is not: a lane's neighbour reads the next.
        let fours = shape.integers.map_or(1, |format| 16 / format.element.bits());
        // A CPU's vectors are the lanes.
        if cpu && rows > 4 && shape.integers.is_none() {
            return Self { lanes: 8, rows: 1, column_groups: 4, fours: 2, row_lanes: true };
        }
        // More rows than 4 are more tiles: the second finds B in a cache.
        let rows = rows.min(4);
        if cpu {
            return Self { lanes: 8, rows, column_groups: 4, fours, row_lanes: false };
        }
        // As many sums, and as much of A, as a GPU's lane holds in registers.
        Self { lanes: 64, rows, column_groups: 4 / rows, fours: fours.min(8 / rows), row_lanes: false }
    }

    pub(super) const fn rows(&self) -> usize {
        if self.row_lanes { self.lanes } else { self.rows }
    }

    /// Vectors of 4 sums that a lane holds.
    const fn sums(&self) -> usize {
        self.rows * self.column_groups
    }

    /// Vectors of workgroup memory; one where none is used, since WGSL has no empty arrays.
    const fn parts(&self) -> usize {
        if self.row_lanes { 1 } else { self.lanes * self.sums() }
    }

    pub(super) const fn workgroup_bytes(&self) -> usize {
        16 * self.parts()
    }

    pub(super) fn check(&self) -> Result<()> {
        check_powers(&[("tile.lanes", self.lanes)])?;
        for (name, size) in
            [("tile.rows", self.rows), ("tile.column_groups", self.column_groups), ("tile.fours", self.fours)]
        {
            check_spelt_out(name, size, 4)?;
        }
        if self.row_lanes { check_spelt_out("tile.rows", self.rows, 1) } else { Ok(()) }
    }

    pub(super) fn constants(&self, header: Header) -> Header {
        header
            .u32s(&[
                ("OWN_ROWS", self.rows),
                ("COLUMN_GROUPS", self.column_groups),
                ("FOURS", self.fours),
                ("SUMS", self.sums()),
                ("PARTS", self.parts()),
            ])
            .bools(&[("ROW_LANES", self.row_lanes)])
    }
}

/// What the shader spells out, it has up to so many times.
fn check_spelt_out(name: &'static str, size: usize, most: usize) -> Result<()> {
    match size.is_power_of_two() && size <= most {
        true => Ok(()),
        false => Err(Error::argument(name, format!("a power of two up to {most}"), size)),
    }
}
