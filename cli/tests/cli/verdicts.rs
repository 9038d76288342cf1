//! What `verify` says of cases that are hard to judge: masks at f32's end, overflow, NaN, biases with gaps, calls of nothing.

use super::support::{File, Outcome, Scratch, case, wgpu_attention};
use serde_json::{Value, json};

const MIN: f32 = f32::MIN;

/// Two queries of zeros and four keys of one element, with these keys and tensors beside. Values: 1, 2, 4, 8.
fn of_zeros(keys: Value, tensors: &[(&str, &[usize], &[f32])]) -> File {
    let mut file = case("attention", keys, tensors);
    if file.case.get("pattern").is_none() {
        file.case["pattern"] = json!({"kind": "full"});
    }
    for (name, shape, values) in [
        ("q", [1, 1, 2, 1], &[0.0; 2][..]),
        ("k", [1, 1, 4, 1], &[0.5, -1.0, 2.0, 0.25]),
        ("v", [1, 1, 4, 1], &[1.0, 2.0, 4.0, 8.0]),
    ] {
        if !file.tensors.contains_key(name) {
            file.set_floats(name, &shape, values);
        }
    }
    file
}

fn verify(scratch: &Scratch, file: &File, more: &[&str]) -> Outcome {
    let path = scratch.file("case.safetensors");
    file.write(&path);
    wgpu_attention(["verify", &path, "--adapter", "0"].iter().chain(more))
}

/// The statuses of the reference and of the adapter, which agree, with the reason.
#[track_caller]
fn verdict(scratch: &Scratch, file: &File) -> (String, String) {
    let lines = verify(scratch, file, &["--json"]).json();
    let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let each: Vec<_> = lines.iter().map(|line| (text(line, "status"), text(line, "reason"))).collect();
    assert!(each.iter().all(|it| it.0 == each[0].0), "{lines:?}");
    each[0].clone()
}

#[test]
fn masks_that_meet_are_judged() {
    let scratch = Scratch::new("masks");
    // Of query 0 keys 1 and 2 are masked twice; of query 1 all are.
    let bias = [0.0, MIN, MIN, 0.0, MIN, MIN, MIN, MIN];
    // Distances of 3 to 0 for query 1, of 2 to -1 for query 0.
    let by_distance = [MIN, MIN, MIN, -3e38, 0.0];
    let out = [8.0, 3.75];
    let file = of_zeros(
        json!({"first_distance": 3}),
        &[
            ("bias", &[1, 1, 2, 4], &bias),
            ("distance_bias", &[1, 5], &by_distance),
            ("out", &[1, 1, 2, 1], &out),
        ],
    );
    assert_eq!(verdict(&scratch, &file).0, "pass");
    let lines = verify(&scratch, &file, &["--json"]).json();
    assert!(lines.iter().all(|line| line.get("unspecified").is_none()), "{lines:?}");
    let (input, output) = (scratch.file("case.safetensors"), scratch.file("out.safetensors"));
    let run = [
        "run",
        "--pattern",
        "full",
        "--first-distance",
        "3",
        "--check",
        "--input",
        &input,
        "--output",
        &output,
    ];
    let said = wgpu_attention(run).good();
    assert!(said.starts_with("check: pass, 2 rows; worst "), "{said}");
    assert_eq!(File::read(&output).floats("out"), out);
    // The bounds are no wider than they have to be.
    let mut wrong = file.clone();
    wrong.change("out", 1, |x| x + 1e-3);
    assert_eq!(verdict(&scratch, &wrong).0, "fail");
}

/// The same where keys are sorted by their buckets: a query whose every other key is masked twice has its own, at the penalty.
#[test]
fn masks_that_meet_in_lsh_attention_are_judged() {
    let scratch = Scratch::new("masks-lsh");
    let bias = [0.0, MIN, MIN, 0.0, MIN, 0.0, MIN, MIN, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    // Of the distances 3 to -3; masked are 1, -1 and -2.
    let by_distance = [0.0, 0.0, MIN, 0.0, MIN, MIN, 0.0];
    let of = |penalty: f32, bias: &[f32], by_distance: &[f32], out: &[f32], lse: &[f32]| {
        let keys = json!({
            "rounds": 1, "chunk": 4, "buckets": [2], "look_back": 0, "norm_eps": 1e-6, "first_distance": 3, "self_penalty": penalty
        });
        let tensors: [(&str, &[usize], &[f32]); 7] = [
            ("qk", &[1, 1, 4, 1], &[0.0; 4]),
            ("v", &[1, 1, 4, 1], &[1.0, 2.0, 4.0, 8.0]),
            ("rotations", &[1, 1, 1, 1], &[1.0]),
            ("bias", &[4, 4], bias),
            ("distance_bias", &[1, 7], by_distance),
            ("out", &[1, 1, 4, 1], out),
            ("lse", &[1, 1, 4], lse),
        ];
        verdict(&scratch, &case("lsh_attention", keys, &tensors)).0
    };
    let (out, lse) = ([8.0, 2.0, 1.0, 1.5], [0.0, -1e5, 0.0, 2f32.ln()]);
    assert_eq!(of(-1e5, &bias, &by_distance, &out, &lse), "pass");
    assert_eq!(of(-1e5, &bias, &by_distance, &[8.0, 2.01, 1.0, 1.5], &lse), "fail");
    // Where the penalty is a mask, too, a row of masks is the mean of all.
    let lowest = MIN.next_up();
    assert_eq!(of(MIN, &[MIN; 16], &[MIN; 7], &[3.75; 4], &[lowest; 4]), "pass");
    assert_eq!(of(MIN, &[MIN; 16], &[MIN; 7], &[3.75, 3.75, 3.75, 3.76], &[lowest; 4]), "fail");
}

#[test]
fn what_is_not_compared_is_no_pass() {
    let scratch = Scratch::new("partial");
    // The products of query 1 pass f32's range; those of query 0 are 0.
    let mut file = of_zeros(json!({"scale": 1.0}), &[("q", &[1, 1, 2, 1], &[0.0, 3e38])]);
    file.set_floats("out", &[1, 1, 2, 1], &[3.75, 4.0]);
    let outcome = verify(&scratch, &file, &[]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    for line in outcome.stdout.lines() {
        assert!(line.starts_with("partial ") && line.ends_with(" (1 elements unspecified)"), "{line}");
    }
    let lines = verify(&scratch, &file, &["--json"]).json();
    assert!(lines.iter().all(|it| it["status"] == "partial" && it["unspecified"] == 1), "{lines:?}");
    // What is wrong is wrong.
    file.change("out", 0, |x| x + 0.1);
    assert_eq!(verdict(&scratch, &file).0, "fail");

    // Of query 1 alone nothing is said at all.
    let mut alone = of_zeros(json!({"scale": 1.0}), &[("q", &[1, 1, 1, 1], &[3e38])]);
    alone.set_floats("out", &[1, 1, 1, 1], &[4.0]);
    assert_eq!(verdict(&scratch, &alone).0, "unsupported");
    let (input, output) = (scratch.file("case.safetensors"), scratch.file("out.safetensors"));
    let run = ["run", "--pattern", "full", "--scale", "1", "--check", "--input", &input, "--output", &output];
    let outcome = wgpu_attention(run);
    assert!(outcome.code == 1 && outcome.stdout.starts_with("check: NOTHING to compare, "), "{outcome:?}");
    assert!(outcome.stderr.contains("error: the result could not be compared"), "{outcome:?}");

    // Gradients likewise: those of query 0 are compared, dk and dv of keys that both see are not.
    let shapes = [("dq", [1, 1, 2, 1]), ("dk", [1, 1, 4, 1])];
    file.change("out", 0, |_| 3.75);
    file.set_floats("dout", &[1, 1, 2, 1], &[1.0, 1.0]);
    let dq = (-2.75 * 0.5 + 1.75 + 0.25 * 2.0 + 4.25 * 0.25) / 4.0;
    file.set_floats(shapes[0].0, &shapes[0].1, &[dq, 0.0]);
    file.set_floats(shapes[1].0, &shapes[1].1, &[0.0; 4]);
    let lines = verify(&scratch, &file, &["--json"]).json();
    assert!(lines.iter().all(|it| it["status"] == "partial" && it["unspecified"] == 6), "{lines:?}");
}

#[test]
fn nothing_but_nan_is_no_pass() {
    let scratch = Scratch::new("all-nan");
    let nan = [f32::NAN; 2];
    let tensors: [(&str, &[usize], &[f32]); 2] = [("q", &[1, 1, 2, 1], &nan), ("out", &[1, 1, 2, 1], &nan)];
    let (status, reason) = verdict(&scratch, &of_zeros(json!({}), &tensors));
    assert!(status == "unsupported" && reason.contains("no number to compare"), "{status}: {reason}");
    // One row of numbers is something.
    let mut file = of_zeros(json!({}), &[("q", &[1, 1, 2, 1], &[0.0, f32::NAN])]);
    file.set_floats("out", &[1, 1, 2, 1], &[3.75, f32::NAN]);
    assert_eq!(verdict(&scratch, &file).0, "pass");
    // And of other ops.
    let norm = |x: f32| {
        let tensors: [(&str, &[usize], &[f32]); 3] =
            [("x", &[1, 2], &[x; 2]), ("weight", &[2], &[1.0; 2]), ("out", &[1, 2], &[f32::NAN; 2])];
        case("rms_norm", json!({"eps": 1e-5}), &tensors)
    };
    assert_eq!(verdict(&scratch, &norm(f32::NAN)).0, "unsupported");
    assert_eq!(verdict(&scratch, &norm(1.0)).0, "fail");
}

#[test]
fn an_lse_that_is_no_number_is_compared() {
    let scratch = Scratch::new("strange-lse");
    let of = |q: f32, out: f32, lse: f32| {
        let tensors: [(&str, &[usize], &[f32]); 3] = [
            ("q", &[1, 1, 2, 1], &[0.0, q]),
            ("out", &[1, 1, 2, 1], &[3.75, out]),
            ("lse", &[1, 1, 2], &[4f32.ln(), lse]),
        ];
        verdict(&scratch, &of_zeros(json!({}), &tensors)).0
    };
    assert_eq!(of(0.0, 3.75, 4f32.ln()), "pass");
    for lse in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(of(0.0, 3.75, lse), "fail", "{lse}");
        assert_eq!(of(f32::NAN, f32::NAN, lse), if lse.is_nan() { "pass" } else { "fail" }, "{lse}");
    }
    // A row that is not finite has no lse of a number.
    assert_eq!(of(f32::NAN, f32::NAN, 0.5), "fail");
}

#[test]
fn a_number_against_nan_is_said_in_few_words() {
    let scratch = Scratch::new("ratio");
    let file = of_zeros(json!({}), &[("out", &[1, 1, 2, 1], &[3.75, f32::NAN])]);
    let outcome = verify(&scratch, &file, &[]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(
        outcome
            .stdout
            .contains("  error/bound infinite at out[0, 0, 1, 0] against expected: got 3.75e0, expected NaN")
    );
    assert!(outcome.stdout.lines().all(|line| line.len() < 240), "{outcome:?}");
    let far = of_zeros(json!({}), &[("out", &[1, 1, 2, 1], &[3.75, 3e38])]);
    let outcome = verify(&scratch, &far, &[]);
    assert!(
        outcome.stdout.contains("e4") && outcome.stdout.lines().all(|line| line.len() < 240),
        "{outcome:?}"
    );
}

#[test]
fn a_bias_by_distance_has_an_element_for_every_pair() {
    let scratch = Scratch::new("gaps");
    let of = |first: i32, len: usize, keys: Value, bias: Option<&[f32]>| {
        let (zeros, mut file) = (vec![0.0; len], of_zeros(keys, &[("out", &[1, 1, 2, 1], &[3.75; 2])]));
        file.case["first_distance"] = json!(first);
        file.set_floats("distance_bias", &[1, len], &zeros);
        bias.into_iter().for_each(|bias| file.set_floats("bias", &[1, 1, 2, 4], bias));
        file
    };
    // Distances from -1 to 3.
    assert_eq!(verdict(&scratch, &of(3, 5, json!({}), None)).0, "pass");
    assert_eq!(verdict(&scratch, &of(9, 99, json!({}), None)).0, "pass");
    for (first, len) in [(3, 4), (2, 9), (3, 1), (-5, 2)] {
        let file = of(first, len, json!({}), None);
        let (status, reason) = verdict(&scratch, &file);
        let last = i64::from(first) - len as i64 + 1;
        let need = format!(
            "tensor `distance_bias`: need the distances from -1 to 3, those of the pairs that are kept, got {len} from {last} to {first}"
        );
        assert!(status == "fail" && reason.contains(&need), "{status}: {reason}");
        let (input, output) = (scratch.file("case.safetensors"), scratch.file("out.safetensors"));
        let first = first.to_string();
        let run =
            ["run", "--pattern", "full", "--first-distance", &first, "--input", &input, "--output", &output];
        assert!(wgpu_attention(run).refused(1).contains(&need));
        let clipped = of(first.parse().expect("a number"), len, json!({"clip_distances": true}), None);
        assert_eq!(verdict(&scratch, &clipped).0, "pass");
    }
    // What a pattern, or minus infinity, leaves out needs none: query 0 is 2 behind key 0.
    let none = f32::NEG_INFINITY;
    let causal = [0.0, 0.0, 0.0, none, 0.0, 0.0, 0.0, 0.0];
    let mut file = of(3, 4, json!({"pattern": {"kind": "causal"}}), None);
    file.set_floats("out", &[1, 1, 2, 1], &[7.0 / 3.0, 3.75]);
    assert_eq!(verdict(&scratch, &file).0, "pass");
    let mut file = of(3, 4, json!({}), Some(&causal));
    file.set_floats("out", &[1, 1, 2, 1], &[7.0 / 3.0, 3.75]);
    assert_eq!(verdict(&scratch, &file).0, "pass");
    // NaN that the file has is the file's.
    let mut file = of(3, 5, json!({}), None);
    file.change("distance_bias", 4, |_| f32::NAN);
    file.set_floats("out", &[1, 1, 2, 1], &[f32::NAN, 3.75]);
    assert_eq!(verdict(&scratch, &file).0, "pass");

    // LSH attention: whatever meets, but a place itself.
    let lsh = |first: i32, len: usize, causal: bool| {
        let tensors: [(&str, &[usize], &[f32]); 5] = [
            ("qk", &[1, 1, 3, 1], &[0.0; 3]),
            ("v", &[1, 1, 3, 1], &[1.0, 2.0, 4.0]),
            ("rotations", &[1, 1, 1, 1], &[1.0]),
            ("distance_bias", &[1, len], &vec![0.0; len]),
            ("out", &[1, 1, 3, 1], if causal { &[1.0, 1.0, 1.5] } else { &[3.0, 2.5, 1.5] }),
        ];
        let keys = json!({
            "rounds": 1, "chunk": 3, "buckets": [2], "look_back": 0, "norm_eps": 1e-6, "first_distance": first, "causal": causal
        });
        verdict(&scratch, &case("lsh_attention", keys, &tensors))
    };
    assert_eq!((lsh(2, 5, false).0, lsh(2, 2, true).0), ("pass".into(), "pass".into()));
    let (status, reason) = lsh(2, 2, false);
    assert!(
        status == "fail" && reason.contains("`distance_bias`: need the distances from -2 to 2"),
        "{reason}"
    );
}

/// Without queries or without keys nothing reads a bias: its gradient is 0.
#[test]
fn gradients_of_calls_of_nothing() {
    let scratch = Scratch::new("nothing");
    for (q_len, kv_len) in [(0, 4), (3, 0), (0, 0)] {
        let mut file = case("attention", json!({"pattern": {"kind": "full"}, "first_distance": 2}), &[]);
        for (name, len) in [("q", q_len), ("k", kv_len), ("v", kv_len), ("out", q_len), ("dout", q_len)] {
            file.set_floats(name, &[1, 2, len, 1], &vec![0.0; 2 * len]);
        }
        // Broadcast over the axis that is empty.
        let [q_size, kv_size] = [q_len, kv_len].map(|len| if len == 0 { 1 } else { len });
        for (name, shape) in [("bias", &[1, 2, q_size, kv_size][..]), ("distance_bias", &[2, 3])] {
            let values: Vec<f32> = (0..shape.iter().product()).map(|n| n as f32).collect();
            file.set_floats(name, shape, &values);
            file.set_floats(&format!("d{name}"), shape, &vec![0.0; values.len()]);
        }
        assert_eq!(
            verdict(&scratch, &file),
            ("pass".into(), String::new()),
            "{q_len} queries, {kv_len} keys"
        );
        file.change("ddistance_bias", 1, |_| 1e-3);
        assert_eq!(verdict(&scratch, &file).0, "fail", "{q_len} queries, {kv_len} keys");
    }
}
