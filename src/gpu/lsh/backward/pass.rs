//! A pass over all rounds: its shaders, its parameters, and how its work is cut.

use super::{groups, whole};
use crate::gpu::attention::{Gradients, q_scale};
use crate::gpu::lsh::LshPlan;
use crate::gpu::params::{BackwardParams, Params};
use crate::gpu::pipeline::{Pipeline, Work};
use crate::uniform::Rows;
use crate::wgsl::{AttentionVariant, BackwardRows, BackwardVariant};
use crate::{ElementType, Result};
use std::sync::{Arc, OnceLock};

#[derive(Debug)]
pub(super) struct Pass {
    /// Of the first round; later ones add to what is there.
    variant: BackwardVariant,
    /// Of the first round, and of the others.
    compiled: OnceLock<[Arc<Pipeline>; 2]>,
}

impl Pass {
    pub(super) fn new(forward: &LshPlan, gradients: &Gradients, rows: BackwardRows) -> Result<Self> {
        let (attention, chunks) = (&forward.attention, &forward.inner.chunks);
        let (shape, storage) = (&attention.shape, attention.storage);
        let most = chunks.chunk.next_power_of_two().clamp(8, 64);
        let sizes = [shape.head_dim, shape.value_dim];
        let tile = rows.tile(sizes, [most; 2], &attention.score, forward.kernels.tile_limits())?;
        let [_, _, dv, dout] = gradients.strides(shape).map(|strides| strides.is_aligned());
        let writes_dv = matches!(rows, BackwardRows::Keys { dv: true, .. });
        // Scratch is made of whole groups; dv itself, which f32 sums go to, may not be.
        let in_place = writes_dv && gradients.dkv == ElementType::F32;
        let variant = BackwardVariant {
            chosen_heads: false,
            rows,
            tile,
            head_dim: shape.head_dim,
            value_dim: shape.value_dim,
            q: storage.q,
            kv: storage.kv,
            dout: gradients.dout,
            gradient: ElementType::F32,
            aligned_q: attention.q_strides().is_aligned() && whole(shape.head_dim),
            aligned_kv: attention.v_strides().is_aligned() && whole(shape.value_dim),
            aligned_dout: dout && whole(shape.value_dim),
            aligned_gradient: !in_place || dv && whole(shape.value_dim),
            block_q: AttentionVariant::ONE_BLOCK,
            block_k: AttentionVariant::ONE_BLOCK,
            q_order: true,
            k_order: true,
            score: attention.score.clone(),
            accumulate: false,
            late_maxima: false,
            chunks: Some(*chunks),
        };
        Ok(Self { variant, compiled: OnceLock::new() })
    }

    /// The same walk, for other gradients.
    pub(super) fn of_rows(&self, rows: BackwardRows) -> Self {
        Self { variant: BackwardVariant { rows, ..self.variant.clone() }, compiled: OnceLock::new() }
    }

    /// Whether the device has as many storage buffers as the pass uses, and a lane as many registers.
    pub(super) fn fits(&self, forward: &LshPlan) -> bool {
        let have = forward.kernels.device().limits().max_storage_buffers_per_shader_stage as usize;
        self.variant.fits_registers() && self.variant.shader().bindings.len() <= have
    }

    /// The pipelines of the first round and of the others.
    pub(super) fn compiled(&self, forward: &LshPlan) -> Result<&[Arc<Pipeline>; 2]> {
        if let Some(compiled) = self.compiled.get() {
            return Ok(compiled);
        }
        let compile = |accumulate| {
            let variant = BackwardVariant { accumulate, ..self.variant.clone() };
            forward.kernels.pipeline(variant.shader())
        };
        let first = compile(false)?;
        let later = if forward.options.rounds > 1 { compile(true)? } else { first.clone() };
        Ok(self.compiled.get_or_init(|| [first, later]))
    }

    /// The parameters and the work of one round.
    pub(super) fn round(
        &self,
        forward: &LshPlan,
        gradients: &Gradients,
        round: usize,
    ) -> Result<(Params, Work)> {
        let (attention, chunks) = (&forward.attention, &forward.inner.chunks);
        let (shape, rows) = (&attention.shape, self.variant.tile.rows());
        let (row_tiles, places) = (forward.row_tiles(round, rows), forward.options.rounds * shape.q_len);
        let kernel = BackwardParams {
            row_tiles: row_tiles as u32,
            tiles_per_split: u32::MAX,
            heads: shape.heads as u32,
            heads_per_kv_head: 1,
            q_len: shape.q_len as u32,
            kv_len: shape.kv_len as u32,
            q_count: places as u32,
            k_count: places as u32,
            q_scale: q_scale(attention, !attention.score.is_plain()),
            scale: attention.scale_value(),
            records: shape.len_lse() as u32,
            batch: shape.batch as u32,
            ..Default::default()
        };
        let [_, _, dv, dout] = gradients.strides(shape).map(Rows::from);
        let sums = |dim| Rows::of_groups(shape.heads, shape.q_len, groups(dim));
        let dv = if gradients.dkv == ElementType::F32 { dv } else { sums(shape.value_dim) };
        let mut params = Params::default().with("kernel", kernel).with("keep", forward.keep(round));
        params = params.with_rows(attention).with_terms(attention);
        for (name, rows) in
            [("dq", sums(shape.head_dim)), ("dk", sums(shape.head_dim)), ("dv", dv), ("dout", dout)]
        {
            params = params.with(name, rows);
        }
        let flops = match self.variant.rows {
            BackwardRows::Queries => 4 * shape.head_dim + 2 * shape.value_dim,
            _ => 4 * (shape.head_dim + shape.value_dim),
        };
        let heaviest = (flops * rows * chunks.seen(places)) as f64;
        let items = row_tiles as u128 * (shape.batch * shape.heads) as u128;
        Ok((params, forward.kernels.work("LSH backward", items, heaviest)?))
    }
}
