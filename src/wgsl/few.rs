//! Tiles of the matrix product for few rows, which reads B at the speed of memory.

use super::Header;
use super::limits::check_powers;
use crate::{ElementType, Error, MatmulShape, Result};

/// Sizes of a workgroup whose lanes share the inner dimension, or are rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FewRows {
    /// Lanes.
    pub lanes: usize,
    /// Rows that a lane holds: 1, 2, 4 or 8, and 1 where lanes are rows.
    pub rows: usize,
    /// Groups of 4 columns, all of which a lane holds: 1, 2, 4 or 8.
    pub column_groups: usize,
    /// Groups of 4 neighbours in k that a lane takes at a time: 1, 2 or 4.
    pub fours: usize,
    /// Every lane is a row, and goes over all of the inner dimension.
    pub row_lanes: bool,
}

impl FewRows {
    /// The most rows for which [`MatmulTile::few`](super::MatmulTile::few) gives a tile.
    pub const MOST: usize = 8;
    /// The width of today's CPUs' vectors.
    const CPU_LANES: usize = 8;

    pub(super) fn choose(shape: &MatmulShape, cpu: bool) -> Self {
        if cpu {
            return Self::for_cpus(shape);
        }
        // More rows than 4 are more tiles: the second finds B in a cache.
        let rows = shape.rows.next_power_of_two().min(4);
        // A word or two of what is packed, a vector of what is not: a lane's neighbour reads the next.
        let fours = shape.integers.map_or(1, |format| 16 / format.element.bits());
        // As many sums, and as much of A, as a GPU's lane holds in registers.
        Self { lanes: 64, rows, column_groups: 4 / rows, fours: fours.min(8 / rows), row_lanes: false }
    }

    /// Lanes are a CPU's vector, and each of its loads is one per lane, of A as of B. What is read of A serves the columns, and what is made of
    /// B the rows: all rows of a call, and 32 columns; 16 by f32, of which a column takes as many loads as a row.
    fn for_cpus(shape: &MatmulShape) -> Self {
        let rows = shape.rows.next_power_of_two();
        let tile = Self { lanes: Self::CPU_LANES, rows, column_groups: 8, fours: 1, row_lanes: false };
        match shape.integers.map(|format| format.element.bits()) {
            None if shape.weight != ElementType::F32 => tile,
            None if rows <= 4 => Self { column_groups: 4, ..tile },
            None => Self { rows: 1, column_groups: 4, fours: 2, row_lanes: true, ..tile },
            // A word at a time, so that what is made of it stays near for 8 rows.
            Some(8) if rows > 4 => tile,
            Some(_) => Self { fours: 2, ..tile },
        }
    }

    /// Whether it is made for CPUs: no GPU's subgroup is that small.
    pub(super) const fn is_for_cpus(&self) -> bool {
        self.lanes <= Self::CPU_LANES
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
        check_spelt_out("tile.rows", self.rows, if self.row_lanes { 1 } else { 8 })?;
        check_spelt_out("tile.column_groups", self.column_groups, 8)?;
        check_spelt_out("tile.fours", self.fours, 4)
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
