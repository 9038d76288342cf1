//! `planted FAULT`: commits a fault on the first Vulkan adapter, or runs as it should (`none`). `cargo xtask validate` runs it under
//! Vulkan's validation layer and expects the fault to be reported: a layer that is not there, or that looks at less than it should,
//! would otherwise pass for kernels without a fault.
//!
//! The faults are of the kinds that the layer is wanted for. wgpu lets those in shaders through, for it leaves accesses outside of a
//! buffer to the device, which keeps them inside; the others are told to Vulkan behind its back.
#![allow(unsafe_code)]

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use wgpu::hal::CommandEncoder;

/// Bytes of each buffer: a word per lane.
const BYTES: u64 = 64 * 4;

/// Submissions of a shader. What its code in the shader noticed the layer reads while the program goes on, and of the last submission
/// before the end not always (1.4.309: of three in five).
const TIMES: usize = 4;

/// What is bound, and workgroup memory.
const HEADER: &str = "
@group(0) @binding(0) var<storage, read> given: array<u32>;
@group(0) @binding(1) var<storage, read_write> out: array<u32>;
var<workgroup> tile: array<u32, 64>;
var<workgroup> arena: array<vec4<u32>, 64>;
fn stage(lane: u32) { arena[lane] = vec4<u32>(given[lane]); }
@compute @workgroup_size(64) fn main(@builtin(local_invocation_index) lane: u32) {
";

/// Sound: each lane writes a word, and reads the one that its neighbour wrote before the barrier.
const SOUND: &str = "tile[lane] = given[lane]; workgroupBarrier(); out[lane] = tile[63u - lane];";

/// What to do.
enum Fault {
    /// Run a shader with this body.
    Shader(&'static str),
    /// Record that so many bytes of a buffer be cleared, so many times.
    Clear(u64, u32),
}

impl Fault {
    /// By its name.
    fn named(name: &str) -> Result<Self> {
        Ok(match name {
            "none" => Self::Shader(SOUND),
            "write" => Self::Shader(
                "tile[lane] = given[lane]; workgroupBarrier(); out[lane + 1u] = tile[63u - lane];",
            ),
            "read" => Self::Shader(
                "tile[lane] = given[lane + 1u]; workgroupBarrier(); out[lane] = tile[63u - lane];",
            ),
            "race" => Self::Shader("tile[lane] = given[lane]; out[lane] = tile[63u - lane];"),
            // As the kernels have it: vectors, staged by a function.
            "race of vectors" => Self::Shader("stage(lane); out[lane] = arena[63u - lane].y;"),
            // Two writes without a barrier between them.
            "hazard" => Self::Clear(BYTES, 2),
            // Less than a word.
            "call" => Self::Clear(3, 1),
            _ => bail!("`{name}` is no fault that is planted here"),
        })
    }
}

fn main() -> ExitCode {
    match run(&std::env::args().nth(1).unwrap_or_default()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Commits a fault.
fn run(name: &str) -> Result<()> {
    let fault = Fault::named(name)?;
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
    descriptor.backends = wgpu::Backends::VULKAN;
    let instance = wgpu::Instance::new(descriptor);
    let adapter = pollster::block_on(instance.request_adapter(&Default::default())).context("no adapter")?;
    let (device, queue) = pollster::block_on(adapter.request_device(&Default::default()))?;
    match fault {
        Fault::Shader(body) => dispatch(&device, &queue, body),
        Fault::Clear(bytes, times) => clear(&device, bytes, times),
    }
}

/// A buffer.
fn buffer(device: &wgpu::Device, usage: wgpu::BufferUsages) -> wgpu::Buffer {
    let descriptor = wgpu::BufferDescriptor { label: None, size: BYTES, usage, mapped_at_creation: false };
    device.create_buffer(&descriptor)
}

/// Runs a shader of this body.
fn dispatch(device: &wgpu::Device, queue: &wgpu::Queue, body: &str) -> Result<()> {
    let source = wgpu::ShaderSource::Wgsl(format!("{HEADER}{body}\n}}").into());
    let descriptor = wgpu::ShaderModuleDescriptor { label: Some("planted"), source };
    let module = device.create_shader_module(descriptor);
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some("planted"),
        layout: None,
        module: &module,
        entry_point: None,
        compilation_options: Default::default(),
        cache: None,
    });
    let storage = [(); 2].map(|()| buffer(device, wgpu::BufferUsages::STORAGE));
    let entries = [0, 1].map(|binding| wgpu::BindGroupEntry {
        binding,
        resource: storage[binding as usize].as_entire_binding(),
    });
    let layout = pipeline.get_bind_group_layout(0);
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &layout,
        entries: &entries,
    });
    for _ in 0..TIMES {
        let mut encoder = device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(1, 1, 1);
        drop(pass);
        queue.submit([encoder.finish()]);
        device.poll(wgpu::PollType::wait_indefinitely())?;
    }
    Ok(())
}

/// Records, and never submits, that bytes of a buffer be cleared, as Vulkan is told it: without wgpu's checks, and without a barrier
/// between two writes.
fn clear(device: &wgpu::Device, bytes: u64, times: u32) -> Result<()> {
    let buffer = buffer(device, wgpu::BufferUsages::COPY_DST);
    let mut encoder = device.create_command_encoder(&Default::default());
    // SAFETY: the buffer outlives the encoder, nothing is submitted, and the bytes lie inside.
    unsafe {
        let raw = buffer.as_hal::<wgpu::hal::api::Vulkan>().context("not on Vulkan")?;
        encoder.as_hal_mut::<wgpu::hal::api::Vulkan, _, _>(|encoder| -> Result<()> {
            let encoder = encoder.context("not on Vulkan")?;
            (0..times).for_each(|_| encoder.clear_buffer(&raw, 0..bytes));
            Ok(())
        })?;
    }
    drop(encoder.finish());
    Ok(())
}
