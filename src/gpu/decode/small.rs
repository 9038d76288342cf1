//! Small problems for the pipelines of decoding and of packed sequences, by which `self_test` judges them: the same kernels on a few sequences and heads,
//! over keys in several chunks, pages and splits.

use super::keys::Cut;
use super::{DecodePlan, PackedPlan};
use crate::gpu::attention::{Pipelines, lying};
use crate::wgsl::DecodeVariant;
use crate::{CacheShape, Error, Layouts, Result};

/// Sequences of a step, key heads, and query heads of each of them, at most: more would be more of the same.
const SEQUENCES: usize = 2;
const KV_HEADS: usize = 2;
const HEADS_PER_KV_HEAD: usize = 3;

/// New positions per sequence, and rows of a packed step, at most.
const NEW: usize = 3;
const ROWS: usize = 6;

/// Keys of the long sequence, at least: two chunks and a part of one, dealt to two splits.
const KEYS: usize = 2 * DecodeVariant::CHUNK + 41;
const SPLITS: usize = 2;

/// How far a window reaches, at most: back to the middle of a chunk, before which one has sinks alone; ahead not as far as the last of the queries.
const BEFORE: usize = DecodeVariant::CHUNK / 2 + 20;
const AFTER: usize = 1;
const SINKS: usize = 3;

/// Positions of a page of which the long sequence has more than one.
const MOST_PAGE: usize = 1024;

/// Queries and keys of packed sequences. The last has more queries than keys; a row of queries and one of keys behind it are nobody's.
pub(crate) const PACKED: [[usize; 2]; 3] = [[3, KEYS], [2, 37], [3, 1]];

impl DecodePlan {
    /// A plan of a small step that runs this plan's pipelines.
    pub(crate) fn small(&self) -> Result<Self> {
        let large = &self.shape;
        let mut shape = *large;
        shape.cache.batch = large.cache.batch.min(SEQUENCES);
        shape.cache.kv_heads = large.cache.kv_heads.min(KV_HEADS);
        shape.heads = few_heads(large.heads, large.cache.kv_heads);
        shape.new = large.new.min(if large.packed { ROWS } else { NEW });
        shape.window = large.window.map(|before| before.min(BEFORE));
        shape.sinks = large.sinks.min(SINKS);
        let page = large.cache.paging.map_or(1, |paging| paging.page);
        let keys = if page <= MOST_PAGE { KEYS.max(page + 1) } else { KEYS };
        hold(&mut shape.cache, keys + shape.new);
        let most = self.kernels.device().limits().max_storage_buffer_binding_size;
        if shape.cache.keys_bytes().max(shape.cache.values_bytes()) as u64 > most {
            // The device cannot bind as many keys as a test of several chunks wants: one sequence then, as long as those of the plan.
            shape.cache.batch = 1;
            hold(&mut shape.cache, large.cache.capacity);
        }
        let (rows, of_out) = (large.new_rows(), large.attention().out_strides());
        let (cache, len) = (&shape.cache, shape.new);
        shape.layouts = Layouts {
            q: lying(rows.q_strides(), shape.heads, len, cache.head_dim),
            k: lying(rows.k_strides(), cache.kv_heads, len, cache.head_dim),
            v: lying(rows.v_strides(), cache.kv_heads, len, cache.value_dim),
            out: lying(of_out, shape.heads, len, cache.value_dim),
        };
        shape.check()?;
        let small = self.kernels.decode_cut(&shape, Cut { splits: SPLITS, ..self.inner.cut })?;
        if small.tested() == self.tested() { Ok(small) } else { Err(others()) }
    }

    /// The pipelines of a step.
    pub(in crate::gpu) fn tested(&self) -> Pipelines {
        let inner = &self.inner;
        let appended = [Some(&inner.append_k), inner.append_v.as_ref(), Some(&inner.raise)];
        let attended = [inner.turn_q.as_ref(), Some(&inner.decode), Some(&inner.merge)];
        Pipelines(appended.into_iter().chain(attended).flatten().cloned().collect())
    }
}

impl PackedPlan {
    /// A plan of a small call that runs this plan's pipelines: the first sequences of [`PACKED`].
    pub(crate) fn small(&self) -> Result<Self> {
        let large = &self.shape;
        let mut shape = *large;
        shape.sequences = large.sequences.min(PACKED.len());
        shape.kv_heads = large.kv_heads.min(KV_HEADS);
        shape.heads = few_heads(large.heads, large.kv_heads);
        let [q_rows, kv_rows] =
            [0, 1].map(|n| PACKED[..shape.sequences].iter().map(|of| of[n]).sum::<usize>() + 1);
        (shape.q_rows, shape.kv_rows) = (q_rows, kv_rows);
        shape.before = large.before.map(|before| before.min(BEFORE));
        shape.after = large.after.map(|after| after.min(AFTER));
        shape.sinks = large.sinks.min(SINKS);
        let of = self.attention();
        shape.layouts = Layouts {
            q: lying(of.q_strides(), shape.heads, q_rows, shape.head_dim),
            k: lying(of.k_strides(), shape.kv_heads, kv_rows, shape.head_dim),
            v: lying(of.v_strides(), shape.kv_heads, kv_rows, shape.value_dim),
            out: lying(of.out_strides(), shape.heads, q_rows, shape.value_dim),
        };
        shape.check()?;
        let small = self.kernels.packed_cut(&shape, Cut { splits: SPLITS, ..self.cut })?;
        if small.tested() == self.tested() { Ok(small) } else { Err(others()) }
    }

    /// The pipelines of a call.
    pub(in crate::gpu) fn tested(&self) -> Pipelines {
        Pipelines(vec![self.decode.clone(), self.merge.clone()])
    }
}

/// Makes a cache hold so many positions per sequence.
fn hold(cache: &mut CacheShape, positions: usize) {
    let page = cache.paging.map_or(1, |paging| paging.page);
    cache.capacity = positions.next_multiple_of(page);
    if let Some(paging) = &mut cache.paging {
        paging.pages = cache.batch * (cache.capacity / page);
    }
}

fn few_heads(heads: usize, kv_heads: usize) -> usize {
    kv_heads.min(KV_HEADS) * (heads / kv_heads).min(HEADS_PER_KV_HEAD)
}

fn others() -> Error {
    Error::argument("shape", "a step whose small problem runs the same shaders", "one that runs others")
}
