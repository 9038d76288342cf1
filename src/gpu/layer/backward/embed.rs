//! The gradient of an embedding's table.

use crate::gpu::Kernels;
use crate::gpu::bindings::{Access, Bindings, check_aliasing, checked_binding, scratch, whole};
use crate::gpu::call::Call;
use crate::gpu::layer::EmbedPlan;
use crate::gpu::layer::rows::aligned;
use crate::gpu::params::{EmbedRunParams, Params};
use crate::gpu::pipeline::{Pipeline, Step, Work};
use crate::gpu::sort::{SortBuffers, SortPlan, SortShape};
use crate::gpu::zeros::zeros;
use crate::wgsl::{CopyPass, EmbedBackwardVariant};
use crate::{Combine, ElementType, EmbedGradients, EmbedShape, Result};
use std::sync::Arc;

/// A planned gradient of an embedding's table: made by [`EmbedPlan::backward`].
#[derive(Debug, Clone)]
pub struct EmbedBackwardPlan {
    kernels: Kernels,
    shape: EmbedShape,
    gradients: EmbedGradients,
    sort: SortPlan,
    sums: (Arc<Pipeline>, Work),
    carries: (Arc<Pipeline>, Work),
}

impl EmbedPlan {
    /// Plans the gradient by the table, f32: row t is the sum of the rows of dout whose id is t, in the order of those rows, whatever the
    /// device, without atomics: ids are sorted, and equal ones lie together. Ids past the table have no row, and count nowhere.
    ///
    /// # Errors
    /// [`Error::Limit`](crate::Error::Limit) for more than [`SortShape::MAX_LEN`] rows; [`Error::Device`](crate::Error::Device)
    /// for what wgpu reports while compiling.
    ///
    /// ```no_run
    /// use wgpu_attention::{EmbedShape, Kernels};
    /// # fn example(kernels: &Kernels, encoder: &mut wgpu::CommandEncoder, buffers: [&wgpu::Buffer; 3])
    /// # -> wgpu_attention::Result<()> {
    /// let [ids, dout, dtable] = buffers.map(wgpu::Buffer::as_entire_buffer_binding);
    /// kernels.embed(&EmbedShape::new(512, 30522, 768))?.backward()?.bind(ids, dout, dtable)?.encode(encoder);
    /// # Ok(())
    /// # }
    /// ```
    pub fn backward(&self) -> Result<EmbedBackwardPlan> {
        self.backward_with(EmbedGradients::of(self.shape()))
    }

    /// [`EmbedPlan::backward`] as the caller says.
    ///
    /// # Errors
    /// As [`EmbedPlan::backward`], and as [`EmbedGradients::check`].
    pub fn backward_with(&self, gradients: EmbedGradients) -> Result<EmbedBackwardPlan> {
        let (shape, kernels) = (self.shape(), &self.rows.kernels);
        gradients.check(shape)?;
        let lies = gradients.lies(shape);
        let variant = |carries| EmbedBackwardVariant {
            carries,
            dout: gradients.dout,
            into: gradients.combine == Combine::AddInto,
            aligned: aligned(&[shape.width, lies.out_at, lies.stride_of_out()]),
        };
        let planned = |shader: crate::wgsl::Shader, items: usize, flops: usize| {
            let work = kernels.work(shader.entry, items as u128, flops as f64)?;
            crate::Result::Ok((kernels.pipeline(shader)?, work))
        };
        // Rows that no id names become 0.
        kernels.pipeline(CopyPass::Zeros.shader())?;
        let (width, blocks) = (shape.width, shape.rows.div_ceil(EmbedBackwardVariant::BLOCK));
        Ok(EmbedBackwardPlan {
            kernels: kernels.clone(),
            shape: *shape,
            gradients,
            // All bits: an id past the table may have any.
            sort: kernels.sort(&SortShape::new(1, shape.rows))?,
            sums: planned(variant(false).shader(), shape.rows, EmbedBackwardVariant::BLOCK * width)?,
            // Were all ids equal, one workgroup would add up all blocks.
            carries: planned(variant(true).shader(), blocks, blocks * width)?,
        })
    }
}

impl EmbedBackwardPlan {
    /// The shape of the embedding.
    pub fn shape(&self) -> &EmbedShape {
        &self.shape
    }

    /// How the gradient is made.
    pub fn gradients(&self) -> &EmbedGradients {
        &self.gradients
    }

    /// Checks the buffers ids `[rows]` (u32), dout `[rows, width]` and dtable `[table_rows, width]` (f32), and binds them: nothing is
    /// recorded yet.
    ///
    /// # Errors
    /// As [`MatmulPlan::bind`](crate::MatmulPlan::bind).
    pub fn bind(
        &self,
        ids: wgpu::BufferBinding<'_>,
        dout: wgpu::BufferBinding<'_>,
        dtable: wgpu::BufferBinding<'_>,
    ) -> Result<Call> {
        let (shape, device, f32) = (&self.shape, self.kernels.device(), ElementType::F32);
        let limits = device.limits();
        let dtable = checked_binding(&limits, "dtable", &dtable, shape.len_table(), f32)?;
        let mut steps = vec![];
        if self.gradients.combine == Combine::Store {
            steps.push(zeros(&self.kernels, shape.len_table(), dtable.clone())?);
        }
        if shape.rows > 0 {
            // A u32 has the size of an f32.
            let ids = checked_binding(&limits, "ids", &ids, shape.rows, f32)?;
            let dout = checked_binding(
                &limits,
                "dout",
                &dout,
                self.gradients.lies(shape).len_out(),
                self.gradients.dout,
            )?;
            let named = [
                ("ids", Some(&ids), Access::Read),
                ("dout", Some(&dout), Access::Read),
                ("dtable", Some(&dtable), Access::Write),
            ];
            check_aliasing(&named, self.kernels.options().shared_buffers)?;
            steps.extend(self.runs(ids, dout, dtable)?);
        }
        Ok(Call::of_steps("embed backward", steps))
    }

    /// Sorts the ids, and adds up their runs.
    fn runs(
        &self,
        ids: wgpu::BufferBinding<'_>,
        dout: wgpu::BufferBinding<'_>,
        dtable: wgpu::BufferBinding<'_>,
    ) -> Result<Vec<Step>> {
        let (shape, device) = (&self.shape, self.kernels.device());
        let (rows, width) = (shape.rows, shape.width);
        let blocks = rows.div_ceil(EmbedBackwardVariant::BLOCK);
        let sorted = scratch(device, "sorted ids", 4 * rows as u64)?;
        let places = scratch(device, "places of the ids", 4 * rows as u64)?;
        let carries = scratch(device, "sums that blocks carry", 8 * (blocks * width) as u64)?;
        let mut steps =
            self.sort.steps(&SortBuffers::new(ids, whole(&places)).sorted_keys(whole(&sorted)))?;
        let params = Params::of(EmbedRunParams {
            rows: rows as u32,
            width: width as u32,
            dout_at: self.gradients.dout_at as u32,
            dout_row: self.gradients.lies(shape).stride_of_out() as u32,
            table_rows: shape.table_rows as u32,
            has_padding: self.gradients.padding.is_some().into(),
            padding: self.gradients.padding.unwrap_or(0),
            ..Default::default()
        });
        let bindings = Bindings::default()
            .with("ids", whole(&sorted))
            .with("places", whole(&places))
            .with("dout", dout)
            .with("carries", whole(&carries))
            .with("out", dtable);
        for (pipeline, work) in [&self.sums, &self.carries] {
            steps.push(Step::new(device, pipeline, &params, *work, &bindings)?);
        }
        Ok(steps)
    }
}
