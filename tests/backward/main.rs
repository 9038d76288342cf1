//! Gradients, on whatever adapter is there. One binary, so that every pipeline is compiled once.
//!
//! | file | what |
//! |---|---|
//! | `gradients.rs` | every element within its bound of the formula in f64 |
//! | `alone.rs` | gradients that are asked for one by one |
//! | `counts.rs` | gradients that are integers: the exact set of pairs |
//! | `dropout.rs` | dropout: the bound, and each pair by itself |
//! | `oracles.rs` | what a bound over random inputs would miss: read-out, planted keys, sums, factors |
//! | `relations.rs` | repeats, NaN that stays out, rows and keys without partners |
//! | `relative.rs` | relative rows |
//! | `places.rs` | gradients in places of their own; buffers that may not be one |
//! | `refusals.rs` | bad input |
//! | `cooperative.rs` | cooperative matrices |
//! | `cooperative_mutants.rs` | faults in their text, of `tests/mutants/table/backward_cooperative.rs` |
//! | `in_f16.rs` | calls that run in f16 |
//! | `mutants.rs` | faults in the shader text, of `tests/mutants/table/backward.rs` |
//! | `tensors.rs` | the tensors of the terms of the score |
//! | `state.rs` | what the forward pass leaves of a row: (m, l) |

mod alone;
mod cooperative;
mod cooperative_mutants;
mod counts;
mod dropout;
mod gradients;
mod in_f16;
mod mutants;
mod oracles;
mod places;
mod refusals;
mod relations;
mod relative;
mod state;
mod tensors;

use wgpu_attention_testing as support;
