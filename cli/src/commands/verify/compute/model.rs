//! Whole models.

use super::{Done, EXPECTED};
use crate::commands::verify::record::Judged;
use anyhow::{Context, Result, anyhow};
use wgpu_attention::{Element, ElementType, Gpu, KernelPath};
use wgpu_attention_models::{self as model, Exact, File, Forward};

/// The model in f64 against the expected states.
pub(super) fn on_cpu(bytes: &[u8]) -> Result<Judged> {
    let run = || {
        let (file, mut exact) = (File::parse(bytes)?, Exact::default());
        model::run(&mut exact, &file)?;
        model::compare(&file, &exact.states)
    };
    judged(run)
}

/// The model on a device against the expected states.
pub(super) fn on_gpu<E: Element>(gpu: &Gpu, bytes: &[u8]) -> Result<Done> {
    if E::TYPE != ElementType::F32 {
        return Ok(Done::Unsupported(format!("models run in f32, not in {}", E::TYPE)));
    }
    if let Some(path @ KernelPath::Cooperative) = gpu.kernels().options().path {
        return Ok(Done::Unsupported(format!("models run in f32, which the {path} path does not multiply")));
    }
    let run = || {
        let (file, mut pass) = (File::parse(bytes)?, Forward::new(gpu));
        model::run(&mut pass, &file)?;
        model::compare(&file, &pass.run()?)
    };
    Ok(Done::Compared { path: "scalar".into(), against: EXPECTED, judged: judged(run)? })
}

/// All states as one result.
fn judged(run: impl FnOnce() -> Result<model::States, model::Error>) -> Result<Judged> {
    let states = run().map_err(|error| anyhow!(error))?;
    let judged = states.iter().map(|state| Judged::tensor(&state.name, &state.shape, &state.found));
    judged.reduce(Judged::and).context("the model leaves no states")
}
