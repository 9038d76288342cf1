//! The matrix product whose weights are integers.

use crate::{Checked, both, drawn, formats, normal, within};
use half::{bf16, f16};
use wgpu_attention::reference::layer::{self, Bounded, MatmulInputs};
use wgpu_attention::{
    Activation, Element, Gpu, IntegerFormat, IntegerType, MatmulShape, MatmulSlices, Quantized, RowStrides,
    ScaleGroups, WeightOrder,
};

/// x W^T.
fn shape(rows: usize, format: IntegerFormat, inner: usize, columns: usize) -> MatmulShape {
    MatmulShape::new(rows, inner, columns).weights(WeightOrder::OutIn).integers(format)
}

fn run<I: Element, O: Element>(
    gpu: &Gpu,
    shape: &MatmulShape,
    x: &[I],
    w: &Quantized,
    bias: &[f32],
) -> Checked<Vec<O>> {
    let bias = shape.bias.then_some(bias);
    gpu.quantized_matmul(shape, x, w, bias).map_err(|e| format!("{e}: {shape:?}"))
}

/// Worst error / bound, given the integers.
pub(crate) fn bound<I: Element, O: Element>(gpu: &Gpu, shape: &MatmulShape, seed: u64) -> Checked<f64> {
    let format = shape.integers.expect("integers");
    let w = drawn(seed, format, shape.columns, shape.inner);
    let x: Vec<I> = normal(seed + 1, shape.len_a()).iter().map(|&x| I::from_f64(x.into())).collect();
    let bias = normal(seed + 2, shape.columns);
    let got: Vec<O> = run(gpu, shape, &x, &w, &bias)?;
    let (a, b, of_bias) =
        (Bounded::exact(&x), layer::dequantized(&w).map_err(|e| e.to_string())?, Bounded::exact(&bias));
    let shape = shape.input(I::TYPE).output(O::TYPE);
    let inputs = MatmulInputs { a: &a, b: &b, bias: shape.bias.then_some(&of_bias), other: None };
    let exact = layer::matmul(&shape, &inputs).map_err(|e| e.to_string())?;
    within(&format!("{shape:?}"), &exact, got)
}

/// Each row of x addresses one k: every element is one weight's number, exactly, for scales are powers of two.
pub(crate) fn gather(gpu: &Gpu, format: IntegerFormat, [rows, inner, columns]: [usize; 3]) -> Checked {
    let mut w = drawn(4, format, columns, inner);
    w.scales.iter_mut().enumerate().for_each(|(n, scale)| *scale = 2f32.powi(n as i32 % 11 - 5));
    let chosen = |row: usize| (row * 7 + row / inner) % inner;
    let mut x = vec![0.0f32; rows * inner];
    (0..rows).for_each(|row| x[row * inner + chosen(row)] = 1.0);
    let got: Vec<f32> = run(gpu, &shape(rows, format, inner, columns), &x, &w, &[])?;
    let want = w.dequantized();
    for (n, got) in got.iter().enumerate() {
        let (row, column) = (n / columns, n % columns);
        let want = want[column * inner + chosen(row)];
        if *got != want {
            return Err(format!("{format}: row {row}, column {column} is {got} instead of {want}"));
        }
    }
    Ok(())
}

/// For the mutants.
pub(crate) fn selection(gpu: &Gpu) -> Checked {
    for format in formats() {
        gather(gpu, format, [40, 256, 36])?;
        if !matches!(format.groups, ScaleGroups::Groups(_)) {
            gather(gpu, format, [9, 37, 7])?;
        }
    }
    // Few rows have a tile of their own.
    for (rows, element) in
        [(1, IntegerType::I8), (2, IntegerType::I4), (3, IntegerType::U8), (8, IntegerType::U4)]
    {
        gather(gpu, IntegerFormat::new(element).zero_points(true), [rows, 131, 37])?;
        gather(gpu, IntegerFormat::new(element).groups(ScaleGroups::Groups(32)), [rows, 96, 21])?;
    }
    let format = IntegerFormat::new(IntegerType::I8);
    bound::<f32, f32>(gpu, &shape(33, format, 68, 37).bias(true), 1).map(drop)
}

#[test]
fn the_selection_passes() {
    both().iter().for_each(|gpu| selection(gpu).unwrap());
}

#[test]
fn every_format_is_within_the_bound() {
    let mut worst = 0f64;
    for gpu in both() {
        for (n, format) in formats().into_iter().enumerate() {
            let shape = shape(5 + 29 * (n % 2), format, 256, 33 + n % 5).bias(n % 3 == 0);
            worst = worst.max(bound::<f32, f32>(&gpu, &shape, n as u64).unwrap());
        }
    }
    println!("weights of integers: worst error/bound {worst:.3}");
}

#[test]
fn every_size_is_within_the_bound() {
    let edges = [1, 2, 3, 4, 5, 7, 8, 9, 31, 33, 65, 127, 129, 260];
    for gpu in both() {
        for (n, &size) in edges.iter().enumerate() {
            let [second, third] = [edges[(n + 5) % edges.len()], edges[(n + 9) % edges.len()]];
            for element in IntegerType::ALL {
                let format = IntegerFormat::new(element).zero_points(!element.is_signed());
                bound::<f32, f32>(&gpu, &shape(size, format, second, third), 3).unwrap();
                gather(&gpu, format, [size, third, second]).unwrap();
            }
        }
    }
}

#[test]
fn few_rows_of_every_format_are_within_the_bound() {
    let mut worst = 0f64;
    for gpu in both() {
        for (n, format) in formats().into_iter().enumerate() {
            let shape = shape(1 + n % 8, format, 384, 33 + n % 5).bias(n % 3 == 0);
            worst = worst.max(bound::<f32, f32>(&gpu, &shape, n as u64).unwrap());
            worst = worst.max(bound::<f16, f16>(&gpu, &self::shape(1 + n % 4, format, 128, 20), 3).unwrap());
        }
    }
    println!("few rows by integers: worst error/bound {worst:.3}");
}

#[test]
fn activations_in_sixteen_bits_and_large_tiles_are_within_the_bound() {
    for gpu in both() {
        let format = IntegerFormat::new(IntegerType::I4).groups(ScaleGroups::Groups(32));
        bound::<f16, f16>(&gpu, &shape(37, format, 96, 40), 5).unwrap();
        bound::<bf16, f32>(&gpu, &shape(37, format, 96, 41).bias(true), 6).unwrap();
        bound::<f16, f32>(&gpu, &shape(512, IntegerFormat::new(IntegerType::I8), 64, 1024), 7).unwrap();
        let gelu = shape(12, format, 64, 40).bias(true).activation(Activation::GeluErf);
        bound::<f32, f32>(&gpu, &gelu, 8).unwrap();
        // Rows of x apart.
        let strided = shape(9, format, 64, 40).a_strides(RowStrides::new(9 * 80, 80).offset(3));
        bound::<f32, f32>(&gpu, &strided, 9).unwrap();
    }
}

#[test]
fn the_bits_are_those_of_the_numbers_product() {
    // With scales of powers of two the numbers are exact, and then the kernels differ in their loads alone.
    let format = IntegerFormat::new(IntegerType::I8).groups(ScaleGroups::Groups(64));
    let mut w = drawn(3, format, 48, 128);
    w.scales.iter_mut().enumerate().for_each(|(n, scale)| *scale = 2f32.powi(n as i32 % 5 - 2));
    let x = normal(4, 20 * 128);
    for gpu in both() {
        let shape = shape(20, format, 128, 48);
        let integers: Vec<f32> = run(&gpu, &shape, &x, &w, &[]).unwrap();
        let numbers = w.dequantized();
        let slices = MatmulSlices::new(&x[..], &numbers[..]);
        let numbers: Vec<f32> = gpu.matmul(&shape.integers(None), slices).unwrap();
        assert_eq!(integers, numbers);
        let again: Vec<f32> = run(&gpu, &shape, &x, &w, &[]).unwrap();
        assert_eq!(integers, again);
    }
}
