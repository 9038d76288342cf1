use crate::{AttentionShape, Error, Extent, Result};
use std::ops::Range;

/// How the pairs of a call are cut into blocks: `block_q` queries by `block_k` keys.
///
/// The last block of a side may be short. Sizes are counted in elements.
///
/// ```
/// use wgpu_attention::mask::BlockGrid;
/// let grid = BlockGrid::new(1000, 4096).heads(8).blocks(64, 128);
/// assert_eq!((grid.q_blocks(), grid.k_blocks()), (16, 32));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockGrid {
    /// Batch items, B. May be 0: the mask is empty.
    pub batch: usize,
    /// Query heads, H.
    pub heads: usize,
    /// Queries, Lq. May be 0: the mask is empty.
    pub q_len: usize,
    /// Keys, Lk. May be 0: no row keeps anything.
    pub kv_len: usize,
    /// Queries per block, Br: a power of two from 16 to 256.
    pub block_q: usize,
    /// Keys per block, Bc: a power of two from 16 to 256.
    pub block_k: usize,
}

impl BlockGrid {
    /// One head of one batch item in blocks of 64 x 64.
    pub fn new(q_len: usize, kv_len: usize) -> Self {
        Self { batch: 1, heads: 1, q_len, kv_len, block_q: 64, block_k: 64 }
    }

    /// Sets the number of batch items.
    pub fn batch(mut self, batch: usize) -> Self {
        self.batch = batch;
        self
    }

    /// Sets the number of query heads.
    pub fn heads(mut self, heads: usize) -> Self {
        self.heads = heads;
        self
    }

    /// Sets the queries and the keys of a block.
    pub fn blocks(mut self, block_q: usize, block_k: usize) -> Self {
        self.block_q = block_q;
        self.block_k = block_k;
        self
    }

    /// Blocks of queries, the last of which may be short.
    pub fn q_blocks(&self) -> usize {
        self.q_len.div_ceil(self.block_q)
    }

    /// Blocks of keys, the last of which may be short.
    pub fn k_blocks(&self) -> usize {
        self.kv_len.div_ceil(self.block_k)
    }

    /// The lengths that a [`Pattern`](crate::Pattern) is asked about.
    pub fn extent(&self) -> Extent {
        Extent { batch: self.batch, heads: self.heads, q_len: self.q_len, kv_len: self.kv_len }
    }

    /// Checks the sizes.
    ///
    /// # Errors
    /// [`Error::Argument`] for a block size that is no power of two from 16 to 256 and for no head;
    /// [`Error::Limit`] where an index would pass 32 bits.
    pub fn check(&self) -> Result<()> {
        for (name, size) in [("block_q", self.block_q), ("block_k", self.block_k)] {
            if !(16..=256).contains(&size) || !size.is_power_of_two() {
                return Err(Error::argument(name, "a power of two from 16 to 256", size));
            }
        }
        if self.heads == 0 {
            return Err(Error::argument("heads", "at least 1", 0));
        }
        let sizes =
            [("batch", self.batch), ("heads", self.heads), ("q_len", self.q_len), ("kv_len", self.kv_len)];
        for (name, size) in sizes {
            if size > u32::MAX as usize {
                return Err(Error::limit(name, "the largest 32-bit index", size as u64, u32::MAX as u64));
            }
        }
        Ok(())
    }

    /// The queries of a block.
    pub(super) fn queries(&self, q_block: usize) -> Range<usize> {
        let first = q_block * self.block_q;
        first..(first + self.block_q).min(self.q_len)
    }

    /// The keys of a block.
    pub(super) fn keys(&self, k_block: usize) -> Range<usize> {
        let first = k_block * self.block_k;
        first..(first + self.block_k).min(self.kv_len)
    }

    /// Words of one row of a bit tile.
    pub(super) fn row_words(&self) -> usize {
        self.block_k.div_ceil(32)
    }

    /// Words of a bit tile.
    pub(super) fn tile_words(&self) -> usize {
        self.block_q * self.row_words()
    }

    /// The same pairs with queries and keys exchanged.
    pub(super) fn transpose(&self) -> Self {
        Self { q_len: self.kv_len, kv_len: self.q_len, block_q: self.block_k, block_k: self.block_q, ..*self }
    }
}

impl From<&AttentionShape> for BlockGrid {
    fn from(shape: &AttentionShape) -> Self {
        Self::new(shape.q_len, shape.kv_len).batch(shape.batch).heads(shape.heads)
    }
}

impl From<AttentionShape> for BlockGrid {
    fn from(shape: AttentionShape) -> Self {
        Self::from(&shape)
    }
}
