//! The self-test: passes for every kind of call on a device that is right, and finds one that is not.

use half::f16;
use wgpu_attention::{
    AttentionShape, BigBird, Causal, Element, ElementType, Error, Full, Gpu, Heads, Kernels, Layout, Layouts,
    Longformer, Options, Pattern, Score, SelfTest, Storage, Strided, StridedPart, Strides, Window,
};

use super::{gpu, tensors};

/// Asserts that the pipelines of a call pass.
fn passes(attention: impl Into<wgpu_attention::Attention>, pattern: &dyn Pattern) {
    let attention = attention.into();
    let plan = gpu().kernels().attention(&attention, pattern).unwrap();
    let found = gpu().self_test(&plan).unwrap();
    assert_eq!(found, SelfTest::Passed, "{attention:?} {pattern:?}");
}

#[test]
fn patterns_parts_orders_and_splits_pass() {
    let shape = AttentionShape::new(2, 4, 1000, 32);
    passes(shape, &Causal);
    passes(shape, &BigBird { block: 64, window: 3, global: 1, random: 2, seed: 1 });
    // Several parts, one of them in another order.
    passes(shape, &Strided { stride: 32, causal: true, part: StridedPart::Both });
    passes(shape, &Longformer::new(64, [0, 500]).unwrap());
    // Few queries of grouped heads, packed, over keys that are split.
    passes(shape.kv_heads(1).q_len(1).kv_len(20_000), &Causal);
    passes(shape.q_len(3).kv_len(5), &Full);
    passes(shape.heads(Heads::only(&[1, 3])), &Window { before: 100, after: 0 });
}

#[test]
fn storage_sizes_and_layouts_pass() {
    for (d, dv) in [(1, 5), (30, 64), (256, 256)] {
        passes(AttentionShape::new(1, 2, 200, d).value_dim(dv), &Causal);
    }
    let shape = AttentionShape::new(1, 2, 300, 32);
    passes(shape.storage(Storage::all(ElementType::F16)), &Causal);
    passes(shape.storage(Storage::all(ElementType::Bf16).q(ElementType::F32)), &Full);
    passes(shape.layout(Layout::Blhd), &Causal);
    let odd = Layout::Strided(Strides::new(2 * 300 * 33, 300 * 33, 33).offset(1));
    let attention = wgpu_attention::Attention::from(shape);
    passes(attention.layouts(Layouts::default().k(odd)), &Causal);
}

#[test]
fn scores_pass() {
    let shape = AttentionShape::new(1, 4, 300, 32);
    for score in [Score::new().alibi(), Score::new().softcap(20.0).scale(0.5), Score::new().dropout(0.2, 3)] {
        passes(shape.score(score), &Causal);
    }
    for text in [
        "relative:first_distance=299,rows=300",
        "buckets:count=8,max_distance=64",
        "sinks",
        "bias:query=300,key=1",
    ] {
        let score: Score = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        passes(shape.score(score), &Causal);
    }
}

/// A device whose compiler drops a factor.
fn broken(options: Options) -> Gpu {
    let kernels = Kernels::new(gpu().device(), options).unwrap();
    let wrong = |text: &str| text.replace("fma(l, rescale, ", "fma(l, vec4(1.0), ");
    gpu().with_kernels(kernels.edited(wrong))
}

#[test]
fn a_device_that_computes_wrong_results_is_refused_with_evidence() {
    let shape = AttentionShape::new(1, 2, 500, 32);
    let [q, k, v] = tensors(shape);
    let gpu = broken(Options::default());
    let said = gpu.attention::<_, _, f32>(shape, &q, &k, &v, &Causal).unwrap_err();
    assert!(matches!(&said, Error::Device { what, .. } if what == "self-test"), "{said}");
    assert!(said.to_string().contains("bound") && said.to_string().contains("scalar"), "{said}");
    // Again, and for gradients: what was found is kept.
    assert_eq!(
        gpu.attention::<_, _, f32>(shape, &q, &k, &v, &Causal).unwrap_err().to_string(),
        said.to_string()
    );
    let inputs = wgpu_attention::Inputs::new(&q, &k, &v);
    let dout = vec![1.0f32; shape.len_out()];
    let gradients = gpu.attention_backward::<_, _, _, f32>(shape, &inputs, &dout, &Causal);
    assert!(matches!(gradients, Err(Error::Device { .. })), "{gradients:?}");
    // Who says so gets what the device computes.
    let wrong: Vec<f32> = gpu.self_tests(false).attention(shape, &q, &k, &v, &Causal).unwrap();
    let right: Vec<f32> = super::gpu().attention(shape, &q, &k, &v, &Causal).unwrap();
    assert_ne!(wrong, right);
}

#[test]
fn in_16_bits_a_fault_is_found_too() {
    let shape = AttentionShape::new(1, 1, 300, 64);
    let x = vec![f16::from_f32(0.5); shape.len_q()];
    let said = broken(Options::default()).attention::<_, _, f16>(shape, &x, &x, &x, &Full).unwrap_err();
    assert!(matches!(&said, Error::Device { what, .. } if what == "self-test"), "{said}");
    assert_eq!(<f16 as Element>::TYPE, ElementType::F16);
}

#[test]
fn what_cannot_be_tested_says_why() {
    let plan = gpu().kernels().attention(AttentionShape::new(1, 1, 0, 16).kv_len(4), &Full).unwrap();
    assert!(matches!(gpu().self_test(&plan).unwrap(), SelfTest::NotTested(why) if !why.is_empty()));
}
