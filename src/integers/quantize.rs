//! How integers are made of numbers: on the host here, on the device by the kernels of `shaders/quantize/`.

use super::quantized::packed;
use super::{IntegerFormat, Quantized};
use crate::{ElementType, Error, Result};

/// Where scales and zero points come from, and how numbers are rounded: to nearest, ties to even, in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuantizeRule {
    /// PyTorch's symmetric observers (`qint8`, per tensor or channel), and the same of signed nibbles:
    /// scale = max(max|x| / 127.5, 2^-23) (7.5 of nibbles), q = clamp(round(x (1 / scale)), -128, 127).
    Symmetric,
    /// ONNX's `DynamicQuantizeLinear`: of unsigned integers with zero points; lo and hi are the extremes of x and 0,
    /// scale = (hi - lo) / 255 (15 of nibbles), zero_point = clamp(round(-lo / scale), 0, 255), q = clamp(round(x / scale) + zero_point).
    Range,
    /// PyTorch's dynamic activations: as [`Range`](Self::Range), with 2^bits - 1 for 255 and q = clamp(round(x (1 / scale)) + zero_point). Its
    /// kernels for CPUs without exact sums of 16 bits want 7 bits.
    ReducedRange {
        /// At most as many as the type has.
        bits: u32,
    },
    /// ONNX's `QuantizeLinear`: scales and zero points are given, q = clamp(round(x / scale) + zero_point).
    Given,
}

/// A quantisation: the integers made of the numbers x `[rows, inner]`.
///
/// ```
/// use wgpu_attention::{IntegerFormat, IntegerType, QuantizeRule, QuantizeShape, ScaleGroups};
/// // What `torch.ao.nn.quantized.dynamic.Linear` makes of its weight.
/// let format = IntegerFormat::new(IntegerType::I8).groups(ScaleGroups::Tensor);
/// let tensor = QuantizeShape::new(1, 3, format, QuantizeRule::Symmetric).quantize(&[1.0, -0.5, 0.25])?;
/// assert_eq!((tensor.values(), tensor.scales), (vec![127, -64, 32], vec![1.0 / 127.5]));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct QuantizeShape {
    /// Rows. May be 0: then nothing is written.
    pub rows: usize,
    /// Elements of a row.
    pub inner: usize,
    /// The format of the integers.
    pub format: IntegerFormat,
    /// Where the scales come from, and how numbers are rounded.
    pub rule: QuantizeRule,
    /// Storage of x.
    pub input: ElementType,
}

/// The smallest scale of [`QuantizeRule::Symmetric`]: f32's epsilon.
pub(crate) const LEAST_SCALE: f32 = f32::EPSILON;

impl QuantizeShape {
    /// A quantisation of f32 numbers.
    pub fn new(rows: usize, inner: usize, format: IntegerFormat, rule: QuantizeRule) -> Self {
        Self { rows, inner, format, rule, input: ElementType::F32 }
    }

    /// Sets the storage of x.
    pub fn input(mut self, input: ElementType) -> Self {
        self.input = input;
        self
    }

    /// Elements of x.
    pub fn len_x(&self) -> usize {
        self.rows * self.inner
    }

    /// Words of the integers.
    pub fn len_words(&self) -> usize {
        self.format.len_words(self.rows, self.inner)
    }

    /// Scales, and zero points if there are any.
    pub fn len_scales(&self) -> usize {
        self.format.len_scales(self.rows, self.inner)
    }

    /// The largest magnitude over this is a symmetric scale.
    pub(crate) fn half(&self) -> f32 {
        let [low, high] = self.format.element.range();
        (high - low) as f32 / 2.0
    }

    /// The range over this is a scale of a range, whose zero points are between 0 and this.
    pub(crate) fn levels(&self) -> f32 {
        let bits = match self.rule {
            QuantizeRule::ReducedRange { bits } => bits,
            _ => self.format.element.bits() as u32,
        };
        ((1u32 << bits) - 1) as f32
    }

    /// The smallest and the largest integer.
    pub(crate) fn clamped_to(&self) -> [i32; 2] {
        match self.rule {
            QuantizeRule::ReducedRange { .. } => [0, self.levels() as i32],
            _ => self.format.element.range(),
        }
    }

    /// Whether x is multiplied by 1 / scale instead of divided by it: the last bit may differ.
    pub(crate) fn multiplies(&self) -> bool {
        matches!(self.rule, QuantizeRule::Symmetric | QuantizeRule::ReducedRange { .. })
    }

    /// Checks everything that can be said without a device.
    ///
    /// # Errors
    /// As [`IntegerFormat::check`]; [`Error::Argument`] for a symmetric rule of unsigned elements or with zero points, a range of
    /// signed elements or without zero points, and more bits than the elements have.
    pub fn check(&self) -> Result<()> {
        self.format.check(self.rows, self.inner)?;
        let IntegerFormat { element, zero_points, .. } = self.format;
        let wants = |name: &'static str, need: &str, got: &dyn std::fmt::Display| {
            Err(Error::argument(name, format!("{need} for the rule {:?}", self.rule), got))
        };
        match self.rule {
            QuantizeRule::Symmetric if !element.is_signed() => {
                return wants("format.element", "a signed one", &element);
            }
            QuantizeRule::Symmetric if zero_points => {
                return wants("format.zero_points", "none", &zero_points);
            }
            QuantizeRule::Range | QuantizeRule::ReducedRange { .. } => {
                if element.is_signed() {
                    return wants("format.element", "an unsigned one", &element);
                }
                if !zero_points {
                    return wants("format.zero_points", "some", &zero_points);
                }
            }
            _ => {}
        }
        match self.rule {
            QuantizeRule::ReducedRange { bits } if !(1..=element.bits() as u32).contains(&bits) => {
                wants("rule.bits", &format!("1 to {}", element.bits()), &bits)
            }
            _ => Ok(()),
        }
    }

    /// Makes the integers on the host, by the rule's formula in f32, step by step, as the systems that the rule names do.
    ///
    /// # Errors
    /// As [`QuantizeShape::check`]; [`Error::Argument`] for an x of another length or with a NaN or an infinity, and for the rule
    /// [`Given`](QuantizeRule::Given), whose scales [`QuantizeShape::quantize_with`] takes.
    pub fn quantize(&self, x: &[f32]) -> Result<Quantized> {
        if self.rule == QuantizeRule::Given {
            return Err(Error::argument("rule", "one that makes scales", "Given"));
        }
        self.check_x(x)?;
        let slice_len = self.format.slice_len(self.rows, self.inner);
        let slices = if self.rows == 0 { vec![(1.0, 0); self.len_scales()] } else { vec![] };
        let made = slices.into_iter().chain(x.chunks(slice_len).map(|slice| self.scale_of(slice)));
        let (scales, zero_points): (Vec<_>, Vec<_>) = made.unzip();
        if let Some(n) = scales.iter().position(|scale| !scale.is_finite()) {
            let need = "numbers whose range is a number of f32";
            return Err(Error::argument("x", need, format!("more in slice {n}")));
        }
        Ok(self.of_scales(x, scales, if self.format.zero_points { zero_points } else { vec![] }))
    }

    /// Makes the integers with these scales and zero points.
    ///
    /// # Errors
    /// As [`QuantizeShape::quantize`] and [`Quantized::new`]; [`Error::Argument`] for another rule than [`Given`](QuantizeRule::Given).
    pub fn quantize_with(&self, x: &[f32], scales: Vec<f32>, zero_points: Vec<i32>) -> Result<Quantized> {
        if self.rule != QuantizeRule::Given {
            return Err(Error::argument("rule", "Given, since the scales are", format!("{:?}", self.rule)));
        }
        self.check_x(x)?;
        let made = self.of_scales(x, scales, zero_points);
        made.check()?;
        Ok(made)
    }

    fn check_x(&self, x: &[f32]) -> Result<()> {
        self.check()?;
        if x.len() != self.len_x() {
            return Err(Error::argument("x", format!("{} elements", self.len_x()), x.len()));
        }
        match x.iter().position(|x| !x.is_finite()) {
            Some(n) => Err(Error::argument("x", "finite numbers", format!("{} at {n}", x[n]))),
            None => Ok(()),
        }
    }

    /// Scale and zero point of numbers that share them.
    fn scale_of(&self, slice: &[f32]) -> (f32, i32) {
        if self.rule == QuantizeRule::Symmetric {
            let most = slice.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            return ((most / self.half()).max(LEAST_SCALE), 0);
        }
        let lo = slice.iter().fold(0.0f32, |lo, &x| lo.min(x));
        let hi = slice.iter().fold(0.0f32, |hi, &x| hi.max(x));
        let scale = (hi - lo) / self.levels();
        // Nothing but zeros, or what is as good: any scale does.
        let scale = if scale < f32::MIN_POSITIVE { 1.0 } else { scale };
        (scale, (-lo / scale).round_ties_even().clamp(0.0, self.levels()) as i32)
    }

    /// With scales and zero points that may be as many as they should, or not: who takes them from a caller checks the result.
    fn of_scales(&self, x: &[f32], scales: Vec<f32>, zero_points: Vec<i32>) -> Quantized {
        let [low, high] = self.clamped_to();
        let value = |(n, &x): (usize, &f32)| {
            let at = self.format.scale_at(self.inner, n / self.inner, n % self.inner);
            let scale = scales.get(at).copied().unwrap_or(1.0);
            let steps = if self.multiplies() { x * scale.recip() } else { x / scale };
            let zero_point = zero_points.get(at).copied().unwrap_or(0);
            // A cast saturates, and so does the sum.
            (steps.round_ties_even() as i32).saturating_add(zero_point).clamp(low, high)
        };
        let values: Vec<i32> = x.iter().enumerate().map(value).collect();
        let words = packed(self.format.element, self.inner, &values);
        let (format, rows, inner) = (self.format, self.rows, self.inner);
        Quantized { format, rows, inner, words, scales, zero_points }
    }
}
