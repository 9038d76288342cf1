//! Time of one attention call on the device, by pattern and length: `cargo bench`.
//!
//! A sample is the wall time from submitting a number of calls to the device being idle, so that the cost of one call
//! is their slope. Upload, planning and read-back are outside.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::time::{Duration, Instant};
use wgpu_attention::pattern::{BigBird, Dilated, Fixed, Longformer, Strided};
use wgpu_attention::{
    AttentionBuffers, AttentionCall, AttentionShape, BlockGrid, Causal, Full, Gpu, Parts, Pattern, Window,
};

/// A bound call and the buffers that it needs.
struct Case {
    call: AttentionCall,
    pairs: u64,
}

impl Case {
    fn new(gpu: &Gpu, shape: &AttentionShape, pattern: &dyn Pattern) -> Self {
        let parts = Parts::lower(pattern, BlockGrid::from(shape)).expect("the pattern is valid");
        let plan = gpu.kernels().attention(shape, parts).expect("the plan is valid");
        let buffer = |len: usize, step: f32| {
            let data: Vec<f32> = (0..len).map(|n| (n as f32 * step).sin()).collect();
            let buffer = gpu.device().create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: 4 * len as u64,
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            gpu.queue().write_buffer(&buffer, 0, bytemuck::cast_slice(&data));
            buffer
        };
        let q = buffer(shape.len_q(), 0.37);
        let k = buffer(shape.len_k(), 0.73);
        let v = buffer(shape.len_v(), 1.19);
        let out = buffer(shape.len_out(), 0.0);
        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let buffers = AttentionBuffers {
            q: whole(&q),
            k: whole(&k),
            v: whole(&v),
            bias: None,
            out: whole(&out),
            lse: None,
        };
        let call = plan.bind(buffers).expect("the buffers fit");
        Self { call, pairs: plan.explain().visited }
    }

    fn time(&self, gpu: &Gpu, calls: u64) -> Duration {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        (0..calls).for_each(|_| self.call.encode(&mut encoder));
        let commands = encoder.finish();
        let start = Instant::now();
        gpu.queue().submit([commands]);
        gpu.device().poll(wgpu::PollType::wait_indefinitely()).expect("the device is alive");
        start.elapsed()
    }
}

/// Every pattern at growing lengths; one head of size 64, f32.
fn patterns(c: &mut Criterion) {
    let gpu = Gpu::new().expect("a GPU adapter; `cargo xtask bench` fetches a software one");
    println!("adapter: {}", gpu.info().name);
    let mut group = c.benchmark_group("attention f32 h1 d64");
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    for n in [1024, 4096, 16384] {
        let root = (n as f64).sqrt() as usize;
        let tokens: Vec<usize> = (0..16).map(|t| t * n / 16).collect();
        let patterns: [(&str, Box<dyn Pattern>); 8] = [
            ("full", Box::new(Full)),
            ("causal", Box::new(Causal)),
            ("window 512", Box::new(Window { before: 511, after: 0 })),
            ("dilated", Box::new(Dilated::new(4 * root, 0, 4).expect("a step of 4"))),
            ("strided", Box::new(Strided::new(root).expect("a stride"))),
            ("fixed", Box::new(Fixed::new(root, 8).expect("a stride"))),
            ("bigbird", Box::new(BigBird::new(64, 3, 2, 3, 7).expect("an odd window"))),
            ("longformer 512", Box::new(Longformer::new(512, tokens).expect("ascending tokens"))),
        ];
        for (name, pattern) in patterns {
            let case = Case::new(&gpu, &AttentionShape::new(1, 1, n, 64), &pattern);
            group.throughput(Throughput::Elements(case.pairs));
            group
                .bench_function(BenchmarkId::new(name, n), |b| b.iter_custom(|calls| case.time(&gpu, calls)));
        }
    }
}

criterion_group!(benches, patterns);
criterion_main!(benches);
