//! Gradients of attention in f64, by the formula.
//!
//! For a loss whose derivative by the output is dout, with p_ij = exp(score(i, j) - lse_i) and f_ij the derivative of
//! score(i, j) by the product scale q_i . k_j (1, but for softcap and temperature):
//!
//! ```text
//! D_i   = sum_{j in S_i} p_ij dout_i . v_j               = dout_i . o_i
//! ds_ij = p_ij (dout_i . v_j - D_i)                      the gradient by the score
//! dq_i  = scale sum_{j in S_i}  ds_ij f_ij k_j
//! dk_j  = scale sum_{i sees j}  ds_ij f_ij q_i           over all query heads of the group
//! dv_j  =       sum_{i sees j}  p_ij dout_i
//! d x   =       sum_{S}         ds_ij (d score(i, j) / d x)     x an element of a tensor of the score's terms
//! d sink_h =  - sum_i           exp(sink_h - lse_i) D_i         over all rows of the head
//! ```
//!
//! Relative rows are products, too: with scale [(q + u) . k + (q + w) . r], dq has k + r in place of k, dk has q + u in place of q;
//! so are segments, which give dq scale e.
//!
//! (Dao 2022, appendix B.) As in the forward reference: no blocks, no base 2, no block mask. Each row
//! gives lse, D, its pairs and dq; a few rows at a time are added to dk, dv and the terms' gradients, each sum in the order of the rows.
//!
//! | file | what |
//! |---|---|
//! | `call.rs` | the tensors of a call with dout; a row with its pairs |
//! | `derivatives.rs` | the score of a pair with its derivatives |
//! | `exact.rs` | the formula |
//! | `bound.rs` | the bound on a kernel's error, with its derivation |
//! | `errors.rs` | its parts: the errors of a row and of a pair |
//! | `error_sums.rs` | and their sums |
//!
//! ```
//! use wgpu_attention::{AttentionShape, Full, reference};
//! // Two keys of equal score: dv is half of dout.
//! let shape = AttentionShape::new(1, 1, 2, 1).q_len(1);
//! let inputs = reference::Inputs::new(&[0.0f32], &[1.0f32, 2.0], &[3.0, 5.0]);
//! let exact = reference::gradient::attention_gradient(&shape, &inputs, &[1.0f32], &Full)?;
//! assert_eq!(exact.dv, [0.5, 0.5]);
//! assert_eq!(exact.dq, [0.5 * (3.0 - 4.0) * 1.0 + 0.5 * (5.0 - 4.0) * 2.0]);
//! assert_eq!(exact.dk, [0.0, 0.0]);
//! # Ok::<(), wgpu_attention::Error>(())
//! ```

mod bound;
mod call;
mod derivatives;
mod error_sums;
mod errors;
mod exact;

pub use bound::{BoundOptions, BoundedGradients, bounded};
pub(super) use bound::{before_storage, with_storage};
pub(super) use call::{GradientCall, RowSource, Solved};
pub(super) use derivatives::{Derivatives, derivatives};
pub(super) use errors::{common_error, weight_within};
pub(super) use exact::of_call;
pub use exact::{Gradients, attention_gradient};
