//! `run`: from a file to a file.

use super::support::{File, Scratch, case, wgpu_attention, without_adapter};
use half::{bf16, f16};
use safetensors::Dtype;
use serde_json::json;

/// `run` with a pattern, from `input` to `output` in the scratch folder, and more arguments.
fn run(scratch: &Scratch, pattern: &str, input: &str, more: &[&str]) -> super::support::Outcome {
    let (input, output) = (scratch.file(input), scratch.file("out.safetensors"));
    let args = ["run", "--pattern", pattern, "--input", &input, "--output", &output];
    wgpu_attention(args.iter().chain(more))
}

fn output(scratch: &Scratch) -> File {
    File::read(scratch.file("out.safetensors"))
}

fn assert_close(got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len());
    for (n, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= tolerance, "element {n}: {got}, not {expected}");
    }
}

#[test]
fn a_golden_case_comes_out_as_expected() {
    let scratch = Scratch::new("run-golden");
    let case = File::golden("sdpa_gqa_h6kv3_q17_k17_d80_causal");
    case.write(scratch.file("in.safetensors"));
    let outcome = run(&scratch, "causal", "in.safetensors", &["--lse", "--check"]);
    assert!(outcome.stdout.starts_with("check: pass, 64 rows; worst "), "{outcome:?}");
    assert!(outcome.stdout.contains("error/bound 0."), "{outcome:?}");
    for step in ["[1/7] read", "build mask", "compile", "upload", "compute", "check", "[7/7] write"] {
        assert!(outcome.stderr.contains(step), "{step}: {outcome:?}");
    }
    let out = output(&scratch);
    assert_eq!(out.shape("out"), case.shape("out"));
    assert_close(&out.floats("out"), &case.floats("out"), 1e-5);
    assert_close(&out.floats("lse"), &case.floats("lse"), 1e-4);
    assert_eq!(scratch.names(), ["in.safetensors", "out.safetensors"], "something was left behind");

    // Without --lse there is none, and --quiet says nothing.
    let outcome = run(&scratch, "causal", "in.safetensors", &["--quiet"]);
    assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()), (0, "", ""));
    assert_eq!(output(&scratch).tensors.keys().collect::<Vec<_>>(), ["out"]);
}

/// Latent attention: the heads share one key head, whose keys and values are wider than any head's.
#[test]
fn rows_of_latent_attention() {
    let scratch = Scratch::new("run-wide");
    let wave = |len: usize, step: f32| (0..len).map(|n| (n as f32 * step).sin()).collect::<Vec<_>>();
    let (q, k, v) = (wave(4 * 20 * 576, 0.7), wave(33 * 576, 1.1), wave(33 * 512, 1.3));
    let tensors = [
        ("q", &[1, 4, 20, 576][..], &q[..]),
        ("k", &[1, 1, 33, 576][..], &k[..]),
        ("v", &[1, 1, 33, 512][..], &v[..]),
    ];
    case("attention", json!({}), &tensors).write(scratch.file("in.safetensors"));
    let outcome = run(&scratch, "causal", "in.safetensors", &["--lse", "--check"]);
    assert!(outcome.stdout.starts_with("check: pass, 64 rows; worst "), "{outcome:?}");
    assert_eq!(output(&scratch).shape("out"), [1, 4, 20, 512]);
}

#[test]
fn score_options() {
    let scratch = Scratch::new("run-score");
    let check = |name: &str, pattern: &str, more: &[&str]| {
        let case = File::golden(name);
        case.write(scratch.file("in.safetensors"));
        run(&scratch, pattern, "in.safetensors", more).good();
        assert_close(&output(&scratch).floats("out"), &case.floats("out"), 1e-5);
    };
    check("onnx_attention_3d_gqa_softcap", "full", &["--softcap", "3"]);
    check("onnx_attention_4d_gqa_scaled", "full", &["--scale", "0.01"]);
    check("onnx_attention_4d_attn_mask_4d", "full", &[]);
    // Masks and layouts lie in the file, too.
    check("onnx_attention_4d_attn_mask_bool", "mask", &[]);
    check("bigbird_b32_s256_r1_h2", "blocks:block=32", &[]);
    check(
        "sparse_ds_fixed_uni_block32",
        r#"{"kind":"and","of":[{"kind":"blocks","block":32},{"kind":"causal"}]}"#,
        &[],
    );

    File::golden("onnx_attention_4d_attn_mask_bool").write(scratch.file("in.safetensors"));
    let outcome = run(&scratch, "full", "in.safetensors", &["--alibi", "--check"]);
    assert!(outcome.stderr.contains("note: the tensor `mask` is not used"), "{outcome:?}");
    outcome.good();
}

#[test]
fn lowering_can_be_turned_off() {
    let scratch = Scratch::new("run-lowering");
    File::golden("real_minilm_layer2").write(scratch.file("in.safetensors"));
    let pattern = "strided:stride=14,part=both,causal=true";
    let mut outputs = vec![];
    for more in [&["--check"][..], &["--check", "--no-lowering"]] {
        run(&scratch, pattern, "in.safetensors", more).good();
        outputs.push(output(&scratch).floats("out"));
    }
    assert_close(&outputs[0], &outputs[1], 1e-4);
}

/// `[B, H, L, D]` as `[B, L, H, D]`, and back.
fn swapped(values: &[f32], [batch, outer, inner, dim]: [usize; 4]) -> Vec<f32> {
    let row = |b: usize, i: usize, o: usize| &values[((b * outer + o) * inner + i) * dim..][..dim];
    let rows = (0..batch).flat_map(|b| (0..inner).flat_map(move |i| (0..outer).map(move |o| (b, i, o))));
    rows.flat_map(|(b, i, o)| row(b, i, o).to_vec()).collect()
}

#[test]
fn layouts_and_axes() {
    let scratch = Scratch::new("run-layout");
    let case = File::golden("onnx_attention_3d_gqa");
    let expected = case.floats("out");
    let mut other = File::default();
    for name in ["q", "k", "v"] {
        let &[b, h, l, d] = case.shape(name) else { panic!("{name}") };
        other.set_floats(name, &[b, l, h, d], &swapped(&case.floats(name), [b, h, l, d]));
    }
    other.write(scratch.file("in.safetensors"));
    run(&scratch, "full", "in.safetensors", &["--layout", "blhd", "--check", "--lse"]).good();
    let out = output(&scratch);
    assert_eq!((out.shape("out"), out.shape("lse")), (&[2, 4, 9, 8][..], &[2, 9, 4][..]));
    assert_close(&swapped(&out.floats("out"), [2, 4, 9, 8]), &expected, 1e-5);

    // One head of one batch item, without those axes; and with that of the heads.
    for axes in [2, 3] {
        let mut one = File::default();
        for name in ["q", "k", "v"] {
            let &[_, _, l, d] = case.shape(name) else { panic!("{name}") };
            one.set_floats(name, &[1, l, d][3 - axes..], &case.floats(name)[..l * d]);
        }
        one.write(scratch.file("in.safetensors"));
        run(&scratch, "full", "in.safetensors", &["--lse"]).good();
        let out = output(&scratch);
        assert_eq!(out.shape("out"), &[1, 4, 8][3 - axes..]);
        assert_eq!(out.shape("lse"), &[1, 4][3 - axes..]);
        assert_close(&out.floats("out"), &expected[..32], 1e-5);
    }
}

#[test]
fn element_types() {
    let scratch = Scratch::new("run-types");
    let case = File::golden("sdpa_causal_s33_d128_h1_b1");
    let narrow = |to: fn(f32) -> [u8; 2], dtype| {
        let mut file = case.clone();
        for name in ["q", "k", "v"] {
            let data = case.floats(name).into_iter().flat_map(to).collect();
            file.tensors.insert(name.into(), (dtype, case.shape(name).to_vec(), data));
        }
        file
    };
    let f16 = narrow(|x| f16::from_f32(x).to_le_bytes(), Dtype::F16);
    let bf16 = narrow(|x| bf16::from_f32(x).to_le_bytes(), Dtype::BF16);
    for (file, own) in [(&case, Dtype::F32), (&f16, Dtype::F16), (&bf16, Dtype::BF16)] {
        file.write(scratch.file("in.safetensors"));
        for (more, dtype) in [
            (&["--check"][..], own),
            (&["--check", "--output-type", "f32"], Dtype::F32),
            (&["--check", "--output-type", "f16"], Dtype::F16),
            (&["--check", "--output-type", "bf16"], Dtype::BF16),
        ] {
            run(&scratch, "causal", "in.safetensors", more).good();
            let out = output(&scratch);
            assert_eq!(out.tensors["out"].0, dtype, "{own:?} {more:?}");
            if dtype == Dtype::F32 {
                assert_close(&out.floats("out"), &case.floats("out"), 0.05);
            }
        }
    }
}

/// k and v in a type of their own: of the file, or by an option.
#[test]
fn keys_and_values_in_another_type() {
    let scratch = Scratch::new("run-kv");
    let case = File::golden("sdpa_causal_s33_d128_h1_b1");
    let mut mixed = case.clone();
    for name in ["k", "v"] {
        let data = case.floats(name).into_iter().flat_map(|x| f16::from_f32(x).to_le_bytes()).collect();
        mixed.tensors.insert(name.into(), (Dtype::F16, case.shape(name).to_vec(), data));
    }
    let computed = |file: &File, more: &[&str]| {
        file.write(scratch.file("in.safetensors"));
        run(&scratch, "causal", "in.safetensors", &[&["--check"], more].concat()).good();
        output(&scratch).floats("out")
    };
    let halves = computed(&mixed, &[]);
    assert_close(&halves, &case.floats("out"), 0.01);
    assert_ne!(halves, computed(&case, &[]), "they were not rounded");
    assert_eq!(halves, computed(&case, &["--kv-dtype", "f16"]), "rounded here or there");
    computed(&mixed, &["--kv-dtype", "bf16", "--output-type", "f32"]);

    mixed.tensors.insert("v".into(), case.tensors["v"].clone());
    mixed.write(scratch.file("in.safetensors"));
    let error = run(&scratch, "causal", "in.safetensors", &[]).refused(1);
    assert!(error.contains("tensor `v`: need f16, as k, or --kv-dtype, got f32"), "{error}");
}

/// No query: nothing to compute, and a file that says so.
#[test]
fn empty_tensors() {
    let scratch = Scratch::new("run-empty");
    let mut file = File::default();
    file.set_floats("q", &[2, 3, 0, 8], &[]);
    file.set_floats("k", &[2, 3, 5, 8], &[0.0; 240]);
    file.set_floats("v", &[2, 3, 5, 8], &[0.0; 240]);
    file.write(scratch.file("in.safetensors"));
    run(&scratch, "full", "in.safetensors", &["--lse"]).good();
    assert_eq!(output(&scratch).shape("out"), [2, 3, 0, 8]);
    let text = run(&scratch, "full", "in.safetensors", &["--check"]).good();
    assert_eq!(text, "check: no rows to compare, 0 rows\n");
}

/// No key: rows of 0, and the lse of nothing.
#[test]
fn no_keys() {
    let scratch = Scratch::new("run-no-keys");
    let mut file = File::default();
    file.set_floats("q", &[2, 3, 5, 8], &[1.0; 240]);
    file.set_floats("k", &[2, 3, 0, 8], &[]);
    file.set_floats("v", &[2, 3, 0, 4], &[]);
    for bias in [false, true] {
        if bias {
            file.set_floats("bias", &[1, 3, 5, 0], &[]);
        }
        file.write(scratch.file("in.safetensors"));
        for pattern in ["full", "causal", "window:before=3,after=0"] {
            let text = run(&scratch, pattern, "in.safetensors", &["--lse", "--check"]).good();
            assert!(text.starts_with("check: pass, 30 rows; worst "), "{pattern}: {text}");
            let out = output(&scratch);
            assert_eq!((out.shape("out"), out.shape("lse")), (&[2, 3, 5, 4][..], &[2, 3, 5][..]));
            assert_eq!(out.floats("out"), [0.0; 120], "{pattern}");
            assert_eq!(out.floats("lse"), [f32::MIN; 30], "{pattern}");
        }
    }
}

#[test]
fn bad_input_leaves_the_old_output() {
    let scratch = Scratch::new("run-bad");
    let good = File::golden("onnx_attention_4d");
    good.write(scratch.file("good.safetensors"));
    std::fs::write(scratch.file("out.safetensors"), "old").expect("written");

    let mut no_v = good.clone();
    no_v.tensors.remove("v");
    no_v.write(scratch.file("no_v.safetensors"));
    let mut mixed = good.clone();
    mixed.tensors.get_mut("k").expect("k").0 = Dtype::I32;
    mixed.write(scratch.file("mixed.safetensors"));
    let mut five = good.clone();
    five.tensors.get_mut("q").expect("q").1.insert(0, 1);
    five.write(scratch.file("five.safetensors"));

    for (pattern, input, more, needle) in [
        ("full", "no_v.safetensors", &[][..], "no_v.safetensors: tensor `v`: need it"),
        ("full", "mixed.safetensors", &[], "tensor `k`: need F32, F16 or BF16, got I32"),
        ("full", "five.safetensors", &[], "five.safetensors: tensor `q`: need [B, H, L, D]"),
        ("full", "none.safetensors", &[], "cannot read"),
        ("full", "good.safetensors", &["--scale", "nan"], "scale: need a finite number, got NaN"),
        (
            "full",
            "good.safetensors",
            &["--softcap", "-1"],
            "softcap: need a finite normal number above 0, got -1",
        ),
        ("full", "good.safetensors", &["--adapter", "nothing like it"], "--adapter: need one of"),
        ("mask", "good.safetensors", &[], "Mask.values: need a tensor, got none"),
        ("key_lengths:lengths=[1,2,3]", "good.safetensors", &[], "lengths"),
    ] {
        let error = run(&scratch, pattern, input, more).refused(1);
        assert!(error.contains(needle), "{pattern} {input} {more:?}: {error}");
        assert_eq!(std::fs::read(scratch.file("out.safetensors")).expect("the file"), b"old");
    }
    let input = scratch.file("good.safetensors");
    let elsewhere = ["run", "--pattern", "full", "--input", &input, "--output"];
    for (output, needle) in
        [("no/such/folder/x", "there is no folder no/such/folder"), ("golden", "it is a folder"), ("..", "")]
    {
        let error = wgpu_attention(elsewhere.iter().chain([&output])).refused(1);
        assert!(error.contains("cannot write") && error.contains(needle), "{error}");
    }
    assert_eq!(scratch.names().iter().filter(|name| name.ends_with(".part")).count(), 0);
    let error =
        without_adapter(elsewhere.iter().chain([&scratch.file("out.safetensors").as_str()])).refused(1);
    assert!(error.contains("no GPU adapter"), "{error}");
    // NaN in one key of a causal pattern: rows before it are right, those behind it are not compared.
    let mut nan = good.clone();
    nan.change("k", 2 * 8, |_| f32::NAN);
    nan.case = json!(null);
    nan.write(scratch.file("nan.safetensors"));
    let text = run(&scratch, "causal:alignment=top_left", "nan.safetensors", &["--check"]).good();
    assert!(text.starts_with("check: pass, 24 rows, 2 of them not finite; worst "), "{text}");
}

/// A check that met no number has shown nothing.
#[test]
fn nothing_but_nan_is_no_pass() {
    let scratch = Scratch::new("run-nan");
    std::fs::write(scratch.file("out.safetensors"), "old").expect("written");
    let mut nan = File::golden("onnx_attention_4d");
    for name in ["q", "k", "v"] {
        let (shape, count) = (nan.shape(name).to_vec(), nan.floats(name).len());
        nan.set_floats(name, &shape, &vec![f32::NAN; count]);
    }
    nan.write(scratch.file("nan.safetensors"));
    let outcome = run(&scratch, "full", "nan.safetensors", &["--check"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    let said = "check: NOTHING to compare, 24 rows, 24 of them not finite; worst ";
    assert!(outcome.stdout.starts_with(said), "{outcome:?}");
    assert!(outcome.stderr.contains("holds no number to compare"), "{outcome:?}");
    assert_eq!(std::fs::read(scratch.file("out.safetensors")).expect("the file"), b"old");
}

#[test]
fn tensors_that_are_not_used_are_named() {
    let scratch = Scratch::new("run-unused");
    let mut file = File::golden("onnx_attention_4d");
    file.set_floats("attn_mask", &[4, 6], &[0.0; 24]);
    file.set_floats("gates", &[3], &[1.0; 3]);
    file.set_floats("slopes", &[3], &[1.0; 3]);
    file.tensors.insert("layout".into(), (Dtype::U8, vec![1, 1, 1], vec![1]));
    // Not a mask of this crate's: of another type and shape, which does not matter where it is not used.
    file.set_floats("mask", &[3], &[0.0, -1e9, 0.0]);
    file.write(scratch.file("in.safetensors"));
    let notes = |pattern: &str, more: &[&str]| {
        let outcome = run(&scratch, pattern, "in.safetensors", &[&["--quiet"], more].concat());
        let names = |line: &str| line.strip_prefix("note: the tensor `").map(|rest| rest.to_owned());
        let names: Vec<_> = outcome.stderr.lines().filter_map(names).collect();
        outcome.good();
        names
    };
    let unknown = "is not used: nothing of this name is known; see `run --help` for those that are";
    let expected = [
        format!("attn_mask` {unknown}"),
        format!("gates` {unknown}"),
        "layout` is not used: the pattern has no `blocks`".into(),
        "mask` is not used: the pattern has no `mask`".into(),
        "slopes` is not used: only --alibi=given takes slopes".into(),
    ];
    assert_eq!(notes("full", &[]), expected);
    assert_eq!(notes("blocks:block=64", &["--alibi=given"]), [&expected[0][..], &expected[1], &expected[3]]);
}
