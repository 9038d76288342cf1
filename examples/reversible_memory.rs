//! The point of reversible layers: what a backward pass needs does not grow with the depth, but for parameters and their gradients.
//! Prints a table, with how far the inverse is from the stack's input, and draws the activations:
//!
//! ```text
//! cargo run --example reversible_memory -- docs/reversible_memory.svg
//! ```

#![allow(dead_code)] // A test draws it, and measures with it, too.

#[path = "plot/mod.rs"]
#[allow(clippy::duplicate_mod, reason = "one test binary draws the pictures of two examples")]
mod plot;

use plot::{Error, Plot};
use wgpu_attention::{
    Activation, AttentionBranch, AttentionShape, BranchPlan, Counter, FeedForwardBranch, FeedForwardShape,
    Gpu, LshOptions, NormKind, NormShape, ParameterLayout, Reversible,
};

pub(crate) const LEN: usize = 1024;
pub(crate) const WIDTH: usize = 64;
const HEADS: usize = 4;
const HIDDEN: usize = 256;
const DEPTHS: [usize; 6] = [1, 2, 4, 8, 16, 32];
/// The buffers that grow with the depth.
const OF_LAYERS: &str = "of a layer";

fn main() -> Result<(), Error> {
    let gpu = Gpu::new()?;
    println!(
        "{}: {LEN} positions, d_model {WIDTH}, {HEADS} heads, d_ff {HIDDEN}, LSH attention and feed-forward, f32\n",
        gpu.info().name
    );
    println!(
        "| layers | device memory (MiB) | of these parameters and gradients | an ordinary stack keeps beside these | \
         error of x1, x2, of the largest |"
    );
    println!("|---:|---:|---:|---:|---:|");
    for depth in DEPTHS {
        let stack = Stack::new(&gpu, depth)?;
        let error = stack.error(&gpu)?;
        let (rest, of_layers) = memory(&gpu)?;
        let [_, ordinary] = activations(&stack.plans, depth);
        println!(
            "| {depth} | {:.2} | {:.2} | {ordinary:.2} | {error:.1e} |",
            mib(rest + of_layers),
            mib(of_layers)
        );
    }
    plot::command("reversible_memory", || svg(&gpu))
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A stack of LSH attention and feed-forward layers, as a Reformer has them.
pub(crate) struct Stack {
    pub(crate) stack: Reversible,
    pub(crate) plans: [BranchPlan; 2],
}

impl Stack {
    pub(crate) fn new(gpu: &Gpu, depth: usize) -> Result<Self, Error> {
        let mut stack = gpu.kernels().reversible(LEN, WIDTH)?;
        let plans = plans(gpu, &stack)?;
        for layer in 0..depth {
            let [f, g] = [0, 1].map(|side| {
                let layout = plans[side].layout();
                let values = buffer(gpu, &drawn(layer * 2 + side, layout));
                plans[side].branch(&values, &buffer(gpu, &vec![0.0; layout.len()]))
            });
            stack.push(f?, g?)?;
        }
        Ok(Self { stack, plans })
    }

    /// A forward and a backward pass, and how far the streams are from where they began, beside the largest element.
    pub(crate) fn error(&self, gpu: &Gpu) -> Result<f64, Error> {
        let input = [1, 2].map(|seed| normal(seed, LEN * WIDTH));
        let buffers = self.stack.buffers();
        for (stream, values) in [&buffers.x1, &buffers.x2].into_iter().zip(&input) {
            gpu.queue().write_buffer(stream, 0, bytemuck::cast_slice(values));
        }
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        self.stack.forward(&mut encoder);
        self.stack.backward(&mut encoder);
        let size = 4 * (LEN * WIDTH) as u64;
        let copies = [&buffers.x1, &buffers.x2].map(|stream| {
            let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
            let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
            let copy = gpu.device().create_buffer(&descriptor);
            encoder.copy_buffer_to_buffer(stream, 0, &copy, 0, size);
            copy
        });
        gpu.queue().submit([encoder.finish()]);
        copies.iter().for_each(|copy| copy.map_async(wgpu::MapMode::Read, .., |_| ()));
        gpu.device().poll(wgpu::PollType::wait_indefinitely())?;
        let (mut apart, mut largest) = (0f32, 0f32);
        for (copy, input) in copies.iter().zip(&input) {
            let found: Vec<f32> = bytemuck::pod_collect_to_vec(&copy.slice(..).get_mapped_range()?);
            for (found, x) in found.iter().zip(input) {
                (apart, largest) = (apart.max((found - x).abs()), largest.max(x.abs()));
            }
        }
        Ok(f64::from(apart) / f64::from(largest))
    }
}

fn plans(gpu: &Gpu, stack: &Reversible) -> Result<[BranchPlan; 2], Error> {
    let norm = NormShape::new(NormKind::Layer, LEN, WIDTH, 1e-12).bias(true);
    let attention = AttentionBranch::new(norm, AttentionShape::new(1, HEADS, LEN, WIDTH / HEADS));
    let layer = FeedForwardShape::new(LEN, WIDTH, HIDDEN, Activation::GeluErf).bias(true).chunk(Some(256));
    Ok([
        attention.lsh(gpu.kernels(), &stack.f(), LshOptions::new(2, 32, 64).causal(true))?,
        FeedForwardBranch::new(norm, layer).plan(gpu.kernels(), &stack.g())?,
    ])
}

/// Activations that a backward pass over so many layers needs, in MiB: both streams and what one F and one G keep; and those that a
/// stack keeps which is not reversible, of every layer the inputs of both branches and what either keeps.
fn activations(plans: &[BranchPlan; 2], depth: usize) -> [f64; 2] {
    let layer = 2 * 4 * (LEN * WIDTH) as u64 + plans.iter().map(BranchPlan::kept_bytes).sum::<u64>();
    [mib(layer), mib(depth as u64 * layer)]
}

/// The picture that docs/reversible_memory.svg has to be.
pub(crate) fn svg(gpu: &Gpu) -> Result<String, Error> {
    let stack = gpu.kernels().reversible(LEN, WIDTH)?;
    let plans = plans(gpu, &stack)?;
    let mut curves = ["reversible", "ordinary"].map(|name| (name.to_string(), vec![]));
    for depth in DEPTHS {
        for (curve, mib) in curves.iter_mut().zip(activations(&plans, depth)) {
            curve.1.push((depth as f64, mib));
        }
    }
    let top = curves.iter().flat_map(|curve| &curve.1).fold(0.0, |top, point| point.1.max(top));
    Plot {
        title: format!("Activations kept for a backward pass ({LEN} positions, d_model {WIDTH}, f32)"),
        x: "layers of LSH attention and feed-forward".into(),
        y: "activations, MiB".into(),
        top: (top / 20.0).ceil() * 20.0,
        curves: curves.to_vec(),
    }
    .svg()
}

/// Bytes that the device's allocator has given: to everything but the layers' own buffers, and to these.
pub(crate) fn memory(gpu: &Gpu) -> Result<(u64, u64), Error> {
    // Whatever was dropped is given back when the queue is next asked for.
    gpu.queue().submit([]);
    gpu.device().poll(wgpu::PollType::wait_indefinitely())?;
    let report = gpu.device().generate_allocator_report();
    let report = report.ok_or("this backend does not say what it has allocated")?;
    let of_layers = report.allocations.iter().filter(|it| it.name.contains(OF_LAYERS)).map(|it| it.size);
    let of_layers = of_layers.sum();
    Ok((report.total_allocated_bytes - of_layers, of_layers))
}

fn buffer(gpu: &Gpu, values: &[f32]) -> wgpu::Buffer {
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let (label, size) = (Some(OF_LAYERS), 4 * values.len() as u64);
    let descriptor = wgpu::BufferDescriptor { label, size, usage, mapped_at_creation: false };
    let buffer = gpu.device().create_buffer(&descriptor);
    gpu.queue().write_buffer(&buffer, 0, bytemuck::cast_slice(values));
    buffer
}

fn normal(stream: u64, len: usize) -> Vec<f32> {
    let draw = Counter::new(7, stream);
    (0..len as u64).map(|n| draw.normal(n) as f32).collect()
}

/// Weights that pass on rows about as large as they are.
fn drawn(branch: usize, layout: &ParameterLayout) -> Vec<f32> {
    let mut all = vec![0.0; layout.len()];
    for (n, it) in layout.parameters().iter().enumerate() {
        let values = normal((branch * 16 + n + 3) as u64, it.range.len());
        let scale = if it.name == "w2" { HIDDEN } else { WIDTH } as f32;
        let value = |x: f32| match it.name {
            "norm_weight" => 1.0,
            name if name.starts_with('w') => x / scale.sqrt(),
            _ => 0.0,
        };
        all[it.range.clone()].iter_mut().zip(values).for_each(|(all, x)| *all = value(x));
    }
    all
}
