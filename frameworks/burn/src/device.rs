//! Devices of burn's whose wgpu device is known.

use crate::cache::Cache;
use burn::backend::{DispatchDevice, WgpuDevice};
use burn::tensor::Device;
use burn::tensor::wgpu::{WgpuInitError, WgpuOptions, WgpuSetup};
use burn_cubecl::CubeDevice;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};
use wgpu_attention::{Call, Error, Kernels, Options, Result, wgpu};

/// The kernels on one device of burn's, on the queue that burn submits to.
pub(crate) struct OnDevice {
    pub(crate) kernels: Kernels,
    queue: wgpu::Queue,
    pub(crate) plans: Cache,
}

impl fmt::Debug for OnDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnDevice").field("kernels", &self.kernels).finish_non_exhaustive()
    }
}

static DEVICES: LazyLock<RwLock<HashMap<WgpuDevice, Arc<OnDevice>>>> = LazyLock::new(RwLock::default);

/// burn's default wgpu device ([`WgpuOptions::default`]), with the kernels on it. Call this once, before the first tensor, and clone what it
/// returns.
///
/// # Errors
/// As [`init`].
///
/// ```no_run
/// let device = wgpu_attention_burn::device()?;
/// let x = burn::tensor::Tensor::<2>::ones([2, 3], &device);
/// # Ok::<(), wgpu_attention_burn::Error>(())
/// ```
pub fn device() -> Result<Device> {
    init(WgpuOptions::default())
}

/// A device of burn's, with the kernels on it.
///
/// # Errors
/// [`Error::Device`] for what burn reports, such as a device that is in use already: burn gives the wgpu device out only when it makes it. See
/// [`attach`] for a device whose setup you have.
///
/// ```no_run
/// use burn::tensor::{Device, DeviceKind};
/// let device = wgpu_attention_burn::init(Device::wgpu_options().device_kind(DeviceKind::DiscreteGpu(0)))?;
/// # Ok::<(), wgpu_attention_burn::Error>(())
/// ```
pub fn init(options: WgpuOptions) -> Result<Device> {
    let failed =
        |error: WgpuInitError| Error::Device { what: "burn's device".into(), message: error.to_string() };
    let (device, setup) = options.init_with_setup().map_err(failed)?;
    attach(&device, &setup)?;
    Ok(device)
}

/// Puts the kernels on a device that burn has already: one whose [`WgpuSetup`] you gave to burn, or got from it.
///
/// # Errors
/// [`Error::Argument`] for a device that is not wgpu's, and as [`Kernels::new`].
///
/// ```no_run
/// use burn::tensor::Device;
/// let (device, setup) = Device::wgpu_options().tasks_max(64).init_with_setup()?;
/// wgpu_attention_burn::attach(&device, &setup)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn attach(device: &Device, setup: &WgpuSetup) -> Result<()> {
    attach_with(device, setup, Options::default())
}

/// [`attach`], with [`Options`] for the kernels. [`Options::shared_buffers`] is always on, since cubecl puts many tensors into one buffer.
///
/// # Errors
/// As [`attach`].
pub fn attach_with(device: &Device, setup: &WgpuSetup, options: Options) -> Result<()> {
    let key = wgpu_device("device", device)?;
    let on = OnDevice {
        kernels: Kernels::new(&setup.device, options.shared_buffers(true))?,
        queue: setup.queue.clone(),
        plans: Cache::default(),
    };
    DEVICES.write().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::new(on));
    Ok(())
}

/// The kernels on the device of a tensor.
pub(crate) fn on(name: &'static str, device: &Device) -> Result<Arc<OnDevice>> {
    let key = wgpu_device(name, device)?;
    let devices = DEVICES.read().unwrap_or_else(PoisonError::into_inner);
    let need = "a tensor on a device from `wgpu_attention_burn::device` or `init`, or one that was attached";
    devices.get(&key).cloned().ok_or_else(|| Error::argument(name, need, format!("{key:?}")))
}

/// Which of wgpu's devices it is, with or without gradients.
pub(crate) fn wgpu_device(name: &'static str, device: &Device) -> Result<WgpuDevice> {
    let plain = device.clone().without_autodiff();
    match plain.as_dispatch() {
        DispatchDevice::Cube(CubeDevice::Wgpu(device)) => Ok(device.clone()),
        _ => Err(Error::argument(name, "a device of burn's wgpu backend", format!("{plain:?}"))),
    }
}

impl OnDevice {
    /// Records and submits a call, behind all that burn has submitted.
    pub(crate) fn submit(&self, call: &Call) {
        let mut encoder = self.kernels.device().create_command_encoder(&Default::default());
        call.encode(&mut encoder);
        self.queue.submit([encoder.finish()]);
    }
}
