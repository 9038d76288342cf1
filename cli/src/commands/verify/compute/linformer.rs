//! Cases of Linformer.

use super::{Done, EXPECTED, REFERENCE, gradients, narrow};
use crate::case::{Gradient, Gradients, Linformer};
use crate::commands::verify::record::Judged;
use crate::tensors::rounded;
use anyhow::{Context, Result};
use wgpu_attention::reference::layer::Bounded;
use wgpu_attention::reference::{self, BoundedLinformerGradients, Rows};
use wgpu_attention::{Element, ElementType, Gpu, KernelPath, LinformerGradients, Storage};

/// The reference against the expected values.
pub(super) fn on_cpu(case: &Linformer) -> Result<Judged> {
    let (call, options) = (&case.attention, &case.options);
    let inputs = case.inputs(&case.q, &case.k, case.v.as_deref());
    let out = narrow(&reference::linformer(call, options, &inputs)?);
    let expected = Some((&case.out[..], case.allowance));
    let report = reference::verify_linformer(call, options, &inputs, &out, Rows::All, expected)?;
    let judged = Judged::rows(&report);
    let Some(gradients) = &case.gradients else { return Ok(judged) };
    let exact = exact_gradients(case, gradients)?;
    let wide = |tensor: &Option<Bounded>| tensor.as_ref().map(|tensor| narrow(&tensor.out));
    let got = [Some(narrow(&exact.dq.out)), Some(narrow(&exact.dk.out)), wide(&exact.dv)];
    let got = [&got[..], &[Some(narrow(&exact.de.out)), wide(&exact.df)]].concat();
    Ok(judged.and(judged_gradients(gradients, &exact, &got)?))
}

fn exact_gradients(case: &Linformer, gradients: &Gradients) -> Result<BoundedLinformerGradients> {
    let inputs = case.inputs(&case.q, &case.k, case.v.as_deref());
    let (call, options, dout) = (&case.attention, &case.options, &gradients.dout);
    Ok(reference::linformer_gradient(call, options, &inputs, dout, ElementType::F32)?)
}

/// dq, dk, dv, de and df against the file's; the reader has seen to it that each is one of the call's.
fn judged_gradients(
    gradients: &Gradients,
    exact: &BoundedLinformerGradients,
    got: &[Option<Vec<f32>>],
) -> Result<Judged> {
    let exact = [Some(&exact.dq), Some(&exact.dk), exact.dv.as_ref(), Some(&exact.de), exact.df.as_ref()];
    let of_gradient = |gradient: &Gradient| {
        let at = ["dq", "dk", "dv", "de", "df"].iter().position(|name| *name == gradient.name);
        let found = at.and_then(|n| Some((exact[n]?, got[n].as_ref()?)));
        let (exact, got) =
            found.with_context(|| format!("{}: the call has no such gradient", gradient.name))?;
        gradients::compared(gradient, exact, got, true)
    };
    let each = gradients.each.iter().map(of_gradient).collect::<Result<Vec<_>>>()?;
    Ok(each.into_iter().reduce(Judged::and).expect("a case with gradients has one"))
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
    let mut judged = Judged::rows(&report);
    // In f32 alone, as those of attention.
    if let (Some(gradients), ElementType::F32) = (&case.gradients, E::TYPE) {
        let inputs = case.inputs(&case.q, &case.k, case.v.as_deref());
        let got: LinformerGradients<f32> =
            gpu.linformer_backward(&case.attention, &case.options, &inputs, &gradients.dout)?;
        let got = [Some(got.dq), Some(got.dk), got.dv, Some(got.de), got.df];
        judged = judged.and(judged_gradients(gradients, &exact_gradients(case, gradients)?, &got)?);
    }
    Ok(Done::Compared { path: "scalar".into(), against, judged: judged.into() })
}
