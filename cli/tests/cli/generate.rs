//! `generate`.

use super::support::{File, Outcome, Scratch, command, golden, wgpu_attention, without_adapter};
use serde_json::{Value, json};
#[cfg(feature = "tokenizer")]
use std::io::Write;
use std::process::Stdio;
use wgpu_attention::{IntegerFormat, IntegerType, QuantizeRule, QuantizeShape, ScaleGroups};
use wgpu_attention_models::{Exact, logits};

const GPT2: &str = "golden/e2e_gpt2.safetensors";

fn generate<'a>(args: impl IntoIterator<Item = &'a str>) -> Outcome {
    wgpu_attention(["generate", "--adapter", "0"].into_iter().chain(args))
}

/// The ids that a line of JSON has under a key.
fn ids(line: &Value, key: &str) -> Vec<u32> {
    let ids = line[key].as_array().unwrap_or_else(|| panic!("{line}"));
    ids.iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

/// What follows greedily, by whole passes in f64.
fn greedy(prompt: &[u32], tokens: usize) -> Vec<u32> {
    let bytes = std::fs::read(golden("e2e_gpt2")).expect("a golden file");
    let file = wgpu_attention_models::File::parse(&bytes).expect("a golden file");
    let mut text = prompt.to_vec();
    for _ in 0..tokens {
        let mut exact = Exact::default();
        logits(&mut exact, &file, &text).expect("a pass");
        let last = &exact.states.last().expect("logits").1[(text.len() - 1) * 50..];
        let best = (0..50).max_by(|&a, &b| last[a].total_cmp(&last[b])).expect("an id");
        text.push(best as u32);
    }
    text.split_off(prompt.len())
}

/// A model as a folder, with a tokenizer of 50 letters: id n is the n-th.
fn folder(name: &str) -> Scratch {
    let scratch = Scratch::new(name);
    let golden = File::golden("e2e_gpt2");
    let mut model = File::default();
    for (name, tensor) in golden.tensors {
        if let Some(name) = name.strip_prefix("w.") {
            model.tensors.insert(name.into(), tensor);
        }
    }
    model.write_text(scratch.path().join("model.safetensors"), None);
    let mut config = golden.case["config"].clone();
    config["model_type"] = "gpt2".into();
    write(&scratch, "config.json", &config);
    scratch
}

fn write(scratch: &Scratch, name: &str, value: &Value) {
    std::fs::write(scratch.path().join(name), value.to_string()).expect("written");
}

#[cfg(feature = "tokenizer")]
fn letter(id: u32) -> char {
    char::from_u32(0x410 + id).expect("a letter")
}

#[cfg(feature = "tokenizer")]
fn write_tokenizer(scratch: &Scratch) {
    let vocabulary: serde_json::Map<String, Value> =
        (0..50).map(|id| (letter(id).to_string(), id.into())).collect();
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary, "merges": []
    });
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": { "type": "Fuse" }, "model": model
    });
    write(scratch, "tokenizer.json", &tokenizer);
}

#[test]
fn greedy_tokens_are_those_of_whole_passes() {
    let want = greedy(&[7, 12, 3], 20);
    let args = ["--model", GPT2, "--tokens", "7,12,3", "--max-tokens", "20"];
    let outcome = generate(args.into_iter().chain(["--json"]));
    let line = outcome.json().remove(0);
    assert_eq!((ids(&line, "tokens"), ids(&line, "prompt")), (want.clone(), vec![7, 12, 3]));
    assert_eq!((&line["stopped"], &line["text"]), (&"max-tokens".into(), &Value::Null));
    for key in ["prefill_s", "prefill_tokens_per_s", "decode_s", "decode_tokens_per_s"] {
        assert!(line[key].as_f64().is_some_and(|x| x > 0.0), "{key}: {line}");
    }
    for key in ["recording_s_per_token", "submitting_s_per_token", "choosing_s_per_token"] {
        assert!(line[key].as_f64().is_some_and(|x| x > 0.0), "{key}: {line}");
    }
    // As a stream: ids on stdout, times on stderr.
    let outcome = generate(args);
    let words: Vec<String> = want.iter().map(u32::to_string).collect();
    assert!(
        outcome.stderr.contains("prompt of 3 tokens in ") && outcome.stderr.contains(" tokens/s; 20 tokens")
    );
    assert_eq!(outcome.good(), format!("{}\n", words.join(" ")));
    let quiet = generate(args.into_iter().chain(["--quiet"]));
    assert_eq!(quiet.stderr, "");
}

#[test]
fn a_text_ends() {
    // The model has 32 positions: 30 tokens behind 3, the last of which needs no position.
    let args = ["--model", GPT2, "--tokens", "7,12,3", "--max-tokens", "1000", "--json"];
    let line = generate(args).json().remove(0);
    assert_eq!((&line["stopped"], ids(&line, "tokens")), (&"full".into(), greedy(&[7, 12, 3], 30)));
    // At the model's own end, which is no part of it.
    let (scratch, tokens) = (folder("generate-ends"), ids(&line, "tokens"));
    let end = tokens[4];
    let at = tokens.iter().position(|&id| id == end).expect("there");
    write(&scratch, "generation_config.json", &json!({ "eos_token_id": [end, 49_999] }));
    let path = scratch.path().to_str().expect("UTF-8");
    let line = generate(["--model", path, "--tokens", "7,12,3", "--json"]).json().remove(0);
    assert_eq!((&line["stopped"], ids(&line, "tokens")), (&"end".into(), tokens[..at].to_vec()));
    let one = generate(["--model", GPT2, "--tokens", "7", "--max-tokens", "1", "--json"]).json().remove(0);
    assert_eq!((ids(&one, "tokens"), &one["decode_tokens_per_s"]), (greedy(&[7], 1), &Value::Null));
}

#[test]
fn seeds_and_ways_to_draw() {
    let tokens = |args: &[&str]| {
        let all = ["--model", GPT2, "--tokens", "1,2", "--max-tokens", "16", "--json"];
        ids(&generate(all.into_iter().chain(args.iter().copied())).json()[0], "tokens")
    };
    let warm = ["--temperature", "1.5", "--seed"];
    let seeded = |seed: &'static str| tokens(&[&warm[..], &[seed]].concat());
    assert_eq!(seeded("1"), seeded("1"));
    assert_ne!(seeded("1"), seeded("2"));
    // One of one is the most likely, however warm.
    let likeliest = tokens(&[]);
    assert_eq!(tokens(&["--temperature", "5", "--top-k", "1"]), likeliest);
    assert_eq!(tokens(&["--temperature", "5", "--top-p", "1e-9"]), likeliest);
    assert_eq!(tokens(&["--cache", "f16"]).len(), 16);
    assert_eq!(tokens(&["--cache", "bf16"]).len(), 16);
    assert_eq!(tokens(&["--cache", "int8"]).len(), 16);
}

/// A model in numbers that integers of this format stand for, its head a matrix of its own.
fn dequantised(scratch: &Scratch, format: IntegerFormat) {
    let mut model = File::read(scratch.path().join("model.safetensors"));
    let table = model.floats("transformer.wte.weight");
    model.set_floats("lm_head.weight", &[50, 32], &table);
    for name in model.tensors.keys().cloned().collect::<Vec<_>>() {
        let (is_turned, is_head) =
            (name.contains(".c_") && name.ends_with(".weight"), name == "lm_head.weight");
        if !(is_turned || is_head) {
            continue;
        }
        let (shape, values) = (model.shape(&name).to_vec(), model.floats(&name));
        // Rows are outputs: columns of what GPT-2 stores.
        let turned = |x: &[f32], width: usize| -> Vec<f32> {
            (0..width).flat_map(|n| x[n..].iter().step_by(width).copied()).collect()
        };
        let (rows, inner) = if is_turned { (shape[1], shape[0]) } else { (shape[0], shape[1]) };
        let numbers = if is_turned { turned(&values, rows) } else { values };
        let made = QuantizeShape::new(rows, inner, format, QuantizeRule::Symmetric).quantize(&numbers);
        let numbers = made.expect("integers").dequantized();
        model.set_floats(&name, &shape, &if is_turned { turned(&numbers, inner) } else { numbers });
    }
    model.write_text(scratch.path().join("model.safetensors"), None);
    let config = std::fs::read(scratch.path().join("config.json")).expect("there");
    let mut config: Value = serde_json::from_slice(&config).expect("JSON");
    config["tie_word_embeddings"] = false.into();
    write(scratch, "config.json", &config);
}

#[test]
fn weights_of_integers_are_the_numbers_that_they_stand_for() {
    let line = |model: &str, args: &[&str]| {
        let all = ["--model", model, "--tokens", "7,12,3", "--max-tokens", "20", "--json"];
        generate(all.into_iter().chain(args.iter().copied())).json().remove(0)
    };
    let numbers = line(GPT2, &[]);
    let int4 = IntegerFormat::new(IntegerType::I4).groups(ScaleGroups::Groups(32));
    for (name, format) in [("int8", IntegerFormat::new(IntegerType::I8)), ("int4", int4)] {
        let scratch = folder(&format!("generate-{name}"));
        dequantised(&scratch, format);
        let made = line(GPT2, &["--weights", name]);
        let want = line(scratch.path().to_str().expect("UTF-8"), &[]);
        assert_eq!(ids(&made, "tokens"), ids(&want, "tokens"), "{name}");
        let bytes = |line: &Value| line["weight_bytes"].as_u64().expect("bytes");
        // Tables, norms and biases stay; 2 layers of 12 x 32^2, and a head of the 50 ids, are integers.
        let matrices =
            2 * (format.bytes(96, 32) + format.bytes(32, 32) + format.bytes(128, 32) + format.bytes(32, 128));
        let saved = 4 * 2 * 12 * 32 * 32 - matrices - format.bytes(50, 32);
        assert_eq!(bytes(&numbers) - bytes(&made), saved as u64, "{name}");
        assert_eq!(made["cache_bytes"], numbers["cache_bytes"]);
    }
    let cache = |line: &Value| line["cache_bytes"].as_u64().expect("bytes");
    // A head has 16 elements, and rows of them a scale.
    assert_eq!(cache(&line(GPT2, &["--cache", "int8"])) * 16 * 4, cache(&numbers) * (16 + 4));
}

#[cfg(feature = "tokenizer")]
#[test]
fn a_prompt_is_a_text() {
    let scratch = folder("generate-words");
    write_tokenizer(&scratch);
    let path = scratch.path().to_str().expect("UTF-8");
    let text = |ids: &[u32]| ids.iter().map(|&id| letter(id)).collect::<String>();
    let (prompt, want) = ([7, 12, 3], greedy(&[7, 12, 3], 12));
    let args = ["--model", path, "--max-tokens", "12"];
    let spoken = text(&prompt);
    let line = generate(args.into_iter().chain(["--prompt", &spoken, "--json"])).json().remove(0);
    assert_eq!((ids(&line, "prompt"), ids(&line, "tokens")), (prompt.to_vec(), want.clone()));
    assert_eq!(line["text"], text(&want));
    assert_eq!(generate(args.into_iter().chain(["--prompt", &spoken])).good(), format!("{}\n", text(&want)));
    assert_eq!(generate(args.into_iter().chain(["--tokens", "7,12,3"])).good(), format!("{}\n", text(&want)));
    // From stdin, as echo writes it.
    let all = ["generate", "--adapter", "0", "--prompt", "-"];
    let mut run = command(all.into_iter().chain(args));
    let mut run =
        run.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("started");
    run.stdin.take().expect("stdin").write_all(format!("{spoken}\n").as_bytes()).expect("written");
    let output = run.wait_with_output().expect("ended");
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{}\n", text(&want)));

    let error = generate(args.into_iter().chain(["--prompt", ""])).refused(1);
    assert!(error.contains("the prompt: need 1 to 32 tokens, got 0"), "{error}");
    std::fs::write(scratch.path().join("tokenizer.json"), "{}").expect("written");
    let error = generate(args.into_iter().chain(["--prompt", "a"])).refused(1);
    assert!(error.contains("tokenizer.json"), "{error}");
}

#[test]
fn bad_input() {
    let scratch = folder("generate-wrong");
    let path = scratch.path().to_str().expect("UTF-8");
    let error =
        |args: &[&str]| generate(["--model", path].into_iter().chain(args.iter().copied())).refused(1);
    assert!(error(&["--prompt", "a"]).contains("--prompt: need tokenizer.json beside the model, found none"));
    assert!(error(&["--tokens", "50"]).contains("ids: need some below 50, found 50"));
    let many = vec!["1"; 33].join(",");
    assert!(error(&["--tokens", &many]).contains("the prompt: need 1 to 32 tokens, got 33"));
    assert!(error(&["--tokens", "1", "--temperature=-1"]).contains("temperature: need a finite number"));
    assert!(error(&["--tokens", "1", "--top-k", "3"]).contains("top_k: need a temperature above 0"));
    assert!(error(&["--tokens", "1", "--temperature", "1", "--top-p", "2"]).contains("top_p: need a number"));
    let config = std::fs::read(scratch.path().join("config.json")).expect("there");
    let mut config: Value = serde_json::from_slice(&config).expect("JSON");
    config["n_layer"] = 3.into();
    write(&scratch, "config.json", &config);
    let missing = "tensor `transformer.h.2.ln_1.bias`: need [32], found none of this name";
    assert!(error(&["--tokens", "1"]).contains(missing));
    config["model_type"] = "mamba".into();
    write(&scratch, "config.json", &config);
    assert!(error(&["--tokens", "1"]).contains("config `model_type`: need gpt2 or llama, found `mamba`"));
    std::fs::remove_file(scratch.path().join("config.json")).expect("removed");
    assert!(error(&["--tokens", "1"]).contains("config.json"));

    let args = |args: &[&str]| generate(args.iter().copied()).refused(2);
    assert!(args(&["--model", GPT2]).contains("--prompt"));
    assert!(args(&["--model", GPT2, "--prompt", "a", "--tokens", "1"]).contains("cannot be used with"));
    assert!(args(&["--model", GPT2, "--tokens", "1", "--cache", "f8"]).contains("f32, f16, bf16, int8"));
    assert!(args(&["--model", GPT2, "--tokens", "1", "--weights", "f16"]).contains("f32, int8, int4"));
    let alone = without_adapter(["generate", "--model", GPT2, "--tokens", "1"]).refused(1);
    assert!(alone.contains("no GPU adapter"));
}

/// Ctrl-C in a text: what there is stays, and the times say what was done.
#[cfg(unix)]
#[test]
fn an_interrupted_text_is_whole() {
    use std::io::BufRead;
    let scratch = folder("generate-interrupted");
    // A model with room for minutes.
    let mut model = File::read(scratch.path().join("model.safetensors"));
    let positions = 60_000;
    model.set_floats("transformer.wpe.weight", &[positions, 32], &vec![0.1; positions * 32]);
    model.write_text(scratch.path().join("model.safetensors"), None);
    let config = std::fs::read(scratch.path().join("config.json")).expect("there");
    let mut config: Value = serde_json::from_slice(&config).expect("JSON");
    config["n_positions"] = positions.into();
    write(&scratch, "config.json", &config);
    let path = scratch.path().to_str().expect("UTF-8");
    let mut run =
        command(["generate", "--adapter", "0", "--model", path, "--tokens", "7", "--max-tokens", "50000"]);
    let mut run = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    // Three tokens are there.
    let mut stdout = std::io::BufReader::new(run.stdout.take().expect("stdout"));
    let mut begin = vec![];
    for _ in 0..3 {
        stdout.read_until(b' ', &mut begin).expect("a token");
    }
    let kill = std::process::Command::new("kill").args(["-INT", &run.id().to_string()]).status();
    assert!(kill.expect("kill runs").success());
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut stdout, &mut rest).expect("UTF-8");
    assert!(rest.ends_with('\n'), "{rest}");
    let count = format!("{}{rest}", String::from_utf8_lossy(&begin)).split_whitespace().count();
    let output = run.wait_with_output().expect("ended");
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains(&format!("; {count} tokens in ")) && stderr.trim_end().ends_with("interrupted"),
        "{stderr}"
    );
}
