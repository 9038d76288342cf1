use super::{BlockMask, RunKind};

impl BlockMask {
    /// Pairs that are kept, over all batch items and heads. Counted from runs and bits, never pair by pair.
    pub fn kept(&self) -> u64 {
        self.sharers() * self.kept_in(0..self.stored_rows())
    }

    /// Kept and visited pairs of one head, over all batch items.
    #[cfg(feature = "gpu")]
    pub(crate) fn pairs_of_head(&self, head: usize) -> (u64, u64) {
        let grid = self.grid();
        let (batch_stride, head_stride) = (self.inner.batch_stride, self.inner.head_stride);
        let (items, sharers) =
            if batch_stride == 0 { (grid.batch.min(1), grid.batch) } else { (grid.batch, 1) };
        let first = |item| item * batch_stride + head * head_stride;
        let rows = || (0..items).flat_map(|item| first(item)..first(item) + grid.q_blocks());
        let runs = rows().flat_map(|index| {
            let row = self.stored_row(index);
            row.full.iter().chain(row.partial)
        });
        let blocks: u64 = runs.map(|run| u64::from(run.count)).sum();
        let visited = blocks * (grid.block_q * grid.block_k) as u64;
        (sharers as u64 * self.kept_in(rows()), sharers as u64 * visited)
    }

    /// Pairs that these stored rows keep.
    fn kept_in(&self, rows: impl Iterator<Item = usize>) -> u64 {
        let grid = self.grid();
        let (q_blocks, row_words) = (grid.q_blocks().max(1), grid.row_words());
        let bits = |words: &[u32]| words.iter().map(|word| u64::from(word.count_ones())).sum::<u64>();
        let whole: Vec<u64> = self.inner.tiles.chunks_exact(grid.tile_words()).map(bits).collect();
        let row = |index: usize| {
            let queries = grid.queries(index % q_blocks).len();
            let (row, whole) = (self.stored_row(index), &whole);
            row.full.iter().chain(row.partial).map(move |run| {
                let block = match run.kind {
                    RunKind::Full => (queries * grid.block_k) as u64,
                    RunKind::Tile(tile) if queries == grid.block_q => whole[tile as usize],
                    RunKind::Tile(tile) => bits(&self.tile(tile)[..queries * row_words]),
                };
                u64::from(run.count) * block
            })
        };
        rows.flat_map(row).sum::<u64>()
    }

    /// Pairs of the blocks that are visited, over all batch items and heads: a block counts with its whole area, also
    /// where it is short, as a kernel computes all of it.
    pub fn visited(&self) -> u64 {
        let blocks: u64 = self.inner.runs.iter().map(|run| u64::from(run.count)).sum();
        self.sharers() * blocks * (self.grid().block_q * self.grid().block_k) as u64
    }

    /// Visited pairs per kept pair: 1 is no waste. 1 where nothing is kept.
    pub fn waste(&self) -> f64 {
        waste(self.visited(), self.kept())
    }

    /// Sites that share each stored row.
    fn sharers(&self) -> u64 {
        let axis = |stride: usize, size: usize| if stride == 0 { size as u64 } else { 1 };
        axis(self.inner.batch_stride, self.grid().batch) * axis(self.inner.head_stride, self.grid().heads)
    }
}

/// Visited pairs per kept pair.
pub(super) fn waste(visited: u64, kept: u64) -> f64 {
    if visited == 0 { 1.0 } else { visited as f64 / kept as f64 }
}
