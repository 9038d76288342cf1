//! Time of the kernels around attention: `cargo bench --bench layer`.
//!
//! `wgpu-attention bench` verifies and times the kernels as a plan chooses them; here are also tiles and chunks that it does not choose.
//! Upload, planning and read-back are outside. Products count floating-point operations as elements, the kernels over rows
//! bytes moved.

mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::time::Duration;
use support::{Bench, whole};
use wgpu_attention::wgsl::MatmulTile;
use wgpu_attention::{
    Activation, AddShape, EmbedShape, FeedForwardBuffers, FeedForwardShape, MatmulBuffers, MatmulShape,
    NormBuffers, NormKind, NormShape, RotaryBuffers, RotaryShape, SoftmaxShape, WeightOrder,
};

/// Every tile, both orders of the weights, square and thin.
fn products(c: &mut Criterion) {
    let bench = Bench::new();
    let mut group = c.benchmark_group("matmul f32");
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    for (rows, inner, columns) in [(512, 512, 512), (1024, 768, 3072), (16, 768, 3072)] {
        for weights in [WeightOrder::InOut, WeightOrder::OutIn] {
            let tiles = [
                ("small", MatmulTile::SMALL),
                ("medium", MatmulTile::MEDIUM),
                ("large", MatmulTile::LARGE),
                ("direct", MatmulTile::DIRECT),
            ];
            for (name, tile) in tiles {
                let shape = MatmulShape::new(rows, inner, columns).weights(weights);
                // The large tile needs more workgroup memory than every device has.
                let Ok(plan) = bench.gpu.kernels().matmul_with_tile(&shape, tile) else { continue };
                let [a, b, out] =
                    [shape.len_a(), shape.len_b(), shape.len_out()].map(|len| bench.buffer(len));
                let buffers = MatmulBuffers::new(whole(&a), whole(&b), whole(&out));
                let call = plan.bind(buffers).expect("the buffers fit");
                let id = BenchmarkId::new(format!("{name} {weights:?}"), format!("{rows}x{inner}x{columns}"));
                group.throughput(Throughput::Elements(shape.flops() as u64));
                group.bench_function(id, |b| {
                    b.iter_custom(|calls| bench.time(calls, |pass| call.dispatch(pass)))
                });
            }
        }
    }
}

/// Chunked and unchunked: time against scratch.
fn feed_forward(c: &mut Criterion) {
    let bench = Bench::new();
    let mut group = c.benchmark_group("feed-forward f32 256x1024");
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(2));
    for gated in [false, true] {
        for chunk in [64, 256, 1024] {
            let shape =
                FeedForwardShape::new(1024, 256, 1024, Activation::Silu).gated(gated).chunk(Some(chunk));
            let plan = bench.gpu.kernels().feed_forward(&shape).expect("the plan is valid");
            let [x, w1, w2, w3, out] =
                [shape.len_x(), shape.len_weight(), shape.len_weight(), shape.len_weight(), shape.len_x()]
                    .map(|len| bench.buffer(len));
            let buffers = FeedForwardBuffers::new(whole(&x), whole(&w1), whole(&w2), whole(&out))
                .w3(gated.then(|| whole(&w3)));
            let call = plan.bind(buffers).expect("the buffers fit");
            let kind = if gated { "gated" } else { "plain" };
            let id =
                BenchmarkId::new(kind, format!("chunk {chunk}, scratch {} KiB", plan.scratch_bytes() / 1024));
            group.throughput(Throughput::Elements(shape.flops() as u64));
            group
                .bench_function(id, |b| b.iter_custom(|calls| bench.time(calls, |pass| call.dispatch(pass))));
        }
    }
}

/// Norms, softmax, rotary embedding, lookup and addition, in bytes of x and out.
fn rows(c: &mut Criterion) {
    let bench = Bench::new();
    let (rows, width) = (2048, 1024);
    let len = rows * width;
    let [x, weight, table, out] = [len, width, len, len].map(|len| bench.buffer(len));
    let norm = |kind| {
        let plan =
            bench.gpu.kernels().norm(&NormShape::new(kind, rows, width, 1e-5)).expect("the plan is valid");
        let buffers = NormBuffers::new(whole(&x), whole(&weight), whole(&out));
        plan.bind(buffers).expect("the buffers fit")
    };
    let softmax = bench.gpu.kernels().softmax(&SoftmaxShape::new(rows, width)).expect("the plan is valid");
    let rotary =
        bench.gpu.kernels().rotary(&RotaryShape::new(1, width / 64, rows, 64)).expect("the plan is valid");
    let buffers = RotaryBuffers::new(whole(&x), whole(&table), whole(&table), whole(&out));
    let scattered = |row: u32| row.wrapping_mul(2_654_435_761) % rows as u32;
    let ids = bench.upload(&(0..rows as u32).map(scattered).collect::<Vec<_>>());
    let embed = bench.gpu.kernels().embed(&EmbedShape::new(rows, rows, width)).expect("the plan is valid");
    let add = bench.gpu.kernels().add(&AddShape::new(rows, width)).expect("the plan is valid");
    let calls = [
        ("layer norm", norm(NormKind::Layer)),
        ("rms norm", norm(NormKind::Rms)),
        ("softmax", softmax.bind(whole(&x), whole(&out)).expect("the buffers fit")),
        ("rotary", rotary.bind(buffers).expect("the buffers fit")),
        ("embed", embed.bind(whole(&ids), whole(&table), whole(&out)).expect("the buffers fit")),
        ("add", add.bind(whole(&x), whole(&table), whole(&out)).expect("the buffers fit")),
    ];
    let mut group = c.benchmark_group("rows f32 2048x1024");
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Bytes(8 * len as u64));
    for (name, call) in &calls {
        group.bench_function(*name, |b| b.iter_custom(|calls| bench.time(calls, |pass| call.dispatch(pass))));
    }
}

criterion_group!(benches, products, feed_forward, rows);
criterion_main!(benches);
