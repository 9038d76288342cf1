//! Reversible residual layers in f64 (Gomez 2017, section 3.2): forward, inverse, and gradients by the inverse.
//!
//! Tensors carry their errors ([`Bounded`]). Through a deep stack these bounds multiply, layer by layer, and say nothing; of one layer, given
//! the streams that a device has stored, they are those of its branch and of one addition.

use super::layer::backward::{feed_forward_backward, norm_backward};
use super::layer::{Bounded, FeedForwardInputs, add, feed_forward, norm};
use crate::{ElementType, FeedForwardShape, NormShape, Result, RowGradients};

/// F or G in f64.
pub trait Branch {
    /// F(x).
    ///
    /// # Errors
    /// What the branch refuses.
    fn forward(&self, x: &Bounded) -> Result<Bounded>;

    /// dy F'(x), and the gradients of its parameters by name.
    ///
    /// # Errors
    /// What the branch refuses.
    fn backward(&self, x: &Bounded, dy: &Bounded) -> Result<BranchGradients>;
}

/// What [`Branch::backward`] returns.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct BranchGradients {
    /// The gradient by the input.
    pub dx: Bounded,
    /// The gradients by the parameters, by name.
    pub parameters: Vec<(&'static str, Bounded)>,
}

impl BranchGradients {
    /// The gradients by the input, and by the parameters by name.
    pub fn new(dx: Bounded, parameters: Vec<(&'static str, Bounded)>) -> Self {
        Self { dx, parameters }
    }
}

/// F, then G.
pub type Layer<'a> = [&'a dyn Branch; 2];

/// What [`backward`] returns: a layer's input, found by the inverse, and its gradients.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LayerGradients {
    /// Its input, x1 and x2, by the inverse.
    pub x: [Bounded; 2],
    /// The gradient by its input.
    pub dx: [Bounded; 2],
    /// The gradients by F's parameters and by G's, by name.
    pub parameters: [Vec<(&'static str, Bounded)>; 2],
}

fn sum(x: &Bounded, other: &Bounded) -> Result<Bounded> {
    add(x, other, ElementType::F32)
}

fn difference(x: &Bounded, other: &Bounded) -> Result<Bounded> {
    let negative = Bounded { out: other.out.iter().map(|x| -x).collect(), bound: other.bound.clone() };
    add(x, &negative, ElementType::F32)
}

/// y1 = x1 + F(x2), y2 = x2 + G(y1).
///
/// # Errors
/// Those of the branches; [`Error::Argument`](crate::Error::Argument) for streams of different lengths.
pub fn forward([f, g]: Layer<'_>, [x1, x2]: [&Bounded; 2]) -> Result<[Bounded; 2]> {
    let y1 = sum(x1, &f.forward(x2)?)?;
    let y2 = sum(x2, &g.forward(&y1)?)?;
    Ok([y1, y2])
}

/// x2 = y2 - G(y1), x1 = y1 - F(x2).
///
/// # Errors
/// As [`forward`].
pub fn inverse([f, g]: Layer<'_>, [y1, y2]: [&Bounded; 2]) -> Result<[Bounded; 2]> {
    let x2 = difference(y2, &g.forward(y1)?)?;
    let x1 = difference(y1, &f.forward(&x2)?)?;
    Ok([x1, x2])
}

/// The gradients of sum(dy1 y1 + dy2 y2) of a layer whose output is y, at the input that the inverse finds:
///
/// ```text
/// d1 = dy1 + G'(y1)^T dy2      dx2 = dy2 + F'(x2)^T d1      dx1 = d1
/// ```
///
/// # Errors
/// As [`forward`].
pub fn backward([f, g]: Layer<'_>, y: [&Bounded; 2], [dy1, dy2]: [&Bounded; 2]) -> Result<LayerGradients> {
    let x = inverse([f, g], y)?;
    let of_g = g.backward(y[0], dy2)?;
    let dx1 = sum(dy1, &of_g.dx)?;
    let of_f = f.backward(&x[1], &dx1)?;
    let dx2 = sum(dy2, &of_f.dx)?;
    Ok(LayerGradients { x, dx: [dx1, dx2], parameters: [of_f.parameters, of_g.parameters] })
}

/// A norm and a feed-forward layer: what `FeedForwardBranch` is on a device, whose names its parameters have.
///
/// ```
/// use wgpu_attention::reference::layer::Bounded;
/// use wgpu_attention::reference::reversible::{FeedForward, forward, inverse};
/// use wgpu_attention::{Activation, FeedForwardShape, NormKind, NormShape};
/// let parameters = [("norm_weight", vec![1.0, 1.0]), ("w1", vec![0.5; 6]), ("w2", vec![0.25; 6])];
/// let norm = NormShape::new(NormKind::Rms, 1, 2, 1e-6);
/// let branch = FeedForward::new(norm, FeedForwardShape::new(1, 2, 3, Activation::Silu), &parameters);
/// let (layer, x) = ([&branch as _, &branch as _], [[1.0, 2.0], [3.0, -1.0]].map(|x: [f64; 2]| Bounded::exact(&x)));
/// let y = forward(layer, x.each_ref())?;
/// let again = inverse(layer, y.each_ref())?;
/// assert!((again[0].out[1] - 2.0).abs() < 1e-12);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct FeedForward {
    norm: NormShape,
    shape: FeedForwardShape,
    parameters: Vec<(&'static str, Bounded)>,
}

impl FeedForward {
    /// The shapes, and the parameters by name; what they lack is taken to be empty, and refused where it is needed.
    pub fn new<T: Into<f64> + Copy>(
        norm: NormShape,
        shape: FeedForwardShape,
        parameters: &[(&'static str, Vec<T>)],
    ) -> Self {
        let parameters = parameters.iter().map(|(name, values)| (*name, Bounded::exact(values)));
        Self { norm, shape, parameters: parameters.collect() }
    }

    fn get(&self, name: &str) -> Option<&Bounded> {
        self.parameters.iter().find(|parameter| parameter.0 == name).map(|parameter| &parameter.1)
    }

    fn normed(&self, x: &Bounded, none: &Bounded) -> Result<Bounded> {
        norm(&self.norm, x, self.get("norm_weight").unwrap_or(none), self.get("norm_bias"))
    }

    fn inputs<'a>(&'a self, x: &'a Bounded, none: &'a Bounded) -> FeedForwardInputs<'a> {
        FeedForwardInputs {
            x,
            w1: self.get("w1").unwrap_or(none),
            b1: self.get("b1"),
            w3: self.get("w3"),
            b3: self.get("b3"),
            w2: self.get("w2").unwrap_or(none),
            b2: self.get("b2"),
            residual: None,
        }
    }
}

impl Branch for FeedForward {
    fn forward(&self, x: &Bounded) -> Result<Bounded> {
        let none = Bounded::default();
        let normed = self.normed(x, &none)?;
        feed_forward(&self.shape, &self.inputs(&normed, &none))
    }

    fn backward(&self, x: &Bounded, dy: &Bounded) -> Result<BranchGradients> {
        let none = Bounded::default();
        let normed = self.normed(x, &none)?;
        let of_layer = feed_forward_backward(&self.shape, &self.inputs(&normed, &none), dy)?;
        let rows = RowGradients::of_norm(&self.norm);
        let weight = self.get("norm_weight").unwrap_or(&none);
        let of_norm = norm_backward(&self.norm, &rows, x, weight, &of_layer.dx, None)?;
        let all = [
            ("norm_weight", Some(of_norm.dweight)),
            ("norm_bias", self.norm.bias.then_some(of_norm.dbias)),
            ("w1", Some(of_layer.dw1)),
            ("b1", of_layer.db1),
            ("w3", of_layer.dw3),
            ("b3", of_layer.db3),
            ("w2", Some(of_layer.dw2)),
            ("b2", of_layer.db2),
        ];
        let parameters = all.into_iter().filter_map(|(name, gradient)| Some((name, gradient?)));
        Ok(BranchGradients::new(of_norm.dx, parameters.collect()))
    }
}
