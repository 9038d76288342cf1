//! Activations, and the error of the kernels' way to compute them (`shaders/lib/activation.wgsl`).

use super::{Bounded, TINY, U, ULP, check_len, check_optional, gamma, settled};
use crate::{Activation, ActivationShape, Result};

/// An activation of every element.
///
/// The error has two parts: what an error of x does, at most the Lipschitz constant of the function times that error
/// (1 for ReLU and tanh, 1.13 for both forms of GELU, 1.11 for the quick one, 1.1 for SiLU and Mish), and what the evaluation
/// adds: the derivation for each function is beside the code.
pub fn activation(activation: Activation, x: &Bounded) -> Bounded {
    let (out, bound) = x.out.iter().zip(&x.bound).map(|(&x, &error)| of(activation, x, error)).unzip();
    Bounded { out, bound }
}

/// The activation of an [`ActivationShape`], with its gate: a product, and one rounding.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) for a tensor that is too short, missing or not asked for, and as [`ActivationShape::check`].
///
/// ```
/// use wgpu_attention::{Activation, ActivationShape, reference::layer::{Bounded, activate}};
/// let (x, gate) = (Bounded::exact(&[2.0f32, -2.0]), Bounded::exact(&[3.0f32, 3.0]));
/// let out = activate(&ActivationShape::new(2, Activation::Relu).gated(true), &x, Some(&gate))?;
/// assert_eq!(out.out, [6.0, 0.0]);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn activate(shape: &ActivationShape, x: &Bounded, gate: Option<&Bounded>) -> Result<Bounded> {
    shape.check()?;
    check_len("x", x, shape.len)?;
    check_optional("gate", gate, shape.gated, shape.len)?;
    let element = |n: usize| {
        let value = of(shape.activation, x.out[n], x.bound[n]);
        gate.map_or(value, |gate| times(value, (gate.out[n], gate.bound[n])))
    };
    let (out, bound) = (0..shape.len).map(element).unzip();
    Ok(Bounded { out, bound }.stored(shape.output))
}

/// A product of two numbers with errors, rounded. Nothing is promised where it may be more than f32 holds.
pub(super) fn times((a, of_a): (f64, f64), (b, of_b): (f64, f64)) -> (f64, f64) {
    let value = a * b;
    let passed = a.abs() * of_b + b.abs() * of_a + of_a * of_b;
    let rounding = if value.is_finite() { U * (value.abs() + passed) + TINY } else { 0.0 };
    let overflows = value.is_finite() && value.abs() + passed > 0.999 * f64::from(f32::MAX);
    settled((value, if overflows { f64::INFINITY } else { passed + rounding }))
}

/// Value and error at x, known up to `error`.
pub(in crate::reference) fn of(activation: Activation, x: f64, error: f64) -> (f64, f64) {
    let value = activation.value(x);
    if !x.is_finite() {
        // NaN and the limits; of a finite limit the kernel may miss the last digits.
        let of_limit = if value.is_finite() { 4.0 * ULP * value.abs() } else { 0.0 };
        return (value, error + of_limit);
    }
    let lipschitz = match activation {
        Activation::Relu | Activation::Tanh => 1.0,
        Activation::GeluErf | Activation::GeluTanh => 1.13,
        Activation::Silu | Activation::Mish => 1.1,
        Activation::QuickGelu => 1.11,
    };
    // The evaluation's error belongs to the x that the kernel had; it changes by less than 2^-12 of a change of x.
    let evaluation = evaluation_error(activation, x) + error * 2f64.powi(-12);
    (value, if activation == Activation::Relu { error } else { lipschitz * error + evaluation })
}

/// How far the kernel's function is from the true one at the same x. Results below the smallest normal number are 0.
fn evaluation_error(activation: Activation, x: f64) -> f64 {
    4.0 * TINY
        + match activation {
            Activation::Relu => 0.0,
            Activation::GeluErf => erf_error(x),
            Activation::GeluTanh => logistic_error(x, Activation::tanh_argument(x), 5),
            Activation::Silu => logistic_error(x, x, 0),
            Activation::Tanh => tanh_error(x.abs()),
            // The constant is rounded, and its product.
            Activation::QuickGelu => logistic_error(x, Activation::QUICK * x, 2),
            Activation::Mish => mish_error(x),
        }
}

/// Relative error of exp(-t) = exp(-r) 2^-k: the builtin's 3 + 2 |r| ULP, |r| <= 0.45, and less than 1.5 ULP of r's own
/// (a rounding of 0.4, one of the small part of k ln 2, and two of a rest below 0.1).
pub(super) const EXP: f64 = 5.5 * ULP;

/// x / (1 + exp(-s)) by z = exp(-|s|), where s carries `roundings` roundings: all terms of s have one sign, so its
/// relative error is gamma of them, and z's is |s| times that plus that of exp. sigmoid = 1 / (1 + z) or
/// z / (1 + z) passes on at most z / (1 + z), or 1, of z's relative error; adding, dividing (2.5 ULP) and multiplying
/// come on top.
fn logistic_error(x: f64, s: f64, roundings: usize) -> f64 {
    let s = s.clamp(-200.0, 200.0);
    let z = (-s.abs()).exp();
    let of_z = (s.abs() * gamma(roundings)).exp_m1() + EXP;
    let (sigmoid, passed) = if s >= 0.0 { (1.0 / (1.0 + z), of_z * z) } else { (z / (1.0 + z), of_z) };
    1.01 * x.abs() * sigmoid * (passed + 2.5 * ULP + 3.0 * U)
}

/// x below top / bottom, no term of which is negative: z moves the top by at most its own relative error, the bottom by twice that; one
/// rounding of the top, three of the bottom, the division, and three products at most, of which one has z again.
fn mish_error(x: f64) -> f64 {
    1.01 * Activation::Mish.value(x).abs() * (4.0 * EXP + 7.0 * U + 2.5 * ULP)
}

/// Coefficients of `gelu_erf` in the shader, from t^0 on.
const H: [f64; 10] = [
    8.5076123e-1,
    -8.285484e-3,
    -1.2427992e-1,
    1.3773637e-1,
    -7.9599075e-2,
    2.23004e-2,
    1.9983766e-3,
    -3.1347023e-3,
    2.797293e-5,
    2.9200042e-4,
];

/// x q or x (1 - q), q = exp(-y^2 / 2) P(t) / (1 + 2 y), P(t) = sum h_i t^i, t = (y - 3.5) / (y + 3.5), relative to q:
///
/// * the approximation itself, with the rounding of the h_i: 1.5 2^-24, tested below;
/// * t: two roundings and a division, tau; P moves by tau sum i |h_i| |t|^i;
/// * Horner's rule in fma, two roundings per step: sum gamma_{2i+2} |h_i| |t|^i;
/// * the exponential, a division, and two roundings of 1 + 2 y and of the product.
///
/// Then 1 - q and the last product.
fn erf_error(x: f64) -> f64 {
    let y = x.abs().min(15.0);
    let (h, of_h) = normal_tail(y);
    let relative = of_h + 1.01 * (EXP + gamma(1));
    let q = h * (-0.5 * y * y).exp();
    let of_factor = if x < 0.0 { q * relative } else { q * relative + U };
    1.01 * (x.abs() * of_factor + U * Activation::GeluErf.value(x).abs())
}

/// h(y) = P(t) / (1 + 2 y), and its relative error: all of the above but for the exponential and the product with it.
pub(super) fn normal_tail(y: f64) -> (f64, f64) {
    let t = (y - 3.5) / (y + 3.5);
    let tau = 2.0 * U + 2.5 * ULP;
    let (mut p, mut of_p) = (0.0, 0.0);
    for (i, h) in H.iter().enumerate() {
        let term = h * t.powi(i as i32);
        p += term;
        of_p += term.abs() * (tau * i as f64 + gamma(2 * i + 2));
    }
    (p / (1.0 + 2.0 * y), 1.01 * (of_p / p + 0.75 * U + 2.5 * ULP + gamma(1)))
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

    #[test]
    fn the_polynomial_is_as_good_as_the_bound_says() {
        for n in 0..=140_000 {
            let y = f64::from(n) * 1e-4;
            let t = (y - 3.5) / (y + 3.5);
            let p = H.iter().rev().fold(0.0, |p, &h| p * t + f64::from(h as f32));
            let q = p / (1.0 + 2.0 * y) * (-0.5 * y * y).exp();
            // Phi(-y) = gelu(-y) / -y
            let want = if n == 0 { 0.5 } else { Activation::GeluErf.value(-y) / -y };
            assert!((q / want - 1.0).abs() <= 0.75 * U, "y = {y}: {:e}", q / want - 1.0);
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
