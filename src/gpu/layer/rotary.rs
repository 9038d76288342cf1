//! Rotary embedding.

use crate::construct::constructed;
use crate::gpu::Kernels;
use crate::gpu::bindings::{Access, Bindings, check_aliasing, checked_binding};
use crate::gpu::call::Call;
use crate::gpu::params::{Params, RotaryParams};
use crate::gpu::pipeline::{Pipeline, Step, Work};
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
#[non_exhaustive]
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

constructed! {
    RotaryBuffers ['a] { x: wgpu::BufferBinding<'a>, cos: wgpu::BufferBinding<'a>, sin: wgpu::BufferBinding<'a>, out: wgpu::BufferBinding<'a> } {  }
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
    /// plan.bind(RotaryBuffers::new(x, cos, sin, out))?.encode(encoder);
    /// # Ok(())
    /// # }
    /// ```
    pub fn rotary(&self, shape: &RotaryShape) -> Result<RotaryPlan> {
        shape.check()?;
        let variant = RotaryVariant {
            interleaved: shape.pairs == RotaryPairs::Interleaved,
            inverse: shape.inverse,
            input: shape.input,
            output: shape.output,
            aligned_out: shape.strides_of_out().is_aligned() && shape.head_dim.is_multiple_of(4),
        };
        let groups = (shape.batch * shape.heads * shape.len) as u128 * shape.head_dim.div_ceil(4) as u128;
        let work =
            self.work("the rotary embedding", groups.div_ceil(RotaryVariant::LANES as u128), 1024.0)?;
        let pipeline = self.pipeline(variant.shader())?;
        Ok(RotaryPlan { kernels: self.clone(), shape: *shape, pipeline, work })
    }
}

impl RotaryPlan {
    /// Plans the gradient by x: pairs turn back by the same tables ([`RotaryShape::inverse`]), so that dout `[B, H, L, d]`, which is
    /// bound as x, lies as out does and has its type, and dx, which is bound as out, those of x.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where rows of x overlap, for those of dx may not;
    /// [`Error::Device`](crate::Error::Device) for what wgpu reports while compiling.
    ///
    /// ```no_run
    /// use wgpu_attention::{Kernels, RotaryBuffers, RotaryShape};
    /// # fn example(kernels: &Kernels, encoder: &mut wgpu::CommandEncoder, buffers: [&wgpu::Buffer; 4])
    /// # -> wgpu_attention::Result<()> {
    /// let [dout, cos, sin, dx] = buffers.map(wgpu::Buffer::as_entire_buffer_binding);
    /// let backward = kernels.rotary(&RotaryShape::new(1, 8, 128, 64))?.backward()?;
    /// backward.bind(RotaryBuffers::new(dout, cos, sin, dx))?.encode(encoder);
    /// # Ok(())
    /// # }
    /// ```
    pub fn backward(&self) -> Result<Self> {
        let shape = &self.shape;
        let back = shape.inverse(!shape.inverse).x_layout(shape.out_layout).out_layout(shape.x_layout);
        self.kernels.rotary(&back.input(shape.output).output(shape.input))
    }

    /// The shape that was planned.
    pub fn shape(&self) -> &RotaryShape {
        &self.shape
    }

    /// Checks the buffers and binds them: nothing is recorded yet.
    ///
    /// # Errors
    /// As [`MatmulPlan::bind`](super::MatmulPlan::bind).
    pub fn bind(&self, buffers: RotaryBuffers<'_>) -> Result<Call> {
        let (shape, device) = (&self.shape, self.kernels.device());
        let label = "rotary";
        if shape.is_empty() {
            return Ok(Call::new(label, []));
        }
        let limits = device.limits();
        let f32 = ElementType::F32;
        let x = checked_binding(&limits, "x", &buffers.x, shape.len_x(), shape.input)?;
        let cos = checked_binding(&limits, "cos", &buffers.cos, shape.len_table(), f32)?;
        let sin = checked_binding(&limits, "sin", &buffers.sin, shape.len_table(), f32)?;
        let out = checked_binding(&limits, "out", &buffers.out, shape.len_out(), shape.output)?;
        let named = [
            ("x", Some(&x), Access::Read),
            ("cos", Some(&cos), Access::Read),
            ("sin", Some(&sin), Access::Read),
            ("out", Some(&out), Access::Write),
        ];
        check_aliasing(&named, self.kernels.options().shared_buffers)?;
        let (from, to) = (shape.strides_of_x(), shape.strides_of_out());
        let table = if shape.tables_per_item { shape.len * (shape.rotary_dim / 2) } else { 0 };
        let params = Params::of(RotaryParams {
            first_work: 0,
            end_work: 0,
            rows: (shape.batch * shape.heads * shape.len) as u32,
            heads: shape.heads as u32,
            len: shape.len as u32,
            head_dim: shape.head_dim as u32,
            rotary_dim: shape.rotary_dim as u32,
            x_at: from.offset as u32,
            x_batch: from.batch as u32,
            x_head: from.head as u32,
            x_row: from.row as u32,
            table_batch: table as u32,
            out_at: to.offset as u32,
            out_batch: to.batch as u32,
            out_head: to.head as u32,
            out_row: to.row as u32,
        });
        let buffers =
            Bindings::default().with("x", x).with("cosines", cos).with("sines", sin).with("out", out);
        Ok(Call::of_steps(label, [Step::new(device, &self.pipeline, &params, self.work, &buffers)?]))
    }
}
