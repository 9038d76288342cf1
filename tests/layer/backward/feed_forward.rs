//! Gradients of the chunked feed-forward layer, against f64 and its bound.

use crate::Checked;
use crate::harness::{Guarded, Rows, gpu, kernels, normal, rounded, run_all};
use wgpu_attention::reference::layer::backward::feed_forward_backward;
use wgpu_attention::reference::layer::{Bounded, FeedForwardInputs, feed_forward};
use wgpu_attention::{
    Activation, ElementType, FeedForwardGradBuffers, FeedForwardShape, FeedForwardSlices, Kernels, Options,
    WeightOrder,
};
use wgpu_attention_testing::combinations;

use ElementType::{Bf16, F16, F32};

const ORDERS: [WeightOrder; 2] = [WeightOrder::InOut, WeightOrder::OutIn];
const NAMES: [&str; 7] = ["dx", "dw1", "db1", "dw2", "db2", "dw3", "db3"];

/// x, w1, b1, w2, b2, w3, b3, dout.
#[derive(Clone)]
struct Data([Vec<f64>; 8]);

impl Data {
    fn of(shape: &FeedForwardShape, value: impl Fn(u64, usize, usize, ElementType) -> Vec<f64>) -> Self {
        let (model, hidden, weight) = (shape.model_dim, shape.hidden_dim, shape.weight);
        let weights = shape.len_weight();
        Self([
            value(0, shape.len_x(), 1, shape.input),
            value(1, weights, model, weight),
            value(2, hidden, 1, weight),
            value(3, weights, hidden, weight),
            value(4, model, 1, weight),
            value(5, weights, model, weight),
            value(6, hidden, 1, weight),
            value(7, shape.len_x(), 1, shape.output),
        ])
    }

    fn normal(shape: &FeedForwardShape) -> Self {
        Self::of(shape, |stream, len, fan, element| {
            let scale = (fan as f64).sqrt();
            rounded(normal(41, stream, len, F32).into_iter().map(|x| x / scale), element)
        })
    }

    /// Small integers, whose sums are exact.
    fn whole(shape: &FeedForwardShape) -> Self {
        Self::of(shape, |stream, len, _, _| {
            (0..len).map(|n| ((n * 37 + n / 7 + 11 * stream as usize) % 5) as f64 - 2.0).collect()
        })
    }
}

/// Which gradients there are, and their lengths.
fn lens(shape: &FeedForwardShape) -> [Option<usize>; 7] {
    let (weights, hidden) = (shape.len_weight(), shape.hidden_dim);
    let if_there = |there: bool, len| there.then_some(len);
    [
        Some(shape.len_x()),
        Some(weights),
        if_there(shape.bias, hidden),
        Some(weights),
        if_there(shape.bias, shape.model_dim),
        if_there(shape.gated, weights),
        if_there(shape.gated && shape.bias, hidden),
    ]
}

/// The gradients that are wanted; empty are those that are not, or not there.
fn computed(
    kernels: &Kernels,
    shape: &FeedForwardShape,
    data: &Data,
    wanted: impl Fn(usize) -> bool,
) -> Result<[Vec<f64>; 7], String> {
    let [x, w1, b1, w2, _, w3, b3, dout] = &data.0;
    let weight = |values: &Vec<f64>| Guarded::new(values, shape.weight);
    let (x, w1, w2, dout) =
        (Guarded::new(x, shape.input), weight(w1), weight(w2), Guarded::new(dout, shape.output));
    let (b1, w3, b3) = (weight(b1), weight(w3), weight(b3));
    let plan = kernels.feed_forward(shape).and_then(|plan| plan.backward()).map_err(|e| e.to_string())?;
    let parts = if shape.gated { 3 } else { 2 };
    let bytes = parts * (4 * plan.chunk() * shape.hidden_dim).next_multiple_of(256) as u64;
    if plan.scratch_bytes() != bytes {
        return Err(format!("{} bytes of scratch instead of {bytes}", plan.scratch_bytes()));
    }
    let elements = bytes as usize / 4;
    let scratch = Guarded::new(&vec![f64::NAN; elements], F32);
    let there = lens(shape);
    let written = |n: usize| there[n].filter(|_| wanted(n)).map(|len| Guarded::new(&vec![-7.5; len], F32));
    let outputs: Vec<_> = (0..7).map(written).collect();
    let binding = |n: usize| outputs[n].as_ref().map(Guarded::binding);
    let buffers = FeedForwardGradBuffers::new(x.binding(), w1.binding(), w2.binding(), dout.binding())
        .b1(shape.bias.then(|| b1.binding()))
        .w3(shape.gated.then(|| w3.binding()))
        .b3((shape.gated && shape.bias).then(|| b3.binding()))
        .dx(binding(0))
        .dw1(binding(1))
        .db1(binding(2))
        .dw2(binding(3))
        .db2(binding(4))
        .dw3(binding(5))
        .db3(binding(6))
        .scratch(scratch.binding());
    let call = plan.bind(buffers).map_err(|e| e.to_string())?;
    let line = |len| Rows::contiguous(1, len);
    let mut read: Vec<_> =
        outputs.iter().zip(there).filter_map(|(out, len)| Some((out.as_ref()?, line(len?), F32))).collect();
    read.push((&scratch, line(elements), F32));
    // Twice: the same bits, whatever is left in scratch and outputs.
    let mut found = run_all(&[&call, &call], &read)?.into_iter();
    let each = outputs.iter().map(|out| out.as_ref().and_then(|_| found.next()).unwrap_or_default());
    Ok(each.collect::<Vec<_>>().try_into().expect("seven"))
}

fn expected(shape: &FeedForwardShape, data: &Data) -> Result<[Bounded; 7], String> {
    let tensors = data.0.clone().map(|values| Bounded::exact(&values));
    let found =
        feed_forward_backward(shape, &inputs(shape, &tensors), &tensors[7]).map_err(|e| e.to_string())?;
    let or = Option::unwrap_or_default;
    Ok([found.dx, found.dw1, or(found.db1), found.dw2, or(found.db2), or(found.dw3), or(found.db3)])
}

fn inputs<'a>(shape: &FeedForwardShape, tensors: &'a [Bounded; 8]) -> FeedForwardInputs<'a> {
    let [x, w1, b1, w2, b2, w3, b3, _] = tensors;
    FeedForwardInputs {
        x,
        w1,
        b1: shape.bias.then_some(b1),
        w3: shape.gated.then_some(w3),
        b3: (shape.gated && shape.bias).then_some(b3),
        w2,
        b2: shape.bias.then_some(b2),
        residual: None,
    }
}

/// Every element within its bound. Returns the worst error / bound.
pub(crate) fn bound(kernels: &Kernels, shape: &FeedForwardShape) -> Result<f64, String> {
    let data = Data::normal(shape);
    let (got, want) = (computed(kernels, shape, &data, |_| true)?, expected(shape, &data)?);
    let mut worst = 0f64;
    for ((name, got), want) in NAMES.into_iter().zip(got).zip(want) {
        let found = want.compare(got, 0.0);
        if !found.pass {
            return Err(format!("{name}: {found}\n{shape:?}"));
        }
        worst = worst.max(found.worst.map_or(0.0, |it| it.ratio));
    }
    Ok(worst)
}

/// Integers through ReLU: every term counts, once, and no other does.
fn whole(kernels: &Kernels, shape: &FeedForwardShape) -> Checked {
    let data = Data::whole(shape);
    let (got, want) = (computed(kernels, shape, &data, |_| true)?, expected(shape, &data)?);
    for ((name, got), want) in NAMES.into_iter().zip(got).zip(want) {
        if want.out.iter().any(|x| x.abs() >= 16_777_216.0) {
            return Err(format!("{name}: integers that f32 does not hold: {shape:?}"));
        }
        if let Some(n) = (0..want.out.len()).find(|&n| got.get(n) != Some(&want.out[n])) {
            return Err(format!("{name}[{n}] is {:?} instead of {}: {shape:?}", got.get(n), want.out[n]));
        }
    }
    Ok(())
}

fn relu(rows: usize, model: usize, hidden: usize) -> FeedForwardShape {
    FeedForwardShape::new(rows, model, hidden, Activation::Relu).bias(true)
}

/// A selection for the mutants.
pub(crate) fn selection(kernels: &Kernels) -> Checked {
    for weights in ORDERS {
        for gated in [false, true] {
            whole(kernels, &relu(37, 12, 20).weights(weights).gated(gated).chunk(Some(16)))?;
            whole(kernels, &relu(21, 5, 7).weights(weights).gated(gated).chunk(Some(8)))?;
        }
    }
    let shape = FeedForwardShape::new(37, 12, 20, Activation::Silu).chunk(Some(16));
    bound(kernels, &shape)?;
    bound(kernels, &shape.gated(true))?;
    Ok(())
}

#[test]
fn the_selection_passes() {
    selection(kernels()).unwrap();
}

#[test]
fn every_form_is_within_the_bound() {
    let mut worst = 0f64;
    for [n, odd, order, gated] in combinations([Activation::ALL.len(), 2, ORDERS.len(), 2]) {
        let (activation, gated) = (Activation::ALL[n], gated == 1);
        let shape = FeedForwardShape::new(45, 20 + odd, 36, activation).weights(ORDERS[order]).gated(gated);
        let shape = shape.bias(order == 0).residual(gated == (order == 0)).chunk(Some(20));
        worst = worst.max(bound(kernels(), &shape).unwrap());
    }
    for element in [F16, Bf16] {
        for (model, hidden) in [(16, 24), (7, 9)] {
            let shape = FeedForwardShape::new(9, model, hidden, Activation::Silu).gated(true).bias(true);
            worst = worst.max(bound(kernels(), &shape.elements(element).chunk(Some(4))).unwrap());
        }
    }
    println!("gradients of feed-forward: worst error/bound {worst:.3}");
}

#[test]
fn dx_and_db2_have_the_same_bits_for_every_chunk() {
    for shape in [
        FeedForwardShape::new(70, 20, 36, Activation::GeluTanh).bias(true),
        FeedForwardShape::new(70, 5, 7, Activation::Silu).gated(true).bias(true).weights(WeightOrder::OutIn),
    ] {
        let data = Data::normal(&shape);
        let of = |chunk| computed(kernels(), &shape.chunk(Some(chunk)), &data, |_| true).unwrap();
        let all = of(70);
        for chunk in [1, 7, 32, 33, 69, 75] {
            let got = of(chunk);
            for n in [0, 4] {
                let same = got[n].iter().map(|x| x.to_bits()).eq(all[n].iter().map(|x| x.to_bits()));
                assert!(same, "{} by chunks of {chunk}: {shape:?}", NAMES[n]);
            }
        }
        // One row at a time: as many additions as there are rows.
        bound(kernels(), &shape.chunk(Some(1))).unwrap();
    }
}

#[test]
fn scratch_does_not_grow_with_the_rows() {
    let scratch = |rows| {
        let shape = FeedForwardShape::new(rows, 512, 2048, Activation::Silu).gated(true);
        kernels().feed_forward(&shape).unwrap().backward().unwrap().scratch_bytes()
    };
    assert_eq!(scratch(100), 3 * 100 * 2048 * 4);
    assert_eq!(scratch(1 << 16), scratch(1 << 20));
    assert!(scratch(1 << 20) <= 3 * 4096 * 2048 * 4);
}

#[test]
fn the_reference_is_the_derivative() {
    let shape = FeedForwardShape::new(4, 3, 5, Activation::GeluErf).gated(true).bias(true);
    let shape = shape.weights(WeightOrder::OutIn);
    let data = Data::normal(&shape);
    let loss = |data: &Data| {
        let tensors = data.0.clone().map(|values| Bounded::exact(&values));
        let out = feed_forward(&shape, &inputs(&shape, &tensors)).unwrap().out;
        out.iter().zip(&data.0[7]).map(|(y, d)| y * d).sum::<f64>()
    };
    for (tensor, gradient) in expected(&shape, &data).unwrap().into_iter().enumerate() {
        for n in 0..gradient.out.len() {
            let moved = |step: f64| {
                let mut data = data.clone();
                data.0[tensor][n] += step;
                loss(&data)
            };
            let difference = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            let found = gradient.out[n];
            assert!((found - difference).abs() < 1e-7, "{}[{n}]: {found} and {difference}", NAMES[tensor]);
        }
    }
}

#[test]
fn gradients_that_are_not_asked_for_are_not_computed() {
    let shape = FeedForwardShape::new(9, 8, 12, Activation::Tanh).gated(true).bias(true).chunk(Some(5));
    let data = Data::normal(&shape);
    let all = computed(kernels(), &shape, &data, |_| true).unwrap();
    for wanted in 0..7 {
        let got = computed(kernels(), &shape, &data, |n| n == wanted).unwrap();
        assert_eq!(got[wanted], all[wanted], "{}", NAMES[wanted]);
        assert!((0..7).all(|n| n == wanted || got[n].is_empty()));
    }
    let plan = kernels().feed_forward(&shape).unwrap().backward().unwrap();
    let some = Guarded::new(&[0.0; 256], F32);
    let all = || some.binding();
    let buffers = || FeedForwardGradBuffers::new(all(), all(), all(), all()).b1(all()).w3(all()).b3(all());
    assert_eq!(plan.bind(buffers()).unwrap().dispatches(), 0);
    let db2 = Guarded::new(&[0.0; 8], F32);
    assert_eq!(plan.bind(buffers().db2(db2.binding())).unwrap().dispatches(), 1);
}

#[test]
fn no_rows_give_gradients_of_zero() {
    let shape = relu(0, 4, 8).gated(true);
    let data = Data::whole(&shape);
    let plan = kernels().feed_forward(&shape).unwrap().backward().unwrap();
    let some = Guarded::new(&[0.0; 64], F32);
    let weight = |n: usize| Guarded::new(&data.0[n], F32);
    let (w1, b1, w2, w3, b3) = (weight(1), weight(2), weight(3), weight(5), weight(6));
    let outputs = [32, 8, 32, 4, 32, 8].map(|len| (Guarded::new(&vec![-7.5; len], F32), len));
    let out = |n: usize| outputs[n].0.binding();
    let buffers = FeedForwardGradBuffers::new(some.binding(), w1.binding(), w2.binding(), some.binding())
        .b1(b1.binding())
        .w3(w3.binding())
        .b3(b3.binding())
        .dw1(out(0))
        .db1(out(1))
        .dw2(out(2))
        .db2(out(3))
        .dw3(out(4))
        .db3(out(5));
    let call = plan.bind(buffers).unwrap();
    let read: Vec<_> = outputs.iter().map(|(out, len)| (out, Rows::contiguous(1, *len), F32)).collect();
    assert!(run_all(&[&call], &read).unwrap().iter().flatten().all(|&x| x == 0.0));
}

#[test]
fn work_may_be_cut_into_dispatches() {
    let kernels = Kernels::new(gpu().device(), Options::default().dispatch_flops(1e4)).unwrap();
    whole(&kernels, &relu(60, 12, 40).chunk(Some(50))).unwrap();
}

#[test]
fn bad_input_is_named() {
    let shape = FeedForwardShape::new(8, 4, 12, Activation::Relu).gated(true).bias(true);
    let plan = kernels().feed_forward(&shape).unwrap().backward().unwrap();
    let [x, w, b, dout, dx, dw, scratch] =
        [32, 48, 12, 32, 32, 48, 384].map(|len| Guarded::new(&vec![0.0; len], F32));
    let buffers = || {
        FeedForwardGradBuffers::new(x.binding(), w.binding(), w.binding(), dout.binding())
            .b1(b.binding())
            .w3(w.binding())
            .b3(b.binding())
            .dx(dx.binding())
            .dw1(dw.binding())
            .scratch(scratch.binding())
    };
    assert_eq!(plan.bind(buffers()).unwrap().dispatches(), 7);
    let message = |buffers| plan.bind(buffers).unwrap_err().to_string();
    assert!(message(buffers().w3(None)).starts_with("w3: need a buffer"));
    assert!(message(buffers().b1(None)).starts_with("b1: need a buffer"));
    assert!(message(buffers().dout(b.binding())).starts_with("dout: need 128 bytes"));
    assert!(message(buffers().dx(x.binding())).starts_with("dx: need a buffer other"));
    assert!(message(buffers().dw1(dx.binding())).starts_with("dw1: need 192 bytes"));
    assert!(message(buffers().scratch(dx.binding())).starts_with("scratch: need 1536 bytes"));
    let plain = kernels().feed_forward(&shape.gated(false).bias(false)).unwrap().backward().unwrap();
    let buffers = || FeedForwardGradBuffers::new(x.binding(), w.binding(), w.binding(), dout.binding());
    let message = |buffers| plain.bind(buffers).unwrap_err().to_string();
    assert!(message(buffers().db1(b.binding())).starts_with("db1: need none"));
    assert!(message(buffers().dw3(dw.binding())).starts_with("dw3: need none"));
    let limits = gpu().device().limits();
    let most = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size) / 4;
    let rows = (most / (1 << 20)) as usize;
    if rows < 1 << 12 {
        let wide = FeedForwardShape::new(rows, 1, 1 << 20, Activation::Relu).chunk(Some(rows));
        let error = kernels().feed_forward(&wide).unwrap().backward().unwrap_err().to_string();
        assert!(error.contains("max_storage_buffer_binding_size"), "{error}");
    }
}

#[test]
fn slices() {
    let shape = FeedForwardShape::new(2, 1, 1, Activation::Relu).gated(true).bias(true);
    let (x, w1, b1, w2, w3, b3) = ([2.0f32, -1.0], [3.0f32], [1.0f32], [5.0f32], [2.0f32], [1.0f32]);
    let slices = FeedForwardSlices::new(&x, &w1, &w2).b1(&b1[..]).w3(&w3[..]).b3(&b3[..]);
    // s = [7, -2], g = [5, -1], h = [35, 0]; dh = 5 dout = [5, 50].
    let found = gpu().feed_forward_backward(&shape, slices, &[1.0f32, 10.0]).unwrap();
    assert_eq!(found.dx, [25.0 * 3.0 + 35.0 * 2.0, 0.0]);
    assert_eq!((found.dw1, found.db1), (vec![50.0], Some(vec![25.0])));
    assert_eq!((found.dw3, found.db3), (Some(vec![70.0]), Some(vec![35.0])));
    assert_eq!((found.dw2, found.db2), (vec![35.0], Some(vec![11.0])));
    let error = gpu().feed_forward_backward(&shape, slices.w3(None), &[1.0f32, 1.0]).unwrap_err();
    assert!(error.to_string().starts_with("w3: need a tensor"), "{error}");
}
