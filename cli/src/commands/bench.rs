//! `bench`: every kernel, verified and timed, against ceilings that are measured in the same run.

use crate::bench::session::Session;
use crate::devices::{AdapterArgs, PathArgs, none_there};
use crate::output::{check_writable, say};
use crate::report::Files;
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::path::PathBuf;
use wgpu_attention_bench::clock::Stop;
use wgpu_attention_bench::record::{Record, Status};
use wgpu_attention_bench::suites::Suite;

/// Time every kernel on every adapter: verified, by two clocks, against ceilings measured in the same run
///
/// Each case is first compared with the f64 reference; what is out of its bound is never timed. Then it is called until that stops
/// making it faster, and sampled until the samples agree: *unconverged* if they do not. *roofline %* is the least time that the
/// measured ceilings allow / the time, *waste* visited / kept pairs, *error/bound* the verification's.
///
/// Ctrl-C ends the run after the sample in progress, and what was measured is written; a second one ends it at once. Exit status 1
/// if a case failed, nothing could run, or the run was interrupted.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wgpu-attention bench
  wgpu-attention bench --suite standard --adapter nvidia --json nvidia.json --html nvidia.html
  wgpu-attention bench --suite full --filter attention/bigbird --list
  wgpu-attention bench --suite crossover --seconds 240 --json crossover.json
  wgpu-attention bench --suite standard --filter relative: --csv relative.csv")]
pub(super) struct Bench {
    /// Which cases
    #[arg(long, value_name = "SUITE", default_value = "quick")]
    suite: Suite,
    /// Of the suite crossover: about how long it may take on an adapter; a call that would take too long for that is not run
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(20..))]
    seconds: Option<u32>,
    /// Only cases with this in their name (`causal+alibi`), or in the text of their score (`relative:`, see `run --score`)
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Print the names of the cases, and run nothing
    #[arg(long)]
    list: bool,
    /// Print the JSON schema of what --json writes, and run nothing
    #[arg(long)]
    schema: bool,
    /// Write everything that was measured, each sample too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    path: PathArgs,
    /// No progress on stderr
    #[arg(long, short)]
    quiet: bool,
}

impl Bench {
    /// All is well if every case that the adapters can run was verified and timed.
    pub(super) fn run(&self) -> Result<bool> {
        if self.schema {
            say!("{}", Record::schema()?.trim_end())?;
            return Ok(true);
        }
        let rules = match self.seconds {
            None => self.suite.rules(),
            Some(seconds) => (self.suite.rules_within(seconds.into()))
                .with_context(|| format!("--seconds: need --suite crossover, got {}", self.suite))?,
        };
        let stop = Stop::default();
        let session = Session {
            suite: self.suite,
            rules,
            filter: self.filter.clone(),
            path: self.path,
            json: self.json.clone(),
            quiet: self.quiet,
            stop: stop.clone(),
        };
        let specs = session.specs();
        ensure!(
            !specs.is_empty(),
            "--filter: need a part of the name of a case (see --list) or of its score, got `{}`",
            self.filter.as_deref().unwrap_or_default()
        );
        if self.list {
            specs.iter().try_for_each(|spec| say!("{}", spec.name()))?;
            return Ok(true);
        }
        if let Some(path) = &self.json {
            check_writable(path)?;
        }
        self.files.check()?;
        let devices = self.adapter.select()?;
        ensure!(!devices.is_empty(), none_there());
        ctrlc::set_handler(move || {
            if stop.set() {
                std::process::exit(130);
            }
            eprintln!("\ninterrupted: ending after the sample in progress; once more ends at once");
        })
        .context("cannot catch Ctrl-C")?;
        let record = session.run(&devices, &specs)?;
        self.files.write(std::slice::from_ref(&record))?;
        let cases = || record.adapters.iter().flat_map(|adapter| &adapter.cases);
        let failed = cases().any(|case| case.status == Status::Failed);
        let ran = record.adapters.iter().any(|adapter| adapter.error.is_none());
        Ok(record.complete && ran && !failed)
    }
}
