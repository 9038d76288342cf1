//! Axial positions, and their gradient: two lookups whose ids are those of a grid.

use super::{EmbedBackwardPlan, EmbedPlan};
use crate::gpu::bindings::{upload, whole};
use crate::gpu::call::Call;
use crate::gpu::{Gpu, Kernels};
use crate::{AxialShape, Element, ElementType, Result};

/// Planned axial positions: made by [`Kernels::axial_positions`].
#[derive(Debug, Clone)]
pub struct AxialPlan {
    shape: AxialShape,
    lookups: [EmbedPlan; 2],
    ids: [wgpu::Buffer; 2],
}

/// Planned gradients of axial positions: made by [`AxialPlan::backward`].
#[derive(Debug, Clone)]
pub struct AxialBackwardPlan {
    shape: AxialShape,
    lookups: [EmbedBackwardPlan; 2],
    ids: [wgpu::Buffer; 2],
}

impl Kernels {
    /// Plans axial positions; the ids of the grid are uploaded here.
    ///
    /// # Errors
    /// As [`AxialShape::check`]; [`Error::Device`](crate::Error::Device) for what wgpu reports while compiling.
    ///
    /// ```no_run
    /// use wgpu_attention::{AxialShape, Combine, Kernels};
    /// # fn example(kernels: &Kernels, encoder: &mut wgpu::CommandEncoder, buffers: [&wgpu::Buffer; 3])
    /// # -> wgpu_attention::Result<()> {
    /// // Reformer's, added to the token embedding.
    /// let shape = AxialShape::new([512, 128], [64, 192]).combine(Combine::AddInto);
    /// let [weight0, weight1, out] = buffers.map(wgpu::Buffer::as_entire_buffer_binding);
    /// kernels.axial_positions(&shape)?.bind([weight0, weight1], out)?.encode(encoder);
    /// # Ok(())
    /// # }
    /// ```
    pub fn axial_positions(&self, shape: &AxialShape) -> Result<AxialPlan> {
        shape.check()?;
        let [first, second] = shape.lookups();
        let ids = |axis: usize| {
            let ids: Vec<u32> = (0..shape.positions).map(|position| shape.ids(position)[axis]).collect();
            upload(self.device(), "ids of axial positions", bytemuck::cast_slice(&ids))
        };
        Ok(AxialPlan {
            shape: *shape,
            lookups: [self.embed(&first)?, self.embed(&second)?],
            ids: [ids(0)?, ids(1)?],
        })
    }
}

impl AxialPlan {
    /// The shape that was planned.
    pub fn shape(&self) -> &AxialShape {
        &self.shape
    }

    /// Checks the buffers of both tables, `[n0, d0]` and `[n1, d1]`, and of out `[positions, d0 + d1]`, and binds them: nothing is recorded yet.
    ///
    /// # Errors
    /// As [`MatmulPlan::bind`](super::MatmulPlan::bind), where the tables are called `table`.
    pub fn bind(
        &self,
        [first, second]: [wgpu::BufferBinding<'_>; 2],
        out: wgpu::BufferBinding<'_>,
    ) -> Result<Call> {
        let [of_first, of_second] = &self.lookups;
        let calls = [
            of_first.bind(whole(&self.ids[0]), first, out.clone())?,
            of_second.bind(whole(&self.ids[1]), second, out)?,
        ];
        Ok(Call::chain("axial positions", calls))
    }

    /// Plans the gradients by both tables, f32: each row is the sum of the rows of dout that have it, in their order.
    ///
    /// # Errors
    /// As [`EmbedPlan::backward`].
    ///
    /// ```no_run
    /// use wgpu_attention::{AxialShape, Kernels};
    /// # fn example(kernels: &Kernels, encoder: &mut wgpu::CommandEncoder, buffers: [&wgpu::Buffer; 3])
    /// # -> wgpu_attention::Result<()> {
    /// let [dout, dweight0, dweight1] = buffers.map(wgpu::Buffer::as_entire_buffer_binding);
    /// let plan = kernels.axial_positions(&AxialShape::new([512, 128], [64, 192]))?;
    /// plan.backward()?.bind(dout, [dweight0, dweight1])?.encode(encoder);
    /// # Ok(())
    /// # }
    /// ```
    pub fn backward(&self) -> Result<AxialBackwardPlan> {
        let [first, second] = &self.lookups;
        let lookups = [first.backward()?, second.backward()?];
        Ok(AxialBackwardPlan { shape: self.shape, lookups, ids: self.ids.clone() })
    }
}

impl AxialBackwardPlan {
    /// The shape that was planned.
    pub fn shape(&self) -> &AxialShape {
        &self.shape
    }

    /// Checks the buffers of dout `[positions, d0 + d1]`, which has out's type, and of both gradients, `[n0, d0]` and `[n1, d1]`, f32, and binds them:
    /// nothing is recorded yet.
    ///
    /// # Errors
    /// As [`EmbedBackwardPlan::bind`], where the gradients are called `dtable`.
    pub fn bind(
        &self,
        dout: wgpu::BufferBinding<'_>,
        [first, second]: [wgpu::BufferBinding<'_>; 2],
    ) -> Result<Call> {
        let [of_first, of_second] = &self.lookups;
        let calls = [
            of_first.bind(whole(&self.ids[0]), dout.clone(), first)?,
            of_second.bind(whole(&self.ids[1]), dout, second)?,
        ];
        Ok(Call::chain("axial backward", calls))
    }
}

impl Gpu {
    /// Axial positions from tables `[n0, d0]` and `[n1, d1]`: out `[positions, d0 + d1]`, stored.
    ///
    /// # Errors
    /// As [`Gpu::matmul`] and [`Kernels::axial_positions`](crate::Kernels::axial_positions).
    ///
    /// ```no_run
    /// use wgpu_attention::{AxialShape, Gpu};
    /// let out: Vec<f32> = Gpu::new()?.axial_positions(&AxialShape::new([1, 2], [1, 1]), [&[5.0f32], &[1.0, 2.0]])?;
    /// assert_eq!(out, [5.0, 1.0, 5.0, 2.0]);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn axial_positions<T: Element, O: Element>(
        &self,
        shape: &AxialShape,
        tables: [&[T]; 2],
    ) -> Result<Vec<O>> {
        pollster::block_on(self.axial_positions_async(shape, tables))
    }

    /// [`Gpu::axial_positions`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::axial_positions`].
    pub async fn axial_positions_async<T: Element, O: Element>(
        &self,
        shape: &AxialShape,
        [first, second]: [&[T]; 2],
    ) -> Result<Vec<O>> {
        let shape = shape.table(T::TYPE).output(O::TYPE).combine(crate::Combine::Store);
        let plan = self.kernels().axial_positions(&shape)?;
        let [len0, len1] = shape.lookups().map(|lookup| lookup.len_table());
        let (first, second) =
            (self.slice("weight0", first, len0, false)?, self.slice("weight1", second, len1, false)?);
        self.layer(shape.positions * shape.width(), None, |out| {
            plan.bind([whole(&first), whole(&second)], whole(out))
        })
        .await
    }

    /// The gradients of axial positions by both tables, given dout `[positions, d0 + d1]`.
    ///
    /// # Errors
    /// As [`Gpu::matmul`] and [`AxialPlan::backward`](crate::AxialPlan::backward).
    ///
    /// ```no_run
    /// use wgpu_attention::{AxialShape, Gpu};
    /// let [first, second] = Gpu::new()?.axial_backward(&AxialShape::new([1, 2], [1, 1]), &[1.0f32, 2.0, 4.0, 8.0])?;
    /// assert_eq!((first, second), (vec![5.0], vec![2.0, 8.0]));
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn axial_backward<O: Element>(&self, shape: &AxialShape, dout: &[O]) -> Result<[Vec<f32>; 2]> {
        pollster::block_on(self.axial_backward_async(shape, dout))
    }

    /// [`Gpu::axial_backward`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::axial_backward`].
    pub async fn axial_backward_async<O: Element>(
        &self,
        shape: &AxialShape,
        dout: &[O],
    ) -> Result<[Vec<f32>; 2]> {
        let shape = shape.output(O::TYPE).combine(crate::Combine::Store);
        let plan = self.kernels().axial_positions(&shape)?.backward()?;
        let dout = self.slice("dout", dout, shape.positions * shape.width(), false)?;
        self.check_alive()?;
        let [len0, len1] = shape.lookups().map(|lookup| lookup.len_table());
        let first = self.output("dweight0", len0, ElementType::F32)?;
        let second = self.output("dweight1", len1, ElementType::F32)?;
        let call = plan.bind(whole(&dout), [whole(&first), whole(&second)]).map_err(|e| self.or_lost(e))?;
        let fetched = self.fetch(&[&first, &second], |encoder| call.encode(encoder)).await?;
        Ok([fetched.take(0, len0)?, fetched.take(1, len1)?])
    }
}
