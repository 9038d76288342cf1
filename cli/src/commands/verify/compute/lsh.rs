//! Cases of LSH attention.

use super::{Done, EXPECTED, REFERENCE, gradients, narrow};
use crate::case::{Gradient, Gradients, Lsh, LshCall};
use crate::commands::verify::record::Judged;
use crate::tensors::rounded;
use anyhow::Result;
use std::borrow::Cow;
use wgpu_attention::reference::{self, BoundedLshGradients, Expected, LshGot, LshReport, Rows};
use wgpu_attention::{Element, ElementType, Gpu, KernelPath, LshGradients, LshOutput, Storage};

/// The reference, given the case's buckets, against the expected values; and the case's buckets against the reference's,
/// wherever no rounding can change them.
pub(super) fn on_cpu(case: &Lsh) -> Result<Judged> {
    let LshCall { attention, options, qk, v, .. } = &case.given;
    let (inputs, buckets) = (case.given.inputs(qk, v), buckets(case)?);
    let exact = reference::lsh_with_buckets(attention, options, &inputs, &buckets)?;
    let (out, lse) = (narrow(&exact.out), narrow(&exact.lse));
    let got = LshGot::new(&out, &buckets).lse(lse_of(case, &lse));
    let report = reference::verify_lsh(attention, options, &inputs, got, Rows::All, Some(expected(case)))?;
    let judged = judged(case, &report);
    let Some(gradients) = &case.gradients else { return Ok(judged) };
    let exact = exact_gradients(case, gradients, &buckets)?;
    let got = [narrow(&exact.dqk.out), narrow(&exact.dv.out)];
    Ok(judged.and(judged_gradients(gradients, &exact, got, true)?))
}

/// The device against the expected values, if its buckets are those that they belong to. Where a projection is too close to
/// call, a device may differ; its rows are then compared with the reference on the device's own buckets.
pub(super) fn on_gpu<E: Element>(gpu: &Gpu, case: &Lsh) -> Result<Done> {
    if let Some(path @ KernelPath::Cooperative) = gpu.kernels().options().path {
        return Ok(Done::Unsupported(format!("LSH attention has no {path} kernel")));
    }
    let LshCall { attention, options, qk, v, .. } = &case.given;
    let (qk, v) = match (rounded::<E>("qk", qk), rounded::<E>("v", v)) {
        (Ok(qk), Ok(v)) => (qk, v),
        (Err(reason), _) | (_, Err(reason)) => return Ok(Done::Unsupported(reason)),
    };
    let (call, inputs) = (attention.clone().storage(Storage::all(E::TYPE)), case.given.inputs(&qk, &v));
    let output: LshOutput<E> = gpu.lsh(&call, options, &inputs)?;
    let buckets = buckets(case)?;
    let theirs = E::TYPE == ElementType::F32 && output.buckets == *buckets;
    // Without an expected lse ours is not compared with ours.
    let lse = if theirs { lse_of(case, &output.lse) } else { Some(&output.lse[..]) };
    let got = LshGot::new(&output.out, &output.buckets).lse(lse).order(output.order.as_slice());
    let expected = theirs.then(|| expected(case));
    let report = reference::verify_lsh(&call, options, &inputs, got, Rows::All, expected)?;
    let mut judged = judged(case, &report);
    if E::TYPE == ElementType::F32 && !theirs {
        let certain = reference::lsh_buckets(&call, options, &inputs)?.certain;
        let pairs = output.buckets.iter().zip(buckets.iter());
        let wrong = pairs.zip(certain).position(|((ours, theirs), certain)| certain && ours != theirs);
        if let Some(n) = wrong {
            let (got, expected) = (output.buckets[n], buckets[n]);
            judged.fail(bucket(case, n, got, expected));
        }
    }
    // In f32 alone, as those of attention.
    if let (Some(gradients), ElementType::F32) = (&case.gradients, E::TYPE) {
        let LshCall { attention, options, qk, v, .. } = &case.given;
        let inputs = case.given.inputs(qk, v);
        let got: LshGradients<f32> = gpu.lsh_backward(attention, options, &inputs, &gradients.dout)?;
        let exact = exact_gradients(case, gradients, &got.buckets)?;
        let expected = got.buckets == *buckets;
        judged = judged.and(judged_gradients(gradients, &exact, [got.dqk, got.dv], expected)?);
    }
    let against = if theirs { EXPECTED } else { REFERENCE };
    Ok(Done::Compared { path: "scalar".into(), against, judged: judged.into() })
}

/// The case's buckets; the reference's where it has none.
fn buckets(case: &Lsh) -> Result<Cow<'_, [u32]>> {
    let LshCall { attention, options, qk, v, .. } = &case.given;
    Ok(match &case.buckets {
        Some(buckets) => Cow::Borrowed(buckets),
        None => reference::lsh_buckets(attention, options, &case.given.inputs(qk, v))?.buckets.into(),
    })
}

fn exact_gradients(case: &Lsh, gradients: &Gradients, buckets: &[u32]) -> Result<BoundedLshGradients> {
    let LshCall { attention, options, qk, v, .. } = &case.given;
    let (inputs, storage) = (case.given.inputs(qk, v), ElementType::F32);
    Ok(reference::bounded_lsh_gradient(attention, options, &inputs, &gradients.dout, buckets, storage)?)
}

/// dqk and dv against the file's, or against the reference.
fn judged_gradients(
    gradients: &Gradients,
    exact: &BoundedLshGradients,
    [dqk, dv]: [Vec<f32>; 2],
    expected: bool,
) -> Result<Judged> {
    let of_gradient = |gradient: &Gradient| match gradient.name {
        "dqk" => gradients::compared(gradient, &exact.dqk, &dqk, expected),
        _ => gradients::compared(gradient, &exact.dv, &dv, expected),
    };
    let each = gradients.each.iter().map(of_gradient).collect::<Result<Vec<_>>>()?;
    Ok(each.into_iter().reduce(Judged::and).expect("a case with gradients has one"))
}

fn expected(case: &Lsh) -> (Expected<'_>, f64) {
    (Expected::new(&case.out).lse(case.lse.as_deref()), case.allowance)
}

fn lse_of<'a>(case: &Lsh, lse: &'a [f32]) -> Option<&'a [f32]> {
    case.lse.is_some().then_some(lse)
}

fn judged(case: &Lsh, report: &LshReport) -> Judged {
    let mut judged = Judged::rows(&report.attention);
    if let Some(n) = report.wrong_order {
        judged.fail(format!("order{}: not the stable order of the buckets", at(case, n)));
    }
    if let Some(&(n, got, expected)) = report.wrong_buckets.first() {
        judged.fail(bucket(case, n, got, expected));
    }
    judged
}

fn bucket(case: &Lsh, n: usize, got: u32, expected: u32) -> String {
    format!("buckets{}: got {got}, expected {expected}, which no rounding changes", at(case, n))
}

/// A place of `[B, H, rounds, L]`.
fn at(case: &Lsh, n: usize) -> String {
    let LshCall { attention, options, .. } = &case.given;
    let (len, rounds, heads) = (attention.shape.q_len, options.rounds, attention.shape.heads);
    let line = n / len / rounds;
    format!("[{}, {}, {}, {}]", line / heads, line % heads, n / len % rounds, n % len)
}
