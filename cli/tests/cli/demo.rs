//! `demo`: the main job on real input.

use super::support::{File, Scratch, golden, wgpu_attention, without_adapter};

#[test]
fn real_activations_are_verified() {
    let text = wgpu_attention(["demo"]).good();
    for line in [
        "real_minilm_layer0  full              f32   scalar",
        "real_minilm_layer2  window 32+1+32    bf16  scalar",
        "under scores, the first 3 heads (the model has no such scores: bucket table, relative rows, u, w and sinks are drawn, seed 1;",
        "real_minilm_layer0  full + t5         f32   scalar",
        "real_minilm_layer0  causal + t5       f32   scalar",
        "real_minilm_layer0  full + alibi      f32   scalar",
        "real_minilm_layer0  causal + alibi    f32   scalar",
        "real_minilm_layer0  full + relative   f32   scalar",
        "real_minilm_layer0  causal + relative f32   scalar",
        "real_minilm_layer0  full + sinks      f32   scalar",
        "real_minilm_layer0  causal + sinks    f32   scalar",
        "real_minilm_layer0  linear elu        f32   scalar",
        "real_minilm_layer0  linear elu causal f32   scalar",
        "real_minilm_layer0  linear favor      f32   scalar",
        "real_minilm_layer0  linformer         f32   scalar",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert!(text.contains("real_minilm_layer2  full              f64   reference"), "{text}");
    // Each is compared, and with something else than the plain score: none is the line of another.
    let scored: Vec<_> =
        text.lines().filter(|line| line.starts_with("real_") && line.contains(" + ")).collect();
    let adapters = text.matches("under scores, ").count();
    assert!(adapters > 0 && scored.len() == 8 * adapters, "{text}");
    for line in scored {
        let ratio: f64 = line.split_whitespace().nth(6).and_then(|it| it.parse().ok()).expect("error/bound");
        assert!(ratio > 0.0 && ratio <= 1.0 && line.contains(" f64 "), "{line}");
    }
    let summary = text.lines().last().expect("a summary");
    assert!(
        summary.contains("and the CPU reference compared: all verified, worst error/bound 0."),
        "{summary}"
    );
}

#[test]
fn without_an_adapter_the_reference_computes_alone() {
    let text = without_adapter(["demo"]).good();
    assert!(text.contains("No GPU adapter was found: the CPU reference computes alone."), "{text}");
    let summary = text.lines().last().expect("a summary");
    assert!(summary.starts_with("2 results of the CPU reference alone compared: all verified"), "{summary}");
}

#[test]
fn a_fault_in_the_data_is_found() {
    let scratch = Scratch::new("demo");
    std::fs::copy(golden("real_minilm_layer0"), scratch.file("real_minilm_layer0.safetensors"))
        .expect("copied");
    let mut case = File::golden("real_minilm_layer2");
    case.change("out", 1234, |x| x + 0.01);
    case.write(scratch.file("real_minilm_layer2.safetensors"));
    let outcome = without_adapter(["demo", "--data", &scratch.file("")]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stdout.contains("FAILED at out[0, 0, 38, 18]"), "{}", outcome.stdout);
    assert!(
        outcome.stdout.lines().last().is_some_and(|line| line.contains("1 FAILED")),
        "{}",
        outcome.stdout
    );

    let error = without_adapter(["demo", "--data", "/no/such"]).refused(1);
    assert!(error.contains("the demo needs /no/such/real_minilm_layer0.safetensors"), "{error}");
}
