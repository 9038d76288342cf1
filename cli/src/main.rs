//! The command line of `wgpu-attention`.
fn main() {}
