//! Cases of linear attention.

use super::{Done, EXPECTED, REFERENCE, gradients, narrow};
use crate::case::{Gradient, Gradients, Linear};
use crate::commands::verify::record::Judged;
use crate::tensors::rounded;
use anyhow::Result;
use wgpu_attention::reference::layer::Bounded;
use wgpu_attention::reference::{self, BoundedLinearGradients, Rows};
use wgpu_attention::{Element, ElementType, Gpu, KernelPath, LinearGradients, Storage};

/// The reference against the expected values, features included.
pub(super) fn on_cpu(case: &Linear) -> Result<Judged> {
    let inputs = case.inputs(&case.q, &case.k, &case.v);
    let out = narrow(&reference::linear_attention(case.shape, &case.options, &inputs)?);
    let expected = Some((&case.out[..], case.allowance));
    let report = reference::verify_linear(case.shape, &case.options, &inputs, &out, Rows::All, expected)?;
    let mut judged = Judged::rows(&report);
    let features = reference::linear_features(case.shape, &case.options, &inputs)?;
    for ((got, expected), name) in features.iter().zip(&case.features).zip(["q_features", "k_features"]) {
        let Some((expected, allowance)) = expected else { continue };
        // The file's numbers are rounded to f32.
        let mut exact = Bounded::exact(expected);
        exact.bound.fill(1e-12);
        let found = exact.compare(got.iter().copied(), *allowance);
        judged = judged.beside(Judged::tensor(name, &[expected.len()], &found));
    }
    let Some(gradients) = &case.gradients else { return Ok(judged) };
    let exact = exact_gradients(case, gradients)?;
    let got = [narrow(&exact.dq.out), narrow(&exact.dk.out), narrow(&exact.dv.out)];
    Ok(judged.and(judged_gradients(gradients, &exact, got)?))
}

fn exact_gradients(case: &Linear, gradients: &Gradients) -> Result<BoundedLinearGradients> {
    let inputs = case.inputs(&case.q, &case.k, &case.v);
    let (options, storage) = (&case.options, ElementType::F32);
    Ok(reference::linear_gradient(case.shape, options, &inputs, &gradients.dout, storage)?)
}

/// dq, dk and dv against the file's.
fn judged_gradients(
    gradients: &Gradients,
    exact: &BoundedLinearGradients,
    [dq, dk, dv]: [Vec<f32>; 3],
) -> Result<Judged> {
    let of_gradient = |gradient: &Gradient| match gradient.name {
        "dq" => gradients::compared(gradient, &exact.dq, &dq, true),
        "dk" => gradients::compared(gradient, &exact.dk, &dk, true),
        _ => gradients::compared(gradient, &exact.dv, &dv, true),
    };
    let each = gradients.each.iter().map(of_gradient).collect::<Result<Vec<_>>>()?;
    Ok(each.into_iter().reduce(Judged::and).expect("a case with gradients has one"))
}

/// The device against the expected values; in 16 bits against the reference on the rounded inputs.
pub(super) fn on_gpu<E: Element>(gpu: &Gpu, case: &Linear) -> Result<Done> {
    if let Some(path @ KernelPath::Cooperative) = gpu.kernels().options().path {
        return Ok(Done::Unsupported(format!("linear attention has no {path} kernel")));
    }
    let tensors = [("q", &case.q), ("k", &case.k), ("v", &case.v)].map(|(name, x)| rounded::<E>(name, x));
    let [q, k, v] = match tensors {
        [Ok(q), Ok(k), Ok(v)] => [q, k, v],
        [Err(reason), ..] | [_, Err(reason), _] | [.., Err(reason)] => return Ok(Done::Unsupported(reason)),
    };
    let inputs = case.inputs(&q, &k, &v);
    let got: Vec<E> = gpu.linear_attention(case.shape, &case.options, &inputs)?;
    let (expected, against) = match E::TYPE {
        ElementType::F32 => (Some((&case.out[..], case.allowance)), EXPECTED),
        _ => (None, REFERENCE),
    };
    let call = case.shape.storage(Storage::all(E::TYPE));
    let report = reference::verify_linear(call, &case.options, &inputs, &got, Rows::All, expected)?;
    let mut judged = Judged::rows(&report);
    // In f32 alone, as those of attention.
    if let (Some(gradients), ElementType::F32) = (&case.gradients, E::TYPE) {
        let inputs = case.inputs(&case.q, &case.k, &case.v);
        let got: LinearGradients<f32> =
            gpu.linear_backward(case.shape, &case.options, &inputs, &gradients.dout)?;
        let exact = exact_gradients(case, gradients)?;
        judged = judged.and(judged_gradients(gradients, &exact, [got.dq, got.dk, got.dv])?);
    }
    Ok(Done::Compared { path: "scalar".into(), against, judged: judged.into() })
}
