//! The mask as text.

use super::{BlockMask, RunKind};
use std::fmt;

/// What a cell of a picture shows: one block, or a square of blocks of a large mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cell {
    /// Every block is full.
    Full,
    /// Anything between.
    Partial,
    /// No block is visited.
    Empty,
}

/// One site's blocks, a square of `scale` by `scale` of them a cell.
pub(super) struct Cells {
    pub(super) scale: usize,
    pub(super) columns: usize,
    pub(super) cells: Vec<Cell>,
}

impl BlockMask {
    /// The blocks of one head in at most `most` by `most` cells, in time proportional to the runs.
    pub(super) fn cells(&self, batch: usize, head: usize, most: usize) -> Cells {
        let (q_blocks, k_blocks) = (self.grid().q_blocks(), self.grid().k_blocks());
        let scale = q_blocks.max(k_blocks).div_ceil(most).max(1);
        let columns = k_blocks.div_ceil(scale);
        let mut cells = Vec::new();
        for first in (0..q_blocks).step_by(scale) {
            let rows = first..(first + scale).min(q_blocks);
            let mut full = vec![0; columns];
            let mut partial = vec![false; columns];
            for q_block in rows.clone() {
                let row = self.row(batch, head, q_block);
                for run in row.full.iter().chain(row.partial) {
                    let blocks = run.blocks();
                    for cell in blocks.start / scale..blocks.end.div_ceil(scale) {
                        match run.kind {
                            RunKind::Tile(_) => partial[cell] = true,
                            RunKind::Full => {
                                let end = blocks.end.min((cell + 1) * scale);
                                full[cell] += end - blocks.start.max(cell * scale);
                            }
                        }
                    }
                }
            }
            cells.extend((0..columns).map(|cell| {
                let area = rows.len() * (k_blocks.min((cell + 1) * scale) - cell * scale);
                match (full[cell], partial[cell]) {
                    (0, false) => Cell::Empty,
                    (blocks, _) if blocks == area => Cell::Full,
                    _ => Cell::Partial,
                }
            }));
        }
        Cells { scale, columns, cells }
    }

    /// One head pair by pair, a line per query: `█` is kept, `·` is not. For small masks: q_len kv_len characters.
    ///
    /// ```
    /// use wgpu_attention::{Causal, mask::{BlockGrid, BlockMask}};
    /// let mask = BlockMask::new(&Causal, BlockGrid::new(3, 5))?;
    /// assert_eq!(mask.pairs(0, 0), "███··\n████·\n█████\n");
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    pub fn pairs(&self, batch: usize, head: usize) -> String {
        let grid = self.grid();
        let mut text = String::new();
        for i in 0..grid.q_len {
            text.extend((0..grid.kv_len).map(|j| if self.keeps(batch, head, i, j) { '█' } else { '·' }));
            text.push('\n');
        }
        text
    }

    /// The sites whose rows are stored: one, or one per batch item and head that may differ.
    pub(super) fn stored_sites(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let axis = |stride: usize, size: usize| if stride == 0 { size.min(1) } else { size };
        let heads = axis(self.head_stride(), self.grid().heads);
        (0..axis(self.batch_stride(), self.grid().batch))
            .flat_map(move |batch| (0..heads).map(move |head| (batch, head)))
    }

    /// Sizes and counts in one line.
    pub(super) fn summary(&self) -> String {
        let g = self.grid();
        format!(
            "[{}, {}, {}, {}] in blocks of {} x {}: {} pairs kept, {} visited (x {:.2}), {} bytes",
            g.batch,
            g.heads,
            g.q_len,
            g.kv_len,
            g.block_q,
            g.block_k,
            self.kept(),
            self.visited(),
            self.waste(),
            self.bytes(),
        )
    }
}

/// Cells across, at most: with some room in a terminal of 80 columns.
const WIDTH: usize = 72;
/// Heads that are drawn, at most.
const SITES: usize = 4;

impl fmt::Display for BlockMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.summary())?;
        let count = self.stored_sites().count();
        for (batch, head) in self.stored_sites().take(SITES) {
            let Cells { scale, columns, cells } = self.cells(batch, head, WIDTH);
            if count > 1 {
                write!(f, "batch item {batch}, head {head}: ")?;
            }
            write!(f, "█ full  ▒ partial  · empty")?;
            match scale {
                1 => writeln!(f)?,
                _ => writeln!(f, "  (a cell is {scale} x {scale} blocks)")?,
            }
            for row in cells.chunks(columns.max(1)) {
                let text: String = row.iter().map(|cell| cell.symbol()).collect();
                writeln!(f, "{text}")?;
            }
        }
        match count.saturating_sub(SITES) {
            0 => Ok(()),
            more => writeln!(f, "and {more} more"),
        }
    }
}

impl Cell {
    fn symbol(self) -> char {
        match self {
            Self::Full => '█',
            Self::Partial => '▒',
            Self::Empty => '·',
        }
    }
}

impl fmt::Debug for BlockMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockMask")
            .field("grid", self.grid())
            .field("rows", &self.stored_rows())
            .field("runs", &self.inner.runs.len())
            .field("tiles", &self.tiles())
            .finish()
    }
}
