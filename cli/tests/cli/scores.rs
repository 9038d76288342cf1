//! Terms of the score, in `run` and in `verify`: against formulas that are written here.

use super::support::{File, Scratch, wgpu_attention};
use serde_json::{Value, json};

/// Heads, queries, keys, head size of the calls.
const H: usize = 3;
const LQ: usize = 4;
const LK: usize = 6;
const D: usize = 8;

/// q, k and v of a golden case with one batch item.
fn tensors() -> File {
    let golden = File::golden("onnx_attention_4d");
    let mut file = File::default();
    for (name, len) in [("q", LQ), ("k", LK), ("v", LK)] {
        file.set_floats(name, &[1, H, len, D], &golden.floats(name)[..H * len * D]);
    }
    file
}

/// out and lse in f64, by the formula: `score(product, head, i, j)` of every pair.
fn expected(file: &File, score: impl Fn(f64, usize, usize, usize) -> f64) -> [Vec<f32>; 2] {
    let [q, k, v] = ["q", "k", "v"].map(|name| file.floats(name));
    let row = |x: &[f32], len: usize, head: usize, i: usize| -> Vec<f64> {
        x[(head * len + i) * D..][..D].iter().map(|&x| x.into()).collect()
    };
    let (mut out, mut lse) = (vec![], vec![]);
    for head in 0..H {
        for i in 0..LQ {
            let of_key = |j: usize| {
                let dot: f64 =
                    row(&q, LQ, head, i).iter().zip(row(&k, LK, head, j)).map(|(q, k)| q * k).sum();
                score(dot / (D as f64).sqrt(), head, i, j).exp()
            };
            let weights: Vec<f64> = (0..LK).map(of_key).collect();
            let sum: f64 = weights.iter().sum();
            for column in 0..D {
                let of = |(j, weight): (usize, &f64)| weight * row(&v, LK, head, j)[column];
                out.push((weights.iter().enumerate().map(of).sum::<f64>() / sum) as f32);
            }
            lse.push(sum.ln() as f32);
        }
    }
    [out, lse]
}

/// (i + Lk - Lq) - j: from the aligned ends.
fn distance(i: usize, j: usize) -> f64 {
    (i + LK - LQ) as f64 - j as f64
}

/// Options of `run`, keys of a case, tensors of the file, and the score.
type Score =
    (&'static [&'static str], Value, Vec<(&'static str, [f32; H])>, fn(f64, usize, usize, usize) -> f64);

/// 2^(-8 h / H) for 3 heads; Bloom takes 2 heads' and then the first of 4 heads'.
const SLOPES: [f32; H] = [0.5, 0.25, 0.125];

fn scores() -> Vec<Score> {
    let paper =
        |product, head: usize, i, j| product - 2f64.powf(-8.0 * (head + 1) as f64 / 3.0) * distance(i, j);
    let bloom = |product, head: usize, i, j| product - [0.0625, 0.00390625, 0.25][head] * distance(i, j);
    let given = |product, head: usize, i, j| product - f64::from(SLOPES[head]) * distance(i, j);
    let symmetric = |product, head: usize, i, j| product - f64::from(SLOPES[head]) * distance(i, j).abs();
    let warm = |product: f64, head: usize, _, _| 2.0 * (product / [0.5, 2.0, 3.0][head] / 2.0).tanh();
    let slopes = || vec![("slopes", SLOPES)];
    vec![
        (&["--alibi"], json!({"alibi": true}), vec![], paper),
        (&["--alibi=bloom"], json!({"alibi": "bloom"}), vec![], bloom),
        (&["--alibi=given"], json!({"alibi": "given"}), slopes(), given),
        (
            &["--alibi=given", "--alibi-symmetric"],
            json!({"alibi": "given", "alibi_symmetric": true}),
            slopes(),
            symmetric,
        ),
        (&["--softcap", "2"], json!({"softcap": 2.0}), vec![("temperature", [0.5, 2.0, 3.0])], warm),
    ]
}

#[test]
fn run_computes_them() {
    let scratch = Scratch::new("scores-run");
    let (input, output) = (scratch.file("in.safetensors"), scratch.file("out.safetensors"));
    for (options, _, terms, score) in scores() {
        let mut file = tensors();
        terms.iter().for_each(|(name, values)| file.set_floats(name, &[H], values));
        file.write(&input);
        let args = ["run", "--pattern", "full", "--input", &input, "--output", &output, "--lse", "--check"];
        let outcome = wgpu_attention([&args, options].concat());
        assert!(!outcome.stderr.contains("note: "), "{outcome:?}");
        outcome.good();
        let got = File::read(&output);
        for (name, expected) in ["out", "lse"].iter().zip(expected(&file, score)) {
            for (n, (got, expected)) in got.floats(name).iter().zip(&expected).enumerate() {
                assert!((got - expected).abs() < 1e-5, "{options:?}: {name} {n}: {got}, not {expected}");
            }
        }
    }
}

#[test]
fn verify_knows_them() {
    let scratch = Scratch::new("scores-verify");
    let path = scratch.file("case.safetensors");
    for (_, keys, terms, score) in scores() {
        let mut file = tensors();
        terms.iter().for_each(|(name, values)| file.set_floats(name, &[H], values));
        for (name, values) in ["out", "lse"].iter().zip(expected(&file, score)) {
            file.set_floats(name, &[1, H, LQ, D][..if *name == "out" { 4 } else { 3 }], &values);
        }
        file.case = json!({
            "op": "attention", "name": "case", "pattern": {"kind": "full"}, "expected_abs_error": {"out": 1e-6},
        });
        for (key, value) in keys.as_object().expect("keys") {
            file.case[key] = value.clone();
        }
        file.write(&path);
        let lines = wgpu_attention(["verify", &path, "--json"]).json();
        assert!(lines.len() >= 2, "the reference and an adapter: {lines:?}");
        lines.iter().for_each(|line| assert_eq!(line["status"], "pass", "{keys}: {line}"));
        // And not something else.
        file.change("out", 5, |x| x + 1e-3);
        file.write(&path);
        let lines = wgpu_attention(["verify", &path, "--json"]).json();
        lines.iter().for_each(|line| assert_eq!(line["status"], "fail", "{keys}: {line}"));
    }
}

#[test]
fn wrong_options() {
    let scratch = Scratch::new("scores-wrong");
    let (input, output) = (scratch.file("in.safetensors"), scratch.file("out.safetensors"));
    tensors().write(&input);
    let run = |options: &[&str]| {
        let args = ["run", "--pattern", "full", "--input", &input, "--output", &output];
        wgpu_attention([&args, options].concat())
    };
    assert!(run(&["--alibi=steep"]).refused(2).contains("steep"));
    assert!(run(&["--alibi-symmetric"]).refused(2).contains("--alibi"));
    let error = run(&["--alibi=given"]).refused(1);
    assert!(error.contains("tensor `slopes`: need it, got only k, q, v"), "{error}");
}

/// Scores as text: what the options say, and what only a text can say; with the tensors that golden cases have for them.
#[test]
fn scores_as_text() {
    let scratch = Scratch::new("scores-text");
    let (input, output) = (scratch.file("in.safetensors"), scratch.file("out.safetensors"));
    let run = |pattern: &str, score: &str| {
        let args = ["run", "--pattern", pattern, "--input", &input, "--output", &output, "--check"];
        wgpu_attention([&args[..], &["--score", score]].concat())
    };
    for (name, pattern, score) in [
        ("sinks_s40_h4kv2_d16", "causal", "scale:factor=0.25"),
        ("alibi_bloom_h3_s65_d16", "causal", "scale:factor=0.25"),
        (
            "t5_bi_q20_k45_nb16",
            "full",
            "scale:factor=1 + buckets:count=16,max_distance=30,bidirectional=true",
        ),
        ("t5_dec_causal_s48_d16", "causal", "buckets:count=32,max_distance=128 + scale:factor=1"),
    ] {
        let golden = File::golden(name);
        golden.write(&input);
        let outcome = run(pattern, score);
        assert!(!outcome.stderr.contains("note: "), "{outcome:?}");
        outcome.good();
        let (got, expected) = (File::read(&output).floats("out"), golden.floats("out"));
        assert!(got.len() == expected.len() && !got.is_empty());
        for (n, (got, expected)) in got.iter().zip(&expected).enumerate() {
            assert!((got - expected).abs() < 1e-5, "{name}: {n}: {got}, not {expected}");
        }
    }
    let error = run("full", "softcap:cap=2 + bucket:count=3").refused(2);
    assert!(error.contains("no term is called `bucket`: `buckets`, "), "{error}");
    let error = run("causal", "alibi:slope=mpt").refused(2);
    assert!(error.contains("`alibi` has no parameter `slope`: `slopes`, `symmetric` are known"), "{error}");
    // The file has a table, which the score has no buckets for.
    let error = run("causal", "plain").refused(1);
    assert!(
        error.contains("tensor `bucket_table`: need buckets in the score, which it is of, got none"),
        "{error}"
    );
    let error = run("causal", "buckets:count=31,max_distance=128").refused(1);
    assert!(error.contains("tensor `bucket_table`: need [buckets, H] = [31, 2]"), "{error}");
    // Bloom's slopes are those of its file, and the paper's are not.
    File::golden("alibi_bloom_h3_s65_d16").write(&input);
    let error = run("causal", "alibi").refused(1);
    assert!(error.contains("tensor `alibi_slopes`: need none, as the score has other slopes"), "{error}");
    // A bias by distance needs the distance of its first element.
    File::golden("t5_enc_nb8_md20_s65_d16_toeplitz").write(&input);
    let error = run("full", "plain").refused(1);
    assert!(error.contains("tensor `distance_bias`: need the distance of its first element"), "{error}");
    let args =
        ["explain", "--pattern", "causal", "--len", "64", "--score", "softcap:cap=50 + alibi:slopes=bloom"];
    let outcome = wgpu_attention(args);
    assert!(outcome.stdout.contains("softcap:cap=50 + alibi:slopes=bloom"), "{outcome:?}");
}

/// One value of a table, and one of its parameters, that are not right.
#[test]
fn tables_of_the_host_are_compared() {
    let scratch = Scratch::new("scores-tables");
    let path = scratch.file("case.safetensors");
    let verdict = |file: &File| {
        file.write(&path);
        let lines = wgpu_attention(["verify", &path, "--json"]).json();
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines[0]["status"].as_str().expect("a status").to_owned()
    };
    let mut slopes = File::golden("alibi_slopes_bloom");
    assert_eq!(verdict(&slopes), "pass");
    // MPT has the same slopes, by another way; the paper's formula gives others.
    slopes.case["order"] = "mpt".into();
    assert_eq!(verdict(&slopes), "pass");
    slopes.case["order"] = "paper".into();
    assert_eq!(verdict(&slopes), "fail");
    slopes.case["order"] = "steep".into();
    assert_eq!(verdict(&slopes), "fail");
    let mut buckets = File::golden("t5_bucket_bi_nb8_md20");
    assert_eq!(verdict(&buckets), "pass");
    for (key, value) in
        [("num_buckets", json!(10)), ("max_distance", json!(40)), ("bidirectional", json!(false))]
    {
        let before = buckets.case[key].clone();
        buckets.case[key] = value;
        assert_eq!(verdict(&buckets), "fail", "{key}");
        buckets.case[key] = before;
    }
    buckets.case["rounding"] = json!("up");
    assert_eq!(verdict(&buckets), "unsupported");
}

/// Transformer-XL's, Shaw's and XLNet's own results; and what a file or a case may not say.
#[test]
fn relative_rows() {
    let scratch = Scratch::new("scores-relative");
    let (input, output) = (scratch.file("in.safetensors"), scratch.file("out.safetensors"));
    for (name, pattern) in
        [("txl_core_q16_m16_d16", "causal"), ("shaw_s33_h2_d16", "full"), ("xlnet_core_bi_mem_noseg", "full")]
    {
        let golden = File::golden(name);
        golden.write(&input);
        let first = golden.case["first_distance"].to_string();
        let run = |options: &[&str]| {
            let args = ["run", "--pattern", pattern, "--input", &input, "--output", &output, "--check"];
            wgpu_attention([&args, options].concat())
        };
        run(&["--first-distance", &first]).good();
        let (got, expected) = (File::read(&output).floats("out"), golden.floats("out"));
        assert!(got.len() == expected.len() && !got.is_empty());
        for (n, (got, expected)) in got.iter().zip(&expected).enumerate() {
            assert!((got - expected).abs() < 1e-5, "{name}: {n}: {got}, not {expected}");
        }
        let error = run(&[]).refused(1);
        assert!(
            error.contains("r: need the distance of its first row (first_distance), got none"),
            "{error}"
        );
        let error = run(&["--first-distance", "3"]).refused(1);
        assert!(error.contains("relative: need rows of the distances "), "{error}");
        run(&["--first-distance", "3", "--clip-distances"]).good();
    }
    tensors().write(&input);
    let args = ["run", "--pattern", "full", "--input", &input, "--output", &output, "--first-distance", "3"];
    assert!(wgpu_attention(args).refused(1).contains("first_distance: need none, as the file has no `r`"));

    // One row further, the same values belong to other distances.
    let mut case = File::golden("shaw_s33_h2_d16");
    case.case["first_distance"] = 38.into();
    case.write(&input);
    let lines = wgpu_attention(["verify", &input, "--json"]).json();
    lines.iter().for_each(|line| assert_eq!(line["status"], "fail", "{line}"));
    case.case["needs"] = json!(["distances", "telepathy"]);
    case.write(&input);
    let lines = wgpu_attention(["verify", &input, "--json"]).json();
    lines.iter().for_each(|line| assert_eq!(line["status"], "unsupported", "{line}"));
}

#[test]
fn segments() {
    let scratch = Scratch::new("scores-segments");
    let (input, output) = (scratch.file("in.safetensors"), scratch.file("out.safetensors"));
    for name in ["xlnet_content_q14_m8_d16", "xlnet_query_q14_m8_d16"] {
        let golden = File::golden(name);
        golden.write(&input);
        let args = ["run", "--pattern", "mask", "--input", &input, "--output", &output, "--check"];
        let run = || wgpu_attention([&args[..], &["--first-distance", "22"]].concat());
        run().good();
        let (got, expected) = (File::read(&output).floats("out"), golden.floats("out"));
        assert!(got.len() == expected.len() && !got.is_empty());
        for (n, (got, expected)) in got.iter().zip(&expected).enumerate() {
            assert!((got - expected).abs() < 1e-5, "{name}: {n}: {got}, not {expected}");
        }
        let mut without = File::golden(name);
        without.tensors.remove("seg_k");
        without.write(&input);
        let error = run().refused(1);
        assert!(error.contains("`seg_k`: need it, got only "), "{error}");
        let mut wrong = File::golden(name);
        wrong.set_floats("s", &[16, 2], &[0.0; 32]);
        wrong.write(&input);
        let error = run().refused(1);
        assert!(error.contains("`s`: need [H, D] = [2, 16], got [16, 2]"), "{error}");
    }
}

#[test]
fn verify_stores_keys_and_values_in_another_type() {
    let args = [
        "verify",
        "golden/onnx_attention_4d_causal.safetensors",
        "golden/reformer_hf_lsh_s64_c16_h1.safetensors",
        "--kv-dtype",
        "f16",
        "--adapter",
        "0",
        "--json",
    ];
    let outcome = wgpu_attention(args);
    let on_gpu: Vec<Value> =
        outcome.json().into_iter().filter(|line| line.get("adapter_index").is_some()).collect();
    let [attention, lsh] = &on_gpu[..] else { panic!("two lines: {outcome:?}") };
    assert_eq!((&attention["status"], &attention["against"]), (&"pass".into(), &"reference".into()));
    assert_eq!((&attention["dtype"], &attention["kv_dtype"]), (&"f32".into(), &"f16".into()));
    let again = attention["reproduce"].as_str().expect("a command");
    assert!(again.ends_with("--adapter 0 --dtype f32 --kv-dtype f16"), "{again}");
    let lines = wgpu_attention((again.to_owned() + " --json").split(' ').skip(1)).json();
    assert!(lines.contains(attention), "{again}: {lines:?}");
    assert_eq!(lsh["status"], "unsupported", "{lsh}");
    assert!(lsh["reason"].as_str().is_some_and(|it| it.contains("type of their own")), "{lsh}");
    wgpu_attention(["verify", "golden", "--cpu-only", "--kv-dtype", "f16"]).refused(2);
}

/// A second bias lies as the file's tensor does; what a score leaves out of a file, or would read wrongly, is an error.
#[test]
fn tensors_that_could_be_misread() {
    let scratch = Scratch::new("scores-misread");
    let (input, output) = (scratch.file("in.safetensors"), scratch.file("out.safetensors"));
    let run = |file: &File, options: &[&str]| {
        file.write(&input);
        let args = ["run", "--pattern", "full", "--input", &input, "--output", &output, "--lse", "--check"];
        wgpu_attention([&args, options].concat())
    };
    let mut file = tensors();
    let second: Vec<f32> = (0..LQ * LK).map(|n| (n as f32 * 0.7).sin()).collect();
    file.set_floats("second_bias", &[1, 1, LQ, LK], &second);
    run(&file, &["--score", "second_bias"]).good();
    let [out, lse] = expected(&file, |product, _, i, j| product + f64::from(second[i * LK + j]));
    let got = File::read(&output);
    for (name, expected) in [("out", out), ("lse", lse)] {
        for (got, expected) in got.floats(name).iter().zip(expected) {
            assert!((got - expected).abs() < 1e-5, "{name}: {got}, not {expected}");
        }
    }

    let mut file = tensors();
    file.set_floats("r", &[H, 9, D], &[0.5; H * 9 * D]);
    file.set_floats("w", &[H, D], &[0.25; H * D]);
    let rows = "relative:first_distance=5,rows=9";
    let error = run(&file, &["--score", &format!("{rows},u=true")]).refused(1);
    assert!(error.contains("tensor `u`: need it"), "{error}");
    let error = run(&file, &["--score", rows]).refused(1);
    assert!(error.contains("tensor `w`: need none, as the score's relative rows have no w"), "{error}");
    run(&file, &["--score", &format!("{rows},w=true")]).good();

    let mut file = tensors();
    file.set_floats("slopes", &[H], &SLOPES);
    file.set_floats("alibi_slopes", &[H], &SLOPES);
    let error = run(&file, &["--alibi=given"]).refused(1);
    assert!(error.contains("tensor `alibi_slopes`: need none, as the file has `slopes`"), "{error}");
}
