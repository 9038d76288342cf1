//! Which rows all ranks get: queries that meet so many keys that they had better travel themselves, and keys that all ranks ask for.

use super::needs::{check, mask_of};
use super::row_bytes::{Pass, RowBytes};
use super::touched::{Touched, sites};
use super::{Assignment, HandOn, stretches};
use crate::mask::{BlockGrid, BlockMask, Row, Run};
use crate::pattern::{Extent, Pattern};
use crate::{Attention, Error, Result};
use std::ops::Range;

/// What decides which rows all ranks get: the same on all of them, as it follows from the call alone.
///
/// **Queries.** A few rows that attend nearly everything (global tokens) draw all keys to their rank. Instead they go to all ranks, each
/// of which attends with them to its own keys, and the states (m, l, out) merge on the way back. What counts is what goes through the busiest
/// rank in a forward and a backward pass together. Of a rank's blocks of queries, in the order of the keys that they need of others, the
/// first p are [offered](Self::offer) for which
///
/// ```text
/// bytes of the keys that the others of the rank need + 4 x bytes of the p blocks to and fro x rounds of the tree
/// ```
///
/// are fewest: a byte of queries counts as four of keys, as it makes no use of what the rank holds. They are [taken](Self::take) where all that
/// are offered are, by the same measure, less than the keys which the rank with most of them saves.
///
/// **Keys.** Keys that at least 7 of 8 ranks ask for, and more than the rounds of [`HandOn`], are handed on along its tree, so
/// that their owner does not send them to each.
///
/// **Neither**, where all ranks together would share more rows than half of what one of them holds: there each rank would need memory for
/// them all the time, and everyone has enough to send for the order of a ring to be as good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sharing {
    ranks: usize,
    /// Bytes of a query in both passes, to and fro, and of a key.
    query: u64,
    key: u64,
}

/// Queries that a rank would let travel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Offer {
    /// As ascending stretches of positions.
    pub queries: Vec<Range<usize>>,
    /// How many keys less the rank needs of others without them, in whole blocks.
    pub saved: u64,
}

/// How many bytes of keys a byte of queries has to save.
const MARGIN: u64 = 4;

impl Sharing {
    /// What decides for a call over this many ranks.
    pub fn new(attention: &Attention, ranks: usize) -> Self {
        let of = |bytes: fn(RowBytes) -> u64| {
            [Pass::Forward, Pass::Backward].map(|pass| bytes(RowBytes::new(attention, pass))).iter().sum()
        };
        Self { ranks, query: of(|it| it.query + it.query_back), key: of(|it| it.key + it.key_back) }
    }

    /// The queries of a rank that had better travel: chosen in blocks of at most 64 rows. Costs what the block mask of the rank's own
    /// queries costs.
    ///
    /// ```
    /// use wgpu_attention::ranks::{Assignment, Sharing};
    /// use wgpu_attention::{AttentionShape, BigBird};
    /// let shape = AttentionShape::new(1, 1, 8192, 64);
    /// let rows = Assignment::contiguous(8192, 64, 8)?;
    /// let bigbird = BigBird { block: 64, window: 3, global: 1, random: 1, seed: 7 };
    /// let sharing = Sharing::new(&shape.into(), 8);
    /// let of = |rank| sharing.offer(&bigbird, shape.extent(), [&rows, &rows], rank, 64);
    /// assert_eq!((of(0)?.queries, of(3)?.queries), (vec![0..64], vec![]));
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`needs`](super::needs()).
    pub fn offer(
        &self,
        pattern: &dyn Pattern,
        extent: Extent,
        [queries, keys]: [&Assignment; 2],
        rank: usize,
        block: usize,
    ) -> Result<Offer> {
        check(&extent, [queries, keys], rank)?;
        if queries.ranks() != self.ranks {
            return Err(Error::argument("queries", format!("{} ranks", self.ranks), queries.ranks()));
        }
        let mask = mask_of(pattern, extent, queries.rows(rank), block)?;
        let BlockGrid { block_q, q_len, .. } = *mask.grid();
        let blocks: Vec<usize> = (0..mask.grid().q_blocks()).collect();
        let (chosen, saved) = self.blocks(&mask, &blocks, keys.rows(rank));
        let rows = chosen.into_iter().map(|block| block * block_q..((block + 1) * block_q).min(q_len));
        Ok(Offer { queries: stretches::positions(queries.rows(rank), rows), saved })
    }

    /// Whether the queries travel that all ranks together offer: `queries` of them, where the rank that saves most saves `saved` keys. `len` is the
    /// longer side of the call.
    pub fn take(&self, queries: usize, saved: u64, len: usize) -> bool {
        self.few(queries, len) && queries as u64 * MARGIN * self.query < saved * self.key
    }

    /// Whether `rows` rows of all ranks together are few enough for each rank to get; `len` is the longer side of the call.
    pub fn few(&self, rows: usize, len: usize) -> bool {
        2 * rows <= len.div_ceil(self.ranks)
    }

    /// Whether keys that `by` other ranks ask for are handed on.
    pub fn asked_for(&self, by: usize) -> bool {
        8 * by >= 7 * (self.ranks - 1) && by > HandOn::count(self.ranks)
    }

    /// Those among the blocks of a rank's queries, ascending, and how many keys less it needs of others without them.
    pub(super) fn blocks(
        &self,
        mask: &BlockMask,
        blocks: &[usize],
        own: &[Range<usize>],
    ) -> (Vec<usize>, u64) {
        let weighed = Weighed::new(mask, blocks, own);
        let foreign = weighed.foreign_keys();
        let rounds = HandOn::count(self.ranks) as u64;
        let cost = |keys: u64, rows: u64| keys * self.key + rows * MARGIN * self.query * rounds;
        // More of them cost more than all keys do.
        let (mut most, mut rows) = (0, vec![0]);
        for &(block, _) in &weighed.order {
            let next = rows[most] + weighed.rows(block);
            if cost(0, next) >= cost(foreign, 0) {
                break;
            }
            rows.push(next);
            most += 1;
        }
        // What is left needs at least as much as the one of it that needs most.
        let worth = |count: usize| {
            let least = weighed.order.get(count).map_or(0, |&(_, widest)| widest);
            cost(least * mask.grid().block_k as u64, rows[count]) < cost(foreign, 0)
        };
        if !(1..=most).any(worth) {
            return (vec![], 0);
        }
        let mut touched = weighed.touched(most);
        let mut left = touched.count();
        let (mut best, mut fewest, mut needed) = (0, u64::MAX, 0);
        for count in (0..=most).rev() {
            let keys = left * mask.grid().block_k as u64;
            if cost(keys, rows[count]) <= fewest {
                (best, fewest, needed) = (count, cost(keys, rows[count]), keys);
            }
            if count > 0 {
                left += weighed.touch(&mut touched, weighed.order[count - 1].0);
            }
        }
        let mut chosen: Vec<usize> = weighed.order[..best].iter().map(|&(block, _)| block).collect();
        chosen.sort_unstable();
        (chosen, foreign - needed)
    }
}

/// Blocks of a rank's queries, by the keys that they need of others.
struct Weighed<'a> {
    mask: &'a BlockMask,
    /// Key blocks that are the rank's own as a whole.
    own: Vec<Range<usize>>,
    /// The heaviest first, each with the most key blocks of others that a head of it visits.
    order: Vec<(usize, u64)>,
}

impl<'a> Weighed<'a> {
    fn new(mask: &'a BlockMask, blocks: &[usize], own: &[Range<usize>]) -> Self {
        let BlockGrid { block_k, kv_len, .. } = *mask.grid();
        let whole = |rows: &Range<usize>| {
            let end = if rows.end == kv_len { mask.grid().k_blocks() } else { rows.end / block_k };
            rows.start.div_ceil(block_k)..end
        };
        let own = own.iter().map(whole).filter(|blocks| blocks.start < blocks.end).collect();
        let mut weighed = Self { mask, own, order: vec![] };
        let weigh = |&block: &usize| {
            let widths = weighed.foreign(block).map(|runs| stretches::count(&runs) as u64);
            let (sum, most) = widths.fold((0, 0), |(sum, most), width| (sum + width, most.max(width)));
            (std::cmp::Reverse(sum), block, most)
        };
        let mut order: Vec<_> = blocks.iter().map(weigh).collect();
        order.sort_unstable();
        weighed.order = order.into_iter().map(|(_, block, most)| (block, most)).collect();
        weighed
    }

    fn rows(&self, block: usize) -> u64 {
        let grid = self.mask.grid();
        grid.block_q.min(grid.q_len - block * grid.block_q) as u64
    }

    /// The runs of a block of queries outside of the rank's own keys, by head.
    fn foreign(&self, block: usize) -> impl Iterator<Item = Vec<Range<usize>>> + '_ {
        sites(self.mask).map(move |[batch, head]| {
            let Row { full, partial } = self.mask.row(batch, head, block);
            let mut runs: Vec<Range<usize>> = full.iter().chain(partial).map(Run::blocks).collect();
            runs.sort_unstable_by_key(|run| run.start);
            stretches::without(&runs, &self.own)
        })
    }

    /// Keys that all blocks together need of others, in whole blocks.
    fn foreign_keys(&self) -> u64 {
        self.touched(0).count() * self.mask.grid().block_k as u64
    }

    /// What all but the first so many need.
    fn touched(&self, without: usize) -> Touched {
        let mut touched = Touched::new(self.mask.grid().k_blocks());
        for &(block, _) in &self.order[without..] {
            self.foreign(block).flatten().for_each(|run| touched.add(run));
        }
        touched.settle();
        touched
    }

    /// Adds a block; by how many key blocks it makes more.
    fn touch(&self, touched: &mut Touched, block: usize) -> u64 {
        self.foreign(block).flatten().map(|run| touched.set(run)).sum()
    }
}
