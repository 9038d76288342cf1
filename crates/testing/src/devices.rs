//! Devices that tests share.

use std::sync::{Mutex, OnceLock, PoisonError};
use wgpu_attention::{Gpu, KernelPath, Options, recommended_features, recommended_limits};

use crate::cooperative;

/// Devices of a test binary at most. A software adapter compiles and runs what one device is given one after the other.
const DEVICES: usize = 4;

/// Devices of one kind.
#[derive(Debug)]
pub struct Devices {
    opened: [OnceLock<Gpu>; DEVICES],
}

impl Devices {
    /// None yet.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self { opened: [const { OnceLock::new() }; DEVICES] }
    }

    /// This thread's, opened where it is the first to ask. It is shared with few other threads, so that a pipeline is compiled few
    /// times; a thread keeps it.
    pub fn of_this_thread(&'static self, open: impl FnOnce() -> Gpu) -> &'static Gpu {
        thread_local!(static PLACE: Place = Place::take());
        self.opened[PLACE.with(|place| place.0)].get_or_init(open)
    }
}

/// This thread's device.
pub fn gpu() -> &'static Gpu {
    static GPUS: Devices = Devices::new();
    GPUS.of_this_thread(|| {
        // A fault that a test looks for must reach it.
        pollster::block_on(open()).map(|gpu| gpu.self_tests(false)).unwrap_or_else(|error| {
            panic!(
                "{error}\nthe kernel tests need an adapter: run them by `cargo xtask test`, which fetches a software \
                 adapter, or install a Vulkan driver"
            )
        })
    })
}

/// The fastest adapter, with as many storage buffers as every device has: what needs more shows.
async fn open() -> wgpu_attention::Result<Gpu> {
    let best = Gpu::new_async().await?;
    let adapters = Gpu::adapters().await?;
    let Some(adapter) = adapters.iter().find(|adapter| adapter.get_info() == *best.info()) else {
        return Ok(best);
    };
    let least = wgpu::Limits::default().max_storage_buffers_per_shader_stage;
    let descriptor = wgpu::DeviceDescriptor {
        required_features: recommended_features(adapter),
        required_limits: wgpu::Limits {
            max_storage_buffers_per_shader_stage: least,
            ..recommended_limits(adapter)
        },
        ..Default::default()
    };
    let (device, queue) = adapter.request_device(&descriptor).await.map_err(|error| {
        wgpu_attention::Error::Device { what: "request_device".into(), message: error.to_string() }
    })?;
    Gpu::with_device(adapter.get_info(), device, queue, Options::default())
}

/// Whether its shaders may ask for subgroups.
pub fn has_subgroups() -> bool {
    gpu().device().features().contains(wgpu::Features::SUBGROUP)
}

/// The same device with other options; its pipelines are kept, too.
pub fn gpu_with(options: Options) -> Gpu {
    if options.path == Some(KernelPath::Cooperative) {
        return cooperative(options);
    }
    gpu().with_kernels(gpu().kernels().with_options(options).expect("valid options"))
}

/// Which device a thread has.
struct Place(usize);

/// How many threads have each device.
static TAKEN: Mutex<[usize; DEVICES]> = Mutex::new([0; DEVICES]);

impl Place {
    /// The device that fewest threads have, of as many as there are cores.
    fn take() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (0..cores.min(DEVICES)).min_by_key(|&place| taken[place]).expect("a core");
        taken[place] += 1;
        Self(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        TAKEN.lock().unwrap_or_else(PoisonError::into_inner)[self.0] -= 1;
    }
}
