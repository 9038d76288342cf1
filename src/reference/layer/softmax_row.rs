//! The softmax of a row, and how far a kernel's may be from it: what softmax and the loss share.

use super::{TINY, U, ULP, gamma, sum_roundings};

/// A row of finite numbers and -infinity, at least one of them finite.
pub(super) struct SoftmaxRow<'a> {
    x: &'a [f64],
    dx: &'a [f64],
    max: f64,
    widest: f64,
    /// Gaps are multiplied by this.
    scale: f64,
    l: f64,
}

impl<'a> SoftmaxRow<'a> {
    /// None for a row that a kernel must make NaN.
    pub(super) fn new(x: &'a [f64], dx: &'a [f64]) -> Option<Self> {
        Self::scaled(x, dx, 1.0)
    }

    /// The same of x times a scale above 0.
    pub(super) fn scaled(x: &'a [f64], dx: &'a [f64], scale: f64) -> Option<Self> {
        let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if !max.is_finite() || x.iter().any(|x| x.is_nan()) {
            return None;
        }
        let widest = dx.iter().copied().fold(0.0, f64::max);
        let l = x.iter().map(|x| ((x - max) * scale).exp()).sum();
        Some(Self { x, dx, max, widest, scale, l })
    }

    /// sum_j exp(x_j - max x).
    pub(super) fn sum(&self) -> f64 {
        self.l
    }

    /// max x - x_i, scaled.
    pub(super) fn gap(&self, i: usize) -> f64 {
        (self.max - self.x[i]) * self.scale
    }

    /// How far a kernel's gap may be off before it is rounded.
    pub(super) fn of_gap(&self, i: usize) -> f64 {
        let given = (self.dx[i] + self.widest) * self.scale;
        // The scale is rounded, and the product with it.
        if self.scale == 1.0 { given } else { given * (1.0 + 2.0 * U) + 2.0 * U * self.gap(i).min(1e6) }
    }

    /// The weight of element i.
    pub(super) fn weight(&self, i: usize) -> f64 {
        (-self.gap(i)).exp() / self.l
    }

    /// The relative error of an exponential.
    pub(super) fn of_exponential(&self, i: usize) -> f64 {
        // Beyond 90 the weight is below the smallest normal number: its relative error does not count.
        let d = (self.gap(i) + 2.0 * self.widest * self.scale).min(90.0);
        (self.of_gap(i) + U * d).exp_m1() + (3.0 + 2.0 * d) * ULP
    }

    /// The relative error of their sum.
    pub(super) fn of_sum(&self) -> f64 {
        let n = self.x.len();
        let of_terms = (0..n).map(|i| self.weight(i) * self.of_exponential(i)).sum::<f64>();
        of_terms + gamma(sum_roundings(n)) + 4.0 * TINY * n as f64
    }

    /// The error of a weight, where the sum has this one.
    pub(super) fn of_weight(&self, i: usize, of_sum: f64) -> f64 {
        let theta = self.of_exponential(i);
        let relative = (1.0 + theta) * (1.0 + 2.5 * ULP + U) / (1.0 - of_sum).max(0.0) - 1.0;
        self.weight(i) * relative + 4.0 * TINY
    }
}
