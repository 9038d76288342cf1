//! A BERT-shaped encoder from a safetensors file with Hugging Face's tensor names, on the GPU, in one command encoder,
//! checked against the hidden states in the file:
//!
//! ```text
//! cargo run --features serde --example encoder -- golden/e2e_bert.safetensors
//! cargo run --features serde --example encoder -- golden/e2e_bert.safetensors --pattern window:before=4,after=0
//! ```
//!
//! Any pattern of the crate can take the place of `full`; the states then differ from the file's, and are only shown.

#[path = "model/mod.rs"]
mod model;

use model::{Error, File, bert, compare};
use wgpu_attention::{AnyPattern, Gpu};

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (path, pattern) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [path] => (path, None),
        [path, "--pattern", pattern] => (path, Some(pattern)),
        _ => return Err("usage: encoder FILE [--pattern PATTERN]".into()),
    };
    let bytes = std::fs::read(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let file = File::parse(&bytes)?;
    let gpu = Gpu::new()?;
    let pass = bert(&gpu, &file, AnyPattern::parse(pattern.unwrap_or("full"))?)?;
    let states = pass.run()?;
    println!("{}: {} recordings in one encoder", gpu.info().name, pass.calls());
    if pattern.is_none() {
        for (name, error) in compare(&file, &states)? {
            println!("{name}: right, largest error {error:.1e}");
        }
        return Ok(());
    }
    for (name, values) in &states {
        let mean = values.iter().map(|x| f64::from(x.abs())).sum::<f64>() / values.len() as f64;
        println!(
            "{name}: {} elements, mean size {mean:.4}, begins {:.4?}",
            values.len(),
            &values[..values.len().min(4)]
        );
    }
    Ok(())
}
