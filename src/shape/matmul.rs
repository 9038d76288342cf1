//! What one matrix product computes.

use crate::layout::check_u32;
use crate::{Activation, ElementType, Error, IntegerFormat, Result, Strides};

/// Where the rows of a `[batch, row, element]` tensor lie, in elements. The last axis is contiguous; strides may be negative,
/// as those of [`Strides`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RowStrides {
    /// Index of the first element of row 0 of batch item 0.
    pub offset: usize,
    /// From one batch item to the next; 0 shares one item among all (inputs only).
    pub batch: isize,
    /// From one row to the next.
    pub row: isize,
}

impl RowStrides {
    /// Rows that begin at element 0.
    pub const fn new(batch: isize, row: isize) -> Self {
        Self { offset: 0, batch, row }
    }

    /// The same rows, from element `offset` on.
    pub const fn offset(self, offset: usize) -> Self {
        Self { offset, ..self }
    }

    /// Rows of `width` elements without gaps, `rows` of them per batch item.
    pub fn contiguous(rows: usize, width: usize) -> Self {
        Self::new(rows.saturating_mul(width).min(isize::MAX as usize) as isize, width as isize)
    }

    /// Index of the first element of a row.
    pub fn at(&self, batch: usize, row: usize) -> usize {
        self.strides().at(batch, 0, row)
    }

    fn strides(&self) -> Strides {
        Strides { offset: self.offset, batch: self.batch, head: 0, row: self.row }
    }

    /// Elements from the start to the end of the row that lies last.
    pub(crate) fn extent(&self, batch: usize, rows: usize, width: usize) -> usize {
        self.strides().extent([batch, 1, rows], width)
    }

    pub(crate) fn is_aligned(&self, width: usize) -> bool {
        self.strides().is_aligned() && width.is_multiple_of(4)
    }

    pub(crate) fn check(&self, name: &'static str, batch: usize, rows: usize, width: usize) -> Result<()> {
        self.strides().check(name, [batch, 1, rows], width)
    }

    pub(crate) fn check_separate(
        &self,
        name: &'static str,
        batch: usize,
        rows: usize,
        width: usize,
    ) -> Result<()> {
        self.check(name, batch, rows, width)?;
        self.strides().check_no_overlap(name, [batch, 1, rows], width).map_err(|_| {
            let got = format!("strides of {} (batch) and {} (row)", self.batch, self.row);
            Error::argument(name, format!("rows of {width} elements that do not overlap"), got)
        })
    }
}

/// How a weight matrix of `in` by `out` lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum WeightOrder {
    /// `[in, out]`: B itself, as in the formula; `Conv1D` of GPT-2.
    #[default]
    InOut,
    /// `[out, in]`: B transposed, as `torch.nn.Linear` stores it.
    OutIn,
}

/// How A, of `rows` by `inner`, lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AOrder {
    /// `[rows, inner]`: A itself, as in the formula.
    #[default]
    RowsInner,
    /// `[inner, rows]`: A transposed, as in the gradient of a weight, x^T dy.
    InnerRows,
}

/// What happens to act(A B + bias) at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Combine {
    /// It becomes out.
    #[default]
    Store,
    /// It is added to another tensor: out = residual + act(...).
    Add,
    /// It is added to what out holds: out += act(...). Needs f32 output.
    AddInto,
    /// It multiplies what out holds: out *= act(...), the second half of a gated feed-forward.
    MultiplyInto,
}

/// One matrix product, or a batch of them, with what is fused to its end:
///
/// ```text
/// C = combine( act( A B + bias ) )        A [batch, rows, inner]   B [batch, inner, columns]   C [batch, rows, columns]
/// ```
///
/// Sums are f32 whatever the storage. The bias is one vector `[columns]` of B's element type; a residual has C's
/// element type and, unless [`residual_strides`](Self::residual_strides) says otherwise, lies as a contiguous C.
///
/// ```
/// use wgpu_attention::{Activation, MatmulShape, WeightOrder};
/// // The first half of BERT's feed-forward, for 512 positions.
/// let shape = MatmulShape::new(512, 768, 3072)
///     .weights(WeightOrder::OutIn).bias(true).activation(Activation::GeluErf);
/// shape.check()?;
/// assert_eq!((shape.len_a(), shape.len_b(), shape.len_out()), (512 * 768, 768 * 3072, 512 * 3072));
/// assert!(MatmulShape::new(4, 0, 4).check().unwrap_err().to_string().contains("inner"));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct MatmulShape {
    /// Products. May be 0: then nothing is written.
    pub batch: usize,
    /// Rows of A and of C, M. May be 0: then nothing is written.
    pub rows: usize,
    /// Columns of A, rows of B, K.
    pub inner: usize,
    /// Columns of B and of C, N.
    pub columns: usize,
    /// How A lies.
    pub a_order: AOrder,
    /// How B lies.
    pub weights: WeightOrder,
    /// Whether a vector `[columns]` is added to every row.
    pub bias: bool,
    /// Applied to A B + bias; `None` is the identity.
    pub activation: Option<Activation>,
    /// What happens to the result.
    pub combine: Combine,
    /// Storage of A.
    pub input: ElementType,
    /// Storage of B and bias; of integers the bias alone.
    pub weight: ElementType,
    /// B as integers `[out, in]` of this format, made numbers on the way to the product: `x W^T` of quantised weights, in place of numbers.
    pub integers: Option<IntegerFormat>,
    /// Storage of C and of the residual.
    pub output: ElementType,
    /// Where A's stored rows lie (`rows` rows, or `inner` with [`AOrder::InnerRows`]); `None` is contiguous.
    pub a_strides: Option<RowStrides>,
    /// Where B's stored rows lie (`inner` rows, or `columns` with [`WeightOrder::OutIn`]); `None` is contiguous. A batch
    /// stride of 0 shares one B.
    pub b_strides: Option<RowStrides>,
    /// Where the residual's rows lie; `None` is contiguous.
    pub residual_strides: Option<RowStrides>,
    /// Where C's rows lie; `None` is contiguous.
    pub out_strides: Option<RowStrides>,
}

impl MatmulShape {
    /// One product of contiguous f32 matrices, nothing fused.
    pub fn new(rows: usize, inner: usize, columns: usize) -> Self {
        Self {
            batch: 1,
            rows,
            inner,
            columns,
            a_order: AOrder::RowsInner,
            weights: WeightOrder::InOut,
            bias: false,
            activation: None,
            combine: Combine::Store,
            input: ElementType::F32,
            weight: ElementType::F32,
            integers: None,
            output: ElementType::F32,
            a_strides: None,
            b_strides: None,
            residual_strides: None,
            out_strides: None,
        }
    }

    setters! {
        /// Sets the number of products.
        batch: usize,
        /// Sets how A lies.
        a_order: AOrder,
        /// Sets how B lies.
        weights: WeightOrder,
        /// Sets whether a bias is added.
        bias: bool,
        /// Sets what happens to the result.
        combine: Combine,
        /// Sets the storage of A.
        input: ElementType,
        /// Sets the storage of B and bias.
        weight: ElementType,
        /// Sets the storage of C and of the residual.
        output: ElementType,
    }

    /// Sets the activation.
    pub fn activation(mut self, activation: impl Into<Option<Activation>>) -> Self {
        self.activation = activation.into();
        self
    }

    /// Sets what integers B is of; none is B as it is.
    pub fn integers(mut self, format: impl Into<Option<IntegerFormat>>) -> Self {
        self.integers = format.into();
        self
    }

    /// Sets the storage of all tensors.
    pub fn elements(self, element: ElementType) -> Self {
        self.input(element).weight(element).output(element)
    }

    /// Sets where A's stored rows lie.
    pub fn a_strides(mut self, strides: RowStrides) -> Self {
        self.a_strides = Some(strides);
        self
    }

    /// Sets where B's stored rows lie.
    pub fn b_strides(mut self, strides: RowStrides) -> Self {
        self.b_strides = Some(strides);
        self
    }

    /// Sets where the residual's rows lie.
    pub fn residual_strides(mut self, strides: RowStrides) -> Self {
        self.residual_strides = Some(strides);
        self
    }

    /// Sets where C's rows lie.
    pub fn out_strides(mut self, strides: RowStrides) -> Self {
        self.out_strides = Some(strides);
        self
    }

    /// Strides of A, resolved.
    pub fn strides_of_a(&self) -> RowStrides {
        let [rows, width] = self.a_sizes();
        self.a_strides.unwrap_or(RowStrides::contiguous(rows, width))
    }

    /// Strides of B, resolved.
    pub fn strides_of_b(&self) -> RowStrides {
        let [rows, width] = self.b_sizes();
        self.b_strides.unwrap_or(RowStrides::contiguous(rows, width))
    }

    /// Strides of the residual, resolved.
    pub fn strides_of_residual(&self) -> RowStrides {
        self.residual_strides.unwrap_or(RowStrides::contiguous(self.rows, self.columns))
    }

    /// Strides of C, resolved.
    pub fn strides_of_out(&self) -> RowStrides {
        self.out_strides.unwrap_or(RowStrides::contiguous(self.rows, self.columns))
    }

    /// Stored rows of A and their length.
    pub(crate) fn a_sizes(&self) -> [usize; 2] {
        match self.a_order {
            AOrder::RowsInner => [self.rows, self.inner],
            AOrder::InnerRows => [self.inner, self.rows],
        }
    }

    /// Stored rows of B and their length.
    pub(crate) fn b_sizes(&self) -> [usize; 2] {
        match self.weights {
            WeightOrder::InOut => [self.inner, self.columns],
            WeightOrder::OutIn => [self.columns, self.inner],
        }
    }

    /// Elements from the start of A to the end of its last row.
    pub fn len_a(&self) -> usize {
        let [rows, width] = self.a_sizes();
        self.strides_of_a().extent(self.batch, rows, width)
    }

    /// Elements from the start of B to the end of its last row.
    pub fn len_b(&self) -> usize {
        let [rows, width] = self.b_sizes();
        self.strides_of_b().extent(self.batch, rows, width)
    }

    /// Elements from the start of the residual to the end of its last row; 0 without one.
    pub fn len_residual(&self) -> usize {
        if self.combine != Combine::Add {
            return 0;
        }
        self.strides_of_residual().extent(self.batch, self.rows, self.columns)
    }

    /// Elements from the start of C to the end of its last row.
    pub fn len_out(&self) -> usize {
        self.strides_of_out().extent(self.batch, self.rows, self.columns)
    }

    /// Whether there is nothing to compute.
    pub fn is_empty(&self) -> bool {
        self.batch == 0 || self.rows == 0
    }

    /// Floating-point operations of the products: 2 batch M K N.
    pub fn flops(&self) -> f64 {
        2.0 * [self.batch, self.rows, self.inner, self.columns].iter().map(|&n| n as f64).product::<f64>()
    }

    /// Checks everything that can be said without a device.
    ///
    /// # Errors
    /// [`Error::Argument`] for `inner` or `columns` of 0, rows of C that overlap, an output that is added to in
    /// 16 bits; for integers that are not stored `[out, in]`, of a batch, with strides, and as [`IntegerFormat::check`]; [`Error::Limit`] where an element offset would pass 32 bits.
    pub fn check(&self) -> Result<()> {
        for (name, size) in [("inner", self.inner), ("columns", self.columns)] {
            if size == 0 {
                return Err(Error::argument(name, "at least 1", 0));
            }
        }
        for (name, size) in
            [("batch", self.batch), ("rows", self.rows), ("inner", self.inner), ("columns", self.columns)]
        {
            check_u32(name, size as u128)?;
        }
        for (name, rows, width) in
            [("a", self.rows, self.inner), ("b", self.inner, self.columns), ("out", self.rows, self.columns)]
        {
            check_u32(name, rows as u128 * width as u128)?;
        }
        if self.combine == Combine::AddInto && self.output != ElementType::F32 {
            return Err(Error::argument("output", "f32 where out is added to (AddInto)", self.output));
        }
        let ([a_rows, a_width], [b_rows, b_width]) = (self.a_sizes(), self.b_sizes());
        self.check_integers()?;
        self.strides_of_a().check("a_strides", self.batch, a_rows, a_width)?;
        self.strides_of_b().check("b_strides", self.batch, b_rows, b_width)?;
        self.strides_of_residual().check("residual_strides", self.batch, self.rows, self.columns)?;
        self.strides_of_out().check_separate("out_strides", self.batch, self.rows, self.columns)
    }

    /// What B of integers may be.
    fn check_integers(&self) -> Result<()> {
        let Some(format) = self.integers else { return Ok(()) };
        if self.weights != WeightOrder::OutIn {
            return Err(Error::argument(
                "weights",
                "OutIn where B is of integers",
                format!("{:?}", self.weights),
            ));
        }
        if self.batch > 1 {
            return Err(Error::argument(
                "batch",
                "1 where B is of integers: rows of all items are rows of A",
                self.batch,
            ));
        }
        if self.b_strides.is_some() {
            return Err(Error::argument("b_strides", "none where B is of integers", "some"));
        }
        format.check(self.columns, self.inner)
    }
}
