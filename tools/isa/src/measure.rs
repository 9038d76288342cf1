//! One process per GPU: a driver's stand-in for a kernel reads its settings once. The child compiles and prints what it
//! was told; the parent reads it. One compiler prints its listing itself, on the same stream, so that this is text.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail, ensure};

use crate::device::{Device, flush};
use crate::gpu::Gpu;
use crate::spirv::Shader;
use crate::statistics::{Asked, Statistics};

/// The option that makes a process the child for a GPU.
pub const CHILD: &str = "--child";

/// Holds the launchers, set by `cargo xtask isa`: `name=path` of each, with `;` between them.
pub const LAUNCHERS: &str = "WGPU_ATTENTION_COMPILERS";

/// Begins each line of the child's own.
const MARK: &str = "@@isa";

/// The launcher of a GPU's driver; none where it cannot be had on this machine.
pub fn launcher(gpu: &Gpu) -> Option<PathBuf> {
    let all = std::env::var(LAUNCHERS).ok()?;
    let named = all.split(';').filter_map(|one| one.split_once('='));
    named.into_iter().find(|(name, _)| *name == gpu.launcher).map(|(_, path)| path.into())
}

/// The child: compiles the shaders for the GPU that the environment shows, and prints.
pub fn child(shaders: &[(String, Shader)]) -> Result<()> {
    let device = Device::open()?;
    let mut out = std::io::stdout();
    writeln!(out, "{MARK} driver {}", device.driver())?;
    for (label, shader) in shaders {
        if !device.supports(shader) {
            writeln!(out, "{MARK} skipped {label}")?;
            continue;
        }
        writeln!(out, "{MARK} shader {} {} {label}", shader.lanes, shader.workgroup_bytes)?;
        out.flush()?;
        let compiled = device.compile(label, shader)?;
        flush();
        writeln!(out, "{}\n{MARK} width {}", compiled.assembly, compiled.width)?;
        for (name, value) in &compiled.numbers {
            writeln!(out, "{MARK} number {value} {name}")?;
        }
        writeln!(out, "{MARK} end")?;
    }
    Ok(out.flush()?)
}

/// What a GPU's compiler makes of shaders.
#[derive(Debug, Default)]
pub struct Measured {
    /// The driver's name and version.
    pub driver: String,
    /// One for each shader.
    pub rows: Vec<Statistics>,
    /// Labels of the shaders that the GPU has no matrix units for.
    pub skipped: Vec<String>,
}

/// Starts `program` as the child for a GPU, and reads what it prints.
pub fn measure(program: &Path, launcher: &Path, gpu: &'static Gpu, arguments: &[String]) -> Result<Measured> {
    let mut command = Command::new(launcher);
    command.arg(program).args([CHILD, gpu.name]).args(arguments);
    // Statistics of another run must not come out of the shader cache without their representations.
    command.env("MESA_SHADER_CACHE_DISABLE", "true").envs(gpu.settings.iter().copied());
    // The stand-ins remark on each question that they do not know.
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot start a compiler")?;
    let errors = child.stderr.take().context("a pipe")?;
    let complaint = std::thread::spawn(move || {
        let lines = BufReader::new(errors).lines().map_while(Result::ok);
        lines.filter(|line| line.starts_with("error:")).last()
    });
    let mut read = Reading { gpu, found: Measured::default(), at: None };
    let mut lines = BufReader::new(child.stdout.take().context("a pipe")?);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        read.line(String::from_utf8_lossy(&line).trim_end_matches('\n'))?;
        line.clear();
    }
    let status = child.wait()?;
    let complaint = complaint.join().ok().flatten().unwrap_or_else(|| "no message".into());
    let at = read.at.as_ref().map_or(String::new(), |at| format!(" at {}", at.asked.label));
    ensure!(status.success(), "{}: the compiler ended ({status}){at}: {complaint}", gpu.name);
    Ok(read.found)
}

/// The same for several GPUs with each one's arguments, as many at a time as there are cores, in the order of the GPUs.
pub fn measure_all(
    program: &Path,
    gpus: &[(&'static Gpu, PathBuf)],
    arguments: impl Fn(&Gpu) -> Vec<String> + Sync,
) -> Result<Vec<Measured>> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<Result<Measured>>>> = Mutex::new(gpus.iter().map(|_| None).collect());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores.min(gpus.len()) {
            scope.spawn(|| {
                while let Some((gpu, launcher)) = gpus.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = measure(program, launcher, gpu, &arguments(gpu));
                    let place = gpus.iter().position(|(one, _)| one.name == gpu.name);
                    let mut results = results.lock().expect("no thread panics with it");
                    results[place.expect("it is one of them")] = Some(result);
                }
            });
        }
    });
    let results = results.into_inner().expect("no thread panics with it");
    results.into_iter().map(|result| result.expect("each was measured")).collect()
}

/// The parent's place in what the child prints.
struct Reading {
    gpu: &'static Gpu,
    found: Measured,
    at: Option<Partly>,
}

/// A shader, half read.
#[derive(Default)]
struct Partly {
    asked: Asked,
    width: u32,
    numbers: Vec<(String, u64)>,
    assembly: String,
}

impl Reading {
    /// Takes a line.
    fn line(&mut self, line: &str) -> Result<()> {
        let Some(own) = line.strip_prefix(MARK).and_then(|rest| rest.strip_prefix(' ')) else {
            if let Some(at) = &mut self.at {
                at.assembly.push_str(line);
                at.assembly.push('\n');
            }
            return Ok(());
        };
        let (what, rest) = own.split_once(' ').unwrap_or((own, ""));
        match (what, &mut self.at) {
            ("driver", None) => self.found.driver = rest.into(),
            ("skipped", None) => self.found.skipped.push(rest.into()),
            ("shader", None) => {
                let mut words = rest.splitn(3, ' ');
                let mut word = || words.next().with_context(|| format!("a short line: {line}"));
                let (lanes, workgroup_bytes) = (word()?.parse()?, word()?.parse()?);
                let asked = Asked { label: word()?.into(), lanes, workgroup_bytes };
                self.at = Some(Partly { asked, ..Partly::default() });
            }
            ("width", Some(at)) => at.width = rest.parse()?,
            ("number", Some(at)) => {
                let (value, name) = rest.split_once(' ').with_context(|| format!("a short line: {line}"))?;
                at.numbers.push((name.into(), value.parse()?));
            }
            ("end", at @ Some(_)) => {
                let Partly { asked, width, numbers, assembly } = at.take().expect("it is there");
                self.found.rows.push(Statistics::new(self.gpu, asked, width, numbers, assembly));
            }
            _ => bail!("unexpected: {line}"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu;

    #[test]
    fn what_a_child_prints_is_read() {
        let text = "@@isa driver A driver 1.0\n@@isa skipped a matrix kernel\nnoise\n@@isa shader 128 4096 a kernel\n\
            BB1:\n\tv_fma_f32 v0, v1, v2, v3\n\n@@isa width 64\n@@isa number 96 VGPRs\n@@isa number 2 Spilled VGPRs\n@@isa end\n";
        let mut read = Reading { gpu: gpu::named("navi31").unwrap(), found: Measured::default(), at: None };
        text.lines().for_each(|line| read.line(line).unwrap());
        let Measured { driver, rows, skipped } = &read.found;
        assert_eq!((driver.as_str(), skipped.len(), rows.len()), ("A driver 1.0", 1, 1));
        let row = &rows[0];
        assert_eq!(
            (row.label.as_str(), row.lanes, row.width, row.workgroup_bytes),
            ("a kernel", 128, 64, 4096)
        );
        assert_eq!((row.registers(), row.spills(), row.whole.fma), (96, 2, 1));
        assert!(read.line("@@isa end").is_err());
    }
}
