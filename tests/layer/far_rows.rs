//! Rows whose squares leave f32, means far above their spread, very long rows, NaN and infinity: judged by the definitions in f64,
//! written here.

use crate::Checked;
use crate::harness::{Guarded, Rows, kernels, normal, rounded, run, with};
use wgpu_attention::{ElementType, Kernels, NormBuffers, NormKind, NormShape, SoftmaxShape};

use ElementType::{Bf16, F16, F32};

const KINDS: [NormKind; 2] = [NormKind::Layer, NormKind::Rms];

/// Rows through a norm with a weight of 1.
fn normed(kernels: &Kernels, shape: &NormShape, x: &[f64]) -> Result<Vec<f64>, String> {
    weighed(kernels, shape, x, &vec![1.0; shape.width])
}

fn weighed(kernels: &Kernels, shape: &NormShape, x: &[f64], weight: &[f64]) -> Result<Vec<f64>, String> {
    let rows = Rows::contiguous(shape.rows, shape.width);
    let (x, weight) = (Guarded::new(x, shape.input), Guarded::new(weight, shape.weight));
    // A number, so that a NaN that is read back was written.
    let out = Guarded::new(&vec![-7.5; shape.rows * shape.width], shape.output);
    let buffers = NormBuffers::new(x.binding(), weight.binding(), out.binding());
    let call = kernels.norm(shape).and_then(|plan| plan.bind(buffers)).map_err(|e| e.to_string())?;
    run(&[&call], &out, rows, shape.output)
}

fn softened(kernels: &Kernels, shape: &SoftmaxShape, x: &[f64]) -> Result<Vec<f64>, String> {
    let rows = Rows::contiguous(shape.rows, shape.width);
    let (x, out) =
        (Guarded::new(x, shape.input), Guarded::new(&vec![-7.5; shape.rows * shape.width], shape.output));
    let plan = kernels.softmax(shape).map_err(|e| e.to_string())?;
    let call = plan.bind(x.binding(), out.binding()).map_err(|e| e.to_string())?;
    run(&[&call], &out, rows, shape.output)
}

/// The definition.
fn truth(kind: NormKind, x: &[f64], eps: f64) -> Vec<f64> {
    let n = x.len() as f64;
    let mean = if kind == NormKind::Layer { x.iter().sum::<f64>() / n } else { 0.0 };
    let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
    x.iter().map(|x| (x - mean) / (variance + eps).sqrt()).collect()
}

/// Largest difference from the definition, relative to the value or a tenth of the row's largest; what an f32 below the smallest
/// normal number may miss of x - mean is no difference.
fn apart(shape: &NormShape, x: &[f64], got: &[f64]) -> f64 {
    let want = truth(shape.kind, x, shape.eps.into());
    let largest = want.iter().fold(1e-30, |most: f64, want| most.max(want.abs()));
    // The factor is the same for all elements.
    let spread = x.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    let flushed =
        if spread < 1e-30 { 2.0 * f64::from(f32::MIN_POSITIVE) / f64::from(shape.eps).sqrt() } else { 0.0 };
    let off = |(got, want): (&f64, &f64)| {
        let off = ((got - want).abs() - flushed).max(0.0) / want.abs().max(0.1 * largest);
        if got.is_finite() { off } else { f64::INFINITY }
    };
    got.iter().zip(&want).map(off).fold(0.0, f64::max)
}

fn judged(kernels: &Kernels, shape: &NormShape, x: Vec<f64>, within: f64, what: &str) -> Checked {
    let x = rounded(x, shape.input);
    let got = normed(kernels, shape, &x)?;
    let rows = x.chunks(shape.width).zip(got.chunks(shape.width));
    let off = rows.map(|(x, got)| apart(shape, x, got)).fold(0.0, f64::max);
    println!("{what}, {:?}: {off:.1e}", shape.kind);
    if off <= within { Ok(()) } else { Err(format!("{what}: {off:e} off: {shape:?}")) }
}

/// Squares that overflow or vanish, with an eps that counts, that does not, and that is all there is.
fn any_size(kernels: &Kernels) -> Checked {
    for kind in KINDS {
        for width in [7, 300] {
            for size in [1e37, 3e30, 1e19, 1e10, 1e-15, 1e-19, 1e-25, 1e-32, 3e-38] {
                // Of either sign, none near 0.
                let x: Vec<f64> =
                    normal(5, 0, 2 * width, F32).iter().map(|x| size * (x + x.signum())).collect();
                for eps in [1e-5, 1e-12, f32::MIN_POSITIVE, 1e-33, 1e20, 1e37] {
                    let shape = NormShape::new(kind, 2, width, eps);
                    judged(kernels, &shape, x.clone(), 2e-6, &format!("{size:e}, eps {eps:e}"))?;
                }
            }
        }
        // The largest f32 everywhere, with both signs and with one; one of them among zeros; the smallest.
        let (most, least) = (f64::from(f32::MAX), f64::from(f32::MIN_POSITIVE));
        for (x, what) in [
            (vec![most, -most, most, -most, most], "largest"),
            (vec![most; 5], "largest, alike"),
            (vec![0.0, most, 0.0, 0.0, 0.0], "largest and 0"),
            (vec![least, -least, least, 3.0 * least, 0.0], "smallest"),
            (vec![least; 5], "smallest, alike"),
            (vec![0.0; 5], "zeros"),
        ] {
            for eps in [1e-5, f32::MIN_POSITIVE] {
                judged(kernels, &NormShape::new(kind, 1, 5, eps), x.clone(), 1e-6, what)?;
            }
        }
    }
    Ok(())
}

/// Means far above the spread: 1e4 with 5e-3, and rows of one value that f32 sums miss.
fn far_means(kernels: &Kernels) -> Checked {
    for (width, mean, spread) in [
        (768, 1e4, 5e-3),
        (1030, -1e4, 5e-3),
        (768, 1e6, 1.0),
        (7, 3e-20, 1e-23),
        (4096, 1e30, 1e27),
        (768, 1.0, 1e-3),
    ] {
        let x: Vec<f64> = normal(6, 0, width, F32).iter().map(|x| mean + x * spread).collect();
        let shape = NormShape::new(NormKind::Layer, 1, width, 1e-12);
        let eps = if spread < 1e-20 { 1e-37 } else { 1e-12 };
        judged(
            kernels,
            &with(shape, |shape| shape.eps = eps),
            x.clone(),
            2e-6,
            &format!("{mean:e} with {spread:e}"),
        )?;
        // One value, and one value but for one element.
        let mut x = rounded(vec![mean; width], F32);
        judged(kernels, &with(shape, |shape| shape.eps = eps), x.clone(), 0.0, &format!("{mean:e} alone"))?;
        x[width / 3] = f64::from(f32::from_bits((x[0] as f32).to_bits() + 1));
        judged(kernels, &with(shape, |shape| shape.eps = eps), x, 3e-6, &format!("{mean:e} but for one"))?;
    }
    Ok(())
}

/// Rows of 131,072: sums in blocks.
fn long_rows(kernels: &Kernels) -> Checked {
    let width = 131_072;
    let ramp: Vec<f64> = (0..width).map(|n| 100.0 + f64::from(n % 1013) * 1e-3).collect();
    for kind in KINDS {
        let shape = NormShape::new(kind, 1, width as usize, 1e-5);
        judged(kernels, &shape, ramp.clone(), 1e-6, "a long row")?;
        let x = normal(7, 0, width as usize, F32).into_iter().map(|x| x + 1.5).collect();
        judged(kernels, &shape, x, 1e-6, "a long normal row")?;
    }
    let x = rounded(normal(7, 1, width as usize, F32), F32);
    let got = softened(kernels, &SoftmaxShape::new(1, width as usize), &x)?;
    let l: f64 = x.iter().map(|x| x.exp()).sum();
    for (x, got) in x.iter().zip(got) {
        let off = (got * l / x.exp() - 1.0).abs();
        if off.is_nan() || off > 2e-6 {
            return Err(format!("softmax of a long row: {off:e} off"));
        }
    }
    Ok(())
}

/// One NaN or infinity in a row, anywhere, makes it NaN, and no other.
fn no_numbers(kernels: &Kernels) -> Checked {
    for (width, output) in [(7, F32), (300, F32), (300, F16), (9, Bf16), (64, Bf16), (5, F16)] {
        for special in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for place in [0, width / 2, width - 1] {
                let mut x = normal(8, 0, 3 * width, F32);
                x[width + place] = special;
                let mut results: Vec<(String, Vec<f64>, bool)> = vec![];
                for kind in KINDS {
                    let shape = NormShape::new(kind, 3, width, 1e-5).output(output);
                    results.push((format!("{kind:?}"), normed(kernels, &shape, &x)?, true));
                }
                let y = softened(kernels, &SoftmaxShape::new(3, width).output(output), &x)?;
                results.push(("softmax".into(), y, special != f64::NEG_INFINITY));
                for (what, y, spreads) in results {
                    for (n, y) in y.iter().enumerate() {
                        let right = match n / width {
                            1 if spreads => y.is_nan(),
                            1 if n == width + place => *y == 0.0,
                            _ => y.is_finite() && *y != -7.5,
                        };
                        if !right {
                            return Err(format!(
                                "{what} of {special} at {place} of {width}: element {n} is {y}"
                            ));
                        }
                    }
                }
            }
        }
        let y =
            softened(kernels, &SoftmaxShape::new(1, width).output(output), &vec![f64::NEG_INFINITY; width])?;
        if !y.iter().all(|y| y.is_nan()) {
            return Err(format!("softmax of nothing but -infinity: {y:?}"));
        }
    }
    // A weight's NaN is its column's.
    let y = weighed(
        kernels,
        &NormShape::new(NormKind::Rms, 2, 5, 1e-5),
        &[1.0; 10],
        &[1.0, f64::NAN, 1.0, 1.0, 1.0],
    )?;
    match y.iter().enumerate().all(|(n, y)| y.is_nan() == (n % 5 == 1)) {
        true => Ok(()),
        false => Err(format!("a weight of NaN: {y:?}")),
    }
}

/// A selection for the mutants.
pub(crate) fn selection(kernels: &Kernels) -> Checked {
    no_numbers(kernels)?;
    any_size(kernels)?;
    far_means(kernels)?;
    long_rows(kernels)
}

#[test]
fn rows_of_any_size_are_right() {
    any_size(kernels()).unwrap();
}

#[test]
fn means_far_above_the_spread_keep_the_spread() {
    far_means(kernels()).unwrap();
}

#[test]
fn long_rows_are_as_precise_as_short_ones() {
    long_rows(kernels()).unwrap();
}

#[test]
fn a_row_with_nan_or_infinity_is_nan_and_no_other() {
    no_numbers(kernels()).unwrap();
}
