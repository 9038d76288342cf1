//! Activations, and the error of the kernels' way to compute them (`shaders/lib/activation.wgsl`).

use super::{Bounded, TINY, U, ULP, gamma};
use crate::Activation;

/// An activation of every element.
///
/// The error has two parts: what an error of x does, at most the Lipschitz constant of the function times that error
/// (1 for ReLU and tanh, 1.13 for both forms of GELU, 1.1 for SiLU), and what the evaluation
/// adds: the derivation for each function is beside the code.
pub fn activation(activation: Activation, x: &Bounded) -> Bounded {
    let (out, bound) = x.out.iter().zip(&x.bound).map(|(&x, &error)| of(activation, x, error)).unzip();
    Bounded { out, bound }
}

/// Value and error at x, known up to `error`.
pub(super) fn of(activation: Activation, x: f64, error: f64) -> (f64, f64) {
    let lipschitz = match activation {
        Activation::Relu | Activation::Tanh => 1.0,
        Activation::GeluErf | Activation::GeluTanh => 1.13,
        Activation::Silu => 1.1,
    };
    // The evaluation's error belongs to the x that the kernel had; it changes by less than 2^-12 of a change of x.
    let evaluation = evaluation_error(activation, x) + error * 2f64.powi(-12);
    (activation.value(x), if activation == Activation::Relu { error } else { lipschitz * error + evaluation })
}

/// How far the kernel's function is from the true one at the same x.
fn evaluation_error(activation: Activation, x: f64) -> f64 {
    // What the clamps of the arguments of exp change, and flushed subnormals.
    let clamped = x.abs() * 2f64.powi(-100) + 4.0 * TINY * (1.0 + x.abs());
    clamped
        + match activation {
            Activation::Relu => 0.0,
            Activation::GeluErf => erf_error(x),
            Activation::GeluTanh => logistic_error(x, Activation::tanh_argument(x), 8),
            Activation::Silu => logistic_error(x, x, 0),
            Activation::Tanh => tanh_error(x.abs()),
        }
}

/// x / (1 + exp(-s)) by z = exp(-|s|), where s carries `roundings` roundings: all terms of s have one sign, so its
/// relative error is gamma of them, and z's is |s| times that plus exp's own (3 + 2|s|) ULP. sigmoid = 1 / (1 + z) or
/// z / (1 + z) passes on at most z / (1 + z), or 1, of z's relative error; adding, dividing (2.5 ULP) and multiplying
/// come on top.
fn logistic_error(x: f64, s: f64, roundings: usize) -> f64 {
    let s = s.clamp(-80.0, 80.0);
    let z = (-s.abs()).exp();
    let of_z = (s.abs() * gamma(roundings)).exp_m1() + (3.0 + 2.0 * s.abs()) * ULP;
    let (sigmoid, passed) = if s >= 0.0 { (1.0 / (1.0 + z), of_z * z) } else { (z / (1.0 + z), of_z) };
    1.01 * x.abs() * sigmoid * (passed + 2.5 * ULP + 3.0 * U)
}

/// max(x, 0) - |x| q, q = exp(-y^2 / 2) P(t) / 2, P(t) = sum a_i t^i, t = 1 / (1 + p y):
///
/// * the approximation itself: |erfc - P exp| <= 1.5e-7 (Abramowitz & Stegun 7.1.26), half of it in q;
/// * t: the constant p to 8 digits, one fma (2 roundings), a division: relative tau; P moves by tau sum i |a_i| t^i;
/// * Horner's rule in fma: 12 roundings at most of any term: gamma_12 sum |a_i| t^i;
/// * exp: an argument with 2 roundings, and (3 + y^2) ULP;
/// * 3 more multiplications, and the difference.
fn erf_error(x: f64) -> f64 {
    const A: [f64; 5] = [0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429];
    let y = x.abs().min(12.0);
    let t = 1.0 / (1.0 + 0.23164189 * y);
    let tau = 2.0 * U + 2.5 * ULP + 2e-8;
    let (mut p, mut of_p) = (0.0, 0.0);
    for (i, a) in (1..).zip(A) {
        let term = a * t.powi(i);
        p += term;
        of_p += term.abs() * (tau * f64::from(i) + gamma(12));
    }
    let exp = (-0.5 * y * y).exp();
    let of_exp = y * y * U + (3.0 + y * y) * ULP;
    let q = 0.5 * p * exp;
    let of_q = 0.5 * 1.5e-7 + 0.5 * exp * of_p + q * (of_exp + gamma(3));
    1.01 * (x.abs() * of_q + U * (x.abs() * q + Activation::GeluErf.value(x).abs()))
}

/// For |x| = y below 1/4 the series x P(x^2): what it leaves out is below 1e-8 y; Horner's rule in fma, the powers of the
/// rounded x^2, the constants and the last product are 14 roundings at most of any term. Beyond, (1 - z) / (1 + z), z with exp's
/// (3 + 4 y) ULP: z's error reaches both sides, each is one rounding, and the division is 2.5 ULP. Near 1/4 an error of x may have
/// chosen either.
fn tanh_error(y: f64) -> f64 {
    let q = y.min(0.3).powi(2);
    let terms = 1.0 + q / 3.0 + q * q * 2.0 / 15.0 + q.powi(3) * 17.0 / 315.0 + q.powi(4) * 62.0 / 2835.0;
    let series = y.min(0.3) * (1e-8 + gamma(14) * terms);
    let z = (-2.0 * y).exp();
    let of_z = z * (3.0 + 4.0 * y.min(40.0)) * ULP;
    let value = y.tanh();
    let quotient = 1.01 * ((of_z + U * (1.0 - z)) / (1.0 + z) + value * (of_z / (1.0 + z) + U + 2.5 * ULP));
    match y {
        y if y < 0.2 => series,
        y if y > 0.3 => quotient,
        _ => series.max(quotient),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `gelu_erf` of the shader in f64: what is left is the approximation's error.
    fn approximate(x: f64) -> f64 {
        let y = x.abs().min(12.0);
        let t = 1.0 / (1.0 + 0.23164189 * y);
        let p =
            t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
        x.max(0.0) - x.abs() * 0.5 * p * (-0.5 * y * y).exp()
    }

    #[test]
    fn the_approximation_of_erfc_is_as_good_as_its_authors_say() {
        // Steps of 1e-4: the error's slope is below 1e-6, so that nothing between them passes 1.5e-7.
        for n in -130_000..=130_000 {
            let x = f64::from(n) * 1e-4;
            let error = (approximate(x) - Activation::GeluErf.value(x)).abs();
            assert!(error <= 0.5 * x.abs() * 1.5e-7 + 1e-18, "x = {x}: {error:e}");
        }
    }

    #[test]
    fn f32_evaluations_stay_within_the_error() {
        for n in -30_000..=30_000 {
            let x = n as f32 * 0.001;
            let s = 1.595_769_f32 * (x + 0.044715 * x * x * x);
            let gated = |s: f32| {
                let z = (-s.abs().min(80.0)).exp();
                x * (if s >= 0.0 { 1.0 } else { z } / (1.0 + z))
            };
            let y = x.abs().min(12.0);
            let t = 1.0 / (0.231_641_89_f32 * y + 1.0);
            let p: f32 = [1.421_413_8_f32, -0.284_496_73, 0.254_829_6]
                .iter()
                .fold(t * 1.061_405_4 - 1.453_152_f32, |p, a| t * p + a);
            let erf = x.max(0.0) - x.abs() * (0.5 * t * p * (-0.5 * y * y).exp());
            let (z, q) = ((-(2.0 * x.abs()).min(80.0)).exp(), x.abs().min(0.25).powi(2));
            let series = [-0.053_968_254_f32, 0.133_333_33, -0.333_333_34, 1.0]
                .iter()
                .fold(0.021_869_488_f32, |p, a| q * p + a);
            let quotient = ((1.0 - z) / (1.0 + z)).copysign(x);
            let tanh = if x.abs() < 0.25 { x * series } else { quotient };
            for (kind, got) in [
                (Activation::Silu, gated(x)),
                (Activation::GeluTanh, gated(s)),
                (Activation::GeluErf, erf),
                (Activation::Tanh, tanh),
            ] {
                let (want, bound) = of(kind, x.into(), 0.0);
                assert!(
                    (f64::from(got) - want).abs() <= bound,
                    "{kind} at {x}: {got:e}, {want:e}, {bound:e}"
                );
            }
        }
    }

    #[test]
    fn slopes_are_below_the_constants() {
        for kind in Activation::ALL {
            for n in -1000..1000 {
                let (x, step) = (f64::from(n) * 0.01, 1e-3);
                let change = (kind.value(x + step) - kind.value(x)).abs();
                assert!(change <= of(kind, x, step).1 + 1e-14, "{kind} at {x}");
            }
        }
    }
}
