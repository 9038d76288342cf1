//! Gradients of the feed-forward layer.

use super::activation::sloped;
use super::sums::{Added, sums};
use crate::reference::layer::activation::{self as forward, times};
use crate::reference::layer::{Bounded, FeedForwardInputs, MatmulInputs, check_len, check_optional, matmul};
use crate::{Combine, ElementType, FeedForwardShape, MatmulShape, Result, WeightOrder};

/// What [`feed_forward_backward`] returns, each gradient in the order of its tensor.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FeedForwardBoundedGradients {
    /// The gradient by x `[rows, model_dim]`.
    pub dx: Bounded,
    /// The gradient by W1.
    pub dw1: Bounded,
    /// The gradient by b1 `[hidden_dim]`, where there is one.
    pub db1: Option<Bounded>,
    /// The gradient by W2.
    pub dw2: Bounded,
    /// The gradient by b2 `[model_dim]`, where there is one.
    pub db2: Option<Bounded>,
    /// The gradient by W3, where gated.
    pub dw3: Option<Bounded>,
    /// The gradient by b3 `[hidden_dim]`, where there is one.
    pub db3: Option<Bounded>,
}

/// The gradients of sum(dout y) of a [`FeedForwardShape`], by x, its weights and its biases. `b2` and the residual are not read.
///
/// With s = x W1 + b1, g = x W3 + b3 where gated, and dh = dout W2^T: h = act(s) g, ds = dh g act'(s), dg = dh act(s), and every
/// gradient of a weight a product of two of these. Hidden values are computed again in f32, whatever the shape's `hidden`. The bound is that of the kernels one after the other, with f32 between them; the sums over rows
/// have that of any order, and so of every chunk: in chunks of c, a term meets at most c + rows / c <= rows + 1 roundings.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) for a tensor that is too short, missing or not asked for, and as
/// [`FeedForwardShape::check`].
///
/// ```
/// use wgpu_attention::{Activation, FeedForwardShape};
/// use wgpu_attention::reference::layer::{Bounded, FeedForwardInputs, backward::feed_forward_backward};
/// let [x, w1, w2, dout] = [[2.0f32], [3.0], [5.0], [7.0]].map(|values| Bounded::exact(&values));
/// let none = None;
/// let inputs =
///     FeedForwardInputs { x: &x, w1: &w1, b1: none, w3: none, b3: none, w2: &w2, b2: none, residual: none };
/// let gradients = feed_forward_backward(&FeedForwardShape::new(1, 1, 1, Activation::Relu), &inputs, &dout)?;
/// assert_eq!((gradients.dx.out, gradients.dw1.out, gradients.dw2.out), (vec![105.0], vec![70.0], vec![42.0]));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn feed_forward_backward(
    shape: &FeedForwardShape,
    inputs: &FeedForwardInputs<'_>,
    dout: &Bounded,
) -> Result<FeedForwardBoundedGradients> {
    shape.check()?;
    check_len("x", inputs.x, shape.len_x())?;
    check_len("w2", inputs.w2, shape.len_weight())?;
    check_len("dout", dout, shape.len_x())?;
    check_optional("w3", inputs.w3, shape.gated, shape.len_weight())?;
    check_optional("b3", inputs.b3, shape.gated && shape.bias, shape.hidden_dim)?;
    let Hidden { h, ds, dg } = Hidden::new(shape, inputs, dout)?;
    let (model, hidden) = (shape.model_dim, shape.hidden_dim);
    let of_weight = |left, right, widths| weight(shape, left, right, widths);
    let of_bias = |x, width| shape.bias.then(|| columns(x, shape.rows, width));
    Ok(FeedForwardBoundedGradients {
        dx: of_x(shape, inputs, &ds, dg.as_ref()),
        dw1: of_weight(inputs.x, &ds, [model, hidden]),
        db1: of_bias(&ds, hidden),
        dw2: of_weight(&h, dout, [hidden, model]),
        db2: of_bias(dout, model),
        dw3: dg.as_ref().map(|dg| of_weight(inputs.x, dg, [model, hidden])),
        db3: dg.as_ref().and_then(|dg| of_bias(dg, hidden)),
    })
}

/// `[rows, hidden_dim]` each.
struct Hidden {
    h: Bounded,
    ds: Bounded,
    dg: Option<Bounded>,
}

impl Hidden {
    fn new(shape: &FeedForwardShape, inputs: &FeedForwardInputs<'_>, dout: &Bounded) -> Result<Self> {
        let product = MatmulShape {
            activation: None,
            combine: Combine::Store,
            ..shape.hidden(ElementType::F32).first(shape.rows, false)
        };
        let linear = |b, bias| matmul(&product, &MatmulInputs { a: inputs.x, b, bias, other: None });
        let s = linear(inputs.w1, inputs.b1)?;
        let g = inputs.w3.map(|w3| linear(w3, inputs.b3)).transpose()?;
        let (model, hidden) = (shape.model_dim, shape.hidden_dim);
        let dh = sums(shape.rows * hidden, Added(0), |n| {
            let (row, unit) = (n / hidden, n % hidden);
            (0..model).map(move |c| {
                [at(dout, row * model + c), at(inputs.w2, place(shape.weights, [hidden, model], unit, c))]
            })
        });
        let kind = shape.activation;
        let act = |n: usize| forward::of(kind, s.out[n], s.bound[n]);
        let of = |element: &dyn Fn(usize) -> (f64, f64)| {
            let (out, bound) = (0..s.out.len()).map(element).unzip();
            Bounded { out, bound }.stored(ElementType::F32)
        };
        let Some(g) = g else {
            return Ok(Self { h: of(&act), ds: of(&|n| sloped(kind, at(&s, n), at(&dh, n))), dg: None });
        };
        Ok(Self {
            h: of(&|n| times(act(n), at(&g, n))),
            ds: of(&|n| sloped(kind, at(&s, n), times(at(&dh, n), at(&g, n)))),
            dg: Some(of(&|n| times(at(&dh, n), act(n)))),
        })
    }
}

fn at(tensor: &Bounded, n: usize) -> (f64, f64) {
    (tensor.out[n], tensor.bound[n])
}

/// Where a weight of `widths` has an element.
fn place(order: WeightOrder, widths: [usize; 2], into: usize, out: usize) -> usize {
    match order {
        WeightOrder::InOut => into * widths[1] + out,
        WeightOrder::OutIn => out * widths[0] + into,
    }
}

/// left^T right over all rows, in the weights' order.
fn weight(shape: &FeedForwardShape, left: &Bounded, right: &Bounded, widths: [usize; 2]) -> Bounded {
    let [from, to] = widths;
    sums(from * to, Added(1), |n| {
        let (i, j) = match shape.weights {
            WeightOrder::InOut => (n / to, n % to),
            WeightOrder::OutIn => (n % from, n / from),
        };
        (0..shape.rows).map(move |row| [at(left, row * from + i), at(right, row * to + j)])
    })
}

fn columns(x: &Bounded, rows: usize, width: usize) -> Bounded {
    sums(width, Added(1), |column| (0..rows).map(move |row| [at(x, row * width + column), (1.0, 0.0)]))
}

/// ds W1^T + dg W3^T.
fn of_x(
    shape: &FeedForwardShape,
    inputs: &FeedForwardInputs<'_>,
    ds: &Bounded,
    dg: Option<&Bounded>,
) -> Bounded {
    let (model, hidden) = (shape.model_dim, shape.hidden_dim);
    sums(shape.len_x(), Added(1), |n| {
        let (row, c) = (n / model, n % model);
        let term = move |d: &Bounded, w: &Bounded, unit: usize| {
            [at(d, row * hidden + unit), at(w, place(shape.weights, [model, hidden], c, unit))]
        };
        let gate = dg.zip(inputs.w3);
        let second = (0..if gate.is_some() { hidden } else { 0 })
            .filter_map(move |unit| gate.map(|(dg, w3)| term(dg, w3, unit)));
        (0..hidden).map(move |unit| term(ds, inputs.w1, unit)).chain(second)
    })
}
