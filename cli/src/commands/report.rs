//! `report`: pages and tables from records that are there.

use crate::output::{say, write_whole};
use crate::report::markdown::{CROSSOVER, Marks, TABLE};
use crate::report::{Files, crossover, load, markdown, predictions};
use anyhow::{Context, Result, bail};
use clap::{ArgGroup, Args};
use std::path::{Path, PathBuf};

/// Make a page with plots, or a table, from the JSON files that `bench` wrote
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").args(["html", "csv", "markdown", "into", "crossover", "predictions"]).required(true).multiple(true))]
#[command(group = ArgGroup::new("page").args(["into", "crossover"]))]
#[command(after_help = "Examples:
  wgpu-attention report run.json --html run.html --csv run.csv
  wgpu-attention report benches/results/*.json --into docs/RESULTS.md
  wgpu-attention report crossover.json --crossover docs/CROSSOVER.md
  wgpu-attention report predictions.json --predictions --family ampere --peak 29800")]
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
    /// Of records of `bench --suite crossover`: put what is the fastest at which length into a file, between the marks that are there,
    /// with a picture beside it
    #[arg(long, value_name = "FILE")]
    crossover: Option<PathBuf>,
    /// Of records of `bench --suite predictions`: print what was predicted for the GPU beside what was measured, as Markdown
    #[arg(long)]
    predictions: bool,
    /// With --predictions: the family of GPUs, where the adapter's name does not tell it or another's is wanted
    #[arg(long, value_name = "NAME", requires = "predictions")]
    family: Option<String>,
    /// With --predictions: the peak of f32 fma, published, instead of what a plain kernel reached in the run
    #[arg(long, value_name = "GFLOP/S", requires = "predictions")]
    peak: Option<f64>,
    /// With --into or --crossover: write nothing; fail where a file has something else
    #[arg(long, requires = "page")]
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
        if self.predictions {
            let asked = predictions::Asked { family: self.family.clone(), peak_gflop_s: self.peak };
            say!("{}", predictions::markdown(&records, &asked)?.trim_end())?;
        }
        if let Some(path) = &self.into {
            self.put(path, &TABLE, &markdown::markdown(&records))?;
        }
        if let Some(path) = &self.crossover {
            let stem =
                path.file_stem().and_then(|stem| stem.to_str()).context("--crossover: need a file's name")?;
            let page = crossover::page(&records, &stem.to_lowercase())?;
            self.put(path, &CROSSOVER, &page.text)?;
            for (name, picture) in page.pictures {
                self.keep(&path.with_file_name(name), &picture)?;
            }
        }
        Ok(true)
    }

    /// Between the marks of a file.
    fn put(&self, path: &Path, marks: &Marks, made: &str) -> Result<()> {
        let there =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let new = marks.filled(&there, made).with_context(|| path.display().to_string())?;
        self.keep(path, &new)
    }

    /// A file's text, written, or compared with what is there.
    fn keep(&self, path: &Path, new: &str) -> Result<()> {
        if std::fs::read_to_string(path).is_ok_and(|there| there == new) {
            return Ok(());
        }
        if self.check {
            bail!("{}: what it has is not that of the records: run this without --check", path.display());
        }
        write_whole(path, new.as_bytes())
    }
}
