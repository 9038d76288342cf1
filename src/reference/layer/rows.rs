//! Norms, softmax, residual addition and embedding, all contiguous.

use super::{Bounded, TINY, U, ULP, check_len, check_optional, gamma};
use crate::shape::{Combine, EmbedShape, NormKind, NormShape, SoftmaxShape};
use crate::{ElementType, Result};

/// Layer norm or RMS norm of contiguous rows x `[rows, width]`; the strides of the shape do not count here.
///
/// With c = x - mean (or x), e_c its error, V = mean c^2, and n elements:
///
/// ```text
/// |mean' - mean| <= mean dx + gamma_{n+1} mean (|x| + dx) + 2.5 E |mean|
/// e_c  = dx + |mean' - mean| + u (|c| + ...)
/// |V' - V| <= mean ( 2 |c| e_c + e_c^2 ) + (gamma_{n+2} + 2.5 E) mean (|c| + e_c)^2
/// ```
///
/// V' + eps then lies in an interval, and so does its inverse root (2 ULP); products and the bias add their roundings.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) for a tensor that is too short, missing or not asked for, and as
/// [`NormShape::check`].
///
/// ```
/// use wgpu_attention::{NormKind, NormShape, reference::layer::{Bounded, norm}};
/// let (x, weight) = (Bounded::exact(&[1.0f32, 3.0]), Bounded::exact(&[1.0f32, 2.0]));
/// let y = norm(&NormShape::new(NormKind::Layer, 1, 2, 1e-12), &x, &weight, None)?;
/// assert!((y.out[0] + 1.0).abs() < 1e-9 && (y.out[1] - 2.0).abs() < 1e-9);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn norm(shape: &NormShape, x: &Bounded, weight: &Bounded, bias: Option<&Bounded>) -> Result<Bounded> {
    shape.check()?;
    let n = shape.width;
    check_len("x", x, shape.rows * n)?;
    check_len("weight", weight, n)?;
    check_optional("bias", bias, shape.bias, n)?;
    let mut y = Bounded::default();
    let mean_of = |value: &dyn Fn(usize) -> f64| (0..n).map(value).sum::<f64>() / n as f64;
    for row in 0..shape.rows {
        let (x, dx) = (&x.out[row * n..][..n], &x.bound[row * n..][..n]);
        let (mean, of_mean) = match shape.kind {
            NormKind::Rms => (0.0, 0.0),
            NormKind::Layer => {
                let mean = mean_of(&|i| x[i]);
                let sizes = mean_of(&|i| x[i].abs() + dx[i]);
                (mean, mean_of(&|i| dx[i]) + 1.01 * (gamma(n + 1) + 2.5 * ULP) * sizes + 2.0 * TINY)
            }
        };
        let c = |i: usize| x[i] - mean;
        let centering = if shape.kind == NormKind::Layer { U } else { 0.0 };
        let of_c = |i: usize| (dx[i] + of_mean) * (1.0 + U) + centering * c(i).abs();
        let variance = mean_of(&|i| c(i) * c(i));
        let of_variance = mean_of(&|i| of_c(i) * (2.0 * c(i).abs() + of_c(i)))
            + 1.01 * (gamma(n + 2) + 2.5 * ULP) * mean_of(&|i| (c(i).abs() + of_c(i)).powi(2))
            + 2.0 * TINY;
        let inside = variance + f64::from(shape.eps);
        let rounding = U * (inside + of_variance);
        let low = (variance - of_variance).max(0.0) + f64::from(shape.eps) - rounding;
        let high = inside + of_variance + rounding;
        let factor = inside.sqrt().recip();
        let (least, most) = (high.sqrt().recip() * (1.0 - 2.0 * ULP), low.sqrt().recip() * (1.0 + 2.0 * ULP));
        let of_factor = (factor - least).max(most - factor);
        for i in 0..n {
            let (w, dw) = (weight.out[i].abs(), weight.bound[i]);
            let (b, db) = bias.map_or((0.0, 0.0), |bias| (bias.out[i], bias.bound[i]));
            let largest = (c(i).abs() + of_c(i)) * (factor + of_factor) * (w + dw);
            let product = c(i) * factor * weight.out[i];
            y.out.push(product + b);
            let passed = largest - c(i).abs() * factor * w;
            y.bound.push(
                passed + gamma(2) * largest + db + U * (largest + b.abs() + db) + 4.0 * TINY * (1.0 + w),
            );
        }
    }
    Ok(y.stored(shape.output))
}

/// Softmax of contiguous rows x `[rows, width]`.
///
/// With d_i = max x - x_i, each exponential carries the relative error theta_i = expm1(2 dx + u d_i) + (3 + 2 d_i) E
/// (whatever the kernel's maximum is, it cancels), their sum sum_i p_i theta_i + gamma_n, and the division 2.5 ULP.
/// Where exp is below e^-87 the kernel has 0.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) for an x that is too short, and as [`SoftmaxShape::check`].
///
/// ```
/// use wgpu_attention::{SoftmaxShape, reference::layer::{Bounded, softmax}};
/// let y = softmax(&SoftmaxShape::new(1, 2), &Bounded::exact(&[5.0f32, 5.0]))?;
/// assert_eq!(y.out, [0.5, 0.5]);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn softmax(shape: &SoftmaxShape, x: &Bounded) -> Result<Bounded> {
    shape.check()?;
    let n = shape.width;
    check_len("x", x, shape.rows * n)?;
    let mut y = Bounded::default();
    for row in 0..shape.rows {
        let (x, dx) = (&x.out[row * n..][..n], &x.bound[row * n..][..n]);
        let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let widest = dx.iter().copied().fold(0.0, f64::max);
        let l: f64 = x.iter().map(|x| (x - max).exp()).sum();
        let p = |i: usize| (x[i] - max).exp() / l;
        // Beyond 90 the weight is below the smallest normal number: its relative error does not count.
        let d = |i: usize| (max - x[i] + 2.0 * widest).min(90.0);
        let theta = |i: usize| (dx[i] + widest + U * d(i)).exp_m1() + (3.0 + 2.0 * d(i)) * ULP;
        let of_sum = (0..n).map(|i| p(i) * theta(i)).sum::<f64>() + gamma(n) + 4.0 * TINY * n as f64;
        for i in 0..n {
            let relative = (1.0 + theta(i)) * (1.0 + 2.5 * ULP + U) / (1.0 - of_sum).max(0.0) - 1.0;
            y.out.push(p(i));
            y.bound.push(p(i) * relative + 4.0 * TINY);
        }
    }
    Ok(y.stored(shape.output))
}

/// x + other, element by element: one rounding.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) if `other` is shorter than x.
///
/// ```
/// use wgpu_attention::{ElementType, reference::layer::{Bounded, add}};
/// let y = add(&Bounded::exact(&[1.0f32]), &Bounded::exact(&[2.0f32]), ElementType::F32)?;
/// assert_eq!(y.out, [3.0]);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn add(x: &Bounded, other: &Bounded, output: ElementType) -> Result<Bounded> {
    check_len("other", other, x.out.len())?;
    let mut y = Bounded::default();
    for i in 0..x.out.len() {
        let (sum, passed) = (x.out[i] + other.out[i], x.bound[i] + other.bound[i]);
        y.out.push(sum);
        y.bound.push(passed + U * (sum.abs() + passed));
    }
    Ok(y.stored(output))
}

/// Rows of a table; with [`Combine::AddInto`], added to `before`. Without it, and in f32, there is no error at all.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) for tensors that are too short or not asked for, and as
/// [`EmbedShape::check`].
///
/// ```
/// use wgpu_attention::{EmbedShape, reference::layer::{Bounded, embed}};
/// let y = embed(&EmbedShape::new(2, 2, 1), &[1, 7], &Bounded::exact(&[5.0f32, 6.0]), None)?;
/// assert_eq!(y.out, [6.0, 0.0]); // there is no row 7
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn embed(shape: &EmbedShape, ids: &[u32], table: &Bounded, before: Option<&Bounded>) -> Result<Bounded> {
    shape.check()?;
    check_len("table", table, shape.len_table())?;
    check_optional("before", before, shape.combine == Combine::AddInto, shape.len_out())?;
    let width = shape.width;
    if ids.len() != shape.rows {
        return Err(crate::Error::argument("ids", format!("{} ids", shape.rows), ids.len()));
    }
    let mut y = Bounded::default();
    for &id in ids {
        let row = id as usize * width..(id as usize + 1) * width;
        if (id as usize) < shape.table_rows {
            y.out.extend(&table.out[row.clone()]);
            y.bound.extend(&table.bound[row]);
        } else {
            y.out.resize(y.out.len() + width, 0.0);
            y.bound.resize(y.out.len(), 0.0);
        }
    }
    match before {
        Some(before) => add(&y, before, shape.output),
        None => Ok(y.stored(shape.output)),
    }
}
