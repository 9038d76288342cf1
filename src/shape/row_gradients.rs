//! How gradients of the kernels over rows, and of an embedding, are stored.

use super::rows::{check_sizes, extent};
use super::{Combine, EmbedShape};
use crate::layout::check_u32;
use crate::{ElementType, Error, Result};

/// How the gradients of a kernel over rows `[rows, width]` are stored, and dout, which they are made of.
///
/// Gradients of weight and bias are f32 whatever the types.
///
/// ```
/// use wgpu_attention::{Combine, ElementType, NormKind, NormShape, RowGradients};
/// let norm = NormShape::new(NormKind::Layer, 512, 768, 1e-12).elements(ElementType::F16);
/// // dx in f32, added to the gradient that came past the norm by the residual.
/// let gradients = RowGradients::of_norm(&norm).dx(ElementType::F32).combine(Combine::AddInto);
/// assert_eq!(gradients.dout, ElementType::F16);
/// assert!(gradients.dx(ElementType::F16).check(512, 768).unwrap_err().to_string().contains("dx: need f32"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct RowGradients {
    /// Storage of dout; at first that of out.
    pub dout: ElementType,
    /// From one row of dout to the next, in elements; `None` is the width.
    pub dout_row: Option<usize>,
    /// Storage of dx; at first that of x.
    pub dx: ElementType,
    /// From one row of dx to the next; `None` is the width.
    pub dx_row: Option<usize>,
    /// [`Combine::Store`], or [`Combine::AddInto`] with dx in f32.
    pub combine: Combine,
    /// What happens to the gradients of weight and bias: [`Combine::Store`] or [`Combine::AddInto`].
    pub parameters: Combine,
}

impl RowGradients {
    /// Contiguous gradients of a norm, each in the type of its tensor.
    pub fn of_norm(shape: &super::NormShape) -> Self {
        Self::new(shape.output, shape.input)
    }

    /// Contiguous gradients of a softmax, each in the type of its tensor.
    pub fn of_softmax(shape: &super::SoftmaxShape) -> Self {
        Self::new(shape.output, shape.input)
    }

    fn new(dout: ElementType, dx: ElementType) -> Self {
        let store = Combine::Store;
        Self { dout, dout_row: None, dx, dx_row: None, combine: store, parameters: store }
    }

    setters! {
        /// Sets the storage of dout.
        dout: ElementType,
        /// Sets the stride of dout's rows.
        dout_row: Option<usize>,
        /// Sets the storage of dx.
        dx: ElementType,
        /// Sets the stride of dx's rows.
        dx_row: Option<usize>,
        /// Sets whether dx is stored or added.
        combine: Combine,
        /// Sets whether the gradients of weight and bias are stored or added.
        parameters: Combine,
    }

    /// Elements from the start of dout to the end of its last row.
    pub fn len_dout(&self, rows: usize, width: usize) -> usize {
        extent(rows, width, self.stride_of_dout(width))
    }

    /// Elements from the start of dx to the end of its last row.
    pub fn len_dx(&self, rows: usize, width: usize) -> usize {
        extent(rows, width, self.stride_of_dx(width))
    }

    pub(crate) fn stride_of_dout(&self, width: usize) -> usize {
        self.dout_row.unwrap_or(width)
    }

    pub(crate) fn stride_of_dx(&self, width: usize) -> usize {
        self.dx_row.unwrap_or(width)
    }

    /// Checks everything that can be said without a device.
    ///
    /// # Errors
    /// [`Error::Argument`] for rows of dx that overlap, a combination other than those above;
    /// [`Error::Limit`] where an element offset would pass 32 bits.
    pub fn check(&self, rows: usize, width: usize) -> Result<()> {
        let strides = [("dout_row", self.stride_of_dout(width)), ("dx_row", self.stride_of_dx(width))];
        check_sizes(rows, width, &strides)?;
        check_combine("combine", self.combine)?;
        check_combine("parameters", self.parameters)?;
        match (self.combine, self.dx) {
            (Combine::Store, _) | (_, ElementType::F32) => Ok(()),
            (_, other) => Err(Error::argument("dx", "f32 where it is added to", other)),
        }
    }
}

/// How the gradient of an embedding by its table is made, and dout, which it is made of.
///
/// ```
/// use wgpu_attention::{EmbedGradients, EmbedShape};
/// // As PyTorch's `padding_idx = 0`: that row of the table is never trained.
/// let shape = EmbedShape::new(512, 30522, 768);
/// let gradients = EmbedGradients::of(&shape).padding(Some(0));
/// assert!(gradients.check(&shape).is_ok() && gradients.padding(Some(30522)).check(&shape).is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct EmbedGradients {
    /// Storage of dout; at first that of out.
    pub dout: ElementType,
    /// The first element of dout; at first that of out.
    pub dout_at: usize,
    /// From one row of dout to the next, in elements; `None` is the width. At first that of out.
    pub dout_row: Option<usize>,
    /// A row of the table that has no gradient.
    pub padding: Option<u32>,
    /// [`Combine::Store`]: rows that no id names become 0. [`Combine::AddInto`]: they stay, and the others are added to.
    pub combine: Combine,
}

impl EmbedGradients {
    /// The gradient of all rows, stored; dout lies as out does.
    pub fn of(shape: &EmbedShape) -> Self {
        let (dout, dout_at, dout_row) = (shape.output, shape.out_at, shape.out_row);
        Self { dout, dout_at, dout_row, padding: None, combine: Combine::Store }
    }

    setters! {
        /// Sets the storage of dout.
        dout: ElementType,
        /// Sets the first element of dout.
        dout_at: usize,
        /// Sets the stride of dout's rows.
        dout_row: Option<usize>,
        /// Sets the row that has no gradient.
        padding: Option<u32>,
        /// Sets whether the gradient is stored or added.
        combine: Combine,
    }

    /// An embedding whose out lies as dout does.
    pub(crate) fn lies(&self, shape: &EmbedShape) -> EmbedShape {
        shape.out_at(self.dout_at).out_row(self.dout_row)
    }

    /// Checks everything that can be said without a device.
    ///
    /// # Errors
    /// [`Error::Argument`] for a combination other than those above, a padding past the table; [`Error::Limit`] where an element
    /// offset would pass 32 bits.
    pub fn check(&self, shape: &EmbedShape) -> Result<()> {
        check_combine("combine", self.combine)?;
        if let Some(padding) = self.padding.filter(|&row| row as usize >= shape.table_rows) {
            let need = format!("a row of the table, below {}", shape.table_rows);
            return Err(Error::argument("padding", need, padding));
        }
        // Rows that are only read may overlap.
        let row = self.lies(shape).stride_of_out();
        check_u32("dout", self.dout_at as u128 + shape.rows as u128 * row as u128)
    }
}

/// Gradients are stored, or added to what is there.
fn check_combine(name: &'static str, combine: Combine) -> Result<()> {
    match combine {
        Combine::Store | Combine::AddInto => Ok(()),
        other => Err(Error::argument(name, "Store or AddInto", format!("{other:?}"))),
    }
}
