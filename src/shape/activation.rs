//! Activations of a feed-forward layer.

use crate::layout::check_u32;
use crate::{ElementType, Result};

/// A function applied to each element between the two products of a feed-forward layer, or behind any product.
///
/// Every f32 has its right value: NaN stays NaN, an infinity gives the function's limit (`silu(-inf)` is 0, `gelu_erf(inf)` is
/// inf), and tails are right to a few units in the last place down to the smallest normal number, below which they are 0.
///
/// ```
/// use wgpu_attention::Activation;
/// assert_eq!(Activation::Relu.value(-2.0), 0.0);
/// assert!((Activation::GeluErf.value(1.0) - 0.8413447460685429).abs() < 1e-15);
/// assert_eq!("gelu_tanh".parse(), Ok(Activation::GeluTanh));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// max(x, 0).
    Relu,
    /// x Phi(x) = x (1 + erf(x / sqrt 2)) / 2 (Hendrycks 2016): `gelu` of PyTorch and BERT.
    GeluErf,
    /// x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2: `gelu_new` of GPT-2, `gelu_pytorch_tanh`.
    GeluTanh,
    /// x / (1 + exp(-x)) (Elfwing 2017), also called swish.
    Silu,
    /// tanh(x): of BERT's pooled output.
    Tanh,
    /// x / (1 + exp(-1.702 x)) (Hendrycks 2016, section 2): of CLIP.
    QuickGelu,
    /// x tanh(ln(1 + exp(x))) (Misra 2019).
    Mish,
}

impl Activation {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Relu, Self::GeluErf, Self::GeluTanh, Self::Silu, Self::Tanh, Self::QuickGelu, Self::Mish];

    /// `relu`, `gelu_erf`, `gelu_tanh`, `silu`, `tanh`, `quick_gelu` or `mish`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::GeluErf => "gelu_erf",
            Self::GeluTanh => "gelu_tanh",
            Self::Silu => "silu",
            Self::Tanh => "tanh",
            Self::QuickGelu => "quick_gelu",
            Self::Mish => "mish",
        }
    }

    /// The function in f64. NaN gives NaN, an infinity the limit.
    pub fn value(self, x: f64) -> f64 {
        match (self, x) {
            (_, x) if x.is_nan() => x,
            (Self::Tanh, x) => x.tanh(),
            (Self::Relu, x) => x.max(0.0),
            // 0 times an infinity is not the limit.
            (_, f64::NEG_INFINITY) => 0.0,
            (_, f64::INFINITY) => x,
            // Both halves without cancellation: for x < 0 this is x Phi(x) with the small tail itself.
            (Self::GeluErf, x) => {
                x.max(0.0) - x.abs() * 0.5 * erfc(x.abs() * std::f64::consts::FRAC_1_SQRT_2)
            }
            (Self::GeluTanh, x) => x * sigmoid(Self::tanh_argument(x)),
            (Self::Silu, x) => x * sigmoid(x),
            (Self::QuickGelu, x) => x * sigmoid(Self::QUICK * x),
            (Self::Mish, x) => {
                let MishTerms { top, bottom, below, .. } = MishTerms::of(x);
                x * below * top / bottom
            }
        }
    }

    /// The derivative in f64. NaN gives NaN, an infinity the limit; that of ReLU at 0 is 0.
    ///
    /// ```
    /// use wgpu_attention::Activation;
    /// assert_eq!((Activation::Relu.slope(0.0), Activation::Silu.slope(0.0)), (0.0, 0.5));
    /// assert_eq!(Activation::GeluErf.slope(f64::NEG_INFINITY), 0.0);
    /// ```
    pub fn slope(self, x: f64) -> f64 {
        match (self, x) {
            (_, x) if x.is_nan() => x,
            (Self::Tanh, x) => 4.0 * sigmoid(2.0 * x) * sigmoid(-2.0 * x),
            (Self::Relu, x) => f64::from(u8::from(x > 0.0)),
            (_, f64::NEG_INFINITY) => 0.0,
            (_, f64::INFINITY) => 1.0,
            // phi(x) x + Phi(x), the small tail itself as above.
            (Self::GeluErf, x) => {
                let y = x.abs();
                let density = (-0.5 * y * y).exp() / (2.0 * std::f64::consts::PI).sqrt();
                let below = 0.5 * erfc(y * std::f64::consts::FRAC_1_SQRT_2) - y * density;
                if x < 0.0 { below } else { 1.0 - below }
            }
            (Self::GeluTanh, x) => {
                logistic_slope(Self::tanh_argument(x), Self::tanh_argument(x) + 2.0 * Self::tanh_cube(x))
            }
            (Self::Silu, x) => logistic_slope(x, x),
            (Self::QuickGelu, x) => logistic_slope(Self::QUICK * x, Self::QUICK * x),
            (Self::Mish, x) => {
                let MishTerms { top, bottom, below, curved } = MishTerms::of(x);
                below * (top / bottom + curved)
            }
        }
    }

    /// The factor in the exponent of [`Self::QuickGelu`].
    pub(crate) const QUICK: f64 = 1.702;

    /// (1 + tanh(y)) / 2 = sigmoid(2 y): the 2 y of the tanh form.
    pub(crate) fn tanh_argument(x: f64) -> f64 {
        (8.0 / std::f64::consts::PI).sqrt() * x + Self::tanh_cube(x)
    }

    /// Its cubic part: x times the derivative of the argument has it three times.
    fn tanh_cube(x: f64) -> f64 {
        (8.0 / std::f64::consts::PI).sqrt() * 0.044715 * x * x * x
    }
}

/// What Mish and its derivative are made of, by z = exp(-|x|), so that nothing overflows or cancels: tanh(ln(1 + e^x)) is
/// `below` `top` / `bottom`, and the derivative `below` (`top` / `bottom` + `curved`).
pub(crate) struct MishTerms {
    pub(crate) top: f64,
    pub(crate) bottom: f64,
    /// z for x below 0, 1 above.
    pub(crate) below: f64,
    /// x times the derivative of the hyperbolic tangent, without `below`.
    pub(crate) curved: f64,
}

impl MishTerms {
    pub(crate) fn of(x: f64) -> Self {
        let z = (-x.abs()).exp();
        let (top, bottom, below, power) = match x >= 0.0 {
            true => (1.0 + 2.0 * z, 1.0 + 2.0 * z * (1.0 + z), 1.0, z * z),
            false => (2.0 + z, 2.0 + z * (2.0 + z), z, 1.0),
        };
        // x grows slower than z falls.
        let curved = if z == 0.0 { 0.0 } else { 4.0 * x * (1.0 + z) * power / (bottom * bottom) };
        Self { top, bottom, below, curved }
    }
}

/// An activation of every element of a tensor by itself, with or without a gate:
///
/// ```text
/// out = act(x)            out = act(x) * gate        x, gate, out [len]
/// ```
///
/// Behind a product, [`MatmulShape::activation`](crate::MatmulShape::activation) costs no pass of its own.
///
/// ```
/// use wgpu_attention::{Activation, ActivationShape};
/// let shape = ActivationShape::new(512 * 3072, Activation::Silu).gated(true);
/// shape.check()?;
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ActivationShape {
    /// Elements. May be 0: then nothing is written.
    pub len: usize,
    /// The function act.
    pub activation: Activation,
    /// Whether act(x) is multiplied by a gate.
    pub gated: bool,
    /// Storage of x and the gate, and of their gradients.
    pub input: ElementType,
    /// Storage of out, and of its gradient.
    pub output: ElementType,
}

impl ActivationShape {
    /// Of `len` elements of f32, without a gate.
    pub fn new(len: usize, activation: Activation) -> Self {
        Self { len, activation, gated: false, input: ElementType::F32, output: ElementType::F32 }
    }

    setters! {
        /// Sets whether there is a gate.
        gated: bool,
        /// Sets the storage of x and the gate, and of their gradients.
        input: ElementType,
        /// Sets the storage of out, and of its gradient.
        output: ElementType,
    }

    /// Checks everything that can be said without a device.
    ///
    /// # Errors
    /// [`Error::Limit`](crate::Error::Limit) where an element offset would pass 32 bits.
    pub fn check(&self) -> Result<()> {
        check_u32("len", self.len as u128)
    }
}

impl std::fmt::Display for Activation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Activation {
    type Err = crate::Error;

    fn from_str(name: &str) -> crate::Result<Self> {
        Self::ALL.into_iter().find(|activation| activation.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            crate::Error::argument("activation", format!("one of {names}"), format!("`{name}`"))
        })
    }
}

/// 1 / (1 + exp(-x)), precise to the last digits on both sides.
fn sigmoid(x: f64) -> f64 {
    let z = (-x.abs()).exp();
    if x >= 0.0 { 1.0 / (1.0 + z) } else { z / (1.0 + z) }
}

/// The derivative of x sigmoid(s): sigmoid(s) (1 + u sigmoid(-s)), u = x ds / dx. Where s is huge, the sigmoids win over u.
fn logistic_slope(s: f64, u: f64) -> f64 {
    match (sigmoid(s), sigmoid(-s)) {
        (0.0, _) => 0.0,
        (own, 0.0) => own,
        (own, other) => own * (1.0 + u * other),
    }
}

/// erfc(x) for x >= 0. Up to 2.5 by 1 - erf with the series of positive terms
/// erf(x) = 2 / sqrt(pi) exp(-x^2) sum_n 2^n x^(2n+1) / (2n+1)!!, beyond by the continued fraction
/// erfc(x) = exp(-x^2) / sqrt(pi) / (x + (1/2) / (x + (2/2) / (x + (3/2) / (x + ...)))) (Abramowitz & Stegun 7.1.6, 7.1.14).
fn erfc(x: f64) -> f64 {
    let scale = (-x * x).exp() / std::f64::consts::PI.sqrt();
    if x < 2.5 {
        let (mut term, mut sum) = (x, x);
        for n in 1..120 {
            term *= 2.0 * x * x / (2 * n + 1) as f64;
            sum += term;
        }
        return 1.0 - 2.0 * scale * sum;
    }
    if x > 40.0 {
        return 0.0; // below the smallest f64; and x^2 must not overflow
    }
    let fraction = (1..=200).rev().fold(x, |below, n| x + 0.5 * f64::from(n) / below);
    scale / fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erfc_has_its_known_values_and_no_step_where_the_methods_meet() {
        // From tables of 15 and more digits.
        for (x, want) in [
            (0.0, 1.0),
            (0.5, 0.4795001221869535),
            (1.0, 0.15729920705028513),
            (2.0, 0.004677734981047266),
            (3.0, 2.209049699858544e-5),
            (5.0, 1.537_459_794_428_035e-12),
        ] {
            assert!((erfc(x) - want).abs() <= 4e-16 + 1e-14 * want, "erfc({x}) = {:e}", erfc(x));
        }
        assert!((erfc(2.5 - 1e-12) / erfc(2.5) - 1.0).abs() < 1e-10);
        assert_eq!(erfc(1e300), 0.0);
    }

    #[test]
    fn slopes_are_those_of_the_values() {
        for kind in Activation::ALL {
            for n in -2999..3000 {
                let x = f64::from(n) * 0.0103 + 0.0007;
                // Error of the central difference: step^2 / 6 times the third derivative, below 4.
                let step = 1e-4;
                let difference = (kind.value(x + step) - kind.value(x - step)) / (2.0 * step);
                let found = kind.slope(x);
                assert!((found - difference).abs() < 1e-8, "{kind} at {x}: {found} instead of {difference}");
            }
            for x in [1e3, 1e200, f64::MAX, f64::INFINITY] {
                let limit = if kind == Activation::Tanh { 0.0 } else { 1.0 };
                assert_eq!((kind.slope(x), kind.slope(-x)), (limit, 0.0), "{kind} at {x}");
            }
            assert!(kind.slope(f64::NAN).is_nan(), "{kind}");
        }
        assert_eq!(Activation::Relu.slope(0.0), 0.0);
    }

    #[test]
    fn activations_follow_their_formulas() {
        for n in -60..=60 {
            let x = f64::from(n) / 10.0;
            let tanh = 0.5 * x * (1.0 + (0.5 * Activation::tanh_argument(x)).tanh());
            assert!((Activation::GeluTanh.value(x) - tanh).abs() < 1e-14);
            assert!((Activation::Silu.value(x) - x / (1.0 + (-x).exp())).abs() < 1e-14);
            assert!((Activation::QuickGelu.value(x) - x / (1.0 + (-1.702 * x).exp())).abs() < 1e-14);
            assert!((Activation::Mish.value(x) - x * x.exp().ln_1p().tanh()).abs() < 1e-14);
            // The tanh form is known to be within 5e-4 of the erf form.
            assert!((Activation::GeluErf.value(x) - tanh).abs() < 5e-4);
        }
        for activation in Activation::ALL {
            assert_eq!(activation.name().parse(), Ok(activation));
        }
        for (kind, low, high) in [
            (Activation::Relu, 0.0, f64::INFINITY),
            (Activation::GeluErf, 0.0, f64::INFINITY),
            (Activation::GeluTanh, 0.0, f64::INFINITY),
            (Activation::Silu, 0.0, f64::INFINITY),
            (Activation::Tanh, -1.0, 1.0),
            (Activation::QuickGelu, 0.0, f64::INFINITY),
            (Activation::Mish, 0.0, f64::INFINITY),
        ] {
            assert_eq!((kind.value(f64::NEG_INFINITY), kind.value(f64::INFINITY)), (low, high), "{kind}");
            assert!(kind.value(f64::NAN).is_nan(), "{kind}");
        }
        assert!("gelu".parse::<Activation>().unwrap_err().to_string().contains("gelu_erf"));
    }
}
