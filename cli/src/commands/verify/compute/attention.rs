//! Attention cases.

use super::{Done, EXPECTED, REFERENCE, narrow};
use crate::case::{Attention, Gradients};
use crate::commands::verify::record::Judged;
use anyhow::Result;
use pollster::block_on;
use wgpu_attention::reference::{Expected, Rows, attention_with};
use wgpu_attention::{AnyPattern, BlockGrid, Element, ElementType, Gpu, Parts, Pattern, Site, Storage};
use wgpu_attention_bench::call::{Call, Output};
use wgpu_attention_bench::check::{Against, check};

fn expected(case: &Attention) -> Against<'_> {
    Against::Expected(Expected::new(&case.out).lse(case.lse.as_deref()), case.allowance)
}

/// The reference against the expected values.
pub(super) fn on_cpu(
    case: &Attention,
    pattern: &dyn Pattern,
    gradients: Option<&Gradients>,
) -> Result<Judged> {
    let inputs = case.tensors.inputs();
    let exact = attention_with(&case.call, &inputs, pattern)?;
    let output = Output { out: narrow(&exact.out), lse: Some(narrow(&exact.lse)) };
    let by = (pattern, None);
    let out = Judged::rows(&check(&case.call, &inputs, by, output.got(), Rows::All, expected(case))?);
    Ok(match gradients {
        Some(gradients) => out.beside(super::gradients::on_cpu(case, gradients)?),
        None => out,
    })
}

/// The kernel against the expected values; in 16 bits against the reference on the rounded inputs.
pub(super) fn on_gpu<E: Element, KV: Element>(
    gpu: &Gpu,
    case: &Attention,
    pattern: &dyn Pattern,
    gradients: Option<&Gradients>,
) -> Result<Done> {
    let tensors = match case.tensors.rounded::<E, KV>() {
        Ok(tensors) => tensors,
        Err(reason) => return Ok(Done::Unsupported(reason)),
    };
    let attention = case.call.clone().storage(Storage::all(E::TYPE).kv(KV::TYPE));
    let parts = Parts::lower(pattern, BlockGrid::from(&attention.shape))?;
    let plan = gpu.kernels().attention_parts(&attention, &parts)?;
    let lse = case.lse.is_some();
    let output = if attention.shape.is_empty() {
        Output { out: vec![], lse: lse.then(Vec::new) }
    } else {
        let call = block_on(Call::upload(gpu, &plan, &tensors.inputs(), lse))?;
        block_on(call.compute(1))?;
        block_on(call.read::<E>())?
    };
    let (values, against) = match (E::TYPE, KV::TYPE) {
        (ElementType::F32, ElementType::F32) => (expected(case), EXPECTED),
        _ => (Against::Reference, REFERENCE),
    };
    let by = (pattern, Some((&parts, plan.path().path)));
    let report = check(&attention, &tensors.inputs(), by, output.got(), Rows::All, values)?;
    let mut judged = Judged::rows(&report);
    if let Some(gradients) = gradients {
        judged = judged.beside(super::gradients::on_gpu(gpu, case, gradients, &tensors)?);
    }
    Ok(Done::Compared { path: plan.path().path.to_string(), against, judged: judged.into() })
}

/// Where a pattern differs from the case's own.
pub(in crate::commands::verify) fn first_difference(
    case: &Attention,
    pattern: &AnyPattern,
) -> Option<String> {
    let extent = case.call.shape.extent();
    let sites =
        (0..extent.batch).flat_map(|batch| (0..extent.heads).map(move |head| Site { batch, head, extent }));
    let mut pairs = sites
        .flat_map(|site| (0..extent.q_len).flat_map(move |i| (0..extent.kv_len).map(move |j| (site, i, j))));
    let (site, i, j) =
        pairs.find(|(site, i, j)| case.pattern.keep(site, *i, *j) != pattern.keep(site, *i, *j))?;
    let (ours, theirs) =
        if pattern.keep(&site, i, j) { ("keeps", "does not") } else { ("drops", "keeps it") };
    Some(format!(
        "not the same set: it {ours} query {i}, key {j} of batch {}, head {}, the case {theirs}",
        site.batch, site.head
    ))
}
