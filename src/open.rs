//! Devices opened for plain Rust users, each with the judge of its plans.

#[cfg(not(target_arch = "wasm32"))]
use crate::self_test::JUDGE;
use crate::{Error, Gpu, Options, Result, cooperative_features, recommended_features, recommended_limits};

impl Gpu {
    /// A device on the adapter that wgpu prefers for high performance; wgpu's environment variables (`WGPU_BACKEND`) are heeded. Blocks; in a
    /// browser, use [`Gpu::new_async`].
    ///
    /// # Errors
    /// [`Error::NoAdapter`] if there is none; otherwise as [`Gpu::on`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn new() -> Result<Self> {
        pollster::block_on(Self::new_async())
    }

    /// [`Gpu::new`] without blocking the caller's executor.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] if there is none; otherwise as [`Gpu::on`].
    pub async fn new_async() -> Result<Self> {
        let options = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..Default::default()
        };
        let adapter =
            instance()?.request_adapter(&options).await.map_err(|e| Error::NoAdapter(e.to_string()))?;
        Self::on(&adapter, Options::default()).await
    }

    /// All adapters of this machine, of every backend that the application compiled in.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] if there is none, or no backend.
    ///
    /// ```no_run
    /// use wgpu_attention::{Gpu, Options};
    /// # async fn example() -> wgpu_attention::Result<()> {
    /// for adapter in Gpu::adapters().await? {
    ///     let gpu = Gpu::on(&adapter, Options::default()).await?;
    ///     println!("{}: {:?}", gpu.info().name, gpu.info().backend);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn adapters() -> Result<Vec<wgpu::Adapter>> {
        let adapters = instance()?.enumerate_adapters(wgpu::Backends::all()).await;
        if adapters.is_empty() {
            return Err(Error::NoAdapter("no driver was found".into()));
        }
        Ok(adapters)
    }

    /// A device on this adapter, with [`recommended_features`] and [`recommended_limits`].
    ///
    /// # Errors
    /// [`Error::Device`] if the adapter refuses, and as [`Kernels::new`](crate::Kernels::new).
    pub async fn on(adapter: &wgpu::Adapter, options: Options) -> Result<Self> {
        Self::on_experimental(adapter, options, wgpu::ExperimentalFeatures::disabled()).await
    }

    /// As [`Gpu::on`]; with the token that wgpu wants for experimental features, also with the cooperative matrices of the
    /// adapter, if it has any that the kernels use ([`cooperative_features`]).
    ///
    /// # Errors
    /// As [`Gpu::on`].
    pub async fn on_experimental(
        adapter: &wgpu::Adapter,
        mut options: Options,
        experimental: wgpu::ExperimentalFeatures,
    ) -> Result<Self> {
        let mut features = recommended_features(adapter);
        if experimental.is_enabled() {
            features |= cooperative_features(adapter);
            // Strict WebGPU has the adapter's matrices without the features to use them. Where no kernel can name them, plans
            // say so.
            if adapter.features().contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
                options = options.matrices(&adapter.cooperative_matrix_properties());
            }
        }
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("wgpu-attention"),
            required_features: features,
            required_limits: recommended_limits(adapter),
            experimental_features: experimental,
            ..Default::default()
        };
        let (device, queue) = adapter
            .request_device(&descriptor)
            .await
            .map_err(|e| Error::Device { what: "request_device".into(), message: e.to_string() })?;
        Self::with_device(adapter.get_info(), device, queue, options)
    }

    /// The kernels on a device that the caller made, with slices in and `Vec` out. Replaces the device's device-lost callback.
    ///
    /// # Errors
    /// As [`Kernels::new`](crate::Kernels::new).
    pub fn with_device(
        info: wgpu::AdapterInfo,
        device: wgpu::Device,
        queue: wgpu::Queue,
        options: Options,
    ) -> Result<Self> {
        Self::assembled(
            info,
            device,
            queue,
            options,
            #[cfg(not(target_arch = "wasm32"))]
            JUDGE,
        )
    }
}

/// An instance with every backend that the application compiled in.
fn instance() -> Result<wgpu::Instance> {
    if wgpu::Instance::enabled_backend_features().is_empty() {
        let need = "enable one of wgpu's features vulkan, metal, dx12, gles or webgpu in the application";
        return Err(Error::NoAdapter(format!("no wgpu backend is compiled in; {need}")));
    }
    Ok(wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env()))
}
