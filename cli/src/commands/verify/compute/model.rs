//! Whole models.

use super::{Done, EXPECTED};
use crate::commands::verify::record::Judged;
use anyhow::{Context, Result, anyhow};
use wgpu_attention::{Element, ElementType, Gpu, KernelPath};
use wgpu_attention_models::{self as model, Exact, File, Forward};

/// The model in f64 against the expected states.
pub(super) fn on_cpu(bytes: &[u8]) -> Result<Judged> {
    judged(bytes, |file| {
        let mut exact = Exact::default();
        model::run(&mut exact, file)?;
        exact.states.extend(model::gradients(None, file)?.unwrap_or_default());
        Ok(exact.states)
    })
}

/// The model on a device against the expected states.
pub(super) fn on_gpu<E: Element>(gpu: &Gpu, bytes: &[u8]) -> Result<Done> {
    if E::TYPE != ElementType::F32 {
        return Ok(Done::Unsupported(format!("models run in f32, not in {}", E::TYPE)));
    }
    if let Some(path @ KernelPath::Cooperative) = gpu.kernels().options().path {
        return Ok(Done::Unsupported(format!("models run in f32, which the {path} path does not multiply")));
    }
    let run = |file: &File<'_>| {
        let mut pass = Forward::new(gpu);
        model::run(&mut pass, file)?;
        let mut states = pass.run()?;
        states.extend(model::gradients(Some(gpu), file)?.unwrap_or_default());
        Ok(states)
    };
    Ok(Done::Compared { path: "scalar".into(), against: EXPECTED, judged: judged(bytes, run)?.into() })
}

/// The states and gradients that `run` leaves, by name.
type Left = Result<model::Values, model::Error>;

/// All states and gradients as one result.
fn judged(bytes: &[u8], run: impl FnOnce(&File<'_>) -> Left) -> Result<Judged> {
    let compared = || {
        let file = File::parse(bytes)?;
        Ok((model::compare(&file, &run(&file)?)?, file.unread()))
    };
    let (states, unread) = compared().map_err(|error: model::Error| anyhow!(error))?;
    let judged = states.iter().map(|state| Judged::tensor(&state.name, &state.shape, &state.found));
    let judged = judged.reduce(Judged::and).context("the model leaves no states")?;
    let gradient = |name: &String| name == "dout" || name.starts_with("d.") || name.starts_with("dblock");
    let judged = if unread.iter().any(gradient) { judged.without("gradients") } else { judged };
    let others = unread.iter().filter(|name| !gradient(name)).map(|name| format!("tensor `{name}`"));
    let names: Vec<String> = others.collect();
    Ok(match crate::case::not_there(&names) {
        Some(reason) => judged.not_understood(reason),
        None => judged,
    })
}
