//! The command line.

use crate::model::Config;
use crate::text::Text;
use clap::{Parser, ValueEnum};
use std::path::PathBuf;

/// Which model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Every position attends all before it.
    Gpt,
    /// The Sparse Transformer's strided pattern.
    Sparse,
    /// LSH attention in reversible layers.
    Reformer,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Gpt => "gpt",
            Kind::Sparse => "sparse",
            Kind::Reformer => "reformer",
        })
    }
}

/// Trains a character model on this machine's adapter.
#[derive(Debug, Parser)]
#[command(name = "train")]
pub(crate) struct Arguments {
    /// The model.
    #[arg(long, value_enum, default_value = "reformer", conflicts_with_all = ["resume", "compare"])]
    pub(crate) model: Kind,
    /// Any text in UTF-8 [default: the documentation of this repository].
    #[arg(long)]
    pub(crate) text: Option<PathBuf>,
    /// Train `gpt` and `sparse` by turns on the same text, and draw both.
    #[arg(long, conflicts_with = "resume")]
    pub(crate) compare: bool,
    /// Go on from a checkpoint: with its model, sizes and step.
    #[arg(long)]
    pub(crate) resume: Option<PathBuf>,
    /// Time the pieces of a step instead, and measure its memory.
    #[arg(long, conflicts_with_all = ["resume", "compare"])]
    pub(crate) profile: bool,
    /// Steps to take.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) steps: u32,
    /// Stop after so many minutes.
    #[arg(long)]
    pub(crate) minutes: Option<f64>,
    /// Sequences per step.
    #[arg(long, conflicts_with = "resume", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch: u32,
    /// Characters per sequence: a multiple of 64.
    #[arg(long, conflicts_with = "resume", default_value_t = 256, value_parser = whole_blocks)]
    pub(crate) len: u32,
    /// Width of the model: a multiple of the heads.
    #[arg(long, conflicts_with = "resume", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) width: u32,
    /// Heads.
    #[arg(long, conflicts_with = "resume", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) heads: u32,
    /// Layers.
    #[arg(long, conflicts_with = "resume", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) layers: u32,
    /// The learning rate, once it is warm.
    #[arg(long, conflicts_with = "resume", default_value_t = 3e-3)]
    pub(crate) learning_rate: f32,
    /// Of the first weights, of the batches and of the sample.
    #[arg(long, conflicts_with = "resume", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Characters of the sample at the end.
    #[arg(long, default_value_t = 200)]
    pub(crate) sample: usize,
    /// Where no terminal shows progress: steps from one line to the next.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) every: u32,
    /// The folder of the checkpoint and the picture.
    #[arg(long, default_value = "target/train")]
    pub(crate) out: PathBuf,
}

/// What the blocks of every pattern divide.
fn whole_blocks(text: &str) -> Result<u32, String> {
    let len: u32 = text.parse().map_err(|error| format!("{error}"))?;
    match len > 0 && len.is_multiple_of(64) {
        true => Ok(len),
        false => Err(format!("need a multiple of 64, found {len}")),
    }
}

impl Arguments {
    /// What the model is built from.
    pub(crate) fn config(&self, kind: Kind, text: &Text) -> Config {
        Config {
            kind: kind.to_string(),
            vocabulary: text.vocabulary(),
            batch: self.batch as usize,
            len: self.len as usize,
            width: self.width as usize,
            heads: self.heads as usize,
            layers: self.layers as usize,
            learning_rate: self.learning_rate,
            seed: self.seed,
        }
    }
}
