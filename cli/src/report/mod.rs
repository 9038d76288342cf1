//! What is made of benchmark records: a page, a table, a comparison.
//!
//! | file | what |
//! |---|---|
//! | `page/` | one HTML file with everything, nothing from outside |
//! | `plots/` | its pictures |
//! | `trends.rs` | patterns by length: which is fastest, where one overtakes the other |
//! | `crossover.rs` | the page of the suite `crossover`: which computation is the fastest at which length |
//! | `predictions.rs` | what was predicted for the GPU, confirmed or refuted |
//! | `costs.rs` | scores beside the plain one: what each costs |
//! | `rows.rs` | CSV |
//! | `markdown.rs` | the table of the README |
//! | `compare/` | runs side by side, and what of their difference is not noise |
//! | `view.rs` | names and words that these share |

pub(crate) mod compare;
mod costs;
pub(crate) mod crossover;
pub(crate) mod markdown;
mod page;
mod plots;
pub(crate) mod predictions;
mod rows;
mod trends;
pub(crate) mod view;

use crate::output::{check_writable, write_whole};
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::path::{Path, PathBuf};
use wgpu_attention_bench::record::Record;

/// Files made of records.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Files {
    /// Write a report with plots: one HTML file that needs nothing else
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Write a table of all cases
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
}

impl Files {
    /// Finds out before a long computation that they could not be written.
    pub(crate) fn check(&self) -> Result<()> {
        [&self.html, &self.csv].into_iter().flatten().try_for_each(|path| check_writable(path))
    }

    pub(crate) fn write(&self, records: &[Record]) -> Result<()> {
        if let Some(path) = &self.html {
            write_whole(path, page::page(records)?.as_bytes())?;
        }
        if let Some(path) = &self.csv {
            write_whole(path, rows::csv(records)?.as_bytes())?;
        }
        Ok(())
    }
}

/// Reads a record; the error names the file.
pub(crate) fn load(path: &Path) -> Result<Record> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let record = Record::parse(&text).with_context(|| path.display().to_string())?;
    let cases = record.adapters.iter().any(|adapter| !adapter.cases.is_empty());
    ensure!(cases, "{}: need at least one case, got none", path.display());
    Ok(record)
}

#[cfg(test)]
mod samples {
    use super::*;

    /// Planned by hand: every status, a missing clock, a drift, an adapter that cannot run.
    pub(super) fn sample() -> Record {
        Record::parse(include_str!("../../../crates/bench/tests/data/bench.json"))
            .expect("the sample is a record")
    }
}
