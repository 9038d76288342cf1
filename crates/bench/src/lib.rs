//! Benchmarks: verified, then timed, and compared with ceilings that are measured in the same run. The command line and the
//! page (`web/`) share it: nothing here blocks, and nothing knows a terminal or a browser.
//!
//! | file | what |
//! |---|---|
//! | `record.rs`, `sound.rs` | the JSON that a run writes; what it may not say |
//! | `cases.rs`, `scores.rs`, `suites/` | what is computed; the scores by name; which cases, and how long each may take |
//! | `call.rs`, `check.rs` | one call on a device, step by step; what it gave, against the reference |
//! | `subject/` | a case on a device: uploaded, verified, ready |
//! | `clock.rs`, `timestamps.rs`, `stats.rs` | samples by two clocks; the device's clock; statistics |
//! | `ceilings/` | microkernels: what the adapter can reach |
//! | `measure.rs`, `predict.rs`, `rates.rs` | everything on one adapter, case by case; how long a case would take; times as rates |
//! | `predictions.rs`, `predictions.json` | what is predicted for GPUs, and what a run says of it |
//! | `describe.rs` | an adapter, as the record has it |
//! | `view.rs` | a case and an adapter in words |
//! | `text.rs`, `typed.rs` | texts in one line; from an element type known at run time to one known to the compiler |

pub mod call;
pub mod cases;
pub mod ceilings;
pub mod check;
pub mod clock;
pub mod describe;
pub mod measure;
mod predict;
pub mod predictions;
mod rates;
pub mod record;
pub mod scores;
mod sound;
pub mod stats;
pub mod subject;
pub mod suites;
#[cfg(test)]
mod tests;
pub mod text;
mod timestamps;
mod typed;
pub mod view;
