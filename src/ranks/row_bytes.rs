//! How many bytes a row is on its way from rank to rank.

use crate::{Attention, AttentionShape, ElementType};

/// What is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pass {
    /// out and lse: keys and values travel, or queries.
    Forward,
    /// The gradients by q, k and v: what travelled does so again, and gradients travel back in f32.
    Backward,
}

/// Bytes of a row of all batch items and heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowBytes {
    /// A query that travels: q; for its gradient dout, out and its state (m, l), too.
    pub(super) query: u64,
    /// What comes back: out and the state over one rank's keys, or dq.
    pub(super) query_back: u64,
    /// A key and its value.
    pub(super) key: u64,
    /// Their gradients.
    pub(super) key_back: u64,
}

impl RowBytes {
    pub(super) fn new(attention: &Attention, pass: Pass) -> Self {
        let AttentionShape { batch, heads, kv_heads, head_dim, value_dim, .. } = attention.shape;
        let storage = attention.storage;
        let bytes =
            |rows: usize, elements: usize, of: ElementType| (rows * elements * of.size_bytes()) as u64;
        let (query_rows, key_rows, f32) = (batch * heads, batch * kv_heads, ElementType::F32);
        let query = bytes(query_rows, head_dim, storage.q);
        let key = bytes(key_rows, head_dim + value_dim, storage.kv);
        match pass {
            Pass::Forward => {
                Self { query, query_back: bytes(query_rows, value_dim + 2, f32), key, key_back: 0 }
            }
            Pass::Backward => Self {
                query: query + bytes(query_rows, 2 * value_dim + 2, f32),
                query_back: bytes(query_rows, head_dim, f32),
                key,
                key_back: bytes(key_rows, head_dim + value_dim, f32),
            },
        }
    }
}
