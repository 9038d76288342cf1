//! Files that are no good cases: each an error that names the file, the thing, the need and what came; or `unsupported`.

use super::support::{File, Scratch, wgpu_attention};
use safetensors::Dtype;
use serde_json::{Value, json};

const BASE: &str = "onnx_attention_4d_attn_mask_bool";

/// The reason that `verify` gives for a file.
fn reason(lines: &[Value], name: &str, status: &str) -> String {
    let file = format!("/{name}.safetensors");
    let line = lines.iter().find(|line| line["file"].as_str().is_some_and(|it| it.ends_with(&file)));
    let line = line.unwrap_or_else(|| panic!("no line about {name}"));
    assert_eq!(line["status"], status, "{line}");
    let reason = line["reason"].as_str().unwrap_or_else(|| panic!("no reason: {line}"));
    assert!(status != "fail" || reason.contains(&file), "names no file: {line}");
    reason.to_owned()
}

#[test]
fn malformed_files() {
    type Spoil = fn(&mut File);
    let spoils: Vec<(&str, Spoil, &str)> = vec![
        ("no_k", |f| drop(f.tensors.remove("k")), "tensor `k`: need it, got only mask, out, q, v"),
        ("no_out", |f| drop(f.tensors.remove("out")), "tensor `out`: need it"),
        ("no_mask", |f| drop(f.tensors.remove("mask")), "tensor `mask`: need it, as the pattern has `mask`"),
        (
            "stray_mask",
            |f| f.case["pattern"] = json!({"kind": "full"}),
            "tensor `mask`: need none, as the pattern has no `mask`",
        ),
        (
            "k_size",
            |f| f.set_floats("k", &[2, 3, 6, 4], &[0.0; 144]),
            "tensor `k`: need head size 8, as q has, got [2, 3, 6, 4]",
        ),
        ("k_batch", |f| f.set_floats("k", &[1, 3, 6, 8], &[0.0; 144]), "tensor `k`: need batch 2, as q has"),
        (
            "v_length",
            |f| f.set_floats("v", &[2, 3, 5, 8], &[0.0; 240]),
            "tensor `v`: need length 6, as k has",
        ),
        ("v_heads", |f| f.set_floats("v", &[2, 1, 6, 8], &[0.0; 96]), "tensor `v`: need heads 3, as k has"),
        ("heads", |f| both(f, &[2, 2, 6, 8]), "kv_heads: need a divisor of heads (3), got 2"),
        (
            "axes",
            |f| f.set_floats("q", &[6, 4, 8], &[0.0; 192]),
            "tensor `q`: need [B, H, L, D], got [6, 4, 8]",
        ),
        (
            "no_axes",
            |f| f.set_floats("bias", &[], &[0.0]),
            "tensor `bias`: need axes of [B, H, Lq, Lk] = [2, 3, 4, 6] or 1, got []",
        ),
        (
            "bias_axes",
            |f| f.set_floats("bias", &[1, 2, 4, 6], &[0.0; 48]),
            "tensor `bias`: need axes of [B, H, Lq, Lk]",
        ),
        (
            "stray_slopes",
            |f| f.set_floats("slopes", &[3], &[0.5; 3]),
            "tensor `slopes`: need none, as `alibi` is not `given`, got a tensor",
        ),
        ("no_slopes", |f| f.case["alibi"] = json!("given"), "tensor `slopes`: need it, got only"),
        (
            "alibi_text",
            |f| f.case["alibi"] = json!("steep"),
            "alibi: need true, false, `paper`, `bloom`, `mpt` or `given`, got \"steep\"",
        ),
        (
            "symmetric_alone",
            |f| f.case["alibi_symmetric"] = json!(true),
            "alibi_symmetric: need none, as there is no alibi",
        ),
        (
            "temperatures",
            |f| f.set_floats("temperature", &[2], &[1.0; 2]),
            "tensor `temperature`: need [H] = [3], got [2]",
        ),
        ("wide", |f| f.set_floats("v", &[2, 3, 6, 600], &[0.0; 21600]), "value_dim: need 1 to 512, got 600"),
        (
            "out_shape",
            |f| f.set_floats("out", &[2, 3, 8, 4], &[0.0; 192]),
            "tensor `out`: need [B, H, Lq, dv] = [2, 3, 4, 8], got [2, 3, 8, 4]",
        ),
        (
            "lse_shape",
            |f| f.set_floats("lse", &[24], &[0.0; 24]),
            "tensor `lse`: need [B, H, Lq] = [2, 3, 4], got [24]",
        ),
        (
            "q_integers",
            |f| f.tensors.get_mut("q").expect("q").0 = Dtype::I32,
            "tensor `q`: need F32, F16 or BF16, got I32",
        ),
        (
            "mask_floats",
            |f| f.set_floats("mask", &[1, 1, 4, 6], &[1.0; 24]),
            "tensor `mask`: need U8 or BOOL, got F32",
        ),
        (
            "mask_two",
            |f| f.tensors.get_mut("mask").expect("mask").2[7] = 2,
            "tensor `mask`: need values 0 and 1, got 2",
        ),
        (
            "mask_shape",
            |f| f.tensors.get_mut("mask").expect("mask").1 = vec![1, 1, 6, 4],
            "tensor `mask`: need axes of [B, H, Lq, Lk] = [2, 3, 4, 6] or 1, got [1, 1, 6, 4]",
        ),
        ("layout", |f| layout(f, 16, &[1, 2, 1]), "Blocks.layout: need 1 x 1 blocks of 16"),
        ("layout_heads", |f| layout(f, 16, &[2, 1, 1]), "Blocks.layout: need 1 head or 3, got 2"),
        (
            "layout_axes",
            |f| layout(f, 16, &[1, 1, 1, 1]),
            "tensor `layout`: need [H or 1, query blocks, key blocks], got [1, 1, 1, 1]",
        ),
        ("block_0", |f| layout(f, 0, &[1, 1, 1]), "Blocks.block: need at least 1, got 0"),
        ("no_pattern", |f| drop(keys(f).remove("pattern")), "pattern: need one, got none"),
        ("null_pattern", |f| f.case["pattern"] = Value::Null, "pattern: need one, got none"),
        ("pattern_text", |f| f.case["pattern"] = json!("full"), "pattern: "),
        (
            "pattern_parameter",
            |f| f.case["pattern"] = json!({"kind": "window", "after": 1}),
            "missing field `before`",
        ),
        (
            "same_set_text",
            |f| f.case["same_set"] = json!("full"),
            "same_set: need a list of patterns, got \"full\"",
        ),
        ("no_op", |f| drop(keys(f).remove("op")), "op: need a text, got none"),
        ("op_number", |f| f.case["op"] = json!(7), "op: need a text, got 7"),
        ("scale_text", |f| f.case["scale"] = json!("0.5"), "scale: need a number, got \"0.5\""),
        ("scale_huge", |f| f.case["scale"] = json!(1e300), "scale: need a finite number, got inf"),
        (
            "softcap_0",
            |f| f.case["softcap"] = json!(0),
            "softcap: need a finite normal number above 0, got 0",
        ),
        (
            "error_list",
            |f| f.case["expected_abs_error"] = json!([]),
            "expected_abs_error: need an object, got []",
        ),
        (
            "error_text",
            |f| f.case["expected_abs_error"]["out"] = json!("small"),
            "expected_abs_error: out: need a number, got \"small\"",
        ),
        (
            "error_negative",
            |f| f.case["expected_abs_error"]["out"] = json!(-1.0),
            "expected_abs_error.out: need at least 0, got -1",
        ),
        ("case_list", |f| f.case = json!([1]), "metadata `case`: need a JSON object, got [1]"),
    ];
    let scratch = Scratch::new("malformed");
    let file = |name: &str| scratch.file(&format!("{name}.safetensors"));
    for (name, spoil, _) in &spoils {
        let mut case = File::golden(BASE);
        spoil(&mut case);
        case.write(file(name));
    }
    let base = File::golden(BASE);
    base.write_text(file("no_case"), None);
    base.write_text(file("case_words"), Some("attention"));
    base.write_text(file("case_nan"), Some(r#"{"name": "x", "op": "attention", "scale": NaN}"#));
    base.write_text(file("case_overflow"), Some(r#"{"name": "x", "op": "attention", "scale": 1e999}"#));
    base.write(file("whole"));
    let bytes = std::fs::read(file("whole")).expect("the file");
    std::fs::remove_file(file("whole")).expect("removed");
    std::fs::write(file("empty"), []).expect("written");
    std::fs::write(file("cut_in_header"), &bytes[..50]).expect("written");
    std::fs::write(file("cut_in_tensors"), &bytes[..bytes.len() - 100]).expect("written");
    std::fs::write(file("longer"), [&bytes[..], &[0; 4]].concat()).expect("written");
    std::fs::write(file("text"), "This is a text and no safetensors file at all.").expect("written");
    std::fs::create_dir_all(scratch.path().join("folder")).expect("a folder");

    let paths = [scratch.file(""), file("not_there")];
    let outcome = wgpu_attention(["verify", "--cpu-only", "--json", &paths[0], &paths[1]]);
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    let lines = outcome.json();
    let whole = [
        ("no_case", "metadata: need the key `case` of a golden case, got none"),
        ("case_words", "metadata `case`: need JSON"),
        ("case_nan", "metadata `case`: need JSON"),
        ("case_overflow", "number out of range"),
        ("empty", "need a whole safetensors file, got 0 bytes"),
        ("cut_in_header", "need a whole safetensors file, got 50 bytes"),
        ("cut_in_tensors", "bytes: tensor `v` ends at byte "),
        ("longer", "need a whole safetensors file"),
        ("text", "need a whole safetensors file, got 46 bytes"),
        ("not_there", "cannot read "),
    ];
    for (name, needle) in spoils.iter().map(|(name, _, needle)| (*name, *needle)).chain(whole) {
        let reason = reason(&lines, name, "fail");
        assert!(reason.contains(needle), "{name}: {reason}");
    }
    assert_eq!(lines.len(), spoils.len() + whole.len());
}

#[test]
fn what_is_not_there_yet() {
    type Extend = fn(&mut File);
    let extensions: [(&str, Extend, &str); 10] = [
        ("op", |f| f.case["op"] = json!("ring_attention"), "op `ring_attention` is not supported yet"),
        ("key", |f| f.case["dropout"] = json!(0.1), "key `dropout` is not supported yet"),
        ("tensor", |f| f.set_floats("gates", &[3], &[0.0; 3]), "tensor `gates` is not supported yet"),
        (
            "several",
            |f| {
                f.case["dropout"] = json!(0.1);
                f.set_floats("gates", &[3], &[0.0; 3]);
                f.set_floats("attn_mask", &[4, 6], &[0.0; 24]);
            },
            "key `dropout`, tensor `attn_mask`, tensor `gates` are not supported yet",
        ),
        (
            "error_key",
            |f| f.case["expected_abs_error"]["max"] = json!(0.1),
            "key `expected_abs_error.max` is not supported yet",
        ),
        ("kind", |f| f.case["pattern"] = json!({"kind": "helix"}), "pattern: unknown variant `helix`"),
        (
            "parameter",
            |f| f.case["pattern"] = json!({"kind": "mask", "invert": true}),
            "pattern: unknown field `invert`",
        ),
        (
            "choice",
            |f| f.case["pattern"] = json!({"kind": "causal", "alignment": "middle"}),
            "pattern: unknown variant `middle`",
        ),
        (
            "nested",
            |f| f.case["pattern"] = json!({"kind": "not", "of": {"kind": "helix"}}),
            "pattern: unknown variant `helix`",
        ),
        (
            "nested_list",
            |f| f.case["pattern"] = json!({"kind": "and", "of": [{"kind": "mask"}, {"kind": "helix"}]}),
            "pattern: unknown variant `helix`",
        ),
    ];
    let scratch = Scratch::new("unsupported");
    for (name, extend, _) in &extensions {
        let mut case = File::golden(BASE);
        extend(&mut case);
        case.write(scratch.file(&format!("{name}.safetensors")));
    }
    let outcome = wgpu_attention(["verify", &scratch.file(""), "--cpu-only", "--json"]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let lines = outcome.json();
    for (name, _, needle) in extensions {
        let reason = reason(&lines, name, "unsupported");
        assert!(reason.contains(needle), "{name}: {reason}");
    }
}

/// Keys that only comment on a case, and numbers that are not given, do not get in the way.
#[test]
fn comments_and_defaults() {
    let scratch = Scratch::new("comments");
    let mut case = File::golden(BASE);
    case.case["notes"] = json!(["a remark"]);
    case.case["softcap"] = Value::Null;
    keys(&mut case).remove("source");
    // [8] wide heads: 1 / sqrt(8) is what the case says, too.
    keys(&mut case).remove("scale");
    case.write(scratch.file("case.safetensors"));
    let lines = wgpu_attention(["verify", &scratch.file("case.safetensors"), "--cpu-only", "--json"]).json();
    assert_eq!(lines[0]["status"], "pass", "{lines:?}");
}

fn keys(file: &mut File) -> &mut serde_json::Map<String, Value> {
    file.case.as_object_mut().expect("an object")
}

/// k and v of this shape.
fn both(file: &mut File, shape: &[usize]) {
    let values = vec![0.0; shape.iter().product()];
    file.set_floats("k", shape, &values);
    file.set_floats("v", shape, &values);
}

/// Another pattern: blocks, all of them kept.
fn layout(file: &mut File, block: usize, shape: &[usize]) {
    file.tensors.remove("mask");
    file.case["pattern"] = json!({"kind": "blocks", "block": block});
    file.tensors.insert("layout".into(), (Dtype::U8, shape.to_vec(), vec![1; shape.iter().product()]));
}
