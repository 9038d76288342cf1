//! Gradients of norms.

use super::column_sums::{ColumnSums, plain_terms};
use crate::construct::constructed;
use crate::gpu::Kernels;
use crate::gpu::bindings::{Access, Bindings, check_aliasing, checked_binding, optional_binding, scratch};
use crate::gpu::call::Call;
use crate::gpu::layer::NormPlan;
use crate::gpu::layer::rows::{Rows, aligned};
use crate::gpu::params::{NormedTermParams, Params, RowParams};
use crate::gpu::zeros::zeros;
use crate::wgsl::{ColumnSumsVariant, RowKernel, RowVariant, SumTerms};
use crate::{Combine, ElementType, Error, NormKind, NormShape, Result, RowGradients};

/// Planned gradients of a norm: made by [`NormPlan::backward`].
#[derive(Debug, Clone)]
pub struct NormBackwardPlan {
    shape: NormShape,
    gradients: RowGradients,
    rows: Rows,
    /// Absent where there is no row.
    sums: Option<ParameterSums>,
}

/// The sums over rows that make the gradients of weight and bias.
#[derive(Debug, Clone)]
struct ParameterSums {
    weight: ColumnSums,
    bias: ColumnSums,
}

/// The buffers of a norm's gradients. All need `BufferUsages::STORAGE`; what is written may not be a buffer that is also read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NormGradBuffers<'a> {
    /// x `[rows, width]`, as the norm had it.
    pub x: wgpu::BufferBinding<'a>,
    /// weight `[width]`.
    pub weight: wgpu::BufferBinding<'a>,
    /// The gradient of out, `[rows, width]`.
    pub dout: wgpu::BufferBinding<'a>,
    /// Where the gradient by x goes, `[rows, width]`.
    pub dx: wgpu::BufferBinding<'a>,
    /// The gradient by the weight `[width]`, f32, if it is wanted.
    pub dweight: Option<wgpu::BufferBinding<'a>>,
    /// The gradient by the bias `[width]`, f32, if it is wanted and the shape has one.
    pub dbias: Option<wgpu::BufferBinding<'a>>,
}

constructed! {
    NormGradBuffers ['a] { x: wgpu::BufferBinding<'a>, weight: wgpu::BufferBinding<'a>, dout: wgpu::BufferBinding<'a>, dx: wgpu::BufferBinding<'a> } { dweight: wgpu::BufferBinding<'a>, dbias: wgpu::BufferBinding<'a> }
}

impl NormPlan {
    /// Plans the gradients by x, weight and bias, each stored in the type of its tensor or, of weight and bias, in f32.
    ///
    /// With z the normalised row, s = 1 / sqrt(variance + eps) and g = dout weight:
    ///
    /// ```text
    /// dx      = s (g - mean g - z mean (g z))          layer norm (Ba 2016); RMS norm (Zhang 2019) has no mean g
    /// dweight = sum over rows of dout z                dbias = sum over rows of dout
    /// ```
    ///
    /// Row by row nothing is kept by the norm: z is made anew from x. The sums over rows have one order, whatever the device.
    /// A row of x with a NaN or an infinity has a dx of NaN, and makes dweight NaN.
    ///
    /// # Errors
    /// As [`RowGradients::check`]; [`Error::Device`] for what wgpu reports while compiling.
    ///
    /// ```no_run
    /// use wgpu_attention::{Kernels, NormGradBuffers, NormKind, NormShape};
    /// # fn example(kernels: &Kernels, encoder: &mut wgpu::CommandEncoder, buffers: [&wgpu::Buffer; 6])
    /// # -> wgpu_attention::Result<()> {
    /// let norm = kernels.norm(&NormShape::new(NormKind::Layer, 512, 768, 1e-12).bias(true))?;
    /// let [x, weight, dout, dx, dweight, dbias] = buffers.map(wgpu::Buffer::as_entire_buffer_binding);
    /// let buffers = NormGradBuffers::new(x, weight, dout, dx).dweight(dweight).dbias(dbias);
    /// norm.backward()?.bind(buffers)?.encode(encoder);
    /// # Ok(())
    /// # }
    /// ```
    pub fn backward(&self) -> Result<NormBackwardPlan> {
        self.backward_with(RowGradients::of_norm(self.shape()))
    }

    /// [`NormPlan::backward`] with gradients stored as the caller says.
    ///
    /// # Errors
    /// As [`NormPlan::backward`].
    pub fn backward_with(&self, gradients: RowGradients) -> Result<NormBackwardPlan> {
        let (shape, kernels) = (self.shape(), &self.rows.kernels);
        let (rows, width) = (shape.rows, shape.width);
        gradients.check(rows, width)?;
        let [x_row, dout_row, dx_row] =
            [shape.stride_of_x(), gradients.stride_of_dout(width), gradients.stride_of_dx(width)];
        let variant = RowVariant {
            kernel: RowKernel::NormBackward {
                centered: shape.kind == NormKind::Layer,
                weight: shape.weight,
                dout: gradients.dout,
                into: gradients.combine == Combine::AddInto,
            },
            input: shape.input,
            output: gradients.dx,
            aligned: aligned(&[width, x_row, dout_row, dx_row]),
        };
        let params = RowParams {
            rows: rows as u32,
            width: width as u32,
            x_row: x_row as u32,
            other_row: dout_row as u32,
            out_row: dx_row as u32,
            eps: shape.eps,
            ..Default::default()
        };
        let sums = (rows > 0).then(|| ParameterSums::new(kernels, shape, &gradients)).transpose()?;
        Ok(NormBackwardPlan { shape: *shape, gradients, rows: Rows::new(kernels, variant, params)?, sums })
    }
}

impl ParameterSums {
    fn new(kernels: &Kernels, shape: &NormShape, gradients: &RowGradients) -> Result<Self> {
        let (rows, width) = (shape.rows, shape.width);
        let dout_row = gradients.stride_of_dout(width);
        let of_bias = ColumnSumsVariant {
            terms: SumTerms::Plain,
            input: gradients.dout,
            output: ElementType::F32,
            into: gradients.parameters == Combine::AddInto,
            aligned: aligned(&[width, dout_row]),
        };
        let of_weight = ColumnSumsVariant {
            terms: SumTerms::Normed { dout: gradients.dout },
            input: shape.input,
            aligned: aligned(&[width, dout_row, shape.stride_of_x()]),
            ..of_bias
        };
        Ok(Self {
            weight: ColumnSums::new(kernels, of_weight, rows, width)?,
            bias: ColumnSums::new(kernels, of_bias, rows, width)?,
        })
    }
}

impl NormBackwardPlan {
    /// The shape of the norm.
    pub fn shape(&self) -> &NormShape {
        &self.shape
    }

    /// How the gradients are stored.
    pub fn gradients(&self) -> &RowGradients {
        &self.gradients
    }

    /// Checks the buffers and binds them: nothing is recorded yet. Only the gradients that have a buffer are computed. Where the
    /// shape has no row, the gradients of weight and bias are 0, or what they are added to.
    ///
    /// # Errors
    /// As [`MatmulPlan::bind`](crate::MatmulPlan::bind); [`Error::Argument`] for a dbias where the shape has no bias.
    pub fn bind(&self, buffers: NormGradBuffers<'_>) -> Result<Call> {
        let (shape, gradients, limits) = (&self.shape, &self.gradients, self.rows.limits());
        let (rows, width, f32) = (shape.rows, shape.width, ElementType::F32);
        if !shape.bias && buffers.dbias.is_some() {
            return Err(Error::argument("dbias", "none, since the shape has no bias", "a buffer"));
        }
        let Some(sums) = &self.sums else { return self.of_no_rows(&buffers) };
        let x = checked_binding(&limits, "x", &buffers.x, shape.len_x(), shape.input)?;
        let weight = checked_binding(&limits, "weight", &buffers.weight, width, shape.weight)?;
        let dout =
            checked_binding(&limits, "dout", &buffers.dout, gradients.len_dout(rows, width), gradients.dout)?;
        let dx = checked_binding(&limits, "dx", &buffers.dx, gradients.len_dx(rows, width), gradients.dx)?;
        let (dweight, dbias) = (&buffers.dweight, &buffers.dbias);
        let dweight = optional_binding(&limits, "dweight", dweight, dweight.is_some(), width, f32)?;
        let dbias = optional_binding(&limits, "dbias", dbias, dbias.is_some(), width, f32)?;
        let named = [
            ("x", Some(&x), Access::Read),
            ("weight", Some(&weight), Access::Read),
            ("dout", Some(&dout), Access::Read),
            ("dx", Some(&dx), Access::Write),
            ("dweight", dweight.as_ref(), Access::Write),
            ("dbias", dbias.as_ref(), Access::Write),
        ];
        check_aliasing(&named, self.rows.kernels.options().shared_buffers)?;
        // A vector of 4 per row.
        let records = scratch(self.rows.kernels.device(), "records of a norm's rows", 16 * rows as u64)?;
        let inputs = Bindings::default()
            .with("x", x)
            .with("dout", dout.clone())
            .with("records", records.as_entire_buffer_binding());
        let mut steps = vec![self.rows.step(&inputs.clone().with("weight", weight).with("out", dx))?];
        let dout_row = gradients.stride_of_dout(width);
        if let Some(dweight) = dweight {
            let terms = NormedTermParams { x_row: shape.stride_of_x() as u32, dout_row: dout_row as u32 };
            let terms = Params::default().with("terms", terms);
            steps.extend(sums.weight.steps(&inputs, &terms, dweight, 0)?);
        }
        if let Some(dbias) = dbias {
            let dout = Bindings::default().with("x", dout);
            steps.extend(sums.bias.steps(&dout, &plain_terms(0, dout_row), dbias, 0)?);
        }
        Ok(Call::of_steps("norm backward", steps))
    }

    /// Sums of nothing, where they are stored.
    fn of_no_rows(&self, buffers: &NormGradBuffers<'_>) -> Result<Call> {
        let (kernels, width) = (&self.rows.kernels, self.shape.width);
        let mut steps = vec![];
        for (name, buffer) in [("dweight", &buffers.dweight), ("dbias", &buffers.dbias)] {
            if let (Some(buffer), Combine::Store) = (buffer, self.gradients.parameters) {
                let buffer = checked_binding(&self.rows.limits(), name, buffer, width, ElementType::F32)?;
                steps.push(zeros(kernels, width, buffer)?);
            }
        }
        Ok(Call::of_steps("norm backward", steps))
    }
}
