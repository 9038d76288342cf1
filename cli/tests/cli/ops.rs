//! `verify` beside attention: LSH, the kernels around attention, models. Cases that no golden file has, faults that must be found,
//! and files that are no good cases.

use super::support::{File, Scratch, assert_passes, case, wgpu_attention};
use safetensors::Dtype;
use serde_json::{Value, json};

/// A change to a case.
pub(crate) type Change = fn(&mut File);

/// Writes each golden case with its change, and gives the lines about it.
pub(crate) fn lines_about(
    scratch: &Scratch,
    cases: &[(&str, &str, Change)],
    args: &[&str],
) -> Vec<(String, Vec<Value>)> {
    for (name, golden, change) in cases {
        let mut case = File::golden(golden);
        change(&mut case);
        case.case["name"] = json!(name);
        case.write(scratch.file(&format!("{name}.safetensors")));
    }
    let folder = scratch.file("");
    let outcome = wgpu_attention([&["verify", &folder, "--json"], args].concat());
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    let lines = outcome.json();
    let about = |name: &str| {
        let file = format!("/{name}.safetensors");
        let of = |line: &&Value| line["file"].as_str().is_some_and(|it| it.ends_with(&file));
        lines.iter().filter(of).cloned().collect()
    };
    cases.iter().map(|(name, ..)| ((*name).to_owned(), about(name))).collect()
}

/// Sets one I32 element.
fn set_index(case: &mut File, name: &str, index: usize, value: i32) {
    let data = &mut case.tensors.get_mut(name).expect("the tensor").2;
    data[4 * index..][..4].copy_from_slice(&value.to_le_bytes());
}

const LSH: &str = "reformer_hf_lsh_s64_c16_h2";
const CAUSAL: &str = "reformer_lucid_s64_b16_h2_causal";
const FEED_FORWARD: &str = "reformer_chunked_ff_gelu_s40";
const GATED: &str = "ff_llama_swiglu";
const BEHIND: &str = "ff_bert_gelu_erf";
const ACTIVATION: &str = "ff_activation_silu";
const NORM: &str = "onnx_layer_normalization_3d_axis1_epsilon";
const RMS: &str = "onnx_rms_normalization_4d_axis3";
const ROTARY: &str = "onnx_rotary_embedding_with_interleaved_rotary_dim";
const NORM_GRADIENTS: &str = "normgrad_layer_r3_n1024";
const ROTARY_GRADIENTS: &str = "pos_rope_neox_s33_d32_rot8";
const AXIAL: &str = "pos_reformer_axial_4x8";
const RECURRENT: &str = "recurrent_lstm_b2_t8_i5_h6_l2_bidirectional";
const RNN: &str = "recurrent_rnn_tanh_b3_t9_i5_h7";
const SINUSOIDAL: &str = "pos_sinusoidal_m2m100_halves";

/// Gradients beside a case of axial positions that has none: what is at the first element of a row of each table.
fn with_axial_gradients(f: &mut File) {
    f.set_floats("dout", &[30, 16], &[1.0; 480]);
    // 8 positions share a row of the first table, 6 of them the last; 4 or 3 share a row of the second.
    let first: Vec<f32> = (0..24).map(|n| if n < 18 { 8.0 } else { 6.0 }).collect();
    let second: Vec<f32> = (0..80).map(|n| if n < 60 { 4.0 } else { 3.0 }).collect();
    f.set_floats("dweight0", &[4, 6], &first);
    f.set_floats("dweight1", &[8, 10], &second);
}

#[test]
fn planted_faults_are_found() {
    let cases: &[(&str, &str, Change)] = &[
        ("lsh_out", LSH, |f| f.change("out", 1000, |x| x + 1e-4)),
        ("lsh_lse", LSH, |f| f.change("lse", 100, |x| x + 1e-3)),
        ("lsh_rotation", LSH, |f| f.change("rotations", 3, |x| x + 5.0)),
        ("lsh_not_causal", CAUSAL, |f| f.case["causal"] = json!(false)),
        ("lsh_no_wrap", LSH, |f| f.case["wrap"] = json!(false)),
        ("lsh_rounds_apart", LSH, |f| f.case["chain_rounds"] = json!(false)),
        ("lsh_look_ahead", LSH, |f| f.case["look_ahead"] = json!(1)),
        ("lsh_scale", LSH, |f| f.case["scale"] = json!(0.9)),
        ("lsh_count_once", LSH, |f| f.case["count_once"] = json!(true)),
        ("norm_out", NORM, |f| f.change("out", 29, |x| x + 1e-4)),
        ("norm_eps", NORM, |f| f.case["eps"] = json!(1e-5)),
        ("norm_weight", NORM, |f| f.change("weight", 14, |x| x + 1e-3)),
        ("norm_without_bias", NORM, |f| drop(f.tensors.remove("bias"))),
        ("norm_of_the_other_kind", RMS, |f| f.case["op"] = json!("layer_norm")),
        ("norm_nan", RMS, |f| f.change("out", 0, |_| f32::NAN)),
        ("rotary_pairs", ROTARY, |f| f.case["interleaved"] = json!(false)),
        ("rotary_sine", ROTARY, |f| f.change("sin", 5, |x| x + 1e-3)),
        ("norm_dx", NORM_GRADIENTS, |f| f.change("dx", 2000, |x| x + 1e-3)),
        ("norm_dweight", NORM_GRADIENTS, |f| f.change("dweight", 1023, |x| x + 1e-3)),
        ("norm_dbias", NORM_GRADIENTS, |f| f.change("dbias", 0, |x| x - 1e-3)),
        ("norm_dout", NORM_GRADIENTS, |f| f.change("dout", 77, |x| x + 0.1)),
        ("rotary_dx", ROTARY_GRADIENTS, |f| f.change("dx", 4, |x| x + 1e-3)),
        ("axial_out", AXIAL, |f| f.change("out", 479, |x| x + 1e-3)),
        ("axial_table", AXIAL, |f| f.change("weight1", 10, |x| x + 1e-3)),
        ("axial_gradient", AXIAL, |f| {
            with_axial_gradients(f);
            f.change("dweight1", 79, |x| x + 1.0);
        }),
        ("ff_activation", FEED_FORWARD, |f| f.case["activation"] = json!("gelu_tanh")),
        ("ff_norm_eps", FEED_FORWARD, |f| f.case["norm_eps"] = json!(1e-2)),
        ("ff_weight", FEED_FORWARD, |f| f.change("w2", 24 * 64 - 1, |x| x + 0.1)),
        ("ff_without_norm", FEED_FORWARD, |f| {
            drop(f.case.as_object_mut().expect("keys").remove("norm"));
            f.tensors.retain(|name, _| !name.starts_with("norm_"));
        }),
        ("recurrent_out", RECURRENT, |f| f.change("out", 150, |x| x + 1e-3)),
        ("recurrent_c_n", RECURRENT, |f| f.change("c_n", 3, |x| x + 1e-3)),
        ("recurrent_state", RECURRENT, |f| f.change("h0", 3, |x| x + 1e-2)),
        ("recurrent_weight", RECURRENT, |f| f.change("weight_hh_l1_reverse", 30, |x| x + 1e-2)),
        ("recurrent_cell", RNN, |f| f.case["cell"] = json!("rnn_relu")),
        ("recurrent_without_bias", RNN, |f| f.tensors.retain(|name, _| !name.starts_with("bias_"))),
        ("activation_dx", ACTIVATION, |f| f.change("dx", 240, |x| x + 1e-4)),
        ("activation_dout", ACTIVATION, |f| f.change("dout", 240, |x| x + 1e-3)),
        ("ff_dx", GATED, |f| f.change("dx", 100, |x| x + 0.1)),
        ("ff_dw3", GATED, |f| f.change("dw3", 1000, |x| x + 0.1)),
        ("ff_db1", BEHIND, |f| f.change("db1", 5, |x| x + 0.1)),
        ("ff_dnorm_weight", BEHIND, |f| f.change("dnorm_weight", 5, |x| x + 0.1)),
        ("ff_without_residual", BEHIND, |f| f.case["residual"] = json!(false)),
        ("ff_norm_before", BEHIND, |f| f.case["norm_place"] = json!("pre")),
        ("bert_weight", "e2e_bert", |f| f.change("w.encoder.layer.1.output.dense.weight", 64, |x| x + 0.1)),
        ("bert_pooled", "e2e_bert", |f| f.change("pooled", 40, |x| x + 1e-3)),
        ("bert_mask", "e2e_bert", |f| set_index(f, "attention_mask", 3, 0)),
        ("gpt2_id", "e2e_gpt2", |f| set_index(f, "input_ids", 47, 7)),
    ];
    let scratch = Scratch::new("op-faults");
    for (name, lines) in lines_about(&scratch, cases, &["--adapter", "0"]) {
        assert_eq!(lines.len(), 2, "{name}: the reference and an adapter: {lines:?}");
        for line in lines {
            assert_eq!(line["status"], "fail", "{line}");
            // Where a bucket is wrong, the rows may well be right for it.
            let reason = line["reason"].as_str().unwrap_or_default();
            let past = line["worst"].as_f64().is_some_and(|worst| worst > 1.0);
            assert!(past || reason.starts_with("buckets["), "{line}");
        }
    }
}

#[test]
fn gradients_of_axial_positions_and_other_sinusoids_are_judged() {
    let cases: &[(&str, &str, Change)] = &[
        ("axial", AXIAL, with_axial_gradients),
        ("axial_one", AXIAL, |f| {
            with_axial_gradients(f);
            drop(f.tensors.remove("dweight0"));
        }),
    ];
    let scratch = Scratch::new("op-axial");
    for (name, lines) in lines_about(&scratch, cases, &["--adapter", "0"]) {
        assert_eq!(lines.len(), 2, "{name}: {lines:?}");
        lines.iter().for_each(|line| assert_eq!(line["status"], "pass", "{line}"));
    }
    let cases: &[(&str, &str, Change)] = &[
        ("layout", SINUSOIDAL, |f| f.case["layout"] = json!("interleaved")),
        ("frequencies", SINUSOIDAL, |f| f.case["frequencies"] = json!("paper")),
        ("value", SINUSOIDAL, |f| f.change("out", 33, |x| x + 1e-3)),
    ];
    let scratch = Scratch::new("op-sinusoidal");
    for (name, lines) in lines_about(&scratch, cases, &["--adapter", "0"]) {
        assert_eq!(lines.len(), 1, "{name}: made on the host: {lines:?}");
        assert_eq!(lines[0]["status"], "fail", "{name}: {lines:?}");
    }
}

#[test]
fn a_bucket_that_no_rounding_changes_is_named() {
    let scratch = Scratch::new("op-bucket");
    let cases: &[(&str, &str, Change)] = &[("case", LSH, |f| {
        let bytes = f.tensors["buckets"].2[4 * 200..][..4].try_into().expect("4 bytes");
        set_index(f, "buckets", 200, (i32::from_le_bytes(bytes) + 1) % 8);
    })];
    let (_, lines) = lines_about(&scratch, cases, &["--adapter", "0"]).remove(0);
    // [B, H, rounds, L]: 200 = ((0 x 2 + 1) x 2 + 1) x 64 + 8.
    for line in lines {
        assert_eq!(line["status"], "fail", "{line}");
        let reason = line["reason"].as_str().expect("a reason");
        assert!(reason.starts_with("buckets[0, 1, 1, 8]: got "), "{reason}");
    }
}

#[test]
fn malformed_cases() {
    let cases: &[(&str, &str, Change, &str)] = &[
        ("lsh_rounds", LSH, |f| f.case["rounds"] = json!(0), "rounds: need at least 1, got 0"),
        ("recurrent_cell", RNN, |f| f.case["cell"] = json!("elman"), "cell: need one of `"),
        (
            "recurrent_weight",
            RNN,
            |f| f.set_floats("weight_hh_l0", &[7, 6], &[0.0; 42]),
            "tensor `out`: need [B, T, D H], or [T, B, D H] = [3, 9, 6], got [3, 9, 7]",
        ),
        (
            "recurrent_c0",
            RNN,
            |f| f.set_floats("c0", &[1, 3, 7], &[0.0; 21]),
            "tensor `c0`: need none: the cell has no c",
        ),
        ("recurrent_bias", RNN, |f| drop(f.tensors.remove("bias_hh_l0")), "tensor `bias_hh_l0`: need it"),
        ("lsh_no_chunk", LSH, |f| remove(f, "chunk"), "chunk: need a whole number, got none"),
        ("lsh_chunk", LSH, |f| f.case["chunk"] = json!(-16), "chunk: need a whole number, got -16"),
        (
            "lsh_odd",
            LSH,
            |f| f.case["buckets"] = json!([7]),
            "buckets: need even factors of at least 2, got 7",
        ),
        ("lsh_bucket", LSH, |f| f.case["buckets"] = json!(8), "buckets: need a list of factors, got 8"),
        ("lsh_text", LSH, |f| f.case["buckets"] = json!(["8"]), "buckets: need whole numbers, got \"8\""),
        ("lsh_many", LSH, |f| f.case["buckets"] = json!([512, 512]), "buckets needs 262144, but"),
        ("lsh_wrap", LSH, |f| f.case["wrap"] = json!("yes"), "wrap: need true or false, got \"yes\""),
        (
            "lsh_rotations",
            LSH,
            |f| f.set_floats("rotations", &[2, 16, 2, 3], &[0.0; 192]),
            "tensor `rotations`: need [H or 1, d, rounds, half the sum of the bucket factors] = [2, 16, 2, 4]",
        ),
        ("lsh_no_rotations", LSH, |f| drop(f.tensors.remove("rotations")), "tensor `rotations`: need it"),
        (
            "lsh_range",
            LSH,
            |f| set_index(f, "buckets", 5, 8),
            "tensor `buckets`: need buckets up to 7, got 8",
        ),
        ("lsh_negative", LSH, |f| set_index(f, "buckets", 5, -1), "need indices of at least 0, got -1"),
        (
            "lsh_floats",
            LSH,
            |f| f.tensors.get_mut("buckets").expect("it").0 = Dtype::F32,
            "need I32, got F32",
        ),
        (
            "lsh_v",
            LSH,
            |f| f.set_floats("v", &[1, 2, 32, 16], &[0.0; 1024]),
            "tensor `v`: need [B, H, L, dv] = [1, 2, 64, 16], got [1, 2, 32, 16]",
        ),
        (
            "lsh_mask",
            LSH,
            |f| drop(f.tensors.insert("key_mask".into(), (Dtype::U8, vec![64], vec![1; 64]))),
            "tensor `key_mask`: need [B, L] = [1, 64], got [64]",
        ),
        ("norm_no_eps", NORM, |f| remove(f, "eps"), "eps: need a number, got none"),
        ("norm_eps", NORM, |f| f.case["eps"] = json!(-1.0), "eps: need "),
        (
            "norm_weight",
            NORM,
            |f| f.set_floats("weight", &[14], &[0.0; 14]),
            "tensor `weight`: need [width of x] = [15], got [14]",
        ),
        (
            "norm_out",
            NORM,
            |f| f.set_floats("out", &[15, 2], &[0.0; 30]),
            "tensor `out`: need the shape of x = [2, 15], got [15, 2]",
        ),
        (
            "norm_scalar",
            NORM,
            |f| f.set_floats("x", &[], &[0.0]),
            "tensor `x`: need at least one axis, got none",
        ),
        (
            "norm_dout_alone",
            NORM_GRADIENTS,
            |f| f.tensors.retain(|name, _| name == "dout" || !name.starts_with('d')),
            "tensor `dout`: need one of dx, dweight, dbias beside it",
        ),
        ("norm_no_dout", NORM_GRADIENTS, |f| drop(f.tensors.remove("dout")), "tensor `dout`: need it"),
        (
            "norm_dx",
            NORM_GRADIENTS,
            |f| f.set_floats("dx", &[1024, 3], &[0.0; 3072]),
            "tensor `dx`: need that of its tensor = [3, 1024], got [1024, 3]",
        ),
        ("rotary_theta", ROTARY_GRADIENTS, |f| f.case["theta"] = json!(500.0), "tensor `cos`: need "),
        ("rotary_first", ROTARY_GRADIENTS, |f| f.case["first_position"] = json!(1), "tensor `cos`: need "),
        ("axial_positions", AXIAL, |f| f.case["positions"] = json!(33), "positions: need at most 32"),
        (
            "axial_out",
            AXIAL,
            |f| f.case["positions"] = json!(29),
            "tensor `out`: need [positions, d0 + d1] = [29, 16], got [30, 16]",
        ),
        ("sinusoidal_layout", SINUSOIDAL, |f| f.case["layout"] = json!("rows"), "layout: need `interleaved`"),
        ("sinusoidal_dim", SINUSOIDAL, |f| remove(f, "dim"), "dim: need a size, got none"),
        ("rotary_dim", ROTARY, |f| f.case["rotary_dim"] = json!(3), "rotary_dim: need "),
        (
            "rotary_table",
            ROTARY,
            |f| f.set_floats("sin", &[3, 2], &[0.0; 6]),
            "tensor `sin`: need [L, rotary_dim / 2], or such a table for each item = [2, 3, 2], got [3, 2]",
        ),
        (
            "rotary_axes",
            ROTARY,
            |f| f.set_floats("x", &[24, 8], &[0.0; 192]),
            "tensor `x`: need [B, H, L, d]",
        ),
        (
            "ff_weights",
            FEED_FORWARD,
            |f| f.case["weights"] = json!("transposed"),
            "weights: need `in_out` or `out_in`, got \"transposed\"",
        ),
        (
            "ff_order",
            FEED_FORWARD,
            |f| f.case["weights"] = json!("in_out"),
            "tensor `w1`: need the widths of x and of the hidden layer, as `weights` says = [24, 24], got [64, 24]",
        ),
        ("ff_b2", FEED_FORWARD, |f| drop(f.tensors.remove("b2")), "tensor `b2`: need it"),
        (
            "ff_b1",
            FEED_FORWARD,
            |f| drop(f.tensors.remove("b1")),
            "tensor `b2`: need none, as there is no b1",
        ),
        (
            "ff_norm",
            FEED_FORWARD,
            |f| f.case["norm"] = json!("batch"),
            "norm: need `layer_norm` or `rms_norm`",
        ),
        ("ff_stray_norm", FEED_FORWARD, |f| remove(f, "norm"), "tensor `norm_weight`: need none"),
        (
            "bert_missing",
            "e2e_bert",
            |f| drop(f.tensors.remove("w.pooler.dense.bias")),
            "tensor `pooler.dense.bias`: need [32], found none of this name",
        ),
        (
            "bert_size",
            "e2e_bert",
            |f| f.set_floats("w.pooler.dense.weight", &[16, 64], &[0.0; 1024]),
            "tensor `pooler.dense.weight`: need F32 [32, 32], found F32 [16, 64]",
        ),
        (
            "bert_heads",
            "e2e_bert",
            |f| f.case["config"]["num_attention_heads"] = json!(5),
            "heads: need a divisor",
        ),
        (
            "gpt2_ids",
            "e2e_gpt2",
            |f| set_index(f, "input_ids", 0, 50),
            "`input_ids`: need ids below 50, found 50",
        ),
        (
            "gpt2_no_layers",
            "e2e_gpt2",
            |f| f.case["config"]["n_layer"] = Value::Null,
            "config `n_layer`: need ",
        ),
        ("gpt2_state", "e2e_gpt2", |f| drop(f.tensors.remove("hidden_1")), "tensor `hidden_1`: need one"),
    ];
    let scratch = Scratch::new("op-malformed");
    let plain: Vec<_> = cases.iter().map(|(name, golden, change, _)| (*name, *golden, *change)).collect();
    for ((name, lines), (.., needle)) in lines_about(&scratch, &plain, &["--cpu-only"]).iter().zip(cases) {
        assert_eq!(lines.len(), 1, "{name}: {lines:?}");
        assert_eq!(lines[0]["status"], "fail", "{name}: {lines:?}");
        let reason = lines[0]["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(needle), "{name}: {reason}");
    }
}

#[test]
fn what_is_not_known_is_not_skipped_over() {
    let cases: &[(&str, &str, Change)] = &[
        ("lsh", LSH, |f| f.case["look_far"] = json!(1)),
        ("norm", NORM, |f| f.case["axis"] = json!(0)),
        ("rotary", ROTARY, |f| f.set_floats("position_ids", &[1], &[0.0])),
        ("ff", FEED_FORWARD, |f| f.case["expected_abs_error"]["max"] = json!(1)),
        ("model", "e2e_bert", |f| f.set_floats("w.encoder.layer.0.adapter.weight", &[3], &[0.0; 3])),
        ("activation", FEED_FORWARD, |f| f.case["activation"] = json!("softplus")),
        ("family", "e2e_bert", |f| f.case["family"] = json!("elmo")),
    ];
    let scratch = Scratch::new("op-unknown");
    let wanted = [
        "key `look_far`",
        "key `axis`",
        "tensor `position_ids`",
        "key `expected_abs_error.max`",
        "tensor `w.encoder.layer.0.adapter.weight`",
        "activation `softplus`",
        "family `elmo`",
    ];
    for ((name, lines), want) in lines_about(&scratch, cases, &["--cpu-only"]).iter().zip(wanted) {
        assert_eq!(lines[0]["status"], "unsupported", "{name}: {lines:?}");
        assert_eq!(lines[0]["reason"], format!("{want} is not supported yet"), "{name}");
    }
}

/// Takes a key of a case away.
pub(crate) fn remove(case: &mut File, key: &str) {
    drop(case.case.as_object_mut().expect("keys").remove(key));
}

#[test]
fn activations() {
    let x: Vec<f32> = (-60..=60).map(|n| n as f32 * 0.125).collect();
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let inner = |x: f64| (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
    let functions: [(&str, &dyn Fn(f64) -> f64); 6] = [
        ("relu", &|x| x.max(0.0)),
        ("gelu_tanh", &|x| 0.5 * x * (1.0 + inner(x).tanh())),
        ("silu", &|x| x * sigmoid(x)),
        ("tanh", &f64::tanh),
        ("quick_gelu", &|x| x * sigmoid(1.702 * x)),
        ("mish", &|x| x * x.exp().ln_1p().tanh()),
    ];
    let scratch = Scratch::new("activations");
    for (name, function) in functions {
        let out: Vec<f32> = x.iter().map(|&x| function(x.into()) as f32).collect();
        let keys = json!({"activation": name, "expected_abs_error": {"out": 5e-7}});
        assert_passes(
            &scratch,
            name,
            &case("activation", keys, &[("x", &[11, 11], &x), ("out", &[11, 11], &out)]),
        );
    }
    // From tables of the normal distribution.
    let (x, out) = ([-2.0, -1.0, 0.0, 1.0, 2.0], [-0.04550026, -0.15865525, 0.0, 0.841_344_7, 1.954_499_7]);
    let keys = json!({"activation": "gelu_erf", "expected_abs_error": {"out": 2e-7}});
    assert_passes(&scratch, "gelu_erf", &case("activation", keys, &[("x", &[5], &x), ("out", &[5], &out)]));
}

#[test]
fn a_gated_layer_without_norm() {
    let (x, w1, w3, w2) =
        ([1.0, -2.0], [1.0, 2.0, 3.0, -1.0, 0.5, 2.0], [2.0, 1.0, 1.0, 1.0, 0.0, 1.0], [1.0; 6]);
    // x W1 = [3, 1, -1], x W3 = [0, 1, -1]: relu(x W1) * (x W3) = [0, 1, 0].
    let keys = json!({"activation": "relu", "weights": "in_out"});
    let tensors: [(&str, &[usize], &[f32]); 5] = [
        ("x", &[1, 1, 2], &x),
        ("w1", &[2, 3], &w1),
        ("w3", &[2, 3], &w3),
        ("w2", &[3, 2], &w2),
        ("out", &[1, 1, 2], &[1.0, 1.0]),
    ];
    let scratch = Scratch::new("gated");
    assert_passes(&scratch, "gated", &case("feed_forward", keys, &tensors));
}
