//! Which keys a rank needs of whom.

use super::touched::{Touched, sites};
use super::{Assignment, stretches};
use crate::mask::{BlockGrid, BlockMask};
use crate::pattern::{Excerpt, Extent, Pattern};
use crate::{Error, Result};
use std::ops::Range;

/// The keys that the queries of one rank attend, by the rank that holds them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Needs {
    rank: usize,
    from: Vec<Vec<Range<usize>>>,
}

impl Needs {
    /// The rank whose needs these are.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The keys that are needed of a rank, as ascending stretches of positions that do not touch; those of the rank
    /// itself are the ones that it need not ask for.
    pub fn from(&self, owner: usize) -> &[Range<usize>] {
        self.from.get(owner).map_or(&[], Vec::as_slice)
    }

    /// The number of keys that are needed of a rank.
    pub fn keys(&self, owner: usize) -> usize {
        self.from(owner).iter().map(Range::len).sum()
    }

    /// Without keys that come in another way.
    pub fn without(&self, keys: &[Range<usize>]) -> Self {
        Self { rank: self.rank, from: self.from.iter().map(|from| stretches::without(from, keys)).collect() }
    }

    /// The number of keys that are needed of all others.
    pub fn foreign(&self) -> usize {
        (0..self.from.len()).filter(|&owner| owner != self.rank).map(|owner| self.keys(owner)).sum()
    }
}

/// The keys that the queries of `rank` attend in any head of any batch item, in whole blocks of `block` keys (a block may belong to
/// two owners: each gives its part). Costs what the block mask of the rank's own queries costs.
///
/// ```
/// use wgpu_attention::{Extent, Window, ranks::{Assignment, needs}};
/// let extent = Extent { batch: 1, heads: 1, q_len: 4096, kv_len: 4096 };
/// let rows = Assignment::contiguous(4096, 64, 4)?;
/// let needs = needs(&Window { before: 100, after: 0 }, extent, [&rows, &rows], 2, 64)?;
/// assert_eq!(needs.from(1), [1920..2048]);                        // the neighbour's last two blocks
/// assert_eq!((needs.keys(0), needs.keys(2), needs.keys(3)), (0, 1024, 0));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
///
/// # Errors
/// [`Error::Argument`] for a block size that is no power of two from 16 to 256, for assignments (of queries, of keys) that do
/// not fit the lengths or each other, and for a rank that is not there; and as [`BlockMask::new`].
pub fn needs(
    pattern: &dyn Pattern,
    extent: Extent,
    [queries, keys]: [&Assignment; 2],
    rank: usize,
    block: usize,
) -> Result<Needs> {
    check(&extent, [queries, keys], rank)?;
    needs_of(pattern, extent, queries.rows(rank), keys, rank, block)
}

/// The same of some of the rank's queries, as ascending stretches of positions.
///
/// # Errors
/// As [`needs`], but for assignments, of which that of the keys has to fit.
pub fn needs_of(
    pattern: &dyn Pattern,
    extent: Extent,
    queries: &[Range<usize>],
    keys: &Assignment,
    rank: usize,
    block: usize,
) -> Result<Needs> {
    let mask = mask_of(pattern, extent, queries, block)?;
    let touched = touched(&mask);
    let from = (0..keys.ranks()).map(|owner| meet(&touched, keys.rows(owner), block));
    Ok(Needs { rank, from: from.collect() })
}

/// The blocks of these queries over all keys.
pub(super) fn mask_of(
    pattern: &dyn Pattern,
    extent: Extent,
    queries: &[Range<usize>],
    block: usize,
) -> Result<BlockMask> {
    if !(16..=256).contains(&block) || !block.is_power_of_two() {
        return Err(Error::argument("block", "a power of two from 16 to 256", block));
    }
    let all = 0..extent.kv_len;
    let own = Excerpt::new(pattern, extent, queries, std::slice::from_ref(&all))?;
    let Extent { batch, heads, q_len, kv_len } = own.extent();
    BlockMask::new(&own, BlockGrid::new(q_len, kv_len).batch(batch).heads(heads).blocks(block.min(64), block))
}

pub(super) fn check(extent: &Extent, [queries, keys]: [&Assignment; 2], rank: usize) -> Result<()> {
    let sides = [("queries", queries, "q_len", extent.q_len), ("keys", keys, "kv_len", extent.kv_len)];
    for (name, rows, of, len) in sides {
        if rows.len() != len {
            return Err(Error::argument(name, format!("an assignment of {of} ({len}) rows"), rows.len()));
        }
    }
    if queries.ranks() != keys.ranks() {
        return Err(Error::argument("keys", format!("{} ranks, as queries", queries.ranks()), keys.ranks()));
    }
    match rank < queries.ranks() {
        true => Ok(()),
        false => Err(Error::argument("rank", format!("below the {} ranks", queries.ranks()), rank)),
    }
}

/// The key blocks of which any query keeps a pair.
fn touched(mask: &BlockMask) -> Touched {
    let mut touched = Touched::new(mask.grid().k_blocks());
    for [batch, head] in sites(mask) {
        for q_block in 0..mask.grid().q_blocks() {
            let row = mask.row(batch, head, q_block);
            row.full.iter().chain(row.partial).for_each(|run| touched.add(run.blocks()));
        }
    }
    touched.settle();
    touched
}

/// The rows within the blocks that are touched.
fn meet(touched: &Touched, rows: &[Range<usize>], block: usize) -> Vec<Range<usize>> {
    let met = rows.iter().flat_map(|stretch| {
        let runs = touched.runs_of(stretch.start / block..stretch.end.div_ceil(block));
        runs.into_iter().map(|run| (run.start * block).max(stretch.start)..(run.end * block).min(stretch.end))
    });
    stretches::joined(met)
}
