//! A call whose tensors are those of a file: `run` and `weights`.

use crate::case::pattern_tensors;
use crate::distances::{self, DistanceArgs};
use crate::element::Dtype;
use crate::pattern;
use crate::score::{self, ScoreArgs, Terms};
use crate::shapes::attention_shape;
use crate::tensors::{self, Tensor, Tensors, wrong};
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use wgpu_attention::{AnyPattern, Attention, ElementType, Layout, Storage};

/// The call.
#[derive(Debug, Args)]
pub(super) struct FileCall {
    /// The pattern: short (`causal`, `window:before=511,after=0`, `causal & key_lengths:lengths=[40,64]`), as JSON
    /// (`{"kind": "window", "before": 511, "after": 0}`), or `@FILE`, which holds either
    #[arg(long, short, value_name = "PATTERN", value_parser = pattern::parse)]
    pattern: Option<AnyPattern>,
    /// The file with the tensors
    #[arg(long, short, value_name = "FILE")]
    pub(super) input: PathBuf,
    #[command(flatten)]
    score: ScoreArgs,
    #[command(flatten)]
    distances: DistanceArgs,
    /// Order of the axes of q, k, v and out
    #[arg(long, value_name = "AXES", default_value = "bhld")]
    layout: Axes,
    /// Element type of k and v on the device, to which they are rounded; that of the file unless given
    #[arg(long, value_name = "TYPE")]
    kv_dtype: Option<Dtype>,
}

/// A [`Layout`] as an argument.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Axes {
    /// [B, H, L, D].
    Bhld,
    /// [B, L, H, D].
    Blhd,
}

/// What was read, but for q, k and v.
pub(super) struct Job {
    pub(super) call: Attention,
    pub(super) pattern: AnyPattern,
    /// Tensors of the score.
    pub(super) terms: Terms,
    /// Of q.
    pub(super) axes: usize,
}

impl FileCall {
    /// The call of these bytes of the file; `out` is in the type of q unless given. Errors name the file.
    pub(super) fn job_of(&self, bytes: &[u8], out: Option<Dtype>) -> Result<Job> {
        self.named(Tensors::parse(bytes).and_then(|file| self.job(&file, &file.need("v")?, out)))
    }

    /// The pattern, which a call of attention needs.
    pub(super) fn pattern(&self) -> Result<&AnyPattern> {
        self.pattern.as_ref().context("--pattern: need one, got none")
    }

    /// The first option that was given although it says something of attention that LSH attention does not have, or that its file says.
    pub(super) fn not_for_lsh(&self) -> Option<&'static str> {
        let is_given = [
            ("--pattern", self.pattern.is_some()),
            ("--first-distance", self.distances.distances().is_some()),
            ("--layout", matches!(self.layout, Axes::Blhd)),
            ("--kv-dtype", self.kv_dtype.is_some()),
        ];
        let of_score = self.score.given();
        is_given.into_iter().find(|(_, given)| *given).map(|(name, _)| name).or(of_score)
    }

    /// The first option that was given although it says something of attention that linear attention and Linformer do not have.
    pub(super) fn not_for_linear(&self) -> Option<&'static str> {
        let is_given = [
            ("--pattern", self.pattern.is_some()),
            ("--first-distance", self.distances.distances().is_some()),
        ];
        let of_score = self.score.given();
        is_given.into_iter().find(|(_, given)| *given).map(|(name, _)| name).or(of_score)
    }

    /// An error that names the file.
    pub(super) fn named<T>(&self, read: Result<T>) -> Result<T> {
        read.with_context(|| self.input.display().to_string())
    }

    /// The same where v does not matter: of one element per key, and read from nowhere.
    pub(super) fn read_without_values(&self) -> Result<(Vec<u8>, Job)> {
        self.read_as(|file| {
            let mut job = self.job(file, &file.need("k")?, None)?;
            job.call.shape = job.call.shape.value_dim(1);
            Ok(job)
        })
    }

    fn read_as(&self, job: impl FnOnce(&Tensors<'_>) -> Result<Job>) -> Result<(Vec<u8>, Job)> {
        let bytes = tensors::read(&self.input)?;
        let job = self.named(Tensors::parse(&bytes).and_then(|file| job(&file)))?;
        Ok((bytes, job))
    }

    fn job(&self, file: &Tensors<'_>, v: &Tensor<'_>, out: Option<Dtype>) -> Result<Job> {
        let (call, terms, axes) = self.call_of(file, v, out)?;
        let shape = call.shape;
        let pattern = self.pattern()?.clone();
        note_unused(file, &pattern, &terms);
        let tensors = pattern_tensors(&pattern, file, &shape)?;
        let pattern = pattern.with_tensors(&tensors);
        distances::check_kept(self.distances.distances(), file, &call, &pattern, &terms)?;
        Ok(Job { call, pattern, terms, axes })
    }

    /// The call, the tensors of its score, and how many axes q has; `out` is in the type of q unless given.
    pub(super) fn call_of(
        &self,
        file: &Tensors<'_>,
        v: &Tensor<'_>,
        out: Option<Dtype>,
    ) -> Result<(Attention, Terms, usize)> {
        let layout = match self.layout {
            Axes::Bhld => Layout::Bhld,
            Axes::Blhd => Layout::Blhd,
        };
        let [q, k] = [file.need("q")?, file.need("k")?];
        let shape = attention_shape(&q, &k, v, layout)?;
        let kv = match (self.kv_dtype, k.element()?, v.element()?) {
            (Some(dtype), ..) => dtype.into(),
            (None, k, v) if k == v => k,
            (None, k, other) => return Err(wrong("v", format!("{k}, as k, or --kv-dtype"), other)),
        };
        let q_type = q.element()?;
        let out = out.map_or(q_type, ElementType::from);
        let (score, terms) =
            score::with_tensors(self.score.score(), self.distances.distances(), file, &shape)?;
        let call = shape.score(score).storage(Storage::all(q_type).kv(kv).out(out)).layout(layout);
        call.check()?;
        Ok((call, terms, q.shape.len()))
    }
}

/// Results and their gradients, as golden cases have them beside the inputs.
const RESULTS: [&str; 6] = ["out", "lse", "dout", "dq", "dk", "dv"];

/// Says which tensors of the file the call does not use, but for results.
fn note_unused(file: &Tensors<'_>, pattern: &AnyPattern, terms: &Terms) {
    for name in file.names() {
        let why = match name {
            "q" | "k" | "v" | "r" | "u" | "w" | "s" | "seg_embed" | "seg_q" | "seg_k" => continue,
            "alibi_slopes" | "distance_bias" => continue,
            _ if RESULTS.contains(&name) => continue,
            "mask" if pattern::uses(pattern, "mask") => continue,
            "layout" if pattern::uses(pattern, "blocks") => continue,
            "mask" => "the pattern has no `mask`",
            "layout" => "the pattern has no `blocks`",
            _ if terms.iter().any(|(term, _)| *term == name) => continue,
            "slopes" => "only --alibi=given takes slopes",
            _ if name.starts_with('d') && [score::TENSORS, score::ROWS].concat().contains(&&name[1..]) => {
                continue;
            }
            _ => "nothing of this name is known; see `run --help` for those that are",
        };
        eprintln!("note: the tensor `{name}` is not used: {why}");
    }
}
