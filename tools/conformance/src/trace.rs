//! What wgpu recorded of a case, as a file that any implementation of WebGPU can run: `case.json` beside the shaders and
//! the contents of buffers.
//!
//! wgpu's own trace is complete, but of its own making (and pointers name its objects). Here buffers, layouts, pipelines
//! and bind groups are numbered, and only what the kernels use is known: anything else is an error, never left out.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use wgpu_core::binding_model::BindingResource;
use wgpu_core::command::{Command, ComputeCommand, PointerReferences};
use wgpu_core::device::trace::{Action, Data, FILE_NAME};
use wgpu_core::id::{PointerId, markers};

/// A case for another implementation.
#[derive(Debug, Default, Serialize)]
struct Recorded {
    case: String,
    buffers: Vec<Buffer>,
    /// Bind group layouts.
    layouts: Vec<Vec<Entry>>,
    pipelines: Vec<Pipeline>,
    /// Bind groups.
    groups: Vec<Group>,
    dispatches: Vec<Dispatch>,
    /// Buffers whose contents are the result, in this order.
    outputs: Vec<usize>,
}

#[derive(Debug, Serialize)]
struct Buffer {
    bytes: u64,
    /// `GPUBufferUsage`.
    usage: u32,
    /// The file with what it holds at first.
    data: Option<String>,
}

#[derive(Debug, Serialize)]
struct Entry {
    binding: u32,
    /// `GPUBufferBindingType`.
    kind: &'static str,
    dynamic: bool,
    min_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Pipeline {
    /// The file with the WGSL.
    shader: String,
    entry: String,
    layout: usize,
}

#[derive(Debug, Serialize)]
struct Group {
    layout: usize,
    /// (binding, buffer, offset, bytes)
    buffers: Vec<(u32, usize, u64, Option<u64>)>,
}

#[derive(Debug, Serialize)]
struct Dispatch {
    pipeline: usize,
    group: usize,
    dynamic_offsets: Vec<u32>,
    workgroups: [u32; 3],
}

/// Numbers of wgpu's objects, by the places where they were in memory. A place is taken anew once its object is gone.
#[derive(Default)]
struct Numbers {
    buffers: HashMap<PointerId<markers::Buffer>, usize>,
    layouts: HashMap<PointerId<markers::BindGroupLayout>, usize>,
    pipeline_layouts: HashMap<PointerId<markers::PipelineLayout>, usize>,
    shaders: HashMap<PointerId<markers::ShaderModule>, String>,
    pipelines: HashMap<PointerId<markers::ComputePipeline>, usize>,
    groups: HashMap<PointerId<markers::BindGroup>, usize>,
}

/// Turns wgpu's trace in a folder into `case.json`.
pub(crate) fn convert(folder: &Path, case: &str) -> Result<()> {
    let path = folder.join(FILE_NAME);
    let mut text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    // wgpu closes the list when the device is gone, which may be later.
    if !text.trim_end().ends_with(']') {
        text.push(']');
    }
    let actions: Vec<Action<'_, PointerReferences>> =
        ron::from_str(&text).with_context(|| format!("{case}: what wgpu recorded"))?;
    let mut recorded = Recorded { case: case.into(), ..Default::default() };
    let mut numbers = Numbers::default();
    for action in actions {
        recorded.add(&mut numbers, action).with_context(|| format!("{case}: what wgpu recorded"))?;
    }
    ensure!(!recorded.dispatches.is_empty() && !recorded.outputs.is_empty(), "{case}: nothing was computed");
    fs::write(folder.join("case.json"), serde_json::to_string(&recorded)?)?;
    Ok(fs::remove_file(path)?)
}

/// The number of an object.
fn number<K: Eq + std::hash::Hash>(known: &HashMap<K, usize>, key: &K) -> Result<usize> {
    known.get(key).copied().context("an object that was not made")
}

/// Numbers a new object.
fn enumerate<K: Eq + std::hash::Hash, T>(known: &mut HashMap<K, usize>, key: K, list: &mut Vec<T>, item: T) {
    known.insert(key, list.len());
    list.push(item);
}

/// The file that holds data.
fn file(data: Data) -> Result<String> {
    match data {
        Data::File(name) => Ok(name),
        _ => bail!("data that is not in a file"),
    }
}

impl Recorded {
    fn add(&mut self, numbers: &mut Numbers, action: Action<'_, PointerReferences>) -> Result<()> {
        match action {
            Action::CreateBuffer(id, desc) => {
                let buffer = Buffer { bytes: desc.size, usage: desc.usage.bits(), data: None };
                enumerate(&mut numbers.buffers, id, &mut self.buffers, buffer);
            }
            Action::WriteBuffer { id, data, offset, size, .. } => {
                let buffer = &mut self.buffers[number(&numbers.buffers, &id)?];
                ensure!(offset == 0 && size == buffer.bytes && buffer.data.is_none(), "a partial write");
                buffer.data = Some(file(data)?);
            }
            Action::CreateBindGroupLayout(id, desc) => {
                let entries = desc.entries.iter().map(entry).collect::<Result<_>>()?;
                enumerate(&mut numbers.layouts, id, &mut self.layouts, entries);
            }
            Action::CreatePipelineLayout(id, desc) => match desc.bind_group_layouts.as_ref() {
                [Some(layout)] => {
                    numbers.pipeline_layouts.insert(id, number(&numbers.layouts, layout)?);
                }
                _ => bail!("not one bind group"),
            },
            Action::CreateShaderModule { id, data, .. } => {
                numbers.shaders.insert(id, file(data)?);
            }
            Action::CreateComputePipeline { id, desc } => {
                let layout = desc.layout.context("a pipeline without a layout")?;
                let pipeline = Pipeline {
                    shader: numbers.shaders.get(&desc.stage.module).context("no shader")?.clone(),
                    entry: desc.stage.entry_point.context("no entry point")?.into_owned(),
                    layout: *numbers.pipeline_layouts.get(&layout).context("no layout")?,
                };
                enumerate(&mut numbers.pipelines, id, &mut self.pipelines, pipeline);
            }
            Action::CreateBindGroup(id, desc) => {
                let buffers = desc.entries.iter().map(|entry| match &entry.resource {
                    BindingResource::Buffer(at) => {
                        Ok((entry.binding, number(&numbers.buffers, &at.buffer)?, at.offset, at.size))
                    }
                    _ => bail!("a binding that is no buffer"),
                });
                let group = Group {
                    layout: number(&numbers.layouts, &desc.layout)?,
                    buffers: buffers.collect::<Result<_>>()?,
                };
                enumerate(&mut numbers.groups, id, &mut self.groups, group);
            }
            Action::Submit(_, commands) => {
                for command in commands {
                    self.command(numbers, command)?;
                }
            }
            Action::Init { .. }
            | Action::DropBuffer(_)
            | Action::DropBindGroup(_)
            | Action::DropBindGroupLayout(_)
            | Action::DropPipelineLayout(_)
            | Action::DropComputePipeline(_)
            | Action::DropShaderModule(_) => {}
            other => bail!("not for the kernels: {other:?}"),
        }
        Ok(())
    }

    fn command(&mut self, numbers: &Numbers, command: Command<PointerReferences>) -> Result<()> {
        match command {
            Command::CopyBufferToBuffer { src, .. } => self.outputs.push(number(&numbers.buffers, &src)?),
            Command::RunComputePass { pass, .. } => {
                let (mut pipeline, mut group, mut given) = (None, None, pass.dynamic_offsets.into_iter());
                let mut dynamic_offsets = Vec::new();
                for command in pass.commands {
                    match command {
                        ComputeCommand::SetPipeline(id) => pipeline = Some(number(&numbers.pipelines, &id)?),
                        ComputeCommand::SetBindGroup {
                            index: 0,
                            num_dynamic_offsets,
                            bind_group: Some(id),
                        } => {
                            group = Some(number(&numbers.groups, &id)?);
                            dynamic_offsets = given.by_ref().take(num_dynamic_offsets).collect();
                        }
                        ComputeCommand::DispatchWorkgroups(workgroups) => self.dispatches.push(Dispatch {
                            pipeline: pipeline.context("no pipeline is set")?,
                            group: group.context("no bind group is set")?,
                            dynamic_offsets: dynamic_offsets.clone(),
                            workgroups,
                        }),
                        other => bail!("not for the kernels: {other:?}"),
                    }
                }
            }
            other => bail!("not for the kernels: {other:?}"),
        }
        Ok(())
    }
}

/// An entry of a bind group layout.
fn entry(entry: &wgpu::BindGroupLayoutEntry) -> Result<Entry> {
    use wgpu::{BindingType, BufferBindingType};
    let BindingType::Buffer { ty, has_dynamic_offset, min_binding_size } = entry.ty else {
        bail!("a binding that is no buffer")
    };
    let kind = match ty {
        BufferBindingType::Uniform => "uniform",
        BufferBindingType::Storage { read_only: true } => "read-only-storage",
        BufferBindingType::Storage { read_only: false } => "storage",
    };
    let min_bytes = min_binding_size.map_or(0, |size| size.get());
    Ok(Entry { binding: entry.binding, kind, dynamic: has_dynamic_offset, min_bytes })
}
