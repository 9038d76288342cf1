//! A call whose tensors are those of a file: `run` and `weights`.

use crate::case::pattern_tensors;
use crate::distances::DistanceArgs;
use crate::element::Dtype;
use crate::pattern::{self, PatternArgs};
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
    #[command(flatten)]
    pub(super) pattern: PatternArgs,
    /// The file with the tensors
    #[arg(long, short, value_name = "FILE")]
    input: PathBuf,
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
    /// The file's bytes, and the call; `out` is in the type of q unless given. Errors name the file.
    pub(super) fn read(&self, out: Option<Dtype>) -> Result<(Vec<u8>, Job)> {
        self.read_as(|file| self.job(file, &file.need("v")?, out))
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
        let job = Tensors::parse(&bytes).and_then(|file| job(&file));
        let job = job.with_context(|| self.input.display().to_string())?;
        Ok((bytes, job))
    }

    fn job(&self, file: &Tensors<'_>, v: &Tensor<'_>, out: Option<Dtype>) -> Result<Job> {
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
        let pattern = self.pattern.pattern.clone();
        note_unused(file, &pattern, &terms);
        let tensors = pattern_tensors(&pattern, file, &shape)?;
        let pattern = pattern.with_tensors(&tensors);
        Ok(Job { call, pattern, terms, axes: q.shape.len() })
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
