//! Gradients of the kernels around attention.
//!
//! | file | what |
//! |---|---|
//! | `activation.rs` | activations by themselves, and through them |

pub(crate) mod activation;
