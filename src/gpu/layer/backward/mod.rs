//! Gradients of the kernels around attention: plan, bind, encode.
//!
//! | file | what |
//! |---|---|
//! | `activation.rs` | [`ActivationBackwardPlan`]: through an activation, with or without a gate |
//! | `column_sums.rs` | sums over rows: gradients of what is broadcast over them |

mod activation;
#[expect(dead_code, reason = "the gradients that use it come next")]
mod column_sums;

pub use activation::{ActivationBackwardPlan, ActivationGradBuffers};
