//! How fast a token attends a long cache, beside how fast the adapter reads: `cargo run --release --example decode_speed`.
//!
//! 8,192 keys, d = 128, 8 query heads on 2 key heads, batch 1 and 8, f32, f16 and int8; by turns with the probe, the least time of each. Where keys and
//! values are read once, bytes per second are those of the cache.

use std::time::{Duration, Instant};
use wgpu_attention::wgpu::{Buffer, BufferUsages, PollType, util::DeviceExt};
use wgpu_attention::{
    AttendBuffers, CacheShape, CacheStorage, Call, DecodeShape, ElementType, Gpu, KvCache, Result, wgpu,
};

const KEYS: usize = 8192;
const DIM: usize = 128;
const ROUNDS: usize = 12;

/// Reads a buffer, 128 words a lane.
const PROBE: &str = "
@group(0) @binding(0) var<storage, read> words: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> sums: array<u32>;
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    var sum = vec4(0u);
    for (var n = 0u; n < 32u; n++) { sum += words[group.x * 8192u + lane + 256u * n]; }
    sums[group.x * 256u + lane] = sum.x + sum.y + sum.z + sum.w;
}";

/// What is timed: bytes that it reads, and how it is recorded.
struct Timed {
    name: String,
    bytes: f64,
    record: Box<dyn Fn(&mut wgpu::ComputePass<'_>)>,
    least: Duration,
}

fn main() -> Result<()> {
    let gpu = Gpu::new()?;
    println!("on {}", gpu.info().name);
    let mut timed = vec![probe(&gpu)];
    for (batch, storage, page) in [
        (1, ElementType::F32.into(), None),
        (8, ElementType::F32.into(), None),
        (1, ElementType::F16.into(), None),
        (8, ElementType::F16.into(), None),
        (8, ElementType::F16.into(), Some(64)),
        (1, CacheStorage::Int8, None),
        (8, CacheStorage::Int8, None),
    ] {
        timed.push(decode(&gpu, batch, storage, page)?);
    }
    for _ in 0..ROUNDS {
        for one in &mut timed {
            one.least = one.least.min(time(&gpu, &one.record));
        }
    }
    let rate = |one: &Timed| one.bytes / one.least.as_secs_f64();
    let reads = rate(&timed[0]);
    for one in &timed {
        let (ms, gb) = (1e3 * one.least.as_secs_f64(), rate(one) / 1e9);
        println!("{:44} {ms:>8.2} ms {gb:>7.2} GB/s {:>4.0} %", one.name, 100.0 * rate(one) / reads);
    }
    Ok(())
}

fn filled(gpu: &Gpu, words: usize, usage: BufferUsages) -> Buffer {
    // Small numbers in f32 and in both halves as f16.
    let word = |n: usize| 0x2c00_2c00u32 + (n as u32).wrapping_mul(2_654_435_761) % 1024 * 0x0001_0001;
    let words: Vec<u32> = (0..words).map(word).collect();
    gpu.device().create_buffer_init(&wgpu::util::BufferInitDescriptor {
        label: None,
        contents: &words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>(),
        usage: usage | BufferUsages::STORAGE,
    })
}

fn probe(gpu: &Gpu) -> Timed {
    let device = gpu.device();
    let groups = 1024u32;
    let from = filled(gpu, groups as usize * 8192 * 4, BufferUsages::empty());
    let to = filled(gpu, groups as usize * 256, BufferUsages::empty());
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl(PROBE.into()),
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: None,
        compilation_options: Default::default(),
        cache: None,
    });
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[
            wgpu::BindGroupEntry { binding: 0, resource: from.as_entire_binding() },
            wgpu::BindGroupEntry { binding: 1, resource: to.as_entire_binding() },
        ],
    });
    let record = move |pass: &mut wgpu::ComputePass<'_>| {
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(groups, 1, 1);
    };
    Timed {
        name: "the adapter reads".into(),
        bytes: f64::from(groups) * 8192.0 * 16.0,
        record: Box::new(record),
        least: Duration::MAX,
    }
}

/// A cache that is full.
fn full(gpu: &Gpu, shape: &CacheShape) -> Result<KvCache> {
    let mut cache = gpu.kernels().kv_cache(shape)?;
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    cache.extend(gpu.queue(), &mut encoder, &vec![KEYS; shape.batch])?;
    for buffer in [cache.keys(), cache.values()] {
        let words = filled(gpu, buffer.size() as usize / 4, BufferUsages::COPY_SRC);
        encoder.copy_buffer_to_buffer(&words, 0, buffer, 0, buffer.size());
    }
    let lengths: Vec<u8> = (0..shape.batch).flat_map(|_| (KEYS as u32).to_ne_bytes()).collect();
    gpu.queue().write_buffer(cache.device_lengths(), 0, &lengths);
    gpu.queue().submit([encoder.finish()]);
    Ok(cache)
}

fn decode(gpu: &Gpu, batch: usize, storage: CacheStorage, page: Option<usize>) -> Result<Timed> {
    let cache = CacheShape::new(batch, 2, KEYS, DIM).storage(storage);
    let cache = page.map_or(cache, |page| cache.paged(page, batch * KEYS / page));
    let shape = DecodeShape::new(cache, 8, 1);
    let filled_cache = full(gpu, &cache)?;
    let plan = gpu.kernels().decode(&shape)?;
    let [q, out] = [shape.len_q(), shape.len_out()].map(|len| filled(gpu, len, BufferUsages::empty()));
    let whole = Buffer::as_entire_buffer_binding;
    let call: Call = plan.attend(&filled_cache, AttendBuffers::new(whole(&q), whole(&out)))?;
    let pages = page.map_or("contiguous".to_owned(), |page| format!("pages of {page}"));
    Ok(Timed {
        name: format!("batch {batch}, {storage}, {pages}, {} splits", plan.splits()),
        bytes: (cache.keys_bytes() + cache.values_bytes()) as f64,
        record: Box::new(move |pass| call.dispatch(pass)),
        least: Duration::MAX,
    })
}

fn time(gpu: &Gpu, record: &dyn Fn(&mut wgpu::ComputePass<'_>)) -> Duration {
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    record(&mut encoder.begin_compute_pass(&Default::default()));
    let start = Instant::now();
    gpu.queue().submit([encoder.finish()]);
    gpu.device().poll(PollType::wait_indefinitely()).expect("polling");
    start.elapsed()
}
