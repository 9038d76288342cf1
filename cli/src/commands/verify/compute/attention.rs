//! Attention cases.

use super::{Done, EXPECTED, REFERENCE, narrow};
use crate::case::Attention;
use crate::commands::verify::record::Judged;
use anyhow::Result;
use pollster::block_on;
use wgpu_attention::reference::{Expected, Rows, attention_with};
use wgpu_attention::{
    AnyPattern, AttentionOutput, BlockGrid, Element, ElementType, Gpu, Parts, Pattern, Site,
};
use wgpu_attention_bench::call::Call;
use wgpu_attention_bench::check::{Against, check};

fn expected(case: &Attention) -> Against<'_> {
    Against::Expected(Expected { out: &case.out, lse: case.lse.as_deref() }, case.allowance)
}

/// The reference against the expected values.
pub(super) fn on_cpu(case: &Attention, pattern: &dyn Pattern) -> Result<Judged> {
    let inputs = case.tensors.inputs();
    let exact = attention_with(&case.shape, &inputs, pattern)?;
    let output = AttentionOutput { out: narrow(&exact.out), lse: narrow(&exact.lse) };
    Ok(Judged::rows(&check(&case.shape, &inputs, (pattern, None), &output, Rows::All, expected(case))?))
}

/// The kernel against the expected values; in 16 bits against the reference on the rounded inputs.
pub(super) fn on_gpu<E: Element>(gpu: &Gpu, case: &Attention, pattern: &dyn Pattern) -> Result<Done> {
    let tensors = match case.rounded::<E>() {
        Ok(tensors) => tensors,
        Err(reason) => return Ok(Done::Unsupported(reason)),
    };
    let shape = case.shape.elements(E::TYPE);
    let parts = Parts::lower(pattern, BlockGrid::from(&shape))?;
    let plan = gpu.kernels().attention(&shape, &parts)?;
    let output = if shape.is_empty() {
        AttentionOutput { out: vec![], lse: vec![] }
    } else {
        let call = block_on(Call::upload(gpu, &plan, &tensors.inputs(), case.lse.is_some()))?;
        block_on(call.compute(1))?;
        block_on(call.read::<E>())?
    };
    let (values, against) = match E::TYPE {
        ElementType::F32 => (expected(case), EXPECTED),
        _ => (Against::Reference, REFERENCE),
    };
    let report = check(
        &shape,
        &tensors.inputs(),
        (pattern, Some((&parts, plan.path().path))),
        &output,
        Rows::All,
        values,
    )?;
    Ok(Done::Compared { path: plan.path().path.to_string(), against, judged: Judged::rows(&report) })
}

/// Where a pattern differs from the case's own.
pub(in crate::commands::verify) fn first_difference(
    case: &Attention,
    pattern: &AnyPattern,
) -> Option<String> {
    let extent = case.shape.extent();
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
