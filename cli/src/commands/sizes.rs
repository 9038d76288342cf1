//! Lengths and blocks as arguments.

use clap::Args;
use wgpu_attention::BlockGrid;

/// The sizes of a mask.
#[derive(Debug, Args)]
pub(super) struct Sizes {
    /// Queries
    #[arg(long, value_name = "N")]
    pub(super) len: usize,
    /// Keys, where they are not as many as the queries
    #[arg(long, value_name = "N")]
    kv_len: Option<usize>,
    /// Query heads
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) heads: usize,
    /// Batch items
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) batch: usize,
    /// Queries and keys of a block: a power of two from 16 to 256
    #[arg(long, value_name = "N", default_value_t = 64)]
    block: usize,
}

impl Sizes {
    /// Keys.
    pub(super) fn kv_len(&self) -> usize {
        self.kv_len.unwrap_or(self.len)
    }

    /// The same sizes as the library takes them.
    pub(super) fn grid(&self) -> BlockGrid {
        BlockGrid::new(self.len, self.kv_len())
            .heads(self.heads)
            .batch(self.batch)
            .blocks(self.block, self.block)
    }
}
