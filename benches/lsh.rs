//! LSH attention by length, and where its time goes: `cargo bench --bench lsh`. (What rounds and buckets are worth: the example
//! `lsh_recall`.)

mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::time::Duration;
use support::{Bench, whole};
use wgpu_attention::{AttentionShape, LshBuffers, LshOptions, Stage};

/// One head of 64, 4 rounds, chunks of 64; factorised buckets, about two places a bucket and chunk.
fn lengths(c: &mut Criterion) {
    let bench = Bench::new();
    let mut group = c.benchmark_group("lsh f32 b1 h1 d64 rounds4 chunk64");
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    for n in [1024, 2048, 8192, 32_768] {
        let shape = AttentionShape::new(1, 1, n, 64);
        let buckets = n / 32;
        let low = 1 << (buckets.ilog2() / 2);
        let options = LshOptions::new(4, buckets, 64).buckets(vec![low, buckets / low]).causal(true);
        let plan = bench.gpu.kernels().lsh(shape, options).expect("the plan is valid");
        let [qk, v, out] = [shape.len_q(), shape.len_v(), shape.len_out()].map(|len| bench.buffer(len));
        let call = plan.bind(LshBuffers::new(whole(&qk), whole(&v), whole(&out))).expect("the buffers fit");
        group.throughput(Throughput::Elements(n as u64));
        group.bench_function(BenchmarkId::new("whole", n), |b| {
            b.iter_custom(|calls| bench.time(calls, |pass| call.dispatch(pass)));
        });
        // Rounds in f32 are merged in place: there is nothing left to merge.
        for stage in [Stage::Hash, Stage::Sort, Stage::Main] {
            group.bench_function(BenchmarkId::new(format!("{stage:?}"), n), |b| {
                b.iter_custom(|calls| bench.time(calls, |pass| call.dispatch_stage(pass, stage)));
            });
        }
    }
}

criterion_group!(benches, lengths);
criterion_main!(benches);
