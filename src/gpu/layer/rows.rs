//! The kernels over rows: norms, softmax, residual addition, embedding.

use crate::construct::constructed;
use crate::gpu::Kernels;
use crate::gpu::bindings::{Access, Bindings, check_aliasing, checked_binding, optional_binding};
use crate::gpu::call::Call;
use crate::gpu::params::{Params, RowParams};
use crate::gpu::pipeline::{Pipeline, Step, Work};
use crate::wgsl::{RowKernel, RowVariant};
use crate::{AddShape, Combine, ElementType, EmbedShape, Error, NormKind, NormShape, Result, SoftmaxShape};
use std::sync::Arc;

/// A planned kernel over rows, of the shape S; its calls are all alike.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    pub(super) kernels: Kernels,
    pipeline: Arc<Pipeline>,
    params: RowParams,
    work: Work,
}

impl Rows {
    pub(super) fn new(kernels: &Kernels, variant: RowVariant, params: RowParams) -> Result<Self> {
        let shader = variant.shader();
        let (rows, width) = (params.rows as u128, params.width as u128);
        // A reduction takes a workgroup per row; the others share them out by groups of 4 elements.
        let (count, flops) = match variant.kernel {
            RowKernel::Add { .. } | RowKernel::Embed { .. } => {
                ((rows * width.div_ceil(4)).div_ceil(RowVariant::LANES as u128), 256.0)
            }
            _ => (rows, 10.0 * width as f64),
        };
        let work = kernels.work(shader.entry, count, flops)?;
        let pipeline = kernels.pipeline(shader)?;
        Ok(Self { kernels: kernels.clone(), pipeline, params, work })
    }

    /// A call that reads these and writes `out`.
    fn call(
        &self,
        label: &'static str,
        inputs: &[(&'static str, Option<wgpu::BufferBinding<'_>>)],
        out: wgpu::BufferBinding<'_>,
    ) -> Result<Call> {
        let mut named: Vec<_> =
            inputs.iter().map(|(name, input)| (*name, input.as_ref(), Access::Read)).collect();
        named.push(("out", Some(&out), Access::Write));
        check_aliasing(&named, self.kernels.options().shared_buffers)?;
        let bindings = inputs
            .iter()
            .fold(Bindings::default(), |all, (name, input)| all.with_some(name, input.clone()))
            .with("out", out);
        Ok(Call::of_steps(label, [self.step(&bindings)?]))
    }

    /// The kernel over buffers that are checked.
    pub(super) fn step(&self, bindings: &Bindings<'_>) -> Result<Step> {
        let params = Params::of(self.params);
        Step::new(self.kernels.device(), &self.pipeline, &params, self.work, bindings)
    }

    pub(super) fn limits(&self) -> wgpu::Limits {
        self.kernels.device().limits()
    }
}

pub(super) fn nothing(label: &'static str) -> Result<Call> {
    Ok(Call::new(label, []))
}

pub(super) fn aligned(sizes: &[usize]) -> bool {
    sizes.iter().all(|n| n.is_multiple_of(4))
}

/// A planned normalisation: made by [`Kernels::norm`].
#[derive(Debug, Clone)]
pub struct NormPlan {
    shape: NormShape,
    pub(super) rows: Rows,
}

/// The buffers of a normalisation. All need `BufferUsages::STORAGE`; out may not be a buffer that is also read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NormBuffers<'a> {
    /// x `[rows, width]`.
    pub x: wgpu::BufferBinding<'a>,
    /// weight `[width]`.
    pub weight: wgpu::BufferBinding<'a>,
    /// bias `[width]`, if and only if the shape has one.
    pub bias: Option<wgpu::BufferBinding<'a>>,
    /// out `[rows, width]`.
    pub out: wgpu::BufferBinding<'a>,
}

constructed! {
    NormBuffers ['a] { x: wgpu::BufferBinding<'a>, weight: wgpu::BufferBinding<'a>, out: wgpu::BufferBinding<'a> } { bias: wgpu::BufferBinding<'a> }
}

/// A planned softmax: made by [`Kernels::softmax`].
#[derive(Debug, Clone)]
pub struct SoftmaxPlan {
    shape: SoftmaxShape,
    pub(super) rows: Rows,
}

/// A planned residual addition: made by [`Kernels::add`].
#[derive(Debug, Clone)]
pub struct AddPlan {
    shape: AddShape,
    rows: Rows,
}

/// A planned embedding lookup: made by [`Kernels::embed`].
#[derive(Debug, Clone)]
pub struct EmbedPlan {
    shape: EmbedShape,
    pub(super) rows: Rows,
}

impl Kernels {
    /// Plans a layer norm or an RMS norm.
    ///
    /// # Errors
    /// As [`NormShape::check`]; [`Error::Device`](crate::Error::Device) for what wgpu reports while compiling.
    ///
    /// ```no_run
    /// use wgpu_attention::{Kernels, NormBuffers, NormKind, NormShape};
    /// # fn example(kernels: &Kernels, encoder: &mut wgpu::CommandEncoder, buffers: [&wgpu::Buffer; 4])
    /// # -> wgpu_attention::Result<()> {
    /// let shape = NormShape::new(NormKind::Layer, 512, 768, 1e-12).bias(true);
    /// let [x, weight, bias, out] = buffers.map(wgpu::Buffer::as_entire_buffer_binding);
    /// kernels.norm(&shape)?.bind(NormBuffers::new(x, weight, out).bias(bias))?.encode(encoder);
    /// # Ok(())
    /// # }
    /// ```
    pub fn norm(&self, shape: &NormShape) -> Result<NormPlan> {
        shape.check()?;
        let (x_row, out_row) = (shape.stride_of_x(), shape.stride_of_out());
        let variant = RowVariant {
            kernel: RowKernel::Norm {
                centered: shape.kind == NormKind::Layer,
                bias: shape.bias,
                weight: shape.weight,
            },
            input: shape.input,
            output: shape.output,
            aligned: aligned(&[shape.width, x_row, out_row]),
        };
        let params = RowParams {
            rows: shape.rows as u32,
            width: shape.width as u32,
            x_row: x_row as u32,
            out_row: out_row as u32,
            eps: shape.eps,
            ..Default::default()
        };
        Ok(NormPlan { shape: *shape, rows: Rows::new(self, variant, params)? })
    }

    /// Plans a softmax over the last axis.
    ///
    /// # Errors
    /// As [`SoftmaxShape::check`]; [`Error::Device`](crate::Error::Device) for what wgpu reports while compiling.
    ///
    /// ```no_run
    /// use wgpu_attention::{Kernels, SoftmaxShape};
    /// # fn example(kernels: &Kernels, encoder: &mut wgpu::CommandEncoder, buffers: [&wgpu::Buffer; 2])
    /// # -> wgpu_attention::Result<()> {
    /// let [x, out] = buffers.map(wgpu::Buffer::as_entire_buffer_binding);
    /// kernels.softmax(&SoftmaxShape::new(8, 1000))?.bind(x, out)?.encode(encoder);
    /// # Ok(())
    /// # }
    /// ```
    pub fn softmax(&self, shape: &SoftmaxShape) -> Result<SoftmaxPlan> {
        shape.check()?;
        let (x_row, out_row) = (shape.stride_of_x(), shape.stride_of_out());
        let variant = RowVariant {
            kernel: RowKernel::Softmax,
            input: shape.input,
            output: shape.output,
            aligned: aligned(&[shape.width, x_row, out_row]),
        };
        let params = RowParams {
            rows: shape.rows as u32,
            width: shape.width as u32,
            x_row: x_row as u32,
            out_row: out_row as u32,
            ..Default::default()
        };
        Ok(SoftmaxPlan { shape: *shape, rows: Rows::new(self, variant, params)? })
    }

    /// Plans a residual addition, or the subtraction that takes it back. (Behind a matrix product an addition is free: [`Combine::Add`].)
    ///
    /// # Errors
    /// As [`AddShape::check`]; [`Error::Device`](crate::Error::Device) for what wgpu reports while compiling.
    ///
    /// ```no_run
    /// use wgpu_attention::{AddShape, Kernels};
    /// # fn example(kernels: &Kernels, encoder: &mut wgpu::CommandEncoder, buffers: [&wgpu::Buffer; 2])
    /// # -> wgpu_attention::Result<()> {
    /// let [x, other] = buffers.map(wgpu::Buffer::as_entire_buffer_binding);
    /// // x += other.
    /// let plan = kernels.add(&AddShape::new(512, 768).in_place(true))?;
    /// plan.bind_in_place(x, other)?.encode(encoder);
    /// # Ok(())
    /// # }
    /// ```
    pub fn add(&self, shape: &AddShape) -> Result<AddPlan> {
        shape.check()?;
        let variant = RowVariant {
            kernel: RowKernel::Add { other: shape.other, subtract: shape.subtract, in_place: shape.in_place },
            input: shape.input,
            output: shape.output,
            aligned: aligned(&[shape.width]),
        };
        let width = shape.width as u32;
        let params = RowParams {
            rows: shape.rows as u32,
            width,
            x_row: width,
            other_row: width,
            out_row: width,
            ..Default::default()
        };
        Ok(AddPlan { shape: *shape, rows: Rows::new(self, variant, params)? })
    }

    /// Plans an embedding lookup.
    ///
    /// # Errors
    /// As [`EmbedShape::check`]; [`Error::Device`](crate::Error::Device) for what wgpu reports while compiling.
    ///
    /// ```no_run
    /// use wgpu_attention::{EmbedShape, Kernels};
    /// # fn example(kernels: &Kernels, encoder: &mut wgpu::CommandEncoder, buffers: [&wgpu::Buffer; 3])
    /// # -> wgpu_attention::Result<()> {
    /// let [ids, table, out] = buffers.map(wgpu::Buffer::as_entire_buffer_binding);
    /// kernels.embed(&EmbedShape::new(512, 30522, 768))?.bind(ids, table, out)?.encode(encoder);
    /// # Ok(())
    /// # }
    /// ```
    pub fn embed(&self, shape: &EmbedShape) -> Result<EmbedPlan> {
        shape.check()?;
        let variant = RowVariant {
            kernel: RowKernel::Embed { into: shape.combine == Combine::AddInto },
            input: shape.table,
            output: shape.output,
            aligned: aligned(&[shape.width, shape.stride_of_out(), shape.out_at]),
        };
        let width = shape.width as u32;
        let params = RowParams {
            rows: shape.rows as u32,
            width,
            other_row: width,
            out_row: shape.stride_of_out() as u32,
            out_at: shape.out_at as u32,
            table_rows: shape.table_rows as u32,
            ..Default::default()
        };
        Ok(EmbedPlan { shape: *shape, rows: Rows::new(self, variant, params)? })
    }
}

impl NormPlan {
    /// The shape that was planned.
    pub fn shape(&self) -> &NormShape {
        &self.shape
    }

    /// Checks the buffers and binds them: nothing is recorded yet.
    ///
    /// # Errors
    /// As [`MatmulPlan::bind`](super::MatmulPlan::bind).
    pub fn bind(&self, buffers: NormBuffers<'_>) -> Result<Call> {
        let (shape, limits) = (&self.shape, self.rows.limits());
        if shape.rows == 0 {
            return nothing("norm");
        }
        let x = checked_binding(&limits, "x", &buffers.x, shape.len_x(), shape.input)?;
        let weight = checked_binding(&limits, "weight", &buffers.weight, shape.width, shape.weight)?;
        let bias = optional_binding(&limits, "bias", &buffers.bias, shape.bias, shape.width, shape.weight)?;
        let out = checked_binding(&limits, "out", &buffers.out, shape.len_out(), shape.output)?;
        self.rows.call("norm", &[("x", Some(x)), ("weight", Some(weight)), ("bias", bias)], out)
    }
}

impl SoftmaxPlan {
    /// The shape that was planned.
    pub fn shape(&self) -> &SoftmaxShape {
        &self.shape
    }

    /// Checks the buffers x and out, both `[rows, width]`, and binds them: nothing is recorded yet.
    ///
    /// # Errors
    /// As [`MatmulPlan::bind`](super::MatmulPlan::bind).
    pub fn bind(&self, x: wgpu::BufferBinding<'_>, out: wgpu::BufferBinding<'_>) -> Result<Call> {
        let (shape, limits) = (&self.shape, self.rows.limits());
        if shape.rows == 0 {
            return nothing("softmax");
        }
        let x = checked_binding(&limits, "x", &x, shape.len_x(), shape.input)?;
        let out = checked_binding(&limits, "out", &out, shape.len_out(), shape.output)?;
        self.rows.call("softmax", &[("x", Some(x))], out)
    }
}

impl AddPlan {
    /// The shape that was planned.
    pub fn shape(&self) -> &AddShape {
        &self.shape
    }

    /// Checks the buffers, all `[rows, width]`, and binds them: nothing is recorded yet.
    ///
    /// # Errors
    /// As [`MatmulPlan::bind`](super::MatmulPlan::bind); [`Error::Argument`](crate::Error::Argument) for a shape in place.
    pub fn bind(
        &self,
        x: wgpu::BufferBinding<'_>,
        other: wgpu::BufferBinding<'_>,
        out: wgpu::BufferBinding<'_>,
    ) -> Result<Call> {
        let (shape, limits) = (&self.shape, self.rows.limits());
        self.check_place(false)?;
        if shape.is_empty() {
            return nothing("add");
        }
        let x = checked_binding(&limits, "x", &x, shape.len(), shape.input)?;
        let other = checked_binding(&limits, "other", &other, shape.len(), shape.other)?;
        let out = checked_binding(&limits, "out", &out, shape.len(), shape.output)?;
        self.rows.call("add", &[("x", Some(x)), ("other", Some(other))], out)
    }

    /// Checks the buffers, both `[rows, width]`, and binds them, of a shape [in place](AddShape::in_place): other is added to x, or
    /// subtracted from it. Nothing is recorded yet.
    ///
    /// # Errors
    /// As [`MatmulPlan::bind`](super::MatmulPlan::bind); [`Error::Argument`](crate::Error::Argument) for a shape that is not in place.
    pub fn bind_in_place(&self, x: wgpu::BufferBinding<'_>, other: wgpu::BufferBinding<'_>) -> Result<Call> {
        let (shape, limits) = (&self.shape, self.rows.limits());
        self.check_place(true)?;
        if shape.is_empty() {
            return nothing("add");
        }
        let x = checked_binding(&limits, "x", &x, shape.len(), shape.output)?;
        let other = checked_binding(&limits, "other", &other, shape.len(), shape.other)?;
        let named = [("x", Some(&x), Access::Write), ("other", Some(&other), Access::Read)];
        check_aliasing(&named, self.rows.kernels.options().shared_buffers)?;
        Ok(Call::of_steps("add", [self.rows.step(&Bindings::default().with("other", other).with("out", x))?]))
    }

    fn check_place(&self, in_place: bool) -> Result<()> {
        if self.shape.in_place == in_place {
            return Ok(());
        }
        let need = format!("{in_place} for this way to bind");
        Err(Error::argument("in_place", need, self.shape.in_place))
    }
}

impl EmbedPlan {
    /// The shape that was planned.
    pub fn shape(&self) -> &EmbedShape {
        &self.shape
    }

    /// Checks the buffers ids `[rows]` (u32), table `[table_rows, width]` and out `[rows, width]`, and binds them:
    /// nothing is recorded yet.
    ///
    /// # Errors
    /// As [`MatmulPlan::bind`](super::MatmulPlan::bind).
    pub fn bind(
        &self,
        ids: wgpu::BufferBinding<'_>,
        table: wgpu::BufferBinding<'_>,
        out: wgpu::BufferBinding<'_>,
    ) -> Result<Call> {
        let (shape, limits) = (&self.shape, self.rows.limits());
        if shape.rows == 0 {
            return nothing("embed");
        }
        // A u32 has the size of an f32.
        let ids = checked_binding(&limits, "ids", &ids, shape.rows, ElementType::F32)?;
        let table = checked_binding(&limits, "table", &table, shape.len_table(), shape.table)?;
        let out = checked_binding(&limits, "out", &out, shape.len_out(), shape.output)?;
        self.rows.call("embed", &[("ids", Some(ids)), ("table", Some(table))], out)
    }
}
