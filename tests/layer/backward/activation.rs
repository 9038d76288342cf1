//! Activations by themselves and their gradients, against f64 and its bound.

use crate::Checked;
use crate::harness::{Guarded, Rows, gpu, kernels, normal, rounded, run, run_all};
use wgpu_attention::reference::layer::backward::activation_backward;
use wgpu_attention::reference::layer::{Bounded, activate};
use wgpu_attention::{
    Activation, ActivationBuffers, ActivationGradBuffers, ActivationShape, ElementType, Error, Kernels,
    Options,
};
use wgpu_attention_testing::combinations;

use ElementType::{Bf16, F16, F32};

/// x, gate and the gradient of out.
struct Data {
    x: Vec<f64>,
    gate: Vec<f64>,
    dout: Vec<f64>,
}

impl Data {
    /// Numbers of all sizes that matter: the functions bend below 15, and their tails end before 110.
    fn normal(shape: &ActivationShape) -> Self {
        let len = shape.len;
        let spread = normal(21, 0, len, F32).into_iter().enumerate();
        let x = spread.map(|(n, x)| x * [1.0, 4.0, 30.0, 1e-3][n % 4]);
        Self {
            x: rounded(x, shape.input),
            gate: normal(21, 1, len, shape.input),
            dout: normal(21, 2, len, shape.output),
        }
    }

    /// `x`, and 1 in the others.
    fn of(x: Vec<f64>) -> Self {
        Self { gate: vec![1.0; x.len()], dout: vec![1.0; x.len()], x }
    }
}

/// out; dx; the gradient by the gate, empty without one.
type Found = [Vec<f64>; 3];

fn computed(kernels: &Kernels, shape: &ActivationShape, data: &Data) -> Result<Found, String> {
    let rows = Rows::contiguous(1, shape.len);
    let [x, gate] = [&data.x, &data.gate].map(|values| Guarded::new(values, shape.input));
    let dout = Guarded::new(&data.dout, shape.output);
    // A number, so that a NaN that is read back was written.
    let written = |element| Guarded::new(&vec![-7.5; shape.len], element);
    let (out, dx, dgate) = (written(shape.output), written(shape.input), written(shape.input));
    let plan = kernels.activation(shape).map_err(|e| e.to_string())?;
    let gate = shape.gated.then(|| gate.binding());
    let forward = ActivationBuffers::new(x.binding(), out.binding()).gate(gate.clone());
    let forward = plan.bind(forward).map_err(|e| e.to_string())?;
    let gradients = ActivationGradBuffers::new(x.binding(), dout.binding()).gate(gate).dx(dx.binding());
    let gradients = gradients.dgate(shape.gated.then(|| dgate.binding()));
    let backward = plan.backward().and_then(|plan| plan.bind(gradients)).map_err(|e| e.to_string())?;
    let mut outputs = vec![(&out, rows, shape.output), (&dx, rows, shape.input)];
    outputs.extend(shape.gated.then_some((&dgate, rows, shape.input)));
    // Twice: the same bits, for nothing that is read is written.
    let mut found = run_all(&[&forward, &backward, &backward], &outputs)?;
    found.resize(3, vec![]);
    Ok(found.try_into().expect("three"))
}

/// Every element within its bound; returns the worst error / bound of out, and of the gradients.
fn bound_of(kernels: &Kernels, shape: &ActivationShape, data: &Data) -> Result<[f64; 2], String> {
    let [out, dx, dgate] = computed(kernels, shape, data)?;
    let (x, gate, dout) = (Bounded::exact(&data.x), Bounded::exact(&data.gate), Bounded::exact(&data.dout));
    let gate = shape.gated.then_some(&gate);
    let expected = activate(shape, &x, gate).map_err(|e| e.to_string())?;
    let gradients = activation_backward(shape, &x, gate, &dout).map_err(|e| e.to_string())?;
    let mut ratios = vec![];
    let pairs = [("out", &expected, out), ("dx", &gradients.dx, dx)];
    let dgate = gradients.dgate.as_ref().map(|expected| ("dgate", expected, dgate));
    for (name, expected, got) in pairs.into_iter().chain(dgate) {
        let found = expected.compare(got, 0.0);
        if !found.pass {
            return Err(format!("{name}: {found}\n{shape:?}"));
        }
        ratios.push(found.worst.map_or(0.0, |worst| worst.ratio));
    }
    Ok([ratios[0], ratios[1..].iter().copied().fold(0.0, f64::max)])
}

fn bound(kernels: &Kernels, shape: &ActivationShape) -> Result<[f64; 2], String> {
    bound_of(kernels, shape, &Data::normal(shape))
}

/// Every exponent, and densely where the functions bend, of either sign.
fn sweep() -> Vec<f64> {
    let exponents =
        (1..255u32).flat_map(|e| (0..3).map(move |n| f32::from_bits(e << 23 | (n * 0x2b_4567) & 0x7f_ffff)));
    let dense = (0..9000).map(|n| n as f32 * 0.0131);
    let fine = (0..3000).map(|n| n as f32 * 0.00217);
    exponents.chain(dense).chain(fine).flat_map(|x| [f64::from(x), -f64::from(x)]).collect()
}

/// NaN stays NaN, infinities give the limits; ReLU's slope at 0 is 0, and nothing comes through where it is 0.
fn no_numbers(kernels: &Kernels) -> Checked {
    let x = vec![f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1.0];
    for activation in Activation::ALL {
        let shape = ActivationShape::new(x.len(), activation);
        let [_, dx, _] = computed(kernels, &shape, &Data::of(x.clone()))?;
        let want: Vec<_> = x.iter().map(|&x| activation.slope(x)).collect();
        if dx[..2] != want[..2] || dx.iter().zip(&want).any(|(a, b)| (a - b).abs() > 1e-5) {
            return Err(format!("{activation}: {dx:?} instead of {want:?}"));
        }
        // The harness has NaN stand for poison, which is one.
        let nan = Data::of(vec![1.0, f64::NAN, 2.0, f64::NAN, f64::NAN]);
        for gated in [false, true] {
            let [out, dx, dgate] = computed(kernels, &shape.gated(gated), &nan)?;
            for values in [out, dx, dgate].into_iter().filter(|values| !values.is_empty()) {
                if values.iter().map(|x| x.is_nan()).ne(nan.x.iter().map(|x| x.is_nan())) {
                    return Err(format!("{activation} of {:?}: {values:?}", nan.x));
                }
            }
        }
    }
    let data = Data { dout: vec![f64::INFINITY; 4], ..Data::of(vec![-1.0, 0.0, 1.0, -2.0]) };
    let [_, dx, _] = computed(kernels, &ActivationShape::new(4, Activation::Relu), &data)?;
    if dx != [0.0, 0.0, f64::INFINITY, 0.0] {
        return Err(format!("ReLU behind infinities: {dx:?}"));
    }
    Ok(())
}

/// A selection for the mutants.
pub(crate) fn selection(kernels: &Kernels) -> Checked {
    for activation in Activation::ALL {
        let x = sweep();
        bound_of(kernels, &ActivationShape::new(x.len(), activation), &Data::of(x))?;
        bound(kernels, &ActivationShape::new(1030, activation).gated(true))?;
    }
    no_numbers(kernels)
}

#[test]
fn the_selection_passes() {
    selection(kernels()).unwrap();
}

#[test]
fn every_f32_is_within_the_bound() {
    for activation in Activation::ALL {
        let x = sweep();
        let shape = ActivationShape::new(x.len(), activation);
        let [out, gradient] = bound_of(kernels(), &shape, &Data::of(x)).unwrap();
        println!("{activation}: worst error/bound {out:.3}, of its gradient {gradient:.3}");
    }
}

#[test]
fn every_type_and_length_is_within_the_bound() {
    let mut worst = [0f64; 2];
    let types = [(F32, F32), (F16, F16), (Bf16, Bf16), (F16, F32), (F32, Bf16)];
    let lens = [1, 3, 4, 255, 256, 257, 1001, 1028];
    for gated in [false, true] {
        for [len, activation, n] in combinations([lens.len(), Activation::ALL.len(), types.len()]) {
            let (input, output) = types[n];
            let shape = ActivationShape::new(lens[len] + usize::from(gated), Activation::ALL[activation]);
            let found = bound(kernels(), &shape.gated(gated).input(input).output(output)).unwrap();
            worst = [0, 1].map(|n| worst[n].max(found[n]));
        }
    }
    println!("activation: worst error/bound {:.3}, of gradients {:.3}", worst[0], worst[1]);
}

#[test]
fn what_is_no_number_is_passed_on() {
    no_numbers(kernels()).unwrap();
}

#[test]
fn work_may_be_cut_into_dispatches() {
    let kernels = Kernels::new(gpu().device(), Options::default().dispatch_flops(1e4)).unwrap();
    bound(&kernels, &ActivationShape::new(5000, Activation::Silu).gated(true)).unwrap();
}

#[test]
fn gradients_that_are_not_asked_for_are_not_computed() {
    let shape = ActivationShape::new(9, Activation::GeluErf).gated(true);
    let data = Data::normal(&shape);
    let [_, all_dx, all_dgate] = computed(kernels(), &shape, &data).unwrap();
    let [x, gate, dout] = [&data.x, &data.gate, &data.dout].map(|values| Guarded::new(values, F32));
    let plan = kernels().activation(&shape).unwrap().backward().unwrap();
    let buffers = || ActivationGradBuffers::new(x.binding(), dout.binding()).gate(gate.binding());
    assert_eq!(plan.bind(buffers()).unwrap().dispatches(), 0);
    for (of_gate, want) in [(false, &all_dx), (true, &all_dgate)] {
        let out = Guarded::new(&[0.0; 9], F32);
        let one = if of_gate { buffers().dgate(out.binding()) } else { buffers().dx(out.binding()) };
        let call = plan.bind(one).unwrap();
        assert_eq!(&run(&[&call], &out, Rows::contiguous(1, 9), F32).unwrap(), want);
    }
}

#[test]
fn bad_input_is_named() {
    let error = kernels().activation(&ActivationShape::new(1 << 33, Activation::Relu)).unwrap_err();
    assert!(error.to_string().contains("len needs"), "{error}");
    let plain = kernels().activation(&ActivationShape::new(8, Activation::Relu)).unwrap();
    let gated = kernels().activation(&ActivationShape::new(8, Activation::Relu).gated(true)).unwrap();
    let [x, out, dx] = [8, 8, 8].map(|len| Guarded::new(&vec![0.0; len], F32));
    let short = Guarded::new(&[0.0; 4], F32);
    let name = |result: wgpu_attention::Result<wgpu_attention::Call>| match result {
        Err(Error::Argument { name, .. }) => name.to_string(),
        other => panic!("{other:?}"),
    };
    let forward = || ActivationBuffers::new(x.binding(), out.binding());
    assert_eq!(name(plain.bind(forward().x(short.binding()))), "x");
    assert_eq!(name(plain.bind(forward().gate(x.binding()))), "gate");
    assert_eq!(name(gated.bind(forward())), "gate");
    assert_eq!(name(plain.bind(forward().out(x.binding()))), "out");
    let (plain, gated) = (plain.backward().unwrap(), gated.backward().unwrap());
    let backward = || ActivationGradBuffers::new(x.binding(), out.binding()).dx(dx.binding());
    assert_eq!(name(plain.bind(backward().dout(short.binding()))), "dout");
    assert_eq!(name(plain.bind(backward().dgate(out.binding()))), "dgate");
    assert_eq!(name(gated.bind(backward())), "gate");
    assert_eq!(name(plain.bind(backward().dx(x.binding()))), "dx");
    let empty = kernels().activation(&ActivationShape::new(0, Activation::Silu)).unwrap();
    assert_eq!(empty.bind(forward()).unwrap().dispatches(), 0);
    assert_eq!(empty.backward().unwrap().bind(backward()).unwrap().dispatches(), 0);
}

#[test]
fn slices() {
    let shape = ActivationShape::new(3, Activation::Relu).gated(true);
    let (x, gate) = ([2.0f32, -2.0, 1.0], [3.0f32, 5.0, 7.0]);
    let out: Vec<f32> = gpu().activation(&shape, &x, Some(&gate)).unwrap();
    assert_eq!(out, [6.0, 0.0, 7.0]);
    let gradients = gpu().activation_backward(&shape, &x, Some(&gate), &[1.0f32, 1.0, 2.0]).unwrap();
    assert_eq!(gradients.dx, [3.0, 0.0, 14.0]);
    assert_eq!(gradients.dgate, Some(vec![2.0, 0.0, 2.0]));
    let error = gpu().activation_backward(&shape, &x, None, &[1.0f32; 3]).unwrap_err();
    assert!(error.to_string().starts_with("gate: need a tensor"), "{error}");
    let none =
        gpu().activation_backward::<f32, f32>(&ActivationShape::new(0, Activation::Relu), &[], None, &[]);
    assert!(none.unwrap().dx.is_empty());
}
