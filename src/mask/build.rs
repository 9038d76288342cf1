//! From a pattern to runs: in closed form where the pattern has one, and by scan as its oracle.

use super::tiles::Tiles;
use super::{BlockGrid, BlockMask, Inner, Run, RunKind};
use crate::{Error, Pattern, Result, Site, Span, Varies};
use rayon::prelude::*;
use std::sync::Arc;

impl BlockMask {
    /// The block mask of a pattern, from its [`spans`](Pattern::spans): a block inside a stretch that all queries
    /// attend is full, any other block that a stretch touches is asked pair by pair.
    ///
    /// # Errors
    /// What [`BlockGrid::check`] and [`Pattern::check`] find; [`Error::Limit`] where the packed mask passes 2^32
    /// words; [`Error::Argument`] where a pattern's stretches are not disjoint and ascending.
    pub fn new<P: Pattern + ?Sized>(pattern: &P, grid: impl Into<BlockGrid>) -> Result<Self> {
        let grid = grid.into();
        check(pattern, &grid)?;
        build(grid, pattern.varies(), |builder, site, q_block| {
            let spans = pattern.spans(site, grid.queries(q_block));
            builder.row_from_spans(pattern, site, q_block, &spans)
        })
    }

    /// The block mask of a pattern by asking [`keep`](Pattern::keep) for every pair: the oracle for
    /// [`new`](Self::new), which must give an equal mask. Costs B H Lq Lk calls. It trusts nothing but `keep`: where
    /// heads or batch items differ although the pattern says that they do not, their rows are stored apart, so that
    /// the masks differ.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn scan<P: Pattern + ?Sized>(pattern: &P, grid: impl Into<BlockGrid>) -> Result<Self> {
        let grid = grid.into();
        check(pattern, &grid)?;
        let said = pattern.varies();
        let varies = Varies {
            batch: said.batch || differs(pattern, &grid, |site| Site { batch: 0, ..site }),
            heads: said.heads || differs(pattern, &grid, |site| Site { head: 0, ..site }),
        };
        build(grid, varies, |builder, site, q_block| {
            for k_block in 0..grid.k_blocks() {
                let keys = grid.keys(k_block);
                builder.block(q_block, k_block, |i, j| {
                    let end = keys.end.min(j + 32);
                    (j..end).fold(0, |word, key| word | u32::from(pattern.keep(site, i, key)) << (key - j))
                })?;
            }
            Ok(())
        })
    }
}

fn check<P: Pattern + ?Sized>(pattern: &P, grid: &BlockGrid) -> Result<()> {
    grid.check()?;
    pattern.check(&grid.extent())
}

/// Whether any pair is kept at one site but not at its `twin`.
fn differs<P: Pattern + ?Sized>(pattern: &P, grid: &BlockGrid, twin: impl Fn(Site) -> Site) -> bool {
    let extent = grid.extent();
    let sites =
        (0..grid.batch).flat_map(|batch| (0..grid.heads).map(move |head| Site { batch, head, extent }));
    sites.into_iter().any(|site| {
        let twin = twin(site);
        let pairs = || (0..grid.q_len).flat_map(|i| (0..grid.kv_len).map(move |j| (i, j)));
        twin != site && pairs().any(|(i, j)| pattern.keep(&site, i, j) != pattern.keep(&twin, i, j))
    })
}

/// A block, or a run of blocks, that a row's stretches touch.
enum Block {
    /// Inside of a stretch that all queries attend.
    Full(Run),
    /// Any other: the pattern is asked.
    Asked(usize),
}

/// The blocks that stretches touch, ascending.
fn decided(spans: &[Span], block_k: usize) -> Vec<Block> {
    let mut blocks = Vec::new();
    // Blocks before `next` are decided: two stretches may touch the same block.
    let mut next = 0;
    for Span { keys, all } in spans.iter().filter(|span| !span.keys.is_empty()) {
        let last = keys.end.div_ceil(block_k);
        let full = if *all { keys.start.div_ceil(block_k)..keys.end / block_k } else { last..last };
        blocks.extend((next.max(keys.start / block_k)..full.start.min(last)).map(Block::Asked));
        if !full.is_empty() {
            let (first, count) = (full.start as u32, full.len() as u32);
            blocks.push(Block::Full(Run { first, count, kind: RunKind::Full }));
        }
        blocks.extend((next.max(full.start).max(full.end)..last).map(Block::Asked));
        next = last;
    }
    blocks
}

/// Rows that one thread fills: enough that joining them costs little.
const CHUNK: usize = 64;

/// Fills the rows of every site that is stored, in the order of the row table.
fn build(
    grid: BlockGrid,
    varies: Varies,
    row: impl Fn(&mut Builder, &Site, usize) -> Result<()> + Sync,
) -> Result<BlockMask> {
    let mut builder = Builder::new(grid, varies)?;
    let stored = |varies: bool, size: usize| if varies { size } else { size.min(1) };
    let (items, heads) = (stored(varies.batch, grid.batch), stored(varies.heads, grid.heads));
    let sites = (0..items).flat_map(|batch| (0..heads).map(move |head| (batch, head)));
    let chunks: Vec<_> =
        sites.flat_map(|site| (0..grid.q_blocks()).step_by(CHUNK).map(move |first| (site, first))).collect();
    // A few chunks per thread at a time: they are held beside the mask until they are joined to it.
    for chunks in chunks.chunks(4 * rayon::current_num_threads()) {
        let fill = |&((batch, head), first): &((usize, usize), usize)| {
            let mut part = builder.part();
            let site = Site { batch, head, extent: grid.extent() };
            for q_block in first..grid.q_blocks().min(first + CHUNK) {
                row(&mut part, &site, q_block)?;
                part.end_row()?;
            }
            Ok(part)
        };
        let parts = chunks.par_iter().map(fill).collect::<Result<Vec<_>>>()?;
        parts.into_iter().try_for_each(|part| builder.append(part))?;
    }
    builder.finish()
}

/// A mask that grows row by row, each row block by block in ascending order.
pub(super) struct Builder {
    pub(super) grid: BlockGrid,
    batch_stride: usize,
    head_stride: usize,
    rows: Vec<[u32; 2]>,
    runs: Vec<Run>,
    /// Partial runs of the row that is being filled; its full ones are already in `runs`.
    partial: Vec<Run>,
    /// Where the row's full runs start.
    row_at: usize,
    tiles: Tiles,
    /// The tile that is being filled.
    tile: Vec<u32>,
    /// For each query of the row that is being filled, one up to it that attends the same keys; empty: not yet sought.
    pub(super) twins: Vec<usize>,
}

impl Builder {
    pub(super) fn new(grid: BlockGrid, varies: Varies) -> Result<Self> {
        let axis = |varies: bool, size: usize, rows: u128| if varies && size > 1 { rows } else { 0 };
        let q_blocks = grid.q_blocks() as u128;
        let stored_heads = if varies.heads { grid.heads as u128 } else { 1 };
        let stored_batch = if varies.batch { grid.batch as u128 } else { 1 };
        let words = 2 * (stored_batch * stored_heads * q_blocks + 1);
        if words > u32::MAX as u128 {
            let need = words.min(u64::MAX as u128) as u64;
            return Err(Error::limit(
                "row table of the block mask",
                "the largest 32-bit word index",
                need,
                u32::MAX as u64,
            ));
        }
        Ok(Self {
            grid,
            batch_stride: axis(varies.batch, grid.batch, stored_heads * q_blocks) as usize,
            head_stride: axis(varies.heads, grid.heads, q_blocks) as usize,
            rows: Vec::new(),
            runs: Vec::new(),
            partial: Vec::new(),
            row_at: 0,
            tiles: Tiles::new(grid.tile_words()),
            tile: Vec::new(),
            twins: Vec::new(),
        })
    }

    /// An empty one for some of the rows, to be joined by [`append`](Self::append).
    fn part(&self) -> Self {
        Self {
            rows: Vec::new(),
            runs: Vec::new(),
            partial: Vec::new(),
            row_at: 0,
            tiles: self.tiles.empty(),
            tile: Vec::new(),
            twins: Vec::new(),
            ..*self
        }
    }

    fn row_from_spans<P: Pattern + ?Sized>(
        &mut self,
        pattern: &P,
        site: &Site,
        q_block: usize,
        spans: &[Span],
    ) -> Result<()> {
        check_spans(spans, self.grid.kv_len)?;
        let blocks = decided(spans, self.grid.block_k);
        let asked = blocks.iter().filter_map(|block| match block {
            Block::Asked(k_block) => Some(*k_block),
            Block::Full(_) => None,
        });
        let asked: Vec<usize> = asked.collect();
        if !asked.is_empty() {
            self.find_twins(pattern, site, q_block);
        }
        let tiles = self.tiles_of_row(pattern, site, q_block, &asked);
        let mut at = 0;
        for block in blocks {
            match (block, &tiles) {
                (Block::Full(run), _) => self.push(run),
                (Block::Asked(k_block), Some(tiles)) => {
                    self.tile.clear();
                    self.tile.extend_from_slice(&tiles[at..at + self.grid.tile_words()]);
                    at += self.grid.tile_words();
                    self.decide(q_block, k_block)?;
                }
                (Block::Asked(k_block), None) => {
                    self.block(q_block, k_block, |i, j| pattern.keep_word(site, i, j))?;
                }
            }
        }
        Ok(())
    }

    /// Decides one block: `word(i, j)` holds in bit b whether query i keeps key j + b.
    fn block(&mut self, q_block: usize, k_block: usize, word: impl Fn(usize, usize) -> u32) -> Result<()> {
        let (queries, keys) = (self.grid.queries(q_block), self.grid.keys(k_block));
        let row_words = self.grid.row_words();
        let mut tile = std::mem::take(&mut self.tile);
        tile.clear();
        for (row, i) in queries.enumerate() {
            if let Some(twin) = self.twins.get(row).copied().filter(|&twin| twin < row) {
                tile.extend_from_within(twin * row_words..(twin + 1) * row_words);
                continue;
            }
            tile.extend(keys.clone().step_by(32).map(|j| word(i, j) & ones(keys.end - j)));
            // A short last key block has fewer words than a tile's row.
            tile.resize((row + 1) * row_words, 0);
        }
        self.tile = tile;
        self.decide(q_block, k_block)
    }

    /// Adds the block whose words are in `tile`.
    fn decide(&mut self, q_block: usize, k_block: usize) -> Result<()> {
        let mut tile = std::mem::take(&mut self.tile);
        if let Some(kind) = self.kind(q_block, k_block, &mut tile)? {
            self.push(Run { first: k_block as u32, count: 1, kind });
        }
        self.tile = tile;
        Ok(())
    }

    /// What a block is, given the words of its queries: nothing where all are clear, full where all are set, else a
    /// tile.
    pub(super) fn kind(
        &mut self,
        q_block: usize,
        k_block: usize,
        tile: &mut Vec<u32>,
    ) -> Result<Option<RunKind>> {
        let (rows, keys) = (self.grid.queries(q_block).len(), self.grid.keys(k_block));
        tile.truncate(rows * self.grid.row_words());
        if tile.iter().all(|&word| word == 0) {
            return Ok(None);
        }
        let full_row: Vec<u32> =
            (0..self.grid.row_words()).map(|word| ones(keys.len().saturating_sub(32 * word))).collect();
        if keys.len() == self.grid.block_k && tile.chunks_exact(full_row.len()).all(|row| row == full_row) {
            return Ok(Some(RunKind::Full));
        }
        for _ in rows..self.grid.block_q {
            tile.extend_from_slice(&full_row);
        }
        Ok(Some(RunKind::Tile(self.tiles.intern(tile)?)))
    }

    /// Adds blocks to the row, joined with the run before them where they are alike.
    pub(super) fn push(&mut self, run: Run) {
        let runs = if run.kind == RunKind::Full { &mut self.runs } else { &mut self.partial };
        let row_at = if run.kind == RunKind::Full { self.row_at } else { 0 };
        match runs[row_at..].last_mut() {
            Some(last) if last.kind == run.kind && last.first + last.count == run.first => {
                last.count += run.count
            }
            _ => runs.push(run),
        }
    }

    pub(super) fn end_row(&mut self) -> Result<()> {
        self.twins.clear();
        let partial_at = self.runs.len();
        self.runs.append(&mut self.partial);
        check_runs(self.runs.len())?;
        self.rows.push([self.row_at as u32, partial_at as u32]);
        self.row_at = self.runs.len();
        Ok(())
    }

    /// Adds the rows of another. Its tiles get the numbers that they would have had here.
    fn append(&mut self, part: Self) -> Result<()> {
        let shift = self.runs.len() as u32;
        let tiles = self.tiles.append(&part.tiles)?;
        self.runs.extend(part.runs.into_iter().map(|run| match run.kind {
            RunKind::Full => run,
            RunKind::Tile(tile) => Run { kind: RunKind::Tile(tiles[tile as usize]), ..run },
        }));
        check_runs(self.runs.len())?;
        self.rows.extend(part.rows.into_iter().map(|row| row.map(|at| at + shift)));
        self.row_at = self.runs.len();
        Ok(())
    }

    /// Numbers the tiles in the order in which the rows name them, as if they had been built in it.
    pub(super) fn renumber(&mut self) -> Result<()> {
        let old = std::mem::replace(&mut self.tiles, Tiles::new(self.grid.tile_words()));
        for run in &mut self.runs {
            if let RunKind::Tile(tile) = &mut run.kind {
                *tile = self.tiles.intern(old.get(*tile))?;
            }
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<BlockMask> {
        self.rows.push([self.row_at as u32; 2]);
        let inner = Inner {
            grid: self.grid,
            batch_stride: self.batch_stride,
            head_stride: self.head_stride,
            rows: self.rows,
            runs: self.runs,
            tiles: self.tiles.into_words(),
        };
        let mask = BlockMask { inner: Arc::new(inner) };
        match mask.bytes() / 4 {
            words if words <= u32::MAX as u64 => Ok(mask),
            words => Err(Error::limit(
                "packed block mask",
                "the largest 32-bit word index",
                words,
                u32::MAX as u64,
            )),
        }
    }
}

fn check_runs(runs: usize) -> Result<()> {
    match 3 * runs as u64 {
        need if need > u32::MAX as u64 => Err(Error::limit(
            "runs of the block mask",
            "the largest 32-bit word index",
            need,
            u32::MAX as u64,
        )),
        _ => Ok(()),
    }
}

/// A word whose first `count` bits are set.
pub(super) fn ones(count: usize) -> u32 {
    if count >= 32 { u32::MAX } else { (1 << count) - 1 }
}

fn check_spans(spans: &[Span], kv_len: usize) -> Result<()> {
    let mut next = 0;
    for Span { keys, .. } in spans.iter().filter(|span| !span.keys.is_empty()) {
        if keys.start < next || keys.end > kv_len {
            let need = format!("disjoint ascending stretches within 0..{kv_len}");
            return Err(Error::argument("Pattern::spans", need, format!("{keys:?} after key {next}")));
        }
        next = keys.end;
    }
    Ok(())
}
