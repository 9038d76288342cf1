//! Compiled shaders, their bindings, and the dispatches that run them.

use super::bindings::Bindings;
use super::memory::filled_buffer;
use super::params::Params;
use super::scope::checked;
use super::trusted;
use crate::wgsl::{Binding, Shader};
use crate::{Error, Result};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A compiled shader.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
    label: String,
    bindings: Vec<Binding>,
    params: Vec<&'static str>,
    uniforms: Mutex<VecDeque<Uniform>>,
}

/// Parameters in a buffer that is never written again, so that calls can share it.
#[derive(Debug, Clone)]
struct Uniform {
    bytes: Vec<u8>,
    buffer: wgpu::Buffer,
}

/// Uniforms that a pipeline keeps: those of a plan's parts, of a few plans.
const UNIFORMS: usize = 16;
/// Bytes of the largest: who runs thousands of dispatches waits for other things.
const UNIFORM_BYTES: usize = 1 << 14;

impl Pipeline {
    /// Compiles a shader whose binding 0 is its uniform struct and whose others are the storage buffers that it lists; without
    /// `checks` only one that is [`Shader::proven`].
    pub(crate) fn new(device: &wgpu::Device, shader: &Shader, checks: bool) -> Result<Self> {
        let entry = |binding: usize, ty, dynamic| wgpu::BindGroupLayoutEntry {
            binding: binding as u32,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: dynamic, min_binding_size: None },
            count: None,
        };
        let mut entries = vec![entry(0, wgpu::BufferBindingType::Uniform, true)];
        entries.extend(shader.bindings.iter().enumerate().map(|(n, binding)| {
            entry(n + 1, wgpu::BufferBindingType::Storage { read_only: !binding.writable }, false)
        }));
        checked(device, &shader.label, || {
            let label = Some(shader.label.as_str());
            let layout = device
                .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
            let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label,
                bind_group_layouts: &[Some(&layout)],
                immediate_size: 0,
            });
            let descriptor = wgpu::ShaderModuleDescriptor {
                label,
                source: wgpu::ShaderSource::Wgsl(shader.text.as_str().into()),
            };
            let module = match checks {
                true => device.create_shader_module(descriptor),
                false => trusted::module(device, descriptor),
            };
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label,
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some(shader.entry),
                compilation_options: wgpu::PipelineCompilationOptions {
                    // Every element of workgroup memory is written before it is read; zeroing would cost a pass over it.
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: None,
            });
            let (bindings, params) = (shader.bindings.clone(), shader.params.clone());
            let uniforms = Mutex::default();
            Self { pipeline, layout, label: shader.label.clone(), bindings, params, uniforms }
        })
    }

    /// The shader's name.
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    fn uniforms(&self) -> MutexGuard<'_, VecDeque<Uniform>> {
        self.uniforms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The buffer of the last call with these parameters: to make one takes as long as all the rest of a step.
    fn uniform(&self, bytes: &[u8]) -> Option<wgpu::Buffer> {
        let uniforms = self.uniforms();
        uniforms.iter().find(|known| known.bytes == bytes).map(|known| known.buffer.clone())
    }

    fn keep_uniform(&self, uniform: Uniform) {
        let mut uniforms = self.uniforms();
        uniforms.truncate(UNIFORMS - 1);
        uniforms.push_front(uniform);
    }
}

/// Consecutive work items, one workgroup each, cut into dispatches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Work {
    /// Items in all.
    pub(crate) items: u32,
    /// Items of one dispatch at most.
    pub(crate) per_dispatch: u32,
}

impl Work {
    /// The dispatches' (first, end).
    pub(crate) fn dispatches(self) -> impl Iterator<Item = (u32, u32)> {
        let step = self.per_dispatch.max(1);
        (0..self.items)
            .step_by(step as usize)
            .map(move |first| (first, first.saturating_add(step).min(self.items)))
    }
}

/// One pipeline with its buffers, ready to be recorded any number of times.
#[derive(Debug)]
pub(crate) struct Step {
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    dispatches: Vec<Dispatch>,
}

#[derive(Debug)]
struct Dispatch {
    params_offset: u32,
    groups: (u32, u32),
}

impl Step {
    /// Binds the buffers that the pipeline's shader names. Other parameters get another buffer: `Queue::write_buffer` would land
    /// before the next submit, so two calls in one encoder that shared a buffer would both see the later values.
    pub(crate) fn new(
        device: &wgpu::Device,
        pipeline: &Pipeline,
        params: &Params,
        work: Work,
        buffers: &Bindings<'_>,
    ) -> Result<Self> {
        let limits = device.limits();
        let mut slot = params.bytes(&pipeline.params)?;
        let stride = slot.len().next_multiple_of(limits.min_uniform_buffer_offset_alignment as usize);
        let ranges: Vec<_> = work.dispatches().collect();
        let mut bytes = vec![0; ranges.len() * stride];
        let mut dispatches = Vec::with_capacity(ranges.len());
        for (n, (first, end)) in ranges.into_iter().enumerate() {
            Params::set_work(&mut slot, first, end);
            bytes[n * stride..][..slot.len()].copy_from_slice(&slot);
            let across = (end - first).min(limits.max_compute_workgroups_per_dimension);
            let groups = (across, (end - first).div_ceil(across));
            dispatches.push(Dispatch { params_offset: (n * stride) as u32, groups });
        }
        let bound = pipeline.bindings.iter().map(|binding| {
            buffers.get(&binding.name).cloned().ok_or_else(|| {
                // A variant and its plan that disagree: a test runs every variant.
                Error::argument(binding.name.clone(), "a buffer for this binding of the shader", "none")
            })
        });
        let bound = bound.collect::<Result<Vec<_>>>()?;
        let known = pipeline.uniform(&bytes);
        let (step, params) = checked(device, &pipeline.label, || {
            let params = known.clone().unwrap_or_else(|| {
                filled_buffer(device, "attention parameters", wgpu::BufferUsages::UNIFORM, &bytes)
            });
            let mut entries = vec![wgpu::BindGroupEntry {
                binding: 0,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: &params,
                    offset: 0,
                    size: wgpu::BufferSize::new(slot.len() as u64),
                }),
            }];
            entries.extend(bound.into_iter().enumerate().map(|(n, buffer)| wgpu::BindGroupEntry {
                binding: n as u32 + 1,
                resource: wgpu::BindingResource::Buffer(buffer),
            }));
            let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(&pipeline.label),
                layout: &pipeline.layout,
                entries: &entries,
            });
            (Self { pipeline: pipeline.pipeline.clone(), bind_group, dispatches }, params)
        })?;
        // Only now: what a device without memory makes is no buffer.
        if known.is_none() && bytes.len() <= UNIFORM_BYTES {
            pipeline.keep_uniform(Uniform { bytes, buffer: params });
        }
        Ok(step)
    }

    pub(crate) fn record(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.pipeline);
        for dispatch in &self.dispatches {
            pass.set_bind_group(0, &self.bind_group, &[dispatch.params_offset]);
            pass.dispatch_workgroups(dispatch.groups.0, dispatch.groups.1, 1);
        }
    }

    pub(crate) fn dispatches(&self) -> usize {
        self.dispatches.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dispatches_cover_every_item_once() {
        for (items, per_dispatch, want) in
            [(0, 5, vec![]), (5, 5, vec![(0, 5)]), (6, 5, vec![(0, 5), (5, 6)]), (2, 0, vec![(0, 1), (1, 2)])]
        {
            assert_eq!(Work { items, per_dispatch }.dispatches().collect::<Vec<_>>(), want);
        }
        let last = Work { items: u32::MAX, per_dispatch: u32::MAX - 1 }.dispatches().last();
        assert_eq!(last, Some((u32::MAX - 1, u32::MAX)));
    }
}
