//! The adapters of this machine, listed once, and how one is chosen.

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use std::fmt;
use wgpu_attention::{Gpu, KernelPath, Options};

/// Which adapter.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct AdapterArgs {
    /// An adapter: its number in `wgpu-attention adapters`, or a part of its name or backend
    #[arg(long, value_name = "NAME")]
    pub(crate) adapter: Option<String>,
}

/// Which kernel.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct PathArgs {
    /// Force a kernel path (`scalar`, `cooperative`); what the device cannot run is then an error, never another kernel
    #[arg(long, value_name = "PATH", value_parser = parse_path)]
    pub(crate) path: Option<KernelPath>,

    /// Compile without run-time checks the kernels whose every index is proven to lie inside its buffer
    #[arg(long)]
    pub(crate) unchecked: bool,
}

fn parse_path(text: &str) -> Result<KernelPath, String> {
    let found = KernelPath::ALL.into_iter().find(|path| path.to_string() == text);
    found.ok_or_else(|| format!("need one of {}", KernelPath::ALL.map(|path| path.to_string()).join(", ")))
}

impl PathArgs {
    /// As the library takes it.
    pub(crate) fn options(&self) -> Options {
        let options = Options::default().unchecked(self.unchecked);
        self.path.map_or(options, |path| options.path(path))
    }
}

/// An adapter in the list.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) index: usize,
    pub(crate) adapter: wgpu::Adapter,
    pub(crate) info: wgpu::AdapterInfo,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.index, self.info.name, self.info.backend)
    }
}

impl Device {
    /// Opens it. The error names it. Commands that show a result of the kernels compare it, or ask for self-tests.
    pub(crate) fn open(&self, path: PathArgs) -> Result<Gpu> {
        let opened =
            Gpu::on_experimental(&self.adapter, path.options(), wgpu_attention_experimental::allowed());
        let gpu = pollster::block_on(opened).with_context(|| format!("adapter {self}"))?;
        Ok(gpu.self_tests(false))
    }

    /// Opens it, and measures how fast it is, so that long calls are cut into dispatches that suit it.
    pub(crate) fn open_measured(&self, path: PathArgs) -> Result<Gpu> {
        self.open(path)?.calibrated().with_context(|| format!("adapter {self}"))
    }

    /// The driver and its version.
    pub(crate) fn driver(&self) -> String {
        format!("{} {}", self.info.driver, self.info.driver_info).trim().into()
    }

    /// Lower is preferred where the user has no wish: real GPUs first, and native interfaces before OpenGL.
    fn rank(&self) -> (u8, u8) {
        use wgpu::{Backend, DeviceType};
        let kind = match self.info.device_type {
            DeviceType::DiscreteGpu => 0,
            DeviceType::IntegratedGpu => 1,
            DeviceType::VirtualGpu => 2,
            DeviceType::Other => 3,
            DeviceType::Cpu => 4,
        };
        (kind, u8::from(self.info.backend == Backend::Gl))
    }

    fn matches(&self, wish: &str) -> bool {
        let has = |text: &str| text.to_lowercase().contains(&wish.to_lowercase());
        has(&self.info.name) || has(&self.info.backend.to_string())
    }
}

/// Every adapter of every backend; none where there is no driver.
pub(crate) fn all() -> Result<Vec<Device>> {
    match pollster::block_on(Gpu::adapters()) {
        Ok(adapters) => {
            let device = |(index, adapter): (usize, wgpu::Adapter)| Device {
                index,
                info: adapter.get_info(),
                adapter,
            };
            // A driver that is unloaded at the end may have registered code that runs after it: Mesa's software adapters crash there in
            // 1 of some 300 processes. One adapter that is kept keeps all drivers where they are until the process is gone.
            std::mem::forget(adapters.first().cloned());
            Ok(adapters.into_iter().enumerate().map(device).collect())
        }
        Err(wgpu_attention::Error::NoAdapter(_)) => Ok(vec![]),
        Err(error) => Err(error.into()),
    }
}

/// What to do where there is none.
pub(crate) fn none_there() -> anyhow::Error {
    anyhow!(
        "no GPU adapter: no Vulkan, Metal, DirectX 12 or OpenGL driver was found; install one, or start this through \
         `cargo attention`, which fetches a software adapter on Linux"
    )
}

impl AdapterArgs {
    /// All adapters, or those that the user named.
    pub(crate) fn select(&self) -> Result<Vec<Device>> {
        let devices = all()?;
        let Some(wish) = &self.adapter else { return Ok(devices) };
        if devices.is_empty() {
            return Err(none_there());
        }
        let list = || devices.iter().map(Device::to_string).collect::<Vec<_>>().join(", ");
        let found: Vec<_> = match wish.trim().parse::<usize>() {
            Ok(index) => devices.iter().filter(|device| device.index == index).cloned().collect(),
            Err(_) => devices
                .iter()
                .filter(|device| !wish.trim().is_empty() && device.matches(wish.trim()))
                .cloned()
                .collect(),
        };
        if found.is_empty() {
            bail!("--adapter: need one of {}, got `{wish}`", list());
        }
        Ok(found)
    }

    /// The one adapter to use, if there is any: the best of those that the user named.
    pub(crate) fn best(&self) -> Result<Option<Device>> {
        Ok(self.select()?.into_iter().min_by_key(Device::rank))
    }
}
