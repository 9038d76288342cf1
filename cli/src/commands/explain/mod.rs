//! `explain`: what a plan will do and what it costs.

mod linear;
mod lsh;
mod ranks;
mod unless;

use super::sizes::CallArgs;
use crate::devices::{AdapterArgs, Device, PathArgs};
use crate::linear::LinearArgs;
use crate::output::{bytes, grouped, json_line, say, seconds};
use crate::pattern::{self, LoweringArgs};
use anyhow::{Context, Result};
use clap::Args;
use ranks::RankArgs;
use serde::Serialize;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Instant;
use unless::Unless;
use wgpu_attention::wgpu::DeviceType;
use wgpu_attention::wgsl::{GpuFamily, TileLimits};
use wgpu_attention::{AnyPattern, Attention, AttentionShape, ElementType, KernelPath, Parts, Schedule};

/// What a plan for a pattern will do and what it costs: pairs, memory, time to build, kernel path and why
///
/// On the best adapter, or the one that is named; without any, for a device with WebGPU's default limits. With --input, of a case of LSH
/// attention: pairs in chunks that see each other, their operations and those of the hash, scratch; that needs an adapter, and so do
/// --linear and --linformer: operations, beside those of all pairs, and scratch. With --ranks, of a sequence that several ranks hold:
/// pairs, messages, bytes, memory and time of the forward and the backward pass by rank, computed without any of them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wgpu-attention explain --pattern causal --len 1048576 --cpu-only
  wgpu-attention explain --pattern 'strided:stride=128,part=both' --len 16384 --heads 8 --head-dim 64 --dtype f16 --json
  wgpu-attention explain --linear elu --causal --len 65536 --heads 8
  wgpu-attention explain --linformer 256 --len 65536 --heads 8
  wgpu-attention explain --pattern causal --len 1048576 --heads 8 --head-dim 128 --dtype f16 --ranks 64 --network 100,2 --flops 100e12
  wgpu-attention explain --input golden/reformer_hf_lsh_s64_c16_h2.safetensors")]
pub(super) struct Explain {
    #[command(flatten)]
    call: Unless<Asked>,
    /// A file with a case of LSH attention, in place of a pattern and sizes
    #[arg(long, short, value_name = "FILE")]
    input: Option<PathBuf>,
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    path: PathArgs,
    /// Open no adapter: what a device with WebGPU's default limits would do
    #[arg(long, conflicts_with_all = ["adapter", "input"])]
    cpu_only: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// A call of attention without a file.
#[derive(Debug, Args)]
struct Asked {
    /// The pattern: short (`causal`, `window:before=511,after=0`, `causal & key_lengths:lengths=[40,64]`), as JSON
    /// (`{"kind": "window", "before": 511, "after": 0}`), or `@FILE`, which holds either
    #[arg(long, short, value_name = "PATTERN", value_parser = pattern::parse, conflicts_with_all = ["linear", "linformer"],
          required_unless_present_any = ["linear", "linformer", "input"])]
    pattern: Option<AnyPattern>,
    #[command(flatten)]
    linear: LinearArgs,
    /// Linformer, in place of a pattern: how many rows keys and values are projected to
    #[arg(long, value_name = "ROWS", conflicts_with = "linear")]
    linformer: Option<usize>,
    #[command(flatten)]
    call: CallArgs,
    #[command(flatten)]
    lowering: LoweringArgs,
    #[command(flatten)]
    ranks: RankArgs,
}

/// The answer. The names are part of the command line.
#[derive(Serialize)]
struct Explanation {
    pattern: Value,
    q: [usize; 4],
    k: [usize; 4],
    v: [usize; 4],
    dtype: &'static str,
    /// Of k and v.
    kv_dtype: &'static str,
    /// The terms of the score; `plain` without any.
    score: String,
    /// What the caller gives for them.
    score_tensors: Vec<ScoreTensor>,
    /// Passes of the kernel, each over pairs of its own.
    parts: usize,
    /// Attended pairs, over all batch items and heads.
    kept: u64,
    /// Pairs in the blocks that the kernel computes.
    visited: u64,
    /// visited / kept.
    waste: f64,
    /// The mask on the device.
    mask_bytes: u64,
    /// What a call allocates beside the user's tensors.
    scratch_bytes: u64,
    /// From the pattern to the mask, on the CPU.
    build_s: f64,
    /// Floating-point operations on the kept pairs, with those of relative rows.
    useful_flops: f64,
    /// The same on the visited pairs.
    visited_flops: f64,
    path: String,
    why: String,
    /// Workgroups that share a row tile's keys.
    splits: usize,
    /// Queries and keys of a workgroup's tile, and its lanes.
    tile: [usize; 3],
    tile_why: String,
    workgroup_bytes: usize,
    /// None without an adapter, like the two below.
    dispatches: Option<usize>,
    /// Workgroups of all dispatches, merging aside.
    workgroups: Option<u64>,
    /// On devices of other kinds, whose speed is estimated.
    dispatches_elsewhere: Option<Elsewhere>,
    adapter: Option<String>,
    /// Where much more is visited than kept: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// A tensor that a term of the score needs, f32.
#[derive(Serialize)]
struct ScoreTensor {
    name: &'static str,
    elements: usize,
}

fn score_tensors(call: &Attention) -> Vec<ScoreTensor> {
    let tensors = call.score.tensors(&call.shape).into_iter();
    tensors.map(|tensor| ScoreTensor { name: tensor.name, elements: tensor.len }).collect()
}

/// `; relative_rows 64.0 KiB`: of each tensor that the caller gives for the score.
fn sizes_of(tensors: &[ScoreTensor]) -> String {
    let size = |it: &ScoreTensor| bytes((it.elements * ElementType::F32.size_bytes()) as u64);
    tensors.iter().map(|it| format!("; {} {}", it.name, size(it))).collect()
}

/// Dispatches of the same workgroups.
#[derive(Serialize)]
struct Elsewhere {
    discrete_gpu: usize,
    integrated_gpu: usize,
}

impl Explain {
    /// Always all is well, or an error.
    pub(super) fn run(&self) -> Result<bool> {
        match &self.call.0 {
            Some(asked) => self.asked(asked),
            None => self.lsh(self.input.as_deref().context("--input: need a file, got none")?),
        }
    }

    fn asked(&self, asked: &Asked) -> Result<bool> {
        match (asked.linear.options(), asked.linformer, &asked.pattern) {
            (Some(options), ..) => self.linear(asked, options),
            (_, Some(projected), _) => self.linformer(asked, projected),
            (.., pattern) => {
                let pattern = pattern.as_ref().context("--pattern: need one, got none")?;
                match asked.ranks.asked() {
                    Some(ranks) => self.ranks(asked, pattern, ranks),
                    None => self.attention(asked, pattern),
                }
            }
        }
    }

    fn attention(&self, asked: &Asked, pattern: &AnyPattern) -> Result<bool> {
        let call = asked.call.attention();
        call.check()?;
        let start = Instant::now();
        let parts = asked.lowering.parts(pattern, asked.call.sizes.grid())?;
        let build_s = start.elapsed().as_secs_f64();
        let device = if self.cpu_only { None } else { self.adapter.best()? };
        let explanation = match &device {
            Some(device) => self.on_device(device, &call, &parts)?,
            None => self.on_paper(&call, &parts)?,
        };
        // Patterns are made of texts, numbers and lists: they are JSON.
        let pattern = serde_json::to_value(pattern).unwrap_or_default();
        let note = parts.note().map(Into::into);
        let explanation = Explanation { pattern, build_s, note, ..explanation };
        if self.json {
            json_line(&explanation)?
        } else {
            explanation.print()?
        }
        Ok(true)
    }

    /// What the plan itself says.
    fn on_device(&self, device: &Device, call: &Attention, parts: &Parts) -> Result<Explanation> {
        let gpu = device.open(self.path)?;
        let plan = gpu.kernels().attention_parts(call, parts)?;
        let said = plan.explain();
        Ok(Explanation {
            parts: said.parts,
            mask_bytes: said.mask_bytes,
            scratch_bytes: said.scratch_bytes,
            splits: said.splits,
            path: said.choice.path.to_string(),
            why: said.choice.why.clone(),
            tile: [said.tile.rows(), said.tile.keys(), said.tile.lanes()],
            tile_why: said.tile_why.clone(),
            workgroup_bytes: said.workgroup_bytes,
            dispatches: Some(said.dispatches),
            workgroups: Some(said.workgroups),
            dispatches_elsewhere: Some(Elsewhere {
                discrete_gpu: said.dispatches_on(DeviceType::DiscreteGpu),
                integrated_gpu: said.dispatches_on(DeviceType::IntegratedGpu),
            }),
            adapter: Some(device.info.name.clone()),
            ..counted(call, said.kept, said.visited)
        })
    }

    /// What a plan on a device with default limits would say.
    fn on_paper(&self, call: &Attention, parts: &Parts) -> Result<Explanation> {
        let schedule = Schedule::new(call, parts, TileLimits::WEBGPU, None, None)?;
        let tile = schedule.tiles[0];
        Ok(Explanation {
            parts: parts.parts().len(),
            mask_bytes: parts.bytes(),
            scratch_bytes: schedule.scratch_bytes.iter().sum(),
            splits: schedule.splits,
            path: KernelPath::Scalar.to_string(),
            why: "no adapter was asked; this one runs on every device with WebGPU's default limits".into(),
            tile: [tile.rows(), tile.keys(), tile.lanes()],
            tile_why: format!("for {}: {}", GpuFamily::Any, GpuFamily::Any.why()),
            workgroup_bytes: tile.workgroup_bytes(call.shape.head_dim),
            ..counted(call, parts.kept(), parts.visited())
        })
    }
}

/// The numbers of pairs and what follows from them; the rest is left empty.
fn counted(call: &Attention, kept: u64, visited: u64) -> Explanation {
    let shape = &call.shape;
    let AttentionShape { batch, heads, kv_heads, q_len, kv_len, head_dim, value_dim, .. } = *shape;
    Explanation {
        pattern: Value::Null,
        q: [batch, heads, q_len, head_dim],
        k: [batch, kv_heads, kv_len, head_dim],
        v: [batch, kv_heads, kv_len, value_dim],
        dtype: call.storage.q.name(),
        kv_dtype: call.storage.kv.name(),
        score: call.score.to_string(),
        score_tensors: score_tensors(call),
        parts: 0,
        kept,
        visited,
        waste: if kept == 0 { 1.0 } else { visited as f64 / kept as f64 },
        mask_bytes: 0,
        scratch_bytes: 0,
        splits: 1,
        build_s: 0.0,
        useful_flops: call.flops(kept),
        visited_flops: call.flops(visited),
        path: String::new(),
        why: String::new(),
        tile: [0; 3],
        tile_why: String::new(),
        workgroup_bytes: 0,
        dispatches: None,
        workgroups: None,
        dispatches_elsewhere: None,
        adapter: None,
        note: None,
    }
}

impl Explanation {
    fn print(&self) -> Result<()> {
        let Self { q, k, v, tile: [rows, keys, lanes], .. } = self;
        let dispatches = match (self.dispatches, self.workgroups, &self.dispatches_elsewhere) {
            (Some(here), Some(workgroups), Some(Elsewhere { discrete_gpu, integrated_gpu })) => format!(
                "{here} of {} workgroups in all; by estimate {discrete_gpu} on a discrete GPU, {integrated_gpu} on an integrated one",
                grouped(workgroups)
            ),
            _ => "depends on the device".into(),
        };
        let adapter = self.adapter.as_deref().unwrap_or("none: for WebGPU's default limits");
        let dtype = match self.dtype == self.kv_dtype {
            true => self.dtype.to_owned(),
            false => format!("{}, k and v in {}", self.dtype, self.kv_dtype),
        };
        let lines = [
            ("pattern", self.pattern.to_string()),
            ("shape", format!("q {q:?}, k {k:?}, v {v:?} in {dtype}")),
            ("score", format!("{}{}", self.score, sizes_of(&self.score_tensors))),
            ("parts", self.parts.to_string()),
            ("kept", format!("{} pairs, {:.4} GFLOP", grouped(self.kept), self.useful_flops / 1e9)),
            ("visited", format!("{} pairs, {:.3} x kept", grouped(self.visited), self.waste)),
            ("mask", bytes(self.mask_bytes)),
            ("scratch", bytes(self.scratch_bytes)),
            ("build", seconds(self.build_s)),
            ("path", format!("{}: {}", self.path, self.why)),
            (
                "tile",
                format!(
                    "{rows} queries by {keys} keys, {lanes} lanes, {}; {}",
                    bytes(self.workgroup_bytes as u64),
                    self.tile_why
                ),
            ),
            ("splits", format!("{} of the keys", self.splits)),
            ("dispatches", dispatches),
            ("adapter", adapter.into()),
        ];
        let note = self.note.iter().map(|note| ("note", note.clone()));
        lines.into_iter().chain(note).try_for_each(|(name, value)| say!("{name:<11} {value}"))
    }
}
