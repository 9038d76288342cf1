//! Gradients of the kernels around attention.
//!
//! | file | what |
//! |---|---|
//! | `activation.rs` | [`ActivationBackwardPlan`]: through an activation, with or without a gate |
//! | `matmul.rs` | [`MatmulBackwardPlan`]: of a matrix product |
//! | `feed_forward.rs`, `feed_forward_bind.rs` | [`FeedForwardBackwardPlan`]: of the chunked feed-forward layer |
//! | `shapes.rs` | the products that those are |
//! | `products.rs` | products and sums of columns that add up over batch items or chunks |
//! | `column_sums.rs` | sums over rows: gradients of what is broadcast over them |
//! | `norm.rs` | layer norm, RMS norm |
//! | `softmax.rs` | softmax |
//! | `embed.rs` | the table of an embedding |
//! | `host.rs`, `host_products.rs` | all of them on slices |

mod activation;
mod column_sums;
mod embed;
mod feed_forward;
mod feed_forward_bind;
mod host;
mod host_products;
mod matmul;
mod norm;
mod products;
mod shapes;
mod softmax;

pub use activation::{ActivationBackwardPlan, ActivationGradBuffers};
pub use embed::EmbedBackwardPlan;
pub use feed_forward::FeedForwardBackwardPlan;
pub use feed_forward_bind::FeedForwardGradBuffers;
pub use host::NormGradOutput;
pub use host_products::{FeedForwardGradients, MatmulGradients};
pub use matmul::{MatmulBackwardPlan, MatmulGradBuffers};
pub use norm::{NormBackwardPlan, NormGradBuffers};
pub use softmax::SoftmaxBackwardPlan;
