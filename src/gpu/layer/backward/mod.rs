//! Gradients of the kernels around attention.
//!
//! | file | what |
//! |---|---|
//! | `column_sums.rs` | sums over rows: gradients of what is broadcast over them |
//! | `norm.rs` | layer norm, RMS norm |
//! | `softmax.rs` | softmax |
//! | `embed.rs` | the table of an embedding |
//! | `host.rs` | all of them on slices |

mod column_sums;
mod embed;
mod host;
mod norm;
mod softmax;

pub use embed::{EmbedBackwardPlan, EmbedGradients};
pub use host::NormGradOutput;
pub use norm::{NormBackwardPlan, NormGradBuffers};
pub use softmax::SoftmaxBackwardPlan;
