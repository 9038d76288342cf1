//! Decoding with a key cache, token by token: `cargo run --release --example decode_cache`.
//!
//! Two sequences, 8 query heads on 2 key heads. The whole token, new keys and values appended and their queries attended, is bound once; per token
//! it is recorded and submitted. Lengths and pages lie on the device: nothing is planned, compiled or allocated on the way. After 40 tokens the second
//! sequence becomes a fork of the first, which shares its pages until one of them writes.

use wgpu_attention::wgpu::{Buffer, BufferDescriptor, BufferUsages, PollType};
use wgpu_attention::{AppendBuffers, AttendBuffers, CacheShape, DecodeShape, Gpu, Result, rotary_tables};
use wgpu_attention::{ElementType, RotaryPairs};

fn main() -> Result<()> {
    let gpu = Gpu::new()?;
    let (device, queue) = (gpu.device(), gpu.queue());

    // Up to 4,096 positions per sequence in pages of 64, 80 pages in all, keys and values in f16.
    let shape = CacheShape::new(2, 2, 4096, 64).storage(ElementType::F16).paged(64, 80);
    let mut cache = gpu.kernels().kv_cache(&shape)?;
    let step =
        DecodeShape::new(shape, 8, 1).rotary(Some((64, RotaryPairs::HalfSplit))).window(Some(1023)).sinks(4);
    let plan = gpu.kernels().decode(&step)?;

    let [cos, sin] = rotary_tables(4096, 64, 10000.0).map(|table| buffer(&gpu, &table));
    let wave = |len: usize, step: f32| (0..len).map(|n| (n as f32 * step).sin()).collect::<Vec<f32>>();
    let q = buffer(&gpu, &wave(step.len_q(), 0.37));
    let k = buffer(&gpu, &wave(step.len_k(), 0.61));
    let v = buffer(&gpu, &wave(step.len_v(), 0.23));
    let out = buffer(&gpu, &vec![0.0; step.len_out()]);
    let whole = Buffer::as_entire_buffer_binding;
    let append = AppendBuffers::new(whole(&k), whole(&v)).cos(whole(&cos)).sin(whole(&sin));
    let attend = AttendBuffers::new(whole(&q), whole(&out)).cos(whole(&cos)).sin(whole(&sin));
    let call = plan.bind(&cache, append, attend)?;

    for token in 0..100u16 {
        // Here a model would compute q, k and v of the token.
        queue.write_buffer(&k, 0, &(f32::from(token) * 0.01).to_le_bytes());
        if token == 40 {
            cache.fork(queue, 0, 1)?;
        }
        let mut encoder = device.create_command_encoder(&Default::default());
        cache.extend(queue, &mut encoder, &[1, 1])?; // an error where the cache is full
        call.encode(&mut encoder);
        queue.submit([encoder.finish()]);
    }
    device.poll(PollType::wait_indefinitely()).expect("polling");
    println!(
        "on {}: lengths {:?}, {:?} pages free, {} small uploads, {} bytes of scratch",
        gpu.info().name,
        cache.lengths(),
        cache.free_pages(),
        cache.uploads(),
        plan.scratch_bytes()
    );
    Ok(())
}

fn buffer(gpu: &Gpu, values: &[f32]) -> Buffer {
    let buffer = gpu.device().create_buffer(&BufferDescriptor {
        label: None,
        size: 4 * values.len() as u64,
        usage: BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC,
        mapped_at_creation: false,
    });
    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    gpu.queue().write_buffer(&buffer, 0, &bytes);
    buffer
}
