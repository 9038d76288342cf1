//! What the queries of one rank meet in the keys of every other, counted from runs of blocks: never pair by pair.

use crate::mask::{BlockMask, Row, Run, RunKind};
use crate::ranks::touched::{Touched, sites};
use std::ops::Range;

/// What the queries of a rank meet in one stretch of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Met {
    /// Attended pairs, over all batch items and heads.
    pub(super) kept: u64,
    /// Blocks that a kernel computes, over all batch items and heads.
    pub(super) visited: u64,
    /// Keys in blocks that any of the queries visits, each counted once.
    pub(super) keys: u64,
}

impl Met {
    pub(super) fn add(&mut self, other: Self) {
        self.kept += other.kept;
        self.visited += other.visited;
        self.keys += other.keys;
    }
}

/// A mask whose keys are cut into stretches of whole blocks, one after another.
///
/// A run that passes over whole stretches is not walked through: it changes how much every block from here on counts, and
/// changes it back where it ends. So a rank costs its runs and the number of stretches, however long the runs are.
pub(super) struct Meetings<'a> {
    mask: &'a BlockMask,
    /// The first key block of each stretch, and one closing entry.
    starts: Vec<usize>,
    /// The stretch of each key block.
    stretch_of: Vec<u32>,
    /// Set bits of each tile.
    bits: Vec<u64>,
    /// Batch items and heads whose rows are stored, and how many share each.
    sites: Vec<[usize; 2]>,
    sharers: u64,
}

impl<'a> Meetings<'a> {
    /// `starts`: the first key block of each stretch, ascending from 0, and the number of blocks at the end.
    pub(super) fn new(mask: &'a BlockMask, starts: Vec<usize>) -> Self {
        let grid = mask.grid();
        debug_assert!(
            starts.first() == Some(&0) && starts.last() == Some(&grid.k_blocks()) && starts.is_sorted()
        );
        let lens = starts.windows(2).map(|ends| ends[1] - ends[0]).enumerate();
        let stretch_of = lens.flat_map(|(stretch, len)| std::iter::repeat_n(stretch as u32, len)).collect();
        let bits = (0..mask.tiles() as u32).map(|tile| ones(mask.tile(tile))).collect();
        let sites: Vec<_> = sites(mask).collect();
        let sharers = (grid.batch * grid.heads / sites.len().max(1)) as u64;
        Self { mask, starts, stretch_of, bits, sites, sharers }
    }

    /// What these blocks of queries meet in each stretch.
    pub(super) fn of(&self, q_blocks: impl Iterator<Item = usize> + Clone) -> Vec<Met> {
        let mut sums = Sums::new(self);
        for &[batch, head] in &self.sites {
            for q_block in q_blocks.clone() {
                let Row { full, partial } = self.mask.row(batch, head, q_block);
                full.iter().chain(partial).for_each(|run| sums.add(run, self.kept(run, q_block)));
            }
        }
        sums.finish()
    }

    /// Attended pairs of each block of a run.
    fn kept(&self, run: &Run, q_block: usize) -> u64 {
        let grid = self.mask.grid();
        let queries = grid.block_q.min(grid.q_len - q_block * grid.block_q);
        match run.kind {
            RunKind::Full => (queries * grid.block_k) as u64,
            RunKind::Tile(tile) if queries == grid.block_q => self.bits[tile as usize],
            // The rows past the last query are set.
            RunKind::Tile(tile) => {
                let words = self.mask.tile(tile);
                ones(&words[..queries * (words.len() / grid.block_q)])
            }
        }
    }

    /// Keys of the blocks among `blocks` that are touched; the very last one may be short.
    fn keys(&self, touched: &Touched, blocks: Range<usize>) -> u64 {
        let grid = self.mask.grid();
        let has_last = blocks.end == grid.k_blocks() && touched.count_of(blocks.end - 1..blocks.end) == 1;
        let missing = if has_last { grid.k_blocks() * grid.block_k - grid.kv_len } else { 0 };
        touched.count_of(blocks) * grid.block_k as u64 - missing as u64
    }
}

fn ones(words: &[u32]) -> u64 {
    words.iter().map(|word| u64::from(word.count_ones())).sum()
}

/// What has been added up for one rank.
struct Sums<'a> {
    of: &'a Meetings<'a>,
    /// [visited, kept] of runs that start or end within a stretch.
    parts: Vec<[u64; 2]>,
    /// By how much a block from this stretch on counts more than one before it; wraps below 0.
    changes: Vec<[u64; 2]>,
    touched: Touched,
}

impl<'a> Sums<'a> {
    fn new(of: &'a Meetings<'a>) -> Self {
        let stretches = of.starts.len();
        let touched = Touched::new(of.stretch_of.len());
        Self { of, parts: vec![[0; 2]; stretches], changes: vec![[0; 2]; stretches], touched }
    }

    fn add(&mut self, run: &Run, kept: u64) {
        let blocks = run.blocks();
        let [first, last] = [blocks.start, blocks.end - 1].map(|block| self.of.stretch_of[block] as usize);
        let starts = &self.of.starts;
        let each = [1, kept];
        let mut part = |stretch: usize, blocks: usize| {
            let sums = self.parts[stretch].iter_mut().zip(each);
            sums.for_each(|(sum, each)| *sum += blocks as u64 * each);
        };
        if first == last {
            part(first, blocks.len());
        } else {
            part(first, starts[first + 1] - blocks.start);
            part(last, blocks.end - starts[last]);
            for (n, each) in each.into_iter().enumerate() {
                let (on, off) = (first + 1, last);
                self.changes[on][n] = self.changes[on][n].wrapping_add(each);
                self.changes[off][n] = self.changes[off][n].wrapping_sub(each);
            }
        }
        self.touched.add(blocks);
    }

    fn finish(mut self) -> Vec<Met> {
        let starts = &self.of.starts;
        let mut rate = [0u64; 2];
        let mut met: Vec<Met> = Vec::with_capacity(starts.len());
        for (stretch, ends) in starts.windows(2).enumerate() {
            let blocks = (ends[1] - ends[0]) as u64;
            let mut sums = [0; 2];
            for n in 0..2 {
                rate[n] = rate[n].wrapping_add(self.changes[stretch][n]);
                sums[n] = self.of.sharers * (self.parts[stretch][n] + rate[n] * blocks);
            }
            met.push(Met { visited: sums[0], kept: sums[1], keys: 0 });
        }
        self.touched.settle();
        for (met, ends) in met.iter_mut().zip(starts.windows(2)) {
            met.keys = self.of.keys(&self.touched, ends[0]..ends[1]);
        }
        met
    }
}
