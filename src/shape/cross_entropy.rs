//! What the loss computes: softmax cross-entropy, and its gradient by the logits.

use super::rows::{check_sizes, extent};
use crate::{ElementType, Error, Result};

/// Where the gradient by the logits goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LossGradient {
    /// Nowhere: the loss alone is computed.
    #[default]
    None,
    /// Over the logits, in their type: there is no second `[rows, vocabulary]` tensor.
    InPlace,
    /// Into a tensor of its own, of this type.
    Stored(ElementType),
}

/// Softmax cross-entropy of logits x `[rows, vocabulary]` against targets t `[rows]` (u32), and its gradient by the logits.
///
/// With V = `vocabulary`, s = `smoothing` and p the softmax of a row:
///
/// ```text
/// q_i    = (1 - s) [i = t] + s / V                  label smoothing (Szegedy 2016, section 7), as PyTorch defines it
/// loss   = - sum_i q_i ln p_i                       in nats, one per row, f32
/// dx_i   = factor (p_i - q_i)                       the gradient of factor times the sum of all losses
/// ```
///
/// `factor` scales the gradient, not the loss: 1 / rows (or 1 / the number of rows that count) is the gradient of the mean. Where
/// the gradient is f16, a larger factor (loss scaling, Micikevicius 2018) keeps small elements; f16 saturates.
///
/// * A row whose target is `ignore_index` has loss 0 and gradient 0, whatever its logits are. PyTorch's -100 is
///   `-100i32 as u32`.
/// * A target past the vocabulary is an error that only the device sees: the row's loss and gradient are NaN. Nothing outside
///   the tensors is read.
/// * A row with a NaN or +infinity is NaN, loss and gradient, and so is one of nothing but -infinity. Beside a number, -infinity
///   weighs 0; where its q is above 0, the loss is infinite.
///
/// ```
/// use wgpu_attention::{CrossEntropyShape, ElementType, LossGradient};
/// let shape = CrossEntropyShape::new(512, 50257).smoothing(0.1).gradient(LossGradient::InPlace).factor(1.0 / 512.0);
/// assert_eq!((shape.len_logits(), shape.gradient_type()), (512 * 50257, Some(ElementType::F32)));
/// assert!(shape.smoothing(1.5).check().unwrap_err().to_string().starts_with("smoothing: need 0 to 1"));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct CrossEntropyShape {
    /// Rows. May be 0: then nothing is written.
    pub rows: usize,
    /// Elements of a row, V.
    pub vocabulary: usize,
    /// How much of a row's weight all elements share: 0 to 1.
    pub smoothing: f32,
    /// The target of rows that do not count.
    pub ignore_index: Option<u32>,
    /// Where the gradient goes.
    pub gradient: LossGradient,
    /// What the gradient is multiplied by: a normal number or 0.
    pub factor: f32,
    /// Storage of the logits.
    pub input: ElementType,
    /// From one row of logits to the next, in elements; `None` is `vocabulary`.
    pub logits_row: Option<usize>,
    /// From one row of a [stored](LossGradient::Stored) gradient to the next; `None` is `vocabulary`.
    pub gradient_row: Option<usize>,
}

impl CrossEntropyShape {
    /// Contiguous f32 logits, without smoothing; the loss alone.
    pub fn new(rows: usize, vocabulary: usize) -> Self {
        Self {
            rows,
            vocabulary,
            smoothing: 0.0,
            ignore_index: None,
            gradient: LossGradient::None,
            factor: 1.0,
            input: ElementType::F32,
            logits_row: None,
            gradient_row: None,
        }
    }

    setters! {
        /// Sets how much of a row's weight all elements share.
        smoothing: f32,
        /// Sets the target of rows that do not count.
        ignore_index: Option<u32>,
        /// Sets where the gradient goes.
        gradient: LossGradient,
        /// Sets what the gradient is multiplied by.
        factor: f32,
        /// Sets the storage of the logits.
        input: ElementType,
        /// Sets the stride of the logits' rows.
        logits_row: Option<usize>,
        /// Sets the stride of a stored gradient's rows.
        gradient_row: Option<usize>,
    }

    /// Stride of the logits' rows, resolved.
    pub fn stride_of_logits(&self) -> usize {
        self.logits_row.unwrap_or(self.vocabulary)
    }

    /// Stride of the gradient's rows, resolved: in place that of the logits.
    pub fn stride_of_gradient(&self) -> usize {
        match self.gradient {
            LossGradient::InPlace => self.stride_of_logits(),
            _ => self.gradient_row.unwrap_or(self.vocabulary),
        }
    }

    /// Elements from the start of the logits to the end of their last row.
    pub fn len_logits(&self) -> usize {
        extent(self.rows, self.vocabulary, self.stride_of_logits())
    }

    /// Elements from the start of the gradient to the end of its last row; 0 without one.
    pub fn len_gradient(&self) -> usize {
        match self.gradient {
            LossGradient::None => 0,
            _ => extent(self.rows, self.vocabulary, self.stride_of_gradient()),
        }
    }

    /// Storage of the gradient, if there is one.
    pub fn gradient_type(&self) -> Option<ElementType> {
        match self.gradient {
            LossGradient::None => None,
            LossGradient::InPlace => Some(self.input),
            LossGradient::Stored(element) => Some(element),
        }
    }

    /// q of the target beyond that of all, and q of all: what a kernel is given.
    pub(crate) fn target_weights(&self) -> (f64, f64) {
        let smoothing = f64::from(self.smoothing);
        (1.0 - smoothing, smoothing / self.vocabulary as f64)
    }

    /// Checks everything that can be said without a device.
    ///
    /// # Errors
    /// [`Error::Argument`] for a `vocabulary` of 0, a `smoothing` outside 0 to 1 or of which an element's share is no normal
    /// number, a `factor` that is neither a normal number nor 0, a `gradient_row` without a stored gradient, rows that are written and overlap;
    /// [`Error::Limit`] where an element offset would pass 32 bits.
    pub fn check(&self) -> Result<()> {
        if self.vocabulary == 0 {
            return Err(Error::argument("vocabulary", "at least 1", 0));
        }
        if !(0.0..=1.0).contains(&self.smoothing) {
            return Err(Error::argument("smoothing", "0 to 1", self.smoothing));
        }
        // A device may take a subnormal for 0.
        let share = self.target_weights().1 as f32;
        if !(share.is_normal() || self.smoothing == 0.0) {
            let need = format!(
                "0, or at least {:e} for this vocabulary",
                self.vocabulary as f32 * f32::MIN_POSITIVE
            );
            return Err(Error::argument("smoothing", need, self.smoothing));
        }
        if !(self.factor.is_normal() || self.factor == 0.0) {
            return Err(Error::argument("factor", "a normal number or 0", self.factor));
        }
        let stored = matches!(self.gradient, LossGradient::Stored(_));
        if let (Some(row), false) = (self.gradient_row, stored) {
            return Err(Error::argument("gradient_row", "none, since no gradient is stored apart", row));
        }
        let logits = ("logits_row", self.stride_of_logits());
        let strides = match self.gradient {
            LossGradient::Stored(_) => vec![logits, ("gradient_row", self.stride_of_gradient())],
            LossGradient::InPlace => vec![logits],
            // Rows that are only read may overlap.
            LossGradient::None => vec![logits, ("vocabulary", self.vocabulary)],
        };
        check_sizes(self.rows, self.vocabulary, &strides)
    }
}
