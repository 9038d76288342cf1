//! Gradients of the kernels around attention.
//!
//! | file | what |
//! |---|---|
//! | `activation.rs` | activations by themselves, and through them |
//! | `matmul.rs` | of the matrix product |
//! | `feed_forward.rs` | of the chunked feed-forward layer |
//! | `rows.rs` | norms, softmax, rotary embedding |
//! | `embed.rs` | the table of an embedding |
//! | `differences.rs` | the reference's gradients against finite differences of the reference |

pub(crate) mod activation;
pub(crate) mod embed;
pub(crate) mod feed_forward;
pub(crate) mod matmul;
pub(crate) mod rows;

mod differences;
