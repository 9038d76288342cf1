//! Tensors of burn's as the buffers that they are.

use burn::tensor::{DType, Shape};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::wgpu::{AutoCompiler, WgpuResource, WgpuServer};
use cubecl_runtime::storage::ManagedResource;
use wgpu_attention::{Layout, Strides, wgpu};

/// What all of burn's clients of wgpu reach.
type Server = WgpuServer<AutoCompiler>;

/// A tensor, and where it lies. While it is there, cubecl neither moves it nor gives its bytes to another.
pub(crate) struct Place {
    tensor: CubeTensor,
    resource: ManagedResource<WgpuResource>,
    /// Bytes that the binding starts before the tensor, since it may not start there.
    before: u64,
}

impl Place {
    /// An input, as it lies: its last axis contiguous, the others as they are. One that lies otherwise is copied on the device, by
    /// burn.
    pub(crate) fn input(tensor: CubeTensor, device: &wgpu::Device) -> Self {
        let rows = !tensor.meta.is_tiled() && (strides(&tensor)[3] == 1 || tensor.meta.shape()[3] == 1);
        Self::new(if rows { tensor } else { into_contiguous(tensor) }, device)
    }

    /// An input in the order of its axes; one that is not, is copied on the device, by burn.
    pub(crate) fn contiguous(tensor: CubeTensor, device: &wgpu::Device) -> Self {
        Self::new(into_contiguous(tensor), device)
    }

    /// A new tensor beside another.
    pub(crate) fn output(
        beside: &Place,
        shape: impl Into<Shape>,
        dtype: DType,
        device: &wgpu::Device,
    ) -> Self {
        let (client, on) = (beside.tensor.client.clone(), beside.tensor.device.clone());
        Self::new(empty_device_contiguous_dtype(client, on, shape.into(), dtype), device)
    }

    /// Asking for the buffer has cubecl submit what it has queued on the stream of this thread and on that of the tensor: what is
    /// submitted afterwards comes behind all that the tensor depends on.
    fn new(tensor: CubeTensor, device: &wgpu::Device) -> Self {
        // What is submitted at once would be missing whenever the graph is replayed.
        assert!(
            !tensor.client.is_capturing(),
            "attention of wgpu_attention's cannot be captured in a graph of cubecl's"
        );
        let resource = tensor.client.get_resource::<Server>(tensor.handle.clone());
        let resource = resource.unwrap_or_else(|error| panic!("a tensor without a buffer: {error}"));
        let alignment = u64::from(device.limits().min_storage_buffer_offset_alignment);
        let before = resource.resource().offset % alignment;
        Self { tensor, resource, before }
    }

    /// The tensor's bytes of its buffer, whole words.
    pub(crate) fn binding(&self) -> wgpu::BufferBinding<'_> {
        let WgpuResource { buffer, offset, size, .. } = self.resource.resource();
        let size = (size + self.before).next_multiple_of(4);
        let binding =
            wgpu::BufferBinding { buffer, offset: offset - self.before, size: wgpu::BufferSize::new(size) };
        #[cfg(test)]
        tests::BOUND.with_borrow_mut(|bound| bound.push((buffer.clone(), binding.offset)));
        binding
    }

    /// Where its rows lie in the binding.
    pub(crate) fn layout(&self) -> Layout {
        let first = self.before as usize / self.tensor.elem_size();
        if first == 0 && self.tensor.is_contiguous() {
            return Layout::Bhld;
        }
        let [batch, head, row, _] = strides(&self.tensor).map(|stride| stride as isize);
        Layout::Strided(Strides::new(batch, head, row).offset(first))
    }

    /// The tensor.
    pub(crate) fn into_tensor(self) -> CubeTensor {
        self.tensor
    }
}

fn strides(tensor: &CubeTensor) -> [usize; 4] {
    std::array::from_fn(|axis| tensor.meta.strides()[axis])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::cell::RefCell;

    thread_local! {
        /// What this thread has bound: buffers, and from which byte on.
        pub(crate) static BOUND: RefCell<Vec<(wgpu::Buffer, u64)>> = const { RefCell::new(vec![]) };
    }

    /// Where a tensor lies.
    pub(crate) fn place_of(tensor: &CubeTensor) -> (wgpu::Buffer, u64) {
        let resource = tensor.client.get_resource::<Server>(tensor.handle.clone()).expect("a buffer");
        let WgpuResource { buffer, offset, .. } = resource.resource();
        (buffer.clone(), *offset)
    }
}
