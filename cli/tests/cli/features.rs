//! `features`: hidden states of golden models, which Hugging Face computed, combined and pooled.

use super::support::{File, Outcome, Scratch, golden, wgpu_attention};
use serde_json::json;

/// Runs the command on a model; the features go to a file of the scratch folder.
fn features(scratch: &Scratch, model: &str, more: &[&str]) -> Outcome {
    let out = scratch.file("features.safetensors");
    wgpu_attention(["features", "--model", model, "--out", &out].iter().chain(more))
}

fn golden_path(name: &str) -> String {
    golden(name).to_string_lossy().into_owned()
}

/// What was written: values and shape.
fn written(scratch: &Scratch) -> (Vec<f32>, Vec<usize>) {
    let bytes = std::fs::read(scratch.file("features.safetensors")).expect("features");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let view = file.tensor("features").expect("features");
    assert_eq!(file.names(), ["features"]);
    (bytemuck::pod_collect_to_vec(view.data()), view.shape().to_vec())
}

fn assert_close(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (n, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() < 1e-4, "{what}: element {n} is {got}, not {want}");
    }
}

const WIDTH: usize = 32;
const LEN: usize = 20;
/// Tokens of the second text that the golden mask shows.
const SHOWN: usize = 15;

/// Every choice of layers, against the states in the file.
#[test]
fn layers_are_those_of_the_table() {
    let scratch = Scratch::new("features-layers");
    let case = File::golden("e2e_albert");
    let state = |n: usize| case.floats(&format!("hidden_{n}"));
    let sum = |states: &[(usize, f32)]| -> Vec<f32> {
        let each: Vec<(Vec<f32>, f32)> = states.iter().map(|&(n, weight)| (state(n), weight)).collect();
        (0..each[0].0.len()).map(|n| each.iter().map(|(state, weight)| state[n] * weight).sum()).collect()
    };
    let joined: Vec<f32> = {
        let states: Vec<_> = (1..=4).map(state).collect();
        (0..2 * LEN)
            .flat_map(|row| states.iter().flat_map(move |s| &s[row * WIDTH..][..WIDTH]))
            .copied()
            .collect()
    };
    let ones = [(1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0)];
    let choices: [(&[&str], Vec<f32>); 8] = [
        (&["--layers", "embeddings"], state(0)),
        (&["--layers", "first"], state(1)),
        (&["--layers", "second-to-last"], state(3)),
        (&[], state(4)),
        (&["--layers", "sum-last-4"], sum(&ones)),
        (&["--layers", "all-sum"], sum(&ones)),
        (&["--layers", "concat-last-4"], joined),
        (
            &["--layers", "sum-last-4", "--weights", "0.5,-1,2,0"],
            sum(&[(1, 0.5), (2, -1.0), (3, 2.0), (4, 0.0)]),
        ),
    ];
    for (more, want) in choices {
        let text = features(&scratch, &golden_path("e2e_albert"), more).good();
        let (got, shape) = written(&scratch);
        assert_close(&got, &want, &format!("{more:?}"));
        assert_eq!(shape, [2, LEN, want.len() / 2 / LEN], "{text}");
    }
}

/// The second text of the golden case has padding, which does not count.
#[test]
fn tokens_are_pooled_over_the_mask() {
    let scratch = Scratch::new("features-pooled");
    let last = File::golden("e2e_albert").floats("hidden_4");
    let token = |text: usize, n: usize| &last[(text * LEN + n) * WIDTH..][..WIDTH];
    let counts = [LEN, SHOWN];
    let over = |with: fn(f32, f32) -> f32| -> Vec<f32> {
        let of = |text: usize, c: usize| {
            (0..counts[text]).map(|n| token(text, n)[c]).reduce(with).expect("tokens")
        };
        (0..2).flat_map(|text| (0..WIDTH).map(move |c| of(text, c))).collect()
    };
    let sums = over(|x, y| x + y);
    let mean: Vec<f32> = sums.iter().enumerate().map(|(n, sum)| sum / counts[n / WIDTH] as f32).collect();
    let cls = [token(0, 0), token(1, 0)].concat();
    for (pool, want) in [("mean", mean), ("cls", cls), ("max", over(f32::max))] {
        features(&scratch, &golden_path("e2e_albert"), &["--pool", pool]).good();
        let (got, shape) = written(&scratch);
        assert_close(&got, &want, pool);
        assert_eq!(shape, [2, WIDTH]);
    }
}

/// Hugging Face's folder of a BERT with a head on top, of the golden weights: names with `bert.`, and norms' old names.
#[test]
fn folders_and_tokens() {
    let scratch = Scratch::new("features-folder");
    let case = File::golden("e2e_bert");
    let folder = scratch.file("bert");
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut config = case.case["config"].clone();
    config["model_type"] = json!("bert");
    config["pruned_heads"] = json!({});
    std::fs::write(format!("{folder}/config.json"), config.to_string()).expect("a file");
    let mut weights = File::default();
    for (name, tensor) in &case.tensors {
        let Some(name) = name.strip_prefix("w.") else { continue };
        let name =
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
        weights.tensors.insert(format!("bert.{name}"), tensor.clone());
    }
    weights.write_text(format!("{folder}/model.safetensors"), None);
    let mut input = File::default();
    for name in ["input_ids", "attention_mask", "token_type_ids"] {
        input.tensors.insert(name.into(), case.tensors[name].clone());
    }
    input.write_text(scratch.file("in.safetensors"), None);
    let last = case.floats("last");
    features(&scratch, &folder, &["--input", &scratch.file("in.safetensors")]).good();
    assert_close(&written(&scratch).0, &last, "from a folder");

    // Texts of different lengths: what is padded is as it is alone.
    features(&scratch, &folder, &["--tokens", "7,8,9,10,11", "--pool", "mean"]).good();
    let alone = written(&scratch).0;
    features(&scratch, &folder, &["--tokens", "1,2,3,4,5,6,7; 7, 8,9,10,11", "--pool", "mean"]).good();
    let (both, shape) = written(&scratch);
    assert_eq!(shape, [2, WIDTH]);
    assert_close(&both[WIDTH..], &alone, "padded");
    assert_ne!(both[..WIDTH], alone[..]);

    // The tokens of a folder are nobody's.
    let error = features(&scratch, &folder, &[]).refused(1);
    assert!(error.contains("--tokens or --input: need the tokens"), "{error}");
}

#[test]
fn what_does_not_fit_is_named() {
    let scratch = Scratch::new("features-refused");
    let bert = golden_path("e2e_bert");
    for (model, more, need) in [
        (&bert, &["--layers", "sum-last-4"][..], "layers: need a model of at least 4, found 2"),
        (&bert, &["--tokens", "1,50"], "tensor `input_ids`: need ids below 50, found 50"),
        (&bert, &["--tokens", "1,x"], "--tokens: need ids of at least 0"),
        (&bert, &["--tokens", "1;;2"], "--tokens: need ids of at least 0"),
        (&bert, &["--weights", "1"], "weights: need layers that are added up"),
        (&bert, &["--layers", "all-sum", "--weights", "1"], "weights: need 2, one for each layer, found 1"),
        (&golden_path("e2e_gpt2"), &[], "need a model of albert or bert, got `gpt2`"),
        (&golden_path("sdpa_causal_s7_d16_h2_b1"), &[], "family: need a name"),
        (&scratch.file("nothing"), &[], "nothing"),
    ] {
        let error = features(&scratch, model, more).refused(1);
        assert!(error.contains(need), "{error}");
    }
    let mut hidden = File::golden("e2e_bert");
    let mask = hidden.tensors.get_mut("attention_mask").expect("a mask");
    mask.2[..4 * LEN].fill(0);
    hidden.write(scratch.file("hidden.safetensors"));
    let error = features(&scratch, &scratch.file("hidden.safetensors"), &["--pool", "mean"]).refused(1);
    assert!(error.contains("need a token that is seen in text 0"), "{error}");
    assert!(!scratch.names().contains(&"features.safetensors".into()));
    let both = ["--tokens", "1", "--input", "x"];
    features(&scratch, &bert, &both).refused(2);
}
