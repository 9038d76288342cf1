//! The self-test: passes for every kind of call on a device that is right, and finds one that is not.

use half::f16;
use wgpu_attention::{
    AttentionShape, BigBird, Causal, Element, ElementType, Error, Full, Gpu, Heads, Inputs, Kernels, Layout,
    Layouts, Longformer, LshInputs, LshOptions, Options, Pattern, Projections, Score, SelfTest, Storage,
    Strided, StridedPart, Strides, Window,
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
    let inputs = Inputs::new(&q, &k, &v);
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

/// Asserts that the pipelines of a call's gradients pass.
fn gradients_pass(attention: impl Into<wgpu_attention::Attention>, pattern: &dyn Pattern) {
    let attention = attention.into();
    let plan = gpu().kernels().attention(&attention, pattern).unwrap();
    let found = gpu().self_test(&plan.backward().unwrap()).unwrap();
    assert_eq!(found, SelfTest::Passed, "{attention:?} {pattern:?}");
}

#[test]
fn gradients_of_every_kind_pass() {
    let shape = AttentionShape::new(2, 4, 300, 32);
    gradients_pass(shape, &Causal);
    gradients_pass(
        shape.kv_heads(2).value_dim(20),
        &BigBird { block: 64, window: 3, global: 1, random: 1, seed: 1 },
    );
    gradients_pass(shape, &Strided { stride: 32, causal: true, part: StridedPart::Both });
    gradients_pass(shape.heads(Heads::only(&[1, 3])), &Full);
    gradients_pass(shape.layout(Layout::Blhd), &Causal);
    let odd = Layout::Strided(Strides::new(4 * 300 * 33, 300 * 33, 33).offset(1));
    gradients_pass(wgpu_attention::Attention::from(shape).layouts(Layouts::default().k(odd)), &Causal);
    gradients_pass(shape.score(Score::new().alibi().softcap(20.0)), &Causal);
    let storage = Storage::all(ElementType::F16).out(ElementType::F32);
    gradients_pass(shape.storage(storage), &Causal);
    gradients_pass(shape.storage(Storage::all(ElementType::Bf16)), &Causal);
}

/// Options of several kinds of call.
fn lsh_options() -> [LshOptions; 3] {
    let plain = LshOptions::new(2, 8, 32);
    [
        plain.clone().causal(true),
        plain.clone().key_mask(true).count_once(true).look_ahead(1).wrap(false),
        LshOptions::new(1, 64, 50).chain_rounds(false).projections(Projections::Given { per_head: false }),
    ]
}

#[test]
fn lsh_attention_and_its_gradients_pass() {
    let shape = AttentionShape::new(2, 3, 700, 32);
    for options in lsh_options() {
        let plan = gpu().kernels().lsh(shape, options.clone()).unwrap();
        assert_eq!(gpu().self_test(&plan).unwrap(), SelfTest::Passed, "{options:?}");
        let found = gpu().self_test(&plan.backward().unwrap()).unwrap();
        assert_eq!(found, SelfTest::Passed, "{options:?}");
    }
    let halves = shape.storage(Storage::all(ElementType::F16).out(ElementType::F32));
    let plan = gpu().kernels().lsh(halves, LshOptions::new(2, 8, 32)).unwrap();
    assert_eq!(gpu().self_test(&plan).unwrap(), SelfTest::Passed);
}

/// A device whose compiler makes this of that.
pub(crate) fn faulty(that: &'static str, this: &'static str) -> Gpu {
    gpu().with_kernels(gpu().kernels().edited(move |text| text.replace(that, this))).self_tests(true)
}

/// Asserts that the device was refused, with evidence.
pub(crate) fn refused<T: std::fmt::Debug>(found: wgpu_attention::Result<T>, evidence: &str) -> String {
    let error = found.unwrap_err();
    assert!(matches!(&error, Error::Device { what, .. } if what == "self-test"), "{error}");
    assert!(error.to_string().contains(evidence), "{evidence}: {error}");
    error.to_string()
}

#[test]
fn wrong_gradients_are_refused_with_evidence() {
    let shape = AttentionShape::new(1, 4, 300, 32).kv_heads(2);
    let [q, k, v] = tensors(shape);
    let (inputs, dout) = (Inputs::new(&q, &k, &v), vec![0.5f32; shape.len_out()]);
    for (that, this, evidence) in [
        ("met.d_p - vec4(record.z)", "met.d_p", "FAIL, dq["),
        ("var x = params.kernel.scale * dk;", "var x = dk;", "FAIL, dk["),
        (
            "Pulled(select(vec4(0.0), record.y * met.e, kept)",
            "Pulled(select(vec4(0.0), met.e, kept)",
            "FAIL, dv[",
        ),
    ] {
        let gpu = faulty(that, this);
        // The forward pass has no such fault.
        gpu.attention::<_, _, f32>(shape, &q, &k, &v, &Causal).unwrap();
        let run = |gpu: &Gpu| gpu.attention_backward::<_, _, _, f32>(shape, &inputs, &dout, &Causal);
        let said = refused(run(&gpu), evidence);
        assert!(said.contains("gradients") && said.contains("times its bound"), "{said}");
        assert_eq!(refused(run(&gpu), evidence), said, "what was found is kept");
        // Who says so gets what the device computes.
        let wrong = run(&gpu.self_tests(false)).unwrap();
        let right = run(super::gpu()).unwrap();
        assert!((wrong.dq, wrong.dk, wrong.dv) != (right.dq, right.dk, right.dv));
    }
}

#[test]
fn wrong_lsh_attention_is_refused_with_evidence() {
    let shape = AttentionShape::new(1, 2, 400, 32);
    let [x, v, dout] = tensors(shape);
    let (inputs, options) = (LshInputs::new(&x, &v), LshOptions::new(2, 8, 32).causal(true));
    for (that, this, evidence) in [
        (" + round * COLUMNS;", ";", "buckets certain"),
        ("& below);", "& ~below) - 1u;", "order wrong"),
        ("return inverseSqrt(ordinary);", "return 1.0 / ordinary;", "attention: FAIL"),
        ("all_l = fma(row_l, new_weight, old_weight);", "all_l = row_l * new_weight;", "attention: FAIL"),
    ] {
        let gpu = faulty(that, this);
        let said = refused(gpu.lsh::<_, f32>(shape, &options, &inputs), evidence);
        assert!(said.contains("LSH attention"), "{said}");
        gpu.self_tests(false).lsh::<_, f32>(shape, &options, &inputs).unwrap();
    }
    for (that, this, evidence) in [
        (
            "let u = norm * load_q(x_at + 4u * g, count);",
            "let u = load_q(x_at + 4u * g, count);",
            "FAIL, dqk[",
        ),
        ("if (ACCUMULATE) { x += load_dv(to, count); }", "", "FAIL, dv["),
        (" + round * COLUMNS;", ";", "FAIL, bucket "),
    ] {
        let gpu = faulty(that, this);
        let run = |gpu: &Gpu| gpu.lsh_backward::<_, _, f32>(shape, &options, &inputs, &dout);
        refused(run(&gpu), evidence);
        run(&gpu.self_tests(false)).unwrap();
    }
}

#[test]
fn a_device_that_is_right_computes_gradients_and_lsh_attention() {
    let shape = AttentionShape::new(1, 2, 200, 16);
    let [q, k, v] = tensors(shape);
    let tested = gpu().clone().self_tests(true);
    let gradients = |gpu: &Gpu| {
        gpu.attention_backward::<_, _, _, f32>(shape, &Inputs::new(&q, &k, &v), &v, &Causal).unwrap()
    };
    assert_eq!(gradients(&tested), gradients(gpu()));
    let options = LshOptions::new(2, 4, 32);
    let lsh = |gpu: &Gpu| gpu.lsh::<_, f32>(shape, &options, &LshInputs::new(&q, &v)).unwrap();
    assert_eq!(lsh(&tested), lsh(gpu()));
    let lsh =
        |gpu: &Gpu| gpu.lsh_backward::<_, _, f32>(shape, &options, &LshInputs::new(&q, &v), &k).unwrap();
    assert_eq!(lsh(&tested), lsh(gpu()));
}
