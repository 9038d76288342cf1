//! What is refused, and in which words.

mod common;

use burn::tensor::{DType, Device, Tensor};
use common::{device, setup, tensor, tensors};
use wgpu_attention_burn::pattern::{Causal, Full, Mask};
use wgpu_attention_burn::wgpu_attention::{FeatureMap, LinearOptions, LshOptions, Projection, Score};
use wgpu_attention_burn::{AttentionOptions, attention, linear_attention, lsh_attention};

fn refused(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> String {
    attention(q, k, v, &Causal, AttentionOptions::default()).expect_err("refused").to_string()
}

#[test]
fn shapes() {
    let device = device();
    let x = |dims: [usize; 4]| tensor(dims, 1, &device);
    let one = || x([2, 4, 8, 16]);
    assert_eq!(
        refused(one(), x([1, 4, 8, 16]), one()),
        "k: need [2, 4, 8, 16], beside q [2, 4, 8, 16], got [1, 4, 8, 16]"
    );
    assert_eq!(
        refused(one(), x([2, 4, 8, 12]), one()),
        "k: need [2, 4, 8, 16], beside q [2, 4, 8, 16], got [2, 4, 8, 12]"
    );
    assert_eq!(
        refused(one(), one(), x([2, 4, 9, 16])),
        "v: need [2, 4, 8, 16], beside k [2, 4, 8, 16], got [2, 4, 9, 16]"
    );
    assert_eq!(
        refused(one(), one(), x([2, 2, 8, 16])),
        "v: need [2, 4, 8, 16], beside k [2, 4, 8, 16], got [2, 2, 8, 16]"
    );
    assert_eq!(
        refused(one(), x([2, 3, 8, 16]), x([2, 3, 8, 16])),
        "kv_heads: need a divisor of heads (4), got 3"
    );
    let said = refused(x([2, 4, 8, 600]), x([2, 4, 8, 600]), one());
    assert_eq!(said, "head_dim: need 1 to 576, got 600");
    let none = Tensor::<4>::zeros([2, 4, 0, 16], &device);
    assert_eq!(refused(none, one(), one()), "q: need at least 1 element along every axis, got [2, 4, 0, 16]");
}

#[test]
fn types_and_devices() {
    let [q, k, v] = tensors([1, 2, 8, 16], &device());
    let half = |x: &Tensor<4>| x.clone().cast(DType::F16);
    assert_eq!(refused(q.clone(), half(&k), v.clone()), "k: need the type of q (F32), got F16");
    assert_eq!(refused(half(&q), half(&k), v.clone()), "v: need the type of q (F16), got F32");
    let double = |x: &Tensor<4>| x.clone().cast(DType::F64);
    assert_eq!(refused(double(&q), double(&k), double(&v)), "q: need f32 or f16, got F64");
    // One that no one has attached.
    let own = Device::wgpu_options().setup(setup().clone()).init().expect("a device");
    let [q2, k2, v2] = tensors([1, 2, 8, 16], &own);
    let unknown = refused(q2, k2.clone(), v2);
    assert!(
        unknown.starts_with("q: need a tensor on a device from `wgpu_attention_burn::device`"),
        "{unknown}"
    );
    let other = refused(q, k2, v);
    assert!(other.starts_with("k: need the device of q ("), "{other}");
}

#[test]
fn patterns_and_scores() {
    let [q, k, v] = tensors([1, 2, 8, 16], &device());
    let call = |options| attention(q.clone(), k.clone(), v.clone(), &Full, options);
    let sinks =
        AttentionOptions::default().score(Score::new().with(wgpu_attention_burn::wgpu_attention::Sinks));
    let message = call(sinks).expect_err("refused").to_string();
    assert_eq!(message, "options.score: need terms without tensors, got one that reads `sinks`");
    let nan = call(AttentionOptions::default().scale(f32::NAN)).expect_err("refused").to_string();
    assert!(nan.contains("scale"), "{nan}");
    let other = Mask::new([1, 1, 7, 8], vec![true; 56]).expect("a mask");
    let message = attention(q, k, v, &other, AttentionOptions::default()).expect_err("refused").to_string();
    assert!(message.contains('7') && message.contains('8'), "{message}");
}

#[test]
fn options_with_tensors_of_their_own() {
    let [q, k, v] = tensors([1, 2, 64, 16], &device());
    let linear = |options| {
        linear_attention(q.clone(), k.clone(), v.clone(), options).expect_err("refused").to_string()
    };
    let given = FeatureMap::favor(16).projection(Projection::Given);
    assert_eq!(
        linear(LinearOptions::new(given)),
        "options.map: need a seeded projection, got one that is given"
    );
    assert_eq!(
        linear(LinearOptions::new(FeatureMap::Elu).key_mask(true)),
        "options.key_mask: need none, got one"
    );
    assert!(linear(LinearOptions::new(FeatureMap::favor(0))).starts_with("features: need at least 1"));
    let lsh = |options| lsh_attention(q.clone(), v.clone(), options).expect_err("refused").to_string();
    assert_eq!(lsh(LshOptions::new(2, 4, 16).key_mask(true)), "options.key_mask: need none, got one");
    assert!(lsh(LshOptions::new(2, 3, 16)).starts_with("buckets: need even factors"));
}
