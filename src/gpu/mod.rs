//! The kernels on a device: plan, bind, encode.
//!
//! | file | what |
//! |---|---|
//! | `kernels.rs`, `options.rs` | [`Kernels`]: the kernels on a user's device; compiled pipelines, kept |
//! | `attention/` | attention: plan, bind, merge |
//! | `decode/` | decoding with a key cache; packed sequences without one |
//! | `linear/` | linear attention: features, sums over chunks, their scan |
//! | `linformer/` | Linformer: keys and values projected along the sequence, then attention |
//! | `lsh/` | LSH attention: hash, sort, the blocked kernel over sorted places |
//! | `recurrent/` | recurrent networks: input products, then a dispatch per step |
//! | `sort.rs`, `host_sort.rs` | a stable sort by key: [`SortPlan`]; over slices |
//! | `layer/` | the kernels around attention: matrix product, feed-forward, norms, ... |
//! | `reversible/` | reversible residual layers: [`Reversible`], and what F and G are |
//! | `zeros.rs` | gradients of nothing |
//! | `tested.rs` | [`TestedPlan`]: what a self-test takes |
//! | `call.rs` | [`Call`]: a plan with its buffers, which records itself |
//! | `host.rs`, `calibrate.rs` | [`Gpu`]: slices in, `Vec` out; how fast a device is |
//! | `pipeline.rs`, `bindings.rs`, `params.rs` | compiled shaders; their buffers and parameters, by name |
//! | `memory.rs`, `scope.rs`, `trusted.rs` | buffers made, device errors caught, shaders without run-time checks |

mod attention;
mod bindings;
#[cfg(not(target_arch = "wasm32"))]
mod calibrate;
mod call;
mod decode;
mod host;
mod host_sort;
mod kernels;
mod layer;
mod linear;
mod linformer;
mod loads;
mod lsh;
mod memory;
mod options;
mod params;
mod pipeline;
mod recurrent;
mod reversible;
mod scope;
mod sort;
#[cfg(not(target_arch = "wasm32"))]
mod tested;
mod trusted;
mod zeros;

#[cfg(all(feature = "ndarray", not(target_arch = "wasm32")))]
pub use attention::ArrayGradients;
#[cfg(not(target_arch = "wasm32"))]
pub use attention::SelfTest;
pub use attention::{
    AttentionBuffers, AttentionGradBuffers, AttentionGradients, AttentionOutput, AttentionPlan,
    AttentionWeights, BackwardExplanation, BackwardPlan, Explanation, Gradients, Outputs, PathChoice,
    RowSummary, Scratch, TensorExplanation, WeightsBuffers, WeightsOptions, WeightsPlan,
    cooperative_features,
};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use attention::{Small, SmallBackward};
pub use call::{Call, Stage};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use decode::PACKED;
pub use decode::{
    AppendBuffers, AttendBuffers, DecodePlan, DecodeScratch, KvCache, PackedBuffers, PackedPlan,
};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use host::{Fetched, Judge};
pub use host::{Gpu, recommended_features, recommended_limits};
pub use host_sort::SortOutput;
pub use kernels::Kernels;
pub use layer::{
    ActivationBackwardPlan, ActivationBuffers, ActivationGradBuffers, ActivationGradientsOutput,
    ActivationPlan, AddPlan, AxialBackwardPlan, AxialPlan, ClipPlan, CrossEntropyBuffers, CrossEntropyOutput,
    CrossEntropyPlan, DequantizePlan, DistillationBuffers, DistillationPlan, EmbedBackwardPlan, EmbedPlan,
    FeedForwardBackwardPlan, FeedForwardBuffers, FeedForwardGradBuffers, FeedForwardGradients,
    FeedForwardPlan, FeedForwardSlices, IntegerBuffers, IntegerMatmulBuffers, IntegerMatmulPlan,
    MatmulBackwardPlan, MatmulBuffers, MatmulGradBuffers, MatmulGradients, MatmulPlan, MatmulSlices,
    NormBackwardPlan, NormBuffers, NormGradBuffers, NormGradOutput, NormPlan, OptimizerBuffers,
    OptimizerOutput, OptimizerPlan, OptimizerSlices, QuantizePlan, RotaryBuffers, RotaryPlan,
    RotaryTablesBuffers, RotaryTablesPlan, SoftmaxBackwardPlan, SoftmaxPlan,
};
pub use linear::{LinearBackwardPlan, LinearBuffers, LinearGradBuffers, LinearGradients, LinearPlan};
pub use linformer::{
    LinformerBackwardPlan, LinformerBuffers, LinformerGradBuffers, LinformerGradients, LinformerPlan,
    LinformerScratch,
};
pub use lsh::{
    LshBackwardExplanation, LshBackwardPlan, LshBuffers, LshExplanation, LshGradBuffers, LshGradients,
    LshOutput, LshPlan,
};
pub use options::Options;
pub use recurrent::{
    RecurrentBuffers, RecurrentOutput, RecurrentPlan, RecurrentScratch, RecurrentWeightBuffers,
};
pub use reversible::{
    AttentionBranch, Branch, BranchPlan, BranchPort, BranchTensors, CallBranch, FeedForwardBranch,
    LayerBranch, Parameter, ParameterLayout, Reversible, ReversibleBuffers,
};
pub use sort::{SortBuffers, SortPlan, SortShape};
#[cfg(not(target_arch = "wasm32"))]
pub use tested::TestedPlan;
