//! Cases of tensors of integers: `quantize`, `dequantize`, `quantized_matmul`, `matmul_integer`.

use super::{Content, allowance, size_of, text_of, unknown};
use crate::tensors::{Tensor, Tensors, wrong};
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use wgpu_attention::{
    IntegerFormat, IntegerMatmulShape, IntegerOutput, IntegerType, MatmulShape, QuantizeRule, QuantizeShape,
    Quantized, ScaleGroups, WeightOrder,
};

/// A case, and the expected values' own errors.
#[derive(Debug)]
pub(crate) struct Integers {
    pub(crate) call: IntegerCall,
    /// Of `out`.
    pub(crate) allowance: f64,
    /// Of `scale`.
    pub(crate) scale_allowance: f64,
}

/// What is computed, and the expected values. Axes of scales come first, or last where blocks share them: an order of the elements
/// that inputs and outputs share.
#[derive(Debug)]
pub(crate) enum IntegerCall {
    /// Integers of numbers; scales and zero points are those that are given, or expected.
    Quantize { shape: QuantizeShape, x: Vec<f32>, expected: Quantized },
    /// Numbers of integers.
    Dequantize { tensor: Quantized, out: Vec<f32> },
    /// x W^T + bias, x as it is or quantised first.
    Weights {
        shape: MatmulShape,
        dynamic: Option<QuantizeRule>,
        x: Vec<f32>,
        weight: Quantized,
        bias: Vec<f32>,
        out: Vec<f32>,
    },
    /// Products of integers, one per batch item.
    Products { shape: IntegerMatmulShape, items: Vec<[Quantized; 2]>, out: Vec<i32> },
}

/// Which elements share a scale.
enum Shared {
    All,
    /// Those of an index of this axis.
    Axis(usize),
    /// So many along this axis.
    Blocks(usize, usize),
}

impl Shared {
    fn read(keys: &Map<String, Value>, axes: usize) -> Result<Self> {
        let shared = match (size_of(keys, "axis")?, size_of(keys, "block")?) {
            (None, None) => Self::All,
            (Some(axis), None) => Self::Axis(axis),
            (Some(axis), Some(block)) => Self::Blocks(axis, block),
            (None, Some(_)) => bail!("axis: need one, since there is a block, got none"),
        };
        match shared {
            Self::Axis(axis) | Self::Blocks(axis, _) if axis >= axes => {
                bail!("axis: need one below {axes}, got {axis}")
            }
            Self::Blocks(_, 0) => bail!("block: need at least 1, got 0"),
            shared => Ok(shared),
        }
    }

    /// Rows that share a scale each, their length, and whether all share one.
    fn sizes(&self, shape: &[usize]) -> Result<([usize; 2], ScaleGroups)> {
        let all = shape.iter().product::<usize>();
        let (row, groups) = match *self {
            Self::All => (all, ScaleGroups::Tensor),
            Self::Axis(axis) => (all / shape[axis].max(1), ScaleGroups::Rows),
            Self::Blocks(axis, block) if shape[axis].is_multiple_of(block) => (block, ScaleGroups::Rows),
            Self::Blocks(axis, block) => bail!("block: need a divisor of {}, got {block}", shape[axis]),
        };
        if all == 0 {
            bail!("tensor `x`: need elements, got none");
        }
        Ok(([all / row, row], groups))
    }

    /// Elements in an order in which those that share a scale are neighbours.
    fn ordered<T: Copy>(&self, values: &[T], shape: &[usize]) -> Vec<T> {
        let (axis, to_front) = match *self {
            Self::All => return values.to_vec(),
            Self::Axis(axis) => (axis, true),
            Self::Blocks(axis, _) => (axis, false),
        };
        let (size, inside) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
        let outside = values.len() / (size * inside).max(1);
        let at = |o: usize, n: usize, i: usize| values[(o * size + n) * inside + i];
        let places = |n: usize| (0..outside).flat_map(move |o| (0..inside).map(move |i| (o, n, i)));
        match to_front {
            true => (0..size).flat_map(places).map(|(o, n, i)| at(o, n, i)).collect(),
            false => (0..outside)
                .flat_map(|o| (0..inside).flat_map(move |i| (0..size).map(move |n| (o, n, i))))
                .map(|(o, n, i)| at(o, n, i))
                .collect(),
        }
    }
}

/// Scales and zero points, one for each of so many rows or one for all.
fn scales(
    file: &Tensors<'_>,
    shared: &Shared,
    count: usize,
    element: IntegerType,
) -> Result<(Vec<f32>, Vec<i32>)> {
    let ordered = |tensor: &Tensor<'_>, len: usize| match len == count {
        true => Ok(()),
        false => Err(wrong(&tensor.name, format!("{count} elements"), len)),
    };
    let scale = file.need("scale")?;
    let values = scale.floats()?;
    ordered(&scale, values.len())?;
    let scales = match shared {
        Shared::Blocks(..) => shared.ordered(&values, &scale.shape),
        _ => values,
    };
    let Some(zero_point) = file.find("zero_point") else { return Ok((scales, vec![])) };
    let (of, values) = zero_point.bytes()?;
    if of != element {
        return Err(wrong("zero_point", format!("the type of the integers, {element}"), of));
    }
    ordered(&zero_point, values.len())?;
    let values = match shared {
        Shared::Blocks(..) => shared.ordered(&values, &zero_point.shape),
        _ => values,
    };
    Ok((scales, values))
}

fn content(keys: &Map<String, Value>, call: IntegerCall) -> Result<Content> {
    let of = |name| Ok::<_, anyhow::Error>(allowance(keys, name)?.unwrap_or(0.0));
    Ok(Content::Integers(Box::new(Integers { call, allowance: of("out")?, scale_allowance: of("scale")? })))
}

/// Reads a case of the op `quantize`.
pub(super) fn quantize(file: &Tensors<'_>, keys: &Map<String, Value>) -> Result<Content> {
    let (known_keys, known) = (["scheme", "axis", "block"], ["x", "scale", "zero_point", "out"]);
    if let Some(reason) = unknown(file, keys, &known_keys, &known) {
        return Ok(Content::Unsupported(reason));
    }
    let rule = match text_of(keys, "scheme")?.as_str() {
        "symmetric" => QuantizeRule::Symmetric,
        "affine" => QuantizeRule::Given,
        "dynamic" => QuantizeRule::Range,
        other => return Ok(Content::Unsupported(format!("scheme `{other}` is not supported yet"))),
    };
    let (x, out) = (file.need("x")?, file.need("out")?);
    out.expect(&x.shape, "the shape of x")?;
    let shared = Shared::read(keys, x.shape.len())?;
    let ([rows, inner], groups) = shared.sizes(&x.shape)?;
    let (element, values) = out.bytes()?;
    let count = if groups == ScaleGroups::Tensor { 1 } else { rows };
    let (scales, zero_points) = scales(file, &shared, count, element)?;
    let format = IntegerFormat::new(element).groups(groups).zero_points(!zero_points.is_empty());
    let expected =
        Quantized::new(format, rows, inner, &shared.ordered(&values, &x.shape), scales, zero_points)?;
    let shape = QuantizeShape::new(rows, inner, format, rule);
    shape.check()?;
    content(keys, IntegerCall::Quantize { shape, x: shared.ordered(&x.floats()?, &x.shape), expected })
}

/// Reads a case of the op `dequantize`.
pub(super) fn dequantize(file: &Tensors<'_>, keys: &Map<String, Value>) -> Result<Content> {
    if let Some(reason) = unknown(file, keys, &["axis", "block"], &["x", "scale", "zero_point", "out"]) {
        return Ok(Content::Unsupported(reason));
    }
    let (x, out) = (file.need("x")?, file.need("out")?);
    out.expect(&x.shape, "the shape of x")?;
    let shared = Shared::read(keys, x.shape.len())?;
    let ([rows, inner], groups) = shared.sizes(&x.shape)?;
    let (element, values) = x.bytes()?;
    let count = if groups == ScaleGroups::Tensor { 1 } else { rows };
    let (scales, zero_points) = scales(file, &shared, count, element)?;
    let format = IntegerFormat::new(element).groups(groups).zero_points(!zero_points.is_empty());
    let tensor =
        Quantized::new(format, rows, inner, &shared.ordered(&values, &x.shape), scales, zero_points)?;
    content(keys, IntegerCall::Dequantize { tensor, out: shared.ordered(&out.floats()?, &x.shape) })
}

/// Reads a case of the op `quantized_matmul`.
pub(super) fn weights(file: &Tensors<'_>, keys: &Map<String, Value>) -> Result<Content> {
    let (known_keys, known) = (["activations", "activation_bits"], ["x", "weight", "scale", "bias", "out"]);
    if let Some(reason) = unknown(file, keys, &known_keys, &known) {
        return Ok(Content::Unsupported(reason));
    }
    let bits = size_of(keys, "activation_bits")?.unwrap_or(8);
    let dynamic = match text_of(keys, "activations")?.as_str() {
        "float" => None,
        "dynamic" if (1..=8).contains(&bits) => Some(QuantizeRule::ReducedRange { bits: bits as u32 }),
        "dynamic" => bail!("activation_bits: need 1 to 8, got {bits}"),
        other => return Ok(Content::Unsupported(format!("activations `{other}` are not supported yet"))),
    };
    let (x, weight, out) = (file.need("x")?, file.need("weight")?, file.need("out")?);
    let (element, values) = weight.bytes()?;
    let [columns, inner] = weight.padded::<2>("[out, in]")?;
    let Some((&last, leading)) = x.shape.split_last().filter(|&(&last, _)| last == inner) else {
        return Err(wrong("x", format!("rows of {inner}"), format!("{:?}", x.shape)));
    };
    out.expect(&[leading, &[columns]].concat(), "[.., out]")?;
    let scale = file.need("scale")?.floats()?;
    let groups = if scale.len() == 1 { ScaleGroups::Tensor } else { ScaleGroups::Rows };
    let format = IntegerFormat::new(element).groups(groups);
    let weight = Quantized::new(format, columns, inner, &values, scale, vec![])?;
    let bias = file.find("bias").map(|bias| {
        bias.expect(&[columns], "[out]")?;
        bias.floats()
    });
    let bias = bias.transpose()?;
    let x = x.floats()?;
    let shape = MatmulShape::new(x.len() / last, inner, columns).weights(WeightOrder::OutIn);
    let shape = shape.integers(format).bias(bias.is_some());
    shape.check()?;
    let (bias, out) = (bias.unwrap_or_default(), out.floats()?);
    content(keys, IntegerCall::Weights { shape, dynamic, x, weight, bias, out })
}

/// One scale, or zero point, of all.
fn single<T: Copy>(name: &str, values: Option<Vec<T>>) -> Result<Option<T>> {
    match values.as_deref() {
        None => Ok(None),
        Some(&[value]) => Ok(Some(value)),
        Some(values) => Err(wrong(name, "one element", values.len())),
    }
}

/// Reads a case of the op `matmul_integer`.
pub(super) fn products(file: &Tensors<'_>, keys: &Map<String, Value>) -> Result<Content> {
    let known = [
        "a",
        "b",
        "a_zero_point",
        "b_zero_point",
        "a_scale",
        "b_scale",
        "out_scale",
        "out_zero_point",
        "out",
    ];
    if let Some(reason) = unknown(file, keys, &[], &known) {
        return Ok(Content::Unsupported(reason));
    }
    let scale = |name: &'static str| single(name, file.find(name).map(|scale| scale.floats()).transpose()?);
    let zero_point = |name: &'static str, element: IntegerType| {
        let Some((of, values)) = file.find(name).map(|zero| zero.bytes()).transpose()? else {
            return Ok(None);
        };
        match of == element {
            true => single(name, Some(values)),
            false => Err(wrong(name, element, of)),
        }
    };
    let (a, b) = (file.need("a")?, file.need("b")?);
    let [(a_type, a_values), (b_type, b_values)] = [a.bytes()?, b.bytes()?];
    let (a_shape, b_shape) = (a.shape, b.shape);
    let ([.., rows, inner], [.., b_inner, columns]) = (&a_shape[..], &b_shape[..]) else {
        return Err(wrong("a", "[.., m, k] beside [.., k, n]", format!("{a_shape:?} beside {b_shape:?}")));
    };
    let (rows, inner, columns) = (*rows, *inner, *columns);
    let batch = &a_shape[..a_shape.len() - 2];
    if *b_inner != inner || batch != &b_shape[..b_shape.len() - 2] || rows * inner * columns == 0 {
        return Err(wrong(
            "b",
            "[.., k, n] of the same batch as a, no size 0",
            format!("{a_shape:?} beside {b_shape:?}"),
        ));
    }
    let out = file.need("out")?;
    out.expect(&[batch, &[rows, columns]].concat(), "[.., m, n]")?;
    let (output, values) = match scale("out_scale")? {
        None => (IntegerOutput::Sums, out.integers()?),
        Some(scale) => {
            let (element, values) = out.bytes()?;
            let zero_point = zero_point("out_zero_point", element)?.unwrap_or(0);
            (IntegerOutput::Requantized { element, scale, zero_point }, values)
        }
    };
    let side = |element, zero: Option<i32>| {
        IntegerFormat::new(element).groups(ScaleGroups::Tensor).zero_points(zero.is_some())
    };
    let [a_zero, b_zero] = [zero_point("a_zero_point", a_type)?, zero_point("b_zero_point", b_type)?];
    let [a_scale, b_scale] = [scale("a_scale")?.unwrap_or(1.0), scale("b_scale")?.unwrap_or(1.0)];
    let (a_format, b_format) = (side(a_type, a_zero), side(b_type, b_zero));
    let shape = IntegerMatmulShape::new(rows, inner, columns, a_format, b_format).output(output);
    shape.check()?;
    let item = |(a, b): (&[i32], &[i32])| {
        // Along k, both.
        let turned: Vec<i32> = (0..columns * inner).map(|n| b[n % inner * columns + n / inner]).collect();
        let tensor = |format, rows, values: &[i32], scale, zero: Option<i32>| {
            Quantized::new(format, rows, inner, values, vec![scale], zero.into_iter().collect())
        };
        let a = tensor(a_format, rows, a, a_scale, a_zero).context("a")?;
        Ok([a, tensor(b_format, columns, &turned, b_scale, b_zero).context("b")?])
    };
    let items = a_values
        .chunks(rows * inner)
        .zip(b_values.chunks(inner * columns))
        .map(item)
        .collect::<Result<_>>()?;
    content(keys, IntegerCall::Products { shape, items, out: values })
}
