//! Cases of the loss and of the optimizers, over contiguous tensors.

use anyhow::{Result, ensure};
use wgpu_attention::ElementType::{self, Bf16, F16, F32};
use wgpu_attention::reference::layer::OptimizerInputs;
use wgpu_attention::reference::layer::{self, Bounded};
use wgpu_attention::{
    ClipShape, CrossEntropyBuffers, CrossEntropyShape, LossGradient, OptimizerBuffers, OptimizerRule,
    OptimizerShape, OptimizerStep,
};

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
    for element in [F32, F16, Bf16] {
        for rule in
            [OptimizerRule::ADAMW, OptimizerRule::Sgd { momentum: 0.9, nesterov: true, weight_decay: 0.1 }]
        {
            for len in [7, 600] {
                let rounded = (element != F32).then_some(element);
                let shape =
                    OptimizerShape::new(len, rule).gradient(element).rounded(rounded).clipped(len == 7);
                let set = if len == 7 && element == F32 { Set::Tiny } else { Set::Small };
                let run = Box::new(move |bench: &Bench| optimizer(bench, &shape));
                let name = match rule {
                    OptimizerRule::AdamW { .. } => "AdamW",
                    _ => "SGD",
                };
                cases.push(Case {
                    kernel: "optimizer",
                    element,
                    name: format!("{name}, {len} parameters"),
                    set,
                    run,
                });
            }
        }
        for len in [7, 9000] {
            let shape = ClipShape::new(1.0).tensor(len, element).tensor(len, element);
            let set = if len == 7 && element == F32 { Set::Tiny } else { Set::Small };
            let run = Box::new(move |bench: &Bench| clip(bench, &shape));
            cases.push(Case {
                kernel: "norm of gradients",
                element,
                name: format!("2 tensors of {len}"),
                set,
                run,
            });
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

fn optimizer(bench: &Bench, shape: &OptimizerShape) -> Result<f64> {
    let [p, first] = [1, 2].map(|stream| normal(stream, shape.len, F32));
    // A mean of squares.
    let second: Vec<f64> = normal(3, shape.len, F32).iter().map(|x| f64::from((x * x) as f32)).collect();
    let (gradient, factor) = (normal(4, shape.len, shape.gradient), [2.0, 0.25]);
    let tensors = [&p, &first, &second].map(|values| Tensor::of(bench, values, F32));
    let gradient_tensor = Tensor::of(bench, &gradient, shape.gradient);
    let factor_tensor = Tensor::of(bench, &factor, F32);
    let rounded = shape.rounded.map(|element| Tensor::output(bench, shape.len, element));
    let (has_second, step) = (shape.rule.has_second(), OptimizerStep::new(3, 0.125));
    let buffers = OptimizerBuffers::new(tensors[0].binding(), gradient_tensor.binding())
        .first(tensors[1].binding())
        .second(has_second.then(|| tensors[2].binding()))
        .rounded(rounded.as_ref().map(Tensor::binding))
        .clip(shape.clipped.then(|| factor_tensor.binding()));
    let call = bench.kernels().optimizer(shape)?.bind(buffers, step)?;
    let [p, first, second, gradient] = [p, first, second, gradient].map(|values| Bounded::exact(&values));
    let factor = Bounded::exact(&factor);
    let inputs = OptimizerInputs {
        parameters: &p,
        gradient: &gradient,
        first: Some(&first),
        second: has_second.then_some(&second),
        clip: shape.clipped.then_some(&factor),
    };
    let expected = layer::optimizer(shape, step, &inputs)?;
    let mut outputs = vec![(&tensors[0], &expected.parameters), (&tensors[1], &expected.first)];
    outputs.extend(has_second.then_some((&tensors[2], &expected.second)));
    outputs.extend(rounded.as_ref().map(|rounded| (rounded, &expected.rounded)));
    judged(bench, &call, &outputs)
}

fn clip(bench: &Bench, shape: &ClipShape) -> Result<f64> {
    let draw = |(n, (len, element)): (usize, &(usize, ElementType))| normal(n as u64, *len, *element);
    let values: Vec<_> = shape.tensors.iter().enumerate().map(draw).collect();
    let tensors =
        values.iter().zip(&shape.tensors).map(|(values, (_, element))| Tensor::of(bench, values, *element));
    let tensors: Vec<_> = tensors.collect();
    let bindings: Vec<_> = tensors.iter().map(Tensor::binding).collect();
    let out = Tensor::output(bench, 2, F32);
    let call = bench.kernels().clip(shape)?.bind(&bindings, out.binding())?;
    let exact: Vec<_> = values.iter().map(|values| Bounded::exact(values)).collect();
    let expected = layer::clip(shape, &exact.iter().collect::<Vec<_>>())?;
    judged(bench, &call, &[(&out, &expected)])
}

/// Runs a call, and compares all that it leaves: the worst error / bound.
pub(crate) fn judged(
    bench: &Bench,
    call: &wgpu_attention::Call,
    outputs: &[(&Tensor, &Bounded)],
) -> Result<f64> {
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
