//! Cases of the gradients of the kernels around attention, and of distillation, over contiguous tensors.

use anyhow::Result;
use wgpu_attention::ElementType::{Bf16, F16, F32};
use wgpu_attention::reference::layer::backward::{embed_backward, norm_backward, softmax_backward};
use wgpu_attention::reference::layer::{self, Bounded};
use wgpu_attention::{
    DistillationBuffers, DistillationShape, EmbedGradients, EmbedShape, LossGradient, NormGradBuffers,
    NormKind, NormShape, RowGradients, SoftmaxShape,
};

use crate::bench::Bench;
use crate::cases::training::judged;
use crate::cases::{Case, Run, Set};
use crate::tensor::{Tensor, normal};

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for element in [F32, F16, Bf16] {
        let mut add = |kernel, width: usize, name: String, run: Run| {
            let set = match (width, element) {
                (7, F32) => Set::Tiny,
                (7, _) => Set::Small,
                _ => Set::Full,
            };
            cases.push(Case { kernel, element, name, set, run });
        };
        for width in [7, 300] {
            for kind in [NormKind::Layer, NormKind::Rms] {
                // More than a block of rows.
                let shape =
                    NormShape::new(kind, 300, width, 1e-5).bias(kind == NormKind::Layer).elements(element);
                let run = Box::new(move |bench: &Bench| norm(bench, &shape));
                add("norm gradients", width, format!("{kind:?}, width {width}"), run);
            }
            let shape = SoftmaxShape::new(33, width).input(element).output(element);
            let run = Box::new(move |bench: &Bench| softmax(bench, &shape));
            add("softmax gradient", width, format!("width {width}"), run);
            let shape = EmbedShape::new(333, 9, width).output(element);
            let run = Box::new(move |bench: &Bench| embed(bench, &shape));
            add("embedding gradient", width, format!("width {width}"), run);
            let shape = DistillationShape::new(9, width, 2.0).input(element).teacher(element);
            let shape = shape.gradient(LossGradient::InPlace).factor(0.25);
            let run = Box::new(move |bench: &Bench| distillation(bench, &shape));
            add("distillation", width, format!("width {width}"), run);
        }
    }
    cases
}

fn norm(bench: &Bench, shape: &NormShape) -> Result<f64> {
    let (rows, width, gradients) = (shape.rows, shape.width, RowGradients::of_norm(shape));
    let [x, dout] = [1, 2].map(|stream| normal(stream, rows * width, shape.input));
    let weight = normal(3, width, shape.weight);
    let [x_, weight_, dout_] = [&x, &weight, &dout].map(|values| Tensor::of(bench, values, shape.input));
    let dx = Tensor::output(bench, rows * width, shape.input);
    let [dweight, dbias] = [(); 2].map(|()| Tensor::output(bench, width, F32));
    let buffers = NormGradBuffers::new(x_.binding(), weight_.binding(), dout_.binding(), dx.binding())
        .dweight(dweight.binding())
        .dbias(shape.bias.then(|| dbias.binding()));
    let call = bench.kernels().norm(shape)?.backward()?.bind(buffers)?;
    let [x, weight, dout] = [x, weight, dout].map(|values| Bounded::exact(&values));
    let expected = norm_backward(shape, &gradients, &x, &weight, &dout, None)?;
    let mut outputs = vec![(&dx, &expected.dx), (&dweight, &expected.dweight)];
    outputs.extend(shape.bias.then_some((&dbias, &expected.dbias)));
    judged(bench, &call, &outputs)
}

fn softmax(bench: &Bench, shape: &SoftmaxShape) -> Result<f64> {
    let len = shape.rows * shape.width;
    // Any numbers do for what the softmax gave.
    let [y, dout] = [1, 2].map(|stream| normal(stream, len, shape.output));
    let [y_, dout_] = [&y, &dout].map(|values| Tensor::of(bench, values, shape.output));
    let dx = Tensor::output(bench, len, shape.input);
    let backward = bench.kernels().softmax(shape)?.backward()?;
    let call = backward.bind(y_.binding(), dout_.binding(), dx.binding())?;
    let [y, dout] = [y, dout].map(|values| Bounded::exact(&values));
    let expected = softmax_backward(shape, &RowGradients::of_softmax(shape), &y, &dout, None)?;
    judged(bench, &call, &[(&dx, &expected)])
}

fn embed(bench: &Bench, shape: &EmbedShape) -> Result<f64> {
    let dout = normal(1, shape.len_out(), shape.output);
    // Runs that reach over blocks, ids alone, and some past the table; one row is padding.
    let ids: Vec<u32> = (0..shape.rows as u32).map(|row| if row % 2 == 0 { 4 } else { row % 11 }).collect();
    let (ids_, dout_) = (Tensor::words(bench, &ids), Tensor::of(bench, &dout, shape.output));
    let dtable = Tensor::output(bench, shape.len_table(), F32);
    let gradients = EmbedGradients::of(shape).padding(Some(0));
    let backward = bench.kernels().embed(shape)?.backward_with(gradients)?;
    let call = backward.bind(ids_.binding(), dout_.binding(), dtable.binding())?;
    let expected = embed_backward(shape, &ids, &Bounded::exact(&dout), Some(0), None)?;
    judged(bench, &call, &[(&dtable, &expected)])
}

fn distillation(bench: &Bench, shape: &DistillationShape) -> Result<f64> {
    let [x, y] = [1, 2].map(|stream| normal(stream, shape.len_teacher(), shape.input));
    let [logits, teacher] = [&x, &y].map(|values| Tensor::of(bench, values, shape.input));
    let loss = Tensor::output(bench, shape.rows, F32);
    let buffers = DistillationBuffers::new(logits.binding(), teacher.binding(), loss.binding());
    let call = bench.kernels().distillation(shape)?.bind(buffers)?;
    let expected = layer::distillation(shape, &Bounded::exact(&x), &Bounded::exact(&y))?;
    judged(bench, &call, &[(&loss, &expected.loss), (&logits, &expected.gradient)])
}
