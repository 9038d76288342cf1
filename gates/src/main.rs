//! `gates FILE`: every variant as JSON, for the checks that other compilers make (`cargo xtask gates`).

use std::process::ExitCode;

use anyhow::{Context, Result};
use wgpu_attention::wgsl::Shader;
use wgpu_attention_gates::Parsed;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let path = std::env::args().nth(1).context("gates FILE: no file")?;
    let variants = wgpu_attention::wgsl::variants();
    // No other compiler knows wgpu's cooperative matrices.
    let known =
        |shader: &&Shader| Parsed::new(&shader.text, shader.entry).is_ok_and(|parsed| !parsed.has_matrices());
    let list: Vec<_> = variants
        .iter()
        .filter(known)
        .map(
            |shader| serde_json::json!({ "label": shader.label, "entry": shader.entry, "text": shader.text }),
        )
        .collect();
    std::fs::write(&path, serde_json::to_string(&list)?).with_context(|| format!("cannot write {path}"))?;
    println!("{} variants", list.len());
    Ok(())
}
