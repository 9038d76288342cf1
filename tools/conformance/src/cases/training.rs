//! Cases of the loss, over contiguous tensors.

use anyhow::{Result, ensure};
use wgpu_attention::ElementType::{Bf16, F16, F32};
use wgpu_attention::reference::layer::{self, Bounded};
use wgpu_attention::{CrossEntropyBuffers, CrossEntropyShape, LossGradient};

use crate::bench::Bench;
use crate::cases::{Case, Set};
use crate::tensor::{Tensor, normal};

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for element in [F32, F16, Bf16] {
        for gradient in [LossGradient::None, LossGradient::InPlace, LossGradient::Stored(F32)] {
            for width in [7, 300] {
                let shape = CrossEntropyShape::new(9, width).input(element).gradient(gradient);
                let shape = shape.smoothing(0.1).ignore_index(Some(3)).factor(0.25);
                let set = match gradient {
                    LossGradient::InPlace if width == 7 && element == F32 => Set::Tiny,
                    LossGradient::InPlace => Set::Small,
                    _ => Set::Full,
                };
                let run = Box::new(move |bench: &Bench| cross_entropy(bench, &shape));
                let name = format!("width {width}, gradient {gradient:?}");
                cases.push(Case { kernel: "cross entropy", element, name, set, run });
            }
        }
    }
    cases
}

fn cross_entropy(bench: &Bench, shape: &CrossEntropyShape) -> Result<f64> {
    let x = normal(1, shape.len_logits(), shape.input);
    // One of them is left out, one is past the vocabulary.
    let vocabulary = shape.vocabulary as u32;
    let targets: Vec<u32> = (0..shape.rows as u32).map(|row| row * 5 % (vocabulary + 1)).collect();
    let (logits, targets_tensor) = (Tensor::of(bench, &x, shape.input), Tensor::words(bench, &targets));
    let loss = Tensor::output(bench, shape.rows, F32);
    let apart = match shape.gradient {
        LossGradient::Stored(element) => Some(Tensor::output(bench, shape.len_gradient(), element)),
        _ => None,
    };
    let buffers = CrossEntropyBuffers::new(logits.binding(), targets_tensor.binding(), loss.binding())
        .gradient(apart.as_ref().map(Tensor::binding));
    let call = bench.kernels().cross_entropy(shape)?.bind(buffers)?;
    let expected = layer::cross_entropy(shape, &Bounded::exact(&x), &targets)?;
    let mut outputs = vec![(&loss, &expected.loss)];
    if shape.gradient != LossGradient::None {
        outputs.push((apart.as_ref().unwrap_or(&logits), &expected.gradient));
    }
    judged(bench, &call, &outputs)
}

/// Runs a call, and compares all that it leaves: the worst error / bound.
fn judged(bench: &Bench, call: &wgpu_attention::Call, outputs: &[(&Tensor, &Bounded)]) -> Result<f64> {
    let buffers: Vec<_> = outputs.iter().map(|(tensor, _)| &tensor.buffer).collect();
    let bytes = bench.run(|encoder| call.encode(encoder), &buffers)?;
    let mut worst = 0f64;
    for ((tensor, expected), bytes) in outputs.iter().zip(bytes) {
        let found = expected.compare(tensor.values(&bytes)?, 0.0);
        ensure!(found.pass, "{found}");
        worst = worst.max(found.worst.map_or(0.0, |worst| worst.ratio));
    }
    Ok(worst)
}
