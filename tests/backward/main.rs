//! Gradients, on whatever adapter is there. One binary, so that every pipeline is compiled once.
//!
//! | file | what |
//! |---|---|
//! | `gradients.rs` | every element against the formula in f64 |
//! | `state.rs` | what the forward pass leaves of a row: (m, l) |

mod gradients;
mod state;

use wgpu_attention_testing as support;
