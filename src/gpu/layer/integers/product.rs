//! The product of bytes, whose sums are exact.

use super::{Checked, IntegerBuffers, checked};
use crate::construct::constructed;
use crate::gpu::Kernels;
use crate::gpu::bindings::{Access, Bindings, check_aliasing, checked_binding, optional_binding};
use crate::gpu::call::Call;
use crate::gpu::params::{IntegerMatmulParams, Params};
use crate::gpu::pipeline::{Pipeline, Step, Work};
use crate::wgsl::IntegerMatmulVariant;
use crate::{ElementType, IntegerMatmulShape, IntegerOutput, Result};
use std::sync::Arc;

/// A planned product of integers: made by [`Kernels::integer_matmul`].
#[derive(Debug, Clone)]
pub struct IntegerMatmulPlan {
    kernels: Kernels,
    shape: IntegerMatmulShape,
    pipeline: Arc<Pipeline>,
    work: Work,
}

/// The buffers of a product of integers. All need `BufferUsages::STORAGE`; out may not be a buffer that is also read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct IntegerMatmulBuffers<'a> {
    /// A `[rows, inner]`; its scales unless the output is [sums](IntegerOutput::Sums).
    pub a: IntegerBuffers<'a>,
    /// B `[columns, inner]`, likewise.
    pub b: IntegerBuffers<'a>,
    /// The bias `[columns]`, f32, if and only if the shape has one.
    pub bias: Option<wgpu::BufferBinding<'a>>,
    /// out `[rows, columns]`: i32, numbers, or rows of whole words of bytes.
    pub out: wgpu::BufferBinding<'a>,
}

constructed! {
    IntegerMatmulBuffers ['a] { a: IntegerBuffers<'a>, b: IntegerBuffers<'a>, out: wgpu::BufferBinding<'a> }
    { bias: wgpu::BufferBinding<'a> }
}

impl Kernels {
    /// Plans a product of bytes: sums of exact products, as they are, scaled to numbers, or to bytes of another scale.
    ///
    /// # Errors
    /// As [`IntegerMatmulShape::check`]; [`Error::Device`](crate::Error::Device) for what wgpu reports while compiling.
    ///
    /// ```no_run
    /// use wgpu_attention::{
    ///     IntegerBuffers, IntegerFormat, IntegerMatmulBuffers, IntegerMatmulShape, IntegerType, Kernels, QuantizeRule,
    ///     QuantizeShape, ScaleGroups,
    /// };
    /// # fn example(kernels: &Kernels, encoder: &mut wgpu::CommandEncoder, buffers: [&wgpu::Buffer; 7])
    /// # -> wgpu_attention::Result<()> {
    /// let [x, words, scale, zero, weight, weight_scales, out] = buffers.map(wgpu::Buffer::as_entire_buffer_binding);
    /// // Activations become bytes, all of one scale, and meet weights of a scale per row.
    /// let bytes = IntegerFormat::new(IntegerType::U8).groups(ScaleGroups::Tensor).zero_points(true);
    /// let dynamic = kernels.quantize(&QuantizeShape::new(16, 768, bytes, QuantizeRule::Range))?;
    /// let a = IntegerBuffers::new(words).scales(scale).zero_points(zero);
    /// dynamic.bind(x, a.clone())?.encode(encoder);
    /// let shape = IntegerMatmulShape::new(16, 768, 3072, bytes, IntegerFormat::new(IntegerType::I8));
    /// let b = IntegerBuffers::new(weight).scales(weight_scales);
    /// kernels.integer_matmul(&shape)?.bind(IntegerMatmulBuffers::new(a, b, out))?.encode(encoder);
    /// # Ok(())
    /// # }
    /// ```
    pub fn integer_matmul(&self, shape: &IntegerMatmulShape) -> Result<IntegerMatmulPlan> {
        shape.check()?;
        let side = IntegerMatmulVariant::SIDE;
        let tiles = shape.rows.div_ceil(side) as u128 * shape.columns.div_ceil(side) as u128;
        let work = self.work("the product of integers", tiles, (2 * side * side * shape.inner) as f64)?;
        let pipeline = self.pipeline(IntegerMatmulVariant::of(shape).shader())?;
        Ok(IntegerMatmulPlan { kernels: self.clone(), shape: *shape, pipeline, work })
    }
}

impl IntegerMatmulPlan {
    /// The shape that was planned.
    pub fn shape(&self) -> &IntegerMatmulShape {
        &self.shape
    }

    /// Checks the buffers and binds them: nothing is recorded yet.
    ///
    /// # Errors
    /// As [`MatmulPlan::bind`](crate::MatmulPlan::bind).
    pub fn bind(&self, buffers: IntegerMatmulBuffers<'_>) -> Result<Call> {
        let (shape, device) = (&self.shape, self.kernels.device());
        let limits = device.limits();
        if shape.rows == 0 {
            return Ok(Call::new("integer matmul", []));
        }
        let names = [["a", "a.scales", "a.zero_points"], ["b", "b.scales", "b.zero_points"]];
        let of = |names, integers, format, rows| {
            checked(&limits, names, integers, format, [rows, shape.inner], shape.has_scales())
        };
        let a: Checked<'_> = of(names[0], &buffers.a, shape.a, shape.rows)?;
        let b = of(names[1], &buffers.b, shape.b, shape.columns)?;
        let f32 = ElementType::F32;
        let bias = optional_binding(&limits, "bias", &buffers.bias, shape.bias, shape.columns, f32)?;
        let out = checked_binding(&limits, "out", &buffers.out, shape.len_out(), shape.out_type())?;
        let mut named = vec![("out", Some(&out), Access::Write), ("bias", bias.as_ref(), Access::Read)];
        for (names, tensor) in names.iter().zip([&a, &b]) {
            named.push((names[0], Some(&tensor.words), Access::Read));
            named.push((names[1], tensor.scales.as_ref(), Access::Read));
            named.push((names[2], tensor.zero_points.as_ref(), Access::Read));
        }
        check_aliasing(&named, self.kernels.options().shared_buffers)?;
        let bindings = Bindings::default()
            .with("a", a.words)
            .with("b", b.words)
            .with_some("a_scales", a.scales)
            .with_some("b_scales", b.scales)
            .with_some("a_zero_points", a.zero_points)
            .with_some("b_zero_points", b.zero_points)
            .with_some("bias", bias)
            .with("out", out);
        let step = Step::new(device, &self.pipeline, &Params::of(self.params()), self.work, &bindings)?;
        Ok(Call::of_steps("integer matmul", [step]))
    }

    fn params(&self) -> IntegerMatmulParams {
        let shape = &self.shape;
        let (out_factor, out_zero_point) = match shape.output {
            IntegerOutput::Requantized { scale, zero_point, .. } => (scale.recip(), zero_point),
            _ => (1.0, 0),
        };
        IntegerMatmulParams {
            first_work: 0,
            end_work: 0,
            row_tiles: shape.rows.div_ceil(IntegerMatmulVariant::SIDE) as u32,
            rows: shape.rows as u32,
            inner: shape.inner as u32,
            columns: shape.columns as u32,
            row_words: shape.a.row_words(shape.inner) as u32,
            last_mask: u32::MAX >> (8 * (shape.inner.wrapping_neg() % 4)),
            out_factor,
            out_zero_point,
        }
    }
}
