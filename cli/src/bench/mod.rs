//! Benchmarks: verified, then timed, and compared with ceilings that are measured in the same run.
//!
//! | file | what |
//! |---|---|
//! | `record.rs` | the JSON that a run writes |

pub(crate) mod record;
