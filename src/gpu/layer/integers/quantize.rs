//! Integers of numbers, and numbers of integers.

use super::{Checked, IntegerBuffers, checked};
use crate::gpu::Kernels;
use crate::gpu::bindings::{Access, Bindings, check_aliasing, checked_binding, scratch};
use crate::gpu::call::Call;
use crate::gpu::params::{DequantizeParams, Params, QuantizeParams};
use crate::gpu::pipeline::{Pipeline, Step, Work};
use crate::integers::LEAST_SCALE;
use crate::wgsl::{DequantizeVariant, INTEGER_LANES, QuantizePass, QuantizeVariant};
use crate::{ElementType, IntegerFormat, QuantizeRule, QuantizeShape, Result};
use std::sync::Arc;

const NAMES: [&str; 3] = ["words", "scales", "zero_points"];

/// A planned quantisation: made by [`Kernels::quantize`].
#[derive(Debug, Clone)]
pub struct QuantizePlan {
    kernels: Kernels,
    shape: QuantizeShape,
    /// Extremes and scales, unless scales are given; integers.
    passes: Vec<(QuantizePass, Arc<Pipeline>, Work)>,
}

/// A planned dequantisation: made by [`Kernels::dequantize`].
#[derive(Debug, Clone)]
pub struct DequantizePlan {
    kernels: Kernels,
    format: IntegerFormat,
    rows: usize,
    inner: usize,
    output: ElementType,
    pipeline: Arc<Pipeline>,
    work: Work,
}

/// How a slice that shares a scale is cut into parts, one per lane: how many, and how long.
fn parts(slice_len: usize) -> (usize, usize) {
    // 256 of them at most, for one lane adds them up; of whole groups of 4.
    let len = slice_len.div_ceil(256).next_multiple_of(4).max(64);
    (slice_len.div_ceil(len), len)
}

impl Kernels {
    /// Plans a quantisation: the integers of a tensor of numbers, and their scales and zero points unless these are given.
    ///
    /// On the device a NaN or an infinity makes the scale of all that share it NaN, and so what is computed with it; the integers
    /// are then unspecified.
    ///
    /// # Errors
    /// As [`QuantizeShape::check`]; [`Error::Device`](crate::Error::Device) for what wgpu reports while compiling.
    ///
    /// ```no_run
    /// use wgpu_attention::{IntegerBuffers, IntegerFormat, IntegerType, Kernels, QuantizeRule, QuantizeShape};
    /// # fn example(kernels: &Kernels, encoder: &mut wgpu::CommandEncoder, buffers: [&wgpu::Buffer; 3])
    /// # -> wgpu_attention::Result<()> {
    /// // A weight [out, in], a scale for each of its rows.
    /// let shape = QuantizeShape::new(3072, 768, IntegerFormat::new(IntegerType::I8), QuantizeRule::Symmetric);
    /// let [x, words, scales] = buffers.map(wgpu::Buffer::as_entire_buffer_binding);
    /// kernels.quantize(&shape)?.bind(x, IntegerBuffers::new(words).scales(scales))?.encode(encoder);
    /// # Ok(())
    /// # }
    /// ```
    pub fn quantize(&self, shape: &QuantizeShape) -> Result<QuantizePlan> {
        shape.check()?;
        let slices = shape.len_scales() as u128;
        let (parts, part_len) = parts(shape.format.slice_len(shape.rows, shape.inner));
        let all = [
            (QuantizePass::Extremes, slices * parts as u128, part_len),
            (QuantizePass::Scales, slices, parts),
            (QuantizePass::Integers, shape.len_words() as u128, 16),
        ];
        let first = if shape.rule == QuantizeRule::Given { 2 } else { 0 };
        let planned = |&(pass, lanes, cost): &(QuantizePass, u128, usize)| {
            let pipeline = self.pipeline(QuantizeVariant::of(shape, pass).shader())?;
            let flops = (8 * INTEGER_LANES * cost) as f64;
            let work = self.work("quantisation", lanes.div_ceil(INTEGER_LANES as u128), flops)?;
            Ok((pass, pipeline, work))
        };
        let passes = all[first..].iter().map(planned).collect::<Result<_>>()?;
        Ok(QuantizePlan { kernels: self.clone(), shape: *shape, passes })
    }

    /// Plans a dequantisation: the numbers `[rows, inner]`, stored as `output`, that integers stand for. ONNX's `DequantizeLinear`, whose blocks
    /// are [groups](crate::ScaleGroups::Groups).
    ///
    /// # Errors
    /// As [`IntegerFormat::check`]; [`Error::Device`](crate::Error::Device) for what wgpu reports while compiling.
    ///
    /// ```no_run
    /// use wgpu_attention::{ElementType, IntegerBuffers, IntegerFormat, IntegerType, Kernels};
    /// # fn example(kernels: &Kernels, encoder: &mut wgpu::CommandEncoder, buffers: [&wgpu::Buffer; 3])
    /// # -> wgpu_attention::Result<()> {
    /// let [words, scales, out] = buffers.map(wgpu::Buffer::as_entire_buffer_binding);
    /// let plan = kernels.dequantize(IntegerFormat::new(IntegerType::I4), 3072, 768, ElementType::F16)?;
    /// plan.bind(IntegerBuffers::new(words).scales(scales), out)?.encode(encoder);
    /// # Ok(())
    /// # }
    /// ```
    pub fn dequantize(
        &self,
        format: IntegerFormat,
        rows: usize,
        inner: usize,
        output: ElementType,
    ) -> Result<DequantizePlan> {
        format.check(rows, inner)?;
        let aligned = inner.is_multiple_of(4);
        let pipeline = self.pipeline(DequantizeVariant { format, output, aligned }.shader())?;
        let lanes = rows as u128 * inner.div_ceil(4) as u128;
        let flops = (32 * INTEGER_LANES) as f64;
        let work = self.work("dequantisation", lanes.div_ceil(INTEGER_LANES as u128), flops)?;
        Ok(DequantizePlan { kernels: self.clone(), format, rows, inner, output, pipeline, work })
    }
}

impl QuantizePlan {
    /// The shape that was planned.
    pub fn shape(&self) -> &QuantizeShape {
        &self.shape
    }

    /// Checks the buffers and binds them: x `[rows, inner]`; scales and zero points are read where they are
    /// [given](QuantizeRule::Given), and written otherwise. Nothing is recorded yet.
    ///
    /// # Errors
    /// As [`MatmulPlan::bind`](crate::MatmulPlan::bind).
    pub fn bind(&self, x: wgpu::BufferBinding<'_>, integers: IntegerBuffers<'_>) -> Result<Call> {
        let (shape, device) = (&self.shape, self.kernels.device());
        let limits = device.limits();
        if shape.rows == 0 {
            return Ok(Call::new("quantize", []));
        }
        let x = checked_binding(&limits, "x", &x, shape.len_x(), shape.input)?;
        let sizes = [shape.rows, shape.inner];
        let Checked { words, scales, zero_points } =
            checked(&limits, NAMES, &integers, shape.format, sizes, true)?;
        let access = if shape.rule == QuantizeRule::Given { Access::Read } else { Access::Both };
        check_aliasing(
            &[
                ("x", Some(&x), Access::Read),
                ("words", Some(&words), Access::Write),
                ("scales", scales.as_ref(), access),
                ("zero_points", zero_points.as_ref(), access),
            ],
            self.kernels.options().shared_buffers,
        )?;
        let (parts, _) = parts(shape.format.slice_len(shape.rows, shape.inner));
        let extremes = match access {
            Access::Both => Some(scratch(device, "extremes", 8 * (shape.len_scales() * parts) as u64)?),
            _ => None,
        };
        let bindings = Bindings::default()
            .with("x", x)
            .with("words", words)
            .with_some("scales", scales)
            .with_some("zero_points", zero_points.clone())
            .with_some("x_zero_points", zero_points)
            .with_some("extremes", extremes.as_ref().map(wgpu::Buffer::as_entire_buffer_binding));
        let params = Params::of(self.params());
        let step = |(_, pipeline, work): &(QuantizePass, Arc<Pipeline>, Work)| {
            Step::new(device, pipeline, &params, *work, &bindings)
        };
        Ok(Call::of_steps("quantize", self.passes.iter().map(step).collect::<Result<Vec<_>>>()?))
    }

    fn params(&self) -> QuantizeParams {
        let shape = &self.shape;
        let slice_len = shape.format.slice_len(shape.rows, shape.inner);
        let (parts, part_len) = parts(slice_len);
        let symmetric = shape.rule == QuantizeRule::Symmetric;
        let [low, high] = shape.clamped_to();
        QuantizeParams {
            first_work: 0,
            end_work: 0,
            rows: shape.rows as u32,
            inner: shape.inner as u32,
            row_words: shape.format.row_words(shape.inner) as u32,
            slices: shape.len_scales() as u32,
            slice_len: slice_len as u32,
            parts: parts as u32,
            part_len: part_len as u32,
            range: if symmetric { shape.half() } else { shape.levels() },
            least_scale: if symmetric { LEAST_SCALE } else { f32::MIN_POSITIVE },
            low,
            high,
        }
    }
}

impl DequantizePlan {
    /// Checks the buffers and binds them; out has `[rows, inner]` elements. Nothing is recorded yet.
    ///
    /// # Errors
    /// As [`MatmulPlan::bind`](crate::MatmulPlan::bind).
    pub fn bind(&self, integers: IntegerBuffers<'_>, out: wgpu::BufferBinding<'_>) -> Result<Call> {
        let device = self.kernels.device();
        let limits = device.limits();
        let (rows, inner) = (self.rows, self.inner);
        if rows == 0 {
            return Ok(Call::new("dequantize", []));
        }
        let Checked { words, scales, zero_points } =
            checked(&limits, NAMES, &integers, self.format, [rows, inner], true)?;
        let out = checked_binding(&limits, "out", &out, rows * inner, self.output)?;
        check_aliasing(
            &[
                ("words", Some(&words), Access::Read),
                ("scales", scales.as_ref(), Access::Read),
                ("zero_points", zero_points.as_ref(), Access::Read),
                ("out", Some(&out), Access::Write),
            ],
            self.kernels.options().shared_buffers,
        )?;
        let params = DequantizeParams {
            rows: rows as u32,
            inner: inner as u32,
            b_row: self.format.row_words(inner) as u32,
            ..Default::default()
        };
        let bindings = Bindings::default()
            .with("b", words)
            .with_some("scales", scales)
            .with_some("b_zero_points", zero_points)
            .with("out", out);
        let step = Step::new(device, &self.pipeline, &Params::of(params), self.work, &bindings)?;
        Ok(Call::of_steps("dequantize", [step]))
    }
}
