use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use wgpu_attention::{Gpu, Options};

/// A device that no other test allocates on, whose shaders are counted: what a recorded call takes shows there.
pub struct Counted {
    /// The device.
    pub gpu: Gpu,
    shaders: Arc<AtomicUsize>,
}

impl Counted {
    /// The first adapter's.
    ///
    /// # Panics
    /// There is no adapter.
    pub fn new() -> Self {
        let adapters = pollster::block_on(Gpu::adapters()).expect("an adapter");
        let gpu = pollster::block_on(Gpu::on(&adapters[0], Options::default()))
            .expect("a device")
            .self_tests(false);
        let shaders = Arc::new(AtomicUsize::new(0));
        let counted = shaders.clone();
        let kernels = gpu.kernels().edited(move |text| {
            counted.fetch_add(1, Ordering::Relaxed);
            text.to_owned()
        });
        Self { gpu: gpu.with_kernels(kernels), shaders }
    }

    /// Shader texts that were asked for so far.
    pub fn shaders(&self) -> usize {
        self.shaders.load(Ordering::Relaxed)
    }
}

impl Default for Counted {
    fn default() -> Self {
        Self::new()
    }
}

/// Bytes and pieces that a device's allocator has given out, staging memory of uploads among them.
///
/// # Panics
/// The device has an allocator that tells nothing.
pub fn allocated(gpu: &Gpu) -> (u64, usize) {
    gpu.device().poll(wgpu::PollType::wait_indefinitely()).expect("polling");
    let report = gpu.device().generate_allocator_report().expect("wgpu's own allocator");
    (report.total_allocated_bytes, report.allocations.len())
}
