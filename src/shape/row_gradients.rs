//! How gradients of the kernels over rows are stored.

use super::Combine;
use super::rows::{check_sizes, extent};
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

/// Gradients are stored, or added to what is there.
pub(crate) fn check_combine(name: &'static str, combine: Combine) -> Result<()> {
    match combine {
        Combine::Store | Combine::AddInto => Ok(()),
        other => Err(Error::argument(name, "Store or AddInto", format!("{other:?}"))),
    }
}
