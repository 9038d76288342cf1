//! The rows that all ranks get, as the ranks agree on them.

use super::time::{Handed, blocks};
use crate::Attention;
use crate::mask::{BlockGrid, BlockMask};
use crate::ranks::touched::{Touched, sites};
use crate::ranks::{Assignment, HandOn, Sharing, stretches};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::atomic::{AtomicI32, Ordering};

/// Rows that all ranks get, by the rank that holds them.
pub(super) struct Common {
    /// Blocks of queries, ascending.
    pub(super) q_blocks: Vec<Vec<usize>>,
    /// How many queries they are.
    pub(super) queries: Vec<u64>,
    /// How many keys.
    pub(super) keys: Vec<u64>,
    /// The blocks of keys of all ranks, as ascending runs.
    k_blocks: Vec<Range<usize>>,
}

impl Common {
    pub(super) fn none(ranks: usize) -> Self {
        Self {
            q_blocks: vec![vec![]; ranks],
            queries: vec![0; ranks],
            keys: vec![0; ranks],
            k_blocks: vec![],
        }
    }

    pub(super) fn new(attention: &Attention, mask: &BlockMask, [queries, keys]: [&Assignment; 2]) -> Self {
        let (grid, ranks) = (mask.grid(), queries.ranks());
        let (sharing, longer) = (Sharing::new(attention, ranks), grid.q_len.max(grid.kv_len));
        let own = |rank: usize| blocks(queries.rows(rank), grid.block_q);
        let mut common = Self::none(ranks);
        let chosen = |rank| sharing.blocks(mask, &own(rank).collect::<Vec<_>>(), keys.rows(rank));
        let offers: Vec<(Vec<usize>, u64)> = (0..ranks).into_par_iter().map(chosen).collect();
        let rows = |(blocks, _): &(Vec<usize>, u64)| {
            let rows = blocks.iter().map(|block| grid.block_q.min(grid.q_len - block * grid.block_q) as u64);
            rows.sum::<u64>()
        };
        let count: Vec<u64> = offers.iter().map(rows).collect();
        let saved = offers.iter().map(|(_, saved)| *saved).max().unwrap_or(0);
        if sharing.take(count.iter().sum::<u64>() as usize, saved, longer) {
            (common.q_blocks, common.queries) = (offers.into_iter().map(|it| it.0).collect(), count);
        }
        // Nothing is asked for often enough.
        if !sharing.asked_for(ranks - 1) {
            return common;
        }
        let staying = |rank: usize| {
            let travelling = &common.q_blocks[rank];
            own(rank).filter(move |block| travelling.binary_search(block).is_err())
        };
        let asking = asking(mask, keys, staying);
        let k_blocks = stretches::joined(
            asking
                .iter()
                .enumerate()
                .filter(|(_, by)| sharing.asked_for(**by))
                .map(|(block, _)| block..block + 1),
        );
        let rows: Vec<_> = k_blocks
            .iter()
            .map(|run| run.start * grid.block_k..(run.end * grid.block_k).min(grid.kv_len))
            .collect();
        if sharing.few(stretches::count(&rows), longer) {
            let of = |rank| stretches::count(&stretches::places(keys.rows(rank), &rows)) as u64;
            (common.keys, common.k_blocks) = ((0..ranks).map(of).collect(), k_blocks);
        }
        common
    }

    pub(super) fn is_empty(&self) -> bool {
        self.k_blocks.is_empty() && self.queries.iter().all(|&rows| rows == 0)
    }

    /// The keys of all ranks in stretches of which all or no ranks get all: the first block, the holder, whether all get it.
    pub(super) fn stretches(&self, keys: &Assignment, grid: &BlockGrid) -> Vec<(usize, u32, bool)> {
        let mut all = vec![];
        for rank in 0..keys.ranks() {
            for rows in keys.rows(rank) {
                let own = rows.start / grid.block_k..rows.end.div_ceil(grid.block_k);
                let left = stretches::without(std::slice::from_ref(&own), &self.k_blocks);
                let common = stretches::without(std::slice::from_ref(&own), &left);
                all.extend(left.iter().map(|run| (run.start, rank as u32, false)));
                all.extend(common.iter().map(|run| (run.start, rank as u32, true)));
            }
        }
        all.sort_unstable();
        all
    }

    /// What a rank sends and gets of them in each round.
    pub(super) fn handed(&self, rank: usize) -> Vec<Handed> {
        let ranks = self.queries.len();
        let rows = |owners: &mut dyn Iterator<Item = usize>| {
            owners.fold([0; 2], |[queries, keys], owner| {
                [queries + self.queries[owner], keys + self.keys[owner]]
            })
        };
        HandOn::rounds(rank, ranks)
            .map(|it| Handed { sent: rows(&mut it.sent(ranks)), received: rows(&mut it.received(ranks)) })
            .collect()
    }
}

/// How many ranks need each block of keys of another.
fn asking<I: Iterator<Item = usize>>(
    mask: &BlockMask,
    keys: &Assignment,
    staying: impl Fn(usize) -> I + Sync,
) -> Vec<usize> {
    let grid = mask.grid();
    // By how many more than the block before.
    let more: Vec<AtomicI32> = (0..=grid.k_blocks()).map(|_| AtomicI32::new(0)).collect();
    (0..keys.ranks()).into_par_iter().for_each(|rank| {
        let mut touched = Touched::new(grid.k_blocks());
        for q_block in staying(rank) {
            for [batch, head] in sites(mask) {
                let row = mask.row(batch, head, q_block);
                row.full.iter().chain(row.partial).for_each(|run| touched.add(run.blocks()));
            }
        }
        touched.settle();
        let own: Vec<_> = keys
            .rows(rank)
            .iter()
            .map(|rows| rows.start / grid.block_k..rows.end.div_ceil(grid.block_k))
            .collect();
        for run in stretches::without(&touched.runs(), &own) {
            more[run.start].fetch_add(1, Ordering::Relaxed);
            more[run.end].fetch_sub(1, Ordering::Relaxed);
        }
    });
    let mut by = 0;
    let blocks = more.into_iter().take(grid.k_blocks());
    blocks
        .map(|more| {
            by += more.into_inner();
            by as usize
        })
        .collect()
}
