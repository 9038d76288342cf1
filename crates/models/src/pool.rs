//! Buffers that are used again once nobody holds them.

use std::rc::Rc;
use wgpu_attention::Gpu;

/// A device's tensor: clones are the same one.
pub type Tensor = Rc<wgpu::Buffer>;

/// A buffer of its own, of zeros, as new buffers are.
pub(crate) fn zeros(device: &wgpu::Device, bytes: u64) -> Tensor {
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let size = bytes;
    Rc::new(device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size,
        usage,
        mapped_at_creation: false,
    }))
}

/// Writes zeros, before anything is bound: after what was not written when it was bound, wgpu looks in every dispatch.
pub(crate) fn clear<'a>(gpu: &Gpu, buffers: impl IntoIterator<Item = &'a wgpu::Buffer>) {
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    buffers.into_iter().for_each(|buffer| encoder.clear_buffer(buffer, 0, None));
    gpu.queue().submit([encoder.finish()]);
}

/// Storage buffers, each used again by the next tensor of its size once its last handle outside is dropped.
///
/// Calls that are recorded one behind the other do what they do in that order, so a buffer that later calls write may still be
/// what earlier ones read.
#[derive(Default)]
pub(crate) struct Pool(Vec<Tensor>);

impl Pool {
    /// A buffer of so many bytes. What it holds is anything.
    pub(crate) fn take(&mut self, device: &wgpu::Device, bytes: u64) -> Tensor {
        let free = self.0.iter().find(|buffer| Rc::strong_count(buffer) == 1 && buffer.size() == bytes);
        if let Some(buffer) = free {
            return buffer.clone();
        }
        let buffer = zeros(device, bytes);
        self.0.push(buffer.clone());
        buffer
    }
}
