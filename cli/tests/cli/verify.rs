//! `verify`: the golden cases, and what is printed about them.

use super::support::{File, Scratch, golden, wgpu_attention, without_adapter, workspace};
use serde_json::Value;
use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};

/// Ops that have kernels.
const SUPPORTED: [&str; 19] = [
    "attention",
    "lsh_attention",
    "linear_attention",
    "linformer",
    "recurrent",
    "decode",
    "packed",
    "layer_norm",
    "rms_norm",
    "rotary",
    "activation",
    "axial_positions",
    "feed_forward",
    "quantize",
    "dequantize",
    "quantized_matmul",
    "matmul_integer",
    "reversible",
    "model",
];

/// Ops that are made on the host.
const ON_THE_HOST: [&str; 3] = ["alibi_slopes", "relative_buckets", "sinusoidal"];

/// The golden files, as a command takes them.
fn files() -> Vec<String> {
    let folder = std::fs::read_dir(workspace().join("golden")).expect("golden");
    let names = folder.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(".safetensors")).map(|name| format!("golden/{name}")).collect()
}

/// Whether this run leaves nothing to the next (`cargo xtask test --long`).
fn long() -> bool {
    std::env::var_os("WGPU_ATTENTION_LONG").is_some()
}

/// The golden files that this run takes: a third of them, drawn, and all in a long run.
fn drawn_files() -> Vec<String> {
    let hash = RandomState::new();
    files().into_iter().filter(|file| long() || hash.hash_one(file) % 3 == 0).collect()
}

/// The names of the golden cases in these files with an op that `choose` likes.
fn names_in(files: &[String], choose: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let cases = files.iter().map(|file| File::read(workspace().join(file)).case);
    let chosen = cases.filter(|case| choose(case["op"].as_str().expect("an op")));
    chosen.map(|case| case["name"].as_str().expect("a name").to_owned()).collect()
}

/// Those in all files.
fn names(choose: impl Fn(&str) -> bool) -> BTreeSet<String> {
    names_in(&files(), choose)
}

fn names_of<'a>(lines: impl IntoIterator<Item = &'a Value>) -> BTreeSet<String> {
    lines.into_iter().map(|line| line["name"].as_str().expect("a name").to_owned()).collect()
}

/// A line of a result within its bound.
fn assert_passed(line: &Value) {
    // Gradients of models other than Reformers are not supported yet.
    let partial = line["op"] == "model" && line["not_compared"] == "gradients";
    assert!(!partial || line["name"] != "e2e_reformer_train", "{line}");
    assert_eq!(line["status"], if partial { "partial" } else { "pass" }, "{line}");
    assert!(line["worst"].as_f64().expect("a number") <= 1.0, "{line}");
    assert!(line["rows"].as_u64().expect("a number") > 0 && line.get("unspecified").is_none(), "{line}");
    let known = |op: &str| SUPPORTED.contains(&op) || ON_THE_HOST.contains(&op);
    assert!(line["op"].as_str().is_some_and(known), "{line}");
}

fn on_gpu(line: &&Value) -> bool {
    line.get("adapter_index").is_some()
}

#[test]
fn golden_cases_pass_in_f32() {
    // One adapter: others of the machine are compared by `cargo xtask conformance`, and OpenGL takes minutes to compile.
    let supported = |op: &str| SUPPORTED.contains(&op);
    let known = |op: &str| supported(op) || ON_THE_HOST.contains(&op);
    let (on_devices, everywhere) = (names(supported), names(known));
    assert!(on_devices.len() >= 110 && everywhere.len() >= on_devices.len() + 5);
    assert_eq!(everywhere, names(|_| true));

    let files = drawn_files();
    let words = files.iter().map(String::as_str).chain(["--json", "--adapter", "0"]);
    let outcome = wgpu_attention(["verify"].into_iter().chain(words));
    let lines = outcome.json();
    let (all, with_tables) = (names_in(&files, supported), names_in(&files, known));
    let results: Vec<&Value> = lines.iter().collect();
    for line in &results {
        assert_passed(line);
        assert_eq!((&line["dtype"], &line["against"]), (&"f32".into(), &"expected".into()), "{line}");
        assert!(
            line["reproduce"].as_str().is_some_and(|it| it.starts_with("wgpu-attention verify golden/")),
            "{line}"
        );
    }
    assert_eq!(
        names_of(results.iter().copied().filter(on_gpu)),
        all,
        "is there an adapter? {}",
        outcome.stderr
    );
    assert_eq!(names_of(results.iter().copied().filter(|line| line["path"] == "reference")), with_tables);

    // Other patterns of the same set are compared and run, too.
    let same_set = results.iter().filter(|line| on_gpu(line)).filter_map(|line| line.get("same_set"));
    let kinds: BTreeSet<_> = same_set.map(|pattern| pattern["kind"].as_str().expect("a kind")).collect();
    let there = BTreeSet::from(["strided", "window"]);
    assert!(kinds.is_subset(&there) && (!long() || kinds == there), "{kinds:?}");

    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(outcome.stderr.contains(" 0 failed"), "{}", outcome.stderr);
}

/// Several layers, which run in f32.
fn in_f32(op: &str) -> bool {
    ["model", "reversible"].contains(&op)
}

/// The types of 16 bits that this run takes: one, which is drawn, and both in a long run (`cargo xtask test --long`).
fn types_of_16_bits() -> Vec<&'static str> {
    let both = ["f16", "bf16"];
    let drawn = (RandomState::new().hash_one(()) & 1) as usize;
    if long() { both.to_vec() } else { vec![both[drawn]] }
}

#[test]
fn golden_cases_pass_in_16_bits() {
    // One adapter, and one type: the shaders of 16 bits differ from those of f32 in loads and stores alone.
    let types = types_of_16_bits();
    let outcome =
        wgpu_attention(["verify", "golden", "--json", "--dtype", &types.join(","), "--adapter", "0"]);
    let lines = outcome.json();
    let (unsupported, results): (Vec<_>, Vec<_>) =
        lines.iter().partition(|line| line["status"] == "unsupported");
    for line in &results {
        assert_passed(line);
        // Expected values belong to inputs that were not rounded.
        assert_eq!(line["against"], "reference", "{line}");
    }
    for dtype in types {
        let of_type = results.iter().copied().filter(|line| line["dtype"] == dtype);
        let expected = names(|op| !in_f32(op) && !ON_THE_HOST.contains(&op));
        assert_eq!(names_of(of_type.filter(on_gpu)), expected, "{dtype}");
    }
    // Models are in f32, and say so.
    let expected = names(|op| in_f32(op) || ON_THE_HOST.contains(&op));
    assert_eq!(names_of(unsupported.iter().copied()), expected);
    for line in unsupported.into_iter().filter(|line| line["op"].as_str().is_some_and(in_f32)) {
        let dtype = line["dtype"].as_str().expect("a type");
        assert_eq!(line["reason"], format!("models run in f32, not in {dtype}"));
    }
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
}

#[test]
fn the_line_that_reproduces_does() {
    let case = "golden/sdpa_causal_s7_d16_h2_b1.safetensors";
    let lines = wgpu_attention(["verify", case, "--json", "--dtype", "f32,f16"]).json();
    assert!(lines.len() >= 3, "{lines:?}");
    for line in lines {
        let command = line["reproduce"].as_str().expect("a command").to_owned() + " --json";
        let again = wgpu_attention(command.split(' ').skip(1)).json();
        assert!(again.contains(&line), "{command}: {again:?}");
    }
}

#[test]
fn lines_for_people() {
    let scratch = Scratch::new("people");
    let mut unknown = File::golden("onnx_attention_3d");
    (unknown.case["op"], unknown.case["name"]) = ("ring_attention".into(), "unknown".into());
    unknown.write(scratch.file("unknown.safetensors"));
    let text = wgpu_attention([
        "verify",
        "golden/onnx_attention_3d.safetensors",
        &scratch.file("unknown.safetensors"),
    ])
    .good();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines.len() >= 3, "{text}");
    assert!(lines[0].starts_with("pass        onnx_attention_3d  cpu "), "{text}");
    assert!(lines[1].contains("f32  scalar") && lines[1].contains("error/bound 0.0"), "{text}");
    assert!(lines.last().is_some_and(|line| line.starts_with("unsupported unknown")), "{text}");
    assert!(text.ends_with("op `ring_attention` is not supported yet\n"), "{text}");
}

/// Gradients are judged wherever a file has them, also where it has none of q, k and v; and what is not understood is never passed.
#[test]
fn gradients_of_the_score_alone_are_judged() {
    let scratch = Scratch::new("alone");
    let status = |file: &File| {
        file.write(scratch.file("case.safetensors"));
        let line =
            wgpu_attention(["verify", &scratch.file("case.safetensors"), "--json", "--cpu-only"]).json();
        line[0]["status"].as_str().expect("a status").to_owned()
    };
    let mut file = File::golden("txl_core_q16_m16_d16");
    for name in ["dq", "dk", "dv"] {
        file.tensors.remove(name).expect("a gradient");
    }
    assert_eq!(status(&file), "pass");
    file.change("dr", 40, |x| x + 1.0);
    assert_eq!(status(&file), "fail");
    file.tensors.retain(|name, _| !name.starts_with('d') && name != "r");
    assert_eq!(status(&file), "unsupported");
}

#[test]
fn folders_are_searched_and_sorted() {
    let scratch = Scratch::new("folders");
    let inner = scratch.path().join("b");
    std::fs::create_dir_all(&inner).expect("a folder");
    for (name, to) in
        [("onnx_attention_3d", "c"), ("onnx_attention_4d", "a"), ("onnx_attention_3d_gqa", "b/x")]
    {
        let to = scratch.path().join(to).with_extension("safetensors");
        std::fs::copy(golden(name), to).expect("copied");
    }
    std::fs::write(inner.join("notes.txt"), "not a case").expect("written");
    let lines = wgpu_attention(["verify", &scratch.file(""), "--cpu-only", "--json"]).json();
    let names: Vec<_> = lines.iter().map(|line| line["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["onnx_attention_4d", "onnx_attention_3d_gqa", "onnx_attention_3d"]);

    std::fs::create_dir_all(scratch.path().join("empty")).expect("a folder");
    let error = wgpu_attention(["verify", &scratch.file("empty")]).refused(1);
    assert!(error.contains("a folder without any .safetensors"), "{error}");
}

#[test]
fn adapters_are_chosen_by_number_and_name() {
    let case = "golden/onnx_attention_3d.safetensors";
    for wish in ["0", "vulkan", "metal", "dx12"] {
        let outcome = wgpu_attention(["verify", case, "--json", "--adapter", wish]);
        // One of the backends is there.
        if wish == "0" || outcome.code == 0 {
            assert!(outcome.json().iter().any(|line| on_gpu(&line)), "{outcome:?}");
        }
    }
    for wish in ["no such thing", "99", ""] {
        let error = wgpu_attention(["verify", case, "--adapter", wish]).refused(1);
        assert!(error.starts_with("error: --adapter: need one of 0: "), "{error}");
    }
}

#[test]
fn without_an_adapter_the_reference_runs_alone() {
    let case = "golden/onnx_attention_3d.safetensors";
    let outcome = without_adapter(["verify", case, "--json"]);
    assert!(outcome.stderr.contains("no GPU adapter was found"), "{outcome:?}");
    let lines = outcome.json();
    assert_eq!((outcome.code, lines.len()), (0, 1), "{outcome:?}");
    assert_eq!(lines[0]["path"], "reference");
    // Nothing could be compared in f16, and that is no success.
    let error = without_adapter(["verify", case, "--dtype", "f16"]).refused(1);
    assert!(error.contains("no GPU adapter"), "{error}");
    let error = wgpu_attention(["verify", case, "--dtype", "f16", "--cpu-only"]).refused(1);
    assert!(error.contains("--cpu-only: need --dtype f32"), "{error}");
}

#[test]
fn the_cooperative_path_passes_where_it_is_forced() {
    let golden = [
        golden("onnx_attention_4d_causal"),
        golden("reformer_hf_lsh_s64_c16_h1"),
        golden("reformer_chunked_ff_gelu_s40"),
    ];
    let mut arguments = vec!["verify".to_owned(), "--json".into()];
    arguments.extend(golden.iter().map(|path| path.display().to_string()));
    arguments.extend(["--adapter", "0", "--dtype", "f16", "--path", "cooperative"].map(String::from));
    let lines = wgpu_attention(&arguments).json();
    let of = |op: &str| lines.iter().find(|line| line["op"] == op).expect("a line");
    let attention = of("attention");
    assert_eq!(
        (&attention["status"], &attention["path"]),
        (&"pass".into(), &"cooperative".into()),
        "{attention}"
    );
    let layer = of("feed_forward");
    assert_eq!((&layer["status"], &layer["path"]), (&"pass".into(), &"cooperative".into()), "{layer}");
    assert!(
        of("lsh_attention")["reason"].as_str().is_some_and(|it| it.contains("no cooperative")),
        "{lines:?}"
    );
}

#[test]
fn wrong_arguments() {
    for args in [
        &["verify"][..],
        &["verify", "x", "--path", "fast"],
        &["verify", "x", "--dtype", "f8"],
        &["frobnicate"],
    ] {
        wgpu_attention(args).refused(2);
    }
}
