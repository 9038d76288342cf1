//! A device, and the one seam at which a case computes, is recorded, or gets what another implementation computed.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use wgpu_attention::{Gpu, Kernels, Options};

/// Where a case runs.
#[derive(Clone)]
pub(crate) struct Bench {
    gpu: Gpu,
    how: How,
}

/// What becomes of a case's commands.
#[derive(Clone)]
enum How {
    /// The device computes.
    Live,
    /// wgpu writes down what it is asked.
    Recording,
    /// Another implementation has computed, into files of this folder.
    Replayed(PathBuf),
}

/// Ends a case that is recorded: there is nothing to judge yet.
#[derive(Debug)]
pub(crate) struct Recorded;

impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("recorded, not run")
    }
}

impl std::error::Error for Recorded {}

/// Ends a case that an implementation need not run, with the reason.
#[derive(Debug)]
pub(crate) struct NotHere(pub(crate) &'static str);

impl fmt::Display for NotHere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for NotHere {}

impl Bench {
    /// The adapter that the process's environment leads to.
    pub(crate) fn open(default_limits: bool) -> Result<Self> {
        let descriptor = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
        let instance = wgpu::Instance::new(descriptor);
        let adapter =
            pollster::block_on(instance.request_adapter(&Default::default())).context("no adapter")?;
        let gpu = if default_limits {
            device(&adapter, wgpu::Trace::Off)?
        } else {
            let token = wgpu_attention_experimental::allowed();
            pollster::block_on(Gpu::on_experimental(&adapter, Options::default(), token))?
        };
        Ok(Self { gpu, how: How::Live })
    }

    /// No device at all: wgpu checks everything and writes it down in the folder.
    pub(crate) fn recording(folder: &Path) -> Result<Self> {
        let gpu = device(&nothing()?, wgpu::Trace::Directory(folder.into()))?;
        Ok(Self { gpu, how: How::Recording })
    }

    /// The same, when what was recorded has been computed elsewhere.
    pub(crate) fn replayed(folder: &Path) -> Result<Self> {
        Ok(Self { gpu: device(&nothing()?, wgpu::Trace::Off)?, how: How::Replayed(folder.into()) })
    }

    /// The device.
    pub(crate) fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The device with these options.
    pub(crate) fn with(&self, mut options: Options) -> Result<Gpu> {
        options.matrix_size = self.kernels().options().matrix_size;
        Ok(self.gpu.with_kernels(Kernels::new(self.gpu.device(), options)?))
    }

    /// The kernels as they are.
    pub(crate) fn kernels(&self) -> &Kernels {
        self.gpu.kernels()
    }

    /// Whether direct tiles run here in bearable time.
    pub(crate) fn compiles_direct_tiles(&self) -> Result<()> {
        let info = self.gpu.info();
        let slow = info.backend == wgpu::Backend::Gl || info.driver.starts_with("SwiftShader");
        ensure!(!slow, NotHere("not planned there: its compiler takes minutes for it"));
        Ok(())
    }

    /// The same of the gradients' direct tiles. With Dawn's checks of every index Mesa's compiler takes minutes for one.
    pub(crate) fn compiles_direct_gradients(&self) -> Result<()> {
        ensure!(
            matches!(self.how, How::Live),
            NotHere("with Dawn's checks the compiler takes minutes for it")
        );
        self.compiles_direct_tiles()
    }

    /// Whether there are cooperative matrices here.
    pub(crate) fn has_matrices(&self) -> Result<()> {
        let there = self.kernels().options().matrix_size.is_some();
        ensure!(there, NotHere("no cooperative matrices of f16"));
        Ok(())
    }

    /// Submits a little more, and waits for it: a layer that watches the device tells of accesses outside of buffers while the program goes on, and of
    /// the last submission before its end not always.
    pub(crate) fn settle(&self) -> Result<()> {
        let device = self.gpu.device();
        let usage = wgpu::BufferUsages::COPY_DST;
        let descriptor =
            wgpu::BufferDescriptor { label: Some("settle"), size: 16, usage, mapped_at_creation: false };
        let buffer = device.create_buffer(&descriptor);
        for _ in 0..4 {
            let mut encoder = device.create_command_encoder(&Default::default());
            encoder.clear_buffer(&buffer, 0, None);
            self.gpu.queue().submit([encoder.finish()]);
            device.poll(wgpu::PollType::wait_indefinitely())?;
        }
        Ok(())
    }

    /// Submits what `record` records and gives what is in the buffers then.
    pub(crate) fn run(
        &self,
        record: impl FnOnce(&mut wgpu::CommandEncoder),
        outputs: &[&wgpu::Buffer],
    ) -> Result<Vec<Vec<u8>>> {
        if let How::Replayed(folder) = &self.how {
            let file =
                |n| fs::read(folder.join(format!("out{n}.bin"))).context("what the replay should leave");
            return (0..outputs.len()).map(file).collect();
        }
        let device = self.gpu.device();
        let mut encoder = device.create_command_encoder(&Default::default());
        record(&mut encoder);
        let copy = |from: &&wgpu::Buffer| {
            let copy = device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("read-back"),
                size: from.size(),
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            encoder.copy_buffer_to_buffer(from, 0, &copy, 0, copy.size());
            copy
        };
        let copies: Vec<_> = outputs.iter().map(copy).collect();
        let submission = self.gpu.queue().submit([encoder.finish()]);
        if matches!(self.how, How::Recording) {
            bail!(Recorded);
        }
        for copy in &copies {
            copy.map_async(wgpu::MapMode::Read, .., |_| ());
        }
        device.poll(wgpu::PollType::Wait { submission_index: Some(submission), timeout: None })?;
        let bytes =
            |copy: &wgpu::Buffer| Ok(copy.slice(..).get_mapped_range().context("read-back")?.to_vec());
        copies.iter().map(bytes).collect()
    }
}

/// A device with WebGPU's default limits and no features.
fn device(adapter: &wgpu::Adapter, trace: wgpu::Trace) -> Result<Gpu> {
    let descriptor = wgpu::DeviceDescriptor { trace, ..Default::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))?;
    Ok(Gpu::with_device(adapter.get_info(), device, queue, Options::default())?)
}

/// wgpu's adapter that computes nothing.
fn nothing() -> Result<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::NOOP;
    descriptor.backend_options.noop.enable = true;
    let adapters =
        pollster::block_on(wgpu::Instance::new(descriptor).enumerate_adapters(wgpu::Backends::NOOP));
    adapters.into_iter().next().ok_or_else(|| anyhow!("wgpu was built without its `noop` backend"))
}
