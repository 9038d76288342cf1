//! A sequence that several ranks hold together: who holds which rows, and which keys each needs of whom.
//!
//! Pure functions of lengths and patterns, without a device and without a message: what computes with them (the crate
//! `wgpu-attention-ranks`) and what predicts its cost share them.
//!
//! | file | what |
//! |---|---|
//! | `assignment.rs` | [`Assignment`]: who holds which rows |
//! | `needs.rs` | [`needs`]: which keys a rank needs of whom |
//! | `share.rs` | [`Sharing`]: which rows all ranks get: queries that attend nearly everything, keys that all ask for |
//! | `tree.rs` | [`HandOn`]: the tree along which they travel |
//! | `row_bytes.rs` | bytes of a row on its way |
//! | `cost/` | [`Cost`]: messages, bytes, pairs, memory and time of a pass, before there is a machine |
//! | `stretches.rs`, `touched.rs` | sets of rows, and of blocks |
//!
//! Order of a pass over R ranks: in step s, rank r works on the keys that it needs of rank (r + R - s) mod R, so step 0 is its
//! own; they come from there directly, and rank r sends to rank (r + s) mod R meanwhile. Each rank sends at most one message
//! per step and gets at most one, and none where nothing is needed.

mod assignment;
mod cost;
mod needs;
mod row_bytes;
mod share;
pub mod stretches;
mod touched;
mod tree;

pub use assignment::Assignment;
pub use cost::{Cost, Machine, PassCost, RankCost, Travel};
pub use needs::{Needs, needs, needs_of};
pub use row_bytes::Pass;
pub use share::{Offer, Sharing};
pub use tree::HandOn;

/// Whose keys a rank works on in a step of a pass: (rank + ranks - step) mod ranks.
pub fn source(rank: usize, step: usize, ranks: usize) -> usize {
    (rank + ranks - step % ranks) % ranks
}

/// To whom a rank sends keys in a step of a pass: (rank + step) mod ranks. `source(target(r, s, n), s, n) == r`.
pub fn target(rank: usize, step: usize, ranks: usize) -> usize {
    (rank + step) % ranks
}
