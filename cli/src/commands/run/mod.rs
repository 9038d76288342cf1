//! `run`: attention over tensors from a file.

mod linear;
mod lsh;

use super::file_call::{FileCall, Job};
use crate::case::LshCall;
use crate::devices::{self, AdapterArgs, PathArgs};
use crate::element::Dtype;
use crate::inputs::Owned;
use crate::linear::LinearArgs;
use crate::output::{check_writable, say, write_whole};
use crate::pattern::LoweringArgs;
use crate::progress::Progress;
use crate::shapes::like_q;
use crate::tensors::{self, Output, Tensors};
use anyhow::{Result, bail};
use clap::Args;
use pollster::block_on;
use std::collections::HashMap;
use std::path::PathBuf;
use wgpu_attention::reference::{Report, Rows};
use wgpu_attention::{
    Attention, AttentionPlan, BlockGrid, Element, ElementType, Gpu, KernelPath, Parts, SelfTest,
};
use wgpu_attention_bench::call::{self, Call};
use wgpu_attention_bench::check::{Against, check, place, worst};
use wgpu_attention_bench::typed;

/// Attention over the tensors of a safetensors file, on the GPU
///
/// The file holds q [B, H, Lq, D], k [B, Hkv, Lk, D] and v [B, Hkv, Lk, Dv] in f32, f16 or bf16, k and v in one of them (without
/// batch, or without batch and heads, where those are 1); optionally `bias`, broadcast over [B, H, Lq, Lk] and added to the scores,
/// and `temperature` [H], by which those of each head are divided first; `sinks` [H], one more logit per head without a value;
/// `alibi_slopes` [H], or `slopes` with `--alibi=given`; with buckets in `--score`, `bucket_table` [buckets, H]; with
/// `--first-distance`, `r`, `u` and `w`, and `distance_bias` [H or 1, R], also beside `bias`; for segments, `s` [H, D], `seg_embed` [2, H, D] and the
/// integers `seg_q` [B, Lq] and `seg_k` [B, Lk]; and, where the pattern has `mask` or `blocks` without values of their own, `mask`
/// or `layout`. Any other tensor is named: it is not used. The result is
/// written as a whole or not at all: `out` with the axes of q, and `lse` [B, H, Lq] on request.
///
/// A file whose metadata say that it is a case of LSH attention (golden/README.md; with expected values or without) is computed as that: the
/// pattern and the score are the case's, and options for them are refused.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wgpu-attention run --pattern causal --input qkv.safetensors --output o.safetensors --check
  wgpu-attention run --linear favor:features=256 --causal --input qkv.safetensors --output o.safetensors --check
  wgpu-attention run --linformer --input qkvef.safetensors --output o.safetensors --check
  wgpu-attention run --pattern 'window:before=511,after=0' --input qkv.safetensors --output o.safetensors --lse --output-type f32")]
pub(super) struct Run {
    #[command(flatten)]
    call: FileCall,
    #[command(flatten)]
    linear: LinearArgs,
    /// Linformer, in place of a pattern: keys and values projected by the file's `e` [n, kk] or [Hkv, n, kk], values by its `f` where it has one; without `v`
    /// keys are the values
    #[arg(long, conflicts_with = "linear")]
    linformer: bool,
    /// The file to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Also write the log-sum-exp of each row
    #[arg(long)]
    lse: bool,
    /// Element type of out; that of q unless given
    #[arg(long, value_name = "TYPE")]
    output_type: Option<Dtype>,
    /// Compare rows of the result with the f64 reference before it is written; exit status 1 if one is out of its bound, or if
    /// no number could be compared
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

impl Run {
    /// All is well unless the check fails.
    pub(super) fn run(&self) -> Result<bool> {
        check_writable(&self.output)?;
        let bytes = tensors::read(&self.call.input)?;
        if let Some(kind) = self.kind() {
            return self.run_linear(&bytes, &kind);
        }
        if let Some(case) = self.call.named(LshCall::of_file(&bytes))? {
            return self.run_lsh(&case);
        }
        let mut progress = Progress::new(if self.check { 7 } else { 6 }, self.quiet);
        let job = progress.step("read", || self.call.job_of(&bytes, self.output_type))?;
        let (file, storage) = (Tensors::parse(&bytes)?, job.call.storage);
        typed!(storage.q, Q => typed!(storage.kv, KV => typed!(storage.out, O => {
            self.run_typed::<Q, KV, O>(&file, &job, &mut progress)
        })))
    }

    fn run_typed<Q: Element, KV: Element, O: Element>(
        &self,
        file: &Tensors<'_>,
        job: &Job,
        progress: &mut Progress,
    ) -> Result<bool> {
        let tensors = Owned::<Q, KV> {
            q: file.need("q")?.elements()?,
            k: file.need("k")?.elements()?,
            v: file.need("v")?.elements()?,
            terms: job.terms.clone(),
        };
        let grid = BlockGrid::from(&job.call.shape);
        let parts = progress.step("build mask", || Ok(self.lowering.parts(&job.pattern, grid)?))?;
        let (output, adapter, path) = self.compute::<Q, KV, O>(job, &tensors, &parts, progress)?;
        if self.check {
            let (report, strange) = progress.step("check", || {
                let rows = Rows::Sample { count: self.check_rows as usize, seed: 0 };
                let pattern = (&job.pattern as _, Some((&parts, path)));
                let inputs = tensors.inputs();
                let report = check(&job.call, &inputs, pattern, output.got(), rows, Against::Reference)?;
                Ok((report, strange_rows(&job.call, &output.out, rows)))
            })?;
            say!("{}", summary(&report, strange))?;
            if !self.accepts(&report, strange) {
                return Ok(false);
            }
        }
        let what = ("pattern", self.call.pattern()?.to_json());
        let results = (&output.out[..], output.lse.as_deref());
        progress.step("write", || self.write((&job.call, job.axes), results, what, adapter))?;
        Ok(true)
    }

    /// Whether a checked result may be written; says why not.
    fn accepts(&self, report: &Report, strange: usize) -> bool {
        let why = match () {
            () if !report.pass && report.compared == 0 => {
                "could not be compared: nothing is promised where f32 may overflow"
            }
            () if !report.pass => "is out of its bound",
            () if strange > 0 && strange == report.rows_checked => "holds no number to compare",
            () => return true,
        };
        eprintln!("error: the result {why}; {} was not written", self.output.display());
        false
    }

    /// A result that nobody compares is worth no more than the device that computed it.
    fn trust(&self, gpu: &Gpu, plan: &AttentionPlan) -> Result<()> {
        if self.check {
            return Ok(());
        }
        match gpu.self_test(plan)? {
            SelfTest::Failed(found) => bail!("{} computes wrong results: {found}", gpu.info().name),
            _ => Ok(()),
        }
    }

    /// On the GPU; also the adapter's name, and the kernel's.
    fn compute<Q: Element, KV: Element, O: Element>(
        &self,
        job: &Job,
        tensors: &Owned<Q, KV>,
        parts: &Parts,
        progress: &mut Progress,
    ) -> Result<(call::Output<O>, String, KernelPath)> {
        let (gpu, plan) = progress.step("compile", || {
            let device = self.adapter.best()?.ok_or_else(devices::none_there)?;
            let gpu = device.open(self.path)?;
            let plan = gpu.kernels().attention_parts(&job.call, parts)?;
            self.trust(&gpu, &plan)?;
            // Only where a part is cut does it matter how fast the device is; one dispatch more may merge.
            if plan.explain().dispatches <= plan.explain().parts + 1 {
                return Ok((gpu, plan));
            }
            let gpu = gpu.calibrated()?;
            let plan = gpu.kernels().attention_parts(&job.call, parts)?;
            Ok((gpu, plan))
        })?;
        let (name, path) = (gpu.info().name.clone(), plan.path().path);
        // The check looks at lse as well.
        let lse = self.lse || self.check;
        if job.call.shape.is_empty() {
            progress.step("upload", || Ok(()))?;
            progress.step("compute", || Ok(()))?;
            return Ok((call::Output { out: vec![], lse: lse.then(Vec::new) }, name, path));
        }
        let call = progress.step("upload", || block_on(Call::upload(&gpu, &plan, &tensors.inputs(), lse)))?;
        let output = progress.step("compute", || {
            block_on(call.compute(1))?;
            block_on(call.read::<O>())
        })?;
        Ok((output, name, path))
    }

    /// Writes out, and lse if that is wanted, of q with so many axes; `what` is an entry of the metadata.
    fn write<O: Element>(
        &self,
        (call, axes): (&Attention, usize),
        (out, lse): (&[O], Option<&[f32]>),
        what: (&str, String),
        adapter: String,
    ) -> Result<()> {
        let mut outputs = vec![Output {
            name: "out",
            element: O::TYPE,
            shape: like_q(call, axes, Some(call.shape.value_dim)),
            data: bytemuck::cast_slice(out),
        }];
        if let (Some(lse), true) = (lse, self.lse) {
            let shape = like_q(call, axes, None);
            let data = bytemuck::cast_slice(lse);
            outputs.push(Output { name: "lse", element: ElementType::F32, shape, data });
        }
        let metadata = HashMap::from([
            ("made_by".to_owned(), concat!("wgpu-attention ", env!("CARGO_PKG_VERSION")).to_owned()),
            (what.0.to_owned(), what.1),
            ("adapter".to_owned(), adapter),
        ]);
        write_whole(&self.output, &tensors::serialize(&outputs, metadata)?)
    }
}

/// How many of these rows hold what is no finite number.
fn strange_rows<O: Element>(call: &Attention, out: &[O], rows: Rows) -> usize {
    let strides = call.out_strides();
    let strange = |at: &wgpu_attention::reference::Position| {
        let row = &out[strides.at(at.batch, at.head, at.i)..][..call.shape.value_dim];
        !row.iter().all(|&x| Into::<f64>::into(x).is_finite())
    };
    rows.positions(&call.shape).iter().filter(|at| strange(at)).count()
}

/// The outcome of a check in one line; `strange` of its rows are not finite, as the reference has it.
fn summary(report: &Report, strange: usize) -> String {
    let rows = report.rows_checked;
    let verdict = match () {
        () if !report.pass && report.compared > 0 => "FAIL",
        () if rows == 0 => "no rows to compare",
        () if strange == rows || report.compared == 0 => "NOTHING to compare",
        () if report.unspecified > 0 => "partial",
        () => "pass",
    };
    let mut text = format!("check: {verdict}, {rows} rows");
    if strange > 0 {
        text += &format!(", {strange} of them not finite");
    }
    if report.unspecified > 0 {
        text += &format!(", {} elements unspecified (overflow)", report.unspecified);
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
