//! LSH attention against the f64 reference.

mod common;

use burn::tensor::Tensor;
use common::{assert_near, device, tensor, values};
use wgpu_attention_burn::lsh_attention;
use wgpu_attention_burn::wgpu_attention::{AttentionShape, LshInputs, LshOptions, reference};

#[test]
fn output_and_gradients_are_as_the_reference() {
    let (shape, dims) = (AttentionShape::new(1, 2, 128, 16), [1, 2, 128, 16]);
    let options = LshOptions::new(2, 4, 32).causal(true);
    let device = device().autodiff();
    // [B, L, H, d], swapped: strides are read.
    let swapped = |seed| tensor([1, 128, 2, 16], seed, &device).require_grad();
    let (qk, v, weights) = (swapped(1), swapped(2), tensor(dims, 3, &device));
    let by_heads = |x: &Tensor<4>| x.clone().swap_dims(1, 2);
    let out = lsh_attention(by_heads(&qk) * 1.0, by_heads(&v), options.clone()).expect("a call that fits");
    let gradients = (out.clone() * weights.clone()).sum().backward();

    let (exact_qk, exact_v) = (values(by_heads(&qk)), values(by_heads(&v)));
    let exact = LshInputs::new(&exact_qk, &exact_v);
    let buckets = reference::lsh_buckets(shape, &options, &exact).unwrap().buckets;
    let want = reference::lsh_with_buckets(shape, &options, &exact, &buckets).unwrap();
    assert_near("out", &values(out), &want.out, 5e-5);
    let want = reference::lsh_gradient(shape, &options, &exact, &values(weights), &buckets).unwrap();
    let gradient = |x: &Tensor<4>| values(x.grad(&gradients).expect("a gradient").swap_dims(1, 2));
    assert_near("dqk", &gradient(&qk), &want.dqk, 1e-4);
    assert_near("dv", &gradient(&v), &want.dv, 1e-4);
}
