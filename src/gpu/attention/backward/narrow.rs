//! Gradients in 16 bits under a mask of several parts, which add up: they do so in f32, in scratch, and one more kernel brings the
//! sums to the gradient's type and place. Those of Linformer's keys take it too, where masked rows become 0.

use super::Gradients;
use crate::gpu::bindings::Bindings;
use crate::gpu::kernels::Kernels;
use crate::gpu::params::{NarrowParams, Params};
use crate::gpu::pipeline::{Pipeline, Step, Work};
use crate::uniform::Rows;
use crate::wgsl::NarrowVariant;
use crate::{AttentionShape, ElementType, Layout, Result, Strides};
use std::sync::Arc;

/// The last step of one gradient.
#[derive(Debug)]
pub(in crate::gpu) struct Narrow {
    pipeline: Arc<Pipeline>,
    params: Params,
    work: Work,
    /// Bytes of the sums.
    pub(in crate::gpu) bytes: u64,
}

/// How the parts of a mask add up: as the gradients are stored, or in f32, each row behind the other, where they are narrower.
pub(super) fn sums(gradients: &Gradients, several: bool) -> Gradients {
    let mut sums = *gradients;
    if several && sums.dq != ElementType::F32 {
        (sums.dq, sums.dq_layout) = (ElementType::F32, Layout::default());
    }
    if several && sums.dkv != ElementType::F32 {
        sums.dkv = ElementType::F32;
        (sums.dk_layout, sums.dv_layout) = (Layout::default(), Layout::default());
    }
    sums
}

/// The last steps of dq, dk and dv, of those whose sums are not the gradient itself.
pub(super) fn steps(
    kernels: &Kernels,
    shape: &AttentionShape,
    gradients: &Gradients,
    several: bool,
) -> Result<[Option<Narrow>; 3]> {
    let [dq, dk, dv, _] = gradients.strides(shape);
    let narrow = |strides, gradient, [heads, len, dim]: [usize; 3]| {
        let is_needed = several && gradient != ElementType::F32 && shape.batch * heads * len > 0;
        let sizes = [shape.batch, heads, len, dim];
        is_needed.then(|| Narrow::new(kernels, strides, gradient, sizes, false)).transpose()
    };
    Ok([
        narrow(dq, gradients.dq, [shape.heads, shape.q_len, shape.head_dim])?,
        narrow(dk, gradients.dkv, [shape.kv_heads, shape.kv_len, shape.head_dim])?,
        narrow(dv, gradients.dkv, [shape.kv_heads, shape.kv_len, shape.value_dim])?,
    ])
}

impl Narrow {
    /// Of rows `[batch, heads, len, dim]`; with a key mask `[batch, len]`, 0 where masked.
    pub(in crate::gpu) fn new(
        kernels: &Kernels,
        strides: Strides,
        gradient: ElementType,
        [batch, heads, len, dim]: [usize; 4],
        key_mask: bool,
    ) -> Result<Self> {
        let aligned = strides.is_aligned() && dim.is_multiple_of(4);
        let rows = batch * heads * len;
        let kernel =
            NarrowParams { rows: rows as u32, heads: heads as u32, len: len as u32, ..Default::default() };
        let items = (rows * dim.div_ceil(4)).div_ceil(NarrowVariant::LANES) as u128;
        Ok(Self {
            pipeline: kernels.pipeline(NarrowVariant { dim, gradient, aligned, key_mask }.shader())?,
            params: Params::default().with("kernel", kernel).with("out", Rows::from(strides)),
            work: kernels.work("backward", items, NarrowVariant::LANES as f64)?,
            bytes: 4 * (rows * dim) as u64,
        })
    }

    pub(super) fn pipeline(&self) -> &Arc<Pipeline> {
        &self.pipeline
    }

    /// Dispatches of a call that asks for the gradient.
    pub(super) fn dispatches(&self) -> usize {
        self.work.dispatches().count()
    }

    /// From the sums to the gradient.
    pub(in crate::gpu) fn step(
        &self,
        device: &wgpu::Device,
        sums: wgpu::BufferBinding<'_>,
        gradient: wgpu::BufferBinding<'_>,
        key_mask: Option<wgpu::BufferBinding<'_>>,
    ) -> Result<Step> {
        let bindings = Bindings::default().with("sums", sums).with("out", gradient);
        let bindings = bindings.with_some("key_mask", key_mask);
        Step::new(device, &self.pipeline, &self.params, self.work, &bindings)
    }
}
