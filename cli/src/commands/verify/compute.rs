//! A case on the CPU reference and on a GPU.

use crate::call::Call;
use crate::case::Attention;
use crate::check::{Against, check};
use anyhow::Result;
use pollster::block_on;
use wgpu_attention::reference::{Expected, Report, Rows, attention_with};
use wgpu_attention::{
    AnyPattern, AttentionOutput, BlockGrid, Element, ElementType, Gpu, Parts, Pattern, Site,
};

/// What came of a case on a GPU.
pub(super) enum Done {
    Compared(String, Report),
    /// An input does not fit the element type.
    OutOfRange(String),
}

fn expected(case: &Attention) -> Against<'_> {
    Against::Expected(Expected { out: &case.out, lse: case.lse.as_deref() }, case.allowance)
}

/// The reference against the expected values.
pub(super) fn on_cpu(case: &Attention, pattern: &dyn Pattern) -> Result<Report> {
    let inputs = case.tensors.inputs();
    let exact = attention_with(&case.shape, &inputs, pattern)?;
    let narrow = |values: &[f64]| values.iter().map(|&x| x as f32).collect::<Vec<f32>>();
    let output = AttentionOutput { out: narrow(&exact.out), lse: narrow(&exact.lse) };
    Ok(check(&case.shape, &inputs, (pattern, None), &output, Rows::All, expected(case))?)
}

/// The kernel against the expected values; in 16 bits against the reference on the rounded inputs.
pub(super) fn on_gpu<E: Element>(gpu: &Gpu, case: &Attention, pattern: &dyn Pattern) -> Result<Done> {
    let tensors = match case.rounded::<E>() {
        Ok(tensors) => tensors,
        Err(reason) => return Ok(Done::OutOfRange(reason)),
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
    let against = if E::TYPE == ElementType::F32 { expected(case) } else { Against::Reference };
    let report = check(&shape, &tensors.inputs(), (pattern, Some(&parts)), &output, Rows::All, against)?;
    Ok(Done::Compared(plan.path().path.to_string(), report))
}

/// Where a pattern differs from the case's own.
pub(super) fn first_difference(case: &Attention, pattern: &AnyPattern) -> Option<String> {
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
