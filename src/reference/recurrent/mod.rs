//! Recurrent networks by their definition, step after step in f64, and how far a kernel may be from it.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | layers and directions; the products of a step |
//! | `cells.rs` | what a unit makes of them |
//!
//! The bound is carried along, element by element. With dh and dc what h and c of the step before may be off by, da what the input products may
//! (`reference/layer/matmul.rs`), and K = H terms,
//!
//! ```text
//! |u' - u|  <=  sum |W| dh  +  gamma_{K+2} ( sum |W| (|h| + dh) + |b| )  +  flushes            u = W_hh h + b_hh
//! |f(x') - f(x)|  <=  min( dx max |f'| over [x - dx, x + dx], 2 )  +  what exp or tanh of the device are off by at x
//! ```
//!
//! and every other operation adds its rounding (`reference/layer/running.rs`). Gates that are saturated pass hardly any error on: |f'| is taken where they
//! are. Those that are not let it grow, by up to `max |f'| sum |W|` in each step: with wide layers and many steps, a bound on the whole sequence says little
//! ([`docs/BOUNDS.md`](https://docs.rs/crate/wgpu-attention/latest/source/docs/BOUNDS.md)). [`recurrent_steps`] therefore takes each step from the h that
//! the kernel itself left, so that the bound is that of one step, and of c, which a forget gate keeps from growing.

mod cells;

use super::layer::running::Running;
use super::layer::{Bounded, MatmulInputs, matmul};
use super::rounding::{TINY, gamma};
use crate::recurrent::{RecurrentInputs, RecurrentShape, RecurrentWeights};
use crate::{Element, Error, MatmulShape, Result, WeightOrder};
use cells::next;
use rayon::prelude::*;

/// What a recurrent network gives, with its bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct RecurrentBounded {
    /// h after every step, `[B, T, D H]`, or `[T, B, D H]`.
    pub out: Bounded,
    /// h after the last one, `[layers D, B, H]`.
    pub h_n: Bounded,
    /// c after the last one; empty where the cell has none.
    pub c_n: Bounded,
}

/// A recurrent network in f64, with the bound on a kernel's error through all of its steps.
///
/// # Errors
/// As [`RecurrentShape::check`] and [`RecurrentInputs::check`], and [`Error::Argument`] for another element type than the shape says.
///
/// ```
/// use wgpu_attention::{RecurrentCell, RecurrentInputs, RecurrentShape, RecurrentWeights, reference};
/// // One unit that adds up what it is given.
/// let shape = RecurrentShape::new(RecurrentCell::RnnRelu, 1, 3, 1, 1).bias(false);
/// let weights = [RecurrentWeights::new(&[1.0f32], &[1.0])];
/// let y = reference::recurrent(&shape, &RecurrentInputs::new(&[1.0, 2.0, 3.0], &weights))?;
/// assert_eq!((y.out.out, y.h_n.out), (vec![1.0, 3.0, 6.0], vec![6.0]));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn recurrent<W: Element>(
    shape: &RecurrentShape,
    inputs: &RecurrentInputs<'_, W>,
) -> Result<RecurrentBounded> {
    network(shape, inputs, None)
}

/// The same network of one layer, each step from the h that a kernel's `out` has for the step before: what that kernel should have made of its own states.
///
/// # Errors
/// As [`recurrent`], and [`Error::Argument`] for several layers, between which a kernel's states are not seen, and for an `out` of the wrong length.
pub fn recurrent_steps<W: Element>(
    shape: &RecurrentShape,
    inputs: &RecurrentInputs<'_, W>,
    out: &[f32],
) -> Result<RecurrentBounded> {
    if shape.layers != 1 {
        return Err(Error::argument("layers", "1: the states between layers are not seen", shape.layers));
    }
    if out.len() != shape.len_out() {
        return Err(Error::argument("out", format!("{} elements", shape.len_out()), out.len()));
    }
    network(shape, inputs, Some(out))
}

fn network<W: Element>(
    shape: &RecurrentShape,
    inputs: &RecurrentInputs<'_, W>,
    given: Option<&[f32]>,
) -> Result<RecurrentBounded> {
    shape.check()?;
    super::call::check_type::<W>("weights", shape.weight)?;
    inputs.check(shape)?;
    let (mut h_n, mut c_n) = (Bounded::default(), Bounded::default());
    let mut x = Bounded::exact(inputs.x);
    for layer in 0..shape.layers {
        let empty = || vec![0.0; shape.len_out()];
        let mut out = Bounded { out: empty(), bound: empty() };
        for direction in 0..shape.directions() {
            let pass = Pass::new(shape, inputs, layer, direction, &x, given)?;
            let items: Vec<_> = (0..shape.batch).into_par_iter().map(|item| pass.item(item)).collect();
            for (item, states) in items.iter().enumerate() {
                pass.leave(item, &states.h, &mut out);
                append(&mut h_n, states.h.last().map_or(&[], Vec::as_slice));
                append(&mut c_n, if shape.cell.has_c() { &states.c } else { &[] });
            }
        }
        x = out;
    }
    Ok(RecurrentBounded { out: x, h_n, c_n })
}

fn append(to: &mut Bounded, values: &[Running]) {
    to.out.extend(values.iter().map(|x| x.value));
    to.bound.extend(values.iter().map(|x| x.error));
}

/// A layer in one direction.
struct Pass<'a> {
    shape: &'a RecurrentShape,
    direction: usize,
    /// `[gates H, H]`.
    weights: Vec<f64>,
    biases: Option<Vec<f64>>,
    /// W_ih x + b_ih of every position.
    products: Bounded,
    /// h0 and c0 of this part, `[B, H]`.
    initial: [Option<&'a [f32]>; 2],
    given: Option<&'a [f32]>,
}

/// h after every step, in the order of the steps; c after the last.
struct States {
    h: Vec<Vec<Running>>,
    c: Vec<Running>,
}

impl<'a> Pass<'a> {
    fn new<W: Element>(
        shape: &'a RecurrentShape,
        inputs: &RecurrentInputs<'a, W>,
        layer: usize,
        direction: usize,
        x: &Bounded,
        given: Option<&'a [f32]>,
    ) -> Result<Self> {
        let number = layer * shape.directions() + direction;
        let part: &RecurrentWeights<'_, W> = &inputs.weights[number];
        let exact = |values: &[W]| Bounded::exact(&W::widened(values));
        let product = MatmulShape::new(shape.batch * shape.steps, shape.input_of(layer), shape.rows())
            .weights(WeightOrder::OutIn)
            .bias(shape.bias);
        let bias = part.bias_ih.map(exact);
        let tensors = MatmulInputs { a: x, b: &exact(part.weight_ih), bias: bias.as_ref(), other: None };
        let len = shape.batch * shape.hidden;
        let of_part = |all: &'a [f32]| &all[number * len..][..len];
        Ok(Self {
            shape,
            direction,
            weights: exact(part.weight_hh).out,
            biases: part.bias_hh.map(|bias| exact(bias).out),
            products: matmul(&product, &tensors)?,
            initial: [inputs.h0.map(of_part), inputs.c0.map(of_part)],
            given,
        })
    }

    /// The position of a step.
    fn position(&self, step: usize) -> usize {
        if self.direction == 0 { step } else { self.shape.steps - 1 - step }
    }

    /// The row of x, and of out, of an item at a position.
    fn row(&self, item: usize, position: usize) -> usize {
        match self.shape.steps_first {
            true => position * self.shape.batch + item,
            false => item * self.shape.steps + position,
        }
    }

    /// Where the h of a step is in out.
    fn out_at(&self, item: usize, step: usize) -> usize {
        self.row(item, self.position(step)) * self.shape.width() + self.direction * self.shape.hidden
    }

    /// All steps of an item.
    fn item(&self, item: usize) -> States {
        let hidden = self.shape.hidden;
        let before = |tensor: Option<&[f32]>| match tensor {
            Some(all) => all[item * hidden..][..hidden].iter().map(|&x| Running::exact(x)).collect(),
            None => vec![Running::exact(0.0); hidden],
        };
        let [h0, mut c] = self.initial.map(before);
        let mut h: Vec<Vec<Running>> = vec![];
        for step in 0..self.shape.steps {
            let before = match (h.last(), self.given) {
                (None, _) => h0.clone(),
                (Some(_), Some(out)) => {
                    let row = &out[self.out_at(item, step - 1)..][..hidden];
                    row.iter().map(|&x| Running::exact(x)).collect()
                }
                (Some(last), None) => last.clone(),
            };
            let row = self.row(item, self.position(step)) * self.shape.rows();
            let unit = |unit: usize| self.unit(row, unit, &before, c[unit]);
            let (now, kept): (Vec<_>, Vec<_>) = (0..hidden).map(unit).unzip();
            h.push(now);
            c = kept;
        }
        States { h, c }
    }

    /// h and c of a unit after a step whose products begin at `row`.
    fn unit(&self, row: usize, unit: usize, h: &[Running], c: Running) -> (Running, Running) {
        let at = |gate: usize| gate * self.shape.hidden + unit;
        let gates = 0..self.shape.cell.gates();
        let inputs: Vec<_> = gates.clone().map(|gate| of(&self.products, row + at(gate))).collect();
        let own: Vec<_> = gates.map(|gate| self.product(at(gate), h)).collect();
        next(self.shape.cell, &inputs, &own, h[unit], c)
    }

    /// A row of W_hh h + b_hh.
    fn product(&self, row: usize, h: &[Running]) -> Running {
        let w = &self.weights[row * h.len()..][..h.len()];
        let bias = self.biases.as_ref().map_or(0.0, |biases| biases[row]);
        let (mut sum, mut condition, mut passed, mut largest) = (bias, bias.abs(), 0.0, 1.0f64);
        for (w, h) in w.iter().zip(h) {
            sum += w * h.value;
            condition += w.abs() * (h.value.abs() + h.error);
            passed += w.abs() * h.error;
            largest = largest.max(w.abs()).max(h.value.abs() + h.error);
        }
        let terms = h.len() + 2;
        let error = passed + gamma(terms) * condition + 2.0 * TINY * terms as f64 * largest;
        Running::new(sum, error, 0.0)
    }

    /// Writes the states of an item to where they lie in out.
    fn leave(&self, item: usize, h: &[Vec<Running>], out: &mut Bounded) {
        for (step, states) in h.iter().enumerate() {
            let at = self.out_at(item, step);
            for (unit, state) in states.iter().enumerate() {
                (out.out[at + unit], out.bound[at + unit]) = (state.value, state.error);
            }
        }
    }
}

/// An element of a tensor.
fn of(tensor: &Bounded, at: usize) -> Running {
    Running { value: tensor.out[at], error: tensor.bound[at] }
}
