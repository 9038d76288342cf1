//! `run`: attention over tensors from a file.

use crate::case::{pattern_tensors, with_bias};
use crate::devices::{self, AdapterArgs, PathArgs};
use crate::element::Dtype;
use crate::output::{check_writable, say, write_whole};
use crate::pattern::{self, LoweringArgs, PatternArgs};
use crate::progress::Progress;
use crate::shapes::{attention_shape, like_q};
use crate::tensors::{self, Output, Tensors};
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use pollster::block_on;
use std::collections::HashMap;
use std::path::PathBuf;
use wgpu_attention::reference::{self, Report, Rows};
use wgpu_attention::{
    AnyPattern, AttentionOutput, AttentionShape, BlockGrid, Element, ElementType, KernelPath, Layout, Parts,
};
use wgpu_attention_bench::call::Call;
use wgpu_attention_bench::check::{Against, check, place, worst};
use wgpu_attention_bench::typed;

/// Attention over the tensors of a safetensors file, on the GPU
///
/// The file holds q [B, H, Lq, D], k [B, Hkv, Lk, D] and v [B, Hkv, Lk, Dv] in f32, f16 or bf16 (without batch, or without batch
/// and heads, where those are 1); optionally `bias`, broadcast over [B, H, Lq, Lk] and added to the scores; and, where the
/// pattern has `mask` or `blocks` without values of their own, `mask` or `layout`. The result is written as a whole or not at
/// all: `out` with the axes of q, and `lse` [B, H, Lq] on request.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wgpu-attention run --pattern causal --input qkv.safetensors --output o.safetensors --check
  wgpu-attention run --pattern 'window:before=511,after=0' --input qkv.safetensors --output o.safetensors --lse --output-type f32")]
pub(super) struct Run {
    #[command(flatten)]
    pattern: PatternArgs,
    /// The file with q, k and v
    #[arg(long, short, value_name = "FILE")]
    input: PathBuf,
    /// The file to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Also write the log-sum-exp of each row
    #[arg(long)]
    lse: bool,
    /// Factor of q . k; 1 / sqrt(D) unless given
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    scale: Option<f32>,
    /// Cap the scores: C tanh(score / C), before the bias
    #[arg(long, value_name = "C", allow_negative_numbers = true)]
    softcap: Option<f32>,
    /// Add ALiBi's slopes to the scores
    #[arg(long)]
    alibi: bool,
    /// Order of the axes of q, k, v and out
    #[arg(long, value_name = "AXES", default_value = "bhld")]
    layout: Axes,
    /// Element type of out; that of q unless given
    #[arg(long, value_name = "TYPE")]
    output_type: Option<Dtype>,
    /// Compare rows of the result with the f64 reference before it is written; exit status 1 if one is out of its bound
    #[arg(long)]
    check: bool,
    /// Rows that --check compares: the first and last, block edges, and random ones
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..))]
    check_rows: u64,
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    path: PathArgs,
    #[command(flatten)]
    lowering: LoweringArgs,
    /// No progress on stderr
    #[arg(long, short)]
    quiet: bool,
}

/// A [`Layout`] as an argument.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Axes {
    /// [B, H, L, D].
    Bhld,
    /// [B, L, H, D].
    Blhd,
}

/// What was read.
struct Job {
    shape: AttentionShape,
    pattern: AnyPattern,
    bias: Option<Vec<f32>>,
    /// Of q.
    axes: usize,
}

impl Run {
    /// All is well unless the check fails.
    pub(super) fn run(&self) -> Result<bool> {
        check_writable(&self.output)?;
        let mut progress = Progress::new(if self.check { 7 } else { 6 }, self.quiet);
        let (bytes, job) = progress.step("read", || {
            let bytes = tensors::read(&self.input)?;
            let job = Tensors::parse(&bytes).and_then(|file| self.job(&file));
            let job = job.with_context(|| self.input.display().to_string())?;
            Ok((bytes, job))
        })?;
        let file = Tensors::parse(&bytes)?;
        typed!(job.shape.input, I => typed!(job.shape.output, O => self.run_typed::<I, O>(&file, &job, &mut progress)))
    }

    /// The shape of the call and all but q, k and v.
    fn job(&self, file: &Tensors<'_>) -> Result<Job> {
        let layout = match self.layout {
            Axes::Bhld => Layout::Bhld,
            Axes::Blhd => Layout::Blhd,
        };
        let q = file.need("q")?;
        let mut shape = attention_shape(&q, &file.need("k")?, &file.need("v")?, layout)?.alibi(self.alibi);
        (shape.scale, shape.softcap) = (self.scale, self.softcap);
        shape.output = self.output_type.map_or(shape.input, ElementType::from);
        let bias = file.find("bias").map(|bias| with_bias(&mut shape, &bias)).transpose()?;
        shape.check()?;
        let pattern = self.pattern.pattern.clone();
        for (name, kind) in [("mask", "mask"), ("layout", "blocks")] {
            if file.find(name).is_some() && !pattern::uses(&pattern, kind) {
                eprintln!("note: the tensor `{name}` is not used: the pattern has no `{kind}`");
            }
        }
        let pattern = pattern.with_tensors(&pattern_tensors(file, &shape)?);
        Ok(Job { shape, pattern, bias, axes: q.shape.len() })
    }

    fn run_typed<I: Element, O: Element>(
        &self,
        file: &Tensors<'_>,
        job: &Job,
        progress: &mut Progress,
    ) -> Result<bool> {
        let shape = &job.shape;
        let tensors = reference::Tensors::<I> {
            q: file.need("q")?.elements()?,
            k: file.need("k")?.elements()?,
            v: file.need("v")?.elements()?,
            bias: job.bias.clone(),
        };
        let parts = progress
            .step("build mask", || Ok(self.lowering.parts(&job.pattern, BlockGrid::from(shape))?))?;
        let (output, adapter, path) = self.compute::<I, O>(job, &tensors, &parts, progress)?;
        if self.check {
            let report = progress.step("check", || {
                let rows = Rows::Sample { count: self.check_rows as usize, seed: 0 };
                let pattern = (&job.pattern as _, Some((&parts, path)));
                Ok(check(shape, &tensors.inputs(), pattern, &output, rows, Against::Reference)?)
            })?;
            say!("{}", summary(&report))?;
            if !report.pass {
                eprintln!("error: the result is out of its bound; {} was not written", self.output.display());
                return Ok(false);
            }
        }
        progress.step("write", || self.write(job, &output, adapter))?;
        Ok(true)
    }

    /// On the GPU; also the adapter's name, and the kernel's.
    fn compute<I: Element, O: Element>(
        &self,
        job: &Job,
        tensors: &reference::Tensors<I>,
        parts: &Parts,
        progress: &mut Progress,
    ) -> Result<(AttentionOutput<O>, String, KernelPath)> {
        let (gpu, plan) = progress.step("compile", || {
            let device = self.adapter.best()?.ok_or_else(devices::none_there)?;
            let gpu = device.open(self.path)?;
            let plan = gpu.kernels().attention(&job.shape, parts)?;
            Ok((gpu, plan))
        })?;
        let (name, path) = (gpu.info().name.clone(), plan.path().path);
        if job.shape.is_empty() {
            progress.step("upload", || Ok(()))?;
            progress.step("compute", || Ok(()))?;
            return Ok((AttentionOutput { out: vec![], lse: vec![] }, name, path));
        }
        // The check looks at lse as well.
        let lse = self.lse || self.check;
        let call = progress.step("upload", || block_on(Call::upload(&gpu, &plan, &tensors.inputs(), lse)))?;
        let output = progress.step("compute", || {
            block_on(call.compute(1))?;
            block_on(call.read::<O>())
        })?;
        Ok((output, name, path))
    }

    fn write<O: Element>(&self, job: &Job, output: &AttentionOutput<O>, adapter: String) -> Result<()> {
        let shape = &job.shape;
        let mut outputs = vec![Output {
            name: "out",
            element: O::TYPE,
            shape: like_q(shape, job.axes, Some(shape.value_dim)),
            data: bytemuck::cast_slice(&output.out),
        }];
        if self.lse {
            let shape = like_q(shape, job.axes, None);
            let data = bytemuck::cast_slice(&output.lse);
            outputs.push(Output { name: "lse", element: ElementType::F32, shape, data });
        }
        let metadata = HashMap::from([
            ("made_by".to_owned(), concat!("wgpu-attention ", env!("CARGO_PKG_VERSION")).to_owned()),
            ("pattern".to_owned(), self.pattern.pattern.to_json()),
            ("adapter".to_owned(), adapter),
        ]);
        write_whole(&self.output, &tensors::serialize(&outputs, metadata)?)
    }
}

/// The outcome of a check in one line.
fn summary(report: &Report) -> String {
    let verdict = if report.pass { "pass" } else { "FAIL" };
    let mut text = format!("check: {verdict}, {} rows", report.rows_checked);
    if report.unspecified > 0 {
        text += &format!(", {} elements unspecified (NaN, infinity or overflow)", report.unspecified);
    }
    if let Some(it) = worst(report) {
        let (at, worst) = (place(&it), it.1);
        text += &format!(
            "; worst {at}: got {:e}, expected {:e}, bound {:.3e}, error/bound {:.4}",
            worst.got, worst.expected, worst.bound, worst.ratio
        );
    }
    text
}
