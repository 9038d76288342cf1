//! What `bench` writes: one JSON file per run, with every raw sample.
//!
//! The types are the schema; `bench --schema` prints it, and `schema/` keeps it. Units: seconds, bytes, floating-point operations (an fma is two), and those per second.
//! A number that has no finite value is `null`. A field that is left out where it has nothing to say may come to a format, and a word to a
//! list of words: records without it stay what they were, and programs that do not know it refuse the others by its name. Any other change is another [`FORMAT`].

#[cfg(test)]
mod tests;

use anyhow::{Context, Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of the schema.
pub const FORMAT: u32 = 1;

/// One run of `bench`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The version of this schema.
    pub format: u32,
    /// Version of `wgpu-attention`.
    pub version: String,
    /// When the run began: RFC 3339, UTC.
    pub date: String,
    /// `quick`, `standard`, `full`, `crossover` or `predictions`.
    pub suite: String,
    /// Only cases with this in their name, or in the text of their score, where it was given.
    pub filter: Option<String>,
    /// Every case is there; false while the run goes on, and after an interruption.
    pub complete: bool,
    /// The machine around the adapters.
    pub host: Host,
    /// When a measurement ends, and what is flagged.
    pub rules: Rules,
    /// How FLOP, bytes and percents are counted.
    pub models: Vec<Model>,
    /// Each with its cases.
    pub adapters: Vec<Adapter>,
}

/// The machine around the adapters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// The operating system, or the browser.
    pub os: String,
    /// The architecture that the program was compiled for.
    pub arch: String,
    /// The brand of the CPU, where it is told.
    pub cpu: String,
    /// Threads that run at the same time.
    pub threads: usize,
}

/// When a measurement ends, and what is flagged.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// Samples at least.
    pub min_samples: usize,
    /// Seconds of a measurement with hot caches at least; cold: a third.
    pub min_s: f64,
    /// Seconds of a measurement with hot caches at most; cold: a third. What has not converged by then is unconverged.
    pub max_s: f64,
    /// Median absolute deviation / median at which a measurement has converged.
    pub deviation: f64,
    /// Relative difference of the two clocks past which they disagree.
    pub clocks: f64,
    /// Relative change of a ceiling past which the run drifted.
    pub drift: f64,
    /// Bytes overwritten before each call with cold caches, if a binding may have so many; with 0 there are no such calls.
    pub cold_bytes: u64,
    /// Seconds of a call at most, as shorter cases of its kind let expect it: what would take longer is not run. Left out where all is run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most_call_s: Option<f64>,
    /// Seconds on an adapter after which no further case is begun. Left out where all are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most_run_s: Option<f64>,
}

/// A quantity and its formula.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// What is counted, of which kernels.
    pub name: String,
    /// How it is counted.
    pub formula: String,
}

/// One adapter and all that ran on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Adapter {
    /// Its place in `wgpu-attention adapters`.
    pub index: usize,
    /// As the driver gives it.
    pub name: String,
    /// `DiscreteGpu`, `IntegratedGpu`, `Cpu`, ...
    pub kind: String,
    /// Vulkan, Metal, Dx12, Gl or BrowserWebGpu.
    pub backend: String,
    /// Its name and version.
    pub driver: String,
    /// PCI ids; 0 where the backend does not tell.
    pub vendor: u32,
    /// The PCI device's number.
    pub device: u32,
    /// What it has, not what the kernels ask for.
    pub limits: Limits,
    /// Names of the features that the adapter has, whether or not they are used.
    pub features: Vec<String>,
    /// Why it could not be used, or not to the end; the cases that were not done say it too.
    pub error: Option<String>,
    /// Why pass timestamps were not used, where they were not.
    pub no_timestamps: Option<String>,
    /// What it can reach.
    pub ceilings: Vec<Ceiling>,
    /// A ceiling changed by more than the rules allow: the figures of this run are not comparable.
    pub drifted: bool,
    /// In the order of the suite.
    pub cases: Vec<Case>,
}

/// The limits that the kernels meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes.
    pub max_buffer_size: u64,
    /// Bytes.
    pub max_storage_buffer_binding_size: u64,
    /// Bytes.
    pub max_compute_workgroup_storage_size: u32,
    /// Invocations.
    pub max_compute_invocations_per_workgroup: u32,
    /// Workgroups.
    pub max_compute_workgroups_per_dimension: u32,
    /// Lanes.
    pub subgroup_min_size: u32,
    /// Lanes.
    pub subgroup_max_size: u32,
}

/// What is measured to compare kernels with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CeilingKind {
    /// Independent chains of fma in f32, FLOP/s.
    FmaF32,
    /// The same in f16 vectors of two.
    FmaF16,
    /// Products on the matrix units, f16 with f32 sums, FLOP/s.
    MatrixF16,
    /// One buffer into another, bytes read and written a second.
    Copy,
    /// A buffer summed up, bytes/s.
    Read,
    /// Workgroup memory read, bytes/s of all workgroups together.
    Workgroup,
    /// One more dispatch of an empty kernel, seconds.
    Launch,
}

/// A ceiling, measured before and after the cases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ceiling {
    /// Which one.
    pub kind: CeilingKind,
    /// None where it could not be measured (`why`).
    pub before: Option<Probe>,
    /// None where it could not be measured, or the run was interrupted.
    pub after: Option<Probe>,
    /// after / before - 1.
    pub drift: Option<f64>,
    /// Why it could not be measured.
    pub why: Option<String>,
}

/// One measurement of a ceiling. Its microkernel's output was compared with what it must be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// FLOP/s, bytes/s, or seconds (of a launch): of the least time, as a ceiling is what can be reached.
    pub value: f64,
    /// FLOP or bytes of one call.
    pub work: f64,
    /// Its times.
    pub timing: Timing,
}

/// Test and benchmark in one: verified, then timed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Unique in a run, and the same in every run: what `compare` matches by.
    pub name: String,
    /// The published workload that this is, where it is one: `BERT-base`, ...
    pub known_as: Option<String>,
    /// Which kernel.
    pub kernel: Kernel,
    /// The short name of the pattern (attention, and a layer around it): `causal`, `bigbird`, ...; of linear attention that of the feature map, of
    /// a recurrent network that of its cell, of decoding how the cache is stored.
    pub pattern: Option<String>,
    /// The pattern as `--pattern` takes it; the end of a long one is cut off (`…`).
    pub pattern_text: Option<String>,
    /// The short name of the score (attention only): `alibi`, `txl`, ... Left out of plain scores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<String>,
    /// The score as `--score` takes it, with its sizes; a term of one's own by its name alone. Left out of plain scores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score_text: Option<String>,
    /// The kernel path that the plan chose; none before it was planned.
    pub path: Option<String>,
    /// The names of the shaders that a call runs, of the kernels whose speed is predicted. Left out of others, and before it was planned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shaders: Vec<String>,
    /// `f32`, `f16` or `bf16`.
    pub dtype: String,
    /// Its sizes.
    pub shape: Shape,
    /// Forward, the gradients, or both.
    pub direction: Direction,
    /// What became of it.
    pub status: Status,
    /// Why it failed, or cannot run.
    pub why: Option<String>,
    /// None where it did not come to that.
    pub verification: Option<Verification>,
    /// What a call costs, counted.
    pub cost: Option<Cost>,
    /// The same buffers call after call.
    pub hot: Option<Timing>,
    /// A large buffer is overwritten before each call.
    pub cold: Option<Timing>,
    /// What the times mean, with hot caches.
    pub rates: Option<Rates>,
}

/// A kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "their names say it, and in the schema they stay a plain list")]
pub enum Kernel {
    Attention,
    Lsh,
    Linear,
    Linformer,
    Decode,
    Block,
    Matmul,
    FeedForward,
    Recurrent,
    LayerNorm,
    RmsNorm,
    Softmax,
    Rotary,
    Embed,
    Add,
}

/// A direction; both: a forward call and its gradients, as a step of training has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "their names say it, and in the schema they stay a plain list")]
pub enum Direction {
    Forward,
    Backward,
    Both,
}

/// Sizes, in elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "of", rename_all = "snake_case", deny_unknown_fields)]
#[allow(missing_docs, reason = "sizes, named as in the shapes of the library")]
pub enum Shape {
    /// Attention, also LSH, linear attention, Linformer and decoding.
    Attention {
        batch: usize,
        heads: usize,
        kv_heads: usize,
        q_len: usize,
        kv_len: usize,
        head_dim: usize,
        value_dim: usize,
    },
    /// A layer around attention.
    Block {
        positions: usize,
        model_dim: usize,
        heads: usize,
        hidden_dim: usize,
    },
    /// `[rows, inner]` times `[inner, columns]`.
    Matmul {
        rows: usize,
        inner: usize,
        columns: usize,
    },
    FeedForward {
        rows: usize,
        model_dim: usize,
        hidden_dim: usize,
        gated: bool,
    },
    /// One layer in one direction.
    Recurrent {
        batch: usize,
        steps: usize,
        input: usize,
        hidden: usize,
    },
    /// Norms, softmax, rotary, embed, add.
    Rows {
        rows: usize,
        width: usize,
    },
}

/// What became of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Verified, and timed until its samples agreed.
    Measured,
    /// Verified and timed, but the samples did not agree in the time there was.
    Unconverged,
    /// An element is out of its bound, or computing failed: never timed.
    Failed,
    /// This adapter cannot run it.
    CannotRun,
    /// A call, or the run, would take longer than the rules allow (`why`).
    NotRun,
    /// The run ended before it was done.
    Interrupted,
}

/// The output against the f64 reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verification {
    /// Whether every element compared is within its bound.
    pub pass: bool,
    /// Rows compared, of how many.
    pub rows: usize,
    /// Rows that there are.
    pub of_rows: usize,
    /// The largest |error| / bound; above 1 fails. None where an element is not finite.
    pub worst_ratio: Option<f64>,
    /// That element.
    pub worst_error: Option<f64>,
    /// The bound of that element.
    pub worst_bound: Option<f64>,
    /// Where it is: `out[0, 3, 17, 4]`.
    pub worst_at: Option<String>,
}

/// What one call costs, by the models of the record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// FLOP on the pairs that the pattern keeps: what of a score is counted, the models say.
    pub useful_flop: f64,
    /// FLOP on the pairs that the kernel visits.
    pub executed_flop: f64,
    /// Bytes that must move if every tensor moves once.
    pub bytes: f64,
    /// Bytes on the device: tensors, masks, scratch.
    pub memory_bytes: u64,
    /// Of these, masks and orders.
    pub mask_bytes: u64,
    /// Of these, scratch.
    pub scratch_bytes: u64,
    /// Pairs that the pattern keeps, over all heads and batch items (attention only).
    pub kept_pairs: Option<u64>,
    /// Pairs in the blocks that the kernel visits.
    pub visited_pairs: Option<u64>,
    /// visited / kept (attention only).
    pub block_waste: Option<f64>,
    /// Dispatches of a call.
    pub dispatches: usize,
}

/// What the median time of a call means.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// Median seconds of a call: of the timestamps where they are sound, else of the wall clock.
    pub time_s: f64,
    /// Useful operations per second.
    pub useful_flop_s: f64,
    /// Executed operations per second.
    pub executed_flop_s: f64,
    /// Bytes per second.
    pub bytes_s: f64,
    /// 100 x (time at the ceilings / time): never clamped. None where a ceiling is missing.
    pub roofline_percent: Option<f64>,
    /// The ceiling that binds.
    pub bound_by: Option<CeilingKind>,
    /// 100 x executed FLOP/s / fma peak.
    pub peak_percent: Option<f64>,
}

/// Samples of one call's time, by two clocks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// The samples of the deciding clock agree: timestamps where they are sound, else the wall clock.
    pub converged: bool,
    /// Seconds of warm-up, and its calls.
    pub warm_up_s: f64,
    /// Calls before the first sample.
    pub warm_up_calls: usize,
    /// Seconds of measurement.
    pub spent_s: f64,
    /// Calls that the longer submission of a sample has more than the shorter one.
    pub calls: usize,
    /// The wall clock: (longer - shorter submission) / calls. Cold: the shorter one only overwrites.
    pub wall: Clock,
    /// Pass timestamps, the mean of a sample's calls. None where they are missing or not sound (`unsound`).
    pub timestamps: Option<Clock>,
    /// Why the timestamps of this measurement were dropped.
    pub unsound: Option<String>,
    /// wall / timestamps - 1, of the medians.
    pub clock_difference: Option<f64>,
    /// The difference is more than the rules allow.
    pub clocks_disagree: bool,
}

/// One clock's samples, in the order in which they were taken: seconds of a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Clock {
    /// Each the mean of a run of calls.
    pub samples_s: Vec<f64>,
    /// Of the samples.
    pub summary: Summary,
}

/// Statistics of samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// The fastest sample.
    pub min_s: f64,
    /// The middle of the samples.
    pub median_s: f64,
    /// Median absolute deviation from the median, as it is (not scaled to a standard deviation).
    pub mad_s: f64,
    /// 95 % of the samples are at most this.
    pub p95_s: f64,
}

impl Record {
    /// Reads a file's text. Another format is an error that says so, and so are times that are none.
    pub fn parse(text: &str) -> Result<Self> {
        /// The field that is there in every format.
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } =
            serde_json::from_str(text).context("need the JSON of `wgpu-attention bench`")?;
        ensure!(format == FORMAT, "need a benchmark record of format {FORMAT}, got format {format}");
        let record: Self =
            serde_json::from_str(text).with_context(|| format!("a benchmark record of format {format}"))?;
        record.check()?;
        Ok(record)
    }

    /// The JSON schema of the file, as text.
    pub fn schema() -> Result<String> {
        Ok(serde_json::to_string_pretty(&schemars::schema_for!(Self))? + "\n")
    }

    /// The file's text, indented, one line at the end.
    pub fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

impl Kernel {
    /// As the JSON has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Attention => "attention",
            Self::Lsh => "lsh",
            Self::Linear => "linear",
            Self::Linformer => "linformer",
            Self::Decode => "decode",
            Self::Block => "block",
            Self::Matmul => "matmul",
            Self::FeedForward => "feed_forward",
            Self::Recurrent => "recurrent",
            Self::LayerNorm => "layer_norm",
            Self::RmsNorm => "rms_norm",
            Self::Softmax => "softmax",
            Self::Rotary => "rotary",
            Self::Embed => "embed",
            Self::Add => "add",
        }
    }
}

impl Timing {
    /// The clock that decides: timestamps where they are sound, else the wall clock.
    pub fn clock(&self) -> &Clock {
        self.timestamps.as_ref().unwrap_or(&self.wall)
    }
}

impl Shape {
    /// What lengths are plotted by: keys of a sequence, or rows.
    pub fn length(&self) -> usize {
        match *self {
            Self::Attention { kv_len, .. } => kv_len,
            Self::Block { positions, .. } => positions,
            Self::Recurrent { steps, .. } => steps,
            Self::Matmul { rows, .. } | Self::FeedForward { rows, .. } | Self::Rows { rows, .. } => rows,
        }
    }
}
