//! The command line of the examples `encoder` and `decoder`. The models are in `crates/models`.

use wgpu_attention::{AnyPattern, Gpu};
use wgpu_attention_models::{self as model, Error, File, Forward};

/// How a family computes.
pub(crate) type Family = fn(&mut Forward, &File<'_>, AnyPattern) -> Result<(), Error>;

/// `FILE [--pattern PATTERN]`. Under the model's own pattern the states are compared with the file's; under another they are
/// shown.
pub(crate) fn run(example: &str, own_pattern: &str, family: Family) -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (path, pattern) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [path] => (path, None),
        [path, "--pattern", pattern] => (path, Some(pattern)),
        _ => return Err(format!("usage: {example} FILE [--pattern PATTERN]").into()),
    };
    let bytes = std::fs::read(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let file = File::parse(&bytes)?;
    let gpu = Gpu::new()?;
    let mut pass = Forward::new(&gpu);
    family(&mut pass, &file, AnyPattern::parse(pattern.unwrap_or(own_pattern))?)?;
    let states = pass.run()?;
    println!("{}: {} recordings in one encoder", gpu.info().name, pass.calls());
    if pattern.is_none() {
        for model::State { name, found, .. } in model::compare(&file, &states)? {
            if !found.pass {
                return Err(format!("`{name}`: {found}").into());
            }
            println!("{name}: {found}");
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
