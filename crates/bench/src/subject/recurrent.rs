//! Recurrent networks of one layer in one direction, each step of some items from the states that the kernel left.

use super::{Bytes, Subject, check_sizes};
use crate::call::{buffer, checked, poisoned, read};
use crate::record::{Cost, Verification};
use anyhow::{Result, ensure};
use wgpu::{Buffer, BufferUsages};
use wgpu_attention::reference::{layer::Comparison, recurrent_steps};
use wgpu_attention::{
    Call, Counter, Element, ElementType, Gpu, RecurrentBuffers, RecurrentInputs, RecurrentShape,
    RecurrentWeightBuffers, RecurrentWeights,
};

/// Items that are compared at most: they have nothing to do with each other.
const ITEMS: usize = 2;
/// Steps of a single item that are compared at most, the first: those before a step are all that it needs.
const STEPS: usize = 512;

/// The tensors on the host.
struct Drawn<W> {
    x: Vec<f32>,
    /// weight_ih, weight_hh, bias_ih, bias_hh; without elements where there are no biases.
    weights: [Vec<W>; 4],
}

pub(super) async fn prepare<'g, W: Element>(gpu: &'g Gpu, shape: RecurrentShape) -> Result<Subject<'g>> {
    let one = (shape.layers, shape.bidirectional, shape.initial, shape.steps_first);
    ensure!(one == (1, false, false, false), "only one layer in one direction, from zeros, is timed");
    let (f32, bias) = (ElementType::F32, if shape.bias { shape.len_bias() } else { 0 });
    check_sizes(gpu, &[("x", shape.len_x()), ("out", shape.len_out())], f32)?;
    let lens = [shape.len_weight_ih(0), shape.len_weight_hh(), bias, bias];
    check_sizes(gpu, &[("weight_ih", lens[0]), ("weight_hh", lens[1])], W::TYPE)?;
    let plan = checked(gpu.device(), "plan", || gpu.kernels().recurrent(&shape)).await??;
    // Rows of unit length: gates are neither all open nor all shut.
    let size = (shape.hidden as f64).sqrt().recip();
    let mut streams = 1..;
    let weights = lens.map(|len| drawn::<W>(streams.next().unwrap_or_default(), len, size));
    let tensors = Drawn { x: drawn(0, shape.len_x(), 1.0), weights };
    let out = poisoned(gpu, "out", shape.len_out(), f32).await?;
    let call = bound(gpu, &plan, &tensors, &out).await?;
    let of_weights: usize = tensors.weights.iter().map(|values| size_of_val(&values[..])).sum();
    let states = shape.len_state() * if shape.cell.has_c() { 2 } else { 1 };
    let bytes = Bytes {
        tensors: (4 * (shape.len_x() + shape.len_out() + states) + of_weights) as u64,
        mask: 0,
        scratch: plan.scratch_bytes(),
    };
    let cost = Cost::new(shape.flops(), bytes, call.dispatches());
    let verify = async move {
        let got: Vec<f32> = read(gpu, "out", &out, shape.len_out()).await?;
        let mut some = shape;
        some.batch = shape.batch.min(ITEMS);
        if shape.batch == 1 {
            some.steps = shape.steps.min(STEPS);
        }
        let [weight_ih, weight_hh, bias_ih, bias_hh] = &tensors.weights;
        let weights = [RecurrentWeights::new(weight_ih, weight_hh)
            .bias_ih(shape.bias.then_some(&bias_ih[..]))
            .bias_hh(shape.bias.then_some(&bias_hh[..]))];
        let inputs = RecurrentInputs::new(&tensors.x[..some.len_x()], &weights);
        let got = &got[..some.len_out()];
        let found = recurrent_steps(&some, &inputs, got)?.out.compare(got.iter().copied(), 0.0);
        Ok(verification(&shape, &some, &found))
    };
    Ok(Subject::on_one_path(gpu, cost, vec![call], verify))
}

/// The call, of tensors that are uploaded for it.
async fn bound<W: Element>(
    gpu: &Gpu,
    plan: &wgpu_attention::RecurrentPlan,
    tensors: &Drawn<W>,
    out: &Buffer,
) -> Result<Call> {
    let shape = plan.shape();
    let upload = async |name, bytes: &[u8]| buffer(gpu, name, bytes, BufferUsages::STORAGE).await;
    let x = upload("x", bytemuck::cast_slice(&tensors.x)).await?;
    let mut parts = vec![];
    for values in tensors.weights.iter().filter(|values| !values.is_empty()) {
        parts.push(upload("weights", bytemuck::cast_slice(values)).await?);
    }
    let state = async |name| poisoned(gpu, name, shape.len_state(), ElementType::F32).await;
    let (h_n, c_n) = (state("h_n").await?, state("c_n").await?);
    let whole = Buffer::as_entire_buffer_binding;
    let part = RecurrentWeightBuffers::new(whole(&parts[0]), whole(&parts[1]))
        .bias_ih(parts.get(2).map(whole))
        .bias_hh(parts.get(3).map(whole));
    let buffers = RecurrentBuffers::new(whole(&x), whole(out), whole(&h_n))
        .c_n(shape.cell.has_c().then(|| whole(&c_n)))
        .weights([part]);
    Ok(checked(gpu.device(), "bind", || plan.bind(buffers)).await??)
}

/// What a comparison of some items or steps says.
fn verification(shape: &RecurrentShape, some: &RecurrentShape, found: &Comparison) -> Verification {
    let finite = |x: f64| x.is_finite().then_some(x);
    let worst = found.worst;
    Verification {
        pass: found.pass && found.unspecified == 0 && found.elements > 0,
        rows: some.batch * some.steps,
        of_rows: shape.batch * shape.steps,
        worst_ratio: worst.and_then(|worst| finite(worst.ratio)),
        worst_error: worst.and_then(|worst| finite((worst.got - worst.expected).abs())),
        worst_bound: worst.and_then(|worst| finite(worst.bound)),
        worst_at: worst.map(|worst| {
            let row = worst.index / shape.hidden;
            format!("out[{}, {}, {}]", row / some.steps, row % some.steps, worst.index % shape.hidden)
        }),
    }
}

/// N(0, size^2), rounded to a type.
fn drawn<E: Element>(stream: u64, len: usize, size: f64) -> Vec<E> {
    let draw = Counter::new(1, stream);
    (0..len as u64).map(|n| E::from_f64(size * draw.normal(n))).collect()
}
