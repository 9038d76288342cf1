//! The kernels on a device: plan, bind, encode.
//!
//! | file | what |
//! |---|---|
//! | `kernels.rs` | [`Kernels`]: the kernels on a user's device; compiled pipelines, kept |
//! | `plan.rs` | [`AttentionPlan`]: tile, pipelines, mask on the device, work cut into dispatches |
//! | `bind.rs` | [`AttentionBuffers`] checked and bound: [`AttentionCall`] |
//! | `host.rs` | [`Gpu`]: slices in, `Vec` out |
//! | `pipeline.rs`, `params.rs`, `scope.rs` | compiled shaders, uniform structs, caught device errors |

mod bind;
mod host;
mod kernels;
mod params;
mod pipeline;
mod plan;
mod scope;

pub use bind::{AttentionBuffers, AttentionCall};
pub use host::{AttentionOutput, Gpu, recommended_features, recommended_limits};
pub use kernels::{KernelPath, Kernels, Options, PathChoice};
pub use plan::{AttentionPlan, Explanation};
