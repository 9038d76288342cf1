//! How fast a token attends a long cache, beside how fast the adapter reads: `cargo run --example decode_speed`.
//!
//! 8,192 keys, d = 128, 8 query heads on 2 key heads, batch 1 and 8, f32, f16 and int8; by turns with the probe, the least time of each. Where keys and
//! values are read once, bytes per second are those of the cache.

mod rates;

use rates::{Timed, compare, filled, probe};
use std::time::Duration;
use wgpu_attention::wgpu::{Buffer, BufferUsages};
use wgpu_attention::{
    AttendBuffers, CacheShape, CacheStorage, Call, DecodeShape, ElementType, Gpu, KvCache, Result,
};

const KEYS: usize = 8192;
const DIM: usize = 128;

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
    compare(&gpu, &mut timed);
    Ok(())
}

/// A cache that is full.
fn full(gpu: &Gpu, shape: &CacheShape) -> Result<KvCache> {
    let mut cache = gpu.kernels().kv_cache(shape)?;
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    cache.extend(gpu.queue(), &mut encoder, &vec![KEYS; shape.batch])?;
    for buffer in [cache.keys()].into_iter().chain(cache.values()) {
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
        flops: 0.0,
        record: Box::new(move |pass| call.dispatch(pass)),
        least: Duration::MAX,
        computed: Duration::MAX,
    })
}
