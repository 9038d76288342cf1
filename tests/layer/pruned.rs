//! Models without some of their heads, which heads matter, and ALBERT's shared layers: on the device against f64.

use crate::harness::gpu;
use safetensors::SafeTensors;
use serde_json::json;
use std::path::PathBuf;
use wgpu_attention_models::{self as model, Exact, File, Forward, Origin, Training};

const HEADS: usize = 2;
const WIDTH: usize = 32;

fn golden(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    std::fs::read(path).expect("a golden case")
}

/// The golden BERT with the output of some heads times a factor: the columns of the output projections that read them.
fn scaled(name: &str, heads: &[(usize, usize)], factor: f32) -> Vec<u8> {
    let mut bytes = golden(name);
    for (layer, head) in heads {
        let tensor = format!("w.encoder.layer.{layer}.attention.output.dense.weight");
        let (header, metadata) = SafeTensors::read_metadata(&bytes).expect("a header");
        let (start, end) = metadata.info(&tensor).expect("a tensor").data_offsets;
        for (n, word) in bytes[header + 8..][start..end].chunks_exact_mut(4).enumerate() {
            if n % WIDTH / (WIDTH / HEADS) == *head {
                let value = f32::from_le_bytes([word[0], word[1], word[2], word[3]]) * factor;
                word.copy_from_slice(&value.to_le_bytes());
            }
        }
    }
    bytes
}

/// The states of a file in f64.
fn exact(file: &File<'_>) -> Vec<(String, Vec<f32>)> {
    let mut machine = Exact::default();
    model::run(&mut machine, file).expect("a good model");
    machine.states
}

fn on_device(file: &File<'_>) -> Vec<(String, Vec<f32>)> {
    let mut pass = Forward::new(gpu());
    model::run(&mut pass, file).expect("a good model");
    // Twice: what a pass leaves in its buffers is no input of the next.
    pass.run().expect("a pass");
    pass.run().expect("a pass")
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |most, (a, b)| most.max((a - b).abs()))
}

#[test]
fn a_pruned_head_counts_as_0_before_the_output_projection() {
    let bytes = golden("e2e_bert.safetensors");
    let whole = exact(&File::parse(&bytes).expect("a model"));
    for heads in [vec![(0, 1)], vec![(1, 0)], vec![(0, 0), (1, 1)]] {
        let mut file = File::parse(&bytes).expect("a model");
        let lists = heads.iter().map(|(layer, head)| (layer.to_string(), json!([head])));
        file.set("pruned_heads", lists.collect());
        let zeroed = scaled("e2e_bert.safetensors", &heads, 0.0);
        let want = exact(&File::parse(&zeroed).expect("a model"));
        for found in [on_device(&file), exact(&file)] {
            assert_eq!(found.len(), want.len());
            for ((name, got), (_, want)) in found.iter().zip(&want) {
                let far = distance(got, want);
                assert!(far < 2e-5, "{heads:?}, {name}: {far}");
            }
        }
        let last = |states: &[(String, Vec<f32>)]| states.iter().find(|state| state.0 == "last").cloned();
        let moved = distance(&last(&whole).expect("a state").1, &last(&want).expect("a state").1);
        assert!(moved > 0.01, "{heads:?} moves the last state by {moved}");
    }
}

/// The gradients of a model without a head are those of the one whose output projection reads zeros, and 0 by what only the head used.
#[test]
fn gradients_without_a_head() {
    let bytes = golden("e2e_bert_grad.safetensors");
    let mut file = File::parse(&bytes).expect("a model");
    let (dout, _) = file.values("dout").expect("a gradient");
    file.set("pruned_heads", json!({"1": [0]}));
    let name = "encoder.layer.1.attention.self.query.weight";
    let gradient = |file: &File<'_>| {
        let mut pass = Training::new(gpu());
        model::run(&mut pass, file).expect("a good model");
        let last = pass.state("last").expect("a state");
        let dout = model::Machine::upload(&mut pass, &dout);
        let learnt = pass.differentiate(&last, &dout).expect("gradients");
        pass.run().expect("a pass");
        pass.run().expect("a pass");
        let of = |name: &str| {
            let one = learnt.iter().find(|one| one.origin == Origin::whole(name)).expect("a parameter");
            let gradient = one.gradient.as_ref().expect("a gradient");
            pass.read(&[gradient]).expect("values").remove(0)
        };
        [of(name), of("encoder.layer.0.intermediate.dense.weight")]
    };
    let zeroed = scaled("e2e_bert_grad.safetensors", &[(1, 0)], 0.0);
    let want = gradient(&File::parse(&zeroed).expect("a model"));
    let got = gradient(&file);
    for (got, want) in got.iter().zip(&want) {
        let largest = want.iter().fold(0f32, |most, x| most.max(x.abs()));
        assert!(largest > 0.01 && distance(got, want) < 1e-4 * largest.max(1.0), "{}", distance(got, want));
    }
    // Rows of W_Q are of the heads in turn.
    assert!(got[0][..WIDTH * WIDTH / 2].iter().all(|&x| x == 0.0));
}

#[test]
fn importance_is_the_slope_by_a_factor_of_the_head() {
    let name = "e2e_bert_grad.safetensors";
    let bytes = golden(name);
    let file = File::parse(&bytes).expect("a model");
    let (dout, shape) = file.values("dout").expect("a gradient");
    let importance = model::head_importance(gpu(), &file, &dout).expect("importance");
    let (batch, item) = (shape[0], shape[1] * shape[2]);
    // The loss of each item.
    let losses = |bytes: &[u8]| -> Vec<f64> {
        let states = exact(&File::parse(bytes).expect("a model"));
        let (_, last) = states.into_iter().find(|state| state.0 == "last").expect("a state");
        let terms = last.iter().zip(&dout).map(|(x, dout)| f64::from(*x) * f64::from(*dout));
        terms.collect::<Vec<_>>().chunks(item).map(|item| item.iter().sum()).collect()
    };
    let step = 1.0 / 64.0;
    let mut slopes = vec![vec![0.0; HEADS]; 2];
    for (layer, head) in (0..2).flat_map(|layer| (0..HEADS).map(move |head| (layer, head))) {
        let [up, down] = [step, -step].map(|step| losses(&scaled(name, &[(layer, head)], 1.0 + step)));
        let slope = |(up, down): (&f64, &f64)| ((up - down) / (2.0 * f64::from(step))).abs();
        slopes[layer][head] = up.iter().zip(&down).map(slope).sum::<f64>() / batch as f64;
    }
    let largest = slopes.iter().flatten().fold(0.0f64, |most, &x| most.max(x));
    println!("importance {importance:?}, by differences {slopes:?}");
    for (got, want) in importance.iter().flatten().zip(slopes.iter().flatten()) {
        assert!((got - want).abs() < 0.005 * largest, "{importance:?} {slopes:?}");
    }
}

#[test]
fn bad_lists_of_heads_are_named() {
    let bytes = golden("e2e_bert.safetensors");
    for (list, need) in [
        (json!({"2": [0]}), "layers below 2"),
        (json!({"0": [2]}), "heads below 2"),
        (json!({"0": [0, 1]}), "one head or more left"),
        (json!([0]), "lists of heads by layer"),
        (json!({"0": 1}), "lists of heads by layer"),
    ] {
        let mut file = File::parse(&bytes).expect("a model");
        file.set("pruned_heads", list);
        let error = model::run(&mut Exact::default(), &file).expect_err("an error").to_string();
        assert!(error.starts_with("config `pruned_heads`: need") && error.contains(need), "{error}");
    }
    let bigbird = golden("e2e_bigbird_eval.safetensors");
    let mut other = File::parse(&bigbird).expect("a model");
    other.set("pruned_heads", json!({"0": [0]}));
    let error = model::run(&mut Exact::default(), &other).expect_err("an error").to_string();
    assert!(error.contains("pruned_heads"), "{error}");
}

/// Layers that share weights bind the same buffers: as many parameters as groups have, however many layers there are.
#[test]
fn albert_uploads_each_group_once() {
    let bytes = golden("e2e_albert.safetensors");
    let parameters = |layers: usize, groups: usize| {
        let mut file = File::parse(&bytes).expect("a model");
        file.set("num_hidden_layers", json!(layers));
        file.set("num_hidden_groups", json!(groups));
        let mut pass = Training::new(gpu());
        model::run(&mut pass, &file).expect("a good model");
        pass.parameters().count()
    };
    assert_eq!(parameters(4, 1), parameters(12, 1));
    assert_eq!(parameters(4, 2) - parameters(4, 1), 16, "one more group");
    let mut file = File::parse(&bytes).expect("a model");
    file.set("num_hidden_groups", json!(5));
    let error = model::run(&mut Exact::default(), &file).expect_err("an error").to_string();
    assert!(error.contains("num_hidden_groups"), "{error}");
}
