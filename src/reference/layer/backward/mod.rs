//! What the gradients of the kernels around attention must be, and how far a kernel may be from them.

mod activation;

pub use activation::{ActivationGradients, activation_backward};
