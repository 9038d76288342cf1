//! Reversible layers that other systems ran: feed-forward blocks, and Reformers.

use crate::harness::gpu;
use std::path::PathBuf;
use wgpu_attention_models::{self as model, Exact, File, Forward, State};

fn bytes(name: &str) -> Vec<u8> {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(name).with_extension("safetensors");
    std::fs::read(path).expect(name)
}

const BLOCKS: [&str; 2] = ["reversible_depth2_d10", "reversible_depth3"];
const REFORMERS: [&str; 2] = ["e2e_reformer_causal_eval", "e2e_reformer_train"];

fn judged(file: &File<'_>, what: &str, states: &[(String, Vec<f32>)]) -> usize {
    let found = model::compare(file, states).unwrap();
    for State { name, found, .. } in &found {
        println!("{what}, {name}: {found}");
        assert!(found.pass, "{what}, {name}: {found}");
    }
    found.len()
}

/// On the device and in f64: forward, and every gradient that the file has.
#[test]
fn blocks_and_models_are_within_the_bound() {
    for name in BLOCKS.into_iter().chain(REFORMERS) {
        let bytes = bytes(name);
        let file = File::parse(&bytes).unwrap();
        let mut pass = Forward::new(gpu());
        model::run(&mut pass, &file).unwrap();
        let mut count = judged(&file, name, &pass.run().unwrap());
        let mut exact = Exact::default();
        model::run(&mut exact, &file).unwrap();
        assert_eq!(judged(&file, name, &exact.states), count);
        let gradients = model::gradients(Some(gpu()), &file).unwrap();
        assert_eq!(gradients.is_some(), name != "e2e_reformer_causal_eval");
        count += judged(&file, name, &gradients.unwrap_or_default());
        if let Some(gradients) = model::gradients(None, &file).unwrap() {
            assert!(BLOCKS.contains(&name));
            judged(&file, &format!("{name} in f64"), &gradients);
        }
        assert!(file.unread().is_empty(), "{name}: {:?} are not compared", file.unread());
        // By weight or tensor, a file of two layers has at least so many.
        assert!(count >= if name == "e2e_reformer_causal_eval" { 7 } else { 26 }, "{name}: {count}");
    }
}

/// The gradients of another input are told from the expected ones.
#[test]
fn other_gradients_are_found() {
    let bytes = bytes("e2e_reformer_train");
    let file = File::parse(&bytes).unwrap();
    let gradients = model::gradients(Some(gpu()), &file).unwrap().unwrap();
    for at in [0, 7, gradients.len() - 1] {
        let mut other = gradients.clone();
        assert!(other[at].1.len() > 3);
        other[at].1[3] += 0.01;
        let found = model::compare(&file, &other).unwrap();
        let wrong: Vec<_> = found.iter().filter(|state| !state.found.pass).map(|state| &state.name).collect();
        assert_eq!(wrong, [&gradients[at].0]);
    }
}

/// The bytes of a case with another text in its header, as long as the one that it had.
fn edited(name: &str, find: &str, replacement: &str) -> Vec<u8> {
    assert_eq!(find.len(), replacement.len());
    let mut bytes = bytes(name);
    let at = bytes.windows(find.len()).position(|window| window == find.as_bytes()).expect(find);
    bytes[at..][..find.len()].copy_from_slice(replacement.as_bytes());
    bytes
}

#[test]
fn files_that_do_not_fit_are_named() {
    let error = |name: &str, find: &str, replacement: &str| {
        let bytes = edited(name, find, replacement);
        model::run(&mut Exact::default(), &File::parse(&bytes).unwrap()).unwrap_err().to_string()
    };
    let of_reformer = |find: &str, replacement: &str| error("e2e_reformer_causal_eval", find, replacement);
    for (find, replacement, words) in [
        (r#"\"local\""#, r#"\"loc4l\""#, "config `attn_layers`: need lsh or local, found `loc4l`"),
        (r#"num_hidden_layers\": 3"#, r#"num_hidden_layers\": 4"#, "config `attn_layers`: need 4"),
        (r#"axial_pos_embds\": true"#, r#"axial_pos_embds\": null"#, "config `axial_pos_embds`: need true"),
        (
            r#"pos_embds_dim\": [8, 16]"#,
            r#"pos_embds_dim\": [8, 15]"#,
            "config `axial_pos_embds_dim`: need 24",
        ),
        (r#"pos_shape\": [8, 8]"#, r#"pos_shape\": [8, 7]"#, "input_ids: need at most 56 positions"),
        (
            r#"lsh_attn_chunk_length\": 16"#,
            r#"lsh_attn_chunk_length\": 15"#,
            "config `lsh_attn_chunk_length`",
        ),
        (
            r#"local_num_chunks_before\": 1"#,
            r#"local_num_chunks_before\": 4"#,
            "config `local_num_chunks_before`",
        ),
        (r#"num_buckets\": 8"#, r#"num_buckets\": 0"#, "config `num_buckets`: need whole numbers"),
        (r#"hidden_act\": \"relu"#, r#"hidden_act\": \"rely"#, "activation: need relu"),
        (
            "w.encoder.layer_norm.bias",
            "w.encoder.layer_norm.bics",
            "tensor `encoder.layer_norm.bias`: need [48]",
        ),
    ] {
        let message = of_reformer(find, replacement);
        assert!(message.starts_with(words), "{words}: {message}");
    }
    let of_blocks = |find: &str, replacement: &str| error("reversible_depth3", find, replacement);
    for (find, replacement, words) in [
        (r#"blocks\": 3"#, r#"blocks\": 4"#, "blocks: need 3, which have tensors, found 4"),
        ("layer_norm\\\"", "layer_nor0\\\"", "norm: need layer_norm or rms_norm"),
        ("out_in", "inwout", "weights: need out_in or in_out, found `inwout`"),
        (r#""block1.g.b2""#, r#""block1.g.b7""#, "tensor `block1.g.b2`: need [24], found none"),
    ] {
        let message = of_blocks(find, replacement);
        assert!(message.starts_with(words), "{words}: {message}");
    }
}
