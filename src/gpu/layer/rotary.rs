//! Rotary embedding.

use super::{LayerCall, check_separate, items};
use crate::gpu::Kernels;
use crate::gpu::bind::checked_binding;
use crate::gpu::params::RotaryParams;
use crate::gpu::pipeline::{Pipeline, Step, Use, Work};
use crate::wgsl::RotaryVariant;
use crate::{ElementType, Result, RotaryPairs, RotaryShape};
use std::sync::Arc;

/// A planned rotary embedding: made by [`Kernels::rotary`].
#[derive(Debug, Clone)]
pub struct RotaryPlan {
    kernels: Kernels,
    shape: RotaryShape,
    pipeline: Arc<Pipeline>,
    work: Work,
}

/// The buffers of a rotary embedding. All need `BufferUsages::STORAGE`; out may not be a buffer that is also read.
#[derive(Debug, Clone)]
pub struct RotaryBuffers<'a> {
    /// x `[B, H, L, d]`.
    pub x: wgpu::BufferBinding<'a>,
    /// The cosines, f32, [`RotaryShape::len_table`] of them.
    pub cos: wgpu::BufferBinding<'a>,
    /// The sines, f32, as many.
    pub sin: wgpu::BufferBinding<'a>,
    /// out `[B, H, L, d]`.
    pub out: wgpu::BufferBinding<'a>,
}

impl Kernels {
    /// Plans a rotary embedding.
    ///
    /// # Errors
    /// As [`RotaryShape::check`]; [`Error::Device`](crate::Error::Device) for what wgpu reports while compiling.
    ///
    /// ```no_run
    /// use wgpu_attention::{Kernels, RotaryBuffers, RotaryShape};
    /// # fn example(kernels: &Kernels, encoder: &mut wgpu::CommandEncoder, buffers: [&wgpu::Buffer; 4])
    /// # -> wgpu_attention::Result<()> {
    /// // Upload `rotary_tables(128, 64, 10000.0)` as cos and sin.
    /// let [x, cos, sin, out] = buffers.map(wgpu::Buffer::as_entire_buffer_binding);
    /// let plan = kernels.rotary(&RotaryShape::new(1, 8, 128, 64))?;
    /// plan.bind(RotaryBuffers { x, cos, sin, out })?.encode(encoder);
    /// # Ok(())
    /// # }
    /// ```
    pub fn rotary(&self, shape: &RotaryShape) -> Result<RotaryPlan> {
        shape.check()?;
        let out = shape.strides_of_out();
        let variant = RotaryVariant {
            interleaved: shape.pairs == RotaryPairs::Interleaved,
            input: shape.input,
            output: shape.output,
            aligned_out: [shape.head_dim, out.batch, out.head, out.row].iter().all(|n| n.is_multiple_of(4)),
        };
        let groups = (shape.batch * shape.heads * shape.len) as u128 * shape.head_dim.div_ceil(4) as u128;
        let items = items("the rotary embedding", groups.div_ceil(RotaryVariant::LANES as u128))?;
        let uses = [Use::Read, Use::Read, Use::Read, Use::Write];
        let pipeline = self.pipeline(variant.shader(), size_of::<RotaryParams>(), &uses)?;
        let a_dispatch = (self.options().dispatch_flops / 1024.0).clamp(1.0, u32::MAX as f64) as u32;
        Ok(RotaryPlan { kernels: self.clone(), shape: *shape, pipeline, work: Work { items, a_dispatch } })
    }
}

impl RotaryPlan {
    /// The shape that was planned.
    pub fn shape(&self) -> &RotaryShape {
        &self.shape
    }

    /// Checks the buffers and binds them: nothing is recorded yet.
    ///
    /// # Errors
    /// As [`MatmulPlan::bind`](super::MatmulPlan::bind).
    pub fn bind(&self, buffers: RotaryBuffers<'_>) -> Result<LayerCall> {
        let (shape, device) = (&self.shape, self.kernels.device());
        let label = "rotary";
        if shape.is_empty() {
            return Ok(LayerCall { label, steps: vec![] });
        }
        let limits = device.limits();
        let f32 = ElementType::F32;
        let x = checked_binding(&limits, "x", &buffers.x, shape.len_x(), shape.input)?;
        let cos = checked_binding(&limits, "cos", &buffers.cos, shape.len_table(), f32)?;
        let sin = checked_binding(&limits, "sin", &buffers.sin, shape.len_table(), f32)?;
        let out = checked_binding(&limits, "out", &buffers.out, shape.len_out(), shape.output)?;
        check_separate("out", &out, &[("x", Some(&x)), ("cos", Some(&cos)), ("sin", Some(&sin))])?;
        let (from, to) = (shape.strides_of_x(), shape.strides_of_out());
        let table = if shape.tables_per_item { shape.len * (shape.rotary_dim / 2) } else { 0 };
        let params = RotaryParams {
            first_work: 0,
            end_work: 0,
            rows: (shape.batch * shape.heads * shape.len) as u32,
            heads: shape.heads as u32,
            len: shape.len as u32,
            head_dim: shape.head_dim as u32,
            rotary_dim: shape.rotary_dim as u32,
            x_batch: from.batch as u32,
            x_head: from.head as u32,
            x_row: from.row as u32,
            table_batch: table as u32,
            out_batch: to.batch as u32,
            out_head: to.head as u32,
            out_row: to.row as u32,
        };
        let steps = vec![Step::new(device, &self.pipeline, params, self.work, &[x, cos, sin, out])?];
        Ok(LayerCall { label, steps })
    }
}
