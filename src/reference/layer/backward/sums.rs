//! Sums of products.

use crate::ElementType;
use crate::reference::layer::{Bounded, TINY, gamma, settled};
use rayon::prelude::*;

/// Partial sums that are added up one after the other: each is a rounding more.
#[derive(Clone, Copy)]
pub(super) struct Added(pub(super) usize);

/// Sums of products, in f32: of each of so many elements the terms, two factors with their errors each. n products and n - 1 additions
/// are at most n roundings of any term, whatever the order; the bound is that of [`matmul`](crate::reference::layer::matmul()).
pub(super) fn sums<T: Iterator<Item = [(f64, f64); 2]>>(
    elements: usize,
    Added(parts): Added,
    terms: impl Fn(usize) -> T + Sync,
) -> Bounded {
    let element = |n| {
        let (mut sum, mut condition, mut error, mut largest, mut count) = (0.0, 0.0, 0.0, 1.0f64, parts + 2);
        for [(x, dx), (y, dy)] in terms(n) {
            sum += x * y;
            condition += (x.abs() + dx) * (y.abs() + dy);
            error += dx * y.abs() + x.abs() * dy + dx * dy;
            largest = largest.max(x.abs() + dx).max(y.abs() + dy);
            count += 1;
        }
        error += gamma(count) * condition + count as f64 * 2.0 * TINY * largest;
        // Finite terms that may overflow on the way; infinite ones are IEEE's, and NaN is.
        if condition.is_finite() && condition > 0.999 * f64::from(f32::MAX) {
            error = f64::INFINITY;
        }
        settled((sum, error))
    };
    let (out, bound) = (0..elements).into_par_iter().map(element).unzip();
    Bounded { out, bound }.stored(ElementType::F32)
}
