//! Each layer against f64 from the streams as the device stored them, and the bits of gradients against a stack that keeps its
//! activations. The error over a whole depth is printed, never judged: it has no bound worth the name.

use super::{Kind, LEN, Stack, WIDTH, f_shape, g_shape, norm, run, single, stack_of};
use crate::harness::gpu;
use crate::rows::judged;
use wgpu_attention::reference::layer::Bounded;
use wgpu_attention::reference::reversible::{self as reference, FeedForward};
use wgpu_attention::{Branch, FeedForwardShape, LayerBranch};

const ROWS: usize = LEN * WIDTH;

/// The streams and their gradients, between layers.
type Between = [Vec<f32>; 4];

fn start(s: &Stack) {
    let [x1, x2, dy1, dy2] = [1, 2, 3, 4].map(|seed| single(seed, ROWS));
    s.start(gpu(), [&x1, &x2], [&dy1, &dy2]);
}

/// What lies between the layers, from the input to the output.
fn forward(s: &Stack) -> Vec<Between> {
    let mut all = vec![s.streams(gpu())];
    for layer in 0..s.stack.len() {
        run(gpu(), |encoder| s.stack.forward_layer(encoder, layer));
        all.push(s.streams(gpu()));
    }
    all
}

/// The same, backwards: from the output to the input.
fn backward(s: &Stack) -> Vec<Between> {
    let mut all = vec![s.streams(gpu())];
    for layer in (0..s.stack.len()).rev() {
        run(gpu(), |encoder| s.stack.backward_layer(encoder, layer));
        all.push(s.streams(gpu()));
    }
    all
}

/// The twin of a branch, with the parameters that the device has.
fn twin(branch: &LayerBranch, shape: FeedForwardShape) -> FeedForward {
    let all = super::read(gpu(), &[branch.parameters()]).remove(0);
    let layout = branch.plan().layout();
    let parameters = layout.parameters().iter();
    let parameters =
        parameters.map(|it| (it.name, layout.take(it.name, &all[..layout.len()]).unwrap().to_vec()));
    FeedForward::new(norm(LEN), shape, &parameters.collect::<Vec<_>>())
}

#[test]
fn each_layer_is_within_the_bound() {
    let s = stack_of(gpu(), Kind::FeedForward, 3, 1.0);
    start(&s);
    let up = forward(&s);
    let down = backward(&s);
    let gradients = s.gradients(gpu());
    let mut worst = [0f64; 3];
    let mut check = |n: usize, expected: &Bounded, got: &[f32], case: &str| {
        let ratio = judged(expected.compare(got.iter().copied(), 0.0), &case).unwrap();
        worst[n] = worst[n].max(ratio);
    };
    for (layer, [f, g]) in s.layers.iter().enumerate() {
        let [f_twin, g_twin] = [twin(f, f_shape()), twin(g, g_shape())];
        let exact = |between: &Between| between.each_ref().map(|values| Bounded::exact(values));
        let [x1, x2, ..] = exact(&up[layer]);
        let y = reference::forward([&f_twin, &g_twin], [&x1, &x2]).unwrap();
        check(0, &y[0], &up[layer + 1][0], "y1");
        check(0, &y[1], &up[layer + 1][1], "y2");
        // Backwards from what the device has there.
        let from = s.stack.len() - 1 - layer;
        let ([y1, y2, dy1, dy2], got) = (exact(&down[from]), &down[from + 1]);
        let want = reference::backward([&f_twin, &g_twin], [&y1, &y2], [&dy1, &dy2]).unwrap();
        for side in 0..2 {
            check(1, &want.x[side], &got[side], "x");
            check(2, &want.dx[side], &got[2 + side], "dx");
            let layout = s.plans[side].layout();
            let all = &gradients[layer][side][..layout.len()];
            assert_eq!(want.parameters[side].len(), layout.parameters().len());
            for (name, expected) in &want.parameters[side] {
                check(2, expected, layout.take(name, all).unwrap(), name);
            }
        }
    }
    println!(
        "reversible layer: worst error/bound {:.3} forward, {:.3} inverse, {:.3} gradients",
        worst[0], worst[1], worst[2]
    );
}

/// The last layer's G sees the bits that it saw: only the sum is rounded, and its difference.
#[test]
fn the_last_second_stream_misses_two_roundings() {
    for kind in [Kind::FeedForward, Kind::Causal, Kind::Lsh] {
        let s = stack_of(gpu(), kind, 2, 1.0);
        start(&s);
        let (up, down) = (forward(&s), backward(&s));
        let u = f64::from(f32::EPSILON);
        for n in 0..ROWS {
            let [x, y, again] = [up[1][1][n], up[2][1][n], down[1][1][n]].map(f64::from);
            let bound = u * (y.abs() + x.abs()) * 1.000_001;
            assert!((again - x).abs() <= bound, "{kind:?} {n}: {again} instead of {x}, bound {bound:e}");
        }
    }
}

/// What a stack gives that keeps these activations, x1 and x2 before each layer and y1 behind it: nothing is inverted.
fn kept(s: &Stack, dy: &Between, activations: &[Between]) -> (Between, Vec<[Vec<f32>; 2]>) {
    let buffers = s.stack.buffers();
    let [_, _, dy1, dy2] = dy;
    s.start(gpu(), [&dy[0], &dy[1]], [dy1, dy2]);
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let shape = wgpu_attention::AddShape::new(LEN, WIDTH).in_place(true);
    let plan = gpu().kernels().add(&shape).unwrap();
    let [by_x1, by_x2] =
        [&buffers.dx1, &buffers.dx2].map(|dx| plan.bind_in_place(whole(dx), whole(&buffers.dx)).unwrap());
    for (layer, [f, g]) in s.layers.iter().enumerate().rev() {
        super::write(gpu(), &buffers.x1, &activations[layer + 1][0]);
        super::write(gpu(), &buffers.x2, &activations[layer][1]);
        run(gpu(), |encoder| {
            g.forward(encoder);
            g.backward(encoder);
            by_x1.encode(encoder);
            f.forward(encoder);
            f.backward(encoder);
            by_x2.encode(encoder);
        });
    }
    (s.streams(gpu()), s.gradients(gpu()))
}

/// The largest difference, beside the largest value.
fn apart(got: &[f32], want: &[f32]) -> f64 {
    let largest = want.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    let apart = got.iter().zip(want).fold(0f32, |apart, (a, b)| apart.max((a - b).abs()));
    f64::from(apart / largest)
}

#[test]
fn gradients_are_those_of_a_stack_that_keeps_its_activations() {
    for kind in [Kind::FeedForward, Kind::Causal, Kind::Lsh] {
        let s = stack_of(gpu(), kind, 4, 1.0);
        start(&s);
        let up = forward(&s);
        let mut found = backward(&s);
        let (last, gradients) = (found.last().unwrap().clone(), s.gradients(gpu()));
        // All in one encoder: the same.
        s.start(gpu(), [&up[4][0], &up[4][1]], [&up[4][2], &up[4][3]]);
        run(gpu(), |encoder| s.stack.backward(encoder));
        assert_eq!((s.streams(gpu()), s.gradients(gpu())), (last.clone(), gradients.clone()), "{kind:?}");

        // Kept are the activations that the inverse found: every bit is the same.
        found.reverse();
        let (by_input, by_parameters) = kept(&s, &up[4], &found);
        assert_eq!(by_input[2..], last[2..], "{kind:?}: by the input");
        for (layer, (got, want)) in gradients.iter().zip(&by_parameters).enumerate() {
            for side in 0..2 {
                let layout = s.plans[side].layout();
                for it in layout.parameters().iter().filter(|it| !it.constant) {
                    assert_eq!(
                        got[side][it.range.clone()],
                        want[side][it.range.clone()],
                        "{kind:?} {layer} {}",
                        it.name
                    );
                    assert!(want[side][it.range.clone()].iter().any(|&x| x != 0.0), "{}", it.name);
                }
            }
        }
        // Kept are those that the forward pass had: what the inverse's error does.
        let (by_input, _) = kept(&s, &up[4], &up);
        let [x, dx] = [(&last[0], &up[0][0]), (&last[2], &by_input[2])].map(|(got, want)| apart(got, want));
        println!("reversible, {kind:?}, 4 layers: x1 off by {x:.1e} of the largest, dx1 by {dx:.1e}");
        // A wrong inverse is off by the size of the values. A place that changed its bucket may change a gradient by a share of it.
        assert!(x < 1e-4 && (kind == Kind::Lsh || dx < 1e-3), "{kind:?}: {x} {dx}");
    }
}

#[test]
fn an_inverse_gives_what_backward_finds() {
    let s = stack_of(gpu(), Kind::Causal, 3, 1.0);
    start(&s);
    let up = forward(&s);
    let down = backward(&s);
    s.start(gpu(), [&up[3][0], &up[3][1]], [&up[3][2], &up[3][3]]);
    run(gpu(), |encoder| s.stack.inverse(encoder));
    let [x1, x2, dx1, dx2] = s.streams(gpu());
    assert_eq!([&x1, &x2], [&down[3][0], &down[3][1]]);
    assert_eq!([&dx1, &dx2], [&up[3][2], &up[3][3]], "gradients are not touched");
}
