use super::{BlockMask, RunKind};

/// A [`BlockMask`] as the words that a kernel reads, in three tables, one after another:
///
/// ```text
/// rows_at    2 words per row    [first full run, first partial run], as indices of runs; the partial runs end where the next
///                             row's full ones start, so one closing pair follows the last row
/// runs_at    3 words per run    [first key block, number of blocks, tile]; tile = 2^32 - 1: every pair is kept
/// tiles_at   block_q rows of ceil(block_k / 32) words per tile; bit b of word w of row r: query r keeps key 32 w + b
/// ```
///
/// The row of a block of queries is `batch * batch_stride + head * head_stride + q_block`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedMask {
    /// All three tables.
    pub words: Vec<u32>,
    /// Where the row table starts, in words.
    pub rows_at: u32,
    /// Where the runs start, in words.
    pub runs_at: u32,
    /// Where the tiles start, in words.
    pub tiles_at: u32,
    /// Rows from one batch item to the next, 0 where all share them.
    pub batch_stride: u32,
    /// Rows from one head to the next, 0 where all share them.
    pub head_stride: u32,
}

impl PackedMask {
    /// What stands for a tile in a full run.
    pub const FULL: u32 = u32::MAX;
}

impl BlockMask {
    /// The mask as a kernel reads it.
    pub fn packed(&self) -> PackedMask {
        let inner = &self.inner;
        let mut words = Vec::with_capacity((self.bytes() / 4) as usize);
        words.extend(inner.rows.iter().flatten());
        let runs_at = words.len() as u32;
        words.extend(inner.runs.iter().flat_map(|run| {
            let tile = match run.kind {
                RunKind::Full => PackedMask::FULL,
                RunKind::Tile(tile) => tile,
            };
            [run.first, run.count, tile]
        }));
        let tiles_at = words.len() as u32;
        words.extend_from_slice(&inner.tiles);
        PackedMask {
            words,
            rows_at: 0,
            runs_at,
            tiles_at,
            batch_stride: inner.batch_stride as u32,
            head_stride: inner.head_stride as u32,
        }
    }

    /// Size of the packed form.
    pub fn bytes(&self) -> u64 {
        let words = 2 * self.inner.rows.len() + 3 * self.inner.runs.len() + self.inner.tiles.len();
        4 * words as u64
    }
}
