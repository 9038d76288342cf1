//! What the gradients of the kernels around attention must be, in f64, and how far a kernel's may be from them.
//!
//! As in [the forward kernels](super), every function takes tensors with their errors and gives tensors with theirs. Errors are carried
//! through each operation of the kernel (Wilkinson's running error analysis); a sum of n adds gamma_K of the sizes of its terms, with the K
//! roundings that its order makes.

mod activation;
mod embed;
mod feed_forward;
mod matmul;
mod norm;
mod softmax;
mod sums;

pub use activation::{ActivationGradients, activation_backward};
pub use embed::embed_backward;
pub use feed_forward::{FeedForwardBoundedGradients, feed_forward_backward};
pub use matmul::{MatmulBoundedGradients, matmul_backward};
pub use norm::{NormGradients, norm_backward};
pub use softmax::softmax_backward;

use super::running::Running;
use super::{Bounded, TINY, gamma};

/// A sum of numbers that carry their errors, each of which meets at most `roundings` roundings.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    value: f64,
    /// Errors of the terms.
    passed: f64,
    /// Sizes of the terms, with their errors.
    size: f64,
    terms: usize,
}

impl Sum {
    fn add(&mut self, term: Running) {
        self.value += term.value;
        self.passed += term.error;
        self.size += term.value.abs() + term.error;
        self.terms += 1;
    }

    /// The sum, in which any partial sum may be flushed.
    fn total(self, roundings: usize) -> Running {
        let rounding = gamma(roundings) * self.size + self.size.min(TINY * self.terms as f64);
        // A partial sum may pass f32 before terms of the other sign take it back.
        let fits = self.size * (1.0 + gamma(roundings)) <= f64::from(f32::MAX);
        let error = match self.value.is_nan() {
            true => 0.0,
            false if fits => self.passed + rounding,
            false => f64::INFINITY,
        };
        Running { value: self.value, error }
    }
}

/// Most roundings of a term in a sum over n rows by `column_sums.wgsl`: per level 32 rows of a lane, then a tree of 3.
fn column_roundings(rows: usize) -> usize {
    let (mut levels, mut left) = (0, rows);
    while levels == 0 || left > 1 {
        (levels, left) = (levels + 1, left.div_ceil(256));
    }
    35 * levels
}

/// An element of a tensor with its error; a subnormal one may be read as 0.
fn element(tensor: &Bounded, at: usize) -> Running {
    let (value, error) = (tensor.out[at], tensor.bound[at]);
    let flushed = if value.abs() < TINY { value.abs() } else { 0.0 };
    Running { value, error: error + flushed }
}

/// Adds an element.
fn push(tensor: &mut Bounded, element: Running) {
    tensor.out.push(element.value);
    tensor.bound.push(element.error);
}

/// A gradient, added to what was there if it is.
fn into(gradient: Running, before: Option<&Bounded>, at: usize) -> Running {
    before.map_or(gradient, |before| element(before, at) + gradient)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_those_of_the_kernel() {
        for (rows, levels) in [(1, 1), (256, 1), (257, 2), (65536, 2), (65537, 3)] {
            assert_eq!(column_roundings(rows), 35 * levels, "{rows}");
        }
    }

    #[test]
    fn a_sum_that_may_overflow_promises_nothing() {
        let mut sum = Sum::default();
        [3e38f32, 3e38, -3e38].into_iter().for_each(|x| sum.add(Running::exact(x)));
        assert_eq!(sum.total(3).error, f64::INFINITY);
        let mut sum = Sum::default();
        [1.0f32, f32::NAN].into_iter().for_each(|x| sum.add(Running::exact(x)));
        assert!(sum.total(2).value.is_nan() && sum.total(2).error == 0.0);
    }
}
