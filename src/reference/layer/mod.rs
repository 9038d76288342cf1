//! What the kernels around attention must compute, in f64, and how far a kernel may be from it.
//!
//! Every function takes tensors with their errors and gives a tensor with its error ([`Bounded`]), so that the bound of
//! several kernels in a row is the bound of the last one, given those before.
//!
//! u = 2^-23 is one rounding (WGSL promises either neighbour), gamma_k = k u / (1 - k u) the relative error of k of
//! them in any order, E = 2^-23 one ULP. Where subnormals may be flushed, 2^-126 stands for each.

pub(super) mod activation;
mod axial;
pub mod backward;
mod cross_entropy;
mod feed_forward;
mod integers;
mod matmul;
mod optimizer;
mod rotary;
mod rotary_tables;
mod rows;
pub(super) mod running;
mod softmax_row;

pub use activation::{activate, activation};
pub use axial::{axial_backward, axial_positions};
pub use cross_entropy::{CrossEntropyBounded, cross_entropy, distillation};
pub use feed_forward::{FeedForwardInputs, feed_forward};
pub use integers::{QuantizeBounded, dequantized, integer_matmul, quantize};
pub use matmul::{MatmulInputs, matmul};
pub use optimizer::{OptimizerBounded, OptimizerInputs, clip, optimizer};
pub use rotary::rotary;
pub use rotary_tables::rotary_tables;
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

/// Most roundings of a term in a sum of n by `lib/rows.wgsl`: 256 partial sums, each in blocks of 32, then a tree of 8.
fn sum_roundings(n: usize) -> usize {
    n.div_ceil(256).min(32) + n.div_ceil(8192) + 8
}

/// A value and its bound where one of them may have come out of infinities: 0 times infinity in a bound means an exact operand.
fn settled((value, bound): (f64, f64)) -> (f64, f64) {
    (
        value,
        if !bound.is_nan() {
            bound
        } else if value.is_finite() {
            f64::INFINITY
        } else {
            0.0
        },
    )
}

/// A tensor in f64, and per element how far a kernel's may be from it.
///
/// NaN among the values says that a kernel must give NaN, infinity that it must give that infinity. An infinite bound says
/// that nothing is promised: f32 may overflow on the way.
///
/// ```
/// use wgpu_attention::reference::layer::Bounded;
/// let expected = Bounded { out: vec![1.0, 2.0], bound: vec![0.0, 1e-6] };
/// assert!(expected.compare([1.0f32, 2.0], 0.0).pass);
/// assert!(!expected.compare([1.0f32, 2.00001], 0.0).pass);
/// assert!(!expected.compare([1.0f32, f32::NAN], 0.0).pass);
/// assert!(!expected.compare([1.0f32], 0.0).pass); // one is missing
/// assert!(Bounded::exact(&[f32::NAN]).compare([f32::NAN], 0.0).pass);
/// assert!(!Bounded::exact(&[f32::NAN]).compare([0.0f32], 0.0).pass); // NaN is due
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

    /// Adds the error of storing every element. f16 saturates; NaN and infinity are stored as they are.
    pub fn stored(mut self, element: ElementType) -> Self {
        for (value, bound) in self.out.iter_mut().zip(&mut self.bound).filter(|(value, _)| value.is_finite())
        {
            let size = value.abs() + *bound;
            // A subnormal of the type may be flushed, or else lies on a grid of the smallest of them.
            *bound += match element {
                ElementType::F32 => size.min(TINY),
                ElementType::F16 => size * element.rounding() + size.min(2f64.powi(-14)),
                ElementType::Bf16 => size * element.rounding() + size.min(TINY),
            };
            if size * (1.0 + element.rounding()) > f64::from(f32::MAX) {
                *bound = f64::INFINITY;
            }
            if element == ElementType::F16 {
                *value = value.clamp(-65504.0, 65504.0);
            }
        }
        self
    }

    /// Compares a kernel's elements; `allowance` is the expected values' own error, where they are not this crate's.
    ///
    /// A comparison in which no element was compared does not pass, unless the tensor has none.
    pub fn compare(&self, got: impl IntoIterator<Item: Into<f64>>, allowance: f64) -> Comparison {
        let got: Vec<f64> = got.into_iter().map(Into::into).collect();
        let mut worst: Option<Difference> = None;
        let (mut within, mut compared, mut unspecified, mut not_finite) = (true, 0, 0, 0);
        for (index, ((&expected, &bound), &got)) in self.out.iter().zip(&self.bound).zip(&got).enumerate() {
            let bound = bound + allowance;
            if bound == f64::INFINITY {
                unspecified += 1;
                continue;
            }
            compared += 1;
            let error = (got - expected).abs();
            let same = got == expected || (got.is_nan() && expected.is_nan());
            not_finite += usize::from(same && !got.is_finite());
            // Finite first, then `<=`: a comparison that NaN passes is no comparison.
            within &= same || (got.is_finite() && error <= bound);
            let ratio = match error {
                _ if same => 0.0,
                error if error.is_finite() => error / bound,
                _ => f64::INFINITY,
            };
            if worst.is_none_or(|worst| ratio > worst.ratio) {
                worst = Some(Difference { index, got, expected, bound, ratio });
            }
        }
        let (elements, given) = (self.out.len(), got.len());
        let pass = within && given == elements && (elements == 0 || compared > 0);
        Comparison { elements, given, compared, unspecified, not_finite, worst, pass }
    }
}

/// What [`Bounded::compare`] found.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Elements that there should be.
    pub elements: usize,
    /// Elements that there were.
    pub given: usize,
    /// Elements compared. A check that compared none, of a tensor that has some, is no pass.
    pub compared: usize,
    /// Elements of which nothing is promised (infinite bound): they are not compared. 0 in any sane call.
    pub unspecified: usize,
    /// Of those compared, elements where NaN or an infinity was due and came. A check that compared nothing else has seen no number.
    pub not_finite: usize,
    /// The element with the largest error / bound; `None` if no element was compared.
    pub worst: Option<Difference>,
    /// As many elements as there should be, each that is compared within its bound or the same NaN or infinity, and at least one
    /// compared, unless there is none.
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
        if self.elements == 0 && self.pass {
            return f.write_str("pass, no element to compare");
        }
        let verdict = match (self.pass, self.compared) {
            (true, _) => "pass",
            (false, 0) => "FAIL, nothing could be compared",
            (false, _) => "FAIL",
        };
        write!(f, "{verdict}, {} elements", self.elements)?;
        if self.given != self.elements {
            write!(f, ", {} given", self.given)?;
        }
        if self.unspecified > 0 {
            write!(f, ", {} unspecified", self.unspecified)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    const NO: f64 = f64::INFINITY;

    fn passes(out: &[f64], bound: &[f64], got: &[f64]) -> bool {
        Bounded { out: out.to_vec(), bound: bound.to_vec() }.compare(got.iter().copied(), 0.0).pass
    }

    #[test]
    fn a_check_that_compared_nothing_does_not_pass() {
        assert!(!passes(&[1.0, 2.0], &[NO, NO], &[1.0, 2.0]));
        assert!(passes(&[1.0, 2.0], &[NO, 0.0], &[5.0, 2.0]));
        let nothing = Bounded::default().compare([0.0f64; 0], 0.0);
        assert!(nothing.pass && nothing.to_string().contains("no element to compare"), "{nothing}");
        let none = Bounded { out: vec![1.0], bound: vec![NO] }.compare([1.0f64], 0.0);
        assert!(none.to_string().starts_with("FAIL, nothing could be compared"), "{none}");
    }

    #[test]
    fn nan_and_infinity_are_demanded_where_they_are_due() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        assert!(passes(&[nan, inf, -inf], &[0.0; 3], &[nan, inf, -inf]));
        for got in [[0.0, inf], [inf, inf], [nan, nan], [nan, -inf], [nan, 1e38]] {
            assert!(!passes(&[nan, inf], &[0.0; 2], &got), "{got:?}");
        }
        assert!(!passes(&[1.0], &[nan], &[1.5]), "a bound of NaN passes nothing");
    }

    #[test]
    fn bounds_of_infinities_are_certain_or_nothing() {
        let shape = crate::MatmulShape::new(1, 2, 1);
        let product = |a: [f32; 2], b: [f32; 2]| {
            let (a, b) = (Bounded::exact(&a), Bounded::exact(&b));
            let y = matmul(&shape, &MatmulInputs { a: &a, b: &b, bias: None, other: None }).unwrap();
            (y.out[0], y.bound[0])
        };
        let inf = f32::INFINITY;
        assert_eq!(product([inf, 1.0], [2.0, 3.0]), (f64::INFINITY, 0.0));
        assert_eq!(product([1.0, -inf], [2.0, 3.0]), (f64::NEG_INFINITY, 0.0));
        for (a, b) in [([inf, 1.0], [0.0, 1.0]), ([inf, -inf], [1.0, 1.0]), ([f32::NAN, 1.0], [1.0, 1.0])] {
            let (value, bound) = product(a, b);
            assert!(value.is_nan() && bound == 0.0, "{a:?} {b:?}: {value} within {bound}");
        }
        // f32 overflows on the way, or may.
        assert_eq!(product([3e38, 3e38], [1.0, -1.0]).1, f64::INFINITY);
    }

    #[test]
    fn f16_saturates_and_f32_overflows() {
        let stored = |x: f64, element| {
            let y = Bounded { out: vec![x], bound: vec![0.0] }.stored(element);
            (y.out[0], y.bound[0])
        };
        assert_eq!(stored(1e6, ElementType::F16).0, 65504.0);
        assert_eq!(stored(f64::INFINITY, ElementType::F16), (f64::INFINITY, 0.0));
        assert_eq!(stored(1e39, ElementType::F32).1, f64::INFINITY);
        assert_eq!(stored(f64::from(f32::MAX), ElementType::Bf16).1, f64::INFINITY);
    }
}
