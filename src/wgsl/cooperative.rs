//! Sizes of a workgroup that multiplies cooperative matrices.

use super::limits::{check_powers, strange_bytes};
use super::{Header, Matrices, TileLimits};
use crate::{Error, Result};
use std::fmt;

/// Where the output's sums of cooperative matrices live while a workgroup walks over the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum MatrixSums {
    /// In the matrices themselves, from tile to tile: what is fast.
    #[default]
    Matrices,
    /// In registers of the lanes, which add up what a matrix holds of one tile: for devices whose compilers lose matrices that
    /// live on in a loop. Each tile's products pass through workgroup memory.
    Lanes,
}

/// Sizes of a workgroup whose subgroups hold the output in cooperative matrices, 2 rows of them by 2 or 4 columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct CooperativeTile {
    /// The device's.
    pub matrices: Matrices,
    /// Subgroups along the queries.
    pub subgroups_r: usize,
    /// Subgroups along the keys, and along the output's columns.
    pub subgroups_c: usize,
    /// A subgroup holds 4 columns of output matrices instead of 2.
    pub wide: bool,
    /// Where the output's sums live.
    #[cfg_attr(feature = "serde", serde(default))]
    pub sums: MatrixSums,
}

/// What a tile of cooperative matrices must hold.
pub(super) struct Needs<'a> {
    /// Its name, for errors.
    pub(super) what: &'static str,
    /// What the blocks of its rows are called.
    pub(super) block: &'static str,
    /// Columns of the sums.
    pub(super) columns: usize,
    /// Keys of a tile at least.
    pub(super) keys: usize,
    /// Bytes of workgroup memory.
    pub(super) bytes: &'a dyn Fn(&CooperativeTile) -> usize,
}

impl CooperativeTile {
    /// Lanes that a workgroup should have.
    const LANES: usize = 128;
    /// Elements between the rows of f16 arrays beyond their length: 16 bytes, so that the rows of a matrix begin in different
    /// banks.
    pub(super) const PAD: usize = 8;

    /// Queries of a workgroup.
    pub const fn rows(&self) -> usize {
        2 * self.matrices.size * self.subgroups_r
    }

    /// Keys of a tile: 16 scores per lane.
    pub const fn keys(&self) -> usize {
        self.matrices.size * self.score_columns() * self.subgroups_c
    }

    /// Lanes of a workgroup.
    pub const fn lanes(&self) -> usize {
        self.matrices.subgroup * self.subgroups_r * self.subgroups_c
    }

    /// Matrices of a subgroup along the keys.
    const fn score_columns(&self) -> usize {
        8 * self.matrices.subgroup / self.matrices.size.pow(2)
    }

    /// Columns of the output that a workgroup holds.
    pub(super) const fn columns(&self) -> usize {
        self.matrices.size * self.subgroups_c * if self.wide { 4 } else { 2 }
    }

    /// Elements of a key, or of a value, in workgroup memory.
    pub(super) fn depth(&self, head_dim: usize) -> usize {
        head_dim.next_multiple_of(self.matrices.size)
    }

    /// Elements from one query, or key, to the next.
    fn d_pitch(&self, head_dim: usize) -> usize {
        self.depth(head_dim) + Self::PAD
    }

    /// Elements from one row of weights, or column of values, to the next: both are as long as a tile has keys.
    pub(super) const fn k_pitch(&self) -> usize {
        self.keys() + Self::PAD
    }

    /// Elements of the array of keys, and of values over them.
    fn staged(&self, head_dim: usize) -> usize {
        (self.keys() * self.d_pitch(head_dim)).max(self.columns() * self.k_pitch())
    }

    /// Floats from one row of scores to the next. Neighbouring lanes read the whole of a row, 4 floats each: the next rows begin
    /// behind theirs.
    fn s_pitch(&self) -> usize {
        self.keys() + (self.keys() / 4).max(4)
    }

    /// Floats of the array of scores, which also holds two matrices per subgroup.
    pub(super) fn products(&self) -> usize {
        let patches = self.subgroups_r * self.subgroups_c * 2 * self.matrices.size.pow(2);
        (self.rows() * self.s_pitch()).max(patches)
    }

    /// Bytes of workgroup memory.
    pub fn workgroup_bytes(&self, head_dim: usize) -> usize {
        let halves = self.rows() * (self.d_pitch(head_dim) + self.k_pitch()) + self.staged(head_dim);
        // Beside the arrays: two numbers a row, and a flag in a vec4.
        2 * halves + 4 * self.products() + 8 * self.rows() + 16 + strange_bytes(self.keys())
    }

    /// The largest that fits.
    pub(super) fn choose(
        head_dim: usize,
        value_dim: usize,
        block_q: usize,
        limits: TileLimits,
        matrices: Matrices,
    ) -> Result<Self> {
        let needs = Needs {
            what: "the smallest attention tile of cooperative matrices",
            block: "block_q",
            columns: value_dim,
            keys: 0,
            bytes: &|tile| tile.workgroup_bytes(head_dim),
        };
        Self::largest(&needs, block_q, limits, matrices)
    }

    /// The largest of at most so many rows that fits.
    pub(super) fn largest(
        needs: &Needs<'_>,
        rows: usize,
        limits: TileLimits,
        matrices: Matrices,
    ) -> Result<Self> {
        matrices.check()?;
        let columns = needs.columns.div_ceil(matrices.size);
        let wide = columns > 4;
        let subgroups_c = columns.div_ceil(if wide { 4 } else { 2 }).next_power_of_two();
        let mut tile = Self { matrices, subgroups_r: 1, subgroups_c, wide, sums: MatrixSums::default() };
        while tile.keys() < needs.keys {
            tile.subgroups_c *= 2;
        }
        if tile.rows() > rows {
            let need = format!("at least {}, the rows of two cooperative matrices", tile.rows());
            return Err(Error::argument(needs.block, need, rows));
        }
        let bytes = |tile: &Self| (needs.bytes)(tile);
        let fits = |tile: &Self| bytes(tile) <= limits.workgroup_bytes && tile.lanes() <= limits.lanes;
        if !fits(&tile) {
            let (bytes, have) = (bytes(&tile), limits.workgroup_bytes);
            let (limit, need, have) = if tile.lanes() > limits.lanes {
                ("max_compute_invocations_per_workgroup", tile.lanes(), limits.lanes)
            } else {
                ("max_compute_workgroup_storage_size", bytes, have)
            };
            return Err(Error::limit(needs.what, limit, need as u64, have as u64));
        }
        loop {
            let more = Self { subgroups_r: 2 * tile.subgroups_r, ..tile };
            if more.rows() > rows || more.lanes() > Self::LANES || !fits(&more) {
                return Ok(tile);
            }
            tile = more;
        }
    }

    /// As [`Tile::check`](super::Tile::check).
    pub(super) fn check(&self, value_dim: usize) -> Result<()> {
        check_powers(&[
            ("tile.matrices.subgroup", self.matrices.subgroup),
            ("tile.subgroups_r", self.subgroups_r),
            ("tile.subgroups_c", self.subgroups_c),
        ])?;
        self.matrices.check()?;
        if self.columns() < value_dim {
            let need = format!("columns for value_dim ({value_dim})");
            return Err(Error::argument("tile.subgroups_c", need, self.columns()));
        }
        Ok(())
    }

    pub(super) fn constants(&self, header: Header, head_dim: usize) -> Header {
        self.shared_constants(header)
            .u32s(&[
                ("DEPTH_GROUPS", self.depth(head_dim) / 4),
                ("COLUMN_GROUPS", self.columns() / 4),
                // In vec4s.
                ("D_PITCH", self.d_pitch(head_dim) / 4),
                ("STAGED", self.staged(head_dim) / 4),
            ])
            .bools(&[("CARRIED", self.sums == MatrixSums::Matrices)])
    }

    /// Those of `lib/matrices.wgsl`.
    pub(super) fn shared_constants(&self, header: Header) -> Header {
        self.matrices
            .declared(header)
            .u32s(&[
                ("LANES_R", self.rows() / 4),
                ("LANES_C", self.keys() / 4),
                ("SUBGROUPS", self.subgroups_r * self.subgroups_c),
                ("SUBGROUPS_C", self.subgroups_c),
                // In vec4s.
                ("K_PITCH", self.k_pitch() / 4),
                ("S_PITCH", self.s_pitch() / 4),
                ("PRODUCTS", self.products() / 4),
            ])
            .bools(&[("WIDE", self.wide), ("S_WIDE", self.score_columns() == 2)])
    }
}

impl fmt::Display for CooperativeTile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sums = if self.sums == MatrixSums::Lanes { " sums-in-lanes" } else { "" };
        write!(f, "{}x{}{sums}", self.matrices.size, self.subgroups_r * self.subgroups_c)
    }
}
