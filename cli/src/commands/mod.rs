//! The commands: one file each.

mod adapters;
mod bench;
mod compare;
mod demo;
mod draw;
mod explain;
mod features;
mod file_call;
mod gallery;
mod generate;
mod report;
mod run;
mod scale;
mod sizes;
mod tune;
mod verify;
mod weights;

pub(crate) use verify::verify_on_cpu;

use clap::{Parser, Subcommand};

/// Attention kernels in WGSL on any GPU: verify, run, draw and explain them
#[derive(Debug, Parser)]
#[command(name = "wgpu-attention", bin_name = "wgpu-attention", version, max_term_width = 100)]
#[command(arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Demo),
    Adapters(adapters::Adapters),
    Verify(verify::Verify),
    Run(run::Run),
    Weights(weights::Weights),
    Generate(generate::Generate),
    Draw(draw::Draw),
    Explain(explain::Explain),
    Features(features::Features),
    Scale(scale::Scale),
    Bench(bench::Bench),
    Compare(compare::Compare),
    Report(report::Report),
    Tune(tune::Tune),
    Gallery(gallery::Gallery),
}

impl Cli {
    /// The exit status of an error. That of a comparison must not look like a regression.
    pub(crate) fn status_of_error(&self) -> u8 {
        if matches!(self.command, Command::Compare(_)) { 2 } else { 1 }
    }

    /// Runs the command: whether all is well, or why it could not be done.
    pub(crate) fn run(&self) -> anyhow::Result<bool> {
        match &self.command {
            Command::Demo(command) => command.run(),
            Command::Adapters(command) => command.run(),
            Command::Verify(command) => command.run(),
            Command::Run(command) => command.run(),
            Command::Weights(command) => command.run(),
            Command::Generate(command) => command.run(),
            Command::Draw(command) => command.run(),
            Command::Explain(command) => command.run(),
            Command::Features(command) => command.run(),
            Command::Scale(command) => command.run(),
            Command::Bench(command) => command.run(),
            Command::Compare(command) => command.run(),
            Command::Report(command) => command.run(),
            Command::Tune(command) => command.run(),
            Command::Gallery(command) => command.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
