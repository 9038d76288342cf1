//! Files of LSH attention: in `verify`, `run` and `explain`, against formulas written here and against other systems.

use super::support::{File, Scratch, assert_passes, case, golden, wgpu_attention};
use safetensors::Dtype;
use serde_json::{Value, json};

#[test]
fn a_key_mask_of_lsh() {
    // One bucket pair, every position in one chunk, the last two masked: the mean of the others' values but its own.
    let (l, qk) = (6usize, [0.0; 6]);
    let v: Vec<f32> = (0..l).map(|n| (1 << n) as f32).collect();
    let seen = |i: usize| (0..4).filter(move |&j| j != i);
    let out: Vec<f32> = (0..l).map(|i| seen(i).map(|j| v[j]).sum::<f32>() / seen(i).count() as f32).collect();
    let keys = json!({
        "rounds": 1, "chunk": 6, "buckets": [2], "look_back": 0, "norm_eps": 1e-6, "self_penalty": -1e5,
        "expected_abs_error": {"out": 1e-5}
    });
    let tensors: [(&str, &[usize], &[f32]); 4] = [
        ("qk", &[1, 1, 6, 1], &qk),
        ("v", &[1, 1, 6, 1], &v),
        ("rotations", &[1, 1, 1, 1], &[1.0]),
        ("out", &[1, 1, 6, 1], &out),
    ];
    let mut file = case("lsh_attention", keys, &tensors);
    let buckets = [0, 0, 0, 0, 2, 2].iter().flat_map(|bucket: &i32| bucket.to_le_bytes()).collect();
    file.tensors.insert("buckets".into(), (Dtype::I32, vec![1, 1, 1, 6], buckets));
    file.tensors.insert("key_mask".into(), (Dtype::U8, vec![1, 6], vec![1, 1, 1, 1, 0, 0]));
    assert_passes(&Scratch::new("lsh-mask"), "key_mask", &file);
}

type Change = fn(&mut File);

#[test]
fn terms_of_lsh() {
    // One chunk holds every position; d = 1, so that keys are 1 or -1.
    let (l, qk) = (6usize, [1.0f32, -2.0, 0.5, 1.5, -1.0, 2.0]);
    let v: Vec<f32> = (0..l).map(|n| (1 << n) as f32).collect();
    let bias: Vec<f32> =
        (0..l * l).map(|n| if n % 5 == 4 { f32::NEG_INFINITY } else { n as f32 / 16.0 }).collect();
    let (slope, sink) = (0.25f32, 0.5f32);
    let weight = |i: usize, j: usize| {
        let capped = 2.0 * (f64::from(qk[i] * qk[j].signum()) / 2.0).tanh();
        let distance = i as f64 - j as f64;
        if i == j { 0.0 } else { (capped - f64::from(slope) * distance + f64::from(bias[i * l + j])).exp() }
    };
    let row = |i: usize| {
        let sum: f64 = (0..l).map(|j| weight(i, j)).sum::<f64>() + f64::from(sink).exp();
        ((0..l).map(|j| weight(i, j) * f64::from(v[j])).sum::<f64>() / sum, sum.ln())
    };
    let (out, lse): (Vec<f32>, Vec<f32>) = (0..l).map(|i| (row(i).0 as f32, row(i).1 as f32)).unzip();
    let keys = json!({
        "rounds": 1, "chunk": 6, "buckets": [2], "look_back": 0, "self_penalty": -1e5, "softcap": 2.0,
        "expected_abs_error": {"out": 1e-5}
    });
    let tensors: [(&str, &[usize], &[f32]); 8] = [
        ("qk", &[1, 1, 6, 1], &qk),
        ("v", &[1, 1, 6, 1], &v),
        ("rotations", &[1, 1, 1, 1], &[1.0]),
        ("bias", &[1, 1, 6, 6], &bias),
        ("alibi_slopes", &[1], &[slope]),
        ("sinks", &[1], &[sink]),
        ("out", &[1, 1, 6, 1], &out),
        ("lse", &[1, 1, 6], &lse),
    ];
    let mut file = case("lsh_attention", keys, &tensors);
    let buckets = [0, 1, 0, 0, 1, 0].iter().flat_map(|bucket: &i32| bucket.to_le_bytes()).collect();
    file.tensors.insert("buckets".into(), (Dtype::I32, vec![1, 1, 1, 6], buckets));
    let scratch = Scratch::new("lsh-terms");
    assert_passes(&scratch, "terms", &file);
    // Each counts; what LSH attention has none of is named, and what is wrong refused.
    let verdict = |change: &dyn Fn(&mut File)| {
        let path = scratch.file("changed.safetensors");
        let mut changed = File { case: file.case.clone(), tensors: file.tensors.clone() };
        change(&mut changed);
        changed.write(&path);
        let lines = wgpu_attention(["verify", &path, "--json", "--adapter", "0"]).json();
        let text = |key: &str| lines.last().expect("a line")[key].as_str().unwrap_or_default().to_owned();
        (text("status"), text("reason"))
    };
    let faults: [&dyn Fn(&mut File); 5] = [
        &|f| f.case["softcap"] = json!(4.0),
        &|f| f.change("bias", 1, |x| x + 1e-2),
        &|f| f.change("alibi_slopes", 0, |x| -x),
        &|f| f.change("sinks", 0, |x| x + 1e-2),
        &|f| drop(f.tensors.remove("sinks")),
    ];
    faults.iter().for_each(|fault| assert_eq!(verdict(*fault).0, "fail"));
    let refused: [(Change, &str); 3] = [
        (
            |f| f.set_floats("r", &[1, 11, 1], &[0.0; 11]),
            "relative: need none for LSH attention, where what it adds to a product would be divided by the norm of the key, got one",
        ),
        (
            |f| f.set_floats("seg_embed", &[2, 1, 1], &[0.0; 2]),
            "segments: need none for LSH attention, where",
        ),
        (
            |f| f.case["dropout"] = json!(0.1),
            "dropout: need none for LSH attention, where a pair may meet several times, and is drawn once",
        ),
    ];
    for (change, why) in refused {
        let (status, reason) = verdict(&change);
        assert!(status == "unsupported" && reason.contains(why), "{reason}");
    }
    let (status, reason) = verdict(&|f| f.set_floats("sinks", &[2], &[0.0; 2]));
    assert!(status == "fail" && reason.contains("tensor `sinks`: need [H] = [1], got [2]"), "{reason}");
}

/// Six places in one chunk, of one bucket pair: each row is the mean of the others' values.
fn means() -> (File, Vec<f32>) {
    let v: Vec<f32> = (0..6).map(|n| (1 << n) as f32).collect();
    let out: Vec<f32> = v.iter().map(|own| (63.0 - own) / 5.0).collect();
    let keys = json!({"rounds": 1, "chunk": 6, "buckets": [2], "look_back": 0, "norm_eps": 1e-6});
    let tensors: [(&str, &[usize], &[f32]); 3] =
        [("qk", &[1, 1, 6, 1], &[0.0; 6]), ("v", &[1, 1, 6, 1], &v), ("rotations", &[1, 1, 1, 1], &[1.0])];
    (case("lsh_attention", keys, &tensors), out)
}

fn run(scratch: &Scratch, more: &[&str]) -> super::support::Outcome {
    let (input, output) = (scratch.file("in.safetensors"), scratch.file("out.safetensors"));
    wgpu_attention(["run", "--input", &input, "--output", &output].iter().chain(more))
}

#[test]
fn run_computes_and_checks_a_case() {
    let scratch = Scratch::new("lsh-run");
    let (file, out) = means();
    file.write(scratch.file("in.safetensors"));
    let outcome = run(&scratch, &["--check", "--lse"]);
    assert!(outcome.stdout.starts_with("check: pass, 6 rows; worst "), "{outcome:?}");
    // Of zeros both products are 0.
    assert!(outcome.stdout.contains("; 0 of 6 buckets certain, 0 wrong, the order right"), "{outcome:?}");
    let got = File::read(scratch.file("out.safetensors"));
    assert_eq!((got.shape("out"), got.shape("lse")), (&[1, 1, 6, 1][..], &[1, 1, 6][..]));
    for (i, (got, lse)) in got.floats("out").iter().zip(got.floats("lse")).enumerate() {
        assert!(
            (got - out[i]).abs() < 1e-5 && (f64::from(lse) - 5f64.ln()).abs() < 1e-6,
            "row {i}: {got}, {lse}"
        );
    }
    // A case of another system's, with its key mask, rounds and penalties.
    for name in ["reformer_hf_lsh_s64_c16_h2", "reformer_lucid_s64_b16_h4_causal"] {
        let case = File::golden(name);
        case.write(scratch.file("in.safetensors"));
        let outcome = run(&scratch, &["--check", "--check-rows", "1000", "--quiet"]);
        assert!(outcome.stdout.starts_with("check: pass, "), "{name}: {outcome:?}");
        let got = File::read(scratch.file("out.safetensors"));
        let pairs = got.floats("out").into_iter().zip(case.floats("out"));
        assert!(pairs.into_iter().all(|(got, expected)| (got - expected).abs() < 1e-4), "{name}");
    }
}

#[test]
fn run_takes_the_types_of_a_file_and_refuses_what_is_not_for_it() {
    let scratch = Scratch::new("lsh-run-types");
    let (mut file, out) = means();
    for name in ["qk", "v"] {
        let halves = file.floats(name).into_iter().flat_map(|x| half::f16::from_f32(x).to_le_bytes());
        let halves = (Dtype::F16, file.shape(name).to_vec(), halves.collect());
        file.tensors.insert(name.into(), halves);
    }
    file.write(scratch.file("in.safetensors"));
    run(&scratch, &["--check"]).good();
    assert_eq!(File::read(scratch.file("out.safetensors")).tensors["out"].0, Dtype::F16);
    run(&scratch, &["--output-type", "f32"]).good();
    let got = File::read(scratch.file("out.safetensors")).floats("out");
    assert!(got.iter().zip(&out).all(|(got, out)| (got - out).abs() < 1e-4), "{got:?}");
    for option in [
        &["--pattern", "causal"][..],
        &["--kv-dtype", "f32"],
        &["--layout", "blhd"],
        &["--scale", "1"],
        &["--first-distance", "3"],
        &["--no-lowering"],
    ] {
        let error = run(&scratch, option).refused(1);
        let need = format!("{}: need none, as ", option[0]);
        assert!(error.contains(&need) && error.contains("is a case of LSH attention, got one"), "{error}");
    }
    assert!(
        run(&scratch, &["--path", "cooperative"]).refused(1).contains("LSH attention has no other kernel")
    );
    file.case["dropout"] = json!(0.1);
    file.write(scratch.file("in.safetensors"));
    assert!(run(&scratch, &[]).refused(1).contains("dropout: need none for LSH attention"));
    // Gradients are results, too, and do not matter; another type of v does, and another op.
    let (mut file, _) = means();
    file.set_floats("dqk", &[1, 1, 6, 1], &[0.0; 6]);
    file.case["expected_abs_error"] = json!({"dqk": 1e-6});
    file.write(scratch.file("in.safetensors"));
    run(&scratch, &[]).good();
    let halves = [half::f16::ONE; 6].iter().flat_map(|x| x.to_le_bytes()).collect();
    file.tensors.insert("v".into(), (Dtype::F16, vec![1, 1, 6, 1], halves));
    file.write(scratch.file("in.safetensors"));
    assert!(run(&scratch, &[]).refused(1).contains("tensor `v`: need f32, as qk, got f16"));
    file.case["op"] = json!("linear_attention");
    file.write(scratch.file("in.safetensors"));
    let error = run(&scratch, &["--pattern", "full"]).refused(1);
    assert!(
        error.contains("need a case of attention or of LSH attention, got `linear_attention`"),
        "{error}"
    );
    // Of a file of attention the pattern has to be said.
    File::golden("onnx_attention_4d").write(scratch.file("in.safetensors"));
    assert!(run(&scratch, &[]).refused(1).contains("--pattern: need one"));
}

#[test]
fn explain_says_what_a_case_costs() {
    let scratch = Scratch::new("lsh-explain");
    let (file, _) = means();
    file.write(scratch.file("in.safetensors"));
    let input = scratch.file("in.safetensors");
    let said = &wgpu_attention(["explain", "--input", &input, "--json"]).json()[0];
    // All see all, in products of one element; the hash is a product with one column.
    let counts: [(&str, Value); 5] = [
        ("pairs", json!(36)),
        ("flops", json!(144.0)),
        ("hash_flops", json!(12.0)),
        ("qk", json!([1, 1, 6, 1])),
        ("buckets", json!([2])),
    ];
    counts.iter().for_each(|(name, count)| assert_eq!(&said[name], count, "{name}: {said}"));
    assert!(said["scratch_bytes"].as_u64().is_some_and(|bytes| bytes >= 6 * 12), "{said}");
    let text = wgpu_attention(["explain", "--input", &input]).good();
    assert!(text.contains("pairs       36, ") && text.contains("scratch "), "{text}");
    // One or the other.
    for more in [&["--pattern", "full"][..], &["--len", "6"], &["--heads", "2"], &["--cpu-only"]] {
        let error = wgpu_attention(["explain", "--input", &input].iter().chain(more)).refused(2);
        assert!(error.contains("cannot be used with"), "{error}");
    }
    assert!(wgpu_attention(["explain", "--pattern", "full"]).refused(2).contains("--len"));
    let other = golden("onnx_attention_4d");
    let error = wgpu_attention(["explain", "--input", other.to_str().expect("UTF-8")]).refused(1);
    assert!(error.contains("need a case of LSH attention, got none"), "{error}");
}

#[test]
fn a_case_without_buckets_has_those_of_the_reference() {
    let scratch = Scratch::new("lsh-no-buckets");
    let (mut file, out) = means();
    file.case["expected_abs_error"] = json!({"out": 1e-5});
    file.set_floats("out", &[1, 1, 6, 1], &out);
    assert_passes(&scratch, "means", &file);
    file.change("out", 2, |x| x + 1e-2);
    file.write(scratch.file("wrong.safetensors"));
    let outcome = wgpu_attention(["verify", &scratch.file("wrong.safetensors"), "--adapter", "0"]);
    assert!(outcome.code == 1 && outcome.stderr.contains("2 failed"), "{outcome:?}");
}
