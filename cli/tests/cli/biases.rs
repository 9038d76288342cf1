//! Two biases in one file, one per pair and one by distance: in `run` and in `verify`, against a formula in f64 that is written here, and
//! its derivatives.

use super::support::{File, Scratch, wgpu_attention};
use serde_json::json;

/// Heads, queries, keys, head size.
const H: usize = 3;
const LQ: usize = 4;
const LK: usize = 6;
const D: usize = 8;
/// Elements of the bias by distance, of which the first is that of the distance 4: those of 5 and of -3 are past its ends.
const R: usize = 7;
const FIRST: i64 = 4;

/// q, k, v and dout, and biases that are not round: one of all heads, one per head.
fn tensors() -> File {
    let golden = File::golden("onnx_attention_4d");
    let mut file = File::default();
    for (name, len) in [("q", LQ), ("k", LK), ("v", LK)] {
        file.set_floats(name, &[1, H, len, D], &golden.floats(name)[..H * len * D]);
    }
    let wave = |len: usize, step: f64| (0..len).map(|n| (step * n as f64).sin() as f32).collect::<Vec<_>>();
    file.set_floats("bias", &[LQ, LK], &wave(LQ * LK, 0.7));
    file.set_floats("distance_bias", &[H, R], &wave(H * R, 1.3));
    file.set_floats("dout", &[1, H, LQ, D], &wave(H * LQ * D, 0.37));
    file
}

/// Which element a pair has, where distances are clipped.
fn element(i: usize, j: usize) -> usize {
    let distance = (i + LK - LQ) as i64 - j as i64;
    (FIRST - distance).clamp(0, R as i64 - 1) as usize
}

/// out, lse, dbias and ddistance_bias: o = sum p v, ds = p (do . v - do . o), each bias's gradient the sum of ds over what reads it.
fn expected(file: &File) -> [Vec<f64>; 4] {
    let get = |name| file.floats(name).into_iter().map(f64::from).collect::<Vec<_>>();
    let [q, k, v, bias, by_distance, dout] = ["q", "k", "v", "bias", "distance_bias", "dout"].map(get);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (mut out, mut lse) = (vec![], vec![]);
    let (mut dbias, mut dby_distance) = (vec![0.0; LQ * LK], vec![0.0; H * R]);
    for head in 0..H {
        let row = |x: &[f64], len: usize, i: usize| x[(head * len + i) * D..][..D].to_vec();
        for i in 0..LQ {
            let score = |j: usize| {
                let product = dot(&row(&q, LQ, i), &row(&k, LK, j)) / (D as f64).sqrt();
                product + bias[i * LK + j] + by_distance[head * R + element(i, j)]
            };
            let sum: f64 = (0..LK).map(|j| score(j).exp()).sum();
            let p: Vec<f64> = (0..LK).map(|j| score(j).exp() / sum).collect();
            let o: Vec<f64> =
                (0..D).map(|c| (0..LK).map(|j| p[j] * row(&v, LK, j)[c]).sum::<f64>()).collect();
            let dout = row(&dout, LQ, i);
            for j in 0..LK {
                let ds = p[j] * (dot(&dout, &row(&v, LK, j)) - dot(&dout, &o));
                dbias[i * LK + j] += ds;
                dby_distance[head * R + element(i, j)] += ds;
            }
            out.extend(o);
            lse.push(sum.ln());
        }
    }
    [out, lse, dbias, dby_distance]
}

fn close(file: &File, name: &str, expected: &[f64]) {
    let got = file.floats(name);
    assert_eq!(got.len(), expected.len(), "{name}");
    for (n, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((f64::from(*got) - expected).abs() < 2e-6, "{name} {n}: {got}, not {expected}");
    }
}

#[test]
fn run_adds_both() {
    let scratch = Scratch::new("biases-run");
    let (input, output) = (scratch.file("in.safetensors"), scratch.file("out.safetensors"));
    let file = tensors();
    file.write(&input);
    let args = ["run", "--pattern", "full", "--input", &input, "--output", &output, "--lse", "--check"];
    let run = |options: &[&str]| wgpu_attention([&args, options].concat());
    let outcome = run(&["--first-distance", "4", "--clip-distances"]);
    assert!(!outcome.stderr.contains("note: "), "{outcome:?}");
    outcome.good();
    let [out, lse, ..] = expected(&file);
    close(&File::read(&output), "out", &out);
    close(&File::read(&output), "lse", &lse);

    // Without clipping two distances have no element.
    let error = run(&["--first-distance", "4"]).refused(1);
    assert!(error.contains("tensor `distance_bias`: need the distances from -3 to 5"), "{error}");
    let error = run(&["--first-distance", "4", "--score", "second_bias:key=1"]).refused(1);
    assert!(error.contains("tensor `distance_bias`: need none, as the score has a `second_bias`"), "{error}");
}

/// A pair that one of the biases removes, by minus infinity, is removed whatever the other says.
#[test]
fn either_removes_pairs() {
    let scratch = Scratch::new("biases-removed");
    let (input, output) = (scratch.file("in.safetensors"), scratch.file("out.safetensors"));
    let mut file = tensors();
    file.change("bias", 3 * LK + 1, |_| f32::NEG_INFINITY);
    // Distance 1 of head 2.
    file.change("distance_bias", 2 * R + 3, |_| f32::NEG_INFINITY);
    file.write(&input);
    let args = ["run", "--pattern", "full", "--input", &input, "--output", &output, "--check"];
    wgpu_attention([&args[..], &["--first-distance", "4", "--clip-distances"]].concat()).good();
    // exp(-inf) is 0: the formula needs no case of its own.
    close(&File::read(&output), "out", &expected(&file)[0]);
}

#[test]
fn verify_compares_both_and_their_gradients() {
    let scratch = Scratch::new("biases-verify");
    let path = scratch.file("case.safetensors");
    let mut file = tensors();
    let [out, lse, dbias, dby_distance] =
        expected(&file).map(|values| values.iter().map(|&x| x as f32).collect::<Vec<_>>());
    file.set_floats("out", &[1, H, LQ, D], &out);
    file.set_floats("lse", &[1, H, LQ], &lse);
    file.set_floats("dbias", &[LQ, LK], &dbias);
    file.set_floats("ddistance_bias", &[H, R], &dby_distance);
    file.case = json!({
        "op": "attention", "name": "case", "pattern": {"kind": "full"}, "first_distance": FIRST, "clip_distances": true,
        "needs": ["gradients", "distance_bias"], "expected_abs_error": {"out": 1e-7},
    });
    let lines = |file: &File| {
        file.write(&path);
        wgpu_attention(["verify", &path, "--json"]).json()
    };
    let all = lines(&file);
    assert!(all.len() >= 2, "the reference and an adapter: {all:?}");
    for line in &all {
        assert_eq!(line["status"], "pass", "{line}");
        assert!(line["score"].as_str().is_some_and(|it| it.contains(" + second_bias:offset=")), "{line}");
    }
    // And not something else: of out, of either gradient, and of either bias.
    for (name, place) in [
        ("out", 5),
        ("dbias", 7),
        ("ddistance_bias", 0),
        ("ddistance_bias", R),
        ("bias", 9),
        ("distance_bias", 4),
    ] {
        let mut wrong = file.clone();
        wrong.change(name, place, |x| x + 1e-3);
        lines(&wrong).iter().for_each(|line| assert_eq!(line["status"], "fail", "{name}: {line}"));
    }
}
