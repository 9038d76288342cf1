//! The kernels around attention against their f64 reference and bound, with poison around every tensor.
//!
//! | file | what |
//! |---|---|
//! | `harness.rs` | guarded buffers, element types |
//! | `axial.rs` | axial positions |
//! | `backward/` | gradients |
//! | `matmul.rs` | the matrix product |
//! | `backward/` | gradients |
//! | `cooperative.rs` | products in cooperative matrices |
//! | `cross_entropy.rs` | the loss, its gradient, its smoothing |
//! | `distillation.rs` | the loss against a teacher |
//! | `feed_forward.rs` | the chunked feed-forward layer |
//! | `few_rows.rs` | products of few rows |
//! | `every_f32.rs` | activations of every kind of f32, NaN and infinity among them |
//! | `far_rows.rs` | rows of any size, far means, long rows, NaN and infinity |
//! | `golden.rs` | cases that other systems made, whole models among them |
//! | `pruned.rs` | models without some heads, the importance of heads, shared layers |
//! | `optimizer.rs` | steps of the optimizers, the norm of gradients |
//! | `rotary.rs` | rotary embedding |
//! | `rows.rs` | norms, softmax, residual addition, embedding |
//! | `reversible/` | reversible layers |
//! | `properties.rs` | drawn sizes and strides |
//! | `slices.rs` | slices in, `Vec`s out |
//! | `mutants.rs` | faults planted in the shader texts: the checks must find them |

mod axial;
mod backward;
mod cooperative;
mod cross_entropy;
mod distillation;
mod every_f32;
mod far_rows;
mod feed_forward;
mod few_rows;
mod golden;
mod harness;
mod matmul;
mod mutants;
mod optimizer;
mod properties;
mod pruned;
mod reversible;
mod rotary;
mod rotary_tables;
mod rows;
mod slices;

/// The outcome of a check: what is wrong, with the case.
type Checked = Result<(), String>;
