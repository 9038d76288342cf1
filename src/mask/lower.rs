//! From a pattern to parts: scattered pairs in an order in which they fill their blocks.

use super::{BlockGrid, BlockMask, Part, Parts};
use crate::pattern::Piece;
use crate::{Pattern, Result, Site, Span};

/// Visited pairs per kept pair from which smaller blocks are tried, and from which [`Parts::note`] speaks.
const WASTE: f64 = 4.0;

impl Parts {
    /// The parts of a pattern: the [`pieces`](Pattern::pieces) that it says it is best cut into, each as a block mask in an
    /// order of its own; one part in natural order where it says none. `Parts::from(BlockMask::new(..)?)` is the same set
    /// without lowering.
    ///
    /// A part that would visit more than 4 pairs per kept pair gets blocks of 32 or 16 queries and keys where those visit
    /// less than half as many. Where that does not help, [`note`](Self::note) says why.
    ///
    /// ```
    /// use wgpu_attention::{BlockGrid, BlockMask, Parts, pattern::Strided};
    /// let (pattern, grid) = (Strided::new(128)?, BlockGrid::new(16384, 16384));
    /// let parts = Parts::lower(&pattern, grid)?;
    /// assert_eq!(parts.parts().len(), 2);                     // the local window, and the columns side by side
    /// assert!(parts.waste() < 1.6);                           // visited pairs per kept pair
    /// assert!(BlockMask::new(&pattern, grid)?.waste() > 20.0); // in natural order
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`BlockMask::new`].
    pub fn lower<P: Pattern + ?Sized>(pattern: &P, grid: impl Into<BlockGrid>) -> Result<Self> {
        let grid = grid.into();
        grid.check()?;
        let extent = grid.extent();
        pattern.check(&extent)?;
        let (parts, reasons): (Vec<Part>, Vec<_>) = match pattern.pieces(&extent) {
            None => {
                let part = Part { mask: mask(pattern, grid, None)?, q_order: None, k_order: None };
                (vec![part], vec![pattern.why()])
            }
            Some(pieces) => {
                let parts = pieces.into_iter().map(|piece| {
                    let why = piece.why;
                    Ok((part(piece, grid)?, why))
                });
                parts.collect::<Result<Vec<_>>>()?.into_iter().unzip()
            }
        };
        let mut parts = Self::new(parts, extent)?;
        parts.note = note(&parts, &reasons).map(Into::into);
        Ok(parts)
    }
}

fn part(piece: Piece, grid: BlockGrid) -> Result<Part> {
    let Piece { pattern, q_order, k_order, blocks, .. } = piece;
    let places = BlockGrid {
        q_len: q_order.as_ref().map_or(grid.q_len, |order| order.len()),
        kv_len: k_order.as_ref().map_or(grid.kv_len, |order| order.len()),
        ..grid
    };
    Ok(Part { mask: mask(&pattern, places, blocks)?, q_order, k_order })
}

/// The mask in the blocks that a piece asks for, or in the largest ones that waste little.
fn mask<P: Pattern + ?Sized>(pattern: &P, grid: BlockGrid, blocks: Option<[usize; 2]>) -> Result<BlockMask> {
    let [block_q, block_k] = blocks.unwrap_or_else(|| {
        let own = [grid.block_q, grid.block_k];
        // Counted in a sample: the mask itself takes longer, above all in blocks that do not suit.
        let (kept, least) = (sampled_pairs(pattern, &grid), sampled_blocks(pattern, &grid.blocks(16, 16)));
        let suits = |&[block_q, block_k]: &[usize; 2]| {
            let visited = sampled_blocks(pattern, &grid.blocks(block_q, block_k));
            visited as f64 <= WASTE * kept as f64 || visited < 2 * least
        };
        let sizes = [own, own.map(|size| size.min(32)), [16, 16]];
        sizes.into_iter().find(suits).unwrap_or([16, 16])
    });
    BlockMask::new(pattern, BlockGrid { block_q, block_k, ..grid })
}

/// Queries of a stretch of the sample: a whole number of blocks of any size.
const STRETCH: usize = 256;

/// Where the stretches of the sample start.
fn sample(q_len: usize) -> impl Iterator<Item = usize> {
    let stretches = q_len.div_ceil(STRETCH);
    let step = stretches.div_ceil(16).max(1);
    // From the middle: the first queries are often unlike the rest.
    (step / 2..stretches).step_by(step).map(|stretch| stretch * STRETCH)
}

/// Keys per key that stretches leave open up to which a whole row of words is made.
const SPARSE: usize = 16;

fn first_site(grid: &BlockGrid) -> Site {
    Site { batch: 0, head: 0, extent: grid.extent() }
}

/// Pairs of the blocks that a pattern's stretches touch.
fn sampled_blocks<P: Pattern + ?Sized>(pattern: &P, grid: &BlockGrid) -> u64 {
    let blocks = |q_block| {
        let (mut next, mut blocks) = (0, 0);
        let spans = pattern.spans(&first_site(grid), grid.queries(q_block));
        for keys in spans.into_iter().map(|span| span.keys).filter(|keys| !keys.is_empty()) {
            let last = keys.end.div_ceil(grid.block_k);
            blocks += last - next.max(keys.start / grid.block_k).min(last);
            next = last;
        }
        blocks as u64
    };
    let rows = sample(grid.q_len).flat_map(|start| {
        let first = start / grid.block_q;
        (first..first + STRETCH / grid.block_q).take_while(|&block| block < grid.q_blocks())
    });
    rows.map(blocks).sum::<u64>() * (grid.block_q * grid.block_k) as u64
}

/// Pairs that a pattern keeps, from 8 queries of each stretch.
fn sampled_pairs<P: Pattern + ?Sized>(pattern: &P, grid: &BlockGrid) -> u64 {
    let site = first_site(grid);
    let pairs = |start: usize| {
        let rows = (start..grid.q_len.min(start + STRETCH)).step_by(33);
        let (count, len) = (rows.len() as u64, (grid.q_len - start).min(STRETCH) as u64);
        rows.map(|i| row_pairs(pattern, &site, i)).sum::<u64>() * len / count.max(1)
    };
    sample(grid.q_len).map(pairs).sum()
}

/// Keys of one query.
fn row_pairs<P: Pattern + ?Sized>(pattern: &P, site: &Site, i: usize) -> u64 {
    let spans = pattern.spans(site, i..i + 1);
    let (sure, open): (Vec<_>, Vec<_>) = spans.into_iter().partition(|span| span.all);
    let len = |spans: &[Span]| spans.iter().map(|span| span.keys.len()).sum::<usize>();
    if SPARSE * len(&open) >= site.extent.kv_len {
        let mut words = vec![0; site.extent.kv_len.div_ceil(32)];
        pattern.row(site, i, &mut words);
        return words.iter().map(|word| u64::from(word.count_ones())).sum();
    }
    let pairs = |Span { keys, .. }: &Span| {
        let bits = |j: usize| {
            let word = pattern.keep_word(site, i, j);
            let past = 32usize.saturating_sub(keys.end - j) as u32;
            u64::from((word << past).count_ones())
        };
        keys.clone().step_by(32).map(bits).sum::<u64>()
    };
    len(&sure) as u64 + open.iter().map(pairs).sum::<u64>()
}

/// What wastes visits, and why.
fn note(parts: &Parts, reasons: &[Option<&'static str>]) -> Option<String> {
    if parts.waste() <= WASTE {
        return None;
    }
    let idle = |(_, part): &(usize, &Part)| part.mask.visited() - part.mask.kept();
    let (at, part) = parts.parts().iter().enumerate().max_by_key(idle)?;
    let grid = part.mask.grid();
    let why = reasons[at].unwrap_or("its pairs lie in small groups");
    Some(format!(
        "{:.1} pairs are visited per kept pair: part {} of {} keeps {:.1} % of the pairs of its {} x {} blocks, as {why}",
        parts.waste(),
        at + 1,
        reasons.len(),
        100.0 / part.mask.waste(),
        grid.block_q,
        grid.block_k,
    ))
}
