//! Gradients through activations, and the error of the kernels' way to compute them (`shaders/lib/slope.wgsl`).

use super::super::activation::{self as forward, EXP};
use super::super::{Bounded, TINY, U, ULP, check_len, check_optional, gamma};
use crate::shape::MishTerms;
use crate::{Activation, ActivationShape, Result};

/// What [`activation_backward`] returns.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ActivationGradients {
    /// The gradient by x.
    pub dx: Bounded,
    /// The gradient by the gate, if there is one.
    pub dgate: Option<Bounded>,
}

/// The gradients of sum(dout out), out = act(x) or act(x) gate: dx = dout gate act'(x), dgate = dout act(x).
///
/// The error of act' has two parts, as that of act has: an error of x times the second derivative's largest value (0.8 for both
/// forms of GELU, 0.86 for the quick one, 0.5 for SiLU, 0.77 for tanh, 0.65 for Mish), and what the evaluation adds: the derivation for each function is beside the code.
/// ReLU's derivative is exact, unless an error of x leaves its sign open. Every product is one rounding.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) for a tensor that is too short, missing or not asked for, and as [`ActivationShape::check`].
///
/// ```
/// use wgpu_attention::{Activation, ActivationShape, reference::layer::{Bounded, backward::activation_backward}};
/// let (x, gate, dout) = (Bounded::exact(&[2.0f32]), Bounded::exact(&[3.0f32]), Bounded::exact(&[5.0f32]));
/// let shape = ActivationShape::new(1, Activation::Relu).gated(true);
/// let gradients = activation_backward(&shape, &x, Some(&gate), &dout)?;
/// assert_eq!(gradients.dx.out, [15.0]);
/// assert_eq!(gradients.dgate.map(|dgate| dgate.out), Some(vec![10.0]));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn activation_backward(
    shape: &ActivationShape,
    x: &Bounded,
    gate: Option<&Bounded>,
    dout: &Bounded,
) -> Result<ActivationGradients> {
    shape.check()?;
    check_len("x", x, shape.len)?;
    check_optional("gate", gate, shape.gated, shape.len)?;
    check_len("dout", dout, shape.len)?;
    let kind = shape.activation;
    let of = |tensor: &Bounded, n: usize| (tensor.out[n], tensor.bound[n]);
    let dx = (0..shape.len).map(|n| {
        let d = gate.map_or(of(dout, n), |gate| forward::times(of(dout, n), of(gate, n)));
        sloped(kind, of(x, n), d)
    });
    let (out, bound) = dx.unzip();
    let dx = Bounded { out, bound }.stored(shape.input);
    let dgate = gate.map(|_| {
        let act = |n| forward::of(kind, x.out[n], x.bound[n]);
        let (out, bound) = (0..shape.len).map(|n| forward::times(of(dout, n), act(n))).unzip();
        Bounded { out, bound }.stored(shape.input)
    });
    Ok(ActivationGradients { dx, dgate })
}

/// d act'(x).
pub(super) fn sloped(kind: Activation, (x, of_x): (f64, f64), (d, of_d): (f64, f64)) -> (f64, f64) {
    if kind != Activation::Relu {
        return forward::times((d, of_d), slope(kind, x, of_x));
    }
    match x {
        x if x.is_nan() => (x, 0.0),
        // The sign that the kernel saw may be another; what it gives is d or 0.
        x if of_x > 0.0 && x.abs() <= of_x => (if x > 0.0 { d } else { 0.0 }, d.abs() + of_d),
        x if x > 0.0 => (d, of_d),
        _ => (0.0, 0.0),
    }
}

/// The derivative at x, known up to `error`, and its error; not of ReLU.
fn slope(kind: Activation, x: f64, error: f64) -> (f64, f64) {
    let value = kind.slope(x);
    if !x.is_finite() {
        return (value, error + if x.is_nan() { 0.0 } else { 4.0 * ULP * value });
    }
    let largest = match kind {
        Activation::Relu => 0.0,
        Activation::GeluErf | Activation::GeluTanh => 0.8,
        Activation::Silu => 0.5,
        Activation::Tanh => 0.77,
        Activation::QuickGelu => 0.86,
        Activation::Mish => 0.65,
    };
    // The evaluation's error belongs to the x that the kernel had; it changes by less than 2^-10 of a change of x.
    (value, largest * error + evaluation_error(kind, x) + error * 2f64.powi(-10))
}

/// How far the kernel's derivative is from the true one at the same x. Results below the smallest normal number are 0.
fn evaluation_error(kind: Activation, x: f64) -> f64 {
    4.0 * TINY
        + match kind {
            Activation::Relu => 0.0,
            Activation::GeluErf => erf_error(x),
            Activation::GeluTanh => {
                let s = Activation::tanh_argument(x);
                logistic_error(s, s + 2.0 * (s - LINEAR * x), 5)
            }
            Activation::Silu => logistic_error(x, x, 0),
            Activation::Tanh => tanh_error(x.abs()),
            // The constant is rounded, and its product.
            Activation::QuickGelu => logistic_error(Activation::QUICK * x, Activation::QUICK * x, 2),
            Activation::Mish => mish_error(x),
        }
}

/// sqrt(8 / pi): the linear part of the argument of GELU's tanh form.
const LINEAR: f64 = 1.595_769_121_605_731;

/// n / (1 + z)^2 above, z n / (1 + z)^2 below, by z = exp(-|s|), where s and u carry `roundings` each, all of whose terms have one
/// sign: n = 1 + z + u z above, 1 + z + u below.
///
/// z is off by |s| gamma and by exp's. n gets what z does to it, u's roundings, one of 1 + z, one of the sum: absolute, for its terms
/// cancel below 0. (1 + z)^2 has twice that of 1 + z and a rounding; the division 2.5 ULP; the product with z z's own error and a rounding.
fn logistic_error(s: f64, u: f64, roundings: usize) -> f64 {
    let (s, u) = (s.clamp(-200.0, 200.0), u.clamp(-3e5, 3e5).abs());
    let z = (-s.abs()).exp();
    let of_z = (s.abs() * gamma(roundings)).exp_m1() + EXP;
    let whole = 1.0 + z;
    let of_whole = z * of_z / whole + U;
    let (terms, moved) = if s >= 0.0 { (whole + u * z, z * of_z * (1.0 + u)) } else { (whole + u, z * of_z) };
    let u_moved = gamma(roundings) * if s >= 0.0 { u * z } else { u };
    let of_n = moved + u_moved + 2.0 * U * terms;
    let quotient = terms / (whole * whole);
    let of_quotient = of_n / (whole * whole) + quotient * (2.0 * of_whole + U + 2.5 * ULP);
    1.01 * if s >= 0.0 { of_quotient } else { z * (of_quotient + quotient * (of_z + U)) }
}

/// e w below 0, 1 - e w above, e = exp(-y^2 / 2), w = h(y) - y / sqrt(2 pi): h as in the forward pass, the constant and the sum
/// rounded once each, absolute, for w changes its sign; the exponential and two products.
fn erf_error(x: f64) -> f64 {
    let y = x.abs().min(15.0);
    let (h, of_h) = forward::normal_tail(y);
    let density = y / (2.0 * std::f64::consts::PI).sqrt();
    let of_w = h * of_h + 2.0 * U * (h + density);
    let e = (-0.5 * y * y).exp();
    let tail = e * (of_w + (h - density).abs() * (EXP + U));
    1.01 * if x < 0.0 { tail } else { tail + 1.2 * U }
}

/// 4 z / (1 + z)^2, z = exp(-2 y): z's error twice, less what cancels; 1 + z, its square, the division, the product.
fn tanh_error(y: f64) -> f64 {
    let value = Activation::Tanh.slope(y);
    1.01 * value * (3.0 * EXP + 4.0 * U + 2.5 * ULP)
}

/// below (top / bottom + curved): the first as in the forward pass; of the second, z is in 1 + z, twice in either bottom, and twice above 0, and
/// there are twelve roundings and a division. Then the sum, absolute, for its terms cancel below 0, and z once more.
fn mish_error(x: f64) -> f64 {
    let MishTerms { top, bottom, below, curved } = MishTerms::of(x.clamp(-200.0, 200.0));
    let (first, second) = (top / bottom, curved.abs());
    let of_first = first * (3.0 * EXP + 5.0 * U + 2.5 * ULP);
    let of_second = second * (7.0 * EXP + 12.0 * U + 2.5 * ULP);
    1.01 * below * (of_first + of_second + (first + second) * (EXP + 2.0 * U))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_derivatives_are_below_the_constants() {
        for kind in Activation::ALL.into_iter().filter(|kind| *kind != Activation::Relu) {
            for n in -1000..1000 {
                let (x, step) = (f64::from(n) * 0.01, 1e-3);
                let change = (kind.slope(x + step) - kind.slope(x)).abs();
                assert!(change <= slope(kind, x, step).1 + 1e-14, "{kind} at {x}");
                let (own, next) = (evaluation_error(kind, x), evaluation_error(kind, x + step));
                assert!((own - next).abs() <= step * 2f64.powi(-10), "{kind} at {x}");
            }
        }
    }

    #[test]
    fn an_open_sign_is_open() {
        let x = Bounded { out: vec![1e-7, 1e-3, -1e-3, 0.0], bound: vec![1e-6, 1e-6, 1e-6, 0.0] };
        let d = Bounded::exact(&[3.0f32; 4]);
        let shape = ActivationShape::new(4, Activation::Relu);
        let dx = activation_backward(&shape, &x, None, &d).unwrap().dx;
        assert_eq!(dx.out, [3.0, 3.0, 0.0, 0.0]);
        assert!(dx.bound[0] >= 3.0 && dx.bound[1..].iter().all(|&bound| bound < 1e-30), "{:?}", dx.bound);
    }
}
