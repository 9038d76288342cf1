use super::blocks::table::{self, BlockTable};
use super::logic::lower::Piece;
use super::{BlockLayout, Blocks, Extent, Identity, Or, Pattern, Range, Site, Span, Varies, spans};
use crate::{Counter, Error, Result};

/// Whole key blocks drawn at random (Zaheer 2020, section 2): each block of queries attends `count` distinct blocks of keys.
/// `count` x `block` keys per row.
///
/// ```text
/// block: 2, count: 1, seed: 1
/// ····██··
/// ····██··
/// ██······
/// ██······
/// ····██··
/// ····██··
/// ██······
/// ██······
/// ```
///
/// Drawn by [`Counter`]`::new(seed, head)`, whose numbers r 2^32 + 0, 1, 2, ... give query block r its candidates,
/// `below(number of key blocks)`, of which repeated ones are skipped. Query block: floor(i' / block) with
/// i' = i + (Lk - Lq). For lists of your own, use [`Blocks`] with [`BlockLayout::from_columns`](super::BlockLayout::from_columns).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Random {
    /// Positions of a block.
    pub block: usize,
    /// Key blocks of a query block.
    pub count: usize,
    /// Seed of the draw; heads draw apart. 0 where a file or the short form leaves it out.
    #[cfg_attr(feature = "serde", serde(default))]
    pub seed: u64,
}

/// Blocks near the diagonal, global blocks and random ones (Zaheer 2020, section 2, ITC): query block r = floor(i' / block) with
/// i' = i + (Lk - Lq) attends key block c where
///
/// ```text
/// |c - r| <= (window - 1) / 2,  or  r < global,  or  c < global,  or  c is one of `random` blocks drawn for r
///
/// block: 1, window: 3, global: 1, random: 1, seed: 1
/// ████████
/// ███···█·
/// █████···
/// █████···
/// █·████··
/// █·█·███·
/// █·█··███
/// █···█·██
/// ```
///
/// (window + global + random) x `block` keys per row, and Lk for the global blocks. Random blocks are drawn, as in
/// [`Random`], from those that window and global blocks do not hold. The common implementation draws some of them twice and
/// then counts their keys twice, a bias of ln 2; and its global blocks are the first and the last one, see
/// [`BigBird::first_and_last`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct BigBird {
    /// Positions of a block.
    pub block: usize,
    /// Blocks of the window, the query's own in the middle: odd.
    pub window: usize,
    /// Global blocks, the first ones.
    pub global: usize,
    /// Random blocks of a query block.
    pub random: usize,
    /// Seed of the draw; heads draw apart. 0 where a file or the short form leaves it out.
    #[cfg_attr(feature = "serde", serde(default))]
    pub seed: u64,
}

/// [`BigBird`] with the first and the last block as global ones, as Hugging Face has it. Made by
/// [`BigBird::first_and_last`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BigBirdEnds(BigBird);

/// [`BigBird`]'s window and global blocks with random blocks from a list. Made by [`BigBird::with_lists`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BigBirdLists {
    fixed: BigBird,
    lists: Blocks,
}

/// What a query block attends before any draw, and how many it draws.
struct Row {
    /// Ascending disjoint stretches of key blocks.
    sure: Vec<Range<usize>>,
    /// Key blocks there are.
    blocks: usize,
}

impl Row {
    /// Joins stretches that touch or overlap.
    fn new(mut stretches: Vec<Range<usize>>, blocks: usize) -> Self {
        stretches.retain(|stretch| !stretch.is_empty());
        stretches.sort_unstable_by_key(|stretch| stretch.start);
        let mut sure: Vec<Range<usize>> = vec![];
        for stretch in stretches {
            match sure.last_mut() {
                Some(last) if stretch.start <= last.end => last.end = last.end.max(stretch.end),
                _ => sure.push(stretch),
            }
        }
        Self { sure, blocks }
    }

    fn has(&self, block: usize) -> bool {
        self.sure.iter().any(|stretch| stretch.contains(&block))
    }

    fn free(&self) -> usize {
        self.blocks - self.sure.iter().map(Range::len).sum::<usize>()
    }

    /// With `count` of the free blocks, or all where there are fewer.
    fn with_random(self, count: usize, seed: u64, head: usize, r: isize) -> Self {
        let count = count.min(self.free());
        let draw = Counter::new(seed, head as u64);
        let mut drawn: Vec<usize> = Vec::with_capacity(count);
        let candidates = (0..).map(|n| draw.below(((r as u64) << 32) + n, self.blocks as u64) as usize);
        // Drawing until a free one comes is slow only where hardly any is left; then the free ones are counted out.
        if 4 * self.free() > self.blocks && 2 * count <= self.free() {
            for block in candidates {
                if drawn.len() == count {
                    break;
                }
                if !self.has(block) && !drawn.contains(&block) {
                    drawn.push(block);
                }
            }
        } else {
            let mut free: Vec<usize> = (0..self.blocks).filter(|&block| !self.has(block)).collect();
            for n in 0..count {
                let at = n + draw.below(((r as u64) << 32) + n as u64, (free.len() - n) as u64) as usize;
                free.swap(n, at);
            }
            drawn.extend_from_slice(&free[..count]);
        }
        let drawn = drawn.into_iter().map(|block| block..block + 1);
        Self::new(self.sure.into_iter().chain(drawn).collect(), self.blocks)
    }

    fn runs(&self) -> Vec<Range<u32>> {
        self.sure.iter().map(|stretch| stretch.start as u32..stretch.end as u32).collect()
    }
}

/// A pattern whose rows are rows of blocks.
trait BlockRows {
    fn block(&self) -> usize;
    fn row(&self, extent: &Extent, head: usize, r: isize) -> Row;

    /// Whether some blocks are drawn, by each head its own.
    fn is_drawn(&self) -> bool;

    /// [`Pattern::check`].
    fn check_rows(&self, extent: &Extent) -> Result<()>;

    fn query_block(&self, site: &Site, i: usize) -> isize {
        site.aligned(i).div_euclid(self.block() as isize)
    }

    fn keeps(&self, site: &Site, i: usize, j: usize) -> bool {
        self.row(&site.extent, site.head, self.query_block(site, i)).has(j / self.block())
    }

    fn block_spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        let kv_len = site.extent.kv_len;
        let (first, last) = (self.query_block(site, rows.start), self.query_block(site, rows.end - 1));
        let of = |r| table::stretches(&self.row(&site.extent, site.head, r).runs(), self.block(), kv_len);
        spans::all_together((first..=last).map(of).collect(), kv_len)
    }

    fn block_word(&self, site: &Site, i: usize, j: usize) -> u32 {
        let row = self.row(&site.extent, site.head, self.query_block(site, i));
        table::word(&row.runs(), self.block(), j, site.extent.kv_len)
    }

    /// All rows, each drawn once, of all heads where they differ.
    fn table(&self, extent: &Extent, varies: Varies) -> BlockTable {
        let heads = if varies.heads { extent.heads } else { 1 };
        let (block, blocks) = (self.block(), extent.kv_len.div_ceil(self.block()));
        let first = extent.kv_len.saturating_sub(extent.q_len) / block;
        let keys = |run: Range<u32>| {
            let edge = |at: u32| (at as usize * block).min(extent.kv_len) as u32;
            edge(run.start)..edge(run.end)
        };
        let row = |head, r: usize| self.row(extent, head, r as isize).runs().into_iter().map(keys).collect();
        let rows = (0..heads).flat_map(|head| (first..blocks).map(move |r| (head, r)));
        let rows = rows.map(|(head, r)| row(head, r)).collect();
        let sizes = [heads, blocks - first, extent.kv_len];
        BlockTable { block, first, layout: BlockLayout::from_rows(sizes, rows) }
    }
}

/// The pattern's own blocks, where kernels have such, hold no pair too many.
fn natural(block: usize, pattern: impl Pattern + 'static) -> Piece {
    let fits = block.is_power_of_two() && (16..=64).contains(&block);
    Piece { blocks: fits.then_some([block, block]), why: table::why(block), ..Piece::natural(pattern) }
}

fn check_block(name: &'static str, block: usize) -> Result<()> {
    if block == 0 || block > isize::MAX as usize / 4 {
        return Err(Error::argument(name, format!("1 to {}", isize::MAX as usize / 4), block));
    }
    Ok(())
}

/// More random blocks than there are is a mistake, not a wish for all.
fn check_count(name: &'static str, count: usize, free: usize, besides: &str) -> Result<()> {
    if count > free {
        let need = format!("at most the {free} key blocks that there are{besides}");
        return Err(Error::argument(name, need, count));
    }
    Ok(())
}

impl BlockRows for Random {
    fn block(&self) -> usize {
        self.block
    }

    fn row(&self, extent: &Extent, head: usize, r: isize) -> Row {
        let row = Row::new(vec![], extent.kv_len.div_ceil(self.block));
        if r < 0 { row } else { row.with_random(self.count, self.seed, head, r) }
    }

    fn is_drawn(&self) -> bool {
        true
    }

    fn check_rows(&self, extent: &Extent) -> Result<()> {
        check_block("Random.block", self.block)?;
        // Without keys nothing is drawn.
        let blocks = extent.kv_len.div_ceil(self.block);
        if blocks == 0 { Ok(()) } else { check_count("Random.count", self.count, blocks, "") }
    }
}

impl Random {
    /// Random blocks.
    ///
    /// # Errors
    /// [`Error::Argument`] for a block of 0.
    pub fn new(block: usize, count: usize, seed: u64) -> Result<Self> {
        check_block("Random.block", block)?;
        Ok(Self { block, count, seed })
    }
}

impl BigBird {
    /// Window, global and random blocks.
    ///
    /// # Errors
    /// [`Error::Argument`] for a block of 0 or an even window.
    pub fn new(block: usize, window: usize, global: usize, random: usize, seed: u64) -> Result<Self> {
        let pattern = Self { block, window, global, random, seed };
        pattern.check_sizes()?;
        Ok(pattern)
    }

    /// The same with the first and the last block as global ones, half of `global` each: `global: 2` is what Hugging Face
    /// has.
    pub fn first_and_last(self) -> BigBirdEnds {
        BigBirdEnds(self)
    }

    /// The same with random blocks from lists, `[heads or 1][query block][blocks]`, instead of the draw: `random` and
    /// `seed` play no part.
    pub fn with_lists(self, lists: BlockLayout) -> BigBirdLists {
        BigBirdLists { fixed: Self { random: 0, ..self }, lists: Blocks { block: self.block, layout: lists } }
    }

    fn check_sizes(&self) -> Result<()> {
        check_block("BigBird.block", self.block)?;
        if self.window.is_multiple_of(2) {
            return Err(Error::argument("BigBird.window", "an odd number of blocks", self.window));
        }
        Ok(())
    }

    fn globals(&self, blocks: usize, at_the_end: usize) -> [Range<usize>; 2] {
        let last = at_the_end.min(blocks);
        [0..(self.global - at_the_end.min(self.global)).min(blocks), blocks - last..blocks]
    }

    /// Row r, with `at_the_end` of the global blocks at the end.
    fn row_with(&self, extent: &Extent, head: usize, r: isize, at_the_end: usize) -> Row {
        let blocks = extent.kv_len.div_ceil(self.block);
        let globals = self.globals(blocks, at_the_end);
        let Ok(own) = usize::try_from(r) else {
            return Row::new(vec![], blocks);
        };
        if globals.iter().any(|global| global.contains(&own)) {
            return Row::new(std::iter::once(0..blocks).collect(), blocks);
        }
        let reach = self.window / 2;
        let window = own.saturating_sub(reach).min(blocks)..own.saturating_add(reach + 1).min(blocks);
        let [first, last] = globals;
        Row::new(vec![window, first, last], blocks).with_random(self.random, self.seed, head, r)
    }

    fn check_with(&self, extent: &Extent, at_the_end: usize) -> Result<()> {
        self.check_sizes()?;
        let blocks = extent.kv_len.div_ceil(self.block);
        let fixed = Self { random: 0, ..*self };
        // The middle has the widest window, so the fewest free blocks; global rows draw nothing.
        let middle = fixed.row_with(extent, 0, (blocks / 2) as isize, at_the_end);
        let is_global = middle.free() == 0;
        if is_global {
            return Ok(());
        }
        check_count("BigBird.random", self.random, middle.free(), " beside window and global ones")
    }
}

impl BlockRows for BigBird {
    fn block(&self) -> usize {
        self.block
    }

    fn row(&self, extent: &Extent, head: usize, r: isize) -> Row {
        self.row_with(extent, head, r, 0)
    }

    fn is_drawn(&self) -> bool {
        self.random > 0
    }

    fn check_rows(&self, extent: &Extent) -> Result<()> {
        self.check_with(extent, 0)
    }
}

impl BlockRows for BigBirdEnds {
    fn block(&self) -> usize {
        self.0.block
    }

    fn row(&self, extent: &Extent, head: usize, r: isize) -> Row {
        self.0.row_with(extent, head, r, self.0.global / 2)
    }

    fn is_drawn(&self) -> bool {
        self.0.is_drawn()
    }

    fn check_rows(&self, extent: &Extent) -> Result<()> {
        self.0.check_with(extent, self.0.global / 2)
    }
}

/// What patterns of rows of blocks have in common.
macro_rules! rows_of_blocks {
    ($($pattern:ty),*) => {
        $(impl Pattern for $pattern {
            fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
                self.keeps(site, i, j)
            }

            fn keep_word(&self, site: &Site, i: usize, j: usize) -> u32 {
                self.block_word(site, i, j)
            }

            fn spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
                self.block_spans(site, rows)
            }

            fn varies(&self) -> Varies {
                Varies { batch: false, heads: self.is_drawn() }
            }

            fn check(&self, extent: &Extent) -> Result<()> {
                self.check_rows(extent)
            }

            fn pieces(&self, extent: &Extent) -> Option<Vec<Piece>> {
                Some(vec![natural(self.block(), self.table(extent, self.varies()))])
            }

            fn written(&self, extent: &Extent) -> Option<Box<dyn Pattern>> {
                Some(Box::new(self.table(extent, self.varies())))
            }

            fn alike(&self, site: &Site, a: usize, b: usize) -> bool {
                self.query_block(site, a) == self.query_block(site, b)
            }

            fn identity(&self) -> Identity<'_> {
                Identity::of(self)
            }
        })*
    };
}

rows_of_blocks!(Random, BigBird, BigBirdEnds);

impl Pattern for BigBirdLists {
    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        self.fixed.keep(site, i, j) || self.lists.keep(site, i, j)
    }

    fn keep_word(&self, site: &Site, i: usize, j: usize) -> u32 {
        self.fixed.keep_word(site, i, j) | self.lists.keep_word(site, i, j)
    }

    fn spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        let (fixed, lists) = (self.fixed.spans(site, rows.clone()), self.lists.spans(site, rows));
        spans::or(&fixed, &lists, site.extent.kv_len)
    }

    fn varies(&self) -> Varies {
        self.lists.varies()
    }

    fn check(&self, extent: &Extent) -> Result<()> {
        self.fixed.check(extent)?;
        self.lists.check(extent)
    }

    fn pieces(&self, extent: &Extent) -> Option<Vec<Piece>> {
        let fixed = self.fixed.table(extent, Varies::default());
        Some(vec![natural(self.fixed.block, Or(fixed, self.lists.clone()))])
    }

    fn written(&self, extent: &Extent) -> Option<Box<dyn Pattern>> {
        Some(Box::new(Or(self.fixed.table(extent, Varies::default()), self.lists.clone())))
    }

    fn alike(&self, site: &Site, a: usize, b: usize) -> bool {
        self.fixed.alike(site, a, b) && self.lists.alike(site, a, b)
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }
}
