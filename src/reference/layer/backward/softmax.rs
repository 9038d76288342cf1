//! The gradient of a softmax.

use super::super::{Bounded, check_len, check_optional, sum_roundings};
use super::{Sum, element, into, push};
use crate::Result;
use crate::shape::{Combine, RowGradients, SoftmaxShape};

/// The gradient of a softmax by its input, dx = y (dout - sum of y dout), from what it gave; all contiguous. `before` is what dx is added to, if
/// the gradients say so.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) for a tensor that is too short, missing or not asked for, and as [`SoftmaxShape::check`] and
/// [`RowGradients::check`].
///
/// ```
/// use wgpu_attention::{RowGradients, SoftmaxShape, reference::layer::{Bounded, backward::softmax_backward}};
/// let shape = SoftmaxShape::new(1, 2);
/// let (y, dout) = (Bounded::exact(&[0.25f32, 0.75]), Bounded::exact(&[1.0f32, 0.0]));
/// let dx = softmax_backward(&shape, &RowGradients::of_softmax(&shape), &y, &dout, None)?;
/// assert_eq!(dx.out, [0.1875, -0.1875]);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn softmax_backward(
    shape: &SoftmaxShape,
    gradients: &RowGradients,
    y: &Bounded,
    dout: &Bounded,
    before: Option<&Bounded>,
) -> Result<Bounded> {
    shape.check()?;
    let (rows, n) = (shape.rows, shape.width);
    gradients.check(rows, n)?;
    check_len("y", y, rows * n)?;
    check_len("dout", dout, rows * n)?;
    check_optional("before", before, gradients.combine == Combine::AddInto, rows * n)?;
    let mut dx = Bounded::default();
    for at in (0..rows).map(|row| row * n) {
        let mut sum = Sum::default();
        (0..n).for_each(|c| sum.add(element(y, at + c) * element(dout, at + c)));
        let mut sum = sum.total(sum_roundings(n));
        sum.value = -sum.value;
        for c in at..at + n {
            push(&mut dx, into(element(y, c) * (element(dout, c) + sum), before, c));
        }
    }
    Ok(dx.stored(gradients.dx))
}
