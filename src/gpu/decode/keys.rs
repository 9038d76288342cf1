//! How queries and keys are cut into workgroups, and what `decode.wgsl` is told: over a cache, and over packed sequences.

use crate::gpu::attention::q_scale;
use crate::gpu::kernels::Kernels;
use crate::gpu::params::{CacheParams, DecodeParams};
use crate::wgsl::DecodeVariant;
use crate::{Attention, DecodeShape, Error, PackedShape, Result};

/// The sizes of a call of `decode.wgsl`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// B.
    pub(super) batch: usize,
    heads: usize,
    kv_heads: usize,
    /// New positions per sequence, or rows of all of them where they lie packed.
    new: usize,
    packed: bool,
    /// Keys of a sequence, at most.
    capacity: usize,
    pages: usize,
    head_dim: usize,
    value_dim: usize,
    before: Option<usize>,
    after: Option<usize>,
    sinks: usize,
}

/// How they are cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// Rows of a tile.
    pub(super) tile_rows: usize,
    /// Among how many workgroups the keys of a row are split.
    pub(super) splits: usize,
}

impl From<&DecodeShape> for Sizes {
    fn from(shape: &DecodeShape) -> Self {
        let cache = &shape.cache;
        Self {
            batch: cache.batch,
            heads: shape.heads,
            kv_heads: cache.kv_heads,
            new: shape.new,
            packed: shape.packed,
            capacity: cache.capacity,
            pages: cache.paging.map_or(0, |paging| paging.pages),
            head_dim: cache.head_dim,
            value_dim: cache.value_dim,
            before: shape.window,
            after: Some(0),
            sinks: shape.sinks,
        }
    }
}

impl From<&PackedShape> for Sizes {
    fn from(shape: &PackedShape) -> Self {
        Self {
            batch: shape.sequences,
            heads: shape.heads,
            kv_heads: shape.kv_heads,
            new: shape.q_rows,
            packed: true,
            capacity: shape.kv_rows,
            pages: 0,
            head_dim: shape.head_dim,
            value_dim: shape.value_dim,
            before: shape.before,
            after: shape.after,
            sinks: shape.sinks,
        }
    }
}

/// Two per core: what a split costs beside its keys, its own start and its part of the merge, is then least, and a core that
/// is late holds up half of its work.
fn workgroups_of_a_cpu() -> usize {
    2 * std::thread::available_parallelism().map_or(32, usize::from)
}

impl Sizes {
    /// Into tiles of rows, and their keys into enough splits to fill the device, whatever the lengths.
    pub(super) fn cut(&self, kernels: &Kernels) -> Result<Cut> {
        let new = if self.packed { self.new.div_ceil(self.batch) } else { self.new };
        let rows = self.heads / self.kv_heads * new;
        let tile_rows = 4 * DecodeVariant::row_groups(rows, self.head_dim, self.value_dim);
        let [workgroups, _] = self.tiles(tile_rows);
        let chunks = self.capacity.div_ceil(DecodeVariant::CHUNK);
        let splits = match kernels.options().splits {
            Some(splits) if (1..=chunks).contains(&splits) => splits,
            Some(splits) => {
                let need = format!("1 to {chunks} (one per {} keys)", DecodeVariant::CHUNK);
                return Err(Error::argument("splits", need, splits));
            }
            None => {
                let enough = if kernels.computes_on_a_cpu() { workgroups_of_a_cpu() } else { 1024 };
                (enough / workgroups.max(1)).clamp(1, chunks)
            }
        };
        Ok(Cut { tile_rows, splits })
    }

    /// Tiles of so many rows, of all key heads; and, where each sequence has as many, those of one key head of one sequence.
    fn tiles(&self, tile_rows: usize) -> [usize; 2] {
        let rows = self.heads / self.kv_heads * self.new;
        let of_one = rows.div_ceil(tile_rows);
        // As `tiles_of_packed.wgsl` has it.
        let packed = rows / tile_rows + self.batch + 1;
        let of_all = if self.packed { packed } else { self.batch * of_one };
        [of_all * self.kv_heads, of_one]
    }

    /// The states of all splits, in bytes, and their rows.
    pub(super) fn scratch_sizes(&self, cut: Cut, rows: usize) -> [u64; 2] {
        let rows = rows as u64 * cut.splits as u64;
        [8 * rows, 16 * rows * self.value_dim.div_ceil(4) as u64]
    }

    /// Workgroups, and about how many floating-point operations one of them has.
    pub(super) fn work(&self, cut: Cut) -> (u128, f64) {
        let pairs = cut.tile_rows * self.capacity.div_ceil(cut.splits);
        let [tiles, _] = self.tiles(cut.tile_rows);
        (tiles as u128 * cut.splits as u128, 2.0 * (self.head_dim + self.value_dim) as f64 * pairs as f64)
    }

    pub(super) fn kernel_params(&self, cut: Cut, attention: &Attention) -> DecodeParams {
        let [_, row_tiles] = self.tiles(cut.tile_rows);
        // As far as any window reaches. What the kernel adds up then stays below 2^32: rows have bytes that do.
        let all = self.capacity + self.new;
        let clamped = |n: Option<usize>| n.map_or(all, |n| n.min(all)) as u32;
        DecodeParams {
            row_tiles: row_tiles as u32,
            splits: cut.splits as u32,
            heads: self.heads as u32,
            heads_per_kv_head: (self.heads / self.kv_heads) as u32,
            before: clamped(self.before),
            after: clamped(self.after),
            sinks: clamped(Some(self.sinks)),
            q_scale: q_scale(attention, false),
            ..Default::default()
        }
    }

    pub(super) fn cache_params(&self) -> CacheParams {
        CacheParams {
            capacity: self.capacity as u32,
            kv_heads: self.kv_heads as u32,
            most_new: self.new as u32,
            pages: self.pages as u32,
            batch: self.batch as u32,
        }
    }
}
