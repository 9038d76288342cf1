//! The reference's gradients against finite differences of the reference, and its inverse against its input, in f64: no device.

use super::{WIDTH, drawn, f_shape, g_shape, norm};
use crate::harness::normal;
use wgpu_attention::reference::layer::Bounded;
use wgpu_attention::reference::reversible::{FeedForward, Layer, backward, forward, inverse};
use wgpu_attention::{ElementType::F32, FeedForwardShape, NormShape, ParameterLayout};

/// Few rows, so that every element can be moved.
const ROWS: usize = 3;

type Parameters = Vec<(&'static str, Vec<f64>)>;

fn parameters(side: usize, shape: &FeedForwardShape) -> Parameters {
    let (model, hidden, weights) = (shape.model_dim, shape.hidden_dim, shape.len_weight());
    let mut sizes = vec![("norm_weight", model), ("norm_bias", model), ("w1", weights), ("w2", weights)];
    sizes.extend(shape.bias.then_some([("b1", hidden), ("b2", model)]).into_iter().flatten());
    sizes.extend(shape.gated.then_some(("w3", weights)));
    let layout = ParameterLayout::new(&sizes, &[]);
    let all = drawn(1.0, WIDTH)(0, side, &layout);
    let of = |&(name, _): &(&'static str, usize)| {
        (name, layout.take(name, &all).unwrap().iter().map(|&x| f64::from(x)).collect())
    };
    sizes.iter().map(of).collect()
}

fn rows(mut shape: FeedForwardShape) -> (NormShape, FeedForwardShape) {
    shape.rows = ROWS;
    (norm(ROWS), shape)
}

struct Case {
    sides: [(NormShape, FeedForwardShape); 2],
    parameters: [Parameters; 2],
    x: [Vec<f64>; 2],
    dy: [Vec<f64>; 2],
}

impl Case {
    fn new() -> Self {
        let draw = |stream| normal(44, stream, ROWS * WIDTH, F32);
        Self {
            sides: [rows(f_shape()), rows(g_shape())],
            parameters: [parameters(0, &f_shape()), parameters(1, &g_shape())],
            x: [draw(0), draw(1)],
            dy: [draw(2), draw(3)],
        }
    }

    fn with<T>(&self, use_layer: impl FnOnce(Layer<'_>) -> T) -> T {
        let [f, g] = [0, 1].map(|side| {
            let (norm, shape) = self.sides[side];
            FeedForward::new(norm, shape, &self.parameters[side])
        });
        use_layer([&f, &g])
    }

    fn y(&self) -> [Bounded; 2] {
        let x = self.x.each_ref().map(|x| Bounded::exact(x));
        self.with(|layer| forward(layer, x.each_ref()).unwrap())
    }

    fn loss(&self) -> f64 {
        let side = |(y, dy): (&Bounded, &Vec<f64>)| y.out.iter().zip(dy).map(|(y, dy)| y * dy).sum::<f64>();
        self.y().iter().zip(&self.dy).map(side).sum()
    }
}

/// Some elements of a tensor moved to and fro, against the gradient.
fn close(name: &str, case: &mut Case, of: impl Fn(&mut Case) -> &mut Vec<f64>, got: &Bounded) {
    let (len, step) = (of(case).len(), 1e-5);
    assert_eq!(got.out.len(), len, "{name}");
    for n in (0..len).step_by(len.div_ceil(12)) {
        let mut moved = |by: f64| {
            of(case)[n] += by;
            let loss = case.loss();
            of(case)[n] -= by;
            loss
        };
        let want = (moved(step) - moved(-step)) / (2.0 * step);
        assert!((got.out[n] - want).abs() < 1e-7 * (1.0 + want.abs()), "{name}[{n}]: {} {want}", got.out[n]);
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let mut case = Case::new();
    let y = case.y();
    let dy = case.dy.each_ref().map(|dy| Bounded::exact(dy));
    let got = case.with(|layer| backward(layer, y.each_ref(), dy.each_ref()).unwrap());
    for side in 0..2 {
        close("dx", &mut case, |case| &mut case.x[side], &got.dx[side]);
        let names = case.parameters[side].len();
        assert_eq!(got.parameters[side].len(), names);
        for n in 0..names {
            let name = case.parameters[side][n].0;
            let gradient = got.parameters[side].iter().find(|it| it.0 == name).expect(name);
            close(name, &mut case, |case| &mut case.parameters[side][n].1, &gradient.1);
        }
    }
}

#[test]
fn the_inverse_finds_the_input() {
    let case = Case::new();
    let y = case.y();
    let x = case.with(|layer| inverse(layer, y.each_ref()).unwrap());
    let z = case.with(|layer| inverse([layer[1], layer[0]], y.each_ref()).unwrap());
    for side in 0..2 {
        for (got, want) in x[side].out.iter().zip(&case.x[side]) {
            assert!((got - want).abs() < 1e-12, "{got} instead of {want}");
        }
        assert_ne!(x[side].out, z[side].out, "F and G are told apart");
    }
}
