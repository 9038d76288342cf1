//! Gradients of the kernels around attention.
//!
//! | file | what |
//! |---|---|
//! | `activation.rs` | activations by themselves, and through them |
//! | `matmul.rs` | of the matrix product |

pub(crate) mod activation;
pub(crate) mod matmul;
