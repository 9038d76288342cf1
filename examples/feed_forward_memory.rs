//! The point of a chunked feed-forward layer: what it needs beside its inputs and outputs does not grow with the rows,
//! and it takes no longer. Prints a table and, given a file, draws it:
//!
//! ```text
//! cargo run --release --example feed_forward_memory -- feed_forward.svg
//! ```

use std::fmt::Write;
use std::time::Instant;
use wgpu_attention::{Activation, FeedForwardBuffers, FeedForwardShape, Gpu};

type Error = Box<dyn std::error::Error>;

const MODEL: usize = 64;
const HIDDEN: usize = 256;
const CHUNK: usize = 512;

/// One line of the table.
struct Line {
    rows: usize,
    chunked_bytes: u64,
    whole_bytes: u64,
    ratio: f64,
}

fn main() -> Result<(), Error> {
    let gpu = Gpu::new()?;
    println!("{}: d_model {MODEL}, d_ff {HIDDEN}, chunks of {CHUNK} rows, GELU, f32\n", gpu.info().name);
    println!("| rows | scratch, chunked (KiB) | scratch, whole (KiB) | time, chunked / whole |");
    println!("|---:|---:|---:|---:|");
    let mut lines = vec![];
    for rows in [512, 1024, 2048, 4096, 8192, 16384] {
        let [(chunked_bytes, chunked), (whole_bytes, whole)] = measured(&gpu, rows)?;
        let line = Line { rows, chunked_bytes, whole_bytes, ratio: chunked / whole };
        let ratio = line.ratio;
        println!("| {rows} | {} | {} | {ratio:.2} |", line.chunked_bytes / 1024, line.whole_bytes / 1024);
        lines.push(line);
    }
    if let Some(path) = std::env::args().nth(1) {
        std::fs::write(&path, svg(&lines)).map_err(|error| format!("cannot write {path}: {error}"))?;
    }
    Ok(())
}

/// Scratch and best time of three, for chunks and for all rows at once, taken in turns.
fn measured(gpu: &Gpu, rows: usize) -> Result<[(u64, f64); 2], Error> {
    let shape = FeedForwardShape::new(rows, MODEL, HIDDEN, Activation::GeluErf);
    let lens = [shape.len_x(), shape.len_weight(), shape.len_weight(), shape.len_x()];
    let [x, w1, w2, out] = lens.map(|len| {
        let usage = wgpu::BufferUsages::STORAGE;
        let size = 4 * len as u64;
        gpu.device().create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage,
            mapped_at_creation: false,
        })
    });
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let mut results = [(0, f64::MAX); 2];
    let mut calls = vec![];
    for (result, chunk) in results.iter_mut().zip([CHUNK, rows]) {
        let plan = gpu.kernels().feed_forward(&shape.chunk(Some(chunk)))?;
        result.0 = plan.scratch_bytes();
        calls.push(plan.bind(FeedForwardBuffers {
            x: whole(&x),
            w1: whole(&w1),
            b1: None,
            w3: None,
            b3: None,
            w2: whole(&w2),
            b2: None,
            residual: None,
            out: whole(&out),
            scratch: None,
        })?);
    }
    for round in 0..4 {
        for (result, call) in results.iter_mut().zip(&calls) {
            let mut encoder = gpu.device().create_command_encoder(&Default::default());
            call.encode(&mut encoder);
            let start = Instant::now();
            gpu.queue().submit([encoder.finish()]);
            gpu.device().poll(wgpu::PollType::wait_indefinitely())?;
            // The first round warms up.
            if round > 0 {
                result.1 = result.1.min(start.elapsed().as_secs_f64());
            }
        }
    }
    Ok(results)
}

/// A column of the table.
type Bytes = fn(&Line) -> u64;

/// Both curves of scratch against rows.
fn svg(lines: &[Line]) -> String {
    let (width, height, margin) = (480.0, 300.0, 50.0);
    let last = lines.iter().map(|line| line.rows).max().unwrap_or(1) as f64;
    let most = lines.iter().map(|line| line.whole_bytes).max().unwrap_or(1) as f64;
    let at = |rows: usize, bytes: u64| {
        let x = margin + rows as f64 / last * (width - 2.0 * margin);
        let y = height - margin - bytes as f64 / most * (height - 2.0 * margin);
        format!("{x:.1},{y:.1}")
    };
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let curves: [(&str, &str, Bytes); 2] =
        [("whole", "#c0392b", |line| line.whole_bytes), ("chunked", "#2471a3", |line| line.chunked_bytes)];
    for (n, (name, colour, bytes)) in curves.into_iter().enumerate() {
        let points: Vec<String> = lines.iter().map(|line| at(line.rows, bytes(line))).collect();
        let y = 20 + 16 * n;
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n\
             <text x=\"{margin}\" y=\"{y}\" fill=\"{colour}\">{name}: {} KiB at {last} rows</text>",
            points.join(" "),
            lines.last().map_or(0, bytes) / 1024
        );
    }
    let (axis, middle) = (height - margin, width / 2.0);
    let _ = writeln!(
        text,
        "<path d=\"M{margin},{margin} V{axis} H{}\" fill=\"none\" stroke=\"black\"/>\n<text x=\"{middle}\" y=\"{}\" \
         text-anchor=\"middle\">rows (d_model {MODEL}, d_ff {HIDDEN}, chunks of {CHUNK}); up: scratch</text>\n</svg>",
        width - margin,
        height - 20.0
    );
    text
}
