//! Integers of numbers, and numbers of integers.

use crate::{Checked, drawn, formats, normal, within};
use half::{bf16, f16};
use wgpu_attention::reference::layer::{self, Bounded};
use wgpu_attention::{
    Element, Gpu, IntegerFormat, IntegerType, QuantizeRule, QuantizeShape, Quantized, ScaleGroups,
};
use wgpu_attention_testing::gpu;

/// A rule, and formats that it makes.
fn shapes(rows: usize, inner: usize) -> Vec<QuantizeShape> {
    let whole = |size: usize| inner.is_multiple_of(size);
    let groups = [32, 64, 128].into_iter().filter(|&size| whole(size)).map(ScaleGroups::Groups);
    let groups: Vec<_> = [ScaleGroups::Tensor, ScaleGroups::Rows].into_iter().chain(groups).collect();
    let rules = [
        (IntegerType::I8, QuantizeRule::Symmetric),
        (IntegerType::I4, QuantizeRule::Symmetric),
        (IntegerType::U8, QuantizeRule::Range),
        (IntegerType::U4, QuantizeRule::Range),
        (IntegerType::U8, QuantizeRule::ReducedRange { bits: 7 }),
    ];
    let mut list = vec![];
    for (element, rule) in rules {
        for &groups in &groups {
            let format = IntegerFormat::new(element).groups(groups).zero_points(!element.is_signed());
            list.push(QuantizeShape::new(rows, inner, format, rule));
        }
    }
    list
}

/// What was made of x is within its bounds, every integer of it.
fn fits<E: Element>(shape: &QuantizeShape, x: &[E], made: &Quantized) -> Checked {
    let exact = layer::quantize(shape, x, made).map_err(|e| format!("{e}: {shape:?}"))?;
    let what = |part: &str| format!("{part} of {shape:?}");
    within(&what("scales"), &exact.scales, made.scales.iter().copied())?;
    if shape.format.zero_points {
        within(&what("zero points"), &exact.zero_points, made.zero_points.iter().copied())?;
    }
    within(&what("integers"), &exact.integers, made.values())?;
    let padded = Quantized::new(
        shape.format,
        shape.rows,
        shape.inner,
        &made.values(),
        made.scales.clone(),
        made.zero_points.clone(),
    );
    match padded.map_err(|e| e.to_string())?.words == made.words {
        true => Ok(()),
        false => Err(format!("behind the end of a row it is not 0: {shape:?}")),
    }
}

pub(crate) fn made(gpu: &Gpu, shape: &QuantizeShape, seed: u64) -> Checked {
    let x: Vec<f32> = normal(seed, shape.len_x()).iter().map(|x| 3.0 * x + 0.5).collect();
    fits(shape, &x, &gpu.quantize(shape, &x).map_err(|e| format!("{e}: {shape:?}"))?)
}

/// Numbers of integers, exactly where the scales are powers of two.
pub(crate) fn numbers(gpu: &Gpu, format: IntegerFormat, rows: usize, inner: usize) -> Checked {
    let mut tensor = drawn(5, format, rows, inner);
    tensor.scales.iter_mut().enumerate().for_each(|(n, scale)| *scale = 2f32.powi(n as i32 % 7 - 3));
    let got: Vec<f32> = gpu.dequantize(&tensor).map_err(|e| format!("{e}: {format}"))?;
    match got.iter().zip(tensor.dequantized()).position(|(got, want)| *got != want) {
        Some(n) => Err(format!("{format} [{rows}, {inner}]: element {n} is {}", got[n])),
        None => Ok(()),
    }
}

/// Given scales: ties go to even, and what is past the range is clamped.
fn given(gpu: &Gpu) -> Checked {
    let format = IntegerFormat::new(IntegerType::U8).groups(ScaleGroups::Rows).zero_points(true);
    let shape = QuantizeShape::new(2, 7, format, QuantizeRule::Given);
    let x = [1.0, 3.0, 5.0, -1.0, -3.0, 1e9, -1e9, 0.5, 1.5, 2.5, -0.5, -1.5, f32::MAX, f32::MIN];
    let made = gpu.quantize_with(&shape, &x, vec![2.0, 1.0], vec![128, 1]).map_err(|e| e.to_string())?;
    let want = [128, 130, 130, 128, 126, 255, 0, 1, 3, 3, 1, 0, 255, 0];
    match made.values() == want {
        true => Ok(()),
        false => Err(format!("{:?} instead of {want:?}", made.values())),
    }
}

/// Slices of zeros have scales, and one with the extremes at its ends, over several parts.
fn far(gpu: &Gpu) -> Checked {
    for shape in shapes(3, 1000) {
        let mut x = normal(9, shape.len_x());
        x[..1000].fill(0.0);
        (x[1000], x[2999]) = (-50.0, 70.0);
        fits(&shape, &x, &gpu.quantize(&shape, &x).map_err(|e| e.to_string())?)?;
        let all: Vec<f32> = x.iter().map(|x| x.abs() + 1.0).collect();
        fits(&shape, &all, &gpu.quantize(&shape, &all).map_err(|e| e.to_string())?)?;
        let all: Vec<f32> = all.iter().map(|x| -x).collect();
        fits(&shape, &all, &gpu.quantize(&shape, &all).map_err(|e| e.to_string())?)?;
        let zeros = vec![0.0f32; shape.len_x()];
        let made = gpu.quantize(&shape, &zeros).map_err(|e| e.to_string())?;
        if made.values().iter().enumerate().any(|(n, &q)| {
            q != made.zero_points.get(shape.format.scale_at(1000, n / 1000, 0)).copied().unwrap_or(0)
        }) {
            return Err(format!("zeros are not 0: {shape:?}"));
        }
    }
    Ok(())
}

/// A NaN or an infinity shows in the scale of what shares it, and in no other.
pub(crate) fn strange(gpu: &Gpu) -> Checked {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN] {
        for element in [IntegerType::I8, IntegerType::U8] {
            let format = IntegerFormat::new(element).zero_points(!element.is_signed());
            let rule = if element.is_signed() { QuantizeRule::Symmetric } else { QuantizeRule::Range };
            let mut x = normal(3, 3 * 200);
            x[399] = bad;
            let made =
                gpu.quantize(&QuantizeShape::new(3, 200, format, rule), &x).map_err(|e| e.to_string())?;
            let strange: Vec<bool> = made.scales.iter().map(|scale| scale.is_nan()).collect();
            if strange != [false, true, false] {
                return Err(format!("{bad} in row 1 of {element}: scales {:?}", made.scales));
            }
        }
    }
    Ok(())
}

/// For the mutants.
pub(crate) fn selection(gpu: &Gpu) -> Checked {
    for shape in shapes(5, 128).iter().chain(&shapes(3, 37)).chain(&shapes(2, 1000)) {
        made(gpu, shape, 1)?;
    }
    given(gpu)?;
    far(gpu)
}

/// For the mutants, the way back.
pub(crate) fn numbers_selection(gpu: &Gpu) -> Checked {
    for format in formats() {
        numbers(gpu, format, 5, 256)?;
        if !matches!(format.groups, ScaleGroups::Groups(_)) {
            numbers(gpu, format, 3, 37)?;
        }
    }
    Ok(())
}

#[test]
fn the_selection_passes() {
    selection(gpu()).unwrap();
    numbers_selection(gpu()).unwrap();
    strange(gpu()).unwrap();
}

#[test]
fn the_host_makes_the_same() {
    for shape in shapes(4, 128).into_iter().chain(shapes(3, 37)) {
        let x = normal(7, shape.len_x());
        let host = shape.quantize(&x).unwrap();
        fits(&shape, &x, &host).unwrap();
        let device = gpu().quantize(&shape, &x).unwrap();
        // Neighbours where the last bits decide: none of this draw, on devices that round quotients to nearest.
        let apart = host.values().iter().zip(device.values()).filter(|(a, b)| **a != *b).count();
        assert!(apart <= 1, "{apart} of {}: {shape:?}", shape.len_x());
    }
}

#[test]
fn sixteen_bits_are_quantised_as_they_are() {
    let shape = QuantizeShape::new(5, 64, IntegerFormat::new(IntegerType::I8), QuantizeRule::Symmetric);
    let x = normal(8, 5 * 64);
    let half: Vec<f16> = x.iter().map(|&x| f16::from_f32(x)).collect();
    fits(&shape, &half, &gpu().quantize(&shape, &half).unwrap()).unwrap();
    let brain: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
    fits(&shape, &brain, &gpu().quantize(&shape, &brain).unwrap()).unwrap();
    let odd = QuantizeShape::new(8, 39, IntegerFormat::new(IntegerType::I4), QuantizeRule::Symmetric);
    fits(&odd, &half[..312], &gpu().quantize(&odd, &half[..312]).unwrap()).unwrap();
}

#[test]
fn numbers_in_sixteen_bits_are_within_the_bound() {
    for format in [IntegerFormat::new(IntegerType::I8), IntegerFormat::new(IntegerType::U4).zero_points(true)]
    {
        let tensor = drawn(6, format, 7, 37);
        let exact = layer::dequantized(&tensor).unwrap();
        let got: Vec<f16> = gpu().dequantize(&tensor).unwrap();
        within("f16", &exact.clone().stored(f16::TYPE), got).unwrap();
        let got: Vec<bf16> = gpu().dequantize(&tensor).unwrap();
        within("bf16", &exact.stored(bf16::TYPE), got).unwrap();
    }
}

#[test]
fn what_is_lost_is_half_a_step() {
    let x = normal(2, 64 * 256);
    let lost = |format: IntegerFormat, rule| {
        QuantizeShape::new(64, 256, format, rule).quantize(&x).unwrap().error(&x).unwrap()
    };
    let of = |element, groups| lost(IntegerFormat::new(element).groups(groups), QuantizeRule::Symmetric);
    // The largest number is 127.5 steps and becomes 127, but for the sign that has 128.
    let bytes = of(IntegerType::I8, ScaleGroups::Tensor);
    assert!(bytes.largest_steps <= 0.5001, "{bytes:?}");
    let [tensor, rows, groups] = [ScaleGroups::Tensor, ScaleGroups::Rows, ScaleGroups::Groups(32)]
        .map(|groups| of(IntegerType::I4, groups).relative);
    assert!(groups < 0.85 * rows && rows < 0.9 * tensor, "{tensor} {rows} {groups}");
    let of_bytes = of(IntegerType::I8, ScaleGroups::Rows).relative;
    println!(
        "lost of normal weights: i8 per row {of_bytes:.4}; i4 per tensor {tensor:.3}, row {rows:.3}, 32 {groups:.3}"
    );
    assert!(of_bytes < 0.1 * rows);
    let nothing = Quantized::new(IntegerFormat::new(IntegerType::I8), 1, 1, &[0], vec![1.0], vec![]).unwrap();
    assert_eq!(nothing.error(&[0.0]).unwrap().relative, 0.0);
}

#[test]
fn no_rows_are_nothing() {
    let shape = QuantizeShape::new(0, 8, IntegerFormat::new(IntegerType::I8), QuantizeRule::Symmetric);
    let made = gpu().quantize::<f32>(&shape, &[]).unwrap();
    assert_eq!((made.clone(), made.values().len()), (shape.quantize(&[]).unwrap(), 0));
    assert!(gpu().dequantize::<f32>(&made).unwrap().is_empty());
    assert_eq!(layer::dequantized(&made).unwrap(), Bounded::default());
}
