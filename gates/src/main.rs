//! `gates FILE`: every variant as JSON, for the checks that other compilers make (`cargo xtask gates`).

use std::process::ExitCode;

use anyhow::{Context, Result};

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
    let list: Vec<_> = variants
        .iter()
        .map(
            |shader| serde_json::json!({ "label": shader.label, "entry": shader.entry, "text": shader.text }),
        )
        .collect();
    std::fs::write(&path, serde_json::to_string(&list)?).with_context(|| format!("cannot write {path}"))?;
    println!("{} variants", list.len());
    Ok(())
}
