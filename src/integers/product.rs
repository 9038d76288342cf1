//! What a product of integers computes.

use super::{IntegerFormat, IntegerType, ScaleGroups};
use crate::layout::check_u32;
use crate::{ElementType, Error, Result};

/// What becomes of the exact sums of a product of integers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum IntegerOutput {
    /// They are out, i32: ONNX's `MatMulInteger`. No scale is read.
    Sums,
    /// out = sum (a_scale b_scale) + bias, stored in this type: a linear layer of dynamically quantised activations.
    Scaled(ElementType),
    /// out = clamp(round(sum (a_scale b_scale (1 / out_scale))) + out_zero_point), bytes of this type, packed as an A is: ONNX's `QLinearMatMul`.
    Requantized {
        /// [`IntegerType::I8`] or [`IntegerType::U8`].
        element: IntegerType,
        /// The scale of out: a normal number above 0 whose reciprocal is one, too.
        scale: f32,
        /// The zero point of out.
        zero_point: i32,
    },
}

/// One product of bytes, whose sums are exact:
///
/// ```text
/// sum_mn = sum_k (a_mk - za_m) (b_nk - zb_n)          A [rows, inner], B [columns, inner], both packed along k
/// ```
///
/// A has one scale and zero point, or one per row; B one, or one per column of out (a row of B).
///
/// ```
/// use wgpu_attention::{ElementType, IntegerFormat, IntegerMatmulShape, IntegerOutput, IntegerType, ScaleGroups};
/// // PyTorch's dynamic linear layer: activations of one scale and zero point, weights of a scale per channel.
/// let x = IntegerFormat::new(IntegerType::U8).groups(ScaleGroups::Tensor).zero_points(true);
/// let shape = IntegerMatmulShape::new(16, 768, 3072, x, IntegerFormat::new(IntegerType::I8)).bias(true);
/// assert_eq!(shape.output, IntegerOutput::Scaled(ElementType::F32));
/// assert_eq!((shape.most_inner(), shape.check()), (65_793, Ok(())));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct IntegerMatmulShape {
    /// Rows of A and of out. May be 0: then nothing is written.
    pub rows: usize,
    /// Elements of a row of A, and of B.
    pub inner: usize,
    /// Rows of B, columns of out.
    pub columns: usize,
    /// A: bytes, a scale for all or per row.
    pub a: IntegerFormat,
    /// B: bytes, a scale for all or per row.
    pub b: IntegerFormat,
    /// What becomes of the sums.
    pub output: IntegerOutput,
    /// Whether a vector `[columns]` of f32 is added: to [scaled](IntegerOutput::Scaled) sums alone.
    pub bias: bool,
}

impl IntegerMatmulShape {
    /// A product whose sums are scaled to f32.
    pub fn new(rows: usize, inner: usize, columns: usize, a: IntegerFormat, b: IntegerFormat) -> Self {
        Self { rows, inner, columns, a, b, output: IntegerOutput::Scaled(ElementType::F32), bias: false }
    }

    /// Sets what becomes of the sums.
    pub fn output(mut self, output: IntegerOutput) -> Self {
        self.output = output;
        self
    }

    /// Sets whether a bias is added.
    pub fn bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }

    /// Elements of out: words where it is [requantised](IntegerOutput::Requantized).
    pub fn len_out(&self) -> usize {
        match self.output {
            IntegerOutput::Requantized { .. } => self.rows * self.columns.div_ceil(4),
            _ => self.rows * self.columns,
        }
    }

    /// Bytes of an element of out.
    #[cfg(feature = "gpu")]
    pub(crate) fn out_type(&self) -> ElementType {
        match self.output {
            IntegerOutput::Scaled(element) => element,
            // Words, as f32 are.
            _ => ElementType::F32,
        }
    }

    /// Whether scales are read.
    #[cfg(feature = "gpu")]
    pub(crate) fn has_scales(&self) -> bool {
        self.output != IntegerOutput::Sums
    }

    /// Operations of the product: 2 M K N.
    pub fn flops(&self) -> f64 {
        2.0 * self.rows as f64 * self.inner as f64 * self.columns as f64
    }

    /// The largest `inner` for which every sum is within i32: each term is at most the product of the largest differences of an
    /// element from its zero point, 128 for signed bytes without zero points, 255 otherwise.
    pub fn most_inner(&self) -> usize {
        let largest = |format: IntegerFormat| match (format.element, format.zero_points) {
            (IntegerType::I8, false) => 128,
            _ => 255,
        };
        // i32::MIN is one more than i32::MAX, and only products of signed bytes reach that sign: the smaller counts.
        i32::MAX as usize / (largest(self.a) * largest(self.b))
    }

    /// Checks everything that can be said without a device.
    ///
    /// # Errors
    /// [`Error::Argument`] for `inner` or `columns` of 0, elements that are not bytes, groups of k, a bias of what is not scaled, an
    /// output scale or zero point that is none; [`Error::Limit`] for an `inner` past [`most_inner`](Self::most_inner), and where
    /// an element's index would pass 32 bits.
    pub fn check(&self) -> Result<()> {
        if self.columns == 0 {
            return Err(Error::argument("columns", "at least 1", 0));
        }
        check_u32("out", self.rows as u128 * self.columns as u128)?;
        for (name, format, rows) in [("a", self.a, self.rows), ("b", self.b, self.columns)] {
            format.check(rows, self.inner)?;
            if format.element.bits() != 8 {
                return Err(Error::argument(name, "bytes, i8 or u8", format.element));
            }
            if let ScaleGroups::Groups(_) = format.groups {
                return Err(Error::argument(
                    name,
                    "a scale per tensor or row, for the sums are over k",
                    format.groups,
                ));
            }
        }
        if self.inner > self.most_inner() {
            let limit = "the longest sum of such products that is within i32";
            return Err(Error::limit("inner", limit, self.inner as u64, self.most_inner() as u64));
        }
        if self.bias && !matches!(self.output, IntegerOutput::Scaled(_)) {
            return Err(Error::argument("bias", format!("none for {:?}", self.output), "one"));
        }
        let IntegerOutput::Requantized { element, scale, zero_point } = self.output else { return Ok(()) };
        if element.bits() != 8 {
            return Err(Error::argument("output.element", "bytes, i8 or u8", element));
        }
        if !(scale.is_normal() && scale > 0.0 && scale.recip().is_normal()) {
            return Err(Error::argument(
                "output.scale",
                "a normal number above 0, and its reciprocal",
                scale,
            ));
        }
        let [low, high] = element.range();
        match (low..=high).contains(&zero_point) {
            true => Ok(()),
            false => Err(Error::argument("output.zero_point", format!("{low} to {high}"), zero_point)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_products_are_named() {
        let (i8, u8) = (IntegerFormat::new(IntegerType::I8), IntegerFormat::new(IntegerType::U8));
        let of = |a, b| IntegerMatmulShape::new(2, 8, 3, a, b);
        let requantized = |element, scale, zero_point| {
            of(i8, i8).output(IntegerOutput::Requantized { element, scale, zero_point })
        };
        let inner = |shape: IntegerMatmulShape, inner| IntegerMatmulShape { inner, ..shape };
        for (shape, words) in [
            (of(IntegerFormat::new(IntegerType::I4), i8), "a: need bytes, i8 or u8, got i4"),
            (of(i8, i8.groups(ScaleGroups::Groups(32))), "groups: need a divisor of inner (8), got 32"),
            (inner(of(i8, i8.groups(ScaleGroups::Groups(32))), 64), "b: need a scale per tensor or row"),
            (inner(of(i8, i8), 0), "inner: need at least 1, got 0"),
            (IntegerMatmulShape { columns: 0, ..of(i8, i8) }, "columns: need at least 1"),
            (
                inner(of(i8, i8), 131_072),
                "inner needs 131072, but the longest sum of such products that is within i32 is 131071",
            ),
            (inner(of(u8, u8), 33_026), "is 33025"),
            (of(i8, i8).output(IntegerOutput::Sums).bias(true), "bias: need none"),
            (requantized(IntegerType::U4, 1.0, 0), "output.element: need bytes"),
            (requantized(IntegerType::U8, f32::NAN, 0), "output.scale: need a normal number above 0"),
            (requantized(IntegerType::U8, 0.0, 0), "output.scale"),
            (requantized(IntegerType::U8, 1.0, -1), "output.zero_point: need 0 to 255, got -1"),
        ] {
            let message = shape.check().unwrap_err().to_string();
            assert!(message.contains(words), "{words}: {message}");
        }
        assert!(
            inner(of(u8, u8), 33_025).check().is_ok()
                && requantized(IntegerType::I8, 0.1, -128).check().is_ok()
        );
    }
}
