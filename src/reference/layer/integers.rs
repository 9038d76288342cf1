//! Tensors of integers: what they stand for, how they are made, their products.

use super::{Bounded, TINY, U, check_len, check_optional, gamma};
use crate::{Error, IntegerMatmulShape, IntegerOutput, QuantizeRule, QuantizeShape, Quantized, Result};
use rayon::prelude::*;

/// The numbers `[rows, inner]` that a tensor of integers stands for, and how far a kernel that makes them may be: one rounding.
///
/// As B, `[columns, inner]`, of [`matmul`](super::matmul) they give the product of [`MatmulShape::integers`](crate::MatmulShape::integers), bound
/// and all. What was lost on the way to the integers is no part of it: [`Quantized::error`] says that.
///
/// # Errors
/// As [`Quantized::check`].
///
/// ```
/// use wgpu_attention::{IntegerFormat, IntegerType, Quantized, reference::layer::dequantized};
/// let tensor = Quantized::new(IntegerFormat::new(IntegerType::I8), 1, 2, &[3, -4], vec![0.5], vec![])?;
/// assert_eq!(dequantized(&tensor)?.out, [1.5, -2.0]);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn dequantized(tensor: &Quantized) -> Result<Bounded> {
    tensor.check()?;
    let one = |n: usize| {
        let (difference, scale) = tensor.parts(n / tensor.inner, n % tensor.inner);
        let value = f64::from(scale) * f64::from(difference);
        let size = value.abs();
        // A subnormal scale, or product, may be flushed.
        let flushed = if f64::from(scale) < TINY || size < TINY { size } else { 0.0 };
        let overflows = size * (1.0 + U) > f64::from(f32::MAX);
        (value, if overflows { f64::INFINITY } else { U * size + flushed })
    };
    let (out, bound) = (0..tensor.rows * tensor.inner).into_par_iter().map(one).unzip();
    Ok(Bounded { out, bound })
}

/// A quantisation, and how far a kernel's may be from it. Every integer is exact but where a number lies so near the middle between two
/// that the last bits of f32 decide: there its neighbour is allowed.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct QuantizeBounded {
    /// The scales of x.
    pub scales: Bounded,
    /// The zero points, for the scales that the kernel made; empty where the format has none.
    pub zero_points: Bounded,
    /// The integers `[rows, inner]`, for the scales and zero points that it made.
    pub integers: Bounded,
}

/// The quantisation of finite x, beside what a kernel `made` of it. Division is allowed 2.5 ULP, as WGSL has it.
///
/// # Errors
/// [`Error::Argument`] for an x of another length or with a NaN or an infinity, for a tensor of another format or other sizes, and as
/// [`QuantizeShape::check`] and [`Quantized::check`].
pub fn quantize<T: Into<f64> + Copy>(
    shape: &QuantizeShape,
    x: &[T],
    made: &Quantized,
) -> Result<QuantizeBounded> {
    shape.check()?;
    made.check()?;
    let x: Vec<f64> = x.iter().map(|&x| x.into()).collect();
    if x.len() != shape.len_x() || x.iter().any(|x| !x.is_finite()) {
        return Err(Error::argument("x", format!("{} finite elements", shape.len_x()), x.len()));
    }
    if (made.format, made.rows, made.inner) != (shape.format, shape.rows, shape.inner) {
        let got = format!("{} [{}, {}]", made.format, made.rows, made.inner);
        return Err(Error::argument(
            "made",
            format!("{} [{}, {}]", shape.format, shape.rows, shape.inner),
            got,
        ));
    }
    let slices: Vec<&[f64]> = match x.is_empty() {
        true => vec![&[]; made.scales.len()],
        false => x.chunks(shape.format.slice_len(shape.rows, shape.inner)).collect(),
    };
    let given = shape.rule == QuantizeRule::Given;
    let scales = slices.iter().zip(&made.scales).map(|(slice, &scale)| match given {
        true => (f64::from(scale), 0.0),
        false => scale_of(shape, slice),
    });
    let zero_points = slices.iter().zip(made.scales.iter().zip(&made.zero_points));
    let zero_points = zero_points.map(|(slice, (&scale, &zero_point))| match given {
        true => (f64::from(zero_point), 0.0),
        false => {
            let low = slice.iter().fold(0.0f64, |low, &x| low.min(x));
            step((-low / f64::from(scale), gamma(3)), 0, [0, shape.levels() as i32])
        }
    });
    let integers = x.iter().enumerate().map(|(n, &x)| {
        let at = shape.format.scale_at(shape.inner, n / shape.inner, n % shape.inner);
        let (scale, zero_point) =
            (f64::from(made.scales[at]), made.zero_points.get(at).copied().unwrap_or(0));
        // The reciprocal's error and that of the product; a quotient's. A flushed subnormal is less than a step, but for the smallest scales.
        let (steps, relative) = (x / scale, gamma(if shape.multiplies() { 4 } else { 3 }));
        let strange = !(4.0 * TINY..=0.25 / TINY).contains(&scale);
        let (value, bound) = step((steps, relative), zero_point, shape.clamped_to());
        (value, if strange { f64::INFINITY } else { bound })
    });
    Ok(QuantizeBounded {
        scales: bounded(scales),
        zero_points: bounded(zero_points),
        integers: bounded(integers),
    })
}

fn bounded(elements: impl Iterator<Item = (f64, f64)>) -> Bounded {
    let (out, bound) = elements.unzip();
    Bounded { out, bound }
}

/// The scale of numbers that share it, and its error: a difference, a quotient of 2.5 ULP.
fn scale_of(shape: &QuantizeShape, slice: &[f64]) -> (f64, f64) {
    let most = slice.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    if shape.rule == QuantizeRule::Symmetric {
        let scale = (most / f64::from(shape.half())).max(f64::from(f32::EPSILON));
        return (scale, gamma(3) * scale);
    }
    let [low, high] = slice.iter().fold([0.0f64; 2], |[low, high], &x| [low.min(x), high.max(x)]);
    let scale = (high - low) / f64::from(shape.levels());
    match scale {
        _ if high == low => (1.0, 0.0),
        // About as small as a scale may be, below which it is 1; or past f32.
        _ if scale < 4.0 * TINY || high - low > 0.999 * f64::from(f32::MAX) => (scale, f64::INFINITY),
        _ => (scale, gamma(4) * scale),
    }
}

/// clamp(round(steps) + zero_point), where f32's steps are within a relative error: how far off an integer may be then.
fn step((steps, relative): (f64, f64), zero_point: i32, [low, high]: [i32; 2]) -> (f64, f64) {
    let of = |steps: f64| (steps.round_ties_even() + f64::from(zero_point)).clamp(low.into(), high.into());
    let (value, error) = (of(steps), relative * steps.abs());
    (value, (of(steps + error) - value).max(value - of(steps - error)))
}

/// A product of integers: sums, which are exact; numbers; or integers of another scale, which are exact but where their neighbour is
/// as near as f32 can tell.
///
/// Scaled: with s = sum a_scale b_scale, |out' - out| <= gamma_4 (|s| + |bias|) + (|sum| + 2) 2^-126: the sum made f32, the scales' product, theirs,
/// the addition. Requantised: steps = sum a_scale b_scale / out_scale within gamma_5, rounded.
///
/// # Errors
/// As [`IntegerMatmulShape::check`] and [`Quantized::check`]; [`Error::Argument`] for tensors of other formats or sizes than the shape's,
/// and for a bias that is too short, missing or not asked for.
pub fn integer_matmul(
    shape: &IntegerMatmulShape,
    a: &Quantized,
    b: &Quantized,
    bias: Option<&Bounded>,
) -> Result<Bounded> {
    shape.check()?;
    for (name, tensor, format, rows) in [("a", a, shape.a, shape.rows), ("b", b, shape.b, shape.columns)] {
        tensor.check()?;
        if (tensor.format, tensor.rows, tensor.inner) != (format, rows, shape.inner) {
            let got = format!("{} [{}, {}]", tensor.format, tensor.rows, tensor.inner);
            return Err(Error::argument(name, format!("{format} [{rows}, {}]", shape.inner), got));
        }
    }
    check_optional("bias", bias, shape.bias, shape.columns)?;
    if let Some(bias) = bias {
        check_len("bias", bias, shape.columns)?;
    }
    let differences = |tensor: &Quantized| -> Vec<i64> {
        let of = |n| i64::from(tensor.parts(n / shape.inner, n % shape.inner).0);
        (0..tensor.rows * shape.inner).map(of).collect()
    };
    let (left, right) = (differences(a), differences(b));
    let one = |n: usize| {
        let (row, column) = (n / shape.columns, n % shape.columns);
        let [x, y] =
            [&left[row * shape.inner..], &right[column * shape.inner..]].map(|row| &row[..shape.inner]);
        let sum = x.iter().zip(y).map(|(x, y)| x * y).sum::<i64>() as f64;
        let scale = f64::from(a.parts(row, 0).1) * f64::from(b.parts(column, 0).1);
        ended(shape, sum, scale, bias.map_or((0.0, 0.0), |bias| (bias.out[column], bias.bound[column])))
    };
    let out =
        bounded((0..shape.rows * shape.columns).into_par_iter().map(one).collect::<Vec<_>>().into_iter());
    Ok(match shape.output {
        IntegerOutput::Scaled(element) => out.stored(element),
        _ => out,
    })
}

fn ended(shape: &IntegerMatmulShape, sum: f64, scale: f64, (bias, of_bias): (f64, f64)) -> (f64, f64) {
    let overflows = |x: f64| x > 0.999 * f64::from(f32::MAX);
    match shape.output {
        IntegerOutput::Sums => (sum, 0.0),
        IntegerOutput::Scaled(_) => {
            let size = (sum * scale).abs() + bias.abs() + of_bias;
            let error = gamma(4) * size + of_bias + (sum.abs() + 2.0) * TINY;
            (sum * scale + bias, if overflows(size) || overflows(scale) { f64::INFINITY } else { error })
        }
        IntegerOutput::Requantized { element, scale: out, zero_point } => {
            let factor = scale / f64::from(out);
            let (value, bound) = step((sum * factor, gamma(5)), zero_point, element.range());
            // The factor of a step is a normal number, and so is the product of scales before it.
            let strange = [scale, factor].into_iter().any(|x| x < 2.0 * TINY || overflows(x));
            (value, if strange && sum != 0.0 { f64::INFINITY } else { bound })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IntegerFormat, IntegerType, ScaleGroups};

    #[test]
    fn neighbours_are_allowed_in_the_middle_alone() {
        let of = |steps: f64| step((steps, gamma(3)), 10, [0, 255]);
        assert_eq!(of(2.25), (12.0, 0.0));
        assert_eq!(of(2.5), (12.0, 1.0));
        assert_eq!(of(-2.5000001), (7.0, 1.0));
        assert_eq!((of(-10.5), of(-11.0), of(1e30)), ((0.0, 0.0), (0.0, 0.0), (255.0, 0.0)));
    }

    #[test]
    fn what_was_made_otherwise_is_found() {
        let format = IntegerFormat::new(IntegerType::U8).groups(ScaleGroups::Rows).zero_points(true);
        let shape = QuantizeShape::new(2, 3, format, QuantizeRule::Range);
        let x = [1.0f32, -2.0, 0.3, 0.0, 0.0, 0.0];
        let made = shape.quantize(&x).unwrap();
        let fits = |made: &Quantized| {
            let exact = quantize(&shape, &x, made).unwrap();
            exact.scales.compare(made.scales.iter().copied(), 0.0).pass
                && exact.zero_points.compare(made.zero_points.iter().copied(), 0.0).pass
                && exact.integers.compare(made.values(), 0.0).pass
        };
        assert!(fits(&made));
        for change in [
            |made: &mut Quantized| made.scales[0] *= 1.00001,
            |made: &mut Quantized| made.scales[1] = 2.0,
            |made: &mut Quantized| made.zero_points[0] += 1,
            |made: &mut Quantized| made.words[0] ^= 1,
        ] {
            let mut other = made.clone();
            change(&mut other);
            assert!(!fits(&other), "{other:?}");
        }
    }

    #[test]
    fn a_small_product_by_hand() {
        // (1 - 2) 3 + (5 - 2) (-4) = -15.
        let a = IntegerFormat::new(IntegerType::U8).groups(ScaleGroups::Tensor).zero_points(true);
        let b = IntegerFormat::new(IntegerType::I8);
        let x = Quantized::new(a, 1, 2, &[1, 5], vec![0.5], vec![2]).unwrap();
        let w = Quantized::new(b, 1, 2, &[3, -4], vec![0.25], vec![]).unwrap();
        let shape = IntegerMatmulShape::new(1, 2, 1, a, b);
        let sums = shape.output(IntegerOutput::Sums);
        assert_eq!(integer_matmul(&sums, &x, &w, None).unwrap(), Bounded::exact(&[-15.0]));
        let bias = Bounded::exact(&[1.0]);
        assert_eq!(integer_matmul(&shape.bias(true), &x, &w, Some(&bias)).unwrap().out, [-0.875]);
        let bytes = IntegerOutput::Requantized { element: IntegerType::U8, scale: 0.3, zero_point: 7 };
        // -1.875 / 0.3 = -6.25.
        assert_eq!(integer_matmul(&shape.output(bytes), &x, &w, None).unwrap(), Bounded::exact(&[1.0]));
        let error = integer_matmul(&sums, &w, &w, None).unwrap_err().to_string();
        assert!(error.starts_with("a: need u8 tensor zero points [1, 2], got i8 rows [1, 2]"), "{error}");
    }
}
