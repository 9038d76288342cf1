//! What the kernel tests share: a device, patterns by name, cases that print themselves, and a runner that poisons what
//! the kernel must write and guards what it must not.

mod backward;
mod buffers;
mod case;
mod check;
mod cooperative;
mod counted;
mod devices;
mod draw;
mod guards;
mod layouts;
pub mod mutants;
mod parts;
mod patterns;
mod run;
mod stale;
mod stats;
mod turns;
mod weights;

pub use backward::{
    BoundBackward, GradOutcome, drawn_dout, gradient_bounds, gradients_within, run_backward,
    run_backward_with,
};
pub use buffers::{read, storage};
pub use case::{BiasValues, Case};
pub use check::{
    bound, bound_of_parts, bound_on, count, count_of_parts, count_on, failed, gather, gather_of_parts,
    gather_on, verified,
};
pub use cooperative::cooperative;
pub use counted::{Counted, allocated};
pub use devices::{Devices, gpu, gpu_with, has_subgroups};
pub use draw::Draw;
pub use guards::{Guarded, POISON};
pub use layouts::{Placement, contiguous};
pub use parts::{Cut, cut};
pub use patterns::{PATTERNS, Picked, picked};
pub use run::{Bound, Outcome, run, run_times};
pub use stale::stale_scratch;
pub use stats::{check_all, summary};
pub use turns::{cases, combinations, kinds_of_tile, long, one_in};
pub use weights::{run_weights, weights_on};

use wgpu_attention::reference::Report;

/// The report of a check that passed, or what failed with a line that reproduces it.
pub type Checked = Result<Report, String>;

/// Calls a function that is generic in the element types of q, of k and v and of out with those of a storage.
#[macro_export]
macro_rules! typed {
    ($storage:expr, $function:ident ($($argument:expr),* $(,)?)) => {{
        use half::{bf16, f16};
        use wgpu_attention::ElementType::{Bf16, F16, F32};
        let storage: wgpu_attention::Storage = $storage;
        match (storage.q, storage.kv, storage.out) {
            (F32, F32, F32) => $function::<f32, f32, f32>($($argument),*),
            (F32, F32, F16) => $function::<f32, f32, f16>($($argument),*),
            (F32, F32, Bf16) => $function::<f32, f32, bf16>($($argument),*),
            (F16, F16, F32) => $function::<f16, f16, f32>($($argument),*),
            (F16, F16, F16) => $function::<f16, f16, f16>($($argument),*),
            (F16, F16, Bf16) => $function::<f16, f16, bf16>($($argument),*),
            (Bf16, Bf16, F32) => $function::<bf16, bf16, f32>($($argument),*),
            (Bf16, Bf16, F16) => $function::<bf16, bf16, f16>($($argument),*),
            (Bf16, Bf16, Bf16) => $function::<bf16, bf16, bf16>($($argument),*),
            (F32, F16, F32) => $function::<f32, f16, f32>($($argument),*),
            (F32, F16, F16) => $function::<f32, f16, f16>($($argument),*),
            (F32, Bf16, F32) => $function::<f32, bf16, f32>($($argument),*),
            (F32, Bf16, Bf16) => $function::<f32, bf16, bf16>($($argument),*),
            (F16, F32, F32) => $function::<f16, f32, f32>($($argument),*),
            // Each combination is a copy of the function: a test of another one adds its line.
            other => panic!("no test has the types {other:?} yet"),
        }
    }};
}
