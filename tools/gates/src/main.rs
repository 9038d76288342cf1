//! `gates FILE`: shaders as JSON, for the checks outside Rust (`cargo xtask gates`): every variant, and small ones to run.

use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use wgpu_attention::wgsl::{Shader, variants};
use wgpu_attention_gates::{Parsed, small};

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
    // No other compiler knows wgpu's cooperative matrices.
    let known =
        |shader: &&Shader| Parsed::new(&shader.text, shader.entry).is_ok_and(|parsed| !parsed.has_matrices());
    let one =
        |name: &str, shader: &Shader| json!({ "label": name, "entry": shader.entry, "text": shader.text });
    let all: Vec<Value> = variants().iter().filter(known).map(|shader| one(&shader.label, shader)).collect();
    let small: Vec<Value> =
        small().iter().map(|(name, shader)| run_by_an_interpreter(name, shader)).collect();
    let text = json!({ "variants": all, "small": small }).to_string();
    std::fs::write(&path, text).with_context(|| format!("cannot write {path}"))?;
    println!("{} variants, {} small ones", all.len(), small.len());
    Ok(())
}

/// A shader to be run, with the names of its bindings, of which the n-th is number n + 1. The interpreter knows no constants
/// where bindings are numbered: they become numbers in the text, line by line.
fn run_by_an_interpreter(name: &str, shader: &Shader) -> Value {
    let names: Vec<&str> = shader.bindings.iter().map(|binding| binding.name.as_str()).collect();
    let text = names.iter().enumerate().fold(shader.text.clone(), |text, (n, name)| {
        text.replace(&format!("@binding(BINDING_{name})"), &format!("@binding({})", n + 1))
    });
    json!({ "label": name, "entry": shader.entry, "text": text, "bindings": names })
}
