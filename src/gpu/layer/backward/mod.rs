//! Gradients of the kernels around attention: plan, bind, encode.
//!
//! | file | what |
//! |---|---|
//! | `activation.rs` | [`ActivationBackwardPlan`]: through an activation, with or without a gate |

mod activation;

pub use activation::{ActivationBackwardPlan, ActivationGradBuffers};
