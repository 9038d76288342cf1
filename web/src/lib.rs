//! Verification and benchmarks for a page in a browser (`page/`), which runs this in a worker: the command line's own cases,
//! reference, clock and record, with the page in the place of the terminal.
#![cfg(target_arch = "wasm32")]

#[path = "../../cli/src/call.rs"]
#[allow(dead_code, reason = "the command line uses more of it")]
mod call;
#[path = "../../cli/src/check.rs"]
#[allow(dead_code, reason = "the command line uses more of it")]
mod check;
#[path = "../../cli/src/element.rs"]
#[allow(dead_code, reason = "the command line uses more of it")]
mod element;
#[path = "../../cli/src/output.rs"]
#[allow(dead_code, unused_macros, unused_imports, reason = "the command line uses more of it")]
mod output;

mod bench;
mod session;
