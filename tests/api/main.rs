//! The API as a wgpu user meets it: own device, buffers and encoder; bad input; small and lost devices.
//!
//! | file | what |
//! |---|---|
//! | `arrays.rs` | `ndarray`'s views |
//! | `calls.rs` | buffers and encoders of the caller's, slices, threads, a lost device |
//! | `examples.rs` | examples, as they stand |
//! | `plans.rs` | plans are kept, and what they hold is not made again |
//! | `shared.rs` | all tensors of a call in one buffer |
//! | `self_test.rs`, `decode_self_test.rs` | a device that computes wrong results is found |
//! | `refusals.rs` | bad input, device limits |

#[cfg(feature = "ndarray")]
mod arrays;
mod calls;
mod decode_self_test;
mod examples;
mod plans;
mod refusals;
mod self_test;
mod shared;

use std::sync::OnceLock;
use wgpu_attention::{Attention, Causal, Gpu, Inputs, Pattern, reference};
use wgpu_attention_testing::{read, storage};

const NO_ADAPTER: &str = "no GPU adapter: run the tests by `cargo xtask test`, which fetches a software adapter where \
                          no driver is installed";

fn gpu() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| Gpu::new().expect(NO_ADAPTER))
}

fn adapter() -> wgpu::Adapter {
    pollster::block_on(Gpu::adapters()).expect(NO_ADAPTER).swap_remove(0)
}

/// A device with exactly these limits.
fn device(required_limits: wgpu::Limits) -> (wgpu::Device, wgpu::Queue) {
    let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
    pollster::block_on(adapter().request_device(&descriptor)).expect("the adapter has these limits")
}

/// q, k, v of a call, each a little different.
fn tensors(attention: impl Into<Attention>) -> [Vec<f32>; 3] {
    let attention = attention.into();
    let wave = |len: usize, step: f32| (0..len).map(|n| (n as f32 * step).sin()).collect();
    [wave(attention.len_q(), 0.37), wave(attention.len_k(), 0.73), wave(attention.len_v(), 1.19)]
}

fn inputs([q, k, v]: &[Vec<f32>; 3]) -> Inputs<'_, f32> {
    Inputs::new(q, k, v)
}

/// Asserts that `out` is right for the call and causal attention over its tensors.
fn assert_right(attention: impl Into<Attention>, data: &[Vec<f32>; 3], out: &[f32]) {
    assert_right_under(attention, &inputs(data), &Causal, out, None);
}

/// Asserts that `out` and lse are right for the call.
fn assert_right_under(
    attention: impl Into<Attention>,
    inputs: &Inputs<'_, f32>,
    pattern: &dyn Pattern,
    out: &[f32],
    lse: Option<&[f32]>,
) {
    let got = reference::Got::new(out).lse(lse);
    let report = reference::verify(attention, inputs, pattern, got, Default::default()).expect("valid");
    assert!(report.pass, "{report}");
}
