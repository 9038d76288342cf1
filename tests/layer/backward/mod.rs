//! Gradients of the kernels around attention.
//!
//! | file | what |
//! |---|---|
//! | `rows.rs` | norms, softmax, rotary embedding |
//! | `embed.rs` | the table of an embedding |
//! | `differences.rs` | the reference's gradients against finite differences of the reference |

pub(crate) mod embed;
pub(crate) mod rows;

mod differences;
