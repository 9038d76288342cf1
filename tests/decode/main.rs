//! Decoding with a key cache: on a device, against the reference over the whole sequence, exact counts, planted keys.
//!
//! | file | what |
//! |---|---|
//! | `session.rs` | sequences fed in steps into a cache full of NaN, guarded buffers |
//! | `oracles.rs` | every row within its bound, counts and planted keys: sizes, storages, layouts, pages, windows |
//! | `int8.rs` | a cache of int8: how rows are quantised, and attended as they are then |
//! | `packed.rs` | rows of all sequences packed in one tensor |
//! | `latent.rs` | values that are a part of keys; rows as wide as they may be |
//! | `own_keys.rs` | packed sequences over keys and values of the caller's, without a cache |
//! | `pages.rs` | forks, what is forgotten, full caches |
//! | `rotary.rs` | keys and queries that turn on the way |
//! | `recorded.rs` | one recorded call for every token: nothing is planned, compiled, uploaded or allocated |
//! | `strange.rs` | NaN and infinity, wrong lengths, pages and counts on the device |
//! | `refusals.rs` | bad input |
//! | `mutants.rs` | faults planted in the shader text |

mod int8;
mod latent;
mod mutants;
mod oracles;
mod own_keys;
mod packed;
mod pages;
mod recorded;
mod refusals;
mod rotary;
mod session;
mod strange;

/// What is wrong.
type Checked = Result<(), String>;
