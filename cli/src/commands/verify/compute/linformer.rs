//! Cases of Linformer.

use super::{Done, EXPECTED, REFERENCE, narrow};
use crate::case::Linformer;
use crate::commands::verify::record::Judged;
use crate::tensors::rounded;
use anyhow::Result;
use wgpu_attention::reference::{self, Rows};
use wgpu_attention::{Element, ElementType, Gpu, KernelPath, Storage};

/// The reference against the expected values.
pub(super) fn on_cpu(case: &Linformer) -> Result<Judged> {
    let (call, options) = (&case.attention, &case.options);
    let inputs = case.inputs(&case.q, &case.k, case.v.as_deref());
    let out = narrow(&reference::linformer(call, options, &inputs)?);
    let expected = Some((&case.out[..], case.allowance));
    Ok(Judged::rows(&reference::verify_linformer(call, options, &inputs, &out, Rows::All, expected)?))
}

/// The device against the expected values; in 16 bits against the reference on the rounded inputs.
pub(super) fn on_gpu<E: Element>(gpu: &Gpu, case: &Linformer) -> Result<Done> {
    if let Some(path @ KernelPath::Cooperative) = gpu.kernels().options().path {
        return Ok(Done::Unsupported(format!("Linformer has no {path} kernel")));
    }
    let v = case.v.as_deref().map(|v| rounded::<E>("v", v)).transpose();
    let (q, k, v) = match (rounded::<E>("q", &case.q), rounded::<E>("k", &case.k), v) {
        (Ok(q), Ok(k), Ok(v)) => (q, k, v),
        (Err(reason), ..) | (_, Err(reason), _) | (.., Err(reason)) => return Ok(Done::Unsupported(reason)),
    };
    let inputs = case.inputs(&q, &k, v.as_deref());
    let call = case.attention.clone().storage(Storage::all(E::TYPE));
    let got: Vec<E> = gpu.linformer(&call, &case.options, &inputs)?;
    let (expected, against) = match E::TYPE {
        ElementType::F32 => (Some((&case.out[..], case.allowance)), EXPECTED),
        _ => (None, REFERENCE),
    };
    let report = reference::verify_linformer(&call, &case.options, &inputs, &got, Rows::All, expected)?;
    Ok(Done::Compared { path: "scalar".into(), against, judged: Judged::rows(&report).into() })
}
