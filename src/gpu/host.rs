//! For plain Rust users: slices in, `Vec`s out, on a device of the crate's own.

use super::attention::PlanCache;
#[cfg(not(target_arch = "wasm32"))]
use super::attention::{Pipelines, SelfTest};
use super::kernels::Kernels;
use super::memory::filled_buffer;
use super::options::Options;
use super::scope::{allocated, checked, is_lost};
#[cfg(not(target_arch = "wasm32"))]
use super::tested::TestedPlan;
use crate::{ElementType, Error, Result};
#[cfg(not(target_arch = "wasm32"))]
use std::collections::HashMap;
#[cfg(not(target_arch = "wasm32"))]
use std::pin::Pin;
#[cfg(not(target_arch = "wasm32"))]
use std::sync::Mutex;
use std::sync::{Arc, OnceLock};

/// A device with its kernels: slices in, `Vec` out.
///
/// ```no_run
/// use wgpu_attention::{AttentionShape, Causal, Gpu};
/// let shape = AttentionShape::new(1, 2, 128, 64);
/// let [q, k, v] = [0.1, 0.2, 0.3].map(|x: f32| vec![x; shape.len_q()]);
/// let gpu = Gpu::new()?;
/// let out: Vec<f32> = gpu.attention(&shape, &q, &k, &v, &Causal)?;
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Gpu {
    info: wgpu::AdapterInfo,
    device: wgpu::Device,
    queue: wgpu::Queue,
    kernels: Kernels,
    lost: Arc<OnceLock<String>>,
    /// Of the last calls on slices; clones share them.
    pub(super) plans: Arc<PlanCache>,
    /// Cut by how fast the device is, once that is measured.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) calibrated: Arc<OnceLock<Kernels>>,
    /// Of the pipelines that were tested.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) tests: Arc<SelfTests>,
    /// Whether new plans are.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) tests_plans: bool,
}

/// Runs a plan's pipelines and says what it thinks of the result.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) type Judge =
    for<'a> fn(&'a Gpu, TestedPlan<'a>) -> Pin<Box<dyn Future<Output = Result<SelfTest>> + Send + 'a>>;

/// What was found for the pipelines that were tested on a device.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Debug)]
pub(super) struct SelfTests {
    pub(super) judge: Judge,
    pub(super) found: Mutex<HashMap<Pipelines, SelfTest>>,
}

#[cfg(not(target_arch = "wasm32"))]
impl SelfTests {
    fn new(judge: Judge) -> Self {
        Self { judge, found: Mutex::default() }
    }
}

/// Features that make the kernels faster where an adapter has them. None is needed.
pub fn recommended_features(adapter: &wgpu::Adapter) -> wgpu::Features {
    adapter.features() & (wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::SUBGROUP)
}

/// WebGPU's default limits, raised to what the adapter has where the kernels gain by it: larger bindings and buffers
/// for long sequences, more workgroup memory for better tiles, more storage buffers for scores of many tensors.
pub fn recommended_limits(adapter: &wgpu::Adapter) -> wgpu::Limits {
    let have = adapter.limits();
    wgpu::Limits {
        max_buffer_size: have.max_buffer_size,
        max_storage_buffer_binding_size: have.max_storage_buffer_binding_size,
        max_storage_buffers_per_shader_stage: have.max_storage_buffers_per_shader_stage,
        max_compute_workgroup_storage_size: have.max_compute_workgroup_storage_size,
        max_compute_invocations_per_workgroup: have.max_compute_invocations_per_workgroup,
        max_compute_workgroup_size_x: have.max_compute_workgroup_size_x,
        ..wgpu::Limits::default().or_worse_values_from(&have)
    }
}

impl Gpu {
    /// A device of the caller's. Its device-lost callback is set.
    pub(crate) fn assembled(
        info: wgpu::AdapterInfo,
        device: wgpu::Device,
        queue: wgpu::Queue,
        options: Options,
        #[cfg(not(target_arch = "wasm32"))] judge: Judge,
    ) -> Result<Self> {
        let lost = Arc::new(OnceLock::new());
        let report = lost.clone();
        device.set_device_lost_callback(move |reason, message| {
            report.get_or_init(|| format!("{reason:?}: {message}"));
        });
        let kernels = Kernels::new(&device, options)?;
        Ok(Self {
            info,
            device,
            queue,
            kernels,
            lost,
            plans: Arc::default(),
            #[cfg(not(target_arch = "wasm32"))]
            calibrated: Arc::default(),
            #[cfg(not(target_arch = "wasm32"))]
            tests: Arc::new(SelfTests::new(judge)),
            #[cfg(not(target_arch = "wasm32"))]
            tests_plans: true,
        })
    }

    /// Sets whether attention and LSH attention over slices, and their gradients, test the pipelines of a new plan first
    /// ([`Gpu::self_test`]): yes, unless it is said otherwise. Plans that were made before are kept. In a browser nothing is tested.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn self_tests(self, wanted: bool) -> Self {
        Self { tests_plans: wanted, ..self }
    }

    /// The kernels for a call of so many floating-point operations. How fast the device is matters where one dispatch might not do,
    /// and there alone; a browser lets nobody wait for a measurement.
    pub(super) fn kernels_for(&self, flops: f64) -> Result<Kernels> {
        let most = self.kernels().options().most_flops(self.device().adapter_info().device_type);
        #[cfg(not(target_arch = "wasm32"))]
        if flops > most {
            return self.calibrated_kernels();
        }
        let _ = (flops, most);
        Ok(self.kernels().clone())
    }

    /// A plan of so many floating-point operations, made again with measured kernels where one dispatch might not do.
    pub(super) fn planned<P>(
        &self,
        plan: impl Fn(&Kernels) -> Result<P>,
        flops: impl Fn(&P) -> f64,
    ) -> Result<P> {
        let plan = |kernels: &Kernels| plan(kernels).map_err(|e| self.or_lost(e));
        let first = plan(self.kernels())?;
        let kernels = self.kernels_for(flops(&first))?;
        if kernels.options() == self.kernels().options() { Ok(first) } else { plan(&kernels) }
    }

    /// The same device with other kernels: other [`Options`], or edited shaders. They must be of this device.
    pub fn with_kernels(&self, kernels: Kernels) -> Self {
        Self {
            kernels,
            plans: Arc::default(),
            #[cfg(not(target_arch = "wasm32"))]
            calibrated: Arc::default(),
            #[cfg(not(target_arch = "wasm32"))]
            tests: Arc::new(SelfTests::new(self.tests.judge)),
            ..self.clone()
        }
    }

    /// The adapter.
    pub fn info(&self) -> &wgpu::AdapterInfo {
        &self.info
    }

    /// The device.
    pub fn device(&self) -> &wgpu::Device {
        &self.device
    }

    /// The queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.queue
    }

    /// The kernels on this device.
    pub fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    pub(crate) fn upload<E: bytemuck::Pod>(
        &self,
        name: &'static str,
        data: &[E],
        need: usize,
    ) -> Result<wgpu::Buffer> {
        // Whatever lies behind the last row stays here.
        let data = &data[..need];
        self.check_size(name, size_of_val(data) as u64)?;
        let bytes: &[u8] = bytemuck::cast_slice(data);
        let fill = || filled_buffer(&self.device, name, wgpu::BufferUsages::STORAGE, bytes);
        allocated(&self.device, name, bytes.len() as u64, fill).map_err(|e| self.or_lost(e))
    }

    pub(crate) fn output(
        &self,
        name: &'static str,
        elements: usize,
        element: ElementType,
    ) -> Result<wgpu::Buffer> {
        let size = (elements * element.size_bytes()).next_multiple_of(16) as u64;
        self.check_size(name, size)?;
        // COPY_DST for what some calls find in it.
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        self.buffer(name, size, usage)
    }

    fn buffer(&self, name: &'static str, size: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        let descriptor = wgpu::BufferDescriptor { label: Some(name), size, usage, mapped_at_creation: false };
        allocated(&self.device, name, size, || self.device.create_buffer(&descriptor))
            .map_err(|e| self.or_lost(e))
    }

    fn check_size(&self, name: &'static str, bytes: u64) -> Result<()> {
        let limits = self.device.limits();
        let sizes = [
            ("max_storage_buffer_binding_size", limits.max_storage_buffer_binding_size),
            ("max_buffer_size", limits.max_buffer_size),
        ];
        match sizes.into_iter().find(|(_, have)| bytes > *have) {
            Some((limit, have)) => Err(Error::limit(name, limit, bytes, have)),
            None => Ok(()),
        }
    }

    /// Records with `record` and submits.
    pub(crate) fn submit<T>(&self, record: impl FnOnce(&mut wgpu::CommandEncoder) -> Result<T>) -> Result<T> {
        let submitted = checked(&self.device, "submit", || {
            let mut encoder = self.device.create_command_encoder(&Default::default());
            let value = record(&mut encoder)?;
            self.queue.submit([encoder.finish()]);
            Ok(value)
        });
        submitted.map_err(|e| self.or_lost(e))?
    }

    /// Records with `record`, submits, and brings buffers back: one submission, one read-back buffer, one wait.
    pub(crate) async fn fetch(
        &self,
        from: &[&wgpu::Buffer],
        record: impl FnOnce(&mut wgpu::CommandEncoder),
    ) -> Result<Fetched> {
        let mut ends = vec![];
        let mut size = 0;
        for buffer in from {
            size += buffer.size();
            ends.push(size);
        }
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let copy = self.buffer("read-back", size.max(16), usage)?;
        self.submit(|encoder| {
            record(encoder);
            for (buffer, end) in from.iter().zip(&ends) {
                encoder.copy_buffer_to_buffer(buffer, 0, &copy, end - buffer.size(), buffer.size());
            }
            Ok(())
        })?;
        self.mapped(&copy).await?;
        let sizes = from.iter().map(|buffer| buffer.size()).collect();
        Ok(Fetched { gpu: self.clone(), copy, ends, sizes })
    }

    async fn mapped(&self, buffer: &wgpu::Buffer) -> Result<()> {
        let (send, receive) = futures_channel::oneshot::channel();
        // A dropped receiver means that the caller gave up: nobody is left to tell.
        buffer.map_async(wgpu::MapMode::Read, .., move |result| drop(send.send(result)));
        self.drive();
        receive
            .await
            .map_err(|_| self.read_failed("the device dropped the request".into()))?
            .map_err(|e| self.read_failed(e.to_string()))
    }

    fn read_failed(&self, message: String) -> Error {
        self.or_lost(Error::Device { what: "read-back".into(), message })
    }

    /// Waits for the device on a thread of its own, so that callbacks run while the caller's executor stays free. A
    /// browser does this by itself.
    fn drive(&self) {
        #[cfg(not(target_arch = "wasm32"))]
        {
            let device = self.device.clone();
            // An error of the wait reaches the caller as a failed mapping.
            std::thread::spawn(move || drop(device.poll(wgpu::PollType::wait_indefinitely())));
        }
    }

    pub(crate) fn check_alive(&self) -> Result<()> {
        match self.lost.get() {
            Some(reason) => Err(Error::DeviceLost(reason.clone())),
            None => Ok(()),
        }
    }

    /// A lost device fails in many ways; this names the cause.
    pub(crate) fn or_lost(&self, error: Error) -> Error {
        // The loss is reported through a callback, which only a poll runs; a poll that fails tells no more than `error`.
        let _ = self.device.poll(wgpu::PollType::Poll);
        // It runs once the work in flight is done, which is after what that work wrote is gone.
        let destroyed = || is_lost(&self.device).then(|| Error::DeviceLost("in the middle of work".into()));
        self.check_alive().err().or_else(destroyed).unwrap_or(error)
    }
}

/// Buffers that were brought back by [`Gpu::fetch`], in its order.
pub(crate) struct Fetched {
    gpu: Gpu,
    copy: wgpu::Buffer,
    ends: Vec<u64>,
    sizes: Vec<u64>,
}

impl Fetched {
    /// The first elements of the n-th buffer.
    pub(crate) fn take<E: bytemuck::Pod>(&self, n: usize, elements: usize) -> Result<Vec<E>> {
        let start = self.ends[n] - self.sizes[n];
        let bytes = start..start + (elements * size_of::<E>()) as u64;
        let view = self.copy.slice(..).get_mapped_range();
        let view = view.map_err(|e| self.gpu.read_failed(e.to_string()))?;
        Ok(bytemuck::pod_collect_to_vec(&view[bytes.start as usize..bytes.end as usize]))
    }
}
