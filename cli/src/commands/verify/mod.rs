//! `verify`: golden cases, on the GPU and on the CPU reference.

mod compute;
mod record;

use crate::case::{Case, Content};
use crate::devices::{AdapterArgs, Device, PathArgs};
use crate::element::Dtype;
use crate::output::quoted;
use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use compute::attention::first_difference;
use compute::{Done, on_cpu, on_gpu};
use record::{Record, Status};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use wgpu_attention::{AnyPattern, ElementType, Error, Gpu};
use wgpu_attention_bench::text::one_line;
use wgpu_attention_bench::typed;

/// Run golden cases and compare every element with what other systems computed
///
/// One line per case: the largest error / bound (above 1 fails) over its results and their gradients, and where. Each case runs on the CPU reference and on every
/// adapter. f16 and bf16 inputs are rounded first, so the expected values are no longer those of the inputs: the comparison is
/// then with the f64 reference on the rounded inputs, and the CPU reference has no line of its own.
///
/// `partial`: what was compared is right, but not all that the case holds was compared, and the line says what. Exit status 1 if
/// anything fails (a file that cannot be read does); `partial` and `unsupported` do not.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wgpu-attention verify golden
  wgpu-attention verify golden/real_minilm_layer0.safetensors --adapter nvidia --dtype f32,f16,bf16
  wgpu-attention verify golden --cpu-only --json

The format of the cases: golden/README.md")]
pub(super) struct Verify {
    /// Files, and folders with their subfolders (every .safetensors in them)
    #[arg(required = true, value_name = "PATHS")]
    paths: Vec<PathBuf>,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    adapter: AdapterArgs,
    /// Element types on the GPU
    #[arg(long, value_delimiter = ',', value_name = "TYPE", default_value = "f32")]
    dtype: Vec<Dtype>,
    /// Element type of k and v on the GPU, where it is another; of attention cases alone
    #[arg(long, value_name = "TYPE", conflicts_with = "cpu_only")]
    kv_dtype: Option<Dtype>,
    #[command(flatten)]
    path: PathArgs,
    /// Only the CPU reference
    #[arg(long, conflicts_with_all = ["adapter", "path"])]
    cpu_only: bool,
}

/// What computes.
enum Engine {
    Cpu,
    Gpu(Rc<Device>, Box<Gpu>, ElementType),
    /// The kernels cannot run on this adapter.
    None(Rc<Device>, String),
}

/// Lines by status.
#[derive(Default)]
struct Counts {
    pass: usize,
    partial: usize,
    fail: usize,
    unsupported: usize,
    /// Files with gradients that were not compared.
    gradients: BTreeSet<String>,
}

impl Verify {
    /// All is well if nothing failed.
    pub(super) fn run(&self) -> Result<bool> {
        let files = files(&self.paths)?;
        let engines = self.engines()?;
        let widths = widths(&files, &engines);
        let mut counts = Counts::default();
        for file in &files {
            self.file(file, &engines, &mut |record: Record| {
                match record.status {
                    Status::Pass => counts.pass += 1,
                    Status::Partial => counts.partial += 1,
                    Status::Fail => counts.fail += 1,
                    Status::Unsupported => counts.unsupported += 1,
                }
                if record.not_compared.is_some() {
                    counts.gradients.insert(record.file.clone());
                }
                record.print(self.json, widths)
            })?;
        }
        let Counts { pass, partial, fail, unsupported, gradients } = counts;
        let total = pass + partial + fail + unsupported;
        eprintln!(
            "{total} results of {} files: {pass} passed, {partial} in part, {fail} failed, {unsupported} unsupported",
            files.len()
        );
        if !gradients.is_empty() {
            eprintln!(
                "gradients in {} files were not compared, or not all of them: --json says which",
                gradients.len()
            );
        }
        Ok(fail == 0)
    }

    fn engines(&self) -> Result<Vec<Engine>> {
        let f32 = self.dtype.contains(&Dtype::F32);
        if self.cpu_only {
            ensure!(f32, "--cpu-only: need --dtype f32: the expected values are those of f32 inputs");
            return Ok(vec![Engine::Cpu]);
        }
        let mut engines = vec![];
        if f32 {
            engines.push(Engine::Cpu);
        }
        let devices = self.adapter.select()?;
        if devices.is_empty() {
            ensure!(f32, crate::devices::none_there());
            eprintln!("note: no GPU adapter was found: the cases run on the CPU reference alone");
        }
        for device in devices.into_iter().map(Rc::new) {
            match device.open(self.path) {
                Ok(gpu) => {
                    let gpu = Box::new(gpu);
                    let engine = |&dtype: &Dtype| Engine::Gpu(device.clone(), gpu.clone(), dtype.into());
                    engines.extend(self.dtype.iter().map(engine));
                }
                // A machine may have adapters that are too small; whoever names one wants to know.
                Err(error) if self.adapter.adapter.is_none() && is_limit(&error) => {
                    engines.push(Engine::None(device, one_line(&format!("{error:#}"))));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(engines)
    }

    /// All lines of a file.
    fn file(
        &self,
        file: &Path,
        engines: &[Engine],
        print: &mut dyn FnMut(Record) -> Result<()>,
    ) -> Result<()> {
        let blank = self.blank(file);
        let case = match Case::read(file) {
            Ok(case) => case,
            Err(error) => return print(blank.because(Status::Fail, one_line(&format!("{error:#}")))),
        };
        let blank = Record { name: case.name, op: Some(case.op), ..blank };
        let content = match case.content {
            Content::Unsupported(reason) => return print(blank.because(Status::Unsupported, reason)),
            content => content,
        };
        let score = match &content {
            Content::Attention(case) => Some(case.call.score.to_string()),
            _ => None,
        };
        let blank = Record { score, ..blank };
        if let Content::Table(_) = content {
            // No adapter has a part in it.
            return match engines.iter().find(|engine| matches!(engine, Engine::Cpu)) {
                Some(cpu) => print(self.line(&blank, cpu, &content, None)),
                None => print(blank.because(Status::Unsupported, compute::ON_THE_HOST)),
            };
        }
        for engine in engines {
            print(self.line(&blank, engine, &content, None))?;
        }
        let Content::Attention(case) = &content else { return Ok(()) };
        for (json, pattern) in &case.same_set {
            let blank = Record { same_set: Some(json.clone()), not_compared: None, ..blank.clone() };
            match pattern {
                Err(reason) => print(blank.because(Status::Unsupported, reason))?,
                Ok(pattern) => match first_difference(case, pattern) {
                    Some(pair) => print(blank.because(Status::Fail, pair))?,
                    None => engines
                        .iter()
                        .try_for_each(|engine| print(self.line(&blank, engine, &content, Some(pattern))))?,
                },
            }
        }
        Ok(())
    }

    /// A line about a file of which nothing is known yet.
    fn blank(&self, file: &Path) -> Record {
        Record {
            name: file.file_stem().unwrap_or_default().to_string_lossy().into(),
            op: None,
            score: None,
            adapter: None,
            adapter_index: None,
            dtype: None,
            kv_dtype: None,
            path: None,
            status: Status::Fail,
            reason: None,
            worst: None,
            at: None,
            against: None,
            rows: None,
            unspecified: None,
            not_compared: None,
            same_set: None,
            file: file.display().to_string(),
            reproduce: format!("wgpu-attention verify {}", quoted(&file.display().to_string())),
        }
    }

    /// One case on one engine, under another pattern than its own if that is given.
    fn line(&self, blank: &Record, engine: &Engine, case: &Content, pattern: Option<&AnyPattern>) -> Record {
        let blank = blank.clone();
        match engine {
            Engine::None(device, reason) => {
                Record { adapter: Some(device.info.name.clone()), adapter_index: Some(device.index), ..blank }
                    .because(Status::Unsupported, reason)
            }
            Engine::Cpu => {
                let record = Record {
                    adapter: Some("cpu".into()),
                    dtype: Some("f32"),
                    path: Some("reference".into()),
                    against: Some("expected"),
                    reproduce: blank.reproduce.clone() + " --cpu-only",
                    ..blank
                };
                match on_cpu(case, pattern) {
                    Ok(judged) => record.with(judged),
                    Err(error) => record.because(Status::Fail, one_line(&format!("{error:#}"))),
                }
            }
            Engine::Gpu(device, gpu, element) => {
                let path = self.path.path.map(|path| format!(" --path {path}")).unwrap_or_default();
                let kv = self.kv_dtype.map(ElementType::from);
                let forced = kv.map(|kv| format!(" --kv-dtype {kv}")).unwrap_or_default()
                    + &path
                    + if self.path.unchecked { " --unchecked" } else { "" };
                let record = Record {
                    adapter: Some(device.info.name.clone()),
                    adapter_index: Some(device.index),
                    dtype: Some(element.name()),
                    kv_dtype: kv.map(ElementType::name),
                    reproduce: format!(
                        "{} --adapter {} --dtype {element}{forced}",
                        blank.reproduce, device.index
                    ),
                    ..blank
                };
                match typed!(*element, E => on_gpu::<E>(gpu, case, pattern, kv)) {
                    Ok(Done::Compared { path, against, judged }) => {
                        Record { path: Some(path), against: Some(against), ..record }.with(*judged)
                    }
                    Ok(Done::Unsupported(reason)) => record.because(Status::Unsupported, reason),
                    Err(error) => record.because(Status::Fail, one_line(&format!("{error:#}"))),
                }
            }
        }
    }
}

/// Every comparison of a file on the CPU reference.
pub(crate) fn verify_on_cpu(bytes: Vec<u8>) -> Result<()> {
    let case = Case::parse(bytes)?.content;
    on_cpu(&case, None)?;
    let Content::Attention(attention) = &case else { return Ok(()) };
    for (_, pattern) in &attention.same_set {
        let pattern = pattern.as_ref().map_err(|reason| anyhow!("{reason}"))?;
        first_difference(attention, pattern).map_or(Ok(()), |pair| bail!("{pair}"))?;
        on_cpu(&case, Some(pattern))?;
    }
    Ok(())
}

/// Columns of names of cases and of adapters.
fn widths(files: &[PathBuf], engines: &[Engine]) -> [usize; 2] {
    let chars = |text: &str| text.chars().count();
    let files = files.iter().map(|file| file.file_stem().map_or(0, |stem| chars(&stem.to_string_lossy())));
    let engines = engines.iter().map(|engine| match engine {
        Engine::Cpu => 3,
        Engine::Gpu(device, ..) | Engine::None(device, _) => chars(&device.info.name),
    });
    [files.max().unwrap_or(0).min(48), engines.max().unwrap_or(0).min(40)]
}

fn is_limit(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<Error>(), Some(Error::Limit { .. }))
}

/// The files, and those in the folders, sorted.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = vec![];
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let before = files.len();
        walk(path, &mut files)?;
        if files.len() == before {
            bail!("{}: need golden cases, got a folder without any .safetensors", path.display());
        }
    }
    Ok(files)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut entries: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    entries.sort();
    for path in entries {
        // A link to a folder could lead back here.
        if path.is_dir() && !path.is_symlink() {
            walk(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "safetensors") {
            files.push(path);
        }
    }
    Ok(())
}
