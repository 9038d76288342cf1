//! Benchmarks: verified, then timed, and compared with ceilings that are measured in the same run.
//!
//! | file | what |
//! |---|---|
//! | `record.rs` | the JSON that a run writes |
//! | `cases.rs`, `suites.rs` | what is computed; which cases, and how long each may take |
//! | `subject/` | a case on a device: uploaded, verified, ready |
//! | `clock.rs`, `timestamps.rs`, `stats.rs` | samples by two clocks; the device's clock; statistics |
//! | `ceilings/` | microkernels: what the adapter can reach |
//! | `measure.rs` | everything on one adapter, case by case |
//! | `session.rs` | a run: adapters, interruption, the file |
//! | `host.rs`, `describe.rs`, `table.rs` | the machine and its adapters; the table on the terminal |
//!
//! Nothing blocks but `session.rs`: the rest also runs in a browser (`web/`).

pub(crate) mod cases;
mod ceilings;
pub(crate) mod clock;
mod describe;
mod host;
mod measure;
mod rates;
pub(crate) mod record;
pub(crate) mod session;
pub(crate) mod stats;
mod subject;
pub(crate) mod suites;
mod table;
#[cfg(test)]
mod tests;
mod timestamps;
