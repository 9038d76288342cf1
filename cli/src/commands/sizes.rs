//! Lengths and blocks as arguments.

use crate::element::Dtype;
use crate::score::ScoreArgs;
use clap::Args;
use wgpu_attention::{Attention, AttentionShape, BlockGrid, ElementType, Storage};

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
    /// Queries and keys of a block: a power of two from 16 to 256; 64 unless given
    #[arg(long, value_name = "N")]
    pub(super) block: Option<usize>,
}

impl Sizes {
    /// Keys.
    pub(super) fn kv_len(&self) -> usize {
        self.kv_len.unwrap_or(self.len)
    }

    /// The same sizes as the library takes them.
    pub(super) fn grid(&self) -> BlockGrid {
        let block = self.block.unwrap_or(64);
        BlockGrid::new(self.len, self.kv_len()).heads(self.heads).batch(self.batch).blocks(block, block)
    }
}

/// The sizes of a whole call.
#[derive(Debug, Args)]
pub(super) struct CallArgs {
    #[command(flatten)]
    pub(super) sizes: Sizes,
    /// Key and value heads; as many as query heads unless given
    #[arg(long, value_name = "N")]
    kv_heads: Option<usize>,
    /// Elements of a query and of a key
    #[arg(long, value_name = "N", default_value_t = 64)]
    head_dim: usize,
    /// Elements of a value; as many as of a key unless given
    #[arg(long, value_name = "N")]
    value_dim: Option<usize>,
    /// Element type of all tensors
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    dtype: Dtype,
    /// Element type of k and v, where it is another
    #[arg(long, value_name = "TYPE")]
    kv_dtype: Option<Dtype>,
    #[command(flatten)]
    score: ScoreArgs,
}

impl CallArgs {
    /// The call.
    pub(super) fn attention(&self) -> Attention {
        let dtype = ElementType::from(self.dtype);
        AttentionShape::new(self.sizes.batch, self.sizes.heads, self.sizes.len, self.head_dim)
            .kv_len(self.sizes.kv_len())
            .kv_heads(self.kv_heads.unwrap_or(self.sizes.heads))
            .value_dim(self.value_dim.unwrap_or(self.head_dim))
            .score(self.score.score())
            .storage(Storage::all(dtype).kv(self.kv_dtype.map_or(dtype, ElementType::from)))
    }
}
