//! Causal linear attention against causal attention, one head, d = m = 64, by turns, the least time of each, and whether it is as fast as it should be:
//! `cargo run --release --example linear_speed`; where there is no driver, `cargo build --example linear_speed` and
//! `cargo xtask launch target/debug/examples/linear_speed`.
//!
//! Linear attention takes time in proportion to the length: twice the length, twice the time, and at 16,384 positions a fraction of causal attention's.

use std::time::{Duration, Instant};
use wgpu_attention::wgpu::{Buffer, BufferUsages, PollType, util::DeviceExt};
use wgpu_attention::{
    AttentionBuffers, AttentionShape, Call, Causal, FeatureMap, Gpu, LinearBuffers, LinearOptions, Result,
};

const ROUNDS: usize = 5;
/// Time at 65,536 over that at 32,768, at most.
const GROWTH: f64 = 2.2;
/// Time of causal attention at 16,384 over that of linear attention there, at least.
const FASTER: f64 = 5.0;

fn main() -> Result<()> {
    let gpu = Gpu::new()?;
    println!("on {}", gpu.info().name);
    let mut calls = vec![];
    for len in [16_384, 32_768, 65_536] {
        for (name, map) in [("elu + 1, m = 64", FeatureMap::Elu), ("FAVOR+, m = 64", FeatureMap::favor(64))] {
            calls.push((format!("linear, {name}, n = {len}"), linear(&gpu, len, map)?, Duration::MAX));
        }
    }
    calls.push(("causal attention, n = 16384".into(), attention(&gpu, 16_384)?, Duration::MAX));
    for _ in 0..ROUNDS {
        for (_, call, least) in &mut calls {
            *least = (*least).min(time(&gpu, call));
        }
    }
    for (name, _, least) in &calls {
        println!("{name:36} {:>9.1} ms", 1e3 * least.as_secs_f64());
    }
    let ratio = |a: usize, b: usize| calls[a].2.as_secs_f64() / calls[b].2.as_secs_f64();
    for (name, first) in [("elu + 1", 0), ("FAVOR+", 1)] {
        let (growth, there, longest) = (ratio(first + 4, first + 2), ratio(6, first), ratio(6, first + 4));
        println!("{name}: 65,536 over 32,768: {growth:.2}, {}", judged(growth <= GROWTH, "at most", GROWTH));
        let faster = judged(there >= FASTER, "at least", FASTER);
        println!(
            "{name}: causal attention at 16,384 over linear there: {there:.1}, {faster}; over linear at 65,536: {longest:.1}"
        );
    }
    Ok(())
}

/// What a ratio should be, and whether it is.
fn judged(is_reached: bool, bound: &str, goal: f64) -> String {
    format!("{}: {bound} {goal}", if is_reached { "as it should be" } else { "NOT as it should be" })
}

fn buffers(gpu: &Gpu, len: usize) -> [Buffer; 4] {
    [0.37, 0.61, 0.23, 0.0].map(|step: f32| {
        let wave: Vec<u8> = (0..len * 64).flat_map(|n| (n as f32 * step).sin().to_le_bytes()).collect();
        gpu.device().create_buffer_init(&wgpu_attention::wgpu::util::BufferInitDescriptor {
            label: None,
            contents: &wave,
            usage: BufferUsages::STORAGE,
        })
    })
}

fn linear(gpu: &Gpu, len: usize, map: FeatureMap) -> Result<Call> {
    let plan = gpu
        .kernels()
        .linear_attention(AttentionShape::new(1, 1, len, 64), LinearOptions::new(map).causal(true))?;
    let buffers = buffers(gpu, len);
    let [q, k, v, out] = buffers.each_ref().map(Buffer::as_entire_buffer_binding);
    plan.bind(LinearBuffers::new(q, k, v, out))
}

fn attention(gpu: &Gpu, len: usize) -> Result<Call> {
    let plan = gpu.kernels().attention(AttentionShape::new(1, 1, len, 64), &Causal)?;
    let buffers = buffers(gpu, len);
    let [q, k, v, out] = buffers.each_ref().map(Buffer::as_entire_buffer_binding);
    plan.bind(AttentionBuffers::new(q, k, v, out))
}

fn time(gpu: &Gpu, call: &Call) -> Duration {
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    call.encode(&mut encoder);
    let start = Instant::now();
    gpu.queue().submit([encoder.finish()]);
    gpu.device().poll(PollType::wait_indefinitely()).expect("the device answers");
    start.elapsed()
}
