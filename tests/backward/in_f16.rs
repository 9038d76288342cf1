//! Calls that run in f16 on cooperative matrices, forward and backward; what is written is f32.

use crate::support::{BoundBackward, Case, GradOutcome, run_backward};
use half::f16;
use wgpu_attention::ElementType::{F16, F32};
use wgpu_attention::reference::Tensors;
use wgpu_attention::{Attention, Gpu, Inputs, KernelPath, Options, Parts, Storage};

/// Attention and its gradients on matrices.
pub(crate) fn options() -> Options {
    Options::default().path(KernelPath::Cooperative).gradient_path(KernelPath::Cooperative)
}

/// Tensors of f32, whose numbers f16 has, where the kernels want it: gradients in f32 either way.
pub(crate) fn run_in_its_type(
    gpu: &Gpu,
    case: &Case,
    tensors: &Tensors<f32, f32>,
    dout: &[f32],
    parts: &Parts,
) -> Result<GradOutcome<f32>, String> {
    if case.options.gradient_path != Some(KernelPath::Cooperative) {
        return run_backward(gpu, &case.attention, &tensors.inputs(), dout, parts, 1);
    }
    let narrow = |x: &[f32]| x.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>();
    let (q, k, v, dout) = (narrow(&tensors.q), narrow(&tensors.k), narrow(&tensors.v), narrow(dout));
    let inputs = Inputs::new(&q, &k, &v);
    let inputs = tensors.terms.iter().fold(inputs, |inputs, (name, values)| inputs.tensor(name, values));
    let attention = case.attention.clone().storage(Storage::all(F16).out(F32));
    run_in_f16(gpu, &attention, &inputs, &dout, parts)
}

/// Out and what is written in f32.
pub(crate) fn run_in_f16(
    gpu: &Gpu,
    attention: &Attention,
    inputs: &Inputs<'_, f16, f16>,
    dout: &[f16],
    parts: &Parts,
) -> Result<GradOutcome<f32>, String> {
    BoundBackward::in_types::<_, _, f16, f32>(gpu, attention, inputs, dout, parts, &[]).run(gpu, 1)
}
