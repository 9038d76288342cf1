//! `scale`: how the time of each pattern grows with the length.

use crate::devices::{AdapterArgs, PathArgs, none_there};
use crate::output::{grouped, say, seconds};
use anyhow::{Context, Result, ensure};
use clap::Args;
use pollster::block_on;
use wgpu_attention::reference::{Kind, random};
use wgpu_attention::{AnyPattern, AttentionShape, BlockGrid, Gpu, Parts};
use wgpu_attention_bench::call::Call;
use wgpu_attention_bench::cases::{PATTERNS, QUADRATIC};
use wgpu_attention_bench::text::one_line;

/// Time every pattern at growing lengths: does the cost follow the density?
///
/// One head of size 64 in f32. *overhead* is time / (time of the full pattern x visited pairs / its visited pairs): 1 is a cost that
/// follows the visited pairs exactly. The full pattern is timed up to --dense-len only (its cost is quadratic); beyond, its
/// time for a pair at that length counts. *growth* is time / time at half the length.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wgpu-attention scale
  wgpu-attention scale --max-len 65536 --only window --only bigbird")]
pub(super) struct Scale {
    /// The longest sequence; every power of two from 1024 up to it is timed
    #[arg(long, value_name = "N", default_value_t = 16384)]
    max_len: usize,
    /// The longest sequence at which patterns are timed whose cost is quadratic: full, causal, prefix, document
    #[arg(long, value_name = "N", default_value_t = 8192)]
    dense_len: usize,
    /// Only the patterns with this in their name; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    path: PathArgs,
}

/// Samples of a time, of which the least counts: a busy machine only ever adds.
const SAMPLES: usize = 5;
/// A call that takes this long is timed twice only.
const LONG_S: f64 = 2.0;
/// A submission computes as often as takes about this long.
const SUBMISSION_S: f64 = 0.1;
/// Where `--max-len` begins.
const SHORTEST: usize = 1024;

impl Scale {
    /// Always all is well, or an error.
    pub(super) fn run(&self) -> Result<bool> {
        ensure!(self.max_len >= SHORTEST, "--max-len: need at least {SHORTEST}, got {}", self.max_len);
        ensure!(self.dense_len >= SHORTEST, "--dense-len: need at least {SHORTEST}, got {}", self.dense_len);
        let device = self.adapter.best()?.with_context(none_there)?;
        let gpu = device.open_measured(self.path)?;
        say!(
            "adapter: {}, {}; f32, 1 head, d = 64, blocks of 64; least of {SAMPLES} samples\n",
            device.info.name,
            device.driver()
        )?;
        say!("| pattern | n | parts | kept pairs | visited / kept | time | growth | overhead |")?;
        say!("|---|---:|---:|---:|---:|---:|---:|---:|")?;
        // Seconds a visited pair of the full pattern, by length.
        let mut dense = vec![];
        for len in self.lens().filter(|&len| len <= self.dense_len) {
            let (time_s, parts) = time(&gpu, &AnyPattern::parse("full")?, len)?;
            dense.push((len, time_s / parts.visited() as f64));
        }
        let dense_at = |len: usize| {
            dense.iter().rev().find(|(at, _)| *at <= len).map_or(f64::NAN, |(_, pair_s)| *pair_s)
        };
        for (name, of_len) in PATTERNS {
            if !self.only.is_empty() && !self.only.iter().any(|wanted| name.contains(wanted.as_str())) {
                continue;
            }
            let mut before = None;
            for len in self.lens() {
                if QUADRATIC.contains(&name) && len > self.dense_len {
                    continue;
                }
                let (time_s, parts) = match time(&gpu, &AnyPattern::parse(&of_len(len))?, len) {
                    Ok(timed) => timed,
                    // Longer sequences will not fit either: the next pattern.
                    Err(error) => {
                        say!(
                            "| {name} | {} | | | | {} | | |",
                            grouped(len as u64),
                            one_line(&format!("{error:#}"))
                        )?;
                        break;
                    }
                };
                let growth = before.map_or("".into(), |before| format!("{:.2}", time_s / before));
                let overhead = time_s / (dense_at(len) * parts.visited() as f64);
                before = Some(time_s);
                say!(
                    "| {name} | {} | {} | {} | {:.3} | {} | {growth} | {overhead:.2} |",
                    grouped(len as u64),
                    parts.parts().len(),
                    grouped(parts.kept()),
                    parts.waste(),
                    seconds(time_s)
                )?;
            }
        }
        Ok(true)
    }

    fn lens(&self) -> impl Iterator<Item = usize> + use<> {
        let max_len = self.max_len;
        std::iter::successors(Some(SHORTEST), |len| Some(2 * len)).take_while(move |len| *len <= max_len)
    }
}

/// Seconds of one call, and the parts that it ran.
fn time(gpu: &Gpu, pattern: &AnyPattern, len: usize) -> Result<(f64, Parts)> {
    let shape = AttentionShape::new(1, 1, len, 64);
    let parts = Parts::lower(pattern, BlockGrid::from(&shape))?;
    let plan = gpu.kernels().attention_parts(shape, &parts)?;
    let tensors = random::<f32, f32>(shape, Kind::Normal, 1)?;
    let call = block_on(Call::upload(gpu, &plan, &tensors.inputs(), false))?;
    // The first call warms up; one that takes seconds is warm soon enough, and needs no crowd of samples.
    let first = block_on(call.compute(1))?.as_secs_f64();
    let long = first > LONG_S;
    let once = if long { first } else { block_on(call.compute(1))?.as_secs_f64().max(1e-6) };
    let times = (SUBMISSION_S / once).clamp(1.0, 1000.0) as usize;
    let mut least = once;
    for _ in 0..if long { 1 } else { SAMPLES } {
        least = least.min(block_on(call.compute(times))?.as_secs_f64() / times as f64);
    }
    Ok((least, parts))
}
