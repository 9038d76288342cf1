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
