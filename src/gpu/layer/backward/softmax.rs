//! The gradient of a softmax.

use crate::gpu::bindings::{Access, Bindings, check_aliasing, checked_binding};
use crate::gpu::call::Call;
use crate::gpu::layer::SoftmaxPlan;
use crate::gpu::layer::rows::{Rows, aligned, nothing};
use crate::gpu::params::RowParams;
use crate::wgsl::{RowKernel, RowVariant};
use crate::{Combine, Result, RowGradients, SoftmaxShape};

/// A planned gradient of a softmax: made by [`SoftmaxPlan::backward`].
#[derive(Debug, Clone)]
pub struct SoftmaxBackwardPlan {
    shape: SoftmaxShape,
    gradients: RowGradients,
    rows: Rows,
}

impl SoftmaxPlan {
    /// Plans the gradient by x, from what the softmax gave: dx = y (dout - sum of y dout).
    ///
    /// # Errors
    /// As [`RowGradients::check`]; [`Error::Device`](crate::Error::Device) for what wgpu reports while compiling.
    ///
    /// ```no_run
    /// use wgpu_attention::{Kernels, SoftmaxShape};
    /// # fn example(kernels: &Kernels, encoder: &mut wgpu::CommandEncoder, buffers: [&wgpu::Buffer; 3])
    /// # -> wgpu_attention::Result<()> {
    /// let [y, dout, dx] = buffers.map(wgpu::Buffer::as_entire_buffer_binding);
    /// kernels.softmax(&SoftmaxShape::new(8, 1000))?.backward()?.bind(y, dout, dx)?.encode(encoder);
    /// # Ok(())
    /// # }
    /// ```
    pub fn backward(&self) -> Result<SoftmaxBackwardPlan> {
        self.backward_with(RowGradients::of_softmax(self.shape()))
    }

    /// [`SoftmaxPlan::backward`] with gradients stored as the caller says.
    ///
    /// # Errors
    /// As [`SoftmaxPlan::backward`].
    pub fn backward_with(&self, gradients: RowGradients) -> Result<SoftmaxBackwardPlan> {
        let (shape, kernels) = (self.shape(), &self.rows.kernels);
        let (rows, width) = (shape.rows, shape.width);
        gradients.check(rows, width)?;
        let [y_row, dout_row, dx_row] =
            [shape.stride_of_out(), gradients.stride_of_dout(width), gradients.stride_of_dx(width)];
        let into = gradients.combine == Combine::AddInto;
        let variant = RowVariant {
            kernel: RowKernel::SoftmaxBackward { dout: gradients.dout, into },
            input: shape.output,
            output: gradients.dx,
            aligned: aligned(&[width, y_row, dout_row, dx_row]),
        };
        let params = RowParams {
            rows: rows as u32,
            width: width as u32,
            x_row: y_row as u32,
            other_row: dout_row as u32,
            out_row: dx_row as u32,
            ..Default::default()
        };
        Ok(SoftmaxBackwardPlan { shape: *shape, gradients, rows: Rows::new(kernels, variant, params)? })
    }
}

impl SoftmaxBackwardPlan {
    /// The shape of the softmax.
    pub fn shape(&self) -> &SoftmaxShape {
        &self.shape
    }

    /// How the gradients are stored.
    pub fn gradients(&self) -> &RowGradients {
        &self.gradients
    }

    /// Checks the buffers y, which is what the softmax gave, dout and dx, all `[rows, width]`, and binds them: nothing is recorded
    /// yet.
    ///
    /// # Errors
    /// As [`MatmulPlan::bind`](crate::MatmulPlan::bind).
    pub fn bind(
        &self,
        y: wgpu::BufferBinding<'_>,
        dout: wgpu::BufferBinding<'_>,
        dx: wgpu::BufferBinding<'_>,
    ) -> Result<Call> {
        let (shape, gradients, limits) = (&self.shape, &self.gradients, self.rows.limits());
        let (rows, width) = (shape.rows, shape.width);
        if rows == 0 {
            return nothing("softmax backward");
        }
        let y = checked_binding(&limits, "y", &y, shape.len_out(), shape.output)?;
        let dout = checked_binding(&limits, "dout", &dout, gradients.len_dout(rows, width), gradients.dout)?;
        let dx = checked_binding(&limits, "dx", &dx, gradients.len_dx(rows, width), gradients.dx)?;
        let named = [
            ("y", Some(&y), Access::Read),
            ("dout", Some(&dout), Access::Read),
            ("dx", Some(&dx), Access::Write),
        ];
        check_aliasing(&named, self.rows.kernels.options().shared_buffers)?;
        let bindings = Bindings::default().with("x", y).with("dout", dout).with("out", dx);
        Ok(Call::of_steps("softmax backward", [self.rows.step(&bindings)?]))
    }
}
