//! From a pattern to parts: scattered pairs in an order in which they fill their blocks.

use super::{BlockGrid, BlockMask, Part, Parts};
use crate::pattern::Piece;
use crate::{Pattern, Result, Site};

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

/// The mask in the blocks that a piece asks for, or in the largest ones that are not much wasted.
fn mask<P: Pattern + ?Sized>(pattern: &P, grid: BlockGrid, blocks: Option<[usize; 2]>) -> Result<BlockMask> {
    if let Some([block_q, block_k]) = blocks {
        return BlockMask::new(pattern, BlockGrid { block_q, block_k, ..grid });
    }
    let own = grid.block_q.min(grid.block_k);
    let smallest = grid.blocks(16, 16);
    let least = touched(pattern, &smallest);
    for size in [own, 32, 16].into_iter().filter(|&size| size <= own) {
        let grid = if size == own { grid } else { grid.blocks(size, size) };
        // Visited pairs per pair of the smallest blocks, which is no more than per kept pair.
        let excess = touched(pattern, &grid) as f64 / least.max(1) as f64;
        if size > 16 && excess >= WASTE {
            continue;
        }
        let mask = BlockMask::new(pattern, grid)?;
        if excess < 2.0 || mask.waste() <= WASTE {
            return Ok(mask);
        }
    }
    BlockMask::new(pattern, smallest)
}

/// Pairs of the blocks that a pattern's stretches touch, in a sample of the queries of the first head.
fn touched<P: Pattern + ?Sized>(pattern: &P, grid: &BlockGrid) -> u64 {
    const STRETCH: usize = 256;
    let site = Site { batch: 0, head: 0, extent: grid.extent() };
    let stretches = grid.q_len.div_ceil(STRETCH);
    let sample = (0..stretches).step_by(stretches.div_ceil(16).max(1)).flat_map(|stretch| {
        let blocks = STRETCH / grid.block_q;
        (stretch * blocks..(stretch + 1) * blocks).take_while(|&block| block < grid.q_blocks())
    });
    let blocks = |q_block| {
        let (mut next, mut blocks) = (0, 0);
        for span in pattern.spans(&site, grid.queries(q_block)).iter().filter(|span| !span.keys.is_empty()) {
            let last = span.keys.end.div_ceil(grid.block_k);
            blocks += last - next.max(span.keys.start / grid.block_k).min(last);
            next = last;
        }
        blocks as u64
    };
    sample.map(blocks).sum::<u64>() * (grid.block_q * grid.block_k) as u64
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
