//! The end of a call of several parts, rounds or splits: splits merged, lse written, f32 rows brought to 16 bits.

use super::aligned_out;
use crate::gpu::bindings::Bindings;
use crate::gpu::params::{MergeParams, Params};
use crate::gpu::pipeline::{Pipeline, Step, Work};
use crate::uniform::Rows;
use crate::wgsl::MergeVariant;
use crate::{Attention, Result, Strides};

/// What a merge reads and writes.
pub(in crate::gpu) struct Merge<'a> {
    /// The state (m, l) of all rows, once per split.
    pub(in crate::gpu) state: wgpu::BufferBinding<'a>,
    /// Their rows in f32, where they are not in out already.
    pub(in crate::gpu) merged: Option<wgpu::BufferBinding<'a>>,
    pub(in crate::gpu) out: wgpu::BufferBinding<'a>,
    /// Where (m, l) over all splits goes, if the kernel writes it.
    pub(in crate::gpu) total: Option<wgpu::BufferBinding<'a>>,
    /// Where lse goes, if it is wanted.
    pub(in crate::gpu) lse: Option<wgpu::BufferBinding<'a>>,
    /// Where some heads are computed: the mask that lists them, and where.
    pub(in crate::gpu) heads: Option<(wgpu::BufferBinding<'a>, u32)>,
}

/// The shader of a merge that writes rows, lse, or both.
pub(in crate::gpu) fn variant(attention: &Attention, rows: bool, lse: bool) -> MergeVariant {
    MergeVariant {
        value_dim: attention.shape.value_dim,
        output: attention.storage.out,
        rows,
        aligned_out: aligned_out(attention),
        lse,
        total: false,
        base_e: !attention.score.is_plain(),
        chosen_heads: attention.heads.chosen().is_some(),
    }
}

impl Merge<'_> {
    /// The step of a merge of so many splits.
    pub(in crate::gpu) fn step(
        &self,
        device: &wgpu::Device,
        pipeline: &Pipeline,
        attention: &Attention,
        splits: usize,
    ) -> Result<Step> {
        self.step_to(device, pipeline, attention, splits, attention.out_strides())
    }

    /// The same, of rows that lie otherwise than out.
    pub(in crate::gpu) fn step_to(
        &self,
        device: &wgpu::Device,
        pipeline: &Pipeline,
        attention: &Attention,
        splits: usize,
        out: Strides,
    ) -> Result<Step> {
        let shape = &attention.shape;
        let computed = shape.batch * attention.computed_heads() * shape.q_len;
        let kernel = MergeParams {
            rows: shape.len_lse() as u32,
            splits: splits as u32,
            heads: shape.heads as u32,
            q_len: shape.q_len as u32,
            computed: computed as u32,
            heads_at: self.heads.as_ref().map_or(0, |(_, at)| *at),
            ..Default::default()
        };
        let params = Params::default().with("kernel", kernel).with("out", Rows::from(out));
        let lanes = computed * shape.value_dim.div_ceil(4);
        let items = lanes.div_ceil(MergeVariant::LANES) as u32;
        let buffers = Bindings::default()
            .with("state", self.state.clone())
            .with_some("mask", self.heads.as_ref().map(|(mask, _)| mask.clone()))
            .with_some("merged", self.merged.clone())
            .with("out", self.out.clone())
            .with_some("total", self.total.clone())
            .with_some("lse", self.lse.clone());
        Step::new(device, pipeline, &params, Work { items, per_dispatch: items }, &buffers)
    }
}
