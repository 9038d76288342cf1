//! Layers that share their weights, as ALBERT's do (Lan 2020): what the weights take on the device, beside as many layers with weights of
//! their own.
//!
//! ```text
//! cargo run --example albert -- golden/e2e_albert.safetensors
//! cargo run --example albert -- golden/e2e_bert.safetensors
//! ```
//!
//! An ALBERT file runs as it is, against the states in it. Of a BERT file the first layer's weights become those of all layers, behind an
//! embedding that is as wide as they are: another model, whose states on the device are compared with those in f64.

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::json;
use std::collections::HashMap;
use wgpu_attention::Gpu;
use wgpu_attention_models::{self as model, Error, Exact, File, Forward, Training};

/// What ALBERT calls BERT's modules: of the first layer, and of the rest.
const NAMES: [(&str, &str); 8] = [
    ("attention.self.query", "attention.query"),
    ("attention.self.key", "attention.key"),
    ("attention.self.value", "attention.value"),
    ("attention.output.dense", "attention.dense"),
    ("attention.output.LayerNorm", "attention.LayerNorm"),
    ("intermediate.dense", "ffn"),
    ("output.dense", "ffn_output"),
    ("output.LayerNorm", "full_layer_layer_norm"),
];

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path] = &arguments[..] else { return Err("usage: albert FILE".into()) };
    let bytes = std::fs::read(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let gpu = Gpu::new()?;
    let is_bert = File::parse(&bytes)?.family()? == "bert";
    let shared = if is_bert { with_one_layer(&bytes)? } else { bytes.clone() };
    check(&gpu, &File::parse(&shared)?, !is_bert)?;

    println!("weights on {}, in KiB:", gpu.info().name);
    println!("| layers | of the layers | of all | layers with weights of their own |\n|---:|---:|---:|---:|");
    let mut file = File::parse(&shared)?;
    let groups = file.size_or("num_hidden_groups", 1)?;
    for layers in [file.size("num_hidden_layers")?, 12, 24] {
        file.set("num_hidden_layers", json!(layers));
        let [of_layers, others] = weights(&gpu, &file)?;
        let own = of_layers / groups as u64 * layers as u64;
        let kib = [of_layers, of_layers + others, own].map(|bytes| bytes as f64 / 1024.0);
        println!("| {layers} | {:.1} | {:.1} | {:.1} |", kib[0], kib[1], kib[2]);
    }
    Ok(())
}

/// The states on the device against those of the file, or against those in f64.
fn check(gpu: &Gpu, file: &File<'_>, has_states: bool) -> Result<(), Error> {
    let mut pass = Forward::new(gpu);
    model::run(&mut pass, file)?;
    let states = pass.run()?;
    if has_states {
        for model::State { name, found, .. } in model::compare(file, &states)? {
            println!("{name}: {found}");
            if !found.pass {
                return Err(format!("`{name}` is another one").into());
            }
        }
        return Ok(());
    }
    let mut exact = Exact::default();
    model::run(&mut exact, file)?;
    for ((name, got), (_, want)) in states.iter().zip(&exact.states) {
        let far = got.iter().zip(want).fold(0.0f32, |most, (got, want)| most.max((got - want).abs()));
        println!("{name}: {} elements, at most {far:.1e} from f64", got.len());
        if far.is_nan() || far > 1e-4 {
            return Err(format!("`{name}` is another one").into());
        }
    }
    Ok(())
}

/// Bytes of the weights that lie on the device: of the layers, and the others.
fn weights(gpu: &Gpu, file: &File<'_>) -> Result<[u64; 2], Error> {
    let mut pass = Training::new(gpu);
    model::run(&mut pass, file)?;
    let mut bytes = [0, 0];
    for (origin, tensor) in pass.parameters() {
        bytes[usize::from(!origin.name.starts_with("encoder.albert_layer_groups."))] += tensor.size();
    }
    Ok(bytes)
}

/// A BERT file as an ALBERT file whose one layer is BERT's first.
fn with_one_layer(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    let case = header.metadata().as_ref().and_then(|metadata| metadata.get("case"));
    let mut case: serde_json::Value = serde_json::from_str(case.ok_or("metadata: need a key `case`")?)?;
    let width = case["config"]["hidden_size"].as_u64().ok_or("config `hidden_size`: need a size")? as usize;
    case["family"] = json!("albert");
    case["config"]["embedding_size"] = json!(width);
    case["config"]["hidden_act"] = json!("gelu");

    let file = SafeTensors::deserialize(bytes)?;
    let mut tensors: Vec<(String, TensorView<'_>)> = vec![];
    let layer = "w.encoder.albert_layer_groups.0.albert_layers.0";
    for (bert, albert) in NAMES {
        for part in ["weight", "bias"] {
            let view = file.tensor(&format!("w.encoder.layer.0.{bert}.{part}"))?;
            tensors.push((format!("{layer}.{albert}.{part}"), view));
        }
    }
    for name in file.names() {
        let pooler = name.replace("w.pooler.dense.", "w.pooler.");
        let is_state = name.starts_with("hidden_") || ["last", "pooled"].contains(&name);
        if !is_state && !name.starts_with("w.encoder.") {
            tensors.push((pooler, file.tensor(name)?));
        }
    }
    // The product that widens the embedding is the identity.
    let identity: Vec<f32> = (0..width * width).map(|n| f32::from(u8::from(n % (width + 1) == 0))).collect();
    let (widen, zeros) = (bytemuck::cast_slice(&identity), vec![0; 4 * width]);
    let widened = "w.encoder.embedding_hidden_mapping_in";
    tensors.push((format!("{widened}.weight"), TensorView::new(Dtype::F32, vec![width, width], widen)?));
    tensors.push((format!("{widened}.bias"), TensorView::new(Dtype::F32, vec![width], &zeros)?));
    let metadata = HashMap::from([("case".to_owned(), case.to_string())]);
    Ok(safetensors::serialize(tensors, Some(metadata))?)
}
