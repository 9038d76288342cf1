//! The kernels on a device: plan, bind, encode.
//!
//! | file | what |
//! |---|---|
//! | `kernels.rs` | [`Kernels`]: the kernels on a user's device; compiled pipelines, kept |
//! | `plan.rs` | [`AttentionPlan`]: tile, pipelines, mask on the device, work cut into dispatches |
//! | `bind.rs` | [`AttentionBuffers`] checked and bound: [`AttentionCall`] |
//! | `layer/` | the kernels around attention: matrix product, feed-forward, norms, ... |
//! | `sort.rs` | a stable sort by key: [`SortPlan`] |
//! | `lsh/` | LSH attention: hash, sort, the blocked kernel over sorted places |
//! | `host.rs` | [`Gpu`]: slices in, `Vec` out |
//! | `calibrate.rs` | how fast a device is, so that no dispatch runs for long |
//! | `pipeline.rs`, `params.rs`, `scope.rs` | compiled shaders, uniform structs, caught device errors |

mod bind;
#[cfg(not(target_arch = "wasm32"))]
mod calibrate;
mod host;
mod kernels;
mod layer;
mod lsh;
mod params;
mod path;
mod pipeline;
mod plan;
mod scope;
mod sort;
mod trusted;

pub use bind::{AttentionBuffers, AttentionCall};
pub use host::{AttentionOutput, Gpu, recommended_features, recommended_limits};
pub use kernels::{Kernels, Options};
pub use layer::{
    AddPlan, EmbedPlan, FeedForwardBuffers, FeedForwardPlan, FeedForwardSlices, LayerCall, MatmulBuffers,
    MatmulPlan, MatmulSlices, NormBuffers, NormPlan, RotaryBuffers, RotaryPlan, SoftmaxPlan,
};
pub use lsh::{LshBuffers, LshCall, LshExplanation, LshOutput, LshPlan, LshStage};
pub use path::{PathChoice, cooperative_features};
pub use plan::{AttentionPlan, Explanation};
pub use sort::{SortBuffers, SortCall, SortOutput, SortPlan, SortShape};
