//! The sum of nothing.

use super::Kernels;
use super::bindings::Bindings;
use super::params::{Params, ZeroParams};
use super::pipeline::Step;
use crate::Result;
use crate::wgsl::CopyPass;

/// A step that sets so many f32 to 0.
pub(crate) fn zeros(kernels: &Kernels, len: usize, out: wgpu::BufferBinding<'_>) -> Result<Step> {
    let pipeline = kernels.pipeline(CopyPass::Zeros.shader())?;
    let params = Params::of(ZeroParams { len: len as u32, ..Default::default() });
    let workgroups = len.div_ceil(CopyPass::LANES) as u128;
    let work = kernels.work("zeros", workgroups, CopyPass::LANES as f64)?;
    Step::new(kernels.device(), &pipeline, &params, work, &Bindings::default().with("sums", out))
}
