//! Calls of some heads, on whatever adapter is there.
//!
//! | file | what |
//! |---|---|
//! | `forward.rs` | out and lse: the bound, heads left out as rows without keys |
//! | `backward.rs` | the gradients likewise, those of the terms' tensors among them |
//! | `untouched.rs` | nothing of other heads is written; computed heads come out bit for bit as among all; calls of different heads fill one out |
//! | `costs.rs` | workgroups, pairs and operations are those of the heads |
//! | `refusals.rs` | bad input, and calls that compute every head |
//! | `mutants.rs` | faults in the shader text |

mod backward;
mod costs;
mod forward;
mod mutants;
mod refusals;
mod untouched;

use wgpu_attention::{Attention, AttentionShape, Heads};

/// 6 query heads on 3 key heads: one of the first, none of the second, both of the third.
fn attention() -> Attention {
    AttentionShape::new(2, 6, 70, 16).kv_heads(3).heads(Heads::only(&[4, 1, 5]))
}

type Checked = Result<(), String>;
