//! What the loss of distillation computes.

use super::{CrossEntropyShape, LossGradient};
use crate::{ElementType, Error, Result};

/// The loss of distillation: how far the softmax of a student's logits x `[rows, vocabulary]` is from that of a teacher's y, both at a
/// temperature T (Hinton 2015, section 2; DistilBERT, Sanh 2019), and its gradient by x.
///
/// ```text
/// p = softmax(x / T)      q = softmax(y / T)
/// loss   = T^2 KL(q, p) = T^2 sum_i q_i (ln q_i - ln p_i)        in nats, one per row, f32
/// dx_i   = factor T (p_i - q_i)                                  the gradient of factor times the sum of all losses
/// ```
///
/// That is `KLDivLoss(log_softmax(x / T), softmax(y / T)) * T * T` of PyTorch; `factor` = 1 / rows gives the gradient of its `batchmean`.
///
/// * A row in which x or y has a NaN or +infinity, or nothing but -infinity, is NaN. Where the teacher has -infinity nothing is wanted; where the
///   student alone has it the loss is infinite.
/// * The loss of a student that is its teacher is 0 up to rounding, of either sign.
///
/// ```
/// use wgpu_attention::{DistillationShape, LossGradient};
/// let shape = DistillationShape::new(512, 30522, 2.0).gradient(LossGradient::InPlace).factor(1.0 / 512.0);
/// assert_eq!(shape.len_teacher(), 512 * 30522);
/// let error = DistillationShape::new(512, 30522, 0.0).check().unwrap_err().to_string();
/// assert!(error.starts_with("temperature: need"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct DistillationShape {
    /// Rows. May be 0: then nothing is written.
    pub rows: usize,
    /// Elements of a row.
    pub vocabulary: usize,
    /// T: from 1e-6 to 1e6.
    pub temperature: f32,
    /// Where the gradient goes.
    pub gradient: LossGradient,
    /// What the gradient is multiplied by: a normal number or 0.
    pub factor: f32,
    /// Storage of the student's logits.
    pub input: ElementType,
    /// Storage of the teacher's logits.
    pub teacher: ElementType,
    /// From one row of the student's logits to the next, in elements; `None` is `vocabulary`.
    pub logits_row: Option<usize>,
    /// From one row of the teacher's logits to the next; `None` is `vocabulary`.
    pub teacher_row: Option<usize>,
    /// From one row of a [stored](LossGradient::Stored) gradient to the next; `None` is `vocabulary`.
    pub gradient_row: Option<usize>,
}

impl DistillationShape {
    /// Contiguous f32 logits; the loss alone.
    pub fn new(rows: usize, vocabulary: usize, temperature: f32) -> Self {
        Self {
            rows,
            vocabulary,
            temperature,
            gradient: LossGradient::None,
            factor: 1.0,
            input: ElementType::F32,
            teacher: ElementType::F32,
            logits_row: None,
            teacher_row: None,
            gradient_row: None,
        }
    }

    setters! {
        /// Sets where the gradient goes.
        gradient: LossGradient,
        /// Sets what the gradient is multiplied by.
        factor: f32,
        /// Sets the storage of the student's logits.
        input: ElementType,
        /// Sets the storage of the teacher's logits.
        teacher: ElementType,
        /// Sets the stride of the student's rows.
        logits_row: Option<usize>,
        /// Sets the stride of the teacher's rows.
        teacher_row: Option<usize>,
        /// Sets the stride of a stored gradient's rows.
        gradient_row: Option<usize>,
    }

    /// Stride of the teacher's rows, resolved.
    pub fn stride_of_teacher(&self) -> usize {
        self.teacher_row.unwrap_or(self.vocabulary)
    }

    /// Elements from the start of the teacher's logits to the end of their last row.
    pub fn len_teacher(&self) -> usize {
        super::rows::extent(self.rows, self.vocabulary, self.stride_of_teacher())
    }

    /// The loss of the same logits and gradient against targets: where they lie is said there.
    pub(crate) fn as_cross_entropy(&self) -> CrossEntropyShape {
        CrossEntropyShape::new(self.rows, self.vocabulary)
            .gradient(self.gradient)
            .factor(self.factor)
            .input(self.input)
            .logits_row(self.logits_row)
            .gradient_row(self.gradient_row)
    }

    /// Checks everything that can be said without a device.
    ///
    /// # Errors
    /// [`Error::Argument`] for a temperature outside 1e-6 to 1e6, and as [`CrossEntropyShape::check`].
    pub fn check(&self) -> Result<()> {
        if !(1e-6..=1e6).contains(&self.temperature) {
            return Err(Error::argument("temperature", "1e-6 to 1e6", self.temperature));
        }
        self.as_cross_entropy().check()?;
        let strides = [("teacher_row", self.stride_of_teacher()), ("vocabulary", self.vocabulary)];
        super::rows::check_sizes(self.rows, self.vocabulary, &strides)
    }
}
