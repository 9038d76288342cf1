//! The kernels around attention, each as plan, bind, encode.
//!
//! | file | what |
//! |---|---|
//! | `matmul.rs` | [`MatmulPlan`]: a matrix product with bias, activation and residual fused |
//! | `feed_forward.rs` | [`FeedForwardPlan`]: two or three products over chunks of rows |
//! | `rotary.rs` | rotary embedding |
//! | `rows.rs` | layer norm, RMS norm, softmax, residual addition, embedding |
//! | `host.rs` | all of them on slices |

mod feed_forward;
mod host;
mod matmul;
mod rotary;
mod rows;

pub use feed_forward::{FeedForwardBuffers, FeedForwardPlan};
pub use host::{FeedForwardSlices, MatmulSlices};
pub use matmul::{MatmulBuffers, MatmulPlan};
pub use rotary::{RotaryBuffers, RotaryPlan};
pub use rows::{AddPlan, EmbedPlan, NormBuffers, NormPlan, SoftmaxPlan};

use super::bind::checked_binding;
use super::pipeline::Step;
use crate::{ElementType, Error, Result};

/// A plan with its buffers: records itself into the caller's encoder or pass, as often as wanted.
#[derive(Debug)]
pub struct LayerCall {
    label: &'static str,
    steps: Vec<Step>,
}

impl LayerCall {
    /// Records a compute pass of its own.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        if self.steps.is_empty() {
            return;
        }
        let label = Some(self.label);
        let mut pass =
            encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label, timestamp_writes: None });
        self.dispatch(&mut pass);
    }

    /// Records into the caller's pass; leaves its own pipeline and bind group 0 set.
    pub fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.steps.iter().for_each(|step| step.record(pass));
    }

    /// Dispatches that [`encode`](Self::encode) records.
    pub fn dispatches(&self) -> usize {
        self.steps.iter().map(Step::dispatches).sum()
    }
}

/// An input that is there if and only if it is wanted.
fn optional_binding<'a>(
    limits: &wgpu::Limits,
    name: &'static str,
    binding: &Option<wgpu::BufferBinding<'a>>,
    wanted: bool,
    elements: usize,
    element: ElementType,
) -> Result<Option<wgpu::BufferBinding<'a>>> {
    match (binding, wanted) {
        (Some(binding), true) => checked_binding(limits, name, binding, elements, element).map(Some),
        (None, false) => Ok(None),
        (None, true) => Err(Error::argument(name, "a buffer, since the shape has one", "none")),
        (Some(_), false) => Err(Error::argument(name, "none, since the shape has none", "a buffer")),
    }
}

/// WebGPU forbids a dispatch to write a buffer that it also reads, even elsewhere in it.
fn check_separate(
    name: &'static str,
    output: &wgpu::BufferBinding<'_>,
    inputs: &[(&str, Option<&wgpu::BufferBinding<'_>>)],
) -> Result<()> {
    let same = |input: &&(&str, Option<&wgpu::BufferBinding<'_>>)| {
        input.1.is_some_and(|input| input.buffer == output.buffer)
    };
    match inputs.iter().find(same) {
        Some((other, _)) => {
            Err(Error::argument(name, format!("a buffer other than that of {other}"), "the same buffer"))
        }
        None => Ok(()),
    }
}

/// Workgroups as work items, if 32 bits count them.
fn items(what: &'static str, count: u128) -> Result<u32> {
    u32::try_from(count).map_err(|_| {
        Error::limit(what, "work items a call", count.min(u64::MAX as u128) as u64, u32::MAX.into())
    })
}
