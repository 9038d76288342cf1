//! Results as lines of JSON: the device, then one line per case.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// What the cases ran on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Device {
    pub(crate) adapter: String,
    pub(crate) driver: String,
    /// Through what: wgpu and its backend, or another implementation.
    pub(crate) through: String,
}

impl Device {
    pub(crate) fn of(info: &wgpu::AdapterInfo) -> Self {
        Self {
            adapter: info.name.clone(),
            driver: format!("{} {}", info.driver, info.driver_info).trim().into(),
            through: format!("wgpu, {}", info.backend),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}; {}", self.adapter, self.driver, self.through)
    }
}

/// A case that was run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) kernel: String,
    pub(crate) element: String,
    pub(crate) case: String,
    pub(crate) outcome: Outcome,
    pub(crate) seconds: f64,
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// Within the bound: the worst error / bound.
    Worst(f64),
    /// Outside of it, or worse.
    Failed(String),
    /// With the reason.
    NotRun(String),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, element, case, outcome, seconds } = self;
        write!(f, "{kernel} {element}: {case}: ")?;
        match outcome {
            Outcome::Worst(worst) => write!(f, "{worst:.3}")?,
            Outcome::Failed(why) => write!(f, "FAILED: {why}")?,
            Outcome::NotRun(why) => write!(f, "not run: {why}")?,
        }
        write!(f, " ({seconds:.1} s)")
    }
}

/// Writes results.
pub(crate) fn write(path: &Path, device: &Device, lines: &[Line]) -> Result<()> {
    let mut text = serde_json::to_string(device)?;
    for line in lines {
        text.push('\n');
        text += &serde_json::to_string(line)?;
    }
    replace(path, &text)
}

/// Reads results.
pub(crate) fn read(path: &Path) -> Result<(Device, Vec<Line>)> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut lines = text.lines();
    let device = serde_json::from_str(lines.next().unwrap_or_default()).context("the device's line")?;
    let lines = lines.map(|line| Ok(serde_json::from_str(line)?)).collect::<Result<_>>();
    Ok((device, lines.with_context(|| format!("a line of {}", path.display()))?))
}

/// Writes a file as a whole or not at all.
pub(crate) fn replace(path: &Path, text: &str) -> Result<()> {
    let part = path.with_extension("part");
    fs::write(&part, text).with_context(|| format!("cannot write {}", part.display()))?;
    fs::rename(&part, path).with_context(|| format!("cannot write {}", path.display()))
}
