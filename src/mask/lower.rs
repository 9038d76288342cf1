//! From a pattern to parts: scattered pairs in an order in which they fill their blocks.

use super::{BlockGrid, BlockMask, Part, Parts};
use crate::{Pattern, Result};

impl Parts {
    /// The parts of a pattern: the [`pieces`](Pattern::pieces) that it says it is best cut into, each as a block mask in an
    /// order of its own; one part in natural order where it says none. `Parts::from(BlockMask::new(..)?)` is the same set
    /// without lowering.
    ///
    /// ```
    /// use wgpu_attention::{BlockGrid, BlockMask, Parts, pattern::Strided};
    /// let (pattern, grid) = (Strided::new(128)?, BlockGrid::new(16384, 16384));
    /// let parts = Parts::lower(&pattern, grid)?;
    /// assert_eq!(parts.parts().len(), 2);                     // the local window, and the columns side by side
    /// assert!(parts.waste() < 1.6);                           // visited pairs a kept pair
    /// assert!(BlockMask::new(&pattern, grid)?.waste() > 20.0); // in natural order
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`BlockMask::new`].
    pub fn lower<P: Pattern + ?Sized>(pattern: &P, grid: impl Into<BlockGrid>) -> Result<Self> {
        let grid = grid.into();
        grid.check()?;
        pattern.check(&grid.extent())?;
        let Some(pieces) = pattern.pieces(&grid.extent()) else {
            return Ok(BlockMask::new(pattern, grid)?.into());
        };
        let parts = pieces.into_iter().map(|piece| {
            let [block_q, block_k] = piece.blocks.unwrap_or([grid.block_q, grid.block_k]);
            let places = BlockGrid {
                q_len: piece.q_order.as_ref().map_or(grid.q_len, |order| order.len()),
                kv_len: piece.k_order.as_ref().map_or(grid.kv_len, |order| order.len()),
                block_q,
                block_k,
                ..grid
            };
            let mask = BlockMask::new(&piece.pattern, places)?;
            Ok(Part { mask, q_order: piece.q_order, k_order: piece.k_order })
        });
        Self::new(parts.collect::<Result<_>>()?, grid.extent())
    }
}
