//! What the kernels around attention must compute, in f64, and how far a kernel may be from it.
//!
//! Every function takes tensors with their errors and gives a tensor with its error ([`Bounded`]), so that the bound of
//! several kernels in a row is the bound of the last one, given those before.
//!
//! u = 2^-23 is one rounding (WGSL promises either neighbour), gamma_k = k u / (1 - k u) the relative error of k of
//! them in any order, E = 2^-23 one ULP. Where subnormals may be flushed, 2^-126 stands for each.

mod activation;
mod feed_forward;
mod matmul;
mod rotary;
mod rows;

pub use activation::activation;
pub use feed_forward::{FeedForwardInputs, feed_forward};
pub use matmul::{MatmulInputs, matmul};
pub use rotary::rotary;
pub use rows::{add, embed, norm, softmax};

use crate::{ElementType, Error, Result};

/// One rounding, to either neighbour.
const U: f64 = 1.0 / (1 << 23) as f64;
/// One unit in the last place.
const ULP: f64 = U;
/// The smallest normal f32: what a flushed subnormal may be off by.
const TINY: f64 = f32::MIN_POSITIVE as f64;

/// Relative error of k roundings in any order.
fn gamma(k: usize) -> f64 {
    let ku = k as f64 * U;
    if ku < 1.0 { ku / (1.0 - ku) } else { f64::INFINITY }
}

/// A tensor in f64, and per element how far a kernel's may be from it.
///
/// ```
/// use wgpu_attention::reference::layer::Bounded;
/// let expected = Bounded { out: vec![1.0, 2.0], bound: vec![0.0, 1e-6] };
/// assert!(expected.compare([1.0f32, 2.0], 0.0).pass);
/// assert!(!expected.compare([1.0f32, 2.00001], 0.0).pass);
/// assert!(!expected.compare([1.0f32, f32::NAN], 0.0).pass);
/// assert!(!expected.compare([1.0f32], 0.0).pass); // one is missing
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Bounded {
    /// The values.
    pub out: Vec<f64>,
    /// How far a kernel's values may be off.
    pub bound: Vec<f64>,
}

impl Bounded {
    /// A tensor without error: an input.
    pub fn exact<T: Into<f64> + Copy>(values: &[T]) -> Self {
        Self { out: values.iter().map(|&x| x.into()).collect(), bound: vec![0.0; values.len()] }
    }

    /// Adds the error of storing every element.
    pub fn stored(mut self, element: ElementType) -> Self {
        for (value, bound) in self.out.iter().zip(&mut self.bound) {
            let size = value.abs() + *bound;
            // A subnormal of the type may be flushed, or else lies on a grid of the smallest of them.
            *bound += match element {
                ElementType::F32 => size.min(TINY),
                ElementType::F16 => size * element.rounding() + size.min(2f64.powi(-14)),
                ElementType::Bf16 => size * element.rounding() + size.min(TINY),
            };
        }
        self
    }

    /// Compares a kernel's elements; `allowance` is the expected values' own error, where they are not this crate's.
    pub fn compare(&self, got: impl IntoIterator<Item: Into<f64>>, allowance: f64) -> Comparison {
        let got: Vec<f64> = got.into_iter().map(Into::into).collect();
        let mut worst: Option<Difference> = None;
        let mut pass = got.len() == self.out.len();
        for (index, ((&expected, &bound), &got)) in self.out.iter().zip(&self.bound).zip(&got).enumerate() {
            let bound = bound + allowance;
            let error = (got - expected).abs();
            // Finite first, then `<=`: a comparison that NaN passes is no comparison.
            pass &= got.is_finite() && error <= bound;
            let ratio = match error {
                0.0 => 0.0,
                error if got.is_finite() => error / bound,
                _ => f64::INFINITY,
            };
            if worst.is_none_or(|worst| ratio > worst.ratio) {
                worst = Some(Difference { index, got, expected, bound, ratio });
            }
        }
        Comparison { elements: self.out.len(), given: got.len(), worst, pass }
    }
}

/// What [`Bounded::compare`] found.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Elements that there should be.
    pub elements: usize,
    /// Elements that there were.
    pub given: usize,
    /// The element with the largest error / bound.
    pub worst: Option<Difference>,
    /// As many elements as there should be, each finite and within its bound.
    pub pass: bool,
}

/// One element of a kernel beside the expected one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// Its place in the contiguous tensor.
    pub index: usize,
    /// What the kernel gave.
    pub got: f64,
    /// What it should be.
    pub expected: f64,
    /// How far it may be off, allowance included.
    pub bound: f64,
    /// |got - expected| / bound.
    pub ratio: f64,
}

impl std::fmt::Display for Comparison {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verdict = if self.pass { "pass" } else { "FAIL" };
        write!(f, "{verdict}, {} elements", self.elements)?;
        if self.given != self.elements {
            write!(f, ", {} given", self.given)?;
        }
        if let Some(Difference { index, got, expected, bound, ratio }) = self.worst {
            write!(f, "; worst: element {index}: got {got:e}, expected {expected:e}, bound {bound:.3e}, ")?;
            write!(f, "error/bound {ratio:.4}")?;
        }
        Ok(())
    }
}

/// A tensor must have at least the elements of its shape.
fn check_len(name: &'static str, tensor: &Bounded, need: usize) -> Result<()> {
    if tensor.out.len() < need || tensor.bound.len() != tensor.out.len() {
        let got = format!("{} elements with {} bounds", tensor.out.len(), tensor.bound.len());
        return Err(Error::argument(name, format!("at least {need} elements with as many bounds"), got));
    }
    Ok(())
}

/// One that is there if and only if it is wanted.
fn check_optional(name: &'static str, tensor: Option<&Bounded>, wanted: bool, need: usize) -> Result<()> {
    match (tensor, wanted) {
        (Some(tensor), true) => check_len(name, tensor, need),
        (None, false) => Ok(()),
        (None, true) => Err(Error::argument(name, "a tensor, since the shape has one", "none")),
        (Some(_), false) => Err(Error::argument(name, "none, since the shape has none", "a tensor")),
    }
}
