//! Reversible layers: forward, inverse, and gradients without stored activations.
//!
//! | file | what |
//! |---|---|
//! | `integers.rs` | branches of integers, where every bit is known; faults in what is recorded, which this finds |
//! | `layers.rs` | each layer against f64, within the bound; bits against a stack that keeps its activations |
//! | `differences.rs` | the reference against finite differences: no device |
//! | `golden.rs` | what other systems computed |
//! | `memory.rs` | the device's memory, whatever the depth; the picture |
//! | `refusals.rs` | bad input |

mod differences;
mod golden;
mod integers;
mod layers;
mod memory;
mod refusals;

use crate::harness::{gpu, kernels, normal};
use wgpu_attention::{
    Activation, AttentionBranch, AttentionShape, BranchPlan, Causal, ElementType::F32, FeedForwardBranch,
    FeedForwardShape, Gpu, LayerBranch, LshOptions, NormKind, NormShape, ParameterLayout, Reversible,
    WeightOrder,
};

/// A buffer that is bound and copied.
fn buffer(gpu: &Gpu, values: &[f32]) -> wgpu::Buffer {
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let size = (4 * values.len() as u64).max(16);
    let descriptor =
        wgpu::BufferDescriptor { label: Some("of a layer"), size, usage, mapped_at_creation: false };
    let buffer = gpu.device().create_buffer(&descriptor);
    write(gpu, &buffer, values);
    buffer
}

fn write(gpu: &Gpu, buffer: &wgpu::Buffer, values: &[f32]) {
    gpu.queue().write_buffer(buffer, 0, bytemuck::cast_slice(values));
}

/// Records, submits and waits.
fn run(gpu: &Gpu, record: impl FnOnce(&mut wgpu::CommandEncoder)) {
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    record(&mut encoder);
    gpu.queue().submit([encoder.finish()]);
    gpu.device().poll(wgpu::PollType::wait_indefinitely()).expect("waiting for the device");
}

/// What buffers hold.
fn read(gpu: &Gpu, buffers: &[&wgpu::Buffer]) -> Vec<Vec<f32>> {
    let copy_of = |buffer: &&wgpu::Buffer| {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let (label, size) = (Some("read-back"), buffer.size());
        gpu.device().create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation: false })
    };
    let copies: Vec<_> = buffers.iter().map(copy_of).collect();
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    for (source, copy) in buffers.iter().zip(&copies) {
        encoder.copy_buffer_to_buffer(source, 0, copy, 0, copy.size());
    }
    gpu.queue().submit([encoder.finish()]);
    copies.iter().for_each(|copy| copy.map_async(wgpu::MapMode::Read, .., |result| result.expect("mapping")));
    gpu.device().poll(wgpu::PollType::wait_indefinitely()).expect("waiting for the device");
    let values = |copy: &wgpu::Buffer| {
        bytemuck::pod_collect_to_vec(&copy.slice(..).get_mapped_range().expect("mapped"))
    };
    copies.iter().map(values).collect()
}

/// A stack whose layers have one plan for F and one for G.
struct Stack {
    stack: Reversible,
    plans: [BranchPlan; 2],
    layers: Vec<[LayerBranch; 2]>,
}

impl Stack {
    /// Layers with these parameters, of each layer and side.
    fn new(
        gpu: &Gpu,
        mut stack: Reversible,
        plans: [BranchPlan; 2],
        depth: usize,
        parameters: impl Fn(usize, usize, &ParameterLayout) -> Vec<f32>,
    ) -> Self {
        let branch = |layer, side: usize| {
            let layout = plans[side].layout();
            let values = buffer(gpu, &parameters(layer, side, layout));
            plans[side].branch(&values, &buffer(gpu, &vec![f32::NAN; layout.len()])).expect("a branch")
        };
        let layers: Vec<_> = (0..depth).map(|layer| [branch(layer, 0), branch(layer, 1)]).collect();
        for [f, g] in &layers {
            stack.push(f.clone(), g.clone()).expect("the stack's branches");
        }
        Self { stack, plans, layers }
    }

    fn start(&self, gpu: &Gpu, streams: [&[f32]; 2], gradients: [&[f32]; 2]) {
        let buffers = self.stack.buffers();
        let all = [&buffers.x1, &buffers.x2, &buffers.dx1, &buffers.dx2];
        for (buffer, values) in all.into_iter().zip([streams[0], streams[1], gradients[0], gradients[1]]) {
            write(gpu, buffer, values);
        }
    }

    /// x1, x2, dx1 and dx2.
    fn streams(&self, gpu: &Gpu) -> [Vec<f32>; 4] {
        let buffers = self.stack.buffers();
        let mut all = read(gpu, &[&buffers.x1, &buffers.x2, &buffers.dx1, &buffers.dx2]);
        all.iter_mut().for_each(|stream| stream.truncate(self.stack.rows() * self.stack.width()));
        all.try_into().expect("four of them")
    }

    /// Of each layer, F's and G's.
    fn gradients(&self, gpu: &Gpu) -> Vec<[Vec<f32>; 2]> {
        let all: Vec<_> = self.layers.iter().flatten().map(LayerBranch::gradients).collect();
        let mut all = read(gpu, &all).into_iter();
        let mut next = || all.next().expect("as many as there are branches");
        self.layers.iter().map(|_| [next(), next()]).collect()
    }
}

/// Normal parameters: weights such that a branch passes on about what it is given, times `scale`.
fn drawn(scale: f32, width: usize) -> impl Fn(usize, usize, &ParameterLayout) -> Vec<f32> {
    move |layer, side, layout| {
        let mut all = vec![0.0; layout.len()];
        for (n, parameter) in layout.parameters().iter().enumerate() {
            let stream = ((layer * 2 + side) * 16 + n) as u64;
            let draws = normal(41, stream, parameter.range.len(), F32);
            let value = |draw: f64| match parameter.name {
                "norm_weight" => 1.0 + 0.1 * draw,
                "norm_bias" => 0.1 * draw,
                "projections" => draw,
                _ => f64::from(scale) * draw / (width as f64).sqrt(),
            };
            let values = draws.into_iter().map(|draw| value(draw) as f32);
            all[parameter.range.clone()].iter_mut().zip(values).for_each(|(all, value)| *all = value);
        }
        all
    }
}

fn single(seed: u64, len: usize) -> Vec<f32> {
    normal(43, seed, len, F32).into_iter().map(|x| x as f32).collect()
}

/// What F is, before a feed-forward G.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    FeedForward,
    Causal,
    Lsh,
}

/// Sizes of the stacks of these tests.
const LEN: usize = 24;
const WIDTH: usize = 16;

fn norm(rows: usize) -> NormShape {
    NormShape::new(NormKind::Layer, rows, WIDTH, 1e-5).bias(true)
}

fn f_shape() -> FeedForwardShape {
    FeedForwardShape::new(LEN, WIDTH, 20, Activation::GeluErf).bias(true).weights(WeightOrder::OutIn)
}

fn g_shape() -> FeedForwardShape {
    FeedForwardShape::new(LEN, WIDTH, 28, Activation::Silu).gated(true).chunk(Some(7))
}

fn stack_of(gpu: &Gpu, kind: Kind, depth: usize, scale: f32) -> Stack {
    let kernels = gpu.kernels();
    let stack = kernels.reversible(LEN, WIDTH).expect("a stack");
    let attention = AttentionBranch::new(norm(LEN), AttentionShape::new(1, 2, LEN, 8));
    let f = match kind {
        Kind::FeedForward => FeedForwardBranch::new(norm(LEN), f_shape()).plan(kernels, &stack.f()),
        Kind::Causal => attention.bias(true).weights(WeightOrder::OutIn).plan(kernels, &stack.f(), &Causal),
        Kind::Lsh => {
            let options = LshOptions::new(2, 4, 8).causal(true);
            let projections = wgpu_attention::Projections::Given { per_head: true };
            attention.lsh(kernels, &stack.f(), options.projections(projections))
        }
    };
    let g = FeedForwardBranch::new(norm(LEN), g_shape()).plan(kernels, &stack.g());
    let plans = [f.expect("a plan of F"), g.expect("a plan of G")];
    Stack::new(gpu, stack, plans, depth, drawn(scale, WIDTH))
}

/// A stack without a layer has nothing to record, and streams go side by side and back.
#[test]
fn streams_are_joined_and_split() {
    let stack = kernels().reversible(5, 3).unwrap();
    let both = single(1, 30);
    let (wide, other) = (buffer(gpu(), &both), buffer(gpu(), &[0.0; 30]));
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let calls = [
        stack.split_streams(whole(&wide)).unwrap(),
        stack.split_gradients(whole(&wide)).unwrap(),
        stack.join_streams(whole(&other)).unwrap(),
    ];
    run(gpu(), |encoder| {
        stack.forward(encoder);
        calls.iter().for_each(|call| call.encode(encoder));
        stack.backward(encoder);
    });
    let buffers = stack.buffers();
    let got = read(gpu(), &[&buffers.x1, &buffers.x2, &buffers.dx1, &other]);
    for row in 0..5 {
        let want = &both[row * 6..][..6];
        assert_eq!([&got[0][row * 3..][..3], &got[1][row * 3..][..3]].concat(), want);
        assert_eq!(got[2][row * 3..][..3], want[..3]);
    }
    assert_eq!(got[3], both);
    let call = stack.join_gradients(whole(&wide)).unwrap();
    write(gpu(), &buffers.dx2, &[7.0; 15]);
    run(gpu(), |encoder| call.encode(encoder));
    assert_eq!(read(gpu(), &[&wide])[0][3..6], [7.0; 3]);
}
