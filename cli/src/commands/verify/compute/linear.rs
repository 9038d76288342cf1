//! Cases of linear attention.

use super::{Done, EXPECTED, REFERENCE, narrow};
use crate::case::Linear;
use crate::commands::verify::record::Judged;
use crate::tensors::rounded;
use anyhow::Result;
use wgpu_attention::reference::layer::Bounded;
use wgpu_attention::reference::{self, Rows};
use wgpu_attention::{Element, ElementType, Gpu, KernelPath, Storage};

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
    Ok(judged)
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
    Ok(Done::Compared { path: "scalar".into(), against, judged: Judged::rows(&report).into() })
}
