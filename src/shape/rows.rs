//! What the kernels over rows compute.

use super::{Combine, RowStrides};
use crate::layout::check_u32;
use crate::{ElementType, Error, Result};

/// Rows of one length, and where they begin.
fn check_rows(name: &'static str, rows: usize, width: usize, stride: usize) -> Result<()> {
    RowStrides::new(0, stride.min(isize::MAX as usize) as isize).check(name, 1, rows, width)
}

/// Checks sizes and the strides of all tensors; `strides` ends with that of out.
pub(super) fn check_sizes(rows: usize, width: usize, strides: &[(&'static str, usize)]) -> Result<()> {
    if width == 0 {
        return Err(Error::argument("width", "at least 1", 0));
    }
    check_u32("rows", rows as u128)?;
    check_u32("width", width as u128)?;
    check_u32("rows x width", rows as u128 * width.next_multiple_of(4) as u128)?;
    for (name, stride) in strides {
        check_rows(name, rows, width, *stride)?;
    }
    match strides.last() {
        Some((name, stride)) => RowStrides::new(0, *stride as isize).check_separate(name, 1, rows, width),
        None => Ok(()),
    }
}

/// Elements from the first to the end of the last row.
pub(super) fn extent(rows: usize, width: usize, stride: usize) -> usize {
    if rows == 0 { 0 } else { (rows - 1) * stride + width }
}

/// How rows are normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NormKind {
    /// (x - mean) / sqrt(variance + eps) weight + bias (Ba 2016).
    Layer,
    /// x / sqrt(mean of squares + eps) weight + bias (Zhang 2019).
    Rms,
}

/// Normalisation of every row of x `[rows, width]` by a weight `[width]` and perhaps a bias `[width]`.
///
/// Rows of any size come out right, from 1e-38 to the largest f32: squares that would leave f32 are those of the row scaled by a
/// power of two. A layer norm of a mean far above the spread keeps the precision that the elements have. A row with a NaN or an
/// infinity is NaN; of weight and bias, each passes on into its own column.
///
/// ```
/// use wgpu_attention::{NormKind, NormShape};
/// let shape = NormShape::new(NormKind::Layer, 512, 768, 1e-12).bias(true);
/// assert_eq!(shape.len_x(), 512 * 768);
/// assert!(NormShape::new(NormKind::Rms, 4, 8, f32::NAN).check().unwrap_err().to_string().contains("eps"));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct NormShape {
    /// Layer norm or RMS norm.
    pub kind: NormKind,
    /// Rows. May be 0: then nothing is written.
    pub rows: usize,
    /// Elements of a row, n.
    pub width: usize,
    /// Added under the root: a normal number above 0, so at least [`f32::MIN_POSITIVE`].
    pub eps: f32,
    /// Whether a bias is added.
    pub bias: bool,
    /// Storage of x.
    pub input: ElementType,
    /// Storage of weight and bias.
    pub weight: ElementType,
    /// Storage of out.
    pub output: ElementType,
    /// From one row of x to the next, in elements; `None` is `width`.
    pub x_row: Option<usize>,
    /// From one row of out to the next; `None` is `width`.
    pub out_row: Option<usize>,
}

impl NormShape {
    /// Contiguous f32 rows without a bias.
    pub fn new(kind: NormKind, rows: usize, width: usize, eps: f32) -> Self {
        let f32 = ElementType::F32;
        Self {
            kind,
            rows,
            width,
            eps,
            bias: false,
            input: f32,
            weight: f32,
            output: f32,
            x_row: None,
            out_row: None,
        }
    }

    setters! {
        /// Sets whether a bias is added.
        bias: bool,
        /// Sets the storage of x.
        input: ElementType,
        /// Sets the storage of weight and bias.
        weight: ElementType,
        /// Sets the storage of out.
        output: ElementType,
        /// Sets the stride of x's rows.
        x_row: Option<usize>,
        /// Sets the stride of out's rows.
        out_row: Option<usize>,
    }

    /// Sets the storage of all tensors.
    pub fn elements(self, element: ElementType) -> Self {
        self.input(element).weight(element).output(element)
    }

    /// Stride of x's rows, resolved.
    pub fn stride_of_x(&self) -> usize {
        self.x_row.unwrap_or(self.width)
    }

    /// Stride of out's rows, resolved.
    pub fn stride_of_out(&self) -> usize {
        self.out_row.unwrap_or(self.width)
    }

    /// Elements from the start of x to the end of its last row.
    pub fn len_x(&self) -> usize {
        extent(self.rows, self.width, self.stride_of_x())
    }

    /// Elements from the start of out to the end of its last row.
    pub fn len_out(&self) -> usize {
        extent(self.rows, self.width, self.stride_of_out())
    }

    /// Checks everything that can be said without a device.
    ///
    /// # Errors
    /// [`Error::Argument`] for a `width` of 0, an `eps` that is not a normal number above 0, rows of out that overlap;
    /// [`Error::Limit`] where an element offset would pass 32 bits.
    pub fn check(&self) -> Result<()> {
        // A device may take a subnormal for 0.
        if !(self.eps.is_normal() && self.eps > 0.0) {
            return Err(Error::argument("eps", "a normal number above 0", self.eps));
        }
        check_sizes(
            self.rows,
            self.width,
            &[("x_row", self.stride_of_x()), ("out_row", self.stride_of_out())],
        )
    }
}

/// Softmax over the last axis of x `[rows, width]`.
///
/// A row with a NaN or +infinity is NaN, and so is one of nothing but -infinity; -infinity beside a number weighs 0.
///
/// ```
/// use wgpu_attention::SoftmaxShape;
/// assert!(SoftmaxShape::new(8, 1000).check().is_ok());
/// assert!(SoftmaxShape::new(8, 0).check().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct SoftmaxShape {
    /// Rows. May be 0: then nothing is written.
    pub rows: usize,
    /// Elements of a row, n.
    pub width: usize,
    /// Storage of x.
    pub input: ElementType,
    /// Storage of out.
    pub output: ElementType,
    /// From one row of x to the next, in elements; `None` is `width`.
    pub x_row: Option<usize>,
    /// From one row of out to the next; `None` is `width`.
    pub out_row: Option<usize>,
}

impl SoftmaxShape {
    /// Contiguous f32 rows.
    pub fn new(rows: usize, width: usize) -> Self {
        Self { rows, width, input: ElementType::F32, output: ElementType::F32, x_row: None, out_row: None }
    }

    setters! {
        /// Sets the storage of x.
        input: ElementType,
        /// Sets the storage of out.
        output: ElementType,
        /// Sets the stride of x's rows.
        x_row: Option<usize>,
        /// Sets the stride of out's rows.
        out_row: Option<usize>,
    }

    /// Stride of x's rows, resolved.
    pub fn stride_of_x(&self) -> usize {
        self.x_row.unwrap_or(self.width)
    }

    /// Stride of out's rows, resolved.
    pub fn stride_of_out(&self) -> usize {
        self.out_row.unwrap_or(self.width)
    }

    /// Elements from the start of x to the end of its last row.
    pub fn len_x(&self) -> usize {
        extent(self.rows, self.width, self.stride_of_x())
    }

    /// Elements from the start of out to the end of its last row.
    pub fn len_out(&self) -> usize {
        extent(self.rows, self.width, self.stride_of_out())
    }

    /// Checks everything that can be said without a device.
    ///
    /// # Errors
    /// As [`NormShape::check`].
    pub fn check(&self) -> Result<()> {
        check_sizes(
            self.rows,
            self.width,
            &[("x_row", self.stride_of_x()), ("out_row", self.stride_of_out())],
        )
    }
}

/// Residual addition, out = x + other or x - other, over contiguous `[rows, width]` tensors; in place, x is what out holds.
///
/// ```
/// use wgpu_attention::{AddShape, ElementType};
/// assert_eq!(AddShape::new(8, 768).len(), 8 * 768);
/// let taken_back = AddShape::new(8, 768).subtract(true).in_place(true); // x -= other
/// assert!(taken_back.check().is_ok());
/// assert!(taken_back.output(ElementType::F16).check().is_err()); // what is read back is f32
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct AddShape {
    /// Rows. May be 0: then nothing is written.
    pub rows: usize,
    /// Elements of a row.
    pub width: usize,
    /// Storage of x.
    pub input: ElementType,
    /// Storage of other.
    pub other: ElementType,
    /// Storage of out.
    pub output: ElementType,
    /// Other is subtracted instead of added.
    pub subtract: bool,
    /// x is what out holds: x and out, which are f32, are one tensor.
    pub in_place: bool,
}

impl AddShape {
    /// The sum of f32 tensors, in a tensor of its own.
    pub fn new(rows: usize, width: usize) -> Self {
        let f32 = ElementType::F32;
        Self { rows, width, input: f32, other: f32, output: f32, subtract: false, in_place: false }
    }

    setters! {
        /// Sets the storage of x.
        input: ElementType,
        /// Sets the storage of other.
        other: ElementType,
        /// Sets the storage of out.
        output: ElementType,
        /// Sets whether other is subtracted.
        subtract: bool,
        /// Sets whether x is what out holds.
        in_place: bool,
    }

    /// Elements of each tensor.
    pub fn len(&self) -> usize {
        self.rows * self.width
    }

    /// Whether there is nothing to add.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Checks everything that can be said without a device.
    ///
    /// # Errors
    /// [`Error::Argument`] for a `width` of 0 and for 16-bit tensors in place, [`Error::Limit`] where an element offset would pass
    /// 32 bits.
    pub fn check(&self) -> Result<()> {
        check_sizes(self.rows, self.width, &[("width", self.width)])?;
        match [("input", self.input), ("output", self.output)].iter().find(|it| it.1 != ElementType::F32) {
            Some((name, found)) if self.in_place => {
                Err(Error::argument(*name, "f32 where x is overwritten", *found))
            }
            _ => Ok(()),
        }
    }
}

/// Embedding lookup: row r of out `[rows, width]` is row `ids[r]` of the table `[table_rows, width]`, or has it added.
///
/// Ids are u32 on the device, and are not checked there: an id past the table gives a row of 0. Positions are a lookup
/// too, in a learnt table or in one of [`sinusoidal_positions`](crate::sinusoidal_positions).
///
/// ```
/// use wgpu_attention::{Combine, EmbedShape};
/// let tokens = EmbedShape::new(512, 30522, 768);
/// let positions = EmbedShape::new(512, 512, 768).combine(Combine::AddInto);
/// assert_eq!((tokens.len_table(), positions.len_out()), (30522 * 768, 512 * 768));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct EmbedShape {
    /// Ids, and rows of out. May be 0: then nothing is written.
    pub rows: usize,
    /// Rows of the table.
    pub table_rows: usize,
    /// Elements of a row.
    pub width: usize,
    /// [`Combine::Store`], or [`Combine::AddInto`] with f32 output.
    pub combine: Combine,
    /// Storage of the table.
    pub table: ElementType,
    /// Storage of out.
    pub output: ElementType,
    /// The first element of out: above 0, rows are columns of wider ones.
    pub out_at: usize,
    /// From one row of out to the next, in elements; `None` is `width`.
    pub out_row: Option<usize>,
}

impl EmbedShape {
    /// f32 tensors; out is overwritten.
    pub fn new(rows: usize, table_rows: usize, width: usize) -> Self {
        let f32 = ElementType::F32;
        let combine = Combine::Store;
        Self { rows, table_rows, width, combine, table: f32, output: f32, out_at: 0, out_row: None }
    }

    setters! {
        /// Sets whether rows are stored or added.
        combine: Combine,
        /// Sets the storage of the table.
        table: ElementType,
        /// Sets the storage of out.
        output: ElementType,
        /// Sets the first element of out.
        out_at: usize,
        /// Sets the stride of out's rows.
        out_row: Option<usize>,
    }

    /// Stride of out's rows, resolved.
    pub fn stride_of_out(&self) -> usize {
        self.out_row.unwrap_or(self.width)
    }

    /// Elements of the table.
    pub fn len_table(&self) -> usize {
        self.table_rows * self.width
    }

    /// Elements from the start of out to the end of its last row.
    pub fn len_out(&self) -> usize {
        if self.rows == 0 { 0 } else { self.out_at + extent(self.rows, self.width, self.stride_of_out()) }
    }

    /// Checks everything that can be said without a device.
    ///
    /// # Errors
    /// [`Error::Argument`] for a `width` or a table of 0, another combination, 16-bit output that is added to, rows of out that overlap;
    /// [`Error::Limit`] where an element offset would pass 32 bits.
    pub fn check(&self) -> Result<()> {
        check_sizes(self.rows, self.width, &[("out_row", self.stride_of_out())])?;
        check_u32("out", self.out_at as u128 + self.rows as u128 * self.stride_of_out() as u128)?;
        if self.table_rows == 0 {
            return Err(Error::argument("table_rows", "at least 1", 0));
        }
        check_u32("table", self.table_rows as u128 * self.width as u128)?;
        match (self.combine, self.output) {
            (Combine::Store, _) | (Combine::AddInto, ElementType::F32) => Ok(()),
            (Combine::AddInto, other) => Err(Error::argument("output", "f32 where out is read back", other)),
            (other, _) => Err(Error::argument("combine", "Store or AddInto", format!("{other:?}"))),
        }
    }
}
