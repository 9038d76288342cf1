use crate::Checked;
use crate::harness::{Guarded, Rows, gpu, kernels, normal, run, with};
use wgpu_attention::reference::layer::{Bounded, FeedForwardInputs, feed_forward};
use wgpu_attention::{Activation, ElementType, FeedForwardBuffers, FeedForwardShape, Kernels, WeightOrder};
use wgpu_attention_testing::combinations;

use ElementType::{Bf16, F16, F32};

/// The tensors of a layer in the order x, w1, b1, w3, b3, w2, b2, residual.
struct Data([Vec<f64>; 8]);

impl Data {
    fn normal(shape: &FeedForwardShape) -> Self {
        let (model, hidden, weight) = (shape.model_dim, shape.hidden_dim, shape.weight);
        let scaled = |stream, len: usize, fan: usize| {
            let values = normal(5, stream, len, F32);
            crate::harness::rounded(values.into_iter().map(|x| x / (fan as f64).sqrt()), weight)
        };
        Self([
            normal(5, 0, shape.len_x(), shape.input),
            scaled(1, shape.len_weight(), model),
            normal(5, 2, hidden, weight),
            scaled(3, shape.len_weight(), model),
            normal(5, 4, hidden, weight),
            scaled(5, shape.len_weight(), hidden),
            normal(5, 6, model, weight),
            normal(5, 7, shape.len_x(), shape.output),
        ])
    }
}

/// Runs a layer; `own_scratch` passes a guarded one, which is poisoned.
fn layer(
    kernels: &Kernels,
    shape: &FeedForwardShape,
    data: &Data,
    own_scratch: bool,
) -> Result<Vec<f64>, String> {
    let [x, w1, b1, w3, b3, w2, b2, residual] = &data.0;
    let weight = |values: &Vec<f64>| Guarded::new(values, shape.weight);
    let (x, w1, w2) = (Guarded::new(x, shape.input), weight(w1), weight(w2));
    let (b1, b2) = (shape.bias.then(|| weight(b1)), shape.bias.then(|| weight(b2)));
    let w3 = shape.gated.then(|| weight(w3));
    let b3 = (shape.gated && shape.bias).then(|| weight(b3));
    let residual = shape.residual.then(|| Guarded::new(residual, shape.output));
    let rows = Rows::contiguous(shape.rows, shape.model_dim);
    let out = Guarded::new(&rows.spread(&vec![f64::NAN; shape.len_x()]), shape.output);
    let plan = kernels.feed_forward(shape).map_err(|e| e.to_string())?;
    let elements = plan.chunk() * shape.hidden_dim;
    let bytes = shape.hidden.size_bytes() * elements;
    if plan.scratch_bytes() != bytes.next_multiple_of(4) as u64 {
        return Err(format!("{} bytes of scratch for {elements} elements", plan.scratch_bytes()));
    }
    let scratch = own_scratch.then(|| Guarded::new(&vec![f64::NAN; elements], shape.hidden));
    let buffers = FeedForwardBuffers::new(x.binding(), w1.binding(), w2.binding(), out.binding())
        .b1(b1.as_ref().map(Guarded::binding))
        .w3(w3.as_ref().map(Guarded::binding))
        .b3(b3.as_ref().map(Guarded::binding))
        .b2(b2.as_ref().map(Guarded::binding))
        .residual(residual.as_ref().map(Guarded::binding))
        .scratch(scratch.as_ref().map(Guarded::binding));
    let call = plan.bind(buffers).map_err(|e| e.to_string())?;
    let got = run(&[&call], &out, rows, shape.output)?;
    if let Some(scratch) = &scratch {
        run(&[], scratch, Rows::contiguous(plan.chunk(), shape.hidden_dim), shape.hidden)?;
    }
    Ok(got)
}

pub(crate) fn bound(kernels: &Kernels, shape: &FeedForwardShape) -> Result<f64, String> {
    let data = Data::normal(shape);
    let got = layer(kernels, shape, &data, false)?;
    let [x, w1, b1, w3, b3, w2, b2, residual] = data.0.map(|values| Bounded::exact(&values));
    let inputs = FeedForwardInputs {
        x: &x,
        w1: &w1,
        b1: shape.bias.then_some(&b1),
        w3: shape.gated.then_some(&w3),
        b3: (shape.gated && shape.bias).then_some(&b3),
        w2: &w2,
        b2: shape.bias.then_some(&b2),
        residual: shape.residual.then_some(&residual),
    };
    let found = feed_forward(shape, &inputs).map_err(|e| e.to_string())?.compare(got, 0.0);
    if found.pass { Ok(found.worst.map_or(0.0, |w| w.ratio)) } else { Err(format!("{found}\n{shape:?}")) }
}

/// All chunk sizes give the same bits.
pub(crate) fn chunks_agree(kernels: &Kernels, shape: &FeedForwardShape) -> Checked {
    let data = Data::normal(shape);
    let whole = layer(kernels, &shape.chunk(Some(shape.rows)), &data, false)?;
    for chunk in [1, 2, 7, 31, 32, 33, 64, shape.rows - 1, shape.rows + 5] {
        let got = layer(kernels, &shape.chunk(Some(chunk)), &data, chunk % 2 == 1)?;
        if got.iter().map(|x| x.to_bits()).ne(whole.iter().map(|x| x.to_bits())) {
            return Err(format!("a chunk of {chunk} gives other bits: {shape:?}"));
        }
    }
    Ok(())
}

/// A selection for the mutants.
pub(crate) fn selection(kernels: &Kernels) -> Checked {
    let shape =
        FeedForwardShape::new(37, 24, 40, Activation::GeluErf).bias(true).residual(true).chunk(Some(16));
    bound(kernels, &shape)?;
    bound(kernels, &shape.gated(true).weights(WeightOrder::OutIn))?;
    let odd = FeedForwardShape::new(37, 6, 9, Activation::GeluErf).chunk(Some(16));
    for shape in [shape, odd] {
        bound(kernels, &shape.gated(true).hidden(F16))?;
    }
    rounded_hidden_values(kernels, FeedForwardShape::new(5, 4, 8, Activation::Relu))
}

/// Whole numbers, which show what is between the products: all hidden values of a row are `factor` times the sum of x, all weights of the second
/// product 1 / `hidden_dim`, a power of two, and all sums exact.
pub(crate) fn rounded_hidden_values(kernels: &Kernels, shape: FeedForwardShape) -> Checked {
    let run = |sum: f64, factor: f64, hidden| {
        // Each of them a number of f16.
        let row = [4096.0, sum - 4096.0].into_iter().chain(std::iter::repeat(0.0)).take(shape.model_dim);
        let x = row.collect::<Vec<_>>().repeat(shape.rows);
        let weights = |value| vec![value; shape.len_weight()];
        let w2 = weights(1.0 / shape.hidden_dim as f64);
        let data = [x, weights(factor), vec![], vec![], vec![], w2, vec![], vec![]];
        layer(kernels, &shape.hidden(hidden), &Data(data), true)
    };
    // 4,097 lies between two numbers of f16; of bf16, 4,112 does. Beyond 65,504 f16 has none.
    for (hidden, [sum, factor], allowed) in [
        (F32, [4097.0, 1.0], [4097.0; 2]),
        (F16, [4100.0, 1.0], [4100.0; 2]),
        (F16, [4097.0, 1.0], [4096.0, 4100.0]),
        (Bf16, [4112.0, 1.0], [4096.0, 4128.0]),
        (F16, [8192.0, 128.0], [65504.0; 2]),
        (F32, [8192.0, 128.0], [1048576.0; 2]),
    ] {
        let got = run(sum, factor, hidden)?;
        let wrong = got.iter().find(|y| !allowed.contains(y));
        if got.len() != shape.len_x() || wrong.is_some() {
            return Err(format!("{hidden} between the products: {wrong:?}, not {allowed:?}"));
        }
    }
    Ok(())
}

#[path = "../../examples/feed_forward_memory.rs"]
mod feed_forward_memory;

#[test]
fn the_picture_of_memory_shows_what_plans_need() {
    let drawn = feed_forward_memory::svg(gpu()).unwrap();
    let stored = include_str!("../../docs/feed_forward_memory.svg");
    let command = "cargo run --example feed_forward_memory -- docs/feed_forward_memory.svg";
    assert!(drawn == stored, "`{command}`, and look at the change");
}

#[test]
fn the_selection_passes() {
    selection(kernels()).unwrap();
}

#[test]
fn every_form_is_within_the_bound() {
    let mut worst = 0f64;
    for [n, order, gated] in combinations([Activation::ALL.len(), 2, 2]) {
        let (activation, gated) = (Activation::ALL[n], gated == 1);
        let weights = [WeightOrder::InOut, WeightOrder::OutIn][order];
        let shape = FeedForwardShape::new(45, 20, 36, activation).weights(weights).gated(gated);
        let shape = shape.bias(order == 0).residual(gated == (order == 0)).chunk(Some(20));
        worst = worst.max(bound(kernels(), &shape).unwrap());
    }
    for element in [F16, Bf16] {
        for (model, hidden) in [(16, 24), (7, 9)] {
            let shape = FeedForwardShape::new(9, model, hidden, Activation::Silu).gated(true).residual(true);
            bound(kernels(), &shape.elements(element).chunk(Some(4))).unwrap();
        }
    }
    println!("feed-forward: worst error/bound {worst:.3}");
}

#[test]
fn hidden_values_of_16_bits_are_within_the_bound() {
    let mut worst = 0f64;
    for [element, odd, gated] in combinations([2, 2, 2]) {
        let (model, hidden) = [(20, 36), (7, 9)][odd];
        let shape = FeedForwardShape::new(45, model, hidden, Activation::Silu).bias(true).residual(true);
        let shape = shape.gated(gated == 1).hidden([F16, Bf16][element]).chunk(Some(20));
        worst = worst.max(bound(kernels(), &shape).unwrap());
        bound(kernels(), &shape.elements(F16).weights(WeightOrder::OutIn)).unwrap();
    }
    bound(kernels(), &shape_of_few(7).hidden(F16)).unwrap();
    println!("feed-forward with hidden values of 16 bits: worst error/bound {worst:.3}");
}

#[test]
fn hidden_values_are_rounded_as_the_shape_says() {
    rounded_hidden_values(kernels(), FeedForwardShape::new(5, 4, 8, Activation::Relu)).unwrap();
    let halves =
        kernels().feed_forward(&FeedForwardShape::new(5, 7, 9, Activation::Relu).hidden(F16)).unwrap();
    assert_eq!(halves.scratch_bytes(), 92, "90, in whole words");
}

#[test]
fn every_chunk_gives_the_same_bits() {
    let shape = FeedForwardShape::new(70, 20, 36, Activation::GeluTanh).bias(true).residual(true);
    chunks_agree(kernels(), &shape).unwrap();
    chunks_agree(kernels(), &shape.gated(true).weights(WeightOrder::OutIn)).unwrap();
    let odd = FeedForwardShape::new(70, 5, 7, Activation::Relu).elements(F16);
    chunks_agree(kernels(), &odd).unwrap();
    chunks_agree(kernels(), &odd.gated(true).hidden(F16)).unwrap();
    // Few rows have a tile of their own, whatever the chunk.
    chunks_agree(kernels(), &shape_of_few(7)).unwrap();
}

fn shape_of_few(rows: usize) -> FeedForwardShape {
    let shape = FeedForwardShape::new(rows, 20, 36, Activation::Silu).weights(WeightOrder::OutIn);
    shape.bias(true).residual(true).gated(true)
}

#[test]
fn few_rows_are_within_the_bound() {
    for rows in 1..=9 {
        bound(kernels(), &shape_of_few(rows)).unwrap();
        bound(kernels(), &shape_of_few(rows).chunk(Some(2))).unwrap();
    }
}

#[test]
fn the_default_chunk_does_not_grow_with_the_rows() {
    let scratch = |rows| {
        let shape = FeedForwardShape::new(rows, 512, 2048, Activation::Relu);
        kernels().feed_forward(&shape).unwrap().scratch_bytes()
    };
    assert_eq!(scratch(100), 100 * 2048 * 4);
    assert_eq!(scratch(1 << 16), scratch(1 << 20));
    assert!(scratch(1 << 20) <= 4096 * 2048 * 4);
}

#[test]
fn bad_input_is_named() {
    let message = |shape: FeedForwardShape| kernels().feed_forward(&shape).unwrap_err().to_string();
    let shape = FeedForwardShape::new(8, 4, 12, Activation::Relu);
    for (shape, words) in [
        (with(shape, |shape| shape.model_dim = 0), "model_dim: need at least 1"),
        (with(shape, |shape| shape.hidden_dim = 0), "hidden_dim: need at least 1"),
        (shape.chunk(Some(0)), "chunk: need at least 1, got 0"),
        (with(shape, |shape| shape.rows = 1 << 31), "x needs"),
    ] {
        assert!(message(shape).contains(words), "{words}: {}", message(shape));
    }
    let limits = gpu().device().limits();
    let most = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size) / 4;
    let rows = (most / (1 << 20) + 1) as usize;
    if rows < 1 << 12 {
        let wide = FeedForwardShape::new(rows, 1, 1 << 20, Activation::Relu).chunk(Some(rows));
        assert!(message(wide).contains("max_storage_buffer_binding_size"), "{}", message(wide));
    }

    let plan = kernels().feed_forward(&shape.gated(true)).unwrap();
    let [x, w, out] = [32, 48, 32].map(|len| Guarded::new(&vec![0.0; len], F32));
    let scratch = Guarded::new(&vec![0.0; 8 * 12], F32);
    let buffers = || {
        FeedForwardBuffers::new(x.binding(), w.binding(), w.binding(), out.binding())
            .w3(Some(w.binding()))
            .scratch(Some(scratch.binding()))
    };
    assert_eq!(plan.bind(buffers()).unwrap().dispatches(), 3);
    let message = |buffers| plan.bind(buffers).unwrap_err().to_string();
    assert!(message(buffers().w3(None)).starts_with("w3: need a buffer"));
    assert!(message(buffers().b1(Some(w.binding()))).starts_with("b1: need none"));
    assert!(message(buffers().w2(x.binding())).starts_with("w2: need 192 bytes"));
    assert!(message(buffers().scratch(Some(x.binding()))).starts_with("scratch: need 384"));
    assert!(message(buffers().out(x.binding())).starts_with("out: need a buffer other"));
    let scratch = Some(out.binding());
    let small = kernels().feed_forward(&shape.gated(true).chunk(Some(1))).unwrap();
    let error = small.bind(buffers().scratch(scratch)).unwrap_err().to_string();
    assert!(error.starts_with("scratch: need a buffer other than that of out"), "{error}");
}
