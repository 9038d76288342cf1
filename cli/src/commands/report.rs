//! `report`: pages and tables from records that are there.

use crate::output::{say, write_whole};
use crate::report::{Files, load, markdown};
use anyhow::{Context, Result, bail};
use clap::{ArgGroup, Args};
use std::path::{Path, PathBuf};

/// Make a page with plots, or a table, from the JSON files that `bench` wrote
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").args(["html", "csv", "markdown", "into"]).required(true).multiple(true))]
#[command(after_help = "Examples:
  wgpu-attention report run.json --html run.html --csv run.csv
  wgpu-attention report benches/results/*.json --into docs/RESULTS.md")]
pub(super) struct Report {
    /// What `bench --json` wrote
    #[arg(required = true, value_name = "RECORD")]
    records: Vec<PathBuf>,
    #[command(flatten)]
    files: Files,
    /// Print a table in Markdown
    #[arg(long)]
    markdown: bool,
    /// Put that table into a file, between the marks that are there
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
    /// With --into: write nothing; fail where the file has another table
    #[arg(long, requires = "into")]
    check: bool,
}

impl Report {
    /// All is well, or an error.
    pub(super) fn run(&self) -> Result<bool> {
        self.files.check()?;
        let records = self.records.iter().map(|path| load(path)).collect::<Result<Vec<_>>>()?;
        self.files.write(&records)?;
        if self.markdown {
            say!("{}", markdown::markdown(&records).trim_end())?;
        }
        if let Some(path) = &self.into {
            self.put(path, &markdown::markdown(&records))?;
        }
        Ok(true)
    }

    fn put(&self, path: &Path, table: &str) -> Result<()> {
        let there =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let new = markdown::into(&there, table).with_context(|| path.display().to_string())?;
        if there == new {
            return Ok(());
        }
        if self.check {
            bail!("{}: its table is not that of the records: run this without --check", path.display());
        }
        write_whole(path, new.as_bytes())
    }
}
