//! Gradients, on whatever adapter is there. One binary, so that every pipeline is compiled once.
//!
//! | file | what |
//! |---|---|
//! | `state.rs` | what the forward pass leaves of a row: (m, l) |

mod state;

use wgpu_attention_testing as support;
