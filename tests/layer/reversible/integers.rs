//! Branches of integers, F(x) = x W: every sum is exact, so every bit is known, and a twin on the host says which.

use super::{Stack, read, run};
use crate::Checked;
use crate::harness::{gpu, kernels};
use wgpu_attention::{
    AddShape, Branch, BranchPlan, BranchPort, Kernels, MatmulBuffers, MatmulGradBuffers, MatmulShape,
    ParameterLayout,
};

const ROWS: usize = 5;
const WIDTH: usize = 6;
const DEPTH: usize = 4;

/// -1, 0 and 1, of which a row has few.
fn weight(layer: usize, side: usize, at: usize) -> i64 {
    match (at * 7 + layer * 5 + side * 11 + at / WIDTH * 3) % 9 {
        0 => 1,
        4 => -1,
        _ => 0,
    }
}

fn small(seed: usize) -> Vec<i64> {
    (0..ROWS * WIDTH).map(|n| (n * 5 + n / 4 * 3 + seed * 7) as i64 % 5 - 2).collect()
}

fn floats(values: &[i64]) -> Vec<f32> {
    values.iter().map(|&x| x as f32).collect()
}

/// `a` `[rows, inner]` times `b` `[inner, columns]`.
fn product(a: &[i64], b: &[i64], [rows, inner, columns]: [usize; 3]) -> Vec<i64> {
    let at = |n: usize| (0..inner).map(|k| a[n / columns * inner + k] * b[k * columns + n % columns]).sum();
    (0..rows * columns).map(at).collect()
}

fn transposed(a: &[i64], [rows, columns]: [usize; 2]) -> Vec<i64> {
    (0..rows * columns).map(|n| a[n % rows * columns + n / rows]).collect()
}

fn plus(a: &[i64], b: &[i64]) -> Vec<i64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

/// What the stack must hold.
struct Twin {
    /// The streams before each layer, and at last those behind all.
    streams: Vec<[Vec<i64>; 2]>,
    dx: [Vec<i64>; 2],
    /// Of each layer's W.
    gradients: Vec<[Vec<i64>; 2]>,
}

fn weights(layer: usize, side: usize) -> Vec<i64> {
    (0..WIDTH * WIDTH).map(|at| weight(layer, side, at)).collect()
}

impl Twin {
    fn new() -> Self {
        let square = [ROWS, WIDTH, WIDTH];
        let mut streams = vec![[small(1), small(2)]];
        for layer in 0..DEPTH {
            let [x1, x2] = streams[layer].clone();
            let y1 = plus(&x1, &product(&x2, &weights(layer, 0), square));
            let y2 = plus(&x2, &product(&y1, &weights(layer, 1), square));
            streams.push([y1, y2]);
        }
        let (mut dx, mut gradients) = ([small(3), small(4)], vec![]);
        for layer in (0..DEPTH).rev() {
            // The activations are those that forward had: no inverse here.
            let ([y1, _], [_, x2]) = (&streams[layer + 1], &streams[layer]);
            let back =
                |dy: &[i64], side| product(dy, &transposed(&weights(layer, side), [WIDTH, WIDTH]), square);
            let of = |x: &[i64], dy: &[i64]| product(&transposed(x, [ROWS, WIDTH]), dy, [WIDTH, ROWS, WIDTH]);
            let [dy1, dy2] = dx;
            let of_g = of(y1, &dy2);
            let dx1 = plus(&dy1, &back(&dy2, 1));
            let of_f = of(x2, &dx1);
            let dx2 = plus(&dy2, &back(&dx1, 0));
            gradients.insert(0, [of_f, of_g]);
            dx = [dx1, dx2];
        }
        Self { streams, dx, gradients }
    }
}

fn linear(kernels: &Kernels, port: &BranchPort) -> BranchPlan {
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let product = kernels.matmul(&MatmulShape::new(ROWS, WIDTH, WIDTH)).unwrap();
    let layout = ParameterLayout::new(&[("weight", WIDTH * WIDTH)], &[]);
    let bind = |tensors: &wgpu_attention::BranchTensors| {
        let [x, y, dy, dx] = [&port.x, &port.y, &port.dy, &port.dx].map(whole);
        let (weight, dweight) = (tensors.parameter("weight")?, tensors.gradient("weight")?);
        let forward = product.bind(MatmulBuffers::new(x.clone(), weight.clone(), y))?;
        let gradients = MatmulGradBuffers::new(x, weight, dy).da(dx).db(dweight);
        Ok([vec![forward], vec![product.backward()?.bind(gradients)?]])
    };
    BranchPlan::new(kernels, port, layout, bind).unwrap()
}

fn stack(kernels: &Kernels) -> Stack {
    let stack = kernels.reversible(ROWS, WIDTH).unwrap();
    let plans = [linear(kernels, &stack.f()), linear(kernels, &stack.g())];
    Stack::new(gpu(), stack, plans, DEPTH, |layer, side, layout| {
        let mut all = floats(&weights(layer, side));
        all.resize(layout.len(), 0.0);
        all
    })
}

/// The two directions of a stack.
type Passes<'a> = [&'a dyn Fn(&Stack, &mut wgpu::CommandEncoder); 2];

/// Both passes against the twin: the output, the input again, the gradients by it and by every weight, bit for bit.
fn judged(s: &Stack, [forward, backward]: Passes<'_>) -> Checked {
    let twin = Twin::new();
    let [input, output] = [&twin.streams[0], &twin.streams[DEPTH]];
    let dy = [floats(&small(3)), floats(&small(4))];
    let same = |what: &str, got: &[f32], want: &[i64]| match got == floats(want) {
        true => Ok(()),
        false => Err(format!("{what}: {got:?} instead of {want:?}")),
    };
    s.start(gpu(), [&floats(&input[0]), &floats(&input[1])], [&dy[0], &dy[1]]);
    run(gpu(), |encoder| forward(s, encoder));
    let [y1, y2, ..] = s.streams(gpu());
    same("y1", &y1, &output[0])?;
    same("y2", &y2, &output[1])?;
    run(gpu(), |encoder| backward(s, encoder));
    let [x1, x2, dx1, dx2] = s.streams(gpu());
    same("x1", &x1, &input[0])?;
    same("x2", &x2, &input[1])?;
    same("dx1", &dx1, &twin.dx[0])?;
    same("dx2", &dx2, &twin.dx[1])?;
    for (layer, (got, want)) in s.gradients(gpu()).iter().zip(&twin.gradients).enumerate() {
        for side in 0..2 {
            same(&format!("layer {layer}, side {side}"), &got[side][..WIDTH * WIDTH], &want[side])?;
        }
    }
    Ok(())
}

/// The stack's own passes.
const STACKS: Passes<'static> =
    [&|s, encoder| s.stack.forward(encoder), &|s, encoder| s.stack.backward(encoder)];

/// A selection for the mutants.
pub(crate) fn selection(kernels: &Kernels) -> Checked {
    judged(&stack(kernels), STACKS)
}

#[test]
fn every_bit_is_that_of_the_twin() {
    selection(kernels()).unwrap();
    // All in one encoder, and again: nothing is left over.
    let s = stack(kernels());
    let [forward, backward] = STACKS;
    let both: Passes<'_> = [forward, &|s, encoder| {
        backward(s, encoder);
        s.stack.forward(encoder);
        s.stack.inverse(encoder);
    }];
    judged(&s, both).unwrap();
    judged(&s, STACKS).unwrap();
}

/// What a pass can get wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// G's output is added once more instead of taken back.
    SignOfG,
    SignOfF,
    /// The inverse takes F back before G.
    Order,
    /// What G passes back to the first stream is not added.
    FirstGradientLost,
    SecondGradientLost,
    GradientTwice,
    /// F's gradients are taken of the sum that its output was added to.
    GradientsOfWrongStream,
    /// F's gradients do not have what G passed back.
    GradientTooEarly,
    /// One layer is left out.
    LayerLost,
}

/// The calls between the branches, as the stack has them.
struct ByHand {
    calls: [[wgpu_attention::Call; 2]; 3],
}

impl ByHand {
    fn new(s: &Stack) -> Self {
        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let buffers = s.stack.buffers();
        let shape = AddShape::new(ROWS, WIDTH).in_place(true);
        let bound = |shape: AddShape, streams: [&wgpu::Buffer; 2], other| {
            streams.map(|x| kernels().add(&shape).unwrap().bind_in_place(whole(x), whole(other)).unwrap())
        };
        let streams = [&buffers.x1, &buffers.x2];
        let add = bound(shape, streams, &buffers.y);
        let subtract = bound(shape.subtract(true), streams, &buffers.y);
        let gradient = bound(shape, [&buffers.dx1, &buffers.dx2], &buffers.dx);
        Self { calls: [add, subtract, gradient] }
    }

    fn backward(&self, s: &Stack, encoder: &mut wgpu::CommandEncoder, fault: Fault) {
        let [add, subtract, gradient] = &self.calls;
        let taken = |sign: Fault| if fault == sign { add } else { subtract };
        for (layer, [f, g]) in s.layers.iter().enumerate().rev() {
            if fault == Fault::LayerLost && layer == 1 {
                continue;
            }
            if fault == Fault::Order {
                f.forward(encoder);
                subtract[0].encode(encoder);
            }
            g.forward(encoder);
            taken(Fault::SignOfG)[1].encode(encoder);
            g.backward(encoder);
            if !matches!(fault, Fault::FirstGradientLost | Fault::GradientTooEarly) {
                gradient[0].encode(encoder);
            }
            if fault == Fault::GradientTwice {
                gradient[0].encode(encoder);
            }
            if fault != Fault::Order {
                f.forward(encoder);
                taken(Fault::SignOfF)[0].encode(encoder);
            }
            if fault == Fault::GradientsOfWrongStream {
                g.forward(encoder);
                g.backward(encoder);
            } else {
                f.backward(encoder);
            }
            if fault != Fault::SecondGradientLost {
                gradient[1].encode(encoder);
            }
        }
    }
}

#[test]
fn faults_in_what_is_recorded_are_found() {
    let s = stack(kernels());
    let by_hand = ByHand::new(&s);
    let check = |fault| judged(&s, [STACKS[0], &|s, encoder| by_hand.backward(s, encoder, fault)]);
    check(Fault::None).unwrap();
    for fault in [
        Fault::SignOfG,
        Fault::SignOfF,
        Fault::Order,
        Fault::FirstGradientLost,
        Fault::SecondGradientLost,
        Fault::GradientTwice,
        Fault::GradientsOfWrongStream,
        Fault::GradientTooEarly,
        Fault::LayerLost,
    ] {
        assert!(check(fault).is_err(), "{fault:?} goes unseen");
    }
    // F and G exchanged, both ways: an inverse of something else.
    let exchanged = |s: &Stack, encoder: &mut wgpu::CommandEncoder| {
        for [f, g] in &s.layers {
            g.forward(encoder);
            by_hand.calls[0][1].encode(encoder);
            f.forward(encoder);
            by_hand.calls[0][0].encode(encoder);
        }
    };
    assert!(judged(&s, [&exchanged, STACKS[1]]).is_err());
}

#[test]
fn parameters_are_left_as_they_are() {
    let s = stack(kernels());
    let before: Vec<_> = s.layers.iter().flatten().map(|branch| branch.parameters()).collect();
    let values = read(gpu(), &before);
    judged(&s, STACKS).unwrap();
    assert_eq!(read(gpu(), &before), values);
    assert_eq!(s.plans[0].layout().len(), 64);
}
