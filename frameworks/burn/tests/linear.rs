//! Linear attention against burn's own operations, and against the f64 reference.

mod common;

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use common::{assert_close, assert_near, device, tensor, tensors, values};
use wgpu_attention_burn::linear_attention;
use wgpu_attention_burn::wgpu_attention::{
    AttentionShape, ElementType, FeatureMap, LinearInputs, LinearOptions, reference,
};

/// elu(x) + 1.
fn features(x: Tensor<4>) -> Tensor<4> {
    let below = x.clone().clamp_max(0.0).exp();
    x.clamp_min(0.0) + below
}

/// phi(q) (phi(k)^T v) / (phi(q) sum of phi(k)) by burn's operations.
fn plain(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
    let (q, k) = (features(q), features(k));
    let sums = k.clone().sum_dim(2).swap_dims(2, 3);
    q.clone().matmul(k.swap_dims(2, 3).matmul(v)) / q.matmul(sums)
}

#[test]
fn elu_features_are_as_burns_own() {
    let with_gradients = device().autodiff();
    // Swapped, so that strides are read.
    let inputs = tensors([2, 130, 2, 16], &with_gradients).map(Tensor::require_grad);
    let run = |attend: &dyn Fn(Tensor<4>, Tensor<4>, Tensor<4>) -> Tensor<4>| {
        let [q, k, v] = inputs.clone().map(|tensor| tensor.swap_dims(1, 2));
        let out = attend(q * 0.8, k, v);
        let gradients = (out.clone().tanh() * tensor([2, 2, 130, 16], 9, &with_gradients)).sum().backward();
        (out, inputs.each_ref().map(|input| input.grad(&gradients).expect("a gradient")))
    };
    let options = LinearOptions::new(FeatureMap::Elu);
    let (out, gradients) =
        run(&|q, k, v| linear_attention(q, k, v, options.clone()).expect("a call that fits"));
    let (plain_out, plain_gradients) = run(&plain);
    assert_close("out", out, plain_out, 2e-5);
    for ((name, got), want) in ["dq", "dk", "dv"].iter().zip(gradients).zip(plain_gradients) {
        assert_close(name, got, want, 5e-5);
    }
}

#[test]
fn a_causal_performer_is_as_the_reference() {
    let shape = AttentionShape::new(1, 2, 150, 16);
    let options = LinearOptions::new(FeatureMap::favor(24)).causal(true);
    let device: Device = device().autodiff();
    let inputs = tensors([1, 2, 150, 16], &device).map(|tensor| (tensor * 0.7).require_grad());
    let [q, k, v] = inputs.clone();
    let out = linear_attention(q, k, v, options.clone()).expect("a call that fits");
    // Into burn's operations, and a gradient of out that is none of ones.
    let weights = softmax(tensor([1, 2, 150, 16], 8, &device), 3);
    let gradients = (out.clone() * weights.clone()).sum().backward();

    let [q, k, v] = inputs.clone().map(values);
    let exact = LinearInputs::new(&q, &k, &v);
    assert_near("out", &values(out), &reference::linear_attention(shape, &options, &exact).unwrap(), 5e-5);
    let want =
        reference::linear_gradient(shape, &options, &exact, &values(weights), ElementType::F32).unwrap();
    for ((name, input), want) in ["dq", "dk", "dv"].iter().zip(&inputs).zip([want.dq, want.dk, want.dv]) {
        assert_near(name, &values(input.grad(&gradients).expect("a gradient")), &want.out, 5e-5);
    }
}
