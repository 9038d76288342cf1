//! Attention in a program that has a wgpu device already: `cargo run --example your_device`.
//!
//! The kernels record themselves into the program's own encoder, over its own buffers; they submit, poll and write nothing
//! behind its back. Here the program makes q, k and v on the device by a shader of its own, in the same encoder.
//!
//! Copied into a crate of your own, it takes `cargo add wgpu-attention pollster` and `cargo add bytemuck --features extern_crate_alloc`.

use wgpu_attention::wgpu;
use wgpu_attention::{AttentionBuffers, AttentionShape, BigBird, Kernels, Options};

/// A program's own work: fills its buffer with a wave.
const WAVE: &str = "
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@compute @workgroup_size(64)
fn wave(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < arrayLength(&x)) { x[id.x] = sin(f32(id.x) * 0.37); }
}";

pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (device, queue) = pollster::block_on(open())?;

    let shape = AttentionShape::new(1, 4, 1024, 64);
    let storage = |label, elements: usize| {
        device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: 4 * elements as u64,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        })
    };
    let x = storage("x", shape.len_q()); // queries, keys and values at once
    let out = storage("out", shape.len_out());
    let back = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("back"),
        size: out.size(),
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });

    // Once: plan (compiles) and bind (checks). Both may be kept, and the call recorded every frame.
    let kernels = Kernels::new(&device, Options::default())?;
    let pattern = BigBird { block: 64, window: 3, global: 1, random: 2, seed: 7 };
    let plan = kernels.attention(shape, &pattern)?;
    println!("{}: {}", plan.path().path, plan.path().why);
    let [q, k, v] = [&x; 3].map(wgpu::Buffer::as_entire_buffer_binding);
    let call = plan.bind(AttentionBuffers::new(q, k, v, out.as_entire_buffer_binding()))?;

    // Each time: record between the program's own passes.
    let mut encoder = device.create_command_encoder(&Default::default());
    wave(&device, &mut encoder, &x);
    call.encode(&mut encoder);
    encoder.copy_buffer_to_buffer(&out, 0, &back, 0, out.size());
    queue.submit([encoder.finish()]);

    back.map_async(wgpu::MapMode::Read, .., |result| result.expect("the copy is mapped"));
    device.poll(wgpu::PollType::wait_indefinitely())?;
    let bytes = back.get_mapped_range(..)?;
    let values: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
    println!("out[0] = {:?} ...", &values[..4]);
    assert!(values.iter().all(|x| x.is_finite()));
    Ok(())
}

/// The program's device.
async fn open() -> Result<(wgpu::Device, wgpu::Queue), Box<dyn std::error::Error>> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapter = instance.request_adapter(&Default::default()).await?;
    Ok(adapter.request_device(&Default::default()).await?)
}

/// Records the program's own pass.
fn wave(device: &wgpu::Device, encoder: &mut wgpu::CommandEncoder, x: &wgpu::Buffer) {
    let source = wgpu::ShaderSource::Wgsl(WAVE.into());
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: Some("wave"), source });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some("wave"),
        layout: None,
        module: &module,
        entry_point: Some("wave"),
        compilation_options: Default::default(),
        cache: None,
    });
    let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some("wave"),
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[wgpu::BindGroupEntry { binding: 0, resource: x.as_entire_binding() }],
    });
    let mut pass = encoder.begin_compute_pass(&Default::default());
    pass.set_pipeline(&pipeline);
    pass.set_bind_group(0, &bind_group, &[]);
    pass.dispatch_workgroups(x.size().div_ceil(4 * 64) as u32, 1, 1);
}
