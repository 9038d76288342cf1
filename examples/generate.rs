//! How an engine adds generation: `cargo run --release --example generate`.
//!
//! The engine has its projections, and the library keeps keys and values. `Decoding` is all that is added: made once, then a call per layer and token. This
//! engine is a toy, 2 layers whose q, k and v are waves; docs/generation.md is about whole models.

use wgpu_attention::wgpu::{Buffer, BufferDescriptor, BufferUsages, CommandEncoder, ComputePass, Queue};
use wgpu_attention::{AppendBuffers, AttendBuffers, CacheShape, Call, DecodeShape, ElementType};
use wgpu_attention::{Gpu, KvCache, Result};

/// The attention of an engine's layers, a token per step.
struct Decoding(Vec<(KvCache, Call)>);

impl Decoding {
    /// Plans and binds, once. `layers` are the buffers in which the engine's projections leave q, k and v, and where its output projection reads.
    fn new(gpu: &Gpu, shape: &DecodeShape, layers: &[[Buffer; 4]]) -> Result<Self> {
        let plan = gpu.kernels().decode(shape)?;
        let scratch = plan.scratch()?; // layers run one after the other
        let layer = |buffers: &[Buffer; 4]| -> Result<(KvCache, Call)> {
            let cache = gpu.kernels().kv_cache(&shape.cache)?;
            let [q, k, v, out] = buffers.each_ref().map(Buffer::as_entire_buffer_binding);
            let (append, attend) = (AppendBuffers::new(k, v), AttendBuffers::new(q, out));
            let call = plan.bind_with(&cache, append, attend, &scratch)?;
            Ok((cache, call))
        };
        layers.iter().map(layer).collect::<Result<_>>().map(Self)
    }

    /// Once per token, before it is recorded: an error where the caches are full.
    fn begin(&mut self, queue: &Queue, encoder: &mut CommandEncoder) -> Result<()> {
        self.0.iter_mut().try_for_each(|(cache, _)| cache.extend(queue, encoder, &[1]))
    }

    /// Once per layer and token, behind its projections: k and v join the cache, q attends it.
    fn attend(&self, layer: usize, pass: &mut ComputePass<'_>) {
        self.0[layer].1.dispatch(pass);
    }
}

fn main() -> Result<()> {
    let gpu = Gpu::new()?;
    let (device, queue) = (gpu.device(), gpu.queue());
    // One text of up to 2,048 positions, 8 query heads on 2 key heads of 64 elements, kept in f16.
    let shape = DecodeShape::new(CacheShape::new(1, 2, 2048, 64).storage(ElementType::F16), 8, 1);
    let sizes = [shape.len_q(), shape.len_k(), shape.len_v(), shape.len_out()];
    let layers = [(); 2].map(|()| sizes.map(|elements| buffer(&gpu, elements)));
    let mut decoding = Decoding::new(&gpu, &shape, &layers)?;

    for token in 0..100u16 {
        for [q, k, v, _] in &layers {
            for (buffer, step) in [(q, 0.37), (k, 0.61), (v, 0.23)] {
                wave(queue, buffer, f32::from(token), step);
            }
        }
        let mut encoder = device.create_command_encoder(&Default::default());
        decoding.begin(queue, &mut encoder)?;
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for layer in 0..layers.len() {
            // Here an engine records norms and projections before, and the feed-forward layer behind.
            decoding.attend(layer, &mut pass);
        }
        drop(pass);
        queue.submit([encoder.finish()]);
    }
    let lengths: Vec<usize> = decoding.0.iter().map(|(cache, _)| cache.lengths()[0]).collect();
    println!("on {}: {lengths:?} positions in the caches of {} layers", gpu.info().name, layers.len());
    Ok(())
}

/// Where the engine's projection would leave a token's row.
fn wave(queue: &Queue, buffer: &Buffer, token: f32, step: f32) {
    let elements = buffer.size() / 4;
    let row = (0..elements).flat_map(|n| (n as f32 * step + token).sin().to_le_bytes());
    queue.write_buffer(buffer, 0, &row.collect::<Vec<u8>>());
}

fn buffer(gpu: &Gpu, elements: usize) -> Buffer {
    gpu.device().create_buffer(&BufferDescriptor {
        label: None,
        size: 4 * elements as u64,
        usage: BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC,
        mapped_at_creation: false,
    })
}
