//! Sizes of a workgroup of the gradients that multiplies cooperative matrices, `backward/cooperative.wgsl`, and what lies where in its memory.

use super::super::cooperative::Needs;
use super::super::{CooperativeTile, Header, Matrices, MatrixSums, TileLimits};
use super::BackwardRows;
use crate::Result;

/// The workgroup memory of a pass.
#[derive(Debug, Clone, Copy)]
pub(in crate::wgsl) struct PassMemory {
    pub(super) tile: CooperativeTile,
    pub(super) rows: BackwardRows,
    pub(super) head_dim: usize,
    pub(super) value_dim: usize,
}

/// Where the areas of `halves` begin, and its length, in vec4s.
struct Areas {
    own_heads: usize,
    own_values: usize,
    heads: usize,
    values: usize,
    p: usize,
    ds: usize,
    len: usize,
}

impl PassMemory {
    /// Columns of a tile at least: what the bound of the gradients takes for a tile.
    const LEAST_COLUMNS: usize = 16;

    /// The largest tile that fits, of at most so many rows.
    pub(super) fn choose(
        rows: BackwardRows,
        [head_dim, value_dim]: [usize; 2],
        most_rows: usize,
        limits: TileLimits,
        matrices: Matrices,
    ) -> Result<CooperativeTile> {
        let needs = Needs {
            what: "the smallest tile of gradients of cooperative matrices",
            block: if matches!(rows, BackwardRows::Keys { .. }) { "block_k" } else { "block_q" },
            columns: rows.width([head_dim, value_dim]),
            keys: Self::LEAST_COLUMNS,
            bytes: &|tile| Self { tile: *tile, rows, head_dim, value_dim }.bytes(),
        };
        let tile = CooperativeTile::largest(&needs, most_rows, limits, matrices)?;
        Ok(CooperativeTile { sums: MatrixSums::Lanes, ..tile })
    }

    /// Elements of a row, or of a column, of either tensor: as many as matrices of the products and of the sums want.
    fn width(&self) -> usize {
        self.tile.depth(self.head_dim.max(self.value_dim)).max(self.tile.columns())
    }

    /// Elements from one of them to the next.
    fn pitch(&self) -> usize {
        self.width() + CooperativeTile::PAD
    }

    fn areas(&self) -> Areas {
        let [dq, dk, dv] = self.rows.has();
        let (pitch, weights) = (self.pitch() / 4, self.tile.rows() * self.tile.k_pitch() / 4);
        let (rows, columns) = (self.tile.rows() * pitch, self.tile.keys() * pitch);
        let mut len = 0;
        let mut next = |there: bool, size: usize| {
            let begin = len;
            len += if there { size } else { 0 };
            begin
        };
        Areas {
            own_heads: next(true, rows),
            own_values: next(self.rows.has_slopes(), rows),
            heads: next(true, columns),
            values: next(true, columns),
            p: next(dv, weights),
            ds: next(dq || dk, weights),
            len,
        }
    }

    /// Bytes of workgroup memory: beside the arrays, two factors per row.
    pub(in crate::wgsl) fn bytes(&self) -> usize {
        8 * self.areas().len + 4 * self.tile.products() + 8 * self.tile.rows()
    }

    pub(super) fn constants(&self, header: Header) -> Header {
        let (tile, areas) = (&self.tile, self.areas());
        tile.shared_constants(header).u32s(&[
            ("HEAD_DEPTH", tile.depth(self.head_dim) / 4),
            ("VALUE_DEPTH", tile.depth(self.value_dim) / 4),
            // In vec4s.
            ("WIDTH", self.width() / 4),
            ("PITCH", self.pitch() / 4),
            ("OWN_HEADS_AT", areas.own_heads),
            ("OWN_VALUES_AT", areas.own_values),
            ("HEADS_AT", areas.heads),
            ("VALUES_AT", areas.values),
            ("P_AT", areas.p),
            ("DS_AT", areas.ds),
            ("HALVES", areas.len),
        ])
    }
}
