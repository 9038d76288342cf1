//! Gradients of the kernels around attention: plan, bind, encode.
//!
//! | file | what |
//! |---|---|
//! | `activation.rs` | [`ActivationBackwardPlan`]: through an activation, with or without a gate |
//! | `column_sums.rs` | sums over rows: gradients of what is broadcast over them |
//! | `matmul.rs` | [`MatmulBackwardPlan`]: of a matrix product |
//! | `shapes.rs` | the products that those are |
//! | `products.rs` | products and sums of columns that add up over batch items or chunks |
//! | `host.rs` | products' gradients on slices |

mod activation;
mod column_sums;
mod host;
mod matmul;
mod products;
mod shapes;

pub use activation::{ActivationBackwardPlan, ActivationGradBuffers};
pub use host::MatmulGradients;
pub use matmul::{MatmulBackwardPlan, MatmulGradBuffers};
