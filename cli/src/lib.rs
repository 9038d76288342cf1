//! The command line of `wgpu-attention`.
//!
//! | file | what |
//! |---|---|
//! | `commands/` | one file per command: its arguments, what it does, what it prints |
//! | `bench/` | a run of benchmarks (`crates/bench`) on the terminal |
//! | `report/` | what is made of benchmark records: a page with plots, tables, comparisons |
//! | `case/` | golden cases, read and checked |
//! | `tensors.rs`, `shapes.rs`, `inputs.rs` | safetensors files; from the shapes of q, k and v to the shape of a call; its tensors |
//! | `devices.rs` | the adapters of this machine, and how one is chosen |
//! | `pattern.rs`, `linear.rs`, `score.rs`, `distances.rs`, `element.rs` | patterns, linear attention, scores and element types as arguments |
//! | `output.rs`, `progress.rs` | tables, numbers and files; progress on stderr |
//!
//! A library only so that the fuzz targets in `crates/fuzzing` reach what reads files: the program is its one user.
//!
//! Exit status: 0 all is well, 1 something failed (an error, or a verification), 2 wrong arguments (of
//! `compare` also an error: 1 is a regression).

mod bench;
mod case;
mod commands;
mod devices;
mod distances;
mod element;
mod inputs;
mod linear;
mod output;
mod pattern;
mod progress;
mod report;
mod score;
mod shapes;
mod tensors;

use clap::Parser;
use std::process::ExitCode;

/// The program.
pub fn main() -> ExitCode {
    let cli = commands::Cli::parse();
    match cli.run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if output::reader_is_gone(&error) => ExitCode::from(141),
        Err(error) => {
            eprintln!("error: {}", wgpu_attention_bench::text::one_line(&format!("{error:#}")));
            ExitCode::from(cli.status_of_error())
        }
    }
}

/// Reads a golden case or a model and runs it on the CPU reference, as `verify --cpu-only` does.
///
/// # Errors
/// What is wrong with the file.
#[doc(hidden)]
pub fn verify_on_cpu(bytes: Vec<u8>) -> anyhow::Result<()> {
    commands::verify_on_cpu(bytes)
}
