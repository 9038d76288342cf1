//! A temperature per head.

use super::rule::{Known, Pair, Rule, TINY, TensorGradient, Tensors, TermTensor, U};
use crate::{AttentionShape, Result};
use std::borrow::Cow;

/// Divides scores by a temperature per head, before everything else: scale q . k / t_h, with the caller's tensor
/// `temperature`, `[H]`. Above 1 it flattens the weights, below 1 it sharpens them (learned in Swin V2, Liu 2022, section
/// 3.3). The rows of a head with a temperature of 0, NaN or infinity are NaN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Temperature;

impl Rule for Temperature {
    fn name(&self) -> &'static str {
        "temperature"
    }

    fn check(&self, _: &AttentionShape) -> Result<()> {
        Ok(())
    }

    fn tensors(&self, shape: &AttentionShape) -> Vec<TermTensor> {
        vec![TermTensor { name: "temperature", len: shape.heads, strided: false }]
    }

    fn score(&self, before: f64, at: &Pair<'_>, tensors: &Tensors<'_>) -> f64 {
        match f64::from(tensors[0][at.head]) {
            temperature if temperature == 0.0 || temperature.is_infinite() => f64::NAN,
            temperature => before / temperature,
        }
    }

    fn may_spoil(&self) -> bool {
        true
    }

    /// A division of 2.5 ULP; WGSL promises that for divisors of 2^-126 to 2^126.
    fn error(&self, before: Known, after: f64, at: &Pair<'_>, tensors: &Tensors<'_>) -> f64 {
        let temperature = f64::from(tensors[0][at.head]).abs();
        if !(TINY..=1.0 / TINY).contains(&temperature) || after.abs() > f64::from(f32::MAX) / 2.0 {
            return f64::INFINITY;
        }
        let moved = before.error / temperature;
        let flush = if before.score == 0.0 && before.error == 0.0 { 0.0 } else { TINY };
        moved + 2.5 * U * (after.abs() + moved) + flush
    }

    /// 1 / t_h.
    fn slope(&self, _: f64, at: &Pair<'_>, tensors: &Tensors<'_>) -> f64 {
        1.0 / f64::from(tensors[0][at.head])
    }

    /// A division of 2.5 ULP, whose quotient may be flushed.
    fn slope_error(&self, _: Known, at: &Pair<'_>, tensors: &Tensors<'_>) -> f64 {
        let temperature = f64::from(tensors[0][at.head]).abs();
        if !(TINY..=1.0 / TINY).contains(&temperature) {
            return f64::INFINITY;
        }
        2.5 * U / temperature + TINY
    }

    /// -score / t_h^2: of the score as the kernel has it, two divisions and a product; a flush after the first is divided again.
    fn element(&self, before: Known, at: &Pair<'_>, tensors: &Tensors<'_>) -> Option<(usize, Known)> {
        let temperature = f64::from(tensors[0][at.head]);
        let square = temperature * temperature;
        let largest = (before.score.abs() + before.error) / square;
        let flushes = TINY * (1.0 + 1.0 / temperature.abs());
        let error =
            match largest < f64::from(f32::MAX) / 2.0 && (TINY..1.0 / TINY).contains(&temperature.abs()) {
                true => before.error / square + 8.0 * U * largest + flushes,
                false => f64::INFINITY,
            };
        Some((at.head, Known { score: -before.score / square, error }))
    }

    fn gradient(&self, _: &str, _: &AttentionShape) -> Option<TensorGradient> {
        Some(TensorGradient::one_per_head())
    }

    fn drawn(&self, normal: f64) -> f32 {
        (0.3 * normal).exp() as f32
    }

    fn silent(&self, _: u64) -> Option<f32> {
        Some(1.0)
    }

    fn shader(&self) -> Cow<'static, str> {
        include_str!("../../shaders/score/temperature.wgsl").into()
    }

    fn scales(&self) -> bool {
        true
    }
}
