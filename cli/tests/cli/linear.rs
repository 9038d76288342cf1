//! Linear attention and Linformer in `run` and `explain`: verified, against other systems' results, and what does not fit them.

use super::support::{File, Scratch, golden, wgpu_attention, without_adapter};

#[test]
fn linear_attention_over_a_file_is_verified_and_written() {
    let scratch = Scratch::new("run-linear");
    let (input, output) = (golden("sdpa_causal_s65_d64_h1_b1"), scratch.file("o.safetensors"));
    let input = input.to_str().expect("UTF-8");
    let run = |options: &[&str]| {
        let all = ["run", "--input", input, "--output", &output, "--check", "--quiet"];
        wgpu_attention([&all[..], options].concat())
    };
    let mut outs = vec![];
    for options in [
        &["--linear", "elu", "--causal"][..],
        &["--linear", "elu"],
        &["--linear", "favor:features=32,seed=5", "--causal"],
        &["--linear", "softmax", "--output-type", "f16"],
    ] {
        let said = run(options).good();
        assert!(said.starts_with("check: pass, 64 rows; worst out["), "{options:?}: {said}");
        let file = File::read(&output);
        assert_eq!(file.tensors["out"].1, [1, 1, 65, 64], "{options:?}");
        outs.push(file.tensors["out"].2.clone());
    }
    assert!(outs[0] != outs[1] && outs[0] != outs[2], "each is another computation");
}

#[test]
fn linformer_gives_what_its_package_gives() {
    for name in ["linformer_s64_k16", "linformer_s64_k16_sharekv"] {
        let scratch = Scratch::new(name);
        let (input, output) = (golden(name), scratch.file("o.safetensors"));
        let input = input.to_str().expect("UTF-8");
        let said =
            wgpu_attention(["run", "--linformer", "--input", input, "--output", &output, "--check", "-q"])
                .good();
        assert!(said.starts_with("check: pass, 64 rows"), "{said}");
        let floats = |file: &File| bytemuck::pod_collect_to_vec::<u8, f32>(&file.tensors["out"].2);
        let (got, want) = (floats(&File::read(&output)), floats(&File::read(input)));
        assert_eq!(got.len(), want.len());
        let far = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far < 1e-4, "{name}: {far}");
    }
}

#[test]
fn what_does_not_fit_is_said() {
    let scratch = Scratch::new("run-linear-refused");
    let (input, output) = (golden("sdpa_causal_s65_d64_h1_b1"), scratch.file("o.safetensors"));
    let input = input.to_str().expect("UTF-8");
    let run = |options: &[&str], code: i32| {
        let all = ["run", "--input", input, "--output", &output];
        wgpu_attention([&all[..], options].concat()).refused(code)
    };
    for (options, code, words) in [
        (&["--linear", "elu", "--pattern", "causal"][..], 1, ["--pattern", "linear attention"]),
        (&["--linear", "elu", "--lse"], 1, ["--lse", "linear attention"]),
        (&["--linear", "elu", "--no-lowering"], 1, ["--no-lowering", "linear attention"]),
        (&["--linear", "elu", "--softcap", "2"], 1, ["--softcap", "linear attention"]),
        (&["--linformer", "--pattern", "full"], 1, ["--pattern", "Linformer"]),
        (&["--linformer"], 1, ["`e`", "sdpa_causal"]),
        (&["--linear", "elu", "--linformer"], 2, ["--linear", "--linformer"]),
        (&["--causal"], 2, ["--linear", "required"]),
        (&["--linear", "exp"], 2, ["exp", "need elu"]),
        (&[], 1, ["--pattern", "need one"]),
    ] {
        let error = run(options, code);
        assert!(words.iter().all(|word| error.contains(word)), "{options:?}: {error}");
    }
    let explain = |options: &[&str], code: i32| {
        without_adapter([&["explain", "--len", "4096"][..], options].concat()).refused(code)
    };
    let error = explain(&["--linear", "elu", "--cpu-only"], 1);
    assert!(error.contains("--cpu-only"), "{error}");
    let error = explain(&["--linear", "elu", "--pattern", "causal"], 2);
    assert!(error.contains("--pattern") && error.contains("--linear"), "{error}");
    let error = explain(&[], 2);
    assert!(error.contains("--pattern"), "{error}");
    assert_eq!(scratch.names(), [""; 0]);
}

#[test]
fn what_they_cost_is_explained() {
    let explain = |options: &[&str]| {
        wgpu_attention([&["explain", "--len", "4096", "--heads", "2", "--json"][..], options].concat()).json()
    };
    let linear = explain(&["--linear", "favor:features=64", "--causal"]);
    assert_eq!((&linear[0]["op"], &linear[0]["features"]), (&"linear_attention".into(), &64.into()));
    assert_eq!((&linear[0]["map"], &linear[0]["causal"]), (&"favor:features=64,seed=0".into(), &true.into()));
    let flops = |value: &serde_json::Value, name: &str| value[name].as_f64().expect("a number");
    assert!(flops(&linear[0], "flops") < 0.1 * flops(&linear[0], "dense_flops"));
    let linformer = explain(&["--linformer", "256"]);
    assert_eq!((&linformer[0]["op"], &linformer[0]["features"]), (&"linformer".into(), &256.into()));
    assert!(linformer[0]["scratch_bytes"].as_u64() > Some(0));
    let lines = wgpu_attention(["explain", "--linear", "elu", "--len", "64"]).good();
    assert!(lines.contains("kernel      elu") && lines.contains("64 features of a row"), "{lines}");
}
