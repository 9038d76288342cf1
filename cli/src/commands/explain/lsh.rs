//! What LSH attention of a case costs.

use super::{Explain, ScoreTensor, score_tensors, sizes_of};
use crate::case::LshCall;
use crate::output::{bytes, grouped, json_line, say};
use crate::{devices, tensors};
use anyhow::{Context, Result};
use serde::Serialize;
use std::path::Path;
use wgpu_attention::{AttentionShape, Storage};

/// The answer. The names are part of the command line.
#[derive(Serialize)]
struct LshExplained {
    op: &'static str,
    qk: [usize; 4],
    v: [usize; 4],
    dtype: &'static str,
    score: String,
    score_tensors: Vec<ScoreTensor>,
    rounds: usize,
    /// The factors of their number.
    buckets: Vec<usize>,
    chunk: usize,
    /// Of places in chunks that see each other, over all rounds, heads and batch items.
    pairs: u64,
    flops: f64,
    hash_flops: f64,
    /// Without that of the sort.
    scratch_bytes: u64,
    /// Queries and keys of a workgroup's tile, and its lanes.
    tile: [usize; 3],
    adapter: String,
}

impl Explain {
    /// Of the case in this file.
    pub(super) fn lsh(&self, input: &Path) -> Result<bool> {
        let case = LshCall::of_file(&tensors::read(input)?).and_then(|case| {
            case.context("need a case of LSH attention, got none: say --pattern and --len of other attention")
        });
        let case = case.with_context(|| input.display().to_string())?;
        let element = case.element().with_context(|| input.display().to_string())?;
        let device = self.adapter.best()?.ok_or_else(devices::none_there)?;
        let call = case.attention.storage(Storage::all(element));
        let plan = device.open(self.path)?.kernels().lsh(&call, case.options.clone())?;
        let (said, options) = (plan.explain(), plan.options());
        let AttentionShape { batch, heads, q_len, head_dim, value_dim, .. } = call.shape;
        let explained = LshExplained {
            op: crate::case::LSH,
            qk: [batch, heads, q_len, head_dim],
            v: [batch, heads, q_len, value_dim],
            dtype: element.name(),
            score: call.score.to_string(),
            score_tensors: score_tensors(&call),
            rounds: options.rounds,
            buckets: options.buckets.clone(),
            chunk: options.chunk,
            pairs: said.pairs,
            flops: said.flops,
            hash_flops: said.hash_flops,
            scratch_bytes: said.scratch_bytes,
            tile: [said.tile.rows(), said.tile.keys(), said.tile.lanes()],
            adapter: device.info.name.clone(),
        };
        if self.json {
            json_line(&explained)?
        } else {
            explained.print()?
        }
        Ok(true)
    }
}

impl LshExplained {
    fn print(&self) -> Result<()> {
        let Self { qk, v, dtype, rounds, chunk, tile: [rows, keys, lanes], .. } = self;
        let lines = [
            ("shape", format!("qk {qk:?}, v {v:?} in {dtype}")),
            ("score", format!("{}{}", self.score, sizes_of(&self.score_tensors))),
            (
                "hash",
                format!("{rounds} rounds, {:?} buckets, {:.3} MFLOP", self.buckets, self.hash_flops / 1e6),
            ),
            ("chunk", format!("{chunk} places")),
            ("pairs", format!("{}, {:.3} MFLOP", grouped(self.pairs), self.flops / 1e6)),
            ("scratch", format!("{}, and that of the sort", bytes(self.scratch_bytes))),
            ("tile", format!("{rows} queries by {keys} keys, {lanes} lanes")),
            ("adapter", self.adapter.clone()),
        ];
        lines.into_iter().try_for_each(|(name, value)| say!("{name:<11} {value}"))
    }
}
