//! Verification and benchmarks for a page in a browser (`page/`), which runs this in a worker: the command line's own cases,
//! reference, clock and record (`wgpu-attention-bench`), with the page in the place of the terminal.
#![cfg(target_arch = "wasm32")]

mod session;
