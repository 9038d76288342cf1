//! Gradients of the kernels around attention.
//!
//! | file | what |
//! |---|---|
//! | `column_sums.rs` | sums over rows: gradients of what is broadcast over them |

#[expect(dead_code, reason = "the gradients that use it come next")]
mod column_sums;
