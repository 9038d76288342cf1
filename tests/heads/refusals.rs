//! Bad choices of heads, and calls that compute every head.

use super::attention;
use wgpu_attention::{
    AttentionShape, Causal, Error, FeatureMap, Full, Heads, Inputs, LinearOptions, LinformerOptions,
    LshOptions, Options, Position, WeightsOptions, reference,
};
use wgpu_attention_testing::gpu_with;

fn said<T>(result: Result<T, Error>, need: &[&str]) {
    let message = result.err().expect("an error").to_string();
    for part in need {
        assert!(message.contains(part), "`{message}` says nothing of `{part}`");
    }
}

#[test]
fn bad_heads_are_named() {
    let gpu = gpu_with(Options::default());
    let shape = AttentionShape::new(1, 4, 8, 16);
    let x = vec![0.0; shape.len_q()];
    for (heads, need) in [(vec![], "at least one"), (vec![0, 4], "below 4"), (vec![2, 1, 2], "2 twice")] {
        let call = shape.heads(Heads::only(&heads));
        said(gpu.kernels().attention(&call, &Full), &["heads", need]);
        said(gpu.attention::<f32, f32, f32>(&call, &x, &x, &x, &Full), &["heads", need]);
        said(reference::attention_with(&call, &Inputs::new(&x, &x, &x), &Full), &["heads", need]);
    }
}

#[test]
fn calls_that_compute_every_head_say_so() {
    let gpu = gpu_with(Options::default());
    let some = AttentionShape::new(1, 4, 32, 16).heads(Heads::only(&[1]));
    let kernels = gpu.kernels();
    said(kernels.lsh(&some, LshOptions::new(1, 8, 4)), &["heads", "Heads::ALL", "LSH"]);
    said(
        kernels.linear_attention(&some, LinearOptions::new(FeatureMap::Elu)),
        &["heads", "Heads::ALL", "linear"],
    );
    said(kernels.linformer(&some, LinformerOptions::new(32, 8)), &["heads", "Heads::ALL", "Linformer"]);
}

#[test]
fn weights_of_heads_that_are_left_out() {
    let gpu = gpu_with(Options::default());
    let plan = gpu.kernels().attention(attention(), &Causal).expect("a good call");
    let at = |head| [Position { batch: 0, head, i: 3 }];
    said(plan.weights(&at(2), WeightsOptions::default()), &["rows[0].head", "computes"]);
    assert!(plan.weights(&at(4), WeightsOptions::default()).is_ok());
}
