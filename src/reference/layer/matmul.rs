//! The matrix product.

use super::{Bounded, TINY, U, activation, check_len, check_optional, gamma, settled};
use crate::{AOrder, Combine, MatmulShape, Result, WeightOrder};
use rayon::prelude::*;

/// The tensors of a product, lying as the [`MatmulShape`] says.
#[derive(Debug, Clone, Copy)]
pub struct MatmulInputs<'a> {
    /// A `[batch, rows, inner]` or `[batch, inner, rows]`.
    pub a: &'a Bounded,
    /// B `[batch, inner, columns]` or `[batch, columns, inner]`.
    pub b: &'a Bounded,
    /// bias `[columns]`.
    pub bias: Option<&'a Bounded>,
    /// The residual, or what out held before where that is [added to](Combine::AddInto) or
    /// [multiplied](Combine::MultiplyInto).
    pub other: Option<&'a Bounded>,
}

/// combine(act(A B + bias)), contiguous `[batch, rows, columns]`, stored in the shape's output type.
///
/// With s = sum_k a_k b_k + bias, errors da and db of the inputs, and K terms,
///
/// ```text
/// |s' - s| <= sum ( da |b| + |a| db + da db ) + gamma_{K+2} ( sum (|a| + da)(|b| + db) + |bias| ) + (K + 2) 2^-125 (1 + max)
/// ```
///
/// K products and K - 1 additions are at most K roundings of any term, whatever the order and whether or not
/// multiplication and addition are fused; the bias is one more. Integers that share a scale may be added up before they are scaled: the one rounding
/// of their numbers is then that of the sum. Where the sizes of the terms add up to more than f32 holds, or with [integers](MatmulShape::integers) those
/// of 256 a, nothing is promised. Then the [activation](activation::activation), and for
/// the combination one rounding.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) for a tensor that is too short, missing or not asked for, and as
/// [`MatmulShape::check`].
///
/// ```
/// use wgpu_attention::{MatmulShape, reference::layer::{Bounded, MatmulInputs, matmul}};
/// let (a, b) = (Bounded::exact(&[1.0f32, 2.0]), Bounded::exact(&[3.0f32, 4.0]));
/// let product = matmul(&MatmulShape::new(1, 2, 1), &MatmulInputs { a: &a, b: &b, bias: None, other: None })?;
/// assert_eq!(product.out, [11.0]);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn matmul(shape: &MatmulShape, inputs: &MatmulInputs<'_>) -> Result<Bounded> {
    shape.check()?;
    check_len("a", inputs.a, shape.len_a())?;
    check_len("b", inputs.b, shape.len_b())?;
    check_optional("bias", inputs.bias, shape.bias, shape.columns)?;
    let other = if shape.combine == Combine::Add { shape.len_residual() } else { shape.len_out() };
    check_optional("residual", inputs.other, shape.combine != Combine::Store, other)?;
    let elements = shape.batch * shape.rows * shape.columns;
    let (out, bound) = (0..elements).into_par_iter().map(|n| element(shape, inputs, n)).unzip();
    Ok(Bounded { out, bound }.stored(shape.output))
}

/// Element n of the contiguous result, in f32, and its error.
fn element(shape: &MatmulShape, inputs: &MatmulInputs<'_>, n: usize) -> (f64, f64) {
    let (column, row, batch) =
        (n % shape.columns, n / shape.columns % shape.rows, n / shape.columns / shape.rows);
    let (a, b) = (inputs.a, inputs.b);
    let a_strides = shape.strides_of_a();
    let b_strides = shape.strides_of_b();
    let (mut sum, mut condition, mut error, mut largest) = (0.0, 0.0, 0.0, 1.0f64);
    let mut unscaled = 0.0;
    for k in 0..shape.inner {
        let ka = match shape.a_order {
            AOrder::RowsInner => a_strides.at(batch, row) + k,
            AOrder::InnerRows => a_strides.at(batch, k) + row,
        };
        let kb = match shape.weights {
            WeightOrder::InOut => b_strides.at(batch, k) + column,
            WeightOrder::OutIn => b_strides.at(batch, column) + k,
        };
        let (x, dx, y, dy) = (a.out[ka], a.bound[ka], b.out[kb], b.bound[kb]);
        sum += x * y;
        condition += (x.abs() + dx) * (y.abs() + dy);
        error += dx * y.abs() + x.abs() * dy + dx * dy;
        largest = largest.max(x.abs() + dx).max(y.abs() + dy);
        unscaled += x.abs() + dx;
    }
    if let Some(bias) = inputs.bias {
        sum += bias.out[column];
        condition += bias.out[column].abs() + bias.bound[column];
        error += bias.bound[column];
    }
    error += gamma(shape.inner + 2) * condition + (shape.inner + 2) as f64 * 2.0 * TINY * largest;
    // Finite terms that may overflow on the way; infinite ones are IEEE's, and NaN is.
    let most = if shape.integers.is_some() { condition.max(256.0 * unscaled) } else { condition };
    if condition.is_finite() && most > 0.999 * f64::from(f32::MAX) {
        error = f64::INFINITY;
    }
    let (sum, error) = settled((sum, error));
    let (value, error) = match shape.activation {
        Some(kind) => activation::of(kind, sum, error),
        None => (sum, error),
    };
    let Some(other) = inputs.other else { return (value, error) };
    let at = match shape.combine {
        Combine::Add => shape.strides_of_residual().at(batch, row),
        _ => shape.strides_of_out().at(batch, row),
    };
    let (with, of_with) = (other.out[at + column], other.bound[at + column]);
    let (value, passed) = match shape.combine {
        Combine::MultiplyInto => (value * with, value.abs() * of_with + with.abs() * error + error * of_with),
        _ => (value + with, error + of_with),
    };
    let rounding = if value.is_finite() { passed * U + U * value.abs() + TINY } else { 0.0 };
    settled((value, passed + rounding))
}
