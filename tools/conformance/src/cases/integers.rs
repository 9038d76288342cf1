//! Cases of tensors of integers: made of numbers, made numbers again, multiplied, and as weights.

use anyhow::{Context, Result, ensure};
use wgpu_attention::ElementType::F32;
use wgpu_attention::reference::layer::{self, Bounded, MatmulInputs};
use wgpu_attention::wgsl::MatmulTile;
use wgpu_attention::{
    Counter, IntegerBuffers, IntegerFormat, IntegerMatmulBuffers, IntegerMatmulShape, IntegerOutput,
    IntegerType, MatmulBuffers, MatmulShape, QuantizeRule, QuantizeShape, Quantized, ScaleGroups,
    WeightOrder,
};

use crate::bench::Bench;
use crate::cases::{Case, Run, Set};
use crate::tensor::{Tensor, normal};

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |kernel, set, name: String, run: Run| {
        cases.push(Case { kernel, element: F32, name, set, run });
    };
    let of = |element, groups| IntegerFormat::new(element).groups(groups);
    let (i8, u8) = (IntegerType::I8, IntegerType::U8);
    for (set, inner, format, rule) in [
        (Set::Tiny, 37, of(i8, ScaleGroups::Rows), QuantizeRule::Symmetric),
        (Set::Small, 64, of(u8, ScaleGroups::Tensor).zero_points(true), QuantizeRule::Range),
        (Set::Small, 64, of(IntegerType::I4, ScaleGroups::Groups(32)), QuantizeRule::Symmetric),
        (Set::Full, 65, of(u8, ScaleGroups::Rows).zero_points(true), QuantizeRule::ReducedRange { bits: 7 }),
        (Set::Full, 128, of(IntegerType::U4, ScaleGroups::Groups(64)).zero_points(true), QuantizeRule::Range),
    ] {
        let shape = QuantizeShape::new(5, inner, format, rule);
        let name = format!("5 x {inner}, {format}, {rule:?}");
        add("quantisation", set, name, Box::new(move |bench| quantize(bench, &shape)));
    }
    for (set, inner, format) in [
        (Set::Tiny, 64, of(i8, ScaleGroups::Rows)),
        (Set::Small, 64, of(IntegerType::I4, ScaleGroups::Groups(32))),
        (Set::Small, 37, of(u8, ScaleGroups::Tensor).zero_points(true)),
        (Set::Full, 128, of(IntegerType::U4, ScaleGroups::Groups(64)).zero_points(true)),
    ] {
        let name = format!("5 x {inner}, {format}");
        add("dequantisation", set, name, Box::new(move |bench| dequantize(bench, format, inner)));
        for tile in [MatmulTile::SMALL, MatmulTile::MEDIUM, MatmulTile::DIRECT] {
            let shape = MatmulShape::new(9, inner, 13).weights(WeightOrder::OutIn).integers(format);
            let set = if tile == MatmulTile::SMALL { set } else { Set::small_if(set == Set::Tiny) };
            let name = format!("9 x {inner} x 13, {format}, {tile}");
            add("weights of integers", set, name, Box::new(move |bench| weights(bench, &shape, tile)));
        }
    }
    let bytes = IntegerOutput::Requantized { element: u8, scale: 500.0, zero_point: 128 };
    for (set, a, b, output) in [
        (
            Set::Tiny,
            of(u8, ScaleGroups::Tensor).zero_points(true),
            of(i8, ScaleGroups::Rows),
            IntegerOutput::Scaled(F32),
        ),
        (
            Set::Small,
            of(i8, ScaleGroups::Rows),
            of(u8, ScaleGroups::Tensor).zero_points(true),
            IntegerOutput::Sums,
        ),
        (
            Set::Small,
            of(u8, ScaleGroups::Tensor).zero_points(true),
            of(u8, ScaleGroups::Rows).zero_points(true),
            bytes,
        ),
    ] {
        let shape = IntegerMatmulShape::new(9, 37, 13, a, b).output(output);
        let name = format!("9 x 37 x 13, {a} by {b}, {output:?}");
        add("product of integers", set, name, Box::new(move |bench| product(bench, &shape)));
    }
    cases
}

/// A tensor of drawn integers.
fn drawn(stream: u64, format: IntegerFormat, rows: usize, inner: usize) -> Result<Quantized> {
    let [low, high] = format.element.range();
    let draw = Counter::new(7, stream);
    let any = |n: usize| low + (draw.uniform(n as u64) * f64::from(high - low + 1)) as i32;
    let values: Vec<i32> = (0..rows * inner).map(any).collect();
    let count = format.len_scales(rows, inner);
    let scales = (0..count).map(|n| (0.5 + draw.uniform(5000 + n as u64)) as f32).collect();
    let zero_points = (0..if format.zero_points { count } else { 0 }).map(|n| any(9000 + n)).collect();
    Ok(Quantized::new(format, rows, inner, &values, scales, zero_points)?)
}

/// A tensor of integers on the device.
struct Uploaded {
    words: Tensor,
    scales: Tensor,
    zero_points: Option<Tensor>,
}

impl Uploaded {
    fn new(bench: &Bench, tensor: &Quantized) -> Self {
        let zero_points: Vec<u32> = tensor.zero_points.iter().map(|&zero| zero as u32).collect();
        Self {
            words: Tensor::words(bench, &tensor.words),
            scales: Tensor::elements(bench, &tensor.scales),
            zero_points: tensor.format.zero_points.then(|| Tensor::words(bench, &zero_points)),
        }
    }

    fn buffers(&self, has_scales: bool) -> IntegerBuffers<'_> {
        IntegerBuffers::new(self.words.binding())
            .scales(has_scales.then(|| self.scales.binding()))
            .zero_points(self.zero_points.as_ref().map(Tensor::binding))
    }
}

/// Worst error / bound.
fn judged(exact: &Bounded, got: impl IntoIterator<Item: Into<f64>>) -> Result<f64> {
    let found = exact.compare(got, 0.0);
    ensure!(found.pass && found.unspecified == 0, "{found}");
    Ok(found.worst.context("nothing was compared")?.ratio)
}

/// The words of an output.
fn words(tensor: &Tensor, bytes: &[u8]) -> Result<Vec<u32>> {
    Ok(tensor
        .take(bytes)?
        .chunks_exact(4)
        .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
        .collect())
}

fn quantize(bench: &Bench, shape: &QuantizeShape) -> Result<f64> {
    let x = normal(3, shape.len_x(), F32);
    let count = shape.len_scales();
    let output = |len| Tensor::output(bench, len, F32);
    let (tensor, made, scales, zeros) =
        (Tensor::of(bench, &x, F32), output(shape.len_words()), output(count), output(count));
    let has_zeros = shape.format.zero_points;
    let buffers = IntegerBuffers::new(made.binding())
        .scales(scales.binding())
        .zero_points(has_zeros.then(|| zeros.binding()));
    let call = bench.kernels().quantize(shape)?.bind(tensor.binding(), buffers)?;
    let mut read = vec![&made.buffer, &scales.buffer];
    read.extend(has_zeros.then_some(&zeros.buffer));
    let bytes = bench.run(|encoder| call.encode(encoder), &read)?;
    let zero_points = match has_zeros {
        true => words(&zeros, &bytes[2])?.into_iter().map(|zero| zero as i32).collect(),
        false => vec![],
    };
    let made_scales: Vec<f32> = words(&scales, &bytes[1])?.into_iter().map(f32::from_bits).collect();
    let none = vec![0; shape.len_x()];
    let mut got = Quantized::new(shape.format, shape.rows, shape.inner, &none, made_scales, zero_points)?;
    got.words = words(&made, &bytes[0])?;
    let exact = layer::quantize(shape, &x, &got)?;
    let mut worst = judged(&exact.scales, got.scales.iter().copied())?;
    if has_zeros {
        worst = worst.max(judged(&exact.zero_points, got.zero_points.iter().copied())?);
    }
    Ok(worst.max(judged(&exact.integers, got.values())?))
}

fn dequantize(bench: &Bench, format: IntegerFormat, inner: usize) -> Result<f64> {
    let tensor = drawn(1, format, 5, inner)?;
    let (uploaded, out) = (Uploaded::new(bench, &tensor), Tensor::output(bench, 5 * inner, F32));
    let plan = bench.kernels().dequantize(format, 5, inner, F32)?;
    let call = plan.bind(uploaded.buffers(true), out.binding())?;
    let bytes = bench.run(|encoder| call.encode(encoder), &[&out.buffer])?;
    judged(&layer::dequantized(&tensor)?, out.values(&bytes[0])?)
}

fn weights(bench: &Bench, shape: &MatmulShape, tile: MatmulTile) -> Result<f64> {
    if tile == MatmulTile::DIRECT {
        bench.compiles_direct_tiles()?;
    }
    let format = shape.integers.context("integers")?;
    let (x, w) = (normal(1, shape.len_a(), F32), drawn(2, format, shape.columns, shape.inner)?);
    let (a, weight) = (Tensor::of(bench, &x, F32), Uploaded::new(bench, &w));
    let out = Tensor::output(bench, shape.len_out(), F32);
    let buffers = MatmulBuffers::new(a.binding(), weight.words.binding(), out.binding())
        .scales(weight.scales.binding())
        .zero_points(weight.zero_points.as_ref().map(Tensor::binding));
    let call = bench.kernels().matmul_with_tile(shape, tile)?.bind(buffers)?;
    let bytes = bench.run(|encoder| call.encode(encoder), &[&out.buffer])?;
    let (a, b) = (Bounded::exact(&x), layer::dequantized(&w)?);
    let exact = layer::matmul(shape, &MatmulInputs { a: &a, b: &b, bias: None, other: None })?;
    judged(&exact, out.values(&bytes[0])?)
}

fn product(bench: &Bench, shape: &IntegerMatmulShape) -> Result<f64> {
    let (a, b) =
        (drawn(1, shape.a, shape.rows, shape.inner)?, drawn(2, shape.b, shape.columns, shape.inner)?);
    let [left, right] = [&a, &b].map(|tensor| Uploaded::new(bench, tensor));
    let out = Tensor::output(bench, shape.len_out(), F32);
    let scales = shape.output != IntegerOutput::Sums;
    let buffers = IntegerMatmulBuffers::new(left.buffers(scales), right.buffers(scales), out.binding());
    let call = bench.kernels().integer_matmul(shape)?.bind(buffers)?;
    let bytes = bench.run(|encoder| call.encode(encoder), &[&out.buffer])?;
    let words = words(&out, &bytes[0])?.into_iter();
    let got: Vec<f64> = match shape.output {
        IntegerOutput::Sums => words.map(|word| f64::from(word as i32)).collect(),
        IntegerOutput::Scaled(_) => words.map(|word| f32::from_bits(word).into()).collect(),
        IntegerOutput::Requantized { .. } => {
            let rows: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
            let row = shape.columns.next_multiple_of(4);
            rows.chunks(row)
                .flat_map(|row| row[..shape.columns].iter().map(|&byte| f64::from(byte)))
                .collect()
        }
    };
    judged(&layer::integer_matmul(shape, &a, &b, None)?, got)
}
