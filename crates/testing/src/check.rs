use super::{Case, Checked, Outcome, gpu_with, run, stats};
use wgpu_attention::reference::{Got, Inputs, Report, Tensors, VerifyOptions, WeightFormat, oracle, verify};
use wgpu_attention::{Element, Gpu, KernelPath, Parts};

/// The device and kernels that a case asks for.
fn gpu_of(case: &Case) -> Gpu {
    gpu_with(case.options)
}

/// Random inputs: every element within its bound.
pub fn bound(case: &Case) -> Checked {
    bound_on(&gpu_of(case), case)
}

/// [`bound`] on other kernels.
pub fn bound_on(gpu: &Gpu, case: &Case) -> Checked {
    bound_of_parts(gpu, case, &case.parts())
}

/// [`bound`] of any parts whose union is the case's pattern.
pub fn bound_of_parts(gpu: &Gpu, case: &Case, parts: &Parts) -> Checked {
    crate::typed!(case.attention.storage, bound_typed(gpu, case, parts))
}

fn bound_typed<Q: Element, KV: Element, O: Element>(gpu: &Gpu, case: &Case, parts: &Parts) -> Checked {
    let tensors: Tensors<Q, KV> = case.tensors();
    let got = run::<Q, KV, O>(gpu, &case.attention, &tensors.inputs(), parts, case.lse)
        .map_err(|e| failed("guards", case, e))?;
    verified(case, &tensors.inputs(), parts, &got)
}

/// What a kernel made of `inputs` against the reference, walking the keys as `parts` do.
pub fn verified<Q: Element, KV: Element, O: Element>(
    case: &Case,
    inputs: &Inputs<'_, Q, KV>,
    parts: &Parts,
    got: &Outcome<O>,
) -> Checked {
    let order = |at: wgpu_attention::reference::Position| parts.key_order(at.batch, at.head, at.i);
    let tiles = |at: wgpu_attention::reference::Position| parts.key_tiles(at.batch, at.head, at.i);
    let options = VerifyOptions::default().rows(case.rows).order(&order).tiles(&tiles);
    let options = options.weights(weights(case));
    let report = verify(&case.attention, inputs, case.pattern.as_dyn(), as_got(got), options);
    let report = report.unwrap_or_else(|e| panic!("{e}\n{case}"));
    stats::record(case, &report);
    judged("bound", case, report)
}

/// q = 0: out tells exactly which keys were attended.
pub fn count(case: &Case) -> Checked {
    count_on(&gpu_of(case), case)
}

/// [`count`] on other kernels.
pub fn count_on(gpu: &Gpu, case: &Case) -> Checked {
    count_of_parts(gpu, case, &case.parts())
}

/// [`count`] of any parts whose union is the case's pattern.
pub fn count_of_parts(gpu: &Gpu, case: &Case, parts: &Parts) -> Checked {
    crate::typed!(case.attention.storage, count_typed(gpu, case, parts))
}

fn count_typed<Q: Element, KV: Element, O: Element>(gpu: &Gpu, case: &Case, parts: &Parts) -> Checked {
    let tensors: Tensors<Q, KV> =
        oracle::count_inputs(&case.attention, case.seed).unwrap_or_else(|e| panic!("{e}\n{case}"));
    let inputs = tensors.inputs();
    let got = run::<Q, KV, O>(gpu, &case.attention, &inputs, parts, case.lse)
        .map_err(|e| failed("guards", case, e))?;
    let report =
        oracle::check_count(&case.attention, &inputs, case.pattern.as_dyn(), as_got(&got), case.rows);
    judged("count", case, report.unwrap_or_else(|e| panic!("{e}\n{case}")))
}

/// Each query addresses one key, far ahead of all others.
pub fn gather(case: &Case) -> Checked {
    gather_on(&gpu_of(case), case)
}

/// [`gather`] on other kernels.
pub fn gather_on(gpu: &Gpu, case: &Case) -> Checked {
    gather_of_parts(gpu, case, &case.parts())
}

/// [`gather`] of any parts whose union is the case's pattern.
pub fn gather_of_parts(gpu: &Gpu, case: &Case, parts: &Parts) -> Checked {
    crate::typed!(case.attention.storage, gather_typed(gpu, case, parts))
}

fn gather_typed<Q: Element, KV: Element, O: Element>(gpu: &Gpu, case: &Case, parts: &Parts) -> Checked {
    let pattern = case.pattern.as_dyn();
    let gather = oracle::gather_inputs::<Q, KV>(&case.attention, pattern, case.seed)
        .unwrap_or_else(|e| panic!("{e}\n{case}"));
    let inputs = gather.tensors.inputs();
    let got = run::<Q, KV, O>(gpu, &case.attention, &inputs, parts, case.lse)
        .map_err(|e| failed("guards", case, e))?;
    let report =
        oracle::check_gather(&case.attention, &gather, pattern, as_got(&got), case.rows, weights(case));
    judged("gather", case, report.unwrap_or_else(|e| panic!("{e}\n{case}")))
}

/// How the kernel that the case asks for keeps its weights.
fn weights(case: &Case) -> WeightFormat {
    WeightFormat::of(case.options.path.unwrap_or(KernelPath::Scalar))
}

fn as_got<O>(outcome: &Outcome<O>) -> Got<'_, O> {
    Got::new(&outcome.out).lse(outcome.lse.as_deref())
}

fn judged(check: &str, case: &Case, report: Report) -> Checked {
    if report.pass && report.rows_checked > 0 { Ok(report) } else { Err(failed(check, case, report)) }
}

/// What went wrong, and the line that reproduces it.
pub fn failed(check: &str, case: &Case, what: impl std::fmt::Display) -> String {
    format!("{check}: {what}\n  {case}")
}
