//! LSH attention by length, and where its time goes: `cargo bench --bench lsh`.
//!
//! With `-- recall` instead: how many of the exactly nearest keys share a chunk with their query, by rounds and buckets, as a table
//! to plot.

mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use std::time::Duration;
use support::{Bench, whole};
use wgpu_attention::{AttentionShape, Counter, Gpu, LshBuffers, LshInputs, LshOptions, LshStage};

fn main() {
    if std::env::args().any(|argument| argument == "recall") {
        recall(&Bench::new().gpu);
        return;
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}

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
        let plan = bench.gpu.kernels().lsh(&shape, options).expect("the plan is valid");
        let [qk, v, out] = [shape.len_q(), shape.len_v(), shape.len_out()].map(|len| bench.buffer(len));
        let call = plan.bind(LshBuffers::new(whole(&qk), whole(&v), whole(&out))).expect("the buffers fit");
        group.throughput(Throughput::Elements(n as u64));
        group.bench_function(BenchmarkId::new("whole", n), |b| {
            b.iter_custom(|calls| bench.time(calls, |pass| call.dispatch(pass)));
        });
        // Rounds in f32 are merged in place: there is nothing to finish.
        for stage in [LshStage::Hash, LshStage::Sort, LshStage::Attention] {
            group.bench_function(BenchmarkId::new(format!("{stage:?}"), n), |b| {
                b.iter_custom(|calls| bench.time(calls, |pass| call.dispatch_stage(pass, stage)));
            });
        }
    }
}

criterion_group!(benches, lengths);

/// 2,048 positions in clusters of 8: the share of each query's 7 nearest keys that meet it in some round.
fn recall(gpu: &Gpu) {
    const N: usize = 2048;
    const D: usize = 64;
    let (center, noise) = (Counter::new(2, 0), Counter::new(2, 1));
    let element = |i: usize, c: usize| {
        let cluster = (i * 1237 % N) / 8;
        (center.normal((cluster * D + c) as u64) + 0.5 * noise.normal((i * D + c) as u64)) as f32
    };
    let x: Vec<f32> = (0..N).flat_map(|i| (0..D).map(move |c| element(i, c))).collect();
    let row = |i: usize| &x[i * D..][..D];
    let dot = |i: usize, j: usize| row(i).iter().zip(row(j)).map(|(a, b)| a * b).sum::<f32>();
    let norms: Vec<f32> = (0..N).map(|i| dot(i, i).sqrt()).collect();
    let nearest: Vec<Vec<usize>> = (0..N)
        .map(|i| {
            let mut keys: Vec<(f32, usize)> =
                (0..N).filter(|&j| j != i).map(|j| (-dot(i, j) / norms[j], j)).collect();
            keys.sort_by(|a, b| a.0.total_cmp(&b.0));
            keys[..7].iter().map(|key| key.1).collect()
        })
        .collect();
    let shape = AttentionShape::new(1, 1, N, D);
    let inputs = LshInputs { qk: &x, v: &x, projections: None, key_mask: None };
    println!(
        "recall of the 7 nearest keys, {N} positions, chunks of 64, look back 1\nbuckets  rounds 1      2      4      8     16"
    );
    for buckets in [16, 32, 64, 128, 256] {
        let options = LshOptions::new(16, buckets, 64).chain_rounds(false);
        let order = gpu.lsh::<f32, f32>(&shape, &options, &inputs).expect("valid").order;
        let mut chunk_of = vec![0; 16 * N];
        for (place, &i) in order.iter().enumerate() {
            chunk_of[place / N * N + i as usize] = place % N / 64;
        }
        let meets = |round: usize, i: usize, j: usize| {
            let (c, k) = (chunk_of[round * N + i], chunk_of[round * N + j]);
            c == k || (c + N / 64 - 1) % (N / 64) == k
        };
        let share = |rounds: usize| {
            let pairs = (0..N).flat_map(|i| nearest[i].iter().map(move |&j| (i, j)));
            let met = pairs.filter(|&(i, j)| (0..rounds).any(|round| meets(round, i, j))).count();
            format!("{:6.3}", met as f64 / (7 * N) as f64)
        };
        println!("{buckets:>7}  {}", [1, 2, 4, 8, 16].map(share).join(" "));
    }
}
