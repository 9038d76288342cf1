//! What could be fast, and the least time it could take.

use super::Tuning;
use crate::mask::Parts;
use crate::wgsl::{GpuFamily, Tile, TileKind, TileLimits};
use crate::{Attention, Gpu, KernelPath};

/// The candidates of a call.
pub(super) struct Candidates<'a> {
    gpu: &'a Gpu,
    attention: &'a Attention,
    parts: &'a Parts,
    own: Tuning,
    /// Rows and keys of the parts' smallest blocks.
    block: [usize; 2],
}

impl<'a> Candidates<'a> {
    pub(super) fn new(gpu: &'a Gpu, attention: &'a Attention, parts: &'a Parts, own: Tuning) -> Self {
        let grids = || parts.parts().iter().map(|part| part.mask.grid());
        let block_q = grids().map(|grid| grid.block_q).min().unwrap_or(1);
        let block_k = grids().map(|grid| grid.block_k).min().unwrap_or(1);
        Self { gpu, attention, parts, own, block: [block_q, block_k] }
    }

    /// Tiles other than the plan's own: of each kind that the device can run, for small and large workgroup memory, as each family of GPUs
    /// wants them, with as many rows as a block has, and fewer.
    pub(super) fn tiles(&self) -> Vec<Tile> {
        let kernels = self.gpu.kernels();
        let options = kernels.options();
        if options.tile.is_some() {
            return vec![];
        }
        let mut tiles = vec![];
        for kind in self.kinds() {
            let most = kernels.limits_of(kind);
            let small = TileLimits { workgroup_bytes: most.workgroup_bytes.min(16384), ..most };
            for limits in [most, small].into_iter().flat_map(|limits| self.families(limits)) {
                let mut rows = self.block[0];
                while rows >= 8 {
                    let [_, keys] = self.block;
                    let tile = Tile::choose(
                        self.attention.shape.head_dim,
                        self.attention.shape.value_dim,
                        rows,
                        keys,
                        limits,
                    );
                    let tile = tile.ok().map(|tile| match options.matrix_sums {
                        Some(sums) => tile.matrix_sums(sums),
                        None => tile,
                    });
                    tiles.extend(tile.filter(|tile| *tile != self.own.tile && !tiles.contains(tile)));
                    rows /= 2;
                }
            }
        }
        tiles
    }

    /// The limits as each family of GPUs would use them, unless the caller forces one or the kind is not staged.
    fn families(&self, limits: TileLimits) -> Vec<TileLimits> {
        match (limits.kind, self.gpu.kernels().options().gpu_family) {
            (TileKind::Staged, None) => {
                GpuFamily::ALL.into_iter().map(|family| TileLimits { family, ..limits }).collect()
            }
            _ => vec![limits],
        }
    }

    fn kinds(&self) -> Vec<TileKind> {
        let kernels = self.gpu.kernels();
        let options = kernels.options();
        if let Some(kind) = options.tile_kind {
            return vec![kind];
        }
        let mut kinds = vec![];
        if options.path != Some(KernelPath::Cooperative) {
            kinds.push(TileKind::Staged);
            if kernels.compiles_direct_tiles() {
                kinds.push(TileKind::Direct);
            }
        }
        if options.path != Some(KernelPath::Scalar) {
            kinds.extend(kernels.matrices(self.attention).ok().map(TileKind::Cooperative));
        }
        kinds
    }

    /// Splits other than the plan's own.
    pub(super) fn splits(&self) -> Vec<usize> {
        if self.gpu.kernels().options().splits.is_some() {
            return vec![];
        }
        let own = self.own.splits;
        let mut splits = vec![own / 2, 2 * own, 4 * own];
        splits.retain(|&splits| splits > 0 && splits != own && splits <= 64);
        splits
    }

    /// Floating-point operations of a candidate, with what it computes beyond the visited pairs: rows of a tile past the
    /// last, keys of a tile past the block's.
    pub(super) fn flops(&self, tuning: Tuning) -> f64 {
        let (rows, keys) = (tuning.tile.rows(), tuning.tile.keys());
        let part_flops = |part: &crate::Part| {
            let grid = part.mask.grid();
            let times = (self.attention.shape.batch * self.attention.shape.heads) as f64
                / (grid.batch * grid.heads) as f64;
            let idle_rows = grid.q_len.next_multiple_of(rows) as f64 / grid.q_len.max(1) as f64;
            let idle_keys = grid.block_k.next_multiple_of(keys) as f64 / grid.block_k as f64;
            self.attention.flops(part.mask.visited()) * times * idle_rows * idle_keys
        };
        self.parts.parts().iter().map(part_flops).sum()
    }
}
