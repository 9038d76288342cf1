//! Slices in, `Vec`s out: what the helpers of `Gpu` add to the kernels.

use crate::harness::gpu;
use half::f16;
use wgpu_attention::{
    Activation, AddShape, Combine, EmbedShape, Error, FeedForwardShape, FeedForwardSlices, MatmulShape,
    MatmulSlices, NormKind, NormShape, RotaryShape, RowStrides, SoftmaxShape,
};

const NONE: Option<&[f32]> = None;

/// The type of the result is its type parameter.
fn matmul(shape: &MatmulShape, slices: MatmulSlices<'_, f32, f32, f32>) -> Result<Vec<f32>, Error> {
    gpu().matmul(shape, slices)
}

#[test]
fn every_kernel_takes_slices() {
    let slices = MatmulSlices::new(&[1.0, 2.0, 3.0, 4.0], &[1.0, 0.0, 0.0, 2.0]);
    let shape = MatmulShape::new(2, 2, 2);
    assert_eq!(matmul(&shape, slices).unwrap(), [1.0, 4.0, 3.0, 8.0]);
    let with = slices.bias(&[1.0, -1.0][..]).other(&[10.0, 20.0, 30.0, 40.0][..]);
    let want = [12.0, 23.0, 34.0, 47.0];
    assert_eq!(matmul(&shape.bias(true).combine(Combine::Add), with).unwrap(), want);
    assert_eq!(matmul(&shape.bias(true).combine(Combine::AddInto), with).unwrap(), want);
    let product = [20.0, 60.0, 120.0, 280.0];
    assert_eq!(matmul(&shape.bias(true).combine(Combine::MultiplyInto), with).unwrap(), product);
    // Gaps between rows are 0.
    let strided = shape.out_strides(RowStrides::new(0, 3));
    assert_eq!(matmul(&strided, slices).unwrap(), [1.0, 4.0, 0.0, 3.0, 8.0]);

    let slices = (FeedForwardSlices::new(&[2.0f32], &[3.0], &[5.0]))
        .b1(&[0.5f32][..])
        .b2(&[1.0][..])
        .residual(&[100.0][..]);
    let shape = FeedForwardShape::new(1, 1, 1, Activation::Relu).bias(true).residual(true);
    let y: Vec<f32> = gpu().feed_forward(&shape, slices).unwrap();
    assert_eq!(y, [133.5]);
    let halves = [2.0, 3.0, 5.0].map(f16::from_f32);
    let slices = FeedForwardSlices::new(&halves[..1], &halves[1..2], &halves[2..]);
    let y: Vec<f16> = gpu().feed_forward(&FeedForwardShape::new(1, 1, 1, Activation::Relu), slices).unwrap();
    assert_eq!(y, [f16::from_f32(30.0)]);

    let shape = NormShape::new(NormKind::Rms, 1, 2, 1e-9);
    let y: Vec<f32> = gpu().norm(&shape, &[3.0f32, 3.0], &[1.0f32, 2.0], None).unwrap();
    assert!((y[0] - 1.0).abs() < 1e-6 && (y[1] - 2.0).abs() < 1e-6, "{y:?}");
    let y: Vec<f32> = gpu().softmax(&SoftmaxShape::new(1, 4), &[7.0f32; 4]).unwrap();
    assert!(y.iter().all(|y| (y - 0.25).abs() < 1e-6), "{y:?}");
    let y: Vec<f32> = gpu().add(&AddShape::new(1, 2), &[1.0f32, 2.0], &[f16::ONE, f16::NEG_ONE]).unwrap();
    assert_eq!(y, [2.0, 1.0]);
    let y: Vec<f32> = gpu().embed(&EmbedShape::new(2, 3, 1), &[2, 0], &[5.0f32, 6.0, 7.0], None).unwrap();
    assert_eq!(y, [7.0, 5.0]);
    let shape = EmbedShape::new(2, 3, 1).combine(Combine::AddInto);
    let y = gpu().embed(&shape, &[2, 0], &[5.0f32, 6.0, 7.0], Some(&[1.0f32, 1.0])).unwrap();
    assert_eq!(y, [8.0, 6.0]);
    let y: Vec<f32> = gpu().rotary(&RotaryShape::new(1, 1, 1, 2), &[1.0f32, 2.0], &[0.0], &[1.0]).unwrap();
    assert_eq!(y, [-2.0, 1.0]);
}

#[test]
fn wrong_slices_are_named() {
    let error = |result: Result<Vec<f32>, Error>| result.unwrap_err().to_string();
    let shape = MatmulShape::new(2, 2, 2);
    let good = MatmulSlices::new(&[0.0; 4], &[0.0; 4]).bias(NONE).other(NONE);
    let found = error(matmul(&shape, good.a(&[0.0; 3])));
    assert!(found.contains('a') && found.contains("4 elements") && found.contains("3 elements"), "{found}");
    let found = error(matmul(&shape, good.b(&[0.0; 5])));
    assert!(found.contains("4 elements") && found.contains("5 elements"), "{found}");
    // A strided view may be followed by more.
    let strided = shape.a_strides(RowStrides::new(0, 3));
    assert!(matmul(&strided, good.a(&[0.0; 9])).is_ok());
    assert!(error(matmul(&strided, good)).contains("at least 5 elements"));
    for (shape, slices, name) in [
        (shape.bias(true), good, "bias"),
        (shape, good.bias(&[0.0; 2][..]), "bias"),
        (shape.combine(Combine::Add), good, "other"),
        (shape.combine(Combine::AddInto), good, "other"),
        (shape, good.other(&[0.0; 4][..]), "other"),
    ] {
        let found = error(matmul(&shape, slices));
        assert!(found.contains(name), "{found}");
    }
    let found =
        error(gpu().norm(&NormShape::new(NormKind::Layer, 1, 4, 1e-5), &[0.0f32; 4], &[0.0f32; 3], None));
    assert!(found.contains("weight") && found.contains("3 elements"), "{found}");
    let found = error(gpu().embed(&EmbedShape::new(2, 3, 1), &[0], &[0.0f32; 3], NONE));
    assert!(found.contains("ids"), "{found}");
    let found = error(gpu().rotary(&RotaryShape::new(1, 1, 2, 2), &[0.0f32; 4], &[0.0; 2], &[0.0; 1]));
    assert!(found.contains("sin"), "{found}");
    let found = error(gpu().softmax(&SoftmaxShape::new(1, 0), &[0.0f32; 0]));
    assert!(found.contains("width"), "{found}");
}

#[test]
fn nothing_in_gives_nothing_out() {
    let slices = MatmulSlices::new(&[], &[0.0; 4]).bias(NONE).other(NONE);
    assert!(matmul(&MatmulShape::new(0, 2, 2), slices).unwrap().is_empty());
    let y: Vec<f32> = gpu().softmax(&SoftmaxShape::new(0, 3), &[0.0f32; 0]).unwrap();
    assert!(y.is_empty());
}
