//! LSH attention by length, and where its time goes: `cargo bench --bench lsh`. (What rounds and buckets are worth: the example
//! `lsh_recall`.)
//!
//! Each figure is the best of several submissions, from submitting to the device being idle.

use std::time::Instant;
use wgpu_attention::{AttentionShape, Counter, Gpu, LshBuffers, LshCall, LshOptions, LshStage};

fn main() {
    let gpu = Gpu::new().expect("a GPU adapter; `cargo xtask bench` fetches a software one");
    println!("adapter: {}", gpu.info().name);
    let largest = std::env::var("LSH_LARGEST").ok().and_then(|n| n.parse().ok()).unwrap_or(65_536);
    lengths(&gpu, largest);
}

/// One head of 64, 4 rounds, chunks of 64; factorised buckets, about two places a bucket and chunk.
fn lengths(gpu: &Gpu, largest: usize) {
    println!(
        "{:>7} {:>9} {:>7} {:>9} {:>9} {:>9} {:>9}",
        "n", "ms", "ratio", "hash", "sort", "attention", "finish"
    );
    let mut before: Option<f64> = None;
    let mut n = 1024;
    while n <= largest {
        let shape = AttentionShape::new(1, 1, n, 64);
        let buckets = n / 32;
        let low = 1 << (buckets.ilog2() / 2);
        let options = LshOptions::new(4, buckets, 64).buckets(vec![low, buckets / low]).causal(true);
        let call = bind(gpu, &shape, options);
        let whole = time(gpu, |pass| call.dispatch(pass));
        let stages = LshStage::ALL.map(|stage| time(gpu, |pass| call.dispatch_stage(pass, stage)));
        let ratio = before.map_or("".into(), |before| format!("{:.2}", whole / before));
        let stages = stages.map(|ms| format!("{ms:>9.2}")).join(" ");
        println!("{n:>7} {whole:>9.2} {ratio:>7} {stages}");
        before = Some(whole);
        n *= 2;
    }
}

fn bind(gpu: &Gpu, shape: &AttentionShape, options: LshOptions) -> LshCall {
    let plan = gpu.kernels().lsh(shape, options).expect("the plan is valid");
    let draw = Counter::new(1, 0);
    let buffer = |len: usize| {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let size = 4 * len as u64;
        let buffer = gpu.device().create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage,
            mapped_at_creation: false,
        });
        let data: Vec<f32> = (0..len as u64).map(|n| draw.normal(n) as f32).collect();
        gpu.queue().write_buffer(&buffer, 0, bytemuck::cast_slice(&data));
        buffer
    };
    let (qk, v, out) = (buffer(shape.len_q()), buffer(shape.len_v()), buffer(shape.len_out()));
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    plan.bind(LshBuffers::new(whole(&qk), whole(&v), whole(&out))).expect("the buffers fit")
}

/// Milliseconds, the best of five.
fn time(gpu: &Gpu, record: impl Fn(&mut wgpu::ComputePass<'_>)) -> f64 {
    let once = || {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        record(&mut encoder.begin_compute_pass(&Default::default()));
        let commands = encoder.finish();
        let start = Instant::now();
        gpu.queue().submit([commands]);
        gpu.device().poll(wgpu::PollType::wait_indefinitely()).expect("the device is alive");
        1e3 * start.elapsed().as_secs_f64()
    };
    once();
    (0..5).map(|_| once()).fold(f64::INFINITY, f64::min)
}
