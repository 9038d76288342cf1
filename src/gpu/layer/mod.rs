//! The kernels around attention, each as plan, bind, encode.
//!
//! | file | what |
//! |---|---|
//! | `activation.rs` | [`ActivationPlan`]: an activation by itself, with or without a gate |
//! | `matmul.rs` | [`MatmulPlan`]: a matrix product with bias, activation and residual fused |
//! | `feed_forward.rs` | [`FeedForwardPlan`]: two or three products over chunks of rows |
//! | `integers/` | [`QuantizePlan`], [`DequantizePlan`], [`IntegerMatmulPlan`]: tensors of integers |
//! | `rotary.rs`, `rotary_tables.rs` | rotary embedding, and its tables |
//! | `axial.rs` | axial positions and their gradients: lookups |
//! | `rows.rs` | layer norm, RMS norm, softmax, residual addition, embedding |
//! | `cross_entropy.rs` | [`CrossEntropyPlan`], [`DistillationPlan`]: the losses, and their gradients by the logits |
//! | `optimizer.rs` | [`OptimizerPlan`], [`ClipPlan`]: a step of an optimizer, the norm that its gradients are clipped by |
//! | `backward/` | their gradients |
//! | `host.rs` | all of them on slices, but for the loss and the optimizers |
//! | `host_activation.rs`, `host_loss.rs`, `host_optimizer.rs` | activations, the loss and the optimizers on slices |

mod activation;
mod axial;
mod backward;
mod cross_entropy;
mod feed_forward;
mod host;
mod host_activation;
mod host_loss;
mod host_optimizer;
mod integers;
mod matmul;
mod optimizer;
mod rotary;
mod rotary_tables;
mod rows;

pub use activation::{ActivationBuffers, ActivationPlan};
pub use axial::{AxialBackwardPlan, AxialPlan};
pub use backward::{
    ActivationBackwardPlan, ActivationGradBuffers, EmbedBackwardPlan, FeedForwardBackwardPlan,
    FeedForwardGradBuffers, FeedForwardGradients, MatmulBackwardPlan, MatmulGradBuffers, MatmulGradients,
    NormBackwardPlan, NormGradBuffers, NormGradOutput, SoftmaxBackwardPlan,
};
pub use cross_entropy::{CrossEntropyBuffers, CrossEntropyPlan, DistillationBuffers, DistillationPlan};
pub use feed_forward::{FeedForwardBuffers, FeedForwardPlan};
pub use host::{FeedForwardSlices, MatmulSlices};
pub use host_activation::ActivationGradientsOutput;
pub use host_loss::CrossEntropyOutput;
pub use host_optimizer::{OptimizerOutput, OptimizerSlices};
pub use integers::{DequantizePlan, IntegerBuffers, IntegerMatmulBuffers, IntegerMatmulPlan, QuantizePlan};
pub(super) use matmul::{Cut, Operands, Start};
pub use matmul::{MatmulBuffers, MatmulPlan};
pub use optimizer::{ClipPlan, OptimizerBuffers, OptimizerPlan};
pub use rotary::{RotaryBuffers, RotaryPlan};
pub use rotary_tables::{RotaryTablesBuffers, RotaryTablesPlan};
pub use rows::{AddPlan, EmbedPlan, NormBuffers, NormPlan, SoftmaxPlan};
