//! The sort for plain Rust users: slices in, `Vec`s out.

use super::host::Gpu;
use super::sort::{SortBuffers, SortShape};
use crate::{ElementType, Error, Result};

/// What [`Gpu::sort`] returns.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SortOutput {
    /// The sorted keys `[segments, len]`.
    pub keys: Vec<u32>,
    /// Their values, or the places where the keys were.
    pub values: Vec<u32>,
}

impl Gpu {
    /// A stable sort over slices: uploads, sorts, waits, reads back.
    ///
    /// # Errors
    /// [`Error::Argument`] for a slice of the wrong length, and as [`Kernels::sort`](crate::Kernels::sort).
    ///
    /// ```no_run
    /// use wgpu_attention::{Gpu, SortShape};
    /// let sorted = Gpu::new()?.sort(&SortShape::new(2, 3), &[2, 1, 1, 9, 7, 8], None)?;
    /// assert_eq!((sorted.keys, sorted.values), (vec![1, 1, 2, 7, 8, 9], vec![1, 2, 0, 1, 2, 0]));
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn sort(&self, shape: &SortShape, keys: &[u32], values: Option<&[u32]>) -> Result<SortOutput> {
        pollster::block_on(self.sort_async(shape, keys, values))
    }

    /// [`Gpu::sort`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::sort`].
    pub async fn sort_async(
        &self,
        shape: &SortShape,
        keys: &[u32],
        values: Option<&[u32]>,
    ) -> Result<SortOutput> {
        self.check_alive()?;
        let shape = shape.values(values.is_some());
        shape.check()?;
        let len = shape.len_keys();
        for (name, slice) in [("keys", Some(keys)), ("values", values)] {
            if let Some(got) = slice.map(<[_]>::len).filter(|&got| got != len) {
                return Err(Error::argument(name, format!("{len} elements"), format!("{got} elements")));
            }
        }
        let plan = self.kernels().sort(&shape).map_err(|e| self.or_lost(e))?;
        if len == 0 {
            return Ok(SortOutput { keys: vec![], values: vec![] });
        }
        let keys = self.upload("keys", keys, len)?;
        let values = values.map(|values| self.upload("values", values, len)).transpose()?;
        let sorted_keys = self.output("sorted_keys", len, ElementType::F32)?;
        let sorted_values = self.output("sorted_values", len, ElementType::F32)?;
        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let buffers = SortBuffers {
            keys: whole(&keys),
            values: values.as_ref().map(whole),
            sorted_keys: Some(whole(&sorted_keys)),
            sorted_values: whole(&sorted_values),
        };
        let call = plan.bind(buffers).map_err(|e| self.or_lost(e))?;
        let fetched = self.fetch(&[&sorted_keys, &sorted_values], |encoder| call.encode(encoder)).await?;
        Ok(SortOutput { keys: fetched.take(0, len)?, values: fetched.take(1, len)? })
    }
}
