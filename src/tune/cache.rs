//! Choices on disk.

use super::{Trial, Tuned, Tuning};
use crate::{Attention, BlockGrid, Error, Gpu, Parts, Pattern, Result, SelfTest, TestedPlan};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// What [`Gpu::tune`] found, in a JSON file: by adapter, driver, version of this crate, options and call. Beside it how fast adapters are,
/// and what self-tests found.
///
/// ```no_run
/// use wgpu_attention::tune::TuningCache;
/// use wgpu_attention::{AttentionShape, Causal, Gpu};
///
/// let gpu = Gpu::new()?;
/// let mut cache = TuningCache::open("tuning.json")?; // an empty one, if there is no such file
/// let shape = AttentionShape::new(1, 12, 4096, 64);
/// let tuned = cache.tuned(&gpu, &shape, &Causal, &mut |_| ())?; // tunes and writes once, then only reads
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct TuningCache {
    path: PathBuf,
    file: File,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    choices: BTreeMap<String, Tuning>,
    /// How fast each adapter is.
    #[serde(default)]
    flops_per_second: BTreeMap<String, f64>,
    /// What self-tests found, by adapter and shaders.
    #[serde(default)]
    self_tests: BTreeMap<String, SelfTest>,
}

impl TuningCache {
    const FORMAT: u32 = 1;

    /// Reads a file, or begins an empty cache that will be written there.
    ///
    /// # Errors
    /// [`Error::Argument`] for a file that is there and is none of these, or cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let file = match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str::<File>(&text).map_err(|error| wrong(&path, error))?,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                File { format: Self::FORMAT, ..File::default() }
            }
            Err(error) => return Err(wrong(&path, error)),
        };
        if file.format != Self::FORMAT {
            return Err(wrong(&path, format!("format {}", file.format)));
        }
        Ok(Self { path, file })
    }

    /// The choice for a call: from the cache, or tuned now and written. A written choice that the device does not take any more
    /// is tuned anew.
    ///
    /// # Errors
    /// As [`Gpu::tune`], and [`Error::Argument`] where the file cannot be written.
    pub fn tuned(
        &mut self,
        gpu: &Gpu,
        attention: impl Into<Attention>,
        pattern: &dyn Pattern,
        watch: &mut dyn FnMut(&Trial),
    ) -> Result<Tuned> {
        let attention = attention.into();
        attention.check()?;
        let parts = Parts::lower(pattern, BlockGrid::from(&attention.shape))?;
        let key = key(gpu, &attention, &parts);
        if let Some(best) = self.file.choices.get(&key).copied() {
            let kernels = crate::Kernels::new(gpu.device(), best.options(*gpu.kernels().options()))?;
            if kernels.attention_parts(&attention, &parts).is_ok() {
                return Ok(Tuned { best, trials: vec![] });
            }
        }
        let tuned = gpu.tune_parts(&attention, pattern, &parts, watch)?;
        self.file.choices.insert(key, tuned.best);
        self.write()?;
        Ok(tuned)
    }

    /// [`Gpu::calibrated`], but measured only once for an adapter, driver and version of this crate, and written: later it is read,
    /// and takes no time.
    ///
    /// # Errors
    /// As [`Gpu::calibrated`], and [`Error::Argument`] where the file cannot be written.
    ///
    /// ```no_run
    /// # use wgpu_attention::{Gpu, tune::TuningCache};
    /// let gpu = TuningCache::open("tuning.json")?.calibrated(&Gpu::new()?)?;
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    pub fn calibrated(&mut self, gpu: &Gpu) -> Result<Gpu> {
        let key = adapter(gpu);
        if let Some(speed) = self.file.flops_per_second.get(&key).copied().filter(|speed| *speed > 0.0) {
            let options =
                crate::Options { measured_flops_per_second: Some(speed), ..*gpu.kernels().options() };
            return Ok(gpu.with_kernels(gpu.kernels().with_options(options)?));
        }
        let calibrated = gpu.calibrated()?;
        if let Some(speed) = calibrated.kernels().options().measured_flops_per_second {
            self.file.flops_per_second.insert(key, speed);
            self.write()?;
        }
        Ok(calibrated)
    }

    /// [`Gpu::self_test`], but run only once for an adapter, driver, version of this crate and the shaders of a plan, and written: later
    /// it is read. The device knows of it, too, and does not test those pipelines again by itself.
    ///
    /// # Errors
    /// As [`Gpu::self_test`], and [`Error::Argument`] where the file cannot be written.
    ///
    /// ```no_run
    /// # use wgpu_attention::{AttentionShape, Causal, Gpu, tune::TuningCache};
    /// let gpu = Gpu::new()?;
    /// let plan = gpu.kernels().attention(AttentionShape::new(1, 12, 4096, 64), &Causal)?;
    /// println!("{:?}", TuningCache::open("tuning.json")?.self_test(&gpu, &plan)?);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    pub fn self_test<'a>(&mut self, gpu: &Gpu, plan: impl Into<TestedPlan<'a>>) -> Result<SelfTest> {
        let plan = plan.into();
        let key = format!("{}; {}", adapter(gpu), plan.shaders()?.join(" + "));
        let found = match self.file.self_tests.get(&key) {
            Some(found) => found.clone(),
            None => {
                let found = gpu.self_test(plan)?;
                self.file.self_tests.insert(key, found.clone());
                self.write()?;
                found
            }
        };
        gpu.remember(plan, &found)?;
        Ok(found)
    }

    /// Choices in it, for all devices and calls.
    pub fn len(&self) -> usize {
        self.file.choices.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.file.choices.is_empty()
    }

    /// Whole or not at all: a file beside it takes its place.
    fn write(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.file).expect("a map of names and numbers");
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{}", std::process::id()));
        let beside = PathBuf::from(name);
        let write = || -> std::io::Result<()> {
            let mut file = fs::File::create(&beside)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, &self.path)
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&beside);
            Error::argument("cache", "a place for a file", format!("{}: {error}", self.path.display()))
        })
    }
}

fn wrong(path: &Path, error: impl std::fmt::Display) -> Error {
    let need = format!("a tuning cache of format {}", TuningCache::FORMAT);
    Error::argument("cache", need, format!("{}: {error}", path.display()))
}

/// All that the choice depends on, in words.
fn key(gpu: &Gpu, attention: &Attention, parts: &Parts) -> String {
    // How a call is cut into dispatches does not change what is fastest.
    let options =
        crate::Options { measured_flops_per_second: None, dispatch_flops: None, ..*gpu.kernels().options() };
    let part = |part: &crate::Part| {
        let grid = part.mask.grid();
        let [blocks_q, blocks_k] = [grid.block_q, grid.block_k];
        format!(
            "{}x{} in {blocks_q}x{blocks_k}, {} visited{}{}",
            grid.q_len,
            grid.kv_len,
            part.mask.visited(),
            if part.q_order.is_some() { ", queries ordered" } else { "" },
            if part.k_order.is_some() { ", keys ordered" } else { "" },
        )
    };
    let parts: Vec<_> = parts.parts().iter().map(part).collect();
    format!("{}; {options:?}; {attention:?}; {}", adapter(gpu), parts.join(" + "))
}

/// The adapter, its driver and the version of this crate, in words.
fn adapter(gpu: &Gpu) -> String {
    let wgpu::AdapterInfo { name, backend, device, driver, driver_info, .. } = gpu.info();
    let version = env!("CARGO_PKG_VERSION");
    format!("{name} ({backend:?}, {device}; {driver} {driver_info}); wgpu-attention {version}")
}
