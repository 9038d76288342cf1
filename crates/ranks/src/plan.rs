//! Who holds what, and how long to wait.

use std::time::Duration;
use wgpu_attention::AttentionShape;
use wgpu_attention::ranks::Assignment;

/// Who holds which rows, how they travel, how long a rank waits for another.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// Who holds which queries, and rows of out and dq.
    pub queries: Assignment,
    /// Who holds which keys and values, and rows of dk and dv.
    pub keys: Assignment,
    /// Keys of a block: those of a block travel together. A power of two from 16 to 256.
    pub block: usize,
    /// How long a rank waits for messages before it gives up, beside its own computing. It has to be longer than the others compute in
    /// a step.
    pub limit: Duration,
    /// Whether rows may go to all ranks where that is less to send, as [`Sharing`](wgpu_attention::ranks::Sharing) says: queries that attend nearly
    /// everything, in place of the keys, and keys that all ranks ask for.
    pub share: bool,
}

/// Rows of a block, unless another size is chosen.
const BLOCK: usize = 64;

/// As long as any step of a sane call.
const LIMIT: Duration = Duration::from_secs(120);

impl Plan {
    /// Any assignment of queries and keys.
    pub fn new(queries: Assignment, keys: Assignment) -> Self {
        Self { queries, keys, block: BLOCK, limit: LIMIT, share: true }
    }

    /// Contiguous rows in blocks of 64: for windows, and whatever else looks at neighbours.
    ///
    /// # Errors
    /// [`Error::Argument`](wgpu_attention::Error::Argument) for no rank.
    pub fn contiguous(shape: &AttentionShape, ranks: usize) -> wgpu_attention::Result<Self> {
        let rows = |len| Assignment::contiguous(len, BLOCK, ranks);
        Ok(Self::new(rows(shape.q_len)?, rows(shape.kv_len)?))
    }

    /// Two stripes of blocks of 64 per rank, an early one and a late one: for causal masks.
    ///
    /// # Errors
    /// As [`contiguous`](Self::contiguous).
    pub fn zig_zag(shape: &AttentionShape, ranks: usize) -> wgpu_attention::Result<Self> {
        let rows = |len| Assignment::zig_zag(len, BLOCK, ranks);
        Ok(Self::new(rows(shape.q_len)?, rows(shape.kv_len)?))
    }

    /// Sets the keys of a block.
    pub fn block(self, block: usize) -> Self {
        Self { block, ..self }
    }

    /// Sets whether rows may go to all ranks.
    pub fn share(self, share: bool) -> Self {
        Self { share, ..self }
    }

    /// Sets how long a rank waits.
    pub fn limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }
}
