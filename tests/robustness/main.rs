//! What real machines do to a library: devices vanish, memory runs out, sequences are long, many threads share a device.
//!
//! | file | what |
//! |---|---|
//! | `device.rs` | a device destroyed in the middle of work, or out of memory |
//! | `limits.rs` | 65,535 workgroups a dimension, bindings of 128 MiB |
//! | `time.rs` | no dispatch runs for long |
//! | `many.rs` | two threads, 100 plans in one encoder, 10,000 calls |

mod device;
mod limits;
mod many;
mod time;

use std::sync::{Mutex, MutexGuard, PoisonError};
use wgpu_attention::reference::{Got, Report, Rows, VerifyOptions, verify};
use wgpu_attention::{AttentionShape, Gpu, Inputs, Pattern};
use wgpu_attention_testing as support;

/// These tests measure time and memory: each has the machine for itself.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A device of a test's own, to spoil.
fn own_gpu() -> Gpu {
    Gpu::new()
        .expect("need an adapter: run the tests by `cargo xtask test`, which fetches a software adapter")
}

/// q, k and v of a shape, each a little different.
fn tensors(shape: &AttentionShape) -> [Vec<f32>; 3] {
    let wave = |len: usize, step: f32| (0..len).map(|n| (n as f32 * step).sin()).collect();
    [wave(shape.len_q(), 0.37), wave(shape.len_k(), 0.73), wave(shape.len_v(), 1.19)]
}

fn inputs([q, k, v]: &[Vec<f32>; 3]) -> Inputs<'_, f32> {
    Inputs::new(q, k, v)
}

/// Whether a sample of rows is within the bound.
fn verified(
    shape: &AttentionShape,
    data: &[Vec<f32>; 3],
    pattern: &dyn Pattern,
    (out, lse): (&[f32], Option<&[f32]>),
) -> Report {
    let options = VerifyOptions::default().rows(Rows::Sample { count: 200, seed: 1 });
    verify(shape, &inputs(data), pattern, Got::new(out).lse(lse), options).expect("a good call")
}
