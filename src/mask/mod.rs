//! Block masks: which blocks of keys a block of queries visits, and which pairs inside them it keeps.
//!
//! A [`Pattern`](crate::Pattern) and a [`BlockGrid`] give a [`BlockMask`]. A [`Part`] adds an order of queries and
//! keys to one, and [`Parts`] is what a plan takes: masks whose sets of pairs are disjoint and whose results merge by
//! log-sum-exp.
//!
//! | file | what |
//! |---|---|
//! | `grid.rs` | sizes in blocks |
//! | `build.rs`, `rows.rs` | from a pattern, in closed form or by scan |
//! | `tiles.rs` | bit tiles, stored once each |
//! | `count.rs` | kept and visited pairs |
//! | `distances.rs` | which distances between query and key are kept |
//! | `packed.rs` | the words that a kernel reads |
//! | `transpose.rs` | key block -> query blocks |
//! | `lower.rs` | a pattern's pieces as parts |
//! | `draw.rs`, `svg.rs` | pictures |
//! | `parts.rs` | masks in an order of their own |

use std::sync::Arc;

mod build;
mod count;
mod distances;
mod draw;
mod grid;
mod lower;
mod packed;
mod parts;
mod rows;
mod svg;
mod tiles;
mod transpose;

pub use grid::BlockGrid;
pub use packed::PackedMask;
pub use parts::{Part, Parts};

/// The pairs that a pattern keeps, in blocks: for each block of queries, the runs of key blocks that it visits.
///
/// A run is *full* (every pair of its blocks is kept, no test is needed) or *partial* (a bit tile says which pairs).
/// Runs rather than single blocks keep dense and causal masks small at any length; equal bit tiles are stored once
/// (a causal mask needs one for whole blocks). Built in time proportional to the runs where the pattern has a closed
/// form.
///
/// A short last block: queries past Lq count as attending (so that tiles are equal where they can be, and a block can
/// be full), keys past Lk never do (so that a short last key block is always partial, and no kernel reads past the
/// keys).
///
/// Cheap to clone: the runs are shared.
///
/// ```
/// use wgpu_attention::{Causal, mask::{BlockGrid, BlockMask}};
/// let mask = BlockMask::new(&Causal, BlockGrid::new(256, 256))?;
/// assert_eq!(mask.row(0, 0, 2).full.len(), 1);             // one run of two blocks
/// assert_eq!(mask.row(0, 0, 2).partial.len(), 1);          // the block on the diagonal
/// assert_eq!(mask.kept(), 256 * 257 / 2);
/// assert_eq!(mask.visited(), 10 * 64 * 64);
/// println!("{mask}");
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct BlockMask {
    inner: Arc<Inner>,
}

#[derive(Debug, PartialEq, Eq)]
struct Inner {
    grid: BlockGrid,
    /// Rows from one batch item to the next, 0 where all share them.
    batch_stride: usize,
    /// Rows from one head to the next, 0 where all share them.
    head_stride: usize,
    /// Where each row's full and partial runs start in `runs`, and one closing entry.
    rows: Vec<[u32; 2]>,
    runs: Vec<Run>,
    /// The words of all bit tiles.
    tiles: Vec<u32>,
}

/// Key blocks one after another that are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Run {
    /// The first key block.
    pub first: u32,
    /// The number of key blocks, at least 1.
    pub count: u32,
    /// What each of them is.
    pub kind: RunKind,
}

/// What the blocks of a [`Run`] are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RunKind {
    /// Every pair is kept.
    Full,
    /// The pairs are kept whose bit is set in the [`BlockMask::tile`] of this index.
    Tile(u32),
}

/// What one block of queries visits, in the order in which a kernel walks it: first `full`, then `partial`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row<'a> {
    /// Full runs, ascending.
    pub full: &'a [Run],
    /// Partial runs, ascending.
    pub partial: &'a [Run],
}

impl Run {
    pub(crate) fn blocks(&self) -> std::ops::Range<usize> {
        self.first as usize..(self.first + self.count) as usize
    }
}

impl BlockMask {
    /// The sizes.
    pub fn grid(&self) -> &BlockGrid {
        &self.inner.grid
    }

    /// Rows of the row table from one batch item to the next; 0 where all share their rows.
    pub fn batch_stride(&self) -> usize {
        self.inner.batch_stride
    }

    /// Rows of the row table from one head to the next; 0 where all share their rows.
    pub fn head_stride(&self) -> usize {
        self.inner.head_stride
    }

    /// What a block of queries visits. Empty for an index past the grid.
    pub fn row(&self, batch: usize, head: usize, q_block: usize) -> Row<'_> {
        let grid = self.grid();
        if batch >= grid.batch || head >= grid.heads || q_block >= grid.q_blocks() {
            return Row { full: &[], partial: &[] };
        }
        self.stored_row(batch * self.inner.batch_stride + head * self.inner.head_stride + q_block)
    }

    /// A row by its index in the row table.
    fn stored_row(&self, index: usize) -> Row<'_> {
        let [full, partial] = self.inner.rows[index].map(|at| at as usize);
        let end = self.inner.rows[index + 1][0] as usize;
        Row { full: &self.inner.runs[full..partial], partial: &self.inner.runs[partial..end] }
    }

    /// Rows that are stored: shared ones count once.
    fn stored_rows(&self) -> usize {
        self.inner.rows.len() - 1
    }

    /// The number of distinct bit tiles.
    pub fn tiles(&self) -> usize {
        self.inner.tiles.len() / self.grid().tile_words()
    }

    /// The words of a bit tile: `block_q` rows of `block_k / 32` words, rounded up. Bit b of word w of row r is set
    /// where query r of the block keeps key 32 w + b of the block. Empty for an index past [`tiles`](Self::tiles).
    pub fn tile(&self, index: u32) -> &[u32] {
        let size = self.grid().tile_words();
        self.inner.tiles.chunks_exact(size).nth(index as usize).unwrap_or(&[])
    }

    /// Whether query `i` keeps key `j`. `false` for an index past the grid.
    pub fn keeps(&self, batch: usize, head: usize, i: usize, j: usize) -> bool {
        let grid = self.grid();
        if i >= grid.q_len || j >= grid.kv_len {
            return false;
        }
        let row = self.row(batch, head, i / grid.block_q);
        let block = j / grid.block_k;
        if find(row.full, block).is_some() {
            return true;
        }
        match find(row.partial, block).map(|run| run.kind) {
            Some(RunKind::Tile(tile)) => {
                let word = i % grid.block_q * grid.row_words() + j % grid.block_k / 32;
                self.tile(tile)[word] >> (j % grid.block_k % 32) & 1 == 1
            }
            _ => false,
        }
    }

    /// The keys that query `i` keeps, in the order in which a kernel walks them: those of the full runs, then those
    /// of the partial ones. Empty for an index past the grid.
    pub fn key_order(&self, batch: usize, head: usize, i: usize) -> Vec<u32> {
        let grid = self.grid();
        if i >= grid.q_len {
            return Vec::new();
        }
        let row = self.row(batch, head, i / grid.block_q);
        let full = row.full.iter().flat_map(Run::blocks).flat_map(|block| grid.keys(block));
        let partial = row.partial.iter().flat_map(move |run| {
            let bits = match run.kind {
                RunKind::Tile(tile) => {
                    &self.tile(tile)[i % grid.block_q * grid.row_words()..][..grid.row_words()]
                }
                RunKind::Full => &[],
            };
            run.blocks().flat_map(move |block| {
                let keys = grid.keys(block);
                keys.filter(move |j| bits[j % grid.block_k / 32] >> (j % grid.block_k % 32) & 1 == 1)
            })
        });
        full.chain(partial).map(|j| j as u32).collect()
    }
}

/// The run that holds a block, in ascending runs.
fn find(runs: &[Run], block: usize) -> Option<&Run> {
    let after = runs.partition_point(|run| run.first as usize <= block);
    runs[..after].last().filter(|run| run.blocks().contains(&block))
}
