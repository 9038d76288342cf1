//! The program `wgpu-attention`: all of it is in `lib.rs`.

use std::process::ExitCode;

fn main() -> ExitCode {
    wgpu_attention_cli::main()
}
