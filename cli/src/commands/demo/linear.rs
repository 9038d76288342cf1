//! Linear attention and Linformer on the same activations.

use super::{Line, SAMPLES, SEED, SUBMISSION_S, median};
use crate::case::Attention;
use anyhow::Result;
use pollster::block_on;
use wgpu::{Buffer, BufferUsages};
use wgpu_attention::reference::{Report, Rows, verify_linear, verify_linformer};
use wgpu_attention::{
    Counter, ElementType, FeatureMap, Gpu, LinearBuffers, LinearInputs, LinearOptions, LinformerBuffers,
    LinformerInputs, LinformerOptions,
};
use wgpu_attention_bench::call::{buffer, poisoned, read, submit};

/// What is computed in place of attention over a pattern.
pub(super) enum Kind {
    Linear(LinearOptions),
    Linformer(LinformerOptions),
}

impl Kind {
    /// The call of a case: linear attention has no score, Linformer the case's scale.
    fn call(&self, case: &Attention) -> wgpu_attention::Attention {
        match self {
            Self::Linear(_) => case.call.shape.into(),
            Self::Linformer(_) => case.call.clone(),
        }
    }
}

/// Features of FAVOR+, and rows that Linformer attends.
const WIDTH: usize = 64;

/// Each with its label.
pub(super) fn kinds(case: &Attention) -> [(&'static str, Kind); 4] {
    let linear = |map| LinearOptions::new(map);
    [
        ("linear elu", Kind::Linear(linear(FeatureMap::Elu))),
        ("linear elu causal", Kind::Linear(linear(FeatureMap::Elu).causal(true))),
        ("linear favor", Kind::Linear(linear(FeatureMap::favor(WIDTH)))),
        ("linformer", Kind::Linformer(LinformerOptions::new(case.call.shape.kv_len, WIDTH))),
    ]
}

/// Buffers of a call, and what is recorded.
struct Bound {
    call: wgpu_attention::Call,
    out: Buffer,
    flops: f64,
}

/// All elements against the f64 reference, and the time, in f32.
pub(super) fn kernel(gpu: &Gpu, case: &Attention, kind: &Kind) -> Result<Line> {
    let (call, tensors) = (&kind.call(case), &case.tensors);
    let (q, k, v) = (&tensors.q, &tensors.k, &tensors.v);
    let matrices = match kind {
        Kind::Linear(_) => [vec![], vec![]],
        Kind::Linformer(options) => {
            let size = (call.shape.kv_len as f64).sqrt().recip();
            [1, 2].map(|stream| {
                let draw = Counter::new(SEED, stream);
                let len = options.len_projection(&call.shape) as u64;
                (0..len).map(|n| (size * draw.normal(n)) as f32).collect()
            })
        }
    };
    let bound = bind(gpu, case, kind, &matrices)?;
    let once = |times| block_on(run(gpu, &bound.call, times));
    once(1)?;
    let out: Vec<f32> = block_on(read(gpu, "out", &bound.out, call.len_out()))?;
    let report: Report = match kind {
        Kind::Linear(options) => {
            verify_linear(call, options, &LinearInputs::new(q, k, v), &out, Rows::All, None)?
        }
        Kind::Linformer(options) => {
            let inputs = LinformerInputs::new(q, k, &matrices[0]).v(&v[..]).f(&matrices[1][..]);
            verify_linformer(call, options, &inputs, &out, Rows::All, None)?
        }
    };
    let times = (SUBMISSION_S / once(1)?.max(1e-6)).clamp(1.0, 1000.0) as usize;
    let sample = |_| Ok(once(times)? / times as f64);
    let time_s = median((0..SAMPLES).map(sample).collect::<Result<_>>()?);
    Ok(Line { report: Some(("f64", report)), path: "scalar".into(), time_s, useful_flops: bound.flops })
}

/// Uploads and binds.
fn bind(gpu: &Gpu, case: &Attention, kind: &Kind, matrices: &[Vec<f32>; 2]) -> Result<Bound> {
    let upload = |name, values: &[f32]| {
        block_on(buffer(gpu, name, bytemuck::cast_slice(values), BufferUsages::STORAGE))
    };
    let (call, tensors) = (&kind.call(case), &case.tensors);
    let (q, k, v) = (upload("q", &tensors.q)?, upload("k", &tensors.k)?, upload("v", &tensors.v)?);
    let out = block_on(poisoned(gpu, "out", call.len_out(), ElementType::F32))?;
    let whole = Buffer::as_entire_buffer_binding;
    let (bound, flops) = match kind {
        Kind::Linear(options) => {
            let plan = gpu.kernels().linear_attention(call, options.clone())?;
            let buffers = LinearBuffers::new(whole(&q), whole(&k), whole(&v), whole(&out));
            (plan.bind(buffers)?, plan.flops())
        }
        Kind::Linformer(options) => {
            let plan = gpu.kernels().linformer(call, *options)?;
            let (e, f) = (upload("e", &matrices[0])?, upload("f", &matrices[1])?);
            let buffers = LinformerBuffers::new(whole(&q), whole(&k), whole(&e), whole(&out));
            (plan.bind(buffers.v(whole(&v)).f(whole(&f)))?, plan.flops())
        }
    };
    Ok(Bound { call: bound, out, flops })
}

/// Seconds of so many calls in one submission.
async fn run(gpu: &Gpu, call: &wgpu_attention::Call, times: usize) -> Result<f64> {
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    (0..times).for_each(|_| call.encode(&mut encoder));
    Ok(submit(gpu, "compute", encoder.finish()).await?.as_secs_f64())
}
