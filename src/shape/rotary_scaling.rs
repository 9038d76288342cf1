//! The angles of a rotary embedding, and how they are scaled for contexts that are longer than those trained on.

use crate::{Error, Result};
use std::f64::consts::TAU;

/// How frequencies are scaled. Names are those of Hugging Face's `rope_scaling`; f_k = base^(-2k/r), with r elements that turn, k = 0 .. r/2.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum RotaryScaling {
    /// f_k as they are.
    #[default]
    None,
    /// `linear`: f_k / factor, which is a position's place between two that were trained on (Chen 2023).
    Linear {
        /// By how much the context is extended: at least 1.
        factor: f64,
    },
    /// NTK-aware: the base becomes base factor^(r / (r - 2)), so that the lowest frequency is divided by factor and the highest stays.
    Ntk {
        /// By how much the context is extended: at least 1.
        factor: f64,
    },
    /// `dynamic`: NTK-aware, with the factor of the present length, factor max(len, original) / original - (factor - 1).
    Dynamic {
        /// By how much the context is extended: at least 1.
        factor: f64,
        /// Positions that were trained on.
        original_len: usize,
        /// Positions that there are.
        len: usize,
    },
    /// `yarn`.
    Yarn(Yarn),
    /// `llama3`: with wavelengths w_k = 2 pi / f_k, f_k below original / high, f_k / factor above original / low, and in between a mean
    /// of the two, by how far original / w_k is on the way from low to high (Llama 3.1).
    Llama3 {
        /// By how much the context is extended: at least 1.
        factor: f64,
        /// low of the formula, above 0.
        low_freq_factor: f64,
        /// high of the formula, above low.
        high_freq_factor: f64,
        /// Positions that were trained on.
        original_len: usize,
    },
}

/// YaRN (Peng 2023): what turns often stays, what turns less than once over the trained length is divided by the factor,
///
/// ```text
/// d(n) = r ln(original / (2 pi n)) / (2 ln base)              the pair that turns n times
/// ramp_k = (k - d(fast)) / (d(slow) - d(fast)), within 0 .. 1       d(fast) rounded down, d(slow) up where truncate, within 0 .. r - 1
/// f_k ramp_k / factor + f_k (1 - ramp_k)
/// ```
///
/// and cos and sin are multiplied by the attention factor, 0.1 ln(factor) + 1 if nothing else is said.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Yarn {
    /// By how much the context is extended: at least 1.
    pub factor: f64,
    /// Positions that were trained on.
    pub original_len: usize,
    /// fast of the formula: 32 in the paper.
    pub beta_fast: f64,
    /// slow of the formula: 1 in the paper.
    pub beta_slow: f64,
    /// What cos and sin are multiplied by, if it is not that of the formula.
    pub attention_factor: Option<f64>,
    /// `mscale` and `mscale_all_dim`: where both are given, the attention factor is (0.1 mscale ln(factor) + 1) / (0.1 mscale_all_dim ln(factor) + 1),
    /// as in DeepSeek's models.
    pub mscale: Option<[f64; 2]>,
    /// Whether the ramp's ends are whole numbers, as Hugging Face has it; gpt-oss has false.
    pub truncate: bool,
}

impl Yarn {
    /// With what the paper says for the rest.
    pub fn new(factor: f64, original_len: usize) -> Self {
        let (attention_factor, mscale) = (None, None);
        Self {
            factor,
            original_len,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor,
            mscale,
            truncate: true,
        }
    }

    setters! {
        /// Sets beta_fast: pairs that turn this often or more over the trained length stay as they are.
        beta_fast: f64,
        /// Sets beta_slow: pairs that turn this seldom or less are divided by the factor.
        beta_slow: f64,
        /// Sets what cos and sin are multiplied by.
        attention_factor: Option<f64>,
        /// Sets `mscale` and `mscale_all_dim`.
        mscale: Option<[f64; 2]>,
        /// Sets whether the ramp's ends are whole numbers.
        truncate: bool,
    }

    fn attention_factor_value(&self) -> f64 {
        let of = |mscale: f64| 0.1 * mscale * self.factor.ln() + 1.0;
        let formula = || self.mscale.map_or(of(1.0), |[own, all]| of(own) / of(all));
        self.attention_factor.unwrap_or_else(formula)
    }

    /// How much of f_k is divided by the factor: 0 to 1.
    fn ramp(&self, k: usize, dim: usize, base: f64) -> f64 {
        let pair =
            |turns: f64| dim as f64 * (self.original_len as f64 / (turns * TAU)).ln() / (2.0 * base.ln());
        let (mut low, mut high) = (pair(self.beta_fast), pair(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(dim as f64 - 1.0));
        if low == high {
            high += 0.001;
        }
        ((k as f64 - low) / (high - low)).clamp(0.0, 1.0)
    }

    fn check(&self) -> Result<()> {
        if !(self.beta_slow > 0.0 && self.beta_fast > self.beta_slow && self.beta_fast.is_finite()) {
            let got = format!("{} and {}", self.beta_fast, self.beta_slow);
            return Err(Error::argument(
                "beta_fast",
                "a finite number above beta_slow, which is above 0",
                got,
            ));
        }
        let factor = self.attention_factor_value();
        match factor.is_finite() && factor > 0.0 {
            true => Ok(()),
            false => Err(Error::argument("attention_factor", "a finite number above 0", factor)),
        }
    }
}

/// The angles of a rotary embedding: pair k of the row at position p turns by p f_k, and cos and sin are multiplied by the attention factor, which is 1 but
/// for [`Yarn`].
///
/// ```
/// use wgpu_attention::{RotaryAngles, RotaryScaling};
/// let scaling = RotaryScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_len: 8192 };
/// let angles = RotaryAngles::new(128, 500_000.0).scaling(scaling); // Llama 3.1
/// let f = angles.inverse_frequencies();
/// assert_eq!((f.len(), f[0]), (64, 1.0));
/// let plain = RotaryAngles::new(128, 500_000.0).inverse_frequencies();
/// assert_eq!(f[63], plain[63] / 8.0);
/// let [cos, _] = angles.tables(1_000_000, 2);
/// assert_eq!(cos[0], 1e6f64.cos() as f32);
/// assert!(RotaryAngles::new(5, 1e4).check().unwrap_err().to_string().contains("dim"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct RotaryAngles {
    /// Elements of a row that turn, r, even.
    pub dim: usize,
    /// The base of the frequencies: `rope_theta`.
    pub base: f64,
    /// How frequencies are scaled.
    pub scaling: RotaryScaling,
}

impl RotaryAngles {
    /// Frequencies as they are.
    pub fn new(dim: usize, base: f64) -> Self {
        Self { dim, base, scaling: RotaryScaling::None }
    }

    setters! {
        /// Sets how frequencies are scaled.
        scaling: RotaryScaling,
    }

    /// The frequencies in radians per position, `[r/2]`: Hugging Face's `inv_freq`.
    pub fn inverse_frequencies(&self) -> Vec<f64> {
        let (dim, base) = (self.dim, self.base);
        let of = |base: f64| (0..dim / 2).map(move |k| base.powf(-2.0 * k as f64 / dim as f64));
        let ntk = |factor: f64| base * factor.powf(dim as f64 / (dim as f64 - 2.0));
        match self.scaling {
            RotaryScaling::None => of(base).collect(),
            RotaryScaling::Linear { factor } => of(base).map(|f| f / factor).collect(),
            RotaryScaling::Ntk { factor } => of(ntk(factor)).collect(),
            RotaryScaling::Dynamic { factor, original_len, len } => {
                let ratio = len.max(original_len) as f64 / original_len as f64;
                of(ntk(factor * ratio - (factor - 1.0))).collect()
            }
            RotaryScaling::Yarn(yarn) => {
                let scaled = |(k, f)| {
                    let ramp = yarn.ramp(k, dim, base);
                    f / yarn.factor * ramp + f * (1.0 - ramp)
                };
                of(base).enumerate().map(scaled).collect()
            }
            RotaryScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_len } => {
                let (low, high) = (low_freq_factor, high_freq_factor);
                let scaled = |f: f64| {
                    // Turns over the trained length.
                    let turns = original_len as f64 / (TAU / f);
                    let stays = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    (1.0 - stays) * (f / factor) + stays * f
                };
                of(base).map(scaled).collect()
            }
        }
    }

    /// What cos and sin are multiplied by.
    pub fn attention_factor(&self) -> f64 {
        match self.scaling {
            RotaryScaling::Yarn(yarn) => yarn.attention_factor_value(),
            _ => 1.0,
        }
    }

    /// cos and sin of `len` positions from `first` on, each `[len, r/2]`, computed in f64. On the device they are
    /// [`Kernels::rotary_tables`](crate::Kernels::rotary_tables)'.
    pub fn tables(&self, first: usize, len: usize) -> [Vec<f32>; 2] {
        let (frequencies, factor) = (self.inverse_frequencies(), self.attention_factor());
        let of = |f: fn(f64) -> f64| {
            let rows = (0..len).flat_map(|t| frequencies.iter().map(move |&w| (first + t) as f64 * w));
            rows.map(|angle| (f(angle) * factor) as f32).collect()
        };
        [f64::cos, f64::sin].map(of)
    }

    /// Checks everything that can be said without a device.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that is odd or 0 (or 2 where the base is scaled), and for what no formula can be computed of.
    pub fn check(&self) -> Result<()> {
        let finite_above = |name: &'static str, x: f64, least: f64, or_equal: bool| {
            let right = x.is_finite() && (x > least || or_equal && x == least);
            let need = if or_equal { "a finite number, at least" } else { "a finite number above" };
            if right { Ok(()) } else { Err(Error::argument(name, format!("{need} {least}"), x)) }
        };
        let trained = |len: usize| match len {
            0 => Err(Error::argument("original_len", "at least 1", 0)),
            _ => Ok(()),
        };
        let scales_base = matches!(self.scaling, RotaryScaling::Ntk { .. } | RotaryScaling::Dynamic { .. });
        let least = if scales_base { 4 } else { 2 };
        if self.dim < least || !self.dim.is_multiple_of(2) {
            return Err(Error::argument("dim", format!("an even number, at least {least}"), self.dim));
        }
        finite_above("base", self.base, 1.0, false)?;
        match self.scaling {
            RotaryScaling::None => Ok(()),
            RotaryScaling::Linear { factor } | RotaryScaling::Ntk { factor } => {
                finite_above("factor", factor, 1.0, true)
            }
            RotaryScaling::Dynamic { factor, original_len, .. } => {
                finite_above("factor", factor, 1.0, true)?;
                trained(original_len)
            }
            RotaryScaling::Yarn(yarn) => {
                finite_above("factor", yarn.factor, 1.0, true)?;
                trained(yarn.original_len)?;
                yarn.check()
            }
            RotaryScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_len } => {
                finite_above("factor", factor, 1.0, true)?;
                finite_above("low_freq_factor", low_freq_factor, 0.0, false)?;
                finite_above("high_freq_factor", high_freq_factor, low_freq_factor, false)?;
                trained(original_len)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the formulas as published, in another program's f64; pairs and their frequencies.
    #[test]
    fn frequencies_are_those_of_the_papers() {
        let yarn = |factor, len| RotaryScaling::Yarn(Yarn::new(factor, len));
        let llama3 = RotaryScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_len: 8192,
        };
        let dynamic = |len| RotaryScaling::Dynamic { factor: 2.0, original_len: 4096, len };
        let gpt_oss = RotaryScaling::Yarn(Yarn::new(32.0, 4096).truncate(false));
        let cases: [(_, _, _, &[(usize, f64)]); 8] = [
            (
                128,
                1e4,
                RotaryScaling::Linear { factor: 4.0 },
                &[(1, 0.21649108084001634), (63, 2.8869549617236455e-05)],
            ),
            (
                128,
                1e4,
                RotaryScaling::Ntk { factor: 8.0 },
                &[(0, 1.0), (20, 0.02906061266784856), (63, 1.4434774808618228e-05)],
            ),
            (128, 1e4, dynamic(12288), &[(20, 0.033736867892748566), (63, 2.3095639693789162e-05)]),
            (128, 1e4, dynamic(100), &[(1, 0.8659643233600653), (63, 0.00011547819846894582)]),
            (
                128,
                1e6,
                yarn(4.0, 32768),
                &[
                    (20, 0.01333521432163324),
                    (30, 0.0010643609812470017),
                    (40, 4.445698525097307e-05),
                    (63, 3.102344401879299e-07),
                ],
            ),
            (
                64,
                1e4,
                yarn(40.0, 4096),
                &[(9, 0.07498942093324558), (15, 0.008334508951020777), (22, 0.0001778279410038922)],
            ),
            (
                64,
                150000.0,
                gpt_oss,
                &[
                    (7, 0.07374456821026082),
                    (8, 0.050813274815461475),
                    (12, 0.006794959489732219),
                    (17, 0.00012931870124506317),
                    (31, 3.0235114281192144e-07),
                ],
            ),
            (
                128,
                500000.0,
                llama3,
                &[
                    (20, 0.016560440080994446),
                    (28, 0.003211445994752591),
                    (30, 0.0013718935677611381),
                    (34, 0.0001785078127679964),
                    (63, 3.068925988914511e-07),
                ],
            ),
        ];
        for (dim, base, scaling, expected) in cases {
            let angles = RotaryAngles::new(dim, base).scaling(scaling);
            angles.check().unwrap();
            let got = angles.inverse_frequencies();
            assert_eq!(got.len(), dim / 2);
            for &(k, f) in expected {
                assert!((got[k] / f - 1.0).abs() < 1e-13, "{scaling:?}, pair {k}: {} is not {f}", got[k]);
            }
        }
    }

    #[test]
    fn attention_factors_are_those_of_yarn() {
        let of = |yarn| RotaryAngles::new(64, 1e4).scaling(RotaryScaling::Yarn(yarn)).attention_factor();
        assert!((of(Yarn::new(4.0, 32768)) - 1.138629436111989).abs() < 1e-14);
        assert_eq!(of(Yarn::new(1.0, 32768)), 1.0);
        let deepseek = Yarn::new(40.0, 4096);
        assert!((of(deepseek.mscale(Some([1.0, 0.8]))) - 1.0569662567531275).abs() < 1e-14);
        assert_eq!(of(deepseek.mscale(Some([0.707, 0.707]))), 1.0);
        assert_eq!(of(deepseek.attention_factor(Some(1.5))), 1.5);
        assert_eq!(RotaryAngles::new(64, 1e4).attention_factor(), 1.0);
        let angles = RotaryAngles::new(64, 1e4).scaling(RotaryScaling::Yarn(Yarn::new(4.0, 32768)));
        assert_eq!(angles.tables(0, 1)[0][5], 1.138629436111989f64 as f32);
    }

    #[test]
    fn what_no_formula_can_be_computed_of_is_refused() {
        let of = |scaling| RotaryAngles::new(64, 1e4).scaling(scaling);
        let llama3 = |low_freq_factor, high_freq_factor| RotaryScaling::Llama3 {
            factor: 8.0,
            low_freq_factor,
            high_freq_factor,
            original_len: 8192,
        };
        for (angles, words) in [
            (RotaryAngles::new(0, 1e4), "dim: need an even number, at least 2, got 0"),
            (RotaryAngles::new(7, 1e4), "dim: need an even number, at least 2, got 7"),
            (RotaryAngles::new(64, 1.0), "base: need a finite number above 1, got 1"),
            (RotaryAngles::new(64, f64::NAN), "base: need a finite number above 1, got NaN"),
            (of(RotaryScaling::Linear { factor: 0.5 }), "factor: need a finite number, at least 1, got 0.5"),
            (
                RotaryAngles::new(2, 1e4).scaling(RotaryScaling::Ntk { factor: 2.0 }),
                "dim: need an even number, at least 4",
            ),
            (of(RotaryScaling::Ntk { factor: f64::INFINITY }), "factor: need a finite number"),
            (
                of(RotaryScaling::Dynamic { factor: 2.0, original_len: 0, len: 5 }),
                "original_len: need at least 1",
            ),
            (of(RotaryScaling::Yarn(Yarn::new(0.0, 4096))), "factor: need"),
            (of(RotaryScaling::Yarn(Yarn::new(4.0, 0))), "original_len: need"),
            (
                of(RotaryScaling::Yarn(Yarn::new(4.0, 4096).beta_fast(1.0))),
                "beta_fast: need a finite number above",
            ),
            (
                of(RotaryScaling::Yarn(Yarn::new(4.0, 4096).attention_factor(Some(0.0)))),
                "attention_factor: need",
            ),
            (of(llama3(0.0, 4.0)), "low_freq_factor: need a finite number above 0, got 0"),
            (of(llama3(4.0, 4.0)), "high_freq_factor: need a finite number above 4, got 4"),
        ] {
            let error = angles.check().expect_err(words).to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
    }
}
