//! LSH attention by length, and where its time goes: `cargo bench --bench lsh [-- recall]`.
//!
//! Each figure is the best of several submissions, from submitting to the device being idle. With `recall`: how many of the
//! exactly nearest keys share a chunk with their query, by rounds and buckets, as a table to plot.

use std::time::Instant;
use wgpu_attention::{AttentionShape, Counter, Gpu, LshBuffers, LshCall, LshInputs, LshOptions, LshStage};

fn main() {
    let gpu = Gpu::new().expect("a GPU adapter; `cargo xtask bench` fetches a software one");
    println!("adapter: {}", gpu.info().name);
    let largest = std::env::var("LSH_LARGEST").ok().and_then(|n| n.parse().ok()).unwrap_or(65_536);
    if std::env::args().any(|argument| argument == "recall") {
        recall(&gpu);
    } else {
        lengths(&gpu, largest);
    }
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
