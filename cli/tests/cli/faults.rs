//! Planted faults: each changes a golden case so that the expected values are no longer right, and must be found.

use super::support::{File, Scratch, wgpu_attention};
use serde_json::{Value, json};

type Plant = fn(&mut File);

/// A name, the golden case, and the fault.
const FAULTS: [(&str, &str, Plant); 22] = [
    ("one_output_a_little_off", "real_minilm_layer0", |case| case.change("out", 5000, |x| x + 2e-4)),
    ("one_output_is_nan", "sdpa_dense_s257_d16_h1_b1", |case| case.change("out", 4111, |_| f32::NAN)),
    ("one_output_is_infinite", "sdpa_dense_s257_d16_h1_b1", |case| case.change("out", 7, |_| f32::INFINITY)),
    ("one_lse_off", "sdpa_dense_s257_d16_h1_b1", |case| case.change("lse", 256, |x| x + 1e-3)),
    ("scale", "onnx_attention_4d_gqa_scaled", |case| case.case["scale"] = json!(0.0101)),
    ("no_softcap", "onnx_attention_3d_gqa_softcap", |case| {
        drop(case.case.as_object_mut().expect("keys").remove("softcap"))
    }),
    ("window_one_wider", "longformer_s128_w64_d32", |case| case.case["pattern"]["before"] = json!(33)),
    ("window_one_narrower", "longformer_s128_w64_d32", |case| case.case["pattern"]["after"] = json!(31)),
    ("other_alignment", "sdpa_causal_upperleft_q65_k33_d16", |case| {
        case.case["pattern"]["alignment"] = json!("bottom_right");
    }),
    ("not_causal", "sparse_ds_fixed_uni_g2_leak", |case| {
        case.case["pattern"] = json!({"kind": "blocks", "block": 16})
    }),
    ("one_bit_of_the_mask", "sdpa_boolmask_random_q33_k129_d32", |case| flip(case, "mask", 1000)),
    ("one_block_of_the_layout", "bigbird_b16_s512_r3", |case| flip(case, "layout", 1500)),
    ("last_key", "onnx_attention_4d", |case| case.change("k", 2 * 3 * 6 * 8 - 1, |x| x + 0.01)),
    ("one_value", "onnx_attention_4d", |case| case.change("v", 0, |x| x + 0.001)),
    ("one_bias", "onnx_attention_4d_attn_mask_4d", |case| case.change("bias", 143, |x| x + 0.01)),
    ("segment_of_a_key", "xlnet_content_q14_m8_d16", |case| flip(case, "seg_k", 4 * 12)),
    ("rows_of_segments", "xlnet_query_q12_m0_d20", |case| case.change("seg_embed", 61, |x| x + 0.1)),
    ("empty_row_is_not_zero", "sdpa_boolmask_fullymasked_s37_d32", |case| {
        let row = case.floats("lse").iter().position(|&lse| lse == f32::MIN).expect("an empty row");
        case.change("out", row * 32 + 3, |_| 1e-3);
    }),
    ("one_element_of_dq", "sdpa_bias_perhead_s65_d32", |case| case.change("dq", 100, |x| x + 1e-3)),
    ("one_element_of_dk", "sdpa_gqa_h6kv3_q17_k17_d80_causal", |case| case.change("dk", 700, |x| x + 1e-3)),
    ("one_element_of_dv", "bigbird_b16_s256_r3", |case| case.change("dv", 5000, |x| x - 1e-3)),
    ("lse_of_an_empty_row", "sdpa_boolmask_fullymasked_s37_d32", |case| {
        let row = case.floats("lse").iter().position(|&lse| lse == f32::MIN).expect("an empty row");
        case.change("lse", row, |_| 0.0);
    }),
];

fn flip(case: &mut File, name: &str, index: usize) {
    let (_, _, data) = case.tensors.get_mut(name).expect("the tensor");
    data[index] ^= 1;
}

#[test]
fn planted_faults_are_found() {
    let scratch = Scratch::new("faults");
    for (name, golden, plant) in FAULTS {
        let mut case = File::golden(golden);
        plant(&mut case);
        case.case["name"] = json!(name);
        // Left beside, they would be the first to be found.
        case.write(scratch.file(&format!("{name}.safetensors")));
    }
    let outcome = wgpu_attention(["verify", &scratch.file(""), "--json", "--adapter", "0"]);
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    let lines = outcome.json();
    for (name, ..) in FAULTS {
        let of_case: Vec<_> =
            lines.iter().filter(|line| line["name"] == name && line.get("same_set").is_none()).collect();
        assert!(of_case.len() >= 2, "{name}: the reference and an adapter: {of_case:?}");
        for line in of_case {
            assert_eq!(line["status"], "fail", "{line}");
            assert!(line["worst"].as_f64().expect("a number") > 1.0, "{line}");
        }
    }
}

#[test]
fn a_failure_says_where_and_how_to_see_it_again() {
    let scratch = Scratch::new("where");
    let mut case = File::golden("onnx_attention_3d");
    // [2, 3, 4, 8]: batch 1, head 2, query 3, column 5.
    case.change("out", ((3 + 2) * 4 + 3) * 8 + 5, |x| x - 0.5);
    let file = scratch.file("with space.safetensors");
    case.write(&file);
    let outcome = wgpu_attention(["verify", &file]);
    assert_eq!(outcome.code, 1);
    let first: Vec<_> = outcome.stdout.lines().take(2).collect();
    assert!(first[0].starts_with("FAIL ") && first[0].contains(" at out[1, 2, 3, 5] "), "{first:?}");
    assert!(
        first[0].contains("got ") && first[0].contains("expected ") && first[0].contains("bound "),
        "{first:?}"
    );
    assert_eq!(first[1].trim(), format!("wgpu-attention verify '{file}' --cpu-only"));
    assert!(outcome.stderr.contains("0 passed"), "{outcome:?}");
}

#[test]
fn a_pattern_of_another_set_is_found() {
    let scratch = Scratch::new("same-set");
    let mut case = File::golden("sparse_openai_attnimpl_local_n60_l7");
    case.case["same_set"] = json!([
        {"kind": "window", "before": 6, "after": 0},
        {"kind": "window", "before": 7, "after": 0},
        {"kind": "and", "of": [{"kind": "causal"}, {"kind": "window", "before": 5, "after": 9}]},
        {"kind": "helix", "turns": 2},
    ]);
    case.write(scratch.file("case.safetensors"));
    let outcome = wgpu_attention(["verify", &scratch.file("case.safetensors"), "--cpu-only", "--json"]);
    let lines = outcome.json();
    let status: Vec<_> = lines.iter().map(|line| line["status"].as_str().expect("a status")).collect();
    assert_eq!(
        (outcome.code, &status[..]),
        (1, &["pass", "pass", "fail", "fail", "unsupported"][..]),
        "{lines:?}"
    );
    assert_eq!(
        lines[2]["reason"],
        "not the same set: it keeps query 7, key 0 of batch 0, head 0, the case does not"
    );
    assert_eq!(
        lines[3]["reason"],
        "not the same set: it drops query 6, key 0 of batch 0, head 0, the case keeps it"
    );
    assert!(
        lines[4]["reason"].as_str().is_some_and(|it| it.contains("unknown variant `helix`")),
        "{}",
        lines[4]
    );
    assert_eq!(lines[1]["same_set"], json!({"kind": "window", "before": 6, "after": 0}));
}

/// Inputs that f16 cannot hold are not compared as if it could.
#[test]
fn inputs_past_the_range_of_f16() {
    let scratch = Scratch::new("range");
    let mut case = File::golden("onnx_attention_3d");
    case.change("v", 3, |_| 1e5);
    case.write(scratch.file("case.safetensors"));
    let lines =
        wgpu_attention(["verify", &scratch.file("case.safetensors"), "--dtype", "f16", "--json"]).json();
    let reason = |line: &Value| line["reason"].as_str().map(str::to_owned);
    assert_eq!(lines[0]["status"], "unsupported", "{lines:?}");
    assert_eq!(reason(&lines[0]).as_deref(), Some("`v` holds 1e5, past the range of f16"));
}
