//! One part of a pass: its mask on the device, its parameters, and how its work is cut.

use super::Gradients;
use crate::gpu::kernels::Kernels;
use crate::gpu::loads::Loads;
use crate::gpu::params::{BackwardParams, KeepParams, Params};
use crate::gpu::pipeline::Work;
use crate::mask::Part;
use crate::uniform::Rows;
use crate::wgsl::{BackwardRows, BackwardVariant, Tile, TileKind};
use crate::{Attention, Result};

/// The mask and orders of a part on the device, and where its tables begin.
pub(super) type Tables = (wgpu::Buffer, KeepParams);

#[derive(Debug, Clone)]
pub(super) struct PassPart {
    pub(super) tables: wgpu::Buffer,
    pub(super) params: Params,
    pub(super) work: Work,
}

/// How the lanes of a workgroup share a part: not many more rows than there are.
pub(super) fn tile(
    kernels: &Kernels,
    attention: &Attention,
    part: &Part,
    rows: BackwardRows,
    kind: TileKind,
) -> Result<Tile> {
    let (shape, grid) = (&attention.shape, part.mask.grid());
    let most = grid.q_len.next_power_of_two().max(kind.least_rows()).min(grid.block_q.min(64));
    rows.tile(
        [shape.head_dim, shape.value_dim],
        [most, grid.block_k],
        &attention.score,
        kernels.limits_of(kind),
    )
}

impl PassPart {
    pub(super) fn new(
        kernels: &Kernels,
        attention: &Attention,
        gradients: &Gradients,
        part: &Part,
        variant: &BackwardVariant,
        (tables, keep): Tables,
    ) -> Result<Self> {
        let (shape, grid) = (&attention.shape, part.mask.grid());
        let row_tiles = grid.q_len.div_ceil(variant.tile.rows());
        let group = shape.heads / shape.kv_heads;
        let (dim, relative) = (shape.head_dim, attention.relative_dim());
        let computed = attention.computed_heads();
        let key_heads = match attention.heads.chosen() {
            Some(_) => attention.heads.of_key_heads(shape).len(),
            None => shape.kv_heads,
        };
        let (heads, walks, flops) = match variant.rows {
            BackwardRows::Queries => (computed, 1, 4 * (dim + relative) + 2 * shape.value_dim),
            // Every lane looks at every pair.
            BackwardRows::Tensor(_) => (computed, 1, 8 * (dim + relative + shape.value_dim) + 256),
            BackwardRows::Keys { .. } => (key_heads, group, 4 * (dim + shape.value_dim) + 2 * relative),
        };
        let kernel = BackwardParams {
            row_tiles: row_tiles as u32,
            tiles_per_split: u32::MAX,
            heads: shape.heads as u32,
            heads_per_kv_head: group as u32,
            q_len: shape.q_len as u32,
            kv_len: shape.kv_len as u32,
            q_count: grid.q_len as u32,
            k_count: grid.kv_len as u32,
            q_scale: super::super::tables::q_scale(attention, !attention.score.is_plain()),
            scale: attention.scale_value(),
            records: shape.len_lse() as u32,
            batch: shape.batch as u32,
            ..Default::default()
        };
        let [dq, dk, dv, dout] = gradients.strides(shape).map(Rows::from);
        let params = Params::default().with("kernel", kernel).with("keep", keep).with_rows(attention);
        let mut params = params.with_terms(attention);
        for (name, rows) in [("dq", dq), ("dk", dk), ("dv", dv), ("dout", dout)] {
            params = params.with(name, rows);
        }
        let items = (row_tiles * heads * shape.batch) as u128;
        let tile = variant.tile;
        let loads = Loads::of_part(part, &tile, 1, |pairs| (walks * flops) as f64 * pairs as f64);
        Ok(Self { tables, params, work: kernels.work("backward", items, loads)? })
    }
}
