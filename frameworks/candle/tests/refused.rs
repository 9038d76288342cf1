//! What does not fit is refused, in words that say what it is.

mod common;

use candle_core::{DType, Tensor};
use common::{ours, tensor};
use wgpu_attention_candle::pattern::Full;
use wgpu_attention_candle::wgpu_attention::{Score, Sinks};
use wgpu_attention_candle::{AttentionOptions, Gpu, attention};

/// The words of the error.
fn refused(q: &Tensor, k: &Tensor, v: &Tensor) -> String {
    words(ours(q, k, v, &Full))
}

/// Without the backtrace that candle may append.
fn words(result: candle_core::Result<Tensor>) -> String {
    let words = result.expect_err("refused").to_string();
    words.lines().next().unwrap_or_default().into()
}

#[test]
fn shapes() {
    let one = tensor([2, 4, 8, 16], 1);
    assert_eq!(
        refused(&one, &tensor([2, 4, 8, 12], 1), &one),
        "k: need [2, 4, 8, 16], beside q [2, 4, 8, 16], got [2, 4, 8, 12]"
    );
    assert_eq!(
        refused(&one, &tensor([1, 4, 8, 16], 1), &one),
        "k: need [2, 4, 8, 16], beside q [2, 4, 8, 16], got [1, 4, 8, 16]"
    );
    assert_eq!(
        refused(&one, &one, &tensor([2, 4, 9, 16], 1)),
        "v: need [2, 4, 8, 16], beside k [2, 4, 8, 16], got [2, 4, 9, 16]"
    );
    let three = one.flatten(0, 1).expect("a view");
    assert_eq!(refused(&three, &one, &one), "q: need 4 axes, got [8, 8, 16]");
    assert_eq!(refused(&one, &one, &three), "v: need 4 axes, got [8, 8, 16]");
    let groups = tensor([2, 3, 8, 16], 1);
    assert!(refused(&one, &groups, &groups).contains("kv_heads"), "{}", refused(&one, &groups, &groups));
}

#[test]
fn types() {
    let one = tensor([2, 4, 8, 16], 1);
    let half = one.to_dtype(DType::F16).expect("f16");
    assert_eq!(refused(&one, &half, &one), "k: need the type of q (F32), got F16");
    assert_eq!(refused(&half, &half, &one), "v: need the type of q (F16), got F32");
    let double = one.to_dtype(DType::F64).expect("f64");
    assert_eq!(refused(&double, &double, &double), "q: need f32, f16 or bf16, got F64");
}

#[test]
fn scores_with_tensors() {
    let one = tensor([2, 4, 8, 16], 1);
    let options = AttentionOptions::default().score(Score::new().with(Sinks));
    assert_eq!(
        words(attention(&one, &one, &one, &Full, options)),
        "options.score: need terms without tensors, got one that reads `sinks`"
    );
}

#[test]
fn sizes_that_the_kernels_do_not_have() {
    let wide = tensor([1, 1, 4, 600], 1);
    assert!(refused(&wide, &wide, &wide).contains("head_dim"), "{}", refused(&wide, &wide, &wide));
}

/// The caller's own device, forward and backward; others go on.
#[test]
fn a_device_that_is_lost() {
    let gpu = Gpu::new().expect("an adapter");
    let own = AttentionOptions::default().gpu(&gpu);
    let q = candle_core::Var::from_tensor(&tensor([1, 1, 8, 16], 1)).expect("a variable");
    let out = attention(&q, &q, &q, &Full, own.clone()).expect("a device");
    gpu.device().destroy();
    let lost = "the device is lost";
    let forward = words(attention(&q, &q, &q, &Full, own));
    assert!(forward.contains(lost), "{forward}");
    let backward = out.sum_all().expect("a sum").backward().map(|_| q.as_tensor().clone());
    let backward = words(backward);
    assert!(backward.contains(lost), "{backward}");
    assert!(ours(&q, &q, &q, &Full).is_ok());
}
