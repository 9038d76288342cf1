//! A run of benchmarks, as the terminal has it. What is measured, and how, is `wgpu-attention-bench`.
//!
//! | file | what |
//! |---|---|
//! | `session.rs` | a run: adapters, interruption, the file |
//! | `host.rs`, `table.rs` | the machine around the adapters; the table on the terminal |

mod host;
pub(crate) mod session;
mod table;
