//! Arithmetic that carries its error along (Wilkinson's running error analysis): what WGSL promises of each operation.

use super::{TINY, U, ULP};
use std::ops::{Add, Div, Mul};

/// A number in f64, and how far a kernel's may be from it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::reference) struct Running {
    pub(in crate::reference) value: f64,
    pub(in crate::reference) error: f64,
}

impl Running {
    /// An f32 that both have.
    pub(in crate::reference) fn exact(value: f32) -> Self {
        Self { value: value.into(), error: 0.0 }
    }

    /// An f64 that a kernel is given rounded.
    pub(in crate::reference) fn rounded(value: f64) -> Self {
        Self::new(value, 0.0, 1.0)
    }

    /// An operation's result: the error that its operands bring, and so many roundings or units in the last place of its own. A
    /// subnormal result may be flushed; beyond f32 nothing is promised.
    pub(in crate::reference) fn new(value: f64, passed: f64, units: f64) -> Self {
        let size = value.abs() + passed;
        let error = match size * (1.0 + units * U) {
            _ if value.is_nan() => 0.0,
            largest if largest > f64::from(f32::MAX) => f64::INFINITY,
            _ => passed + units * U * size + size.min(TINY),
        };
        Self { value, error: if error.is_nan() { f64::INFINITY } else { error } }
    }

    /// Its root: of anything that the number may be, but not of less than 2^-126. Five units: an inverse root and its inverse.
    pub(in crate::reference) fn root(self) -> Self {
        let value = self.value.max(0.0).sqrt();
        let least = (self.value - self.error).max(0.0).sqrt();
        let most = (self.value + self.error).max(TINY).sqrt();
        let root = Self::new(value, (value - least).max(most - value), 5.0 * ULP / U);
        if self.value.is_nan() { self } else { root }
    }
}

impl Add for Running {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self::new(self.value + other.value, self.error + other.error, 1.0)
    }
}

impl Mul for Running {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        let (a, b) = (self.value.abs(), other.value.abs());
        Self::new(self.value * other.value, a * other.error + b * self.error + self.error * other.error, 1.0)
    }
}

impl Div for Running {
    type Output = Self;
    fn div(self, other: Self) -> Self {
        let value = self.value / other.value;
        let least = other.value.abs() - other.error;
        // WGSL promises a quotient only for divisors from 2^-126 to 2^126.
        let promised = least >= TINY && other.value.abs() + other.error <= 2f64.powi(126);
        let passed = if promised { (self.error + value.abs() * other.error) / least } else { f64::INFINITY };
        Self::new(value, passed, 2.5 * ULP / U)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_add_up() {
        let (third, two) = (Running::rounded(1.0 / 3.0), Running::exact(2.0));
        let sum = third + two;
        assert!(sum.error > third.error + 2.3 * U * 0.99 && sum.error < third.error + 2.4 * U);
        let product = third * two;
        assert!((product.error / (2.0 * third.error + 2.0 / 3.0 * U) - 1.0).abs() < 1e-6);
        assert!((two / third).error > 6.0 * (third.error / third.value));
    }

    #[test]
    fn what_is_not_promised_is_infinite() {
        let (huge, none) = (Running::exact(3e38), Running::exact(0.0));
        assert_eq!((huge * huge).error, f64::INFINITY);
        assert_eq!((huge / none).error, f64::INFINITY);
        assert_eq!((Running::exact(1.0) / huge).error, f64::INFINITY);
        assert_eq!((Running::exact(f32::NAN) + huge).error, 0.0);
        assert!(none.root().error >= 1e-19 && none.root().error < 1.2e-19);
    }
}
