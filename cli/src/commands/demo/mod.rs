//! `demo`: the main job on real input.

mod linear;

use crate::case::{Attention, Case, Content};
use crate::devices::{self, Device, PathArgs};
use crate::element::Dtype;
use crate::inputs::Owned;
use crate::output::{say, seconds};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use pollster::block_on;
use std::path::{Path, PathBuf};
use std::time::Instant;
use wgpu_attention::reference::{Expected, Kind, Report, Rows, attention_with, random};
use wgpu_attention::{
    Alibi, AnyPattern, BlockGrid, Buckets, Element, ElementType, Gpu, Parts, Relative, Score, Sinks, Storage,
};
use wgpu_attention_bench::call::{Call, Output};
use wgpu_attention_bench::check::{Against, check, place, worst};
use wgpu_attention_bench::text::one_line;
use wgpu_attention_bench::typed;

/// Verify and time the kernels on the activations of a trained model, on every adapter there is
///
/// q, k and v are those of two layers of all-MiniLM-L6-v2 (12 heads, 197 tokens of Pride and Prejudice, scores up to 68). Every
/// element is compared: under the full pattern in f32 with what Hugging Face's implementation gave in f64, otherwise with this
/// crate's own f64 reference. Linear attention and Linformer beside them, and under scores too: this model has none but the plain one, so the tensors of their terms are drawn.
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// The folder of golden cases; that of the source tree unless given
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// The cases: real activations.
const CASES: [&str; 2] = ["real_minilm_layer0", "real_minilm_layer2"];
/// The case that also runs under scores, in f32, and how many of its heads: each score is a kernel more to compile, and the demo is to
/// stay short.
const SCORED: &str = CASES[0];
const SCORED_HEADS: usize = 3;
/// Of what is drawn for their terms.
const SEED: u64 = 1;
/// Samples of a time.
const SAMPLES: usize = 7;
/// One submission computes as often as takes about this long, so that what a submission costs does not count.
const SUBMISSION_S: f64 = 0.02;

/// What a line computes.
struct Setting<'c> {
    case: &'c Attention,
    label: String,
    /// In f32.
    call: wgpu_attention::Attention,
    pattern: AnyPattern,
    /// The case's, and those of the score's terms.
    tensors: Owned<f32>,
}

/// A line of the table.
struct Line {
    /// With what it was compared; none for the reference where there are no expected values: it is what the others are
    /// compared with.
    report: Option<(&'static str, Report)>,
    path: String,
    /// Of one call.
    time_s: f64,
    useful_flops: f64,
}

/// What the lines came to.
#[derive(Default)]
struct Totals {
    verified: usize,
    failed: usize,
    worst: f64,
}

impl Demo {
    /// All is well if every line is within its bound.
    pub(super) fn run(&self) -> Result<bool> {
        let cases = self.cases()?;
        let devices = devices::all()?;
        say!(
            "Attention on real activations: two layers of all-MiniLM-L6-v2, 12 heads, 197 tokens, head size 32."
        )?;
        say!(
            "Each element is checked: |error| <= bound, computed from the inputs; error/bound above 1 fails."
        )?;
        let mut totals = Totals::default();
        for device in &devices {
            match device.open(PathArgs::default()) {
                Ok(gpu) => on_device(device, &gpu, &cases, &mut totals)?,
                Err(error) => {
                    say!("\n{device}: cannot run the kernels: {}", one_line(&format!("{error:#}")))?
                }
            }
        }
        if devices.is_empty() {
            say!(
                "\nNo GPU adapter was found: the CPU reference computes alone. ({:#})",
                devices::none_there()
            )?;
        }
        on_cpu(&cases, &mut totals)?;
        say!(
            "\ntime: wall clock of one call, median of {SAMPLES} submissions of several calls each, after a warm-up; without"
        )?;
        say!(
            "upload, compilation and read-back. GFLOP/s: 2 (d + dv) per kept pair, with relative rows 2 (2 d + dv)."
        )?;
        let Totals { verified, failed, worst } = totals;
        let verdict = if failed == 0 { "all verified".into() } else { format!("{failed} FAILED") };
        let engines = match devices.len() {
            0 => "the CPU reference alone".into(),
            1 => "1 adapter and the CPU reference".into(),
            count => format!("{count} adapters and the CPU reference"),
        };
        say!("\n{verified} results of {engines} compared: {verdict}, worst error/bound {worst:.4}")?;
        Ok(failed == 0)
    }

    fn cases(&self) -> Result<Vec<(&'static str, Attention)>> {
        let built_in = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(|root| root.join("golden"));
        let folder = match (&self.data, built_in) {
            (Some(folder), _) => folder.clone(),
            (None, Some(folder)) if folder.is_dir() => folder,
            // The source tree was moved: perhaps this is it.
            _ => "golden".into(),
        };
        let read = |name| {
            let path = folder.join(name).with_extension("safetensors");
            ensure!(
                path.is_file(),
                "the demo needs {}: name the repository's folder `golden` with --data",
                path.display()
            );
            match Case::read(&path)?.content {
                Content::Attention(case) => Ok((name, *case)),
                Content::Unsupported(reason) => bail!("{}: {reason}", path.display()),
                _ => bail!("{}: need a case of `attention`, got another op", path.display()),
            }
        };
        CASES.into_iter().map(read).collect()
    }
}

/// The patterns: the case's own, and two more over the same tensors.
fn patterns(case: &Attention) -> Result<[(&'static str, AnyPattern); 3]> {
    let parse = |json| AnyPattern::parse(json).context("a pattern of the demo");
    Ok([
        ("full", case.pattern.clone()),
        ("causal", parse("causal")?),
        ("window 32+1+32", parse("window:before=32,after=32")?),
    ])
}

/// The case under each pattern.
fn plain(case: &Attention) -> Result<Vec<Setting<'_>>> {
    let setting = |(label, pattern): (&str, AnyPattern)| Setting {
        case,
        label: label.into(),
        call: case.call.clone(),
        pattern,
        tensors: case.tensors.clone(),
    };
    Ok(patterns(case)?.into_iter().map(setting).collect())
}

/// The scores: what is added, one more product, one more logit; over the scale of the case.
fn scores(case: &Attention) -> [(&'static str, Score); 4] {
    let (plain, shape) = (&case.call.score, case.call.shape);
    // A row for every distance.
    let rows = Relative::new(shape.kv_len as i32 - 1, shape.kv_len + shape.q_len - 1).u(true).w(true);
    [
        ("t5", plain.clone().with(Buckets::new(32, 128).bidirectional(true))),
        ("alibi", plain.clone().with(Alibi::default())),
        ("relative", plain.clone().with(rows)),
        ("sinks", plain.clone().with(Sinks)),
    ]
}

/// The first heads of a case under each score, over all keys and those of the past. The tensors of the terms are drawn.
fn scored(case: &Attention) -> Result<Vec<Setting<'_>>> {
    let [full, causal, _] = patterns(case)?;
    let (whole, Owned { q, k, v, .. }) = (case.call.shape, &case.tensors);
    ensure!(whole.batch == 1 && whole.heads == whole.kv_heads, "need one batch item and as many key heads");
    let first = |tensor: &[f32]| tensor[..tensor.len() / whole.heads * SCORED_HEADS].to_vec();
    let (q, k, v) = (first(q), first(k), first(v));
    let mut shape = whole.kv_heads(SCORED_HEADS);
    shape.heads = SCORED_HEADS;
    let mut settings = vec![];
    for (name, score) in scores(case) {
        let call = shape.score(score);
        let terms = random::<f32, f32>(&call, Kind::Normal, SEED)?.terms;
        for (label, pattern) in [&full, &causal] {
            settings.push(Setting {
                case,
                label: format!("{label} + {name}"),
                call: call.clone(),
                pattern: pattern.clone(),
                tensors: Owned { q: q.clone(), k: k.clone(), v: v.clone(), terms: terms.clone() },
            });
        }
    }
    Ok(settings)
}

fn on_device(device: &Device, gpu: &Gpu, cases: &[(&str, Attention)], totals: &mut Totals) -> Result<()> {
    say!("\n{device}, driver {}", device.driver())?;
    heading()?;
    for (name, case) in cases {
        for setting in plain(case)? {
            for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
                let element = ElementType::from(dtype);
                let line = typed!(element, E => kernel::<E>(gpu, &setting));
                row([name, &setting.label, element.name()], line, totals)?;
            }
        }
    }
    say!(
        "under scores, the first {SCORED_HEADS} heads (the model has no such scores: bucket table, relative rows, u, w and sinks are drawn, seed {SEED}; ALiBi has the paper's slopes)"
    )?;
    for (name, case) in cases.iter().filter(|(name, _)| *name == SCORED) {
        for setting in scored(case)? {
            row([name, &setting.label, "f32"], kernel::<f32>(gpu, &setting), totals)?;
        }
    }
    say!(
        "what is not attention over a pattern (FAVOR+ of 64 features; Linformer's projections to 64 rows are drawn)"
    )?;
    for (name, case) in cases.iter().filter(|(name, _)| *name == SCORED) {
        for (label, kind) in linear::kinds(case) {
            row([name, label, "f32"], linear::kernel(gpu, case, &kind), totals)?;
        }
    }
    Ok(())
}

/// The kernel in one setting and one element type.
fn kernel<E: Element>(gpu: &Gpu, setting: &Setting<'_>) -> Result<Line> {
    let Setting { case, call, pattern, .. } = setting;
    let tensors = setting.tensors.rounded::<E, E>().map_err(anyhow::Error::msg)?;
    let (attention, inputs) = (call.clone().storage(Storage::all(E::TYPE)), tensors.inputs());
    let parts = Parts::lower(pattern, BlockGrid::from(&attention.shape))?;
    let plan = gpu.kernels().attention_parts(&attention, &parts)?;
    let call = block_on(Call::upload(gpu, &plan, &inputs, false))?;
    block_on(call.compute(1))?;
    let output = block_on(call.read::<E>())?;
    let (against, oracle) = match E::TYPE == ElementType::F32 && setting.is_the_cases() {
        true => ("expected", expected(case)),
        false => ("f64", Against::Reference),
    };
    let kernel = Some((&parts, plan.path().path));
    let report = check(&attention, &inputs, (pattern, kernel), output.got(), Rows::All, oracle)?;

    // The first call may still have warmed something up; the second says how many calls make a sample.
    let once = block_on(call.compute(1))?.as_secs_f64().max(1e-6);
    let times = (SUBMISSION_S / once).clamp(1.0, 1000.0) as usize;
    let sample = |_| Ok(block_on(call.compute(times))?.as_secs_f64() / times as f64);
    let time_s = median((0..SAMPLES).map(sample).collect::<Result<_>>()?);
    let path = plan.path().path.to_string();
    let useful_flops = attention.flops(parts.kept());
    Ok(Line { report: Some((against, report)), path, time_s, useful_flops })
}

fn on_cpu(cases: &[(&str, Attention)], totals: &mut Totals) -> Result<()> {
    say!(
        "\nthe CPU reference (f64, two passes, one row after the other on each core; made to be right, not fast)"
    )?;
    heading()?;
    for (name, case) in cases {
        for setting in plain(case)? {
            row([name, &setting.label, "f64"], reference(&setting), totals)?;
        }
    }
    Ok(())
}

/// The reference in one setting.
fn reference(setting: &Setting<'_>) -> Result<Line> {
    let Setting { case, call: attention, pattern, .. } = setting;
    let inputs = setting.tensors.inputs();
    let start = Instant::now();
    let exact = attention_with(attention, &inputs, pattern)?;
    let time_s = start.elapsed().as_secs_f64();
    let report = if setting.is_the_cases() {
        let narrow = |values: &[f64]| values.iter().map(|&x| x as f32).collect::<Vec<f32>>();
        let output = Output { out: narrow(&exact.out), lse: Some(narrow(&exact.lse)) };
        let by = (pattern as _, None);
        Some(("expected", check(attention, &inputs, by, output.got(), Rows::All, expected(case))?))
    } else {
        None
    };
    let kept = Parts::lower(pattern, BlockGrid::from(&attention.shape))?.kept();
    Ok(Line { report, path: "reference".into(), time_s, useful_flops: attention.flops(kept) })
}

impl Setting<'_> {
    /// Whether the expected values of the case are those of the setting.
    fn is_the_cases(&self) -> bool {
        (&self.pattern, &self.call) == (&self.case.pattern, &self.case.call)
    }
}

fn expected(case: &Attention) -> Against<'_> {
    Against::Expected(Expected::new(&case.out), case.allowance)
}

fn heading() -> Result<()> {
    let columns = ["case", "pattern", "type", "path", "error/bound", "against", "time", "GFLOP/s"];
    print(columns.map(String::from), "")
}

fn row([name, label, dtype]: [&str; 3], line: Result<Line>, totals: &mut Totals) -> Result<()> {
    let line = match line {
        Ok(line) => line,
        Err(error) => {
            (totals.verified, totals.failed) = (totals.verified + 1, totals.failed + 1);
            return say!("{name:<19} {label:<17} {dtype:<5} FAILED: {}", one_line(&format!("{error:#}")));
        }
    };
    let (mut ratio, mut against, mut verdict) = ("-".into(), "-", String::new());
    if let Some((with, report)) = &line.report {
        (ratio, against) = (format!("{:.4}", report.ratio()), *with);
        // A comparison of nothing is no success.
        let good = report.pass && report.worst_out.is_some();
        if !good {
            verdict = format!("  FAILED at {}", worst(report).as_ref().map_or("no element".into(), place));
        }
        totals.verified += 1;
        totals.failed += usize::from(!good);
        totals.worst = totals.worst.max(report.ratio());
    }
    let speed = format!("{:.1}", line.useful_flops / line.time_s / 1e9);
    let columns = [
        name.into(),
        label.into(),
        dtype.into(),
        line.path,
        ratio,
        against.into(),
        seconds(line.time_s),
        speed,
    ];
    print(columns, &verdict)
}

fn print(
    [case, pattern, dtype, path, ratio, against, time, speed]: [String; 8],
    verdict: &str,
) -> Result<()> {
    say!(
        "{case:<19} {pattern:<17} {dtype:<5} {path:<10} {ratio:>11}  {against:<9} {time:>10} {speed:>9}{verdict}"
    )
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
