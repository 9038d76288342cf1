//! Time of one attention call on the device: `cargo bench --bench attention`.
//!
//! The cases of one head have the names that they have in `wgpu-attention bench`, which also verifies them. Upload, planning and
//! read-back are outside.

mod support;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use std::time::Duration;
use support::{Bench, whole};
use wgpu_attention::{AttentionBuffers, AttentionShape, Causal, Full, Pattern};
use wgpu_attention_bench::cases;

fn case(
    group: &mut BenchmarkGroup<'_, WallTime>,
    bench: &Bench,
    name: &str,
    shape: &AttentionShape,
    pattern: &dyn Pattern,
) {
    let plan = bench.gpu.kernels().attention(shape, pattern).expect("the plan is valid");
    let [q, k, v, out] =
        [shape.len_q(), shape.len_k(), shape.len_v(), shape.len_out()].map(|len| bench.buffer(len));
    let buffers = AttentionBuffers::new(whole(&q), whole(&k), whole(&v), whole(&out));
    let call = plan.bind(buffers).expect("the buffers fit");
    group.throughput(Throughput::Elements(plan.explain().kept));
    group.bench_function(name, |b| b.iter_custom(|calls| bench.time(calls, |pass| call.dispatch(pass))));
}

fn settings(group: &mut BenchmarkGroup<'_, WallTime>) {
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
}

/// Every pattern at growing lengths; one head of size 64, f32. Elements are kept pairs.
fn patterns(c: &mut Criterion) {
    let bench = Bench::new();
    let mut group = c.benchmark_group("attention");
    settings(&mut group);
    for n in [512, 2048, 8192] {
        for (name, pattern) in cases::patterns(n).expect("the patterns are valid") {
            let shape = AttentionShape::new(1, 1, n, 64);
            case(&mut group, &bench, &format!("{name} f32 b1 h1 n{n} d64"), &shape, &pattern);
        }
    }
}

/// Workloads that others publish figures of, in f32, and decoding.
fn workloads(c: &mut Criterion) {
    let bench = Bench::new();
    let mut group = c.benchmark_group("attention workloads");
    settings(&mut group);
    case(&mut group, &bench, "BERT-base", &AttentionShape::new(1, 12, 512, 64), &Full);
    case(&mut group, &bench, "GPT-2", &AttentionShape::new(1, 12, 1024, 64), &Causal);
    for queries in [1, 4, 16] {
        let shape = AttentionShape::new(1, 8, queries, 128).kv_heads(2).kv_len(2048);
        case(&mut group, &bench, &format!("decode q{queries} k2048 h8/2 d128"), &shape, &Causal);
    }
}

criterion_group!(benches, patterns, workloads);
criterion_main!(benches);
