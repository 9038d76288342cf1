//! Reversible residual layers (RevNet: Gomez 2017, section 3.2; Reformer: Kitaev 2020, section 3): gradients of a stack of any depth,
//! without the activations of its layers.
//!
//! | file | what |
//! |---|---|
//! | `branch.rs` | [`Branch`]: what F and G are, and where they read and write |
//! | `stack.rs` | [`Reversible`]: layers over two streams; forward, inverse, backward |
//! | `streams.rs` | both streams as one tensor, and back |
//! | `parameters.rs` | [`ParameterLayout`]: the tensors of a branch in one buffer |
//! | `shared.rs` | [`BranchPlan`]: calls that are bound once for all layers, whose parameters are copied to them |
//! | `feed_forward.rs`, `attention.rs` | branches that are there: a norm, and what is behind it |

mod attention;
mod branch;
mod feed_forward;
mod parameters;
mod shared;
mod stack;
mod streams;

pub use attention::AttentionBranch;
pub use branch::{Branch, BranchPort, CallBranch};
pub use feed_forward::FeedForwardBranch;
pub use parameters::{Parameter, ParameterLayout};
pub use shared::{BranchPlan, BranchTensors, LayerBranch};
pub use stack::{Reversible, ReversibleBuffers};
