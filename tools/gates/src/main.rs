//! `gates FILE`: shaders as JSON, for the checks outside Rust (`cargo xtask gates`): every variant, the same in HLSL, and small ones
//! to run.

use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use wgpu_attention::wgsl::{Shader, variants};
use wgpu_attention_gates::{Language, Parsed, small, translate};

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
    let (mut all, mut hlsl, mut without) = (vec![], vec![], vec![]);
    for shader in variants() {
        let parsed = Parsed::new(&shader.text, shader.entry).with_context(|| shader.label.clone())?;
        // No other compiler knows wgpu's cooperative matrices, or subgroups that a text does not enable, as wgpu has them.
        if parsed.has_matrices() || parsed.has_subgroups() {
            without.push(shader.label);
            continue;
        }
        let translated = translate(&parsed, Language::Hlsl).with_context(|| shader.label.clone())?;
        hlsl.push(json!({ "label": shader.label, "text": translated }));
        all.push(json!({ "label": shader.label, "entry": shader.entry, "text": shader.text }));
    }
    let small: Vec<Value> =
        small().iter().map(|(name, shader)| run_by_an_interpreter(name, shader)).collect();
    let text = json!({ "variants": all, "hlsl": hlsl, "without_hlsl": without, "small": small });
    std::fs::write(&path, text.to_string()).with_context(|| format!("cannot write {path}"))?;
    println!(
        "{} variants, {} with matrices or subgroups, {} small ones",
        all.len(),
        without.len(),
        small.len()
    );
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
