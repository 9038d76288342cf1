//! What runs on the CPU: masks, orders, recorded calls, the f64 reference. `cargo bench --bench host`; only the recorded calls
//! (`cargo bench --bench host record`) need an adapter.

use criterion::BatchSize;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;
use wgpu_attention::reference::{self, Kind, layer::Bounded};
use wgpu_attention::{
    AttentionBuffers, AttentionShape, BlockGrid, Causal, Counter, Gpu, LshInputs, LshOptions, MatmulShape,
    Parts, Pattern, Strided, wgpu,
};
use wgpu_attention_bench::cases;

/// From a pattern to parts: closed forms should take time in proportion to the rows.
fn lowering(c: &mut Criterion) {
    let mut group = c.benchmark_group("lower");
    group.sample_size(20).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    for n in [4096, 65_536] {
        let grid = BlockGrid::from(&AttentionShape::new(1, 1, n, 64));
        for (name, pattern) in cases::patterns(n).expect("the patterns are valid") {
            group.throughput(Throughput::Elements(n as u64));
            group.bench_function(BenchmarkId::new(name, n), |b| b.iter(|| Parts::lower(&pattern, grid)));
        }
    }
}

/// `bind` and `encode` of one call: what a program pays per call beside the device's time. The encoder is there before.
fn recorded(c: &mut Criterion) {
    let gpu = match Gpu::new() {
        Ok(gpu) => gpu,
        Err(error) => return eprintln!("record: not measured: {error}"),
    };
    println!("adapter: {}", gpu.info().name);
    let mut group = c.benchmark_group("record");
    group.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    let shape = AttentionShape::new(1, 8, 512, 64);
    let buffer = || {
        gpu.device().create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 4 * shape.len_q() as u64,
            usage: wgpu::BufferUsages::STORAGE,
            mapped_at_creation: false,
        })
    };
    let [q, k, v, out] = [(); 4].map(|()| buffer());
    let patterns: [(&str, &dyn Pattern); 2] =
        [("one part", &Causal), ("two parts", &Strided::new(64).expect("valid"))];
    for (name, pattern) in patterns {
        let plan = gpu.kernels().attention(shape, pattern).expect("the plan is valid");
        let scratch = plan.scratch().expect("scratch");
        let bind = || {
            let [q, k, v, out] = [&q, &k, &v, &out].map(wgpu::Buffer::as_entire_buffer_binding);
            plan.bind_with(AttentionBuffers::new(q, k, v, out), &scratch).expect("the buffers fit")
        };
        let encoder = || gpu.device().create_command_encoder(&Default::default());
        group.bench_function(BenchmarkId::new("bind + encode", name), |b| {
            b.iter_batched_ref(encoder, |encoder| bind().encode(encoder), BatchSize::SmallInput);
        });
    }
}

/// Buckets to the stable order.
fn lsh(c: &mut Criterion) {
    let mut group = c.benchmark_group("lsh");
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    let draw = Counter::new(1, 0);
    for n in [4096, 65_536] {
        let buckets: Vec<u32> = (0..n as u64).map(|i| (draw.bits(i) % (n as u64 / 32)) as u32).collect();
        group.throughput(Throughput::Elements(n as u64));
        group.bench_function(BenchmarkId::new("order", n), |b| {
            b.iter(|| reference::lsh_order(black_box(&buckets), n));
        });
    }
    let shape = AttentionShape::new(1, 1, 1024, 64);
    let tensors = reference::random::<f32, f32>(&shape, Kind::Normal, 1).expect("the shape is valid");
    let options = LshOptions::new(4, 32, 64).causal(true);
    let inputs = LshInputs::new(&tensors.q, &tensors.v);
    group.throughput(Throughput::Elements(1024));
    group.bench_function("buckets/1024", |b| b.iter(|| reference::lsh_buckets(shape, &options, &inputs)));
    group.bench_function("reference/1024", |b| b.iter(|| reference::lsh(shape, &options, &inputs)));
}

/// The f64 reference on all cores.
fn exact(c: &mut Criterion) {
    let mut group = c.benchmark_group("reference");
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    let shape = AttentionShape::new(1, 1, 512, 64);
    let tensors = reference::random::<f32, f32>(&shape, Kind::Normal, 1).expect("the shape is valid");
    for (name, pattern) in cases::patterns(512).expect("the patterns are valid").into_iter().take(3) {
        group.bench_function(BenchmarkId::new(name, 512), |b| {
            b.iter(|| reference::attention_with(shape, &tensors.inputs(), &pattern));
        });
    }
    let shape = MatmulShape::new(64, 256, 256);
    let [a, b] = [shape.len_a(), shape.len_b()].map(|len| Bounded::exact(&vec![0.5f32; len]));
    let inputs = reference::layer::MatmulInputs { a: &a, b: &b, bias: None, other: None };
    group.throughput(Throughput::Elements(shape.flops() as u64));
    group.bench_function("matmul/64x256x256", |b| b.iter(|| reference::layer::matmul(&shape, &inputs)));
}

criterion_group!(benches, lowering, recorded, lsh, exact);
criterion_main!(benches);
