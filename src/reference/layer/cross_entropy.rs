//! Softmax cross-entropy and its gradient, contiguous.

use super::softmax_row::SoftmaxRow;
use super::{Bounded, TINY, U, ULP, check_len, gamma, sum_roundings};
use crate::{CrossEntropyShape, DistillationShape, ElementType, Error, Result};

/// A loss and a gradient, and how far a kernel may be from them.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct CrossEntropyBounded {
    /// The loss `[rows]`.
    pub loss: Bounded,
    /// The gradient `[rows, vocabulary]`; empty where the shape has none.
    pub gradient: Bounded,
}

impl CrossEntropyBounded {
    /// Adds a row: values and their errors, the gradient's where it is asked for.
    fn push(&mut self, loss: (f64, f64), gradient: &[(f64, f64)], element: Option<ElementType>) {
        self.loss.out.push(loss.0);
        self.loss.bound.push(loss.1);
        if element.is_some() {
            self.gradient.out.extend(gradient.iter().map(|(value, _)| value));
            self.gradient.bound.extend(gradient.iter().map(|(_, bound)| bound));
        }
    }

    fn stored(mut self, element: Option<ElementType>) -> Self {
        self.loss = self.loss.stored(ElementType::F32);
        if let Some(element) = element {
            self.gradient = self.gradient.stored(element);
        }
        self
    }
}

/// Softmax cross-entropy of contiguous logits `[rows, vocabulary]` against targets `[rows]`, and its gradient by the logits; the strides of
/// the shape do not count here.
///
/// With m, l, p, theta and the K roundings of a sum as in [`softmax`](super::softmax), r the relative error of l, g_i = m - x_i and e_i its error:
///
/// ```text
/// |ln l' - ln l| <= -ln(1 - r) + 4 E + 3 E ln l
/// |G' - G|       <= sum q_i e_i + gamma_{K+5} sum q_i (g_i + e_i) + 4 n 2^-126        G = sum q_i g_i
/// |loss' - loss| <= both + u (loss + both)
/// |dx' - dx|     <= |factor| (of p_i + 2 u q_i + u (|p_i - q_i| + ...)) and a rounding
/// ```
///
/// gamma_{K+5}: a gap, a product, and the three roundings of q. A loss that is infinite must be.
///
/// # Errors
/// [`Error::Argument`] for logits that are too few, targets that are not `rows`, and as [`CrossEntropyShape::check`].
///
/// ```
/// use wgpu_attention::{CrossEntropyShape, reference::layer::{Bounded, cross_entropy}};
/// let y = cross_entropy(&CrossEntropyShape::new(1, 4), &Bounded::exact(&[7.0f32; 4]), &[2])?;
/// assert!((y.loss.out[0] - 4f64.ln()).abs() < 1e-12);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn cross_entropy(
    shape: &CrossEntropyShape,
    logits: &Bounded,
    targets: &[u32],
) -> Result<CrossEntropyBounded> {
    shape.check()?;
    let n = shape.vocabulary;
    check_len("logits", logits, shape.rows * n)?;
    if targets.len() != shape.rows {
        return Err(Error::argument("targets", format!("{} targets", shape.rows), targets.len()));
    }
    let mut all = CrossEntropyBounded::default();
    for (row, &target) in targets.iter().enumerate() {
        let (x, dx) = (&logits.out[row * n..][..n], &logits.bound[row * n..][..n]);
        let (loss, gradient) = match SoftmaxRow::new(x, dx) {
            _ if shape.ignore_index == Some(target) => ((0.0, 0.0), vec![(0.0, 0.0); n]),
            Some(softmax) if (target as usize) < n => {
                let row = Row { shape, softmax: &softmax, n, target: target as usize };
                (row.loss(), row.gradient())
            }
            _ => ((f64::NAN, 0.0), vec![(f64::NAN, 0.0); n]),
        };
        all.push(loss, &gradient, shape.gradient_type());
    }
    Ok(all.stored(shape.gradient_type()))
}

/// A row that has a loss.
struct Row<'a> {
    shape: &'a CrossEntropyShape,
    softmax: &'a SoftmaxRow<'a>,
    n: usize,
    target: usize,
}

impl Row<'_> {
    /// q of an element.
    fn wanted(&self, i: usize) -> f64 {
        let (at_target, at_all) = self.shape.target_weights();
        at_all + if i == self.target { at_target } else { 0.0 }
    }

    fn loss(&self) -> (f64, f64) {
        let softmax = self.softmax;
        let (mut gaps, mut passed, mut sizes) = (0.0, 0.0, 0.0);
        for (i, q) in (0..self.n).map(|i| (i, self.wanted(i))).filter(|(_, q)| *q > 0.0) {
            let (gap, of_gap) = (softmax.gap(i), softmax.of_gap(i));
            if gap == f64::INFINITY {
                return (f64::INFINITY, 0.0);
            }
            if gap + of_gap > 0.999 * f64::from(f32::MAX) {
                return (softmax.sum().ln() + q * gap, f64::INFINITY);
            }
            gaps += q * gap;
            passed += q * of_gap;
            sizes += q * (gap + of_gap);
        }
        let log = softmax.sum().ln();
        let of_log = -(-softmax.of_sum()).ln_1p() + 4.0 * ULP + 3.0 * ULP * log;
        let of_gaps = passed + gamma(sum_roundings(self.n) + 5) * sizes + 4.0 * TINY * self.n as f64;
        let (loss, error) = (log + gaps, of_log + of_gaps);
        // Past all of l there is no bound.
        (loss, if error.is_nan() { f64::INFINITY } else { error + U * (loss + error) })
    }

    fn gradient(&self) -> Vec<(f64, f64)> {
        let (factor, of_sum) = (f64::from(self.shape.factor), self.softmax.of_sum());
        let element = |i| {
            let (p, q) = (self.softmax.weight(i), self.wanted(i));
            let operands = self.softmax.of_weight(i, of_sum) + 2.0 * U * q;
            let difference = operands + U * ((p - q).abs() + operands);
            let value = factor * (p - q);
            let error = factor.abs() * difference;
            (value, error + U * (value.abs() + error) + factor.abs().min(1.0) * TINY)
        };
        (0..self.n).map(element).collect()
    }
}

/// The loss of distillation of contiguous logits against a teacher's, both `[rows, vocabulary]`, and its gradient; the strides of the shape do not
/// count here.
///
/// As [`cross_entropy`], with the weights q of the teacher and their errors in place of exact ones, gaps g of the student less those h of the
/// teacher, both divided by the temperature, and l / k of both sums:
///
/// ```text
/// |ln (l / k)' - ln (l / k)| <= - ln(1 - r_l) - ln(1 - r_k) + (4 + 2.5) E + 3 E |ln (l / k)|
/// |G' - G| <= sum (of q_i |g_i - h_i| + (q_i + of q_i) (of g_i + of h_i + u (g_i + h_i))) + gamma_{K+5} sum (q_i + of q_i) |g_i - h_i| + ...
/// ```
///
/// Where the student alone has -infinity the loss is infinite; nothing is promised where the teacher wants less of it than f32 can say.
///
/// # Errors
/// As [`cross_entropy`], and as [`DistillationShape::check`].
///
/// ```
/// use wgpu_attention::{DistillationShape, reference::layer::{Bounded, distillation}};
/// let (student, teacher) = (Bounded::exact(&[7.0f32; 4]), Bounded::exact(&[1.0f32; 4]));
/// // Both want all alike.
/// assert!(distillation(&DistillationShape::new(1, 4, 2.0), &student, &teacher)?.loss.out[0].abs() < 1e-12);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn distillation(
    shape: &DistillationShape,
    logits: &Bounded,
    teacher: &Bounded,
) -> Result<CrossEntropyBounded> {
    shape.check()?;
    let n = shape.vocabulary;
    check_len("logits", logits, shape.rows * n)?;
    check_len("teacher", teacher, shape.rows * n)?;
    let scale = f64::from(shape.temperature).recip();
    let element = shape.as_cross_entropy().gradient_type();
    let mut all = CrossEntropyBounded::default();
    for at in (0..shape.rows).map(|row| row * n) {
        let student = SoftmaxRow::scaled(&logits.out[at..at + n], &logits.bound[at..at + n], scale);
        let wanted = SoftmaxRow::scaled(&teacher.out[at..at + n], &teacher.bound[at..at + n], scale);
        let (loss, gradient) = match (&student, &wanted) {
            (Some(student), Some(wanted)) => {
                let pair = Distilled { shape, student, wanted, n };
                (pair.loss(), pair.gradient())
            }
            _ => ((f64::NAN, 0.0), vec![(f64::NAN, 0.0); n]),
        };
        all.push(loss, &gradient, element);
    }
    Ok(all.stored(element))
}

/// A student's row and its teacher's.
struct Distilled<'a> {
    shape: &'a DistillationShape,
    student: &'a SoftmaxRow<'a>,
    wanted: &'a SoftmaxRow<'a>,
    n: usize,
}

impl Distilled<'_> {
    fn loss(&self) -> (f64, f64) {
        let (student, wanted) = (self.student, self.wanted);
        let of_sum = wanted.of_sum();
        let (mut gaps, mut passed, mut sizes) = (0.0, 0.0, 0.0);
        for i in 0..self.n {
            let (q, of_q) = (wanted.weight(i), wanted.of_weight(i, of_sum));
            let (g, h) = (student.gap(i), wanted.gap(i));
            if h == f64::INFINITY {
                continue;
            }
            if g == f64::INFINITY {
                // Below e^-87 of the largest a kernel wants nothing.
                return (f64::INFINITY, if h < 85.0 { 0.0 } else { f64::INFINITY });
            }
            if g + student.of_gap(i) > 0.999 * f64::from(f32::MAX) {
                return (0.0, f64::INFINITY);
            }
            let most = q + of_q;
            gaps += q * (g - h);
            passed += of_q * (g - h).abs();
            passed += most * (student.of_gap(i) + wanted.of_gap(i) + U * (g + h));
            sizes += most * ((g - h).abs() + student.of_gap(i) + wanted.of_gap(i) + U * (g + h));
        }
        let log = (student.sum() / wanted.sum()).ln();
        let of_log = -(-student.of_sum()).ln_1p() - (-of_sum).ln_1p() + 6.5 * ULP + 3.0 * ULP * log.abs();
        let of_gaps = passed + gamma(sum_roundings(self.n) + 5) * sizes + 4.0 * TINY * self.n as f64;
        let weight = f64::from(self.shape.temperature).powi(2);
        let (loss, error) =
            (weight * (log + gaps), weight * (of_log + of_gaps + U * (log.abs() + gaps.abs())));
        // The square is rounded, and the product with it. Past all of l there is no bound.
        (loss, if error.is_nan() { f64::INFINITY } else { error + 2.0 * U * (loss.abs() + error) + TINY })
    }

    fn gradient(&self) -> Vec<(f64, f64)> {
        let (of_student, of_wanted) = (self.student.of_sum(), self.wanted.of_sum());
        let factor = f64::from(self.shape.temperature) * f64::from(self.shape.factor);
        let element = |i| {
            let (p, q) = (self.student.weight(i), self.wanted.weight(i));
            let operands = self.student.of_weight(i, of_student) + self.wanted.of_weight(i, of_wanted);
            let difference = operands + U * ((p - q).abs() + operands);
            let value = factor * (p - q);
            let error = factor.abs() * difference;
            // The factor is rounded, and the product with it.
            (value, error + 2.0 * U * (value.abs() + error) + factor.abs().min(1.0) * TINY)
        };
        (0..self.n).map(element).collect()
    }
}
