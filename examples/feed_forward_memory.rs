//! The point of a chunked feed-forward layer: what it needs beside its inputs and outputs does not grow with the rows,
//! and it takes no longer. Prints a table, and draws the memory:
//!
//! ```text
//! cargo run --example feed_forward_memory -- docs/feed_forward_memory.svg
//! ```

#![allow(dead_code)] // A test draws it, too.

#[path = "plot/mod.rs"]
mod plot;

use plot::{Error, Plot};
use std::time::Instant;
use wgpu_attention::{Activation, FeedForwardBuffers, FeedForwardPlan, FeedForwardShape, Gpu};

const MODEL: usize = 64;
const HIDDEN: usize = 256;
const CHUNK: usize = 512;
const ROWS: [usize; 8] = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536];

fn main() -> Result<(), Error> {
    let gpu = Gpu::new()?;
    println!("{}: d_model {MODEL}, d_ff {HIDDEN}, chunks of {CHUNK} rows, GELU, f32\n", gpu.info().name);
    println!(
        "| rows | peak, chunked (MiB) | peak, unchunked (MiB) | time, chunked | time, unchunked | ratio |"
    );
    println!("|---:|---:|---:|---:|---:|---:|");
    for rows in ROWS {
        let plans = plans(&gpu, rows)?;
        let [chunked_mib, whole_mib] = plans.each_ref().map(peak_mib);
        let [chunked, whole] = times(&gpu, &plans)?.map(|seconds| 1e3 * seconds);
        let ratio = chunked / whole;
        println!(
            "| {rows} | {chunked_mib:.2} | {whole_mib:.2} | {chunked:.2} ms | {whole:.2} ms | {ratio:.2} |"
        );
    }
    plot::command("feed_forward_memory", || svg(&gpu))
}

/// Chunked, and all rows at once.
fn plans(gpu: &Gpu, rows: usize) -> Result<[FeedForwardPlan; 2], Error> {
    let shape = FeedForwardShape::new(rows, MODEL, HIDDEN, Activation::GeluErf);
    let plan = |chunk| gpu.kernels().feed_forward(&shape.chunk(Some(chunk)));
    Ok([plan(CHUNK)?, plan(rows)?])
}

/// All that has to be there at the same time: x, y, both weights and the scratch.
fn peak_mib(plan: &FeedForwardPlan) -> f64 {
    let shape = plan.shape();
    let tensors = 4 * (2 * shape.len_x() + 2 * shape.len_weight()) as u64;
    (tensors + plan.scratch_bytes()) as f64 / f64::from(1 << 20)
}

/// The picture that docs/feed_forward_memory.svg has to be.
pub(crate) fn svg(gpu: &Gpu) -> Result<String, Error> {
    let names = [format!("chunks of {CHUNK}"), "unchunked".into()];
    let mut curves = names.map(|name| (name, vec![]));
    for rows in ROWS {
        for (plan, curve) in plans(gpu, rows)?.iter().zip(&mut curves) {
            curve.1.push((rows as f64, peak_mib(plan)));
        }
    }
    let top = curves.iter().flat_map(|curve| &curve.1).fold(0.0, |top, point| point.1.max(top));
    Plot {
        title: format!("Feed-forward layer: peak memory (d_model {MODEL}, d_ff {HIDDEN}, f32)"),
        x: "rows".into(),
        y: "x, y, weights and scratch, MiB".into(),
        top: (top / 20.0).ceil() * 20.0,
        curves: curves.to_vec(),
    }
    .svg()
}

/// Best time of five, taken in turns.
fn times(gpu: &Gpu, plans: &[FeedForwardPlan; 2]) -> Result<[f64; 2], Error> {
    let shape = plans[0].shape();
    let lens = [shape.len_x(), shape.len_weight(), shape.len_weight(), shape.len_x()];
    let [x, w1, w2, out] = lens.map(|len| {
        let (size, usage) = (4 * len as u64, wgpu::BufferUsages::STORAGE);
        let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
        gpu.device().create_buffer(&descriptor)
    });
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let bind = |plan: &FeedForwardPlan| {
        plan.bind(FeedForwardBuffers::new(whole(&x), whole(&w1), whole(&w2), whole(&out)))
    };
    let calls = [bind(&plans[0])?, bind(&plans[1])?];
    let mut best = [f64::MAX; 2];
    for round in 0..6 {
        for (best, call) in best.iter_mut().zip(&calls) {
            let mut encoder = gpu.device().create_command_encoder(&Default::default());
            call.encode(&mut encoder);
            let start = Instant::now();
            gpu.queue().submit([encoder.finish()]);
            gpu.device().poll(wgpu::PollType::wait_indefinitely())?;
            // The first round warms up.
            if round > 0 {
                *best = best.min(start.elapsed().as_secs_f64());
            }
        }
    }
    Ok(best)
}
