//! Attention over ranks, all of them in threads of this process, on one device: against the f64 reference, against itself, and with faults.
//!
//! | file | what |
//! |---|---|
//! | `harness.rs` | a problem cut into ranks, run, and put together again |
//! | `exact.rs` | every element within its bound, for many patterns, lengths and numbers of ranks; the same bits twice |
//! | `common.rs` | rows that all ranks get: exact, fewer bytes, the same bits twice; faults on their way, and results that are lost or added twice |
//! | `traffic.rs` | what is sent, against what is needed |
//! | `cost.rs` | the model of the cost, against what is sent |
//! | `faults.rs` | messages that are lost, late, short or wrong; ranks that go |
//! | `refusals.rs` | bad input, and ranks that were given different calls |

mod common;
mod cost;
mod exact;
mod faults;
mod harness;
mod refusals;
mod traffic;
