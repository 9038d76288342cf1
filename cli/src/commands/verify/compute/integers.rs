//! Cases of tensors of integers.

use super::{Done, EXPECTED, REFERENCE};
use crate::case::{IntegerCall, Integers};
use crate::commands::verify::record::Judged;
use crate::tensors::rounded;
use anyhow::Result;
use wgpu_attention::reference::layer::{self, Bounded, MatmulInputs};
use wgpu_attention::{
    Element, ElementType, Gpu, IntegerFormat, IntegerMatmulShape, IntegerOutput, IntegerType, KernelPath,
    MatmulShape, QuantizeRule, QuantizeShape, Quantized, ScaleGroups,
};

/// The host's integers, and the reference's numbers, against the expected values.
pub(super) fn on_cpu(case: &Integers) -> Result<Judged> {
    match &case.call {
        IntegerCall::Quantize { shape, x, expected } => {
            let made = match shape.rule {
                QuantizeRule::Given => {
                    shape.quantize_with(x, expected.scales.clone(), expected.zero_points.clone())?
                }
                _ => shape.quantize(x)?,
            };
            judged_integers(case, &layer::quantize(shape, x, &made)?, &made, Some(expected))
        }
        IntegerCall::Dequantize { tensor, out } => {
            let exact = layer::dequantized(tensor)?;
            judged(case, &exact, out, &exact.out, true)
        }
        IntegerCall::Weights { shape, dynamic, x, weight, bias, out } => {
            let exact = match dynamic {
                None => reference(shape, x, weight, bias)?,
                Some(rule) => {
                    let made = activations(shape, *rule).quantize(x)?;
                    dynamic_reference::<f32>(shape, &made, weight, bias)?
                }
            };
            judged(case, &exact, out, &exact.out, true)
        }
        IntegerCall::Products { shape, items, out } => {
            let exact = products(shape, items)?;
            judged(case, &exact, out, &exact.out, true)
        }
    }
}

/// The kernels against the expected values; in 16 bits against the reference on the rounded inputs.
pub(super) fn on_gpu<E: Element>(gpu: &Gpu, case: &Integers) -> Result<Done> {
    if gpu.kernels().options().path == Some(KernelPath::Cooperative) {
        return Ok(Done::Unsupported("integers have no cooperative matrices".into()));
    }
    let is_f32 = E::TYPE == ElementType::F32;
    let in_type = |x: &[f32]| rounded::<E>("x", x);
    let judged = match &case.call {
        IntegerCall::Quantize { shape, x, expected } => {
            let x = match in_type(x) {
                Ok(x) => x,
                Err(reason) => return Ok(Done::Unsupported(reason)),
            };
            let made = match shape.rule {
                QuantizeRule::Given => {
                    gpu.quantize_with(shape, &x, expected.scales.clone(), expected.zero_points.clone())?
                }
                _ => gpu.quantize(shape, &x)?,
            };
            judged_integers(case, &layer::quantize(shape, &x, &made)?, &made, is_f32.then_some(expected))?
        }
        IntegerCall::Dequantize { tensor, out } => {
            let got: Vec<E> = gpu.dequantize(tensor)?;
            judged(case, &layer::dequantized(tensor)?.stored(E::TYPE), out, &got, is_f32)?
        }
        IntegerCall::Weights { shape, dynamic, x, weight, bias, out } => {
            let x = match in_type(x) {
                Ok(x) => x,
                Err(reason) => return Ok(Done::Unsupported(reason)),
            };
            let (exact, got): (_, Vec<E>) = match dynamic {
                None => {
                    let got = gpu.quantized_matmul(shape, &x, weight, shape.bias.then_some(&bias[..]))?;
                    (reference::<E>(shape, &x, weight, bias)?, got)
                }
                Some(rule) => {
                    let made = gpu.quantize(&activations(shape, *rule), &x)?;
                    let product = dynamic_shape(shape, weight.format, E::TYPE);
                    let got = gpu.integer_matmul(&product, &made, weight, shape.bias.then_some(&bias[..]))?;
                    (dynamic_reference::<E>(shape, &made, weight, bias)?, got)
                }
            };
            judged(case, &exact, out, &got, is_f32)?
        }
        IntegerCall::Products { shape, items, out } => {
            let mut got = vec![];
            for [a, b] in items {
                got.extend(match shape.output {
                    IntegerOutput::Sums => gpu.integer_sums(shape, a, b)?,
                    _ => gpu.integer_requantized(shape, a, b)?,
                });
            }
            judged(case, &products(shape, items)?, out, &got, is_f32)?
        }
    };
    let against = if is_f32 { EXPECTED } else { REFERENCE };
    Ok(Done::Compared { path: KernelPath::Scalar.to_string(), against, judged: judged.into() })
}

/// Against the expected values with the reference's bound, or against the reference itself.
fn judged<T: Into<f64> + Copy>(
    case: &Integers,
    exact: &Bounded,
    expected: &[impl Into<f64> + Copy],
    got: &[T],
    is_expected: bool,
) -> Result<Judged> {
    let (against, allowance) = match is_expected {
        true => {
            let out = expected.iter().map(|&x| x.into()).collect();
            (Bounded { out, bound: exact.bound.clone() }, case.allowance)
        }
        false => (exact.clone(), 0.0),
    };
    let found = against.compare(got.iter().copied(), allowance);
    Ok(Judged::tensor("out", &[against.out.len()], &found))
}

/// Integers, scales and zero points against the expected ones with the reference's bounds, or against the reference.
fn judged_integers(
    case: &Integers,
    exact: &layer::QuantizeBounded,
    made: &Quantized,
    expected: Option<&Quantized>,
) -> Result<Judged> {
    let one = |name: &str, exact: &Bounded, got: Vec<f64>, expected: Option<Vec<f64>>, allowance: f64| {
        let against = match expected {
            Some(out) => Bounded { out, bound: exact.bound.clone() },
            None => exact.clone(),
        };
        Judged::tensor(name, &[got.len()], &against.compare(got, allowance))
    };
    let scales = |tensor: &Quantized| tensor.scales.iter().map(|&x| x.into()).collect();
    let zero_points = |tensor: &Quantized| tensor.zero_points.iter().map(|&x| x.into()).collect::<Vec<f64>>();
    let integers = |tensor: &Quantized| tensor.values().into_iter().map(Into::into).collect();
    let judged = one("out", &exact.integers, integers(made), expected.map(integers), 0.0).beside(one(
        "scale",
        &exact.scales,
        scales(made),
        expected.map(scales),
        case.scale_allowance,
    ));
    if made.zero_points.is_empty() {
        return Ok(judged);
    }
    let zeros = one("zero_point", &exact.zero_points, zero_points(made), expected.map(zero_points), 0.0);
    Ok(judged.beside(zeros))
}

/// x W^T + bias, with the bound of a kernel whose x and out are of a type.
fn reference<E: Element>(shape: &MatmulShape, x: &[E], weight: &Quantized, bias: &[f32]) -> Result<Bounded> {
    let (a, b, bias) = (Bounded::exact(x), layer::dequantized(weight)?, Bounded::exact(bias));
    let inputs = MatmulInputs { a: &a, b: &b, bias: shape.bias.then_some(&bias), other: None };
    Ok(layer::matmul(&shape.input(E::TYPE).output(E::TYPE), &inputs)?)
}

/// How activations become integers, all with one scale.
fn activations(shape: &MatmulShape, rule: QuantizeRule) -> QuantizeShape {
    QuantizeShape::new(shape.rows, shape.inner, dynamic_format(), rule)
}

fn dynamic_format() -> IntegerFormat {
    IntegerFormat::new(IntegerType::U8).groups(ScaleGroups::Tensor).zero_points(true)
}

fn dynamic_shape(shape: &MatmulShape, weight: IntegerFormat, output: ElementType) -> IntegerMatmulShape {
    IntegerMatmulShape::new(shape.rows, shape.inner, shape.columns, dynamic_format(), weight)
        .output(IntegerOutput::Scaled(output))
        .bias(shape.bias)
}

/// The same of activations that are integers.
fn dynamic_reference<E: Element>(
    shape: &MatmulShape,
    made: &Quantized,
    weight: &Quantized,
    bias: &[f32],
) -> Result<Bounded> {
    let (product, bias) = (dynamic_shape(shape, weight.format, E::TYPE), Bounded::exact(bias));
    Ok(layer::integer_matmul(&product, made, weight, shape.bias.then_some(&bias))?)
}

/// All items, one behind the other.
fn products(shape: &IntegerMatmulShape, items: &[[Quantized; 2]]) -> Result<Bounded> {
    let mut all = Bounded::default();
    for [a, b] in items {
        let mut item = layer::integer_matmul(shape, a, b, None)?;
        all.out.append(&mut item.out);
        all.bound.append(&mut item.bound);
    }
    Ok(all)
}
