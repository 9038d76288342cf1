//! `tune`: the fastest tile and splits of a call, found by running it.

use super::sizes::CallArgs;
use crate::devices::{AdapterArgs, PathArgs, none_there};
use crate::output::{json_line, say, seconds};
use crate::pattern::PatternArgs;
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use wgpu_attention::tune::{Outcome, Trial, Tuning, TuningCache};

/// Find the fastest tile and splits of a call by running it: each candidate is verified, then timed
///
/// With `--cache`, a choice that is there already is shown and nothing is run. Programs read the same file through
/// `TuningCache`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wgpu-attention tune --pattern causal --len 4096 --heads 12
  wgpu-attention tune --pattern full --len 1 --kv-len 8192 --heads 32 --kv-heads 8 --head-dim 128 --cache tuning.json")]
pub(super) struct Tune {
    #[command(flatten)]
    pattern: PatternArgs,
    #[command(flatten)]
    call: CallArgs,
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    path: PathArgs,
    /// Read choices from this file, and write new ones there
    #[arg(long, value_name = "FILE")]
    cache: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// What was found. The names are part of the command line.
#[derive(Serialize)]
struct Found {
    adapter: String,
    best: Tuning,
    /// The plan's own time / the best time; none where nothing was run.
    gain: Option<f64>,
    trials: Vec<Line>,
}

/// A trial.
#[derive(Serialize)]
struct Line {
    tile: String,
    splits: usize,
    outcome: &'static str,
    time_s: Option<f64>,
    why: Option<String>,
}

impl From<&Trial> for Line {
    fn from(trial: &Trial) -> Self {
        let (outcome, time_s, why) = match &trial.outcome {
            Outcome::Timed(time_s) => ("timed", Some(*time_s), None),
            Outcome::Skipped(least_s) => ("skipped", Some(*least_s), Some("at least".into())),
            Outcome::Refused(why) => ("refused", None, Some(why.clone())),
            Outcome::Wrong(why) => ("WRONG", None, Some(why.clone())),
        };
        Self { tile: trial.tuning.tile.to_string(), splits: trial.tuning.splits, outcome, time_s, why }
    }
}

impl Tune {
    /// All is well unless a candidate's result was wrong.
    pub(super) fn run(&self) -> Result<bool> {
        let call = self.call.attention();
        call.check()?;
        let device = self.adapter.best()?.ok_or_else(none_there)?;
        let gpu = device.open(self.path)?;
        let quiet = self.json;
        let mut watch = |trial: &Trial| {
            if !quiet {
                eprintln!("{}", text(&trial.into()));
            }
        };
        let tuned = match &self.cache {
            Some(path) => {
                let mut cache = TuningCache::open(path)?;
                let gpu = cache.calibrated(&gpu)?;
                cache.tuned(&gpu, &call, &self.pattern.pattern, &mut watch)?
            }
            None => gpu.tune(&call, &self.pattern.pattern, &mut watch)?,
        };
        let timed = |trial: &Trial| match trial.outcome {
            Outcome::Timed(time_s) => Some(time_s),
            _ => None,
        };
        let least = tuned.trials.iter().filter_map(timed).reduce(f64::min);
        let found = Found {
            adapter: gpu.info().name.clone(),
            best: tuned.best,
            gain: tuned.trials.first().and_then(timed).zip(least).map(|(own, best)| own / best),
            trials: tuned.trials.iter().map(Line::from).collect(),
        };
        if self.json {
            json_line(&found)?;
        } else {
            let gain = found.gain.map_or("as tuned before".into(), |gain| {
                format!("{gain:.2} times as fast as the plan's own choice")
            });
            say!("{}: tile {}, splits {}: {gain}", found.adapter, found.best.tile, found.best.splits)?;
        }
        Ok(!tuned.trials.iter().any(|trial| matches!(trial.outcome, Outcome::Wrong(_))))
    }
}

fn text(line: &Line) -> String {
    let time = line.time_s.map(seconds).unwrap_or_default();
    let why = line.why.as_deref().unwrap_or_default();
    format!("{:8} {time:>10}  tile {}, splits {} {why}", line.outcome, line.tile, line.splits)
}
