//! A small kernel of the benchmark's own: a pipeline, its buffers, as many workgroups as the buffers need.

use crate::call::{buffer, checked, submit};
use anyhow::Result;
use web_time::Duration;
use wgpu::{BindGroup, Buffer, BufferUsages, ComputePass, ComputePipeline};
use wgpu_attention::Gpu;

/// Lanes of a workgroup in every file of `wgsl/` but `launch.wgsl`.
pub(super) const LANES: usize = 256;

/// A pipeline with its buffers.
pub(crate) struct Microkernel {
    pipeline: ComputePipeline,
    group: BindGroup,
    workgroups: u32,
}

impl Microkernel {
    /// The buffers are bindings 0, 1, ...
    pub(super) async fn new(
        gpu: &Gpu,
        label: &'static str,
        source: &str,
        buffers: &[&Buffer],
        workgroups: u32,
    ) -> Result<Self> {
        let device = gpu.device();
        checked(device, label, || {
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(label),
                source: wgpu::ShaderSource::Wgsl(source.into()),
            });
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(label),
                layout: None,
                module: &module,
                entry_point: Some("main"),
                compilation_options: Default::default(),
                cache: None,
            });
            let entries: Vec<_> = (0..)
                .zip(buffers)
                .map(|(binding, buffer)| wgpu::BindGroupEntry {
                    binding,
                    resource: buffer.as_entire_binding(),
                })
                .collect();
            let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(label),
                layout: &pipeline.get_bind_group_layout(0),
                entries: &entries,
            });
            Self { pipeline, group, workgroups }
        })
        .await
    }

    /// Overwrites so many bytes, or as many as a binding may have.
    pub(crate) async fn overwrite(gpu: &Gpu, bytes: u64) -> Result<Self> {
        let workgroup_bytes = (LANES * 8 * 16) as u64;
        let limits = gpu.device().limits();
        let bytes = bytes.min(limits.max_storage_buffer_binding_size).min(limits.max_buffer_size);
        let workgroups =
            (bytes / workgroup_bytes).clamp(1, limits.max_compute_workgroups_per_dimension.into());
        let words = zeroed(gpu, "overwrite", workgroups * workgroup_bytes).await?;
        Self::new(gpu, "overwrite", include_str!("wgsl/overwrite.wgsl"), &[&words], workgroups as u32).await
    }

    /// Records one call.
    pub(crate) fn dispatch(&self, pass: &mut ComputePass<'_>) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        pass.dispatch_workgroups(self.workgroups, 1, 1);
    }

    /// Computes so many times and waits; from submit to done.
    pub(super) async fn run(&self, gpu: &Gpu, times: usize) -> Result<Duration> {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        (0..times).for_each(|_| self.dispatch(&mut pass));
        drop(pass);
        submit(gpu, "microkernel", encoder.finish()).await
    }
}

/// A storage buffer that can be read back.
pub(super) async fn zeroed(gpu: &Gpu, name: &'static str, bytes: u64) -> Result<Buffer> {
    buffer(gpu, name, &vec![0; bytes as usize], BufferUsages::STORAGE | BufferUsages::COPY_SRC).await
}
