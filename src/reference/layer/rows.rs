//! Norms, softmax, residual addition and embedding, all contiguous.

use super::softmax_row::SoftmaxRow;
use super::{Bounded, TINY, U, ULP, check_len, check_optional, gamma, settled, sum_roundings};
use crate::shape::{Combine, EmbedShape, NormKind, NormShape, SoftmaxShape};
use crate::{ElementType, Result};

/// Layer norm or RMS norm of contiguous rows x `[rows, width]`; the strides of the shape do not count here.
///
/// With c = x - mean (or x), e_c its error, V = mean c^2, K the roundings of a sum, and g = gamma_{K+3} + 2.5 E:
///
/// ```text
/// |mean' - mean| <= mean dx + g mean (|x| + dx)                  where |mean| <= 4 sqrt(V + eps)
///                <= mean dx + g mean (|c| + dx + gap)            else: corrected by the mean of what is left;
///                                                                gap = u |mean| + ... is what an f32 mean may miss
/// e_c  = dx + |mean' - mean| + u (2 |c| + gap)
/// |V' - V| <= mean ( 2 |c| e_c + e_c^2 ) + g mean (|c| + e_c)^2 + 2^-28 (V + eps)
/// ```
///
/// V' + eps then lies in an interval, and so does its inverse root (2 ULP); products and the bias add their roundings. What
/// flushed subnormals take is relative: rows whose squares would leave f32 are scaled. A row with a NaN or an infinity is NaN.
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
    for row in 0..shape.rows {
        let (x, dx) = (&x.out[row * n..][..n], &x.bound[row * n..][..n]);
        if x.iter().any(|x| !x.is_finite()) {
            y.out.resize(y.out.len() + n, f64::NAN);
            y.bound.resize(y.out.len(), 0.0);
            continue;
        }
        let centred = Centred::new(shape, x, dx);
        let (factor, of_factor) = centred.factor();
        for i in 0..n {
            let (c, of_c) = centred.element(i);
            let (w, dw) = (weight.out[i].abs(), weight.bound[i]);
            let (b, db) = bias.map_or((0.0, 0.0), |bias| (bias.out[i], bias.bound[i]));
            let largest = (c.abs() + of_c) * (factor + of_factor) * (w + dw);
            let product = c * factor * weight.out[i];
            let passed = largest - c.abs() * factor * w;
            let bound = match (product + b).is_finite() {
                true => {
                    passed + gamma(2) * largest + db + U * (largest + b.abs() + db) + 4.0 * TINY * (1.0 + w)
                }
                // A weight or bias that is none; of a product of it, the sign must be certain.
                false if w.is_infinite() && c.abs() <= of_c => f64::INFINITY,
                false => 0.0,
            };
            let (value, bound) = settled((product + b, bound));
            y.out.push(value);
            y.bound.push(bound);
        }
    }
    Ok(y.stored(shape.output))
}

/// A row of finite numbers less its mean, and how far a kernel's may be from it.
pub(super) struct Centred<'a> {
    shape: &'a NormShape,
    x: &'a [f64],
    dx: &'a [f64],
    mean: f64,
    of_mean: f64,
    /// What the f32 nearest to the mean may miss of it, where that is corrected.
    gap: f64,
    variance: f64,
}

impl<'a> Centred<'a> {
    pub(super) fn new(shape: &'a NormShape, x: &'a [f64], dx: &'a [f64]) -> Self {
        let n = x.len() as f64;
        let mean = match shape.kind {
            NormKind::Rms => 0.0,
            NormKind::Layer => x.iter().sum::<f64>() / n,
        };
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let mut row = Self { shape, x, dx, mean, of_mean: 0.0, gap: 0.0, variance };
        if shape.kind == NormKind::Layer {
            row.bound_mean();
        }
        row
    }

    fn bound_mean(&mut self) {
        let (n, mean) = (self.x.len() as f64, self.mean);
        let relative = 1.01 * (gamma(sum_roundings(self.x.len()) + 3) + 2.5 * ULP);
        let given = self.dx.iter().sum::<f64>() / n;
        let sizes = self.x.iter().map(|x| x.abs()).sum::<f64>() / n + given;
        let spread = self.x.iter().map(|x| (x - mean).abs()).sum::<f64>() / n + given;
        let plain = given + relative * sizes;
        let gap = 1.01 * U * (mean.abs() + plain) + relative * (spread + plain);
        let corrected = given + relative * (spread + gap);
        let inside = self.inside();
        let ordinary = (2f64.powi(-96)..2f64.powi(120)).contains(&inside);
        let far = mean.abs() - plain > 4.05 * (inside.sqrt() + plain);
        if ordinary && !far {
            self.of_mean = plain.max(corrected);
        } else if self.x.iter().all(|&x| x == self.x[0]) && given == 0.0 {
            // A row of one value: each correction meets it exactly.
            self.mean = self.x[0];
            self.variance = 0.0;
        } else {
            (self.of_mean, self.gap) = (corrected, gap);
        }
    }

    /// V + eps.
    fn inside(&self) -> f64 {
        self.variance + f64::from(self.shape.eps)
    }

    /// c and e_c. Flushed subnormals are below 2^-60 of the root.
    pub(super) fn element(&self, i: usize) -> (f64, f64) {
        let c = self.x[i] - self.mean;
        let roundings = if self.shape.kind == NormKind::Layer { U * (2.0 * c.abs() + self.gap) } else { 0.0 };
        let flushed = if c == 0.0 { 0.0 } else { self.inside().sqrt() * 2f64.powi(-60) };
        (c, (self.dx[i] + self.of_mean) * (1.0 + U) + roundings + flushed)
    }

    /// 1 / sqrt(V + eps), and its error.
    pub(super) fn factor(&self) -> (f64, f64) {
        let n = self.x.len() as f64;
        let relative = 1.01 * (gamma(sum_roundings(self.x.len()) + 3) + 2.5 * ULP);
        let mut of_variance = 0.0;
        for (c, of_c) in (0..self.x.len()).map(|i| self.element(i)) {
            of_variance += of_c * (2.0 * c.abs() + of_c) + relative * (c.abs() + of_c).powi(2);
        }
        let inside = self.inside();
        let of_variance = of_variance / n + inside * 2f64.powi(-28);
        let rounding = U * (inside + of_variance);
        let low = (self.variance - of_variance).max(0.0) + f64::from(self.shape.eps) - rounding;
        let high = inside + of_variance + rounding;
        let factor = inside.sqrt().recip();
        let (least, most) = (high.sqrt().recip() * (1.0 - 2.0 * ULP), low.sqrt().recip() * (1.0 + 2.0 * ULP));
        (factor, (factor - least).max(most - factor))
    }
}

/// Softmax of contiguous rows x `[rows, width]`.
///
/// With d_i = max x - x_i, each exponential carries the relative error theta_i = expm1(2 dx + u d_i) + (3 + 2 d_i) E
/// (whatever the kernel's maximum is, it cancels), their sum sum_i p_i theta_i + gamma_K with the K roundings of a sum, and the
/// division 2.5 ULP. Where exp is below e^-87 the kernel has 0. A NaN or +infinity makes the row NaN, and so does nothing but
/// -infinity.
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
        let Some(row) = SoftmaxRow::new(x, dx) else {
            y.out.resize(y.out.len() + n, f64::NAN);
            y.bound.resize(y.out.len(), 0.0);
            continue;
        };
        let of_sum = row.of_sum();
        y.out.extend((0..n).map(|i| row.weight(i)));
        y.bound.extend((0..n).map(|i| row.of_weight(i, of_sum)));
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
        let rounding = if sum.is_finite() { U * (sum.abs() + passed) } else { 0.0 };
        let (sum, bound) = settled((sum, passed + rounding));
        y.out.push(sum);
        y.bound.push(bound);
    }
    Ok(y.stored(output))
}

/// Rows of a table, contiguous: where out lies does not count here; with [`Combine::AddInto`], added to `before`. Without it, and in f32, there is no error at all.
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
    check_optional("before", before, shape.combine == Combine::AddInto, shape.rows * shape.width)?;
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
