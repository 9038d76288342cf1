//! Which heads of a model matter (Michel, Levy and Neubig 2019): ranks those of a file by their gradients, prunes them from the least on, and
//! prints how the loss moves.
//!
//! ```text
//! cargo run --example prune_heads -- golden/e2e_bert_grad.safetensors
//! ```
//!
//! The file is a BERT with a `dout`, the gradient of the loss by the last state; the loss is sum(last dout) per batch item. A pruned head is not
//! computed, and counts as 0 before the output projection. Each layer keeps one head.

use serde_json::{Value, json};
use wgpu_attention::Gpu;
use wgpu_attention_models::{self as model, Error, File, Forward, head_importance};

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path] = &arguments[..] else { return Err("usage: prune_heads FILE".into()) };
    let bytes = std::fs::read(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let mut file = File::parse(&bytes)?;
    file.check_family("bert")?;
    let (dout, shape) = file.values("dout")?;
    let gpu = Gpu::new()?;
    let importance = head_importance(&gpu, &file, &dout)?;
    println!("{}: the importance of each head", gpu.info().name);
    for (layer, heads) in importance.iter().enumerate() {
        let heads: Vec<String> = heads.iter().map(|importance| format!("{importance:9.4}")).collect();
        println!("layer {layer}: {}", heads.join(" "));
    }

    let ranked = importance.iter().enumerate().flat_map(|(layer, heads)| {
        heads.iter().enumerate().map(move |(head, importance)| (*importance, layer, head))
    });
    let mut ranked: Vec<_> = ranked.collect();
    ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
    let whole = last(&gpu, &file)?;
    let mut pruned = vec![vec![]; importance.len()];
    let loss = |last: &[f32]| -> f64 {
        last.iter().zip(&dout).map(|(x, dout)| f64::from(*x) * f64::from(*dout)).sum::<f64>()
            / shape[0] as f64
    };
    println!(
        "| pruned (layer.head) | loss | moved by | largest change of the last state |\n|---|---:|---:|---:|"
    );
    println!("| none | {:.4} | | |", loss(&whole));
    let mut named = vec![];
    for (_, layer, head) in ranked {
        if pruned[layer].len() + 1 == importance[layer].len() {
            continue;
        }
        pruned[layer].push(head);
        named.push(format!("{layer}.{head}"));
        file.set("pruned_heads", lists(&pruned));
        let state = last(&gpu, &file)?;
        let far = state.iter().zip(&whole).fold(0.0f32, |most, (x, y)| most.max((x - y).abs()));
        let (loss, before) = (loss(&state), loss(&whole));
        println!("| {} | {loss:.4} | {:+.4} | {far:.4} |", named.join(" "), loss - before);
    }
    Ok(())
}

/// Hugging Face's `pruned_heads`.
fn lists(pruned: &[Vec<usize>]) -> Value {
    pruned.iter().enumerate().map(|(layer, heads)| (layer.to_string(), json!(heads))).collect()
}

/// The last state.
fn last(gpu: &Gpu, file: &File<'_>) -> Result<Vec<f32>, Error> {
    let mut pass = Forward::new(gpu);
    model::run(&mut pass, file)?;
    let states = pass.run()?.into_iter().find(|(name, _)| name == "last");
    states.map(|(_, values)| values).ok_or_else(|| "need a state `last`".into())
}
