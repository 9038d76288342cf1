//! Products of bytes: exact sums, and what becomes of them.

use crate::{Checked, drawn, normal, within};
use half::f16;
use wgpu_attention::reference::layer::{self, Bounded};
use wgpu_attention::{
    ElementType, Gpu, IntegerFormat, IntegerMatmulShape, IntegerOutput, IntegerType, MatmulShape,
    QuantizeRule, QuantizeShape, Quantized, ScaleGroups, WeightOrder,
};
use wgpu_attention_testing::gpu;

/// Bytes of either sign, a scale for all or per row, with zero points and without.
fn formats() -> Vec<IntegerFormat> {
    let is_one = |format: &IntegerFormat| {
        format.element.bits() == 8 && !matches!(format.groups, ScaleGroups::Groups(_))
    };
    crate::formats().into_iter().filter(is_one).collect()
}

/// Sums against integers, and both other outputs against their bounds.
pub(crate) fn check(gpu: &Gpu, shape: &IntegerMatmulShape, seed: u64) -> Checked {
    let (a, b) =
        (drawn(seed, shape.a, shape.rows, shape.inner), drawn(seed + 1, shape.b, shape.columns, shape.inner));
    let named = |e: wgpu_attention::Error| format!("{e}: {shape:?}");
    let exact = |shape: &IntegerMatmulShape, bias: Option<&Bounded>| {
        layer::integer_matmul(shape, &a, &b, bias).map_err(|e| e.to_string())
    };
    let sums = shape.output(IntegerOutput::Sums);
    let got = gpu.integer_sums(&sums, &a, &b).map_err(named)?;
    within(&format!("{sums:?}"), &exact(&sums, None)?, got)?;

    let bias = normal(seed, shape.columns);
    let scaled = shape.bias(seed.is_multiple_of(2));
    let bias = scaled.bias.then_some(&bias[..]);
    let got: Vec<f32> = gpu.integer_matmul(&scaled, &a, &b, bias).map_err(named)?;
    let expected = exact(&scaled, bias.map(Bounded::exact).as_ref())?;
    within(&format!("{scaled:?}"), &expected, got)?;

    for element in [IntegerType::I8, IntegerType::U8] {
        let zero_point = if element.is_signed() { -3 } else { 130 };
        // About half of the sums are within the bytes' range.
        let scale = (shape.inner as f32).sqrt() * 60.0;
        let bytes = shape.output(IntegerOutput::Requantized { element, scale, zero_point });
        let got = gpu.integer_requantized(&bytes, &a, &b).map_err(named)?;
        within(&format!("{bytes:?}"), &exact(&bytes, None)?, got)?;
    }
    Ok(())
}

/// The largest terms of either sign, as long as sums may be.
fn longest(gpu: &Gpu) -> Checked {
    let of = |element, zero| IntegerFormat::new(element).groups(ScaleGroups::Tensor).zero_points(zero);
    let (u8, i8) = (of(IntegerType::U8, true), of(IntegerType::I8, false));
    let full = |format: IntegerFormat, inner: usize, value: i32, zero_point: i32| {
        let zeros = if format.zero_points { vec![zero_point] } else { vec![] };
        Quantized::new(format, 1, inner, &vec![value; inner], vec![1.0], zeros).expect("a tensor")
    };
    for (a, b, want) in [
        (full(u8, 33_025, 255, 0), full(u8, 33_025, 255, 0), 65_025 * 33_025),
        (full(u8, 33_025, 255, 0), full(u8, 33_025, 0, 255), -65_025 * 33_025),
        (full(i8, 131_071, -128, 0), full(i8, 131_071, -128, 0), 16_384 * 131_071),
        (full(i8, 65_793, -128, 0), full(u8, 65_793, 255, 0), -128 * 255 * 65_793),
    ] {
        let shape = IntegerMatmulShape::new(1, a.inner, 1, a.format, b.format).output(IntegerOutput::Sums);
        let got = gpu.integer_sums(&shape, &a, &b).map_err(|e| e.to_string())?;
        if got != [want] {
            return Err(format!("{got:?} instead of {want}: {shape:?}"));
        }
    }
    Ok(())
}

/// For the mutants.
pub(crate) fn selection(gpu: &Gpu) -> Checked {
    let formats = formats();
    for (n, &a) in formats.iter().enumerate() {
        let b = formats[(n * 5 + 3) % formats.len()];
        check(gpu, &IntegerMatmulShape::new(37, 41, 35, a, b), n as u64)?;
        check(gpu, &IntegerMatmulShape::new(3, 64, 70, b, a), n as u64 + 1)?;
    }
    Ok(())
}

#[test]
fn the_selection_passes() {
    selection(gpu()).unwrap();
}

#[test]
fn every_size_is_exact() {
    let formats = formats();
    let edges = [1, 2, 3, 4, 5, 7, 8, 31, 32, 33, 65, 130];
    for (n, &size) in edges.iter().enumerate() {
        let [second, third] = [edges[(n + 5) % edges.len()], edges[(n + 9) % edges.len()]];
        let [a, b] = [formats[n % formats.len()], formats[(3 * n + 1) % formats.len()]];
        check(gpu(), &IntegerMatmulShape::new(size, second, third, a, b), n as u64).unwrap();
    }
}

#[test]
fn the_longest_sums_are_exact() {
    longest(gpu()).unwrap();
}

#[test]
fn numbers_in_sixteen_bits_are_within_the_bound() {
    let bytes = IntegerFormat::new(IntegerType::I8);
    for columns in [12, 7] {
        let shape = IntegerMatmulShape::new(9, 20, columns, bytes, bytes)
            .output(IntegerOutput::Scaled(ElementType::F16));
        let (a, b) = (drawn(1, bytes, 9, 20), drawn(2, bytes, columns, 20));
        let got: Vec<f16> = gpu().integer_matmul(&shape, &a, &b, None).unwrap();
        within("f16", &layer::integer_matmul(&shape, &a, &b, None).unwrap(), got).unwrap();
    }
}

/// A linear layer of dynamically quantised activations: within what quantisation loses of the product of numbers.
#[test]
fn dynamic_activations_are_near_the_numbers() {
    let (rows, inner, columns) = (16, 256, 48);
    let (x, w) = (normal(1, rows * inner), normal(2, columns * inner));
    let weight = IntegerFormat::new(IntegerType::I8);
    let w8 =
        gpu().quantize(&QuantizeShape::new(columns, inner, weight, QuantizeRule::Symmetric), &w).unwrap();
    let slices = wgpu_attention::MatmulSlices::new(&x[..], &w[..]);
    let numbers: Vec<f32> =
        gpu().matmul(&MatmulShape::new(rows, inner, columns).weights(WeightOrder::OutIn), slices).unwrap();
    let error = |groups, rule| {
        let format = IntegerFormat::new(IntegerType::U8).groups(groups).zero_points(true);
        let x8 = gpu().quantize(&QuantizeShape::new(rows, inner, format, rule), &x).unwrap();
        let shape = IntegerMatmulShape::new(rows, inner, columns, format, weight);
        let got: Vec<f32> = gpu().integer_matmul(&shape, &x8, &w8, None).unwrap();
        let squares = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>();
        (squares(&mut got.iter().zip(&numbers).map(|(a, b)| a - b)) / squares(&mut numbers.iter().copied()))
            .sqrt()
    };
    let full = error(ScaleGroups::Tensor, QuantizeRule::Range);
    let reduced = error(ScaleGroups::Tensor, QuantizeRule::ReducedRange { bits: 7 });
    let per_row = error(ScaleGroups::Rows, QuantizeRule::Range);
    assert!(per_row < full && full < reduced && reduced < 0.03, "{per_row} {full} {reduced}");
}
