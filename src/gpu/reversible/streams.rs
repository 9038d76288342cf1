//! Both streams beside each other in one tensor: lookups whose ids are those of rows in order.

use super::stack::Reversible;
use crate::gpu::bindings::{upload, whole};
use crate::gpu::call::Call;
use crate::{EmbedShape, Result};

impl Reversible {
    /// A call that writes both streams beside each other, out `[rows, 2 width]` = [x1 | x2]: what a Reformer's last norm takes.
    ///
    /// # Errors
    /// As [`Kernels::embed`](crate::Kernels::embed) and [`EmbedPlan::bind`](crate::EmbedPlan::bind), where the streams are called `table`.
    pub fn join_streams(&self, out: wgpu::BufferBinding<'_>) -> Result<Call> {
        self.join([&self.buffers().x1, &self.buffers().x2], out)
    }

    /// A call that writes the gradients by both streams beside each other, out `[rows, 2 width]` = [dx1 | dx2].
    ///
    /// # Errors
    /// As [`join_streams`](Self::join_streams).
    pub fn join_gradients(&self, out: wgpu::BufferBinding<'_>) -> Result<Call> {
        self.join([&self.buffers().dx1, &self.buffers().dx2], out)
    }

    /// A call that takes both streams from a tensor `[rows, 2 width]` = [x1 | x2].
    ///
    /// # Errors
    /// As [`join_streams`](Self::join_streams), where the tensor is called `table`, and a stream `out`.
    pub fn split_streams(&self, both: wgpu::BufferBinding<'_>) -> Result<Call> {
        self.split(both, [&self.buffers().x1, &self.buffers().x2])
    }

    /// A call that takes the gradients by both streams from a tensor `[rows, 2 width]` = [dx1 | dx2].
    ///
    /// # Errors
    /// As [`split_streams`](Self::split_streams).
    pub fn split_gradients(&self, both: wgpu::BufferBinding<'_>) -> Result<Call> {
        self.split(both, [&self.buffers().dx1, &self.buffers().dx2])
    }

    fn join(&self, streams: [&wgpu::Buffer; 2], out: wgpu::BufferBinding<'_>) -> Result<Call> {
        let (rows, width) = (self.rows(), self.width());
        let ids = self.ids(0..rows)?;
        let side = |n: usize| {
            let shape = EmbedShape::new(rows, rows.max(1), width).out_at(n * width).out_row(Some(2 * width));
            self.kernels.embed(&shape)?.bind(whole(&ids), whole(streams[n]), out.clone())
        };
        Ok(Call::chain("join streams", [side(0)?, side(1)?]))
    }

    fn split(&self, both: wgpu::BufferBinding<'_>, streams: [&wgpu::Buffer; 2]) -> Result<Call> {
        let (rows, width) = (self.rows(), self.width());
        let side = |n: usize| {
            // A row of both is two of one.
            let ids = self.ids((0..rows).map(|row| 2 * row + n))?;
            let shape = EmbedShape::new(rows, (2 * rows).max(1), width);
            self.kernels.embed(&shape)?.bind(whole(&ids), both.clone(), whole(streams[n]))
        };
        Ok(Call::chain("split streams", [side(0)?, side(1)?]))
    }

    fn ids(&self, rows: impl Iterator<Item = usize>) -> Result<wgpu::Buffer> {
        let ids: Vec<u32> = rows.map(|row| row as u32).collect();
        upload(self.kernels.device(), "ids of rows", bytemuck::cast_slice(&ids))
    }
}
