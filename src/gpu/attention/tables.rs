//! What of a part lies on the device: its mask, its orders, and how its work is cut.

use crate::gpu::bindings::upload;
use crate::gpu::kernels::Kernels;
use crate::gpu::loads::Loads;
use crate::gpu::params::{AttentionParams, KeepParams, Params};
use crate::gpu::pipeline::Work;
use crate::mask::Part;
use crate::schedule::{items, rows_of, tiles_per_split};
use crate::wgsl::AttentionVariant;
use crate::{Attention, Result};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct PartPlan {
    /// The block mask, then the orders, in words.
    pub(super) tables: wgpu::Buffer,
    pub(super) keep: KeepParams,
    pub(super) params: Params,
    pub(super) work: Work,
    /// What the workgroups do.
    pub(super) loads: Loads,
}

impl PartPlan {
    pub(super) fn new(
        kernels: &Kernels,
        attention: &Attention,
        part: &Part,
        variant: &AttentionVariant,
        splits: usize,
    ) -> Result<Self> {
        let (tables, keep) = mask_tables(kernels, attention, part)?;

        let shape = &attention.shape;
        let rows = rows_of(shape, part, variant.packed);
        let kernel = AttentionParams {
            row_tiles: rows.div_ceil(variant.tile.rows()) as u32,
            splits: splits as u32,
            tiles_per_split: tiles_per_split(part, &variant.tile, splits) as u32,
            q_count: rows as u32,
            k_count: part.mask.grid().kv_len as u32,
            q_scale: q_scale(attention, variant.base_e()),
            ..AttentionParams::of_sizes(attention)
        };
        let params = Params::default().with("kernel", kernel).with("keep", keep);
        let params = params.with_rows(attention).with_terms(attention);

        let items = (items(attention, part, variant.packed, &variant.tile) * splits) as u128;
        let loads = Loads::of_part(part, &variant.tile, splits, |pairs| attention.flops(pairs));
        let work = kernels.work("attention", items, loads.clone())?;
        Ok(Self { tables, keep, params, work, loads })
    }
}

/// The mask of a part, its orders, and the heads that are computed if not all are, on the device, and where its tables begin.
pub(super) fn mask_tables(
    kernels: &Kernels,
    attention: &Attention,
    part: &Part,
) -> Result<(wgpu::Buffer, KeepParams)> {
    let packed = part.mask.packed();
    let mut words = packed.words;
    let mut append = |order: &Option<Arc<[u32]>>| {
        let at = words.len() as u32;
        words.extend(order.iter().flat_map(|order| order.iter()));
        at
    };
    let keep = KeepParams {
        rows_at: packed.rows_at,
        runs_at: packed.runs_at,
        tiles_at: packed.tiles_at,
        q_order_at: append(&part.q_order),
        k_order_at: append(&part.k_order),
        batch: packed.batch_stride,
        head: packed.head_stride,
        heads_at: 0,
    };
    let keep = KeepParams { heads_at: words.len() as u32, ..keep };
    words.extend(head_words(attention));
    let tables = upload(kernels.device(), "the block mask", bytemuck::cast_slice(&words))?;
    Ok((tables, keep))
}

/// The heads that are computed, as `heads/chosen.wgsl` reads them; nothing where they are all.
fn head_words(attention: &Attention) -> Vec<u32> {
    let Some(heads) = attention.heads.chosen() else { return vec![] };
    let groups = attention.heads.of_key_heads(&attention.shape);
    let mut words = vec![heads.len() as u32, groups.len() as u32];
    words.extend(heads);
    words.extend(groups.iter().flatten());
    words
}

/// The factor of q: in base 2 from the start where the score is q . k alone.
pub(in crate::gpu) fn q_scale(attention: &Attention, base_e: bool) -> f32 {
    let base = if base_e { 1.0 } else { std::f64::consts::LOG2_E };
    (f64::from(attention.scale_value()) * base) as f32
}
