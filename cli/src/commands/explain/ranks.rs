//! What a call costs whose rows several ranks hold.

use super::{Asked, Explain, sizes_of};
use crate::output::{bytes, grouped, json_line, say, seconds};
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use serde_json::Value;
use std::time::Instant;
use wgpu_attention::ranks::{Assignment, Cost, Machine, Pass, RankCost, Travel};
use wgpu_attention::{AnyPattern, AttentionShape, BlockMask};

/// Ranks, and what lies between them.
#[derive(Debug, Args)]
pub(super) struct RankArgs {
    /// How many ranks hold the sequence together: what passes over them cost, in place of a plan on a device
    #[arg(long, value_name = "N", requires_all = ["network", "flops"], conflicts_with_all = ["linear", "linformer", "no_lowering"])]
    ranks: Option<usize>,
    /// With --ranks: what goes between any two of them, GB/s each way and us per message
    #[arg(long, value_name = "GB/s,us", value_parser = network, requires = "ranks")]
    network: Option<Network>,
    /// With --ranks: floating-point operations per second that attention reaches on each, such as 100e12
    #[arg(long, value_name = "F", value_parser = rate, requires = "ranks")]
    flops: Option<f64>,
}

#[derive(Debug, Clone, Copy)]
struct Network {
    bytes_per_s: f64,
    latency_s: f64,
}

fn network(text: &str) -> Result<Network, String> {
    let need = || format!("need GB/s and us, such as 100,2, got {text}");
    let (rate, latency) = text.split_once(',').ok_or_else(need)?;
    match (rate.trim().parse::<f64>(), latency.trim().parse::<f64>()) {
        (Ok(rate), Ok(latency))
            if rate.is_finite() && rate > 0.0 && latency.is_finite() && latency >= 0.0 =>
        {
            Ok(Network { bytes_per_s: rate * 1e9, latency_s: latency * 1e-6 })
        }
        _ => Err(need()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| rate.is_finite() && *rate > 0.0);
    rate.ok_or_else(|| format!("need a finite number above 0, got {text}"))
}

impl RankArgs {
    /// How many, and the machine; `None` where nobody asked.
    pub(super) fn asked(&self) -> Option<(usize, Machine)> {
        let (ranks, network, flops) = (self.ranks?, self.network?, self.flops?);
        Some((ranks, Machine::new(flops, network.bytes_per_s, network.latency_s)))
    }
}

/// The answer. The names are part of the command line.
#[derive(Serialize)]
struct RanksExplained {
    pattern: Value,
    q: [usize; 4],
    k: [usize; 4],
    v: [usize; 4],
    dtype: &'static str,
    /// Of k and v.
    kv_dtype: &'static str,
    score: String,
    score_tensors: Vec<super::ScoreTensor>,
    ranks: usize,
    flops_per_s: f64,
    bytes_per_s: f64,
    latency_s: f64,
    /// Attended pairs, over all batch items and heads.
    kept: u64,
    /// Pairs in the blocks that the ranks compute.
    visited: u64,
    /// From the pattern to the mask.
    build_s: f64,
    plans: Vec<Plan>,
}

/// One way to hold the rows, to send keys, to go through them.
#[derive(Serialize)]
struct Plan {
    pass: &'static str,
    /// Who holds which rows.
    rows: &'static str,
    /// Which keys a rank gets of another.
    travel: &'static str,
    /// Until the slowest rank is done.
    time_s: f64,
    /// The arithmetic of all / (ranks x time).
    efficiency: f64,
    /// The most visited pairs of a rank / the mean.
    imbalance: f64,
    by_rank: ByRank,
}

/// One entry per rank.
#[derive(Serialize, Default)]
struct ByRank {
    kept: Vec<u64>,
    visited: Vec<u64>,
    sent_bytes: Vec<u64>,
    received_bytes: Vec<u64>,
    sent_messages: Vec<u64>,
    received_messages: Vec<u64>,
    memory_bytes: Vec<u64>,
    steps: Vec<usize>,
    longest_round_s: Vec<f64>,
    compute_s: Vec<f64>,
    time_s: Vec<f64>,
}

impl Explain {
    pub(super) fn ranks(
        &self,
        asked: &Asked,
        pattern: &AnyPattern,
        (ranks, machine): (usize, Machine),
    ) -> Result<bool> {
        let call = asked.call.attention();
        let grid = asked.call.sizes.grid();
        let start = Instant::now();
        let mask = BlockMask::new(pattern, grid)?;
        let build_s = start.elapsed().as_secs_f64();
        let mut plans = vec![];
        for (rows, spread) in [
            ("contiguous", Assignment::contiguous as fn(usize, usize, usize) -> _),
            ("zig_zag", Assignment::zig_zag),
        ] {
            let (queries, keys) =
                (spread(grid.q_len, grid.block_q, ranks)?, spread(grid.kv_len, grid.block_k, ranks)?);
            let travels =
                [("shared", Travel::Shared), ("needed", Travel::Needed), ("shards", Travel::Shards)];
            for (travel, of) in travels {
                let cost = Cost::new(&call, &mask, [&queries, &keys], of, machine)?;
                plans.push(Plan::new("forward", rows, travel, &cost, Pass::Forward));
                plans.push(Plan::new("backward", rows, travel, &cost, Pass::Backward));
            }
        }
        plans.sort_by_key(|plan| plan.pass != "forward");
        let AttentionShape { batch, heads, kv_heads, q_len, kv_len, head_dim, value_dim, .. } = call.shape;
        let explained = RanksExplained {
            // Patterns are made of texts, numbers and lists: they are JSON.
            pattern: serde_json::to_value(pattern).unwrap_or_default(),
            q: [batch, heads, q_len, head_dim],
            k: [batch, kv_heads, kv_len, head_dim],
            v: [batch, kv_heads, kv_len, value_dim],
            dtype: call.storage.q.name(),
            kv_dtype: call.storage.kv.name(),
            score: call.score.to_string(),
            score_tensors: super::score_tensors(&call),
            ranks,
            flops_per_s: machine.flops_per_s,
            bytes_per_s: machine.bytes_per_s,
            latency_s: machine.latency_s,
            kept: mask.kept(),
            visited: mask.visited(),
            build_s,
            plans,
        };
        if self.json {
            json_line(&explained)?
        } else {
            explained.print()?
        }
        Ok(true)
    }
}

impl Plan {
    fn new(pass: &'static str, rows: &'static str, travel: &'static str, cost: &Cost, of: Pass) -> Self {
        let mut by_rank = ByRank::default();
        for rank in &cost.ranks {
            by_rank.push(rank, of);
        }
        let (time_s, efficiency) = (cost.time_s(of), cost.efficiency(of));
        Self { pass, rows, travel, time_s, efficiency, imbalance: cost.imbalance(), by_rank }
    }

    /// As a line of text, of the rank that has most of each.
    fn line(&self) -> String {
        let Self { pass, rows, travel, efficiency, by_rank, .. } = self;
        let most = |of: &[u64]| of.iter().copied().max().unwrap_or(0);
        let messages = most(&by_rank.sent_messages).max(most(&by_rank.received_messages));
        format!(
            "{pass:<9} {rows:<11} {travel:<7} {:>10} {:>9.1} % {:>20} {:>11} {:>11} {messages:>9} {:>11}",
            seconds(self.time_s),
            100.0 * efficiency,
            grouped(most(&by_rank.visited)),
            bytes(most(&by_rank.sent_bytes)),
            bytes(most(&by_rank.received_bytes)),
            bytes(most(&by_rank.memory_bytes)),
        )
    }
}

impl ByRank {
    fn push(&mut self, rank: &RankCost, pass: Pass) {
        let cost = rank.pass(pass);
        self.kept.push(rank.kept);
        self.visited.push(rank.visited);
        self.sent_bytes.push(cost.sent_bytes);
        self.received_bytes.push(cost.received_bytes);
        self.sent_messages.push(cost.sent_messages);
        self.received_messages.push(cost.received_messages);
        self.memory_bytes.push(cost.memory_bytes);
        self.steps.push(cost.steps);
        self.longest_round_s.push(cost.longest_round_s);
        self.compute_s.push(cost.compute_s);
        self.time_s.push(cost.time_s);
    }
}

impl RanksExplained {
    fn print(&self) -> Result<()> {
        let Self { q, k, v, ranks, .. } = self;
        let dtype = match self.dtype == self.kv_dtype {
            true => self.dtype.to_owned(),
            false => format!("{}, k and v in {}", self.dtype, self.kv_dtype),
        };
        let waste = if self.kept == 0 { 1.0 } else { self.visited as f64 / self.kept as f64 };
        let lines = [
            ("pattern", self.pattern.to_string()),
            ("shape", format!("q {q:?}, k {k:?}, v {v:?} in {dtype}")),
            ("score", format!("{}{}", self.score, sizes_of(&self.score_tensors))),
            ("kept", format!("{} pairs", grouped(self.kept))),
            ("visited", format!("{} pairs, {waste:.3} x kept", grouped(self.visited))),
            ("build", seconds(self.build_s)),
            (
                "ranks",
                format!(
                    "{ranks}, {} TFLOP/s each, {} GB/s and {} us per message between any two",
                    self.flops_per_s / 1e12,
                    self.bytes_per_s / 1e9,
                    self.latency_s * 1e6
                ),
            ),
        ];
        lines.into_iter().try_for_each(|(name, value)| say!("{name:<11} {value}"))?;
        say!("\nof the rank that has most of each:")?;
        say!(
            "{:<9} {:<11} {:<7} {:>10} {:>11} {:>20} {:>11} {:>11} {:>9} {:>11}",
            "pass",
            "rows",
            "keys",
            "time",
            "efficiency",
            "visited",
            "sent",
            "received",
            "messages",
            "memory"
        )?;
        self.plans.iter().try_for_each(|plan| say!("{}", plan.line()))
    }
}

#[cfg(test)]
mod tests {
    use super::network;

    #[test]
    fn a_network_is_two_numbers() {
        let it = network("100, 2").expect("it is one");
        assert!((it.bytes_per_s, it.latency_s) == (100e9, 2e-6), "{it:?}");
        for text in ["100", "100,", "0,2", "-1,2", "inf,2", "100,-1", "100,nan", "100,2,3", ""] {
            let error = network(text).expect_err(text);
            assert!(error.contains("need GB/s and us") && error.ends_with(text), "{error}");
        }
    }
}
