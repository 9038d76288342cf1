//! `weights`: attention weights drawn, summed up, and written.

use super::support::{File, Outcome, Scratch, wgpu_attention, without_adapter};
use serde_json::{Value, json};

fn weights(scratch: &Scratch, pattern: &str, more: &[&str]) -> Outcome {
    let input = scratch.file("in.safetensors");
    wgpu_attention(["weights", "--pattern", pattern, "--input", &input].iter().chain(more))
}

/// q [2, 2, 8, 4] of 0, so that keys share equally; but query 7 of head 1 of item 1 looks at key 2.
fn planted(scratch: &Scratch) {
    let mut file = File::default();
    let (mut q, mut k) = (vec![0f32; 128], vec![0f32; 128]);
    q[4 * (8 * 3 + 7)] = 4.0;
    k[4 * (8 * 3 + 2)] = 40.0;
    file.set_floats("q", &[2, 2, 8, 4], &q);
    file.set_floats("k", &[2, 2, 8, 4], &k);
    file.write(scratch.file("in.safetensors"));
}

#[test]
fn rows_are_drawn() {
    let scratch = Scratch::new("weights-drawn");
    planted(&scratch);
    // Without values: they do not matter.
    let text = weights(&scratch, "causal", &["--rows", "0,1,-1", "--head", ":", "--batch", "1"]).good();
    let expected = "\
batch item 1, head 0: 3 of 8 queries, 8 keys; ▁ to █ of the row's largest, · left out
    query           entropy     keys  largest
        0 █·······    0.000        1  1.000 of 0
        1 ██······    0.693        2  0.500 of 0
        7 ████████    2.079        8  0.125 of 0
batch item 1, head 1: 3 of 8 queries, 8 keys; ▁ to █ of the row's largest, · left out
    query           entropy     keys  largest
        0 █·······    0.000        1  1.000 of 0
        1 ██······    0.693        2  0.500 of 0
        7 ▁▁█▁▁▁▁▁    0.000        8  1.000 of 2
";
    assert_eq!(text, expected);
    // All rows of the first head, unless others are asked for.
    let text = weights(&scratch, "window:before=1,after=1", &[]).good();
    assert!(text.starts_with("batch item 0, head 0: 8 of 8 queries"), "{text}");
    assert!(text.contains("\n        4 ···███··    1.099        3  0.333 of 3\n"), "{text}");
    assert_eq!(text.lines().count(), 10);
}

#[test]
fn long_rows_are_pooled_and_spread() {
    let scratch = Scratch::new("weights-long");
    let mut file = File::default();
    file.set_floats("q", &[100, 4], &[0.0; 400]);
    file.set_floats("k", &[100, 4], &[0.0; 400]);
    file.write(scratch.file("in.safetensors"));
    let text = weights(&scratch, "causal", &[]).good();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("batch item 0, head 0: 32 of 100 queries, 100 keys"), "{text}");
    assert!(lines[0].ends_with("3 keys per cell"), "{text}");
    assert_eq!(lines.len(), 34);
    // 100 keys in 34 cells, of which the last has one key alone: a third of the others.
    let last = format!("{:>9} {}▃    4.605      100  0.010 of 0", 99, "█".repeat(33));
    assert_eq!(lines[33], last);
}

/// Against the reference, by head and row, on a golden case with a bias.
#[test]
fn weights_are_those_of_the_reference() {
    use wgpu_attention::reference::{WeightFormat, row_weights};
    use wgpu_attention::{AttentionShape, BiasStrides, Causal, Inputs, Position, Score};
    let scratch = Scratch::new("weights-reference");
    let mut case = File::golden("onnx_attention_4d_attn_mask_4d");
    case.tensors.retain(|name, _| ["q", "k", "v", "bias"].contains(&name.as_str()));
    case.write(scratch.file("in.safetensors"));
    let &[batch, heads, q_len, dim] = case.shape("q") else { panic!("{case:?}") };
    let kv_len = case.shape("k")[2];
    let sizes = <[usize; 4]>::try_from(case.shape("bias")).expect("four axes");

    let (output, svg) = (scratch.file("w.safetensors"), scratch.file("w.svg"));
    let more =
        ["--rows=-1,0", "--head", ":", "--batch=-1", "--json", "--top", "2", "-o", &output, "--svg", &svg];
    let outcome = weights(&scratch, "causal", &more);
    let lines = outcome.json();
    assert_eq!(lines.len(), 2 * heads);
    outcome.good();
    let got = File::read(&output);
    assert_eq!(got.shape("weights"), [1, heads, 2, kv_len]);

    let shape = AttentionShape::new(batch, heads, q_len, dim).kv_len(kv_len).value_dim(case.shape("v")[3]);
    let call = shape.score(Score::new().bias(BiasStrides::broadcast(sizes)));
    let [q, k, v, bias] = ["q", "k", "v", "bias"].map(|name| case.floats(name));
    let inputs = Inputs::new(&q, &k, &v).tensor("bias", &bias);
    for (n, (row, line)) in got.floats("weights").chunks(kv_len).zip(&lines).enumerate() {
        let at = Position { batch: batch - 1, head: n / 2, i: [q_len - 1, 0][n % 2] };
        let of = [&line["batch"], &line["head"], &line["row"]].map(Value::as_u64);
        assert_eq!(of, [at.batch, at.head, at.i].map(|index| Some(index as u64)));
        let exact =
            row_weights(call.clone(), &inputs, &Causal, at, None, WeightFormat::F32).expect("a good call");
        assert_eq!(line["keys"], json!(exact.keys.len()));
        let mut want = vec![0.0; kv_len];
        for (&key, &weight) in exact.keys.iter().zip(&exact.weights.out) {
            want[key as usize] = weight;
        }
        let largest = want.iter().copied().fold(0.0, f64::max);
        assert!((line["top"][0]["weight"].as_f64().expect("a number") - largest).abs() < 1e-5, "{line}");
        let entropy = line["entropy"].as_f64().expect("a number");
        assert!((entropy - exact.entropy.out[0]).abs() < 1e-4, "{line}");
        for (j, (&got, want)) in row.iter().zip(want).enumerate() {
            assert!((f64::from(got) - want).abs() < 1e-5, "{at}, key {j}: {got}, not {want}");
        }
    }
    let svg = std::fs::read_to_string(svg).expect("the picture");
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"), "{svg}");
    assert_eq!(svg.matches("<g ").count(), heads);
}

#[test]
fn bad_choices_and_files() {
    let scratch = Scratch::new("weights-bad");
    planted(&scratch);
    for (more, needle) in [
        (&["--rows", "8"][..], "--rows: need indices from -8 to 7, got 8"),
        (&["--rows", "5:5"], "--rows: need at least one of 8, got none by `5:5`"),
        (&["--head", "-3"], "--head: need indices from -2 to 1, got -3"),
        (&["--batch", "2"], "--batch: need indices from -2 to 1, got 2"),
        (&["--top", "25"], "need at most 24 keys, got 25"),
        (&["--svg", "/no/such/x.svg"], "there is no folder /no/such"),
        (&["--output", "golden"], "it is a folder"),
    ] {
        let error = weights(&scratch, "full", more).refused(1);
        assert!(error.contains(needle), "{more:?}: {error}");
    }
    let error = weights(&scratch, "full", &["--rows", "first"]).refused(2);
    assert!(error.contains("need indices and slices such as `0,5,-1,10:20`, got `first`"), "{error}");
    let input = scratch.file("in.safetensors");
    let error = without_adapter(["weights", "--pattern", "full", "--input", &input]).refused(1);
    assert!(error.contains("no GPU adapter"), "{error}");
    let mut no_k = File::read(&input);
    no_k.tensors.remove("k");
    no_k.write(&input);
    let error = weights(&scratch, "full", &[]).refused(1);
    assert!(error.contains("in.safetensors: tensor `k`: need it, got only q"), "{error}");
}

/// What is not a number is shown as that, in its row alone.
#[test]
fn strange_rows() {
    let scratch = Scratch::new("weights-nan");
    planted(&scratch);
    let mut file = File::read(scratch.file("in.safetensors"));
    file.change("q", 4, |_| f32::NAN);
    file.write(scratch.file("in.safetensors"));
    let svg = scratch.file("w.svg");
    let text = weights(&scratch, "causal", &["--rows", ":3", "--svg", &svg]).good();
    assert!(text.contains("\n        1 ??······      NaN        2  "), "{text}");
    assert!(text.contains("\n        2 ███·····    1.099        3  "), "{text}");
    assert!(std::fs::read_to_string(svg).expect("the picture").contains("#d55e00"));
    let lines = weights(&scratch, "causal", &["--rows", "1", "--json"]).json();
    assert_eq!((&lines[0]["entropy"], &lines[0]["keys"]), (&json!(null), &json!(2)));
}
