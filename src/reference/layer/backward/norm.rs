//! Gradients of norms.

use super::super::rows::Centred;
use super::super::running::Running;
use super::super::{Bounded, check_len, check_optional, sum_roundings};
use super::{Sum, column_roundings, element, into, push};
use crate::shape::{Combine, NormKind, NormShape, RowGradients};
use crate::{ElementType, Result};

/// Gradients of a norm, and how far a kernel's may be from them.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct NormGradients {
    /// The gradient by x `[rows, width]`.
    pub dx: Bounded,
    /// The gradient by the weight `[width]`.
    pub dweight: Bounded,
    /// The gradient by the bias `[width]`; a shape without one has no use for it.
    pub dbias: Bounded,
}

/// Gradients of [`norm`](super::super::norm) by x, weight and bias, given dout; all contiguous: the strides of shape and gradients do not
/// count here. `before` is what dx is added to, if the gradients say so; those of weight and bias are taken to be stored.
///
/// The normalised row z and its factor s carry the errors that [`norm`](super::super::norm) gives c and the inverse root. A row with a NaN or
/// an infinity has a dx of NaN. Where dout or a weight is infinite nothing is promised of the row's dx: it is an infinity or NaN.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) for a tensor that is too short, missing or not asked for, and as [`NormShape::check`] and
/// [`RowGradients::check`].
///
/// ```
/// use wgpu_attention::{NormKind, NormShape, RowGradients, reference::layer::{Bounded, backward::norm_backward}};
/// let shape = NormShape::new(NormKind::Layer, 1, 3, 1e-12);
/// let [x, weight, dout] = [[1.0f32, 2.0, 4.0], [1.0; 3], [5.0; 3]].map(|row| Bounded::exact(&row));
/// let gradients = norm_backward(&shape, &RowGradients::of_norm(&shape), &x, &weight, &dout, None)?;
/// // Adding the same to all of out changes no x, and the normalised row has no mean.
/// assert!(gradients.dx.out.iter().all(|dx| dx.abs() < 1e-9));
/// assert!(gradients.dweight.out.iter().sum::<f64>().abs() < 1e-9);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn norm_backward(
    shape: &NormShape,
    gradients: &RowGradients,
    x: &Bounded,
    weight: &Bounded,
    dout: &Bounded,
    before: Option<&Bounded>,
) -> Result<NormGradients> {
    shape.check()?;
    let (rows, n) = (shape.rows, shape.width);
    gradients.check(rows, n)?;
    check_len("x", x, rows * n)?;
    check_len("weight", weight, n)?;
    check_len("dout", dout, rows * n)?;
    check_optional("before", before, gradients.combine == Combine::AddInto, rows * n)?;
    let mut all = NormGradients::default();
    let mut sums = vec![[Sum::default(); 2]; n];
    for row in 0..rows {
        let at = row * n;
        let row = Row::new(shape, &x.out[at..][..n], &x.bound[at..][..n]);
        let g: Vec<_> = (0..n).map(|c| element(dout, at + c) * element(weight, c)).collect();
        for (c, dx) in row.gradients(shape, &g).into_iter().enumerate() {
            push(&mut all.dx, into(dx, before, at + c));
        }
        for (c, [of_weight, of_bias]) in sums.iter_mut().enumerate() {
            of_weight.add(element(dout, at + c) * row.z[c]);
            of_bias.add(element(dout, at + c));
        }
    }
    for [of_weight, of_bias] in sums {
        push(&mut all.dweight, of_weight.total(column_roundings(rows)));
        push(&mut all.dbias, of_bias.total(column_roundings(rows)));
    }
    all.dx = all.dx.stored(gradients.dx);
    all.dweight = all.dweight.stored(ElementType::F32);
    all.dbias = all.dbias.stored(ElementType::F32);
    Ok(all)
}

/// A normalised row and its factor.
struct Row {
    z: Vec<Running>,
    factor: Running,
}

impl Row {
    fn new(shape: &NormShape, x: &[f64], dx: &[f64]) -> Self {
        if x.iter().any(|x| !x.is_finite()) {
            let nan = Running { value: f64::NAN, error: 0.0 };
            return Self { z: vec![nan; x.len()], factor: nan };
        }
        let centred = Centred::new(shape, x, dx);
        let (value, error) = centred.factor();
        let factor = Running { value, error };
        let z = |c| {
            let (value, error) = centred.element(c);
            Running { value, error } * factor
        };
        // Scaled back where the row was scaled: one rounding, should it be subnormal.
        Self { z: (0..x.len()).map(z).collect(), factor: Running::new(value, error, 1.0) }
    }

    /// dx, given g.
    fn gradients(&self, shape: &NormShape, g: &[Running]) -> Vec<Running> {
        let n = g.len();
        let roundings = sum_roundings(n);
        let (mut of_g, mut of_gz) = (Sum::default(), Sum::default());
        for (&g, &z) in g.iter().zip(&self.z) {
            of_g.add(g);
            of_gz.add(g * z);
        }
        let count = Running::exact(n as f32);
        let mean_g = match shape.kind {
            NormKind::Layer => of_g.total(roundings) / count,
            NormKind::Rms => Running::exact(0.0),
        };
        let mean_gz = of_gz.total(roundings) / count;
        let minus = |x: Running| Running { value: -x.value, ..x };
        let gradient =
            |(&g, &z): (&Running, &Running)| (g + minus(mean_g) + minus(z * mean_gz)) * self.factor;
        g.iter().zip(&self.z).map(gradient).collect()
    }
}
