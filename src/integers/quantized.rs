//! An integer tensor on the host.

use super::{IntegerFormat, IntegerType};
use crate::{Error, Result};

/// An integer tensor `[rows, inner]` as it lies on the device, with its scales and zero points.
///
/// ```
/// use wgpu_attention::{IntegerFormat, IntegerType, Quantized, ScaleGroups};
/// let format = IntegerFormat::new(IntegerType::I8).groups(ScaleGroups::Tensor);
/// let tensor = Quantized::new(format, 2, 3, &[1, -2, 3, 4, 5, -128], vec![0.5], vec![])?;
/// assert_eq!(tensor.words, [0x0003_fe01, 0x0080_0504]);
/// assert_eq!(tensor.dequantized(), [0.5, -1.0, 1.5, 2.0, 2.5, -64.0]);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Quantized {
    /// How the integers stand for numbers.
    pub format: IntegerFormat,
    /// Rows.
    pub rows: usize,
    /// Elements of a row.
    pub inner: usize,
    /// The elements, [`IntegerFormat::len_words`] words.
    pub words: Vec<u32>,
    /// The scales, [`IntegerFormat::len_scales`].
    pub scales: Vec<f32>,
    /// The zero points, as many as scales, if the format has them; empty otherwise.
    pub zero_points: Vec<i32>,
}

/// How far an integer tensor is from the numbers that it was made of: what quantisation costs, whatever computes with it.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct QuantizationError {
    /// The largest |x' - x|.
    pub largest: f64,
    /// The same in scales of the element's own: at most 1/2 where nothing was clamped.
    pub largest_steps: f64,
    /// The root of the mean of (x' - x)^2.
    pub root_mean_square: f64,
    /// That over the root of the mean of x^2; 0 where all are 0.
    pub relative: f64,
}

impl Quantized {
    /// Packs integers `[rows, inner]` of any system that has this format's conventions.
    ///
    /// # Errors
    /// As [`IntegerFormat::check`]; [`Error::Argument`] for `values`, `scales` or `zero_points` of another length, integers outside of the
    /// type's range, and scales that are not finite or are 0 or below.
    pub fn new(
        format: IntegerFormat,
        rows: usize,
        inner: usize,
        values: &[i32],
        scales: Vec<f32>,
        zero_points: Vec<i32>,
    ) -> Result<Self> {
        format.check(rows, inner)?;
        if values.len() != rows * inner {
            return Err(Error::argument("values", format!("{} elements", rows * inner), values.len()));
        }
        let words = packed(format.element, inner, values);
        let tensor = Self { format, rows, inner, words, scales, zero_points };
        tensor.check_scales()?;
        in_range("values", format.element, values)?;
        Ok(tensor)
    }

    /// Checks scales and zero points, their number and each of them.
    fn check_scales(&self) -> Result<()> {
        let Self { format, scales, zero_points, .. } = self;
        let need = format.len_scales(self.rows, self.inner);
        if scales.len() != need {
            let need = format!("{need} ({} of [{}, {}])", format.groups, self.rows, self.inner);
            return Err(Error::argument("scales", need, scales.len()));
        }
        if let Some(n) = scales.iter().position(|scale| !(scale.is_finite() && *scale > 0.0)) {
            let got = format!("{} at {n}", scales[n]);
            return Err(Error::argument("scales", "finite numbers above 0", got));
        }
        let need = if format.zero_points { need } else { 0 };
        if zero_points.len() != need {
            return Err(Error::argument("zero_points", format!("{need} ({format})"), zero_points.len()));
        }
        in_range("zero_points", format.element, zero_points)
    }

    /// Checks that words, scales and zero points are as many as the sizes say, and what [`Quantized::new`] does of them: the fields
    /// are public.
    ///
    /// # Errors
    /// As [`Quantized::new`].
    pub fn check(&self) -> Result<()> {
        self.format.check(self.rows, self.inner)?;
        let need = self.format.len_words(self.rows, self.inner);
        if self.words.len() != need {
            let need =
                format!("{need} words ({} rows of {} words)", self.rows, self.format.row_words(self.inner));
            return Err(Error::argument("words", need, self.words.len()));
        }
        self.check_scales()
    }

    /// The integer at place k of a row.
    ///
    /// # Panics
    /// Where the tensor has no such place, or fewer words than [`check`](Self::check) asks for.
    pub fn at(&self, row: usize, k: usize) -> i32 {
        let (element, per_word) = (self.format.element, self.format.element.per_word());
        let word = self.words[row * self.format.row_words(self.inner) + k / per_word];
        element.decoded(word >> (element.bits() * (k % per_word)))
    }

    /// q - zero_point of the element at place k of a row, exactly, and its scale.
    ///
    /// # Panics
    /// As [`at`](Self::at), and where there are too few scales or zero points.
    pub fn parts(&self, row: usize, k: usize) -> (i32, f32) {
        let at = self.format.scale_at(self.inner, row, k);
        (self.at(row, k) - self.zero_points.get(at).copied().unwrap_or(0), self.scales[at])
    }

    /// The integers `[rows, inner]`.
    pub fn values(&self) -> Vec<i32> {
        self.elements(|row, k| self.at(row, k))
    }

    /// The numbers `[rows, inner]` that the integers stand for, each rounded once: scale (q - zero_point).
    pub fn dequantized(&self) -> Vec<f32> {
        self.elements(|row, k| {
            let (difference, scale) = self.parts(row, k);
            scale * difference as f32
        })
    }

    /// How far these integers are from x `[rows, inner]`, of which they were made.
    ///
    /// # Errors
    /// [`Error::Argument`] for an x of another length.
    ///
    /// ```
    /// use wgpu_attention::{IntegerFormat, IntegerType, QuantizeRule, QuantizeShape};
    /// let x: Vec<f32> = (0..640).map(|n| (n as f32).sin()).collect();
    /// let shape = QuantizeShape::new(10, 64, IntegerFormat::new(IntegerType::I8), QuantizeRule::Symmetric);
    /// let lost = shape.quantize(&x)?.error(&x)?;
    /// assert!(lost.largest < 0.005 && lost.largest_steps <= 0.501 && lost.relative < 0.01);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    pub fn error(&self, x: &[f32]) -> Result<QuantizationError> {
        if x.len() != self.rows * self.inner {
            return Err(Error::argument("x", format!("{} elements", self.rows * self.inner), x.len()));
        }
        let (mut largest, mut steps, mut squares, mut size) = (0.0f64, 0.0f64, 0.0, 0.0);
        for (n, &x) in x.iter().enumerate() {
            let (difference, scale) = self.parts(n / self.inner, n % self.inner);
            let (x, scale) = (f64::from(x), f64::from(scale));
            let error = (scale * f64::from(difference) - x).abs();
            largest = largest.max(error);
            steps = steps.max(error / scale);
            squares += error * error;
            size += x * x;
        }
        let root_mean_square = (squares / x.len().max(1) as f64).sqrt();
        let relative = if size > 0.0 { (squares / size).sqrt() } else { 0.0 };
        Ok(QuantizationError { largest, largest_steps: steps, root_mean_square, relative })
    }

    fn elements<T>(&self, of: impl Fn(usize, usize) -> T) -> Vec<T> {
        (0..self.rows * self.inner).map(|n| of(n / self.inner, n % self.inner)).collect()
    }
}

/// Rows of so many elements, each from a word of its own on.
pub(super) fn packed(element: IntegerType, inner: usize, values: &[i32]) -> Vec<u32> {
    let word = |values: &[i32]| {
        let placed =
            values.iter().enumerate().map(|(n, &value)| element.encoded(value) << (element.bits() * n));
        placed.fold(0, |word, bits| word | bits)
    };
    values.chunks(inner).flat_map(|row| row.chunks(element.per_word()).map(word)).collect()
}

fn in_range(name: &'static str, element: IntegerType, values: &[i32]) -> Result<()> {
    let [low, high] = element.range();
    match values.iter().position(|value| !(low..=high).contains(value)) {
        Some(n) => {
            let got = format!("{} at {n}", values[n]);
            Err(Error::argument(name, format!("{low} to {high}, as {element} has them"), got))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ScaleGroups;

    #[test]
    fn integers_come_back_from_their_words() {
        for element in IntegerType::ALL {
            let [low, high] = element.range();
            let values: Vec<i32> = (0..3 * 37).map(|n| low + n * 29 % (high - low + 1)).collect();
            let format = IntegerFormat::new(element).zero_points(true);
            let tensor =
                Quantized::new(format, 3, 37, &values, vec![1.0, 2.0, 4.0], vec![low, 0, high]).unwrap();
            assert_eq!(tensor.values(), values, "{element}");
            assert_eq!(tensor.words.len(), format.len_words(3, 37));
            assert_eq!(tensor.parts(2, 5), (values[2 * 37 + 5] - high, 4.0));
        }
    }

    #[test]
    fn bad_tensors_are_named() {
        let format = IntegerFormat::new(IntegerType::I8).groups(ScaleGroups::Groups(32));
        let new = |format: IntegerFormat, inner, values: &[i32], scales: &[f32], zeros: &[i32]| {
            Quantized::new(format, 2, inner, values, scales.to_vec(), zeros.to_vec()).unwrap_err().to_string()
        };
        let (zeros, ones) = ([0; 128], [1.0f32; 4]);
        for (message, words) in [
            (new(format, 64, &zeros[..127], &ones, &[]), "values: need 128 elements, got 127"),
            (new(format, 64, &zeros, &ones[..3], &[]), "scales: need 4 (groups of 32 of [2, 64]), got 3"),
            (
                new(format, 64, &zeros, &[1.0, f32::NAN, 1.0, 1.0], &[]),
                "scales: need finite numbers above 0, got NaN at 1",
            ),
            (new(format, 64, &zeros, &[1.0, 1.0, 1.0, f32::INFINITY], &[]), "got inf at 3"),
            (new(format, 64, &zeros, &[1.0, 0.0, 1.0, 1.0], &[]), "got 0 at 1"),
            (new(format, 64, &zeros, &ones, &[0]), "zero_points: need 0 (i8 groups of 32), got 1"),
            (new(format.zero_points(true), 64, &zeros, &ones, &[]), "zero_points: need 4"),
            (
                new(format.zero_points(true), 64, &zeros, &ones, &[0, 0, 128, 0]),
                "zero_points: need -128 to 127",
            ),
            (new(format, 40, &zeros[..80], &ones, &[]), "groups: need a divisor of inner (40), got 32"),
            (
                new(format.groups(ScaleGroups::Groups(24)), 48, &zeros[..96], &ones, &[]),
                "groups: need 32, 64 or 128",
            ),
            (new(format, 0, &[], &[], &[]), "inner: need at least 1, got 0"),
            (
                new(format, 64, &[&zeros[..127], &[-129][..]].concat(), &ones, &[]),
                "values: need -128 to 127, as i8 has them, got -129 at 127",
            ),
        ] {
            assert!(message.contains(words), "{words}: {message}");
        }
        let mut tensor = Quantized::new(format, 2, 64, &zeros, ones.to_vec(), vec![]).unwrap();
        tensor.words.pop();
        assert!(
            tensor
                .check()
                .unwrap_err()
                .to_string()
                .starts_with("words: need 32 words (2 rows of 16 words), got 31")
        );
        assert!(tensor.error(&[0.0]).unwrap_err().to_string().starts_with("x: need 128 elements"));
    }
}
