//! As a wgpu user meets it, and bad input one by one.

use super::{Case, shape};
use wgpu_attention::reference::{Kind, Rows};
use wgpu_attention::{
    Attention, AttentionShape, Error, FeatureMap, Gpu, KernelPath, Kernels, Layout, Layouts, LinearBuffers,
    LinearInputs, LinearOptions, Options, Projection, Score, Stage, Strides,
};
use wgpu_attention_testing::{Guarded, Placement, gpu, read, storage};

fn good() -> LinearOptions {
    LinearOptions::new(FeatureMap::favor(16)).causal(true)
}

#[test]
fn calls_in_one_encoder_on_a_device_with_default_limits() {
    let adapter = pollster::block_on(Gpu::adapters()).expect("an adapter").swap_remove(0);
    let (device, queue) =
        pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).unwrap();
    let kernels = Kernels::new(&device, Options::default()).unwrap();
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let mut encoder = device.create_command_encoder(&Default::default());
    let mut made = vec![];
    for (len, gap) in [(70, 3), (130, 4)] {
        let attention = Placement::Gap(gap).apply(AttentionShape::new(1, 2, len, 8));
        let case = Case::<f32>::new(attention, good(), Kind::Normal, 5);
        let plan = kernels.linear_attention(&case.attention, good()).unwrap();
        assert!(plan.scratch_bytes() > 0 && plan.flops() > 0.0);
        let [q, k, v] = [&case.q, &case.k, &case.v].map(|data| storage(&device, data));
        // Poison before, behind and between the rows.
        let out = Guarded::of_rows(&device, "out", 4, &case.attention);
        plan.bind(LinearBuffers::new(whole(&q), whole(&k), whole(&v), out.binding()))
            .unwrap()
            .encode(&mut encoder);
        made.push((case, out));
    }
    queue.submit([encoder.finish()]);
    for (case, out) in made {
        let bytes = read(&device, &queue, &out.buffer);
        let got: Vec<f32> = out.take(bytemuck::cast_slice(&bytes)).unwrap();
        let report = case.report(&got, Rows::All);
        assert!(report.pass && report.unspecified == 0, "{report}");
    }
}

#[test]
fn stages_in_turn_are_the_whole() {
    let case = Case::<f32>::new(shape(), good(), Kind::Normal, 5);
    let device = gpu().device();
    let plan = gpu().kernels().linear_attention(&case.attention, case.options.clone()).unwrap();
    let [q, k, v] = [&case.q, &case.k, &case.v].map(|data| storage(device, data));
    let out = storage(device, &vec![-7.0; case.attention.len_out()]);
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let call = plan.bind(LinearBuffers::new(whole(&q), whole(&k), whole(&v), whole(&out))).unwrap();
    let mut encoder = device.create_command_encoder(&Default::default());
    for stage in Stage::ALL {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        call.dispatch_stage(&mut pass, stage);
    }
    gpu().queue().submit([encoder.finish()]);
    assert_eq!(read(device, gpu().queue(), &out), case.run());
}

fn refused(attention: impl Into<Attention>, options: LinearOptions, words: &[&str]) {
    let error = gpu().kernels().linear_attention(attention, options).expect_err("refused");
    let text = error.to_string();
    assert!(matches!(error, Error::Argument { .. } | Error::Limit { .. }), "{text}");
    assert!(words.iter().all(|word| text.contains(word)), "{text}: {words:?}");
}

#[test]
fn bad_options_are_refused_one_by_one() {
    let shape = AttentionShape::new(1, 2, 64, 16);
    let favor = |features, eps| FeatureMap::Favor {
        features,
        eps,
        stabiliser: Default::default(),
        projection: Projection::Given,
    };
    refused(shape, good().map(favor(0, 1e-4)), &["features", "at least 1", "0"]);
    refused(shape, good().map(favor(1025, 1e-4)), &["features", "1025", "1024"]);
    refused(shape, good().map(favor(8, -1.0)), &["eps", "0 or a normal number", "-1"]);
    refused(shape, good().map(favor(8, f32::NAN)), &["eps", "NaN"]);
    refused(shape, good().denominator_eps(f32::INFINITY), &["denominator_eps", "inf"]);
    refused(shape, good().denominator_eps(1e-40), &["denominator_eps", "normal"]);
    refused(shape, good().causal(false).decay(vec![0.5; 2]), &["decay", "causal"]);
    refused(shape, good().decay(vec![0.5; 3]), &["decay", "2 numbers", "3"]);
    for wrong in [0.0, -0.5, 1.5, f32::NAN] {
        refused(shape, good().decay(vec![0.5, wrong]), &["decay", "above 0", &wrong.to_string()]);
    }
}

#[test]
fn bad_shapes_are_refused_one_by_one() {
    let shape = AttentionShape::new(1, 2, 64, 16);
    refused(shape.score(Score::new().scale(1.0)), good(), &["score", "plain"]);
    refused(shape.score(Score::new().alibi()), good(), &["score", "plain"]);
    refused(shape.kv_heads(3), good(), &["kv_heads", "divisor", "3"]);
    refused(AttentionShape::new(1, 1, 8, 257), good(), &["head_dim", "256", "257"]);
    refused(AttentionShape::new(1, 1, (1 << 24) + 1, 1), good(), &["q_len", "16777217", "16777216"]);
    refused(AttentionShape::new(1, 1, 8, 1).kv_len((1 << 24) + 1), good(), &["kv_len", "16777217"]);
    let many = good().map(FeatureMap::favor(1024));
    refused(AttentionShape::new(1, 1, 1 << 23, 1), many.clone(), &["features of queries", "4294967295"]);
    refused(AttentionShape::new(1, 1, 8, 1).kv_len(1 << 23), many, &["features of keys", "4294967295"]);
    let overlap = Layouts::default().out(Layout::Strided(Strides::new(0, 0, 16)));
    refused(shape.layouts(overlap), good(), &["out_layout", "overlap"]);
    let kernels = gpu().kernels().with_options(Options::default().path(KernelPath::Cooperative)).unwrap();
    let error = kernels.linear_attention(shape, good()).unwrap_err().to_string();
    assert!(error.contains("path") && error.contains("linear attention"), "{error}");
}

#[test]
fn bad_slices_are_refused_one_by_one() {
    let shape = AttentionShape::new(1, 2, 64, 16);
    let data = vec![0.5f32; shape.len_q() + 1];
    let (exact, mask) = (&data[..shape.len_q()], [true; 65]);
    let given = good().map(FeatureMap::favor(16).projection(Projection::Given));
    let masked = good().key_mask(true);
    let whole = || LinearInputs::new(exact, exact, exact);
    let cases: [(&LinearOptions, LinearInputs<'_, f32>, &str); 9] = [
        (&good(), LinearInputs::new(&data, exact, exact), "q"),
        (&good(), LinearInputs::new(exact, &data[..5], exact), "k"),
        (&good(), LinearInputs::new(exact, exact, &data), "v"),
        (&given, whole(), "projection"),
        (&given, whole().projection(&data[..255]), "projection"),
        (&good(), whole().projection(&data[..256]), "projection"),
        (&masked, whole(), "key_mask"),
        (&masked, whole().key_mask(&mask[..]), "key_mask"),
        (&good(), whole().key_mask(&mask[..64]), "key_mask"),
    ];
    for (options, inputs, name) in cases {
        let error = gpu().linear_attention::<f32, f32, f32>(shape, options, &inputs).expect_err(name);
        assert!(matches!(&error, Error::Argument { name: got, .. } if got == name), "{error}");
    }
}

#[test]
fn bad_buffers_are_refused_one_by_one() {
    let device = gpu().device();
    let shape = AttentionShape::new(1, 2, 64, 16);
    let plan = gpu().kernels().linear_attention(shape, good()).unwrap();
    let [q, k, v, out] = [0; 4].map(|_| storage(device, &vec![0.0; shape.len_q()]));
    let small = storage(device, &[0.0; 16]);
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let bound = |q, k, v, out| LinearBuffers::new(whole(q), whole(k), whole(v), whole(out));
    let whole_call = || bound(&q, &k, &v, &out);
    plan.bind(whole_call()).unwrap();
    let shifted = wgpu::BufferBinding { buffer: &out, offset: 4, size: None };
    let cases = [
        ("q", bound(&small, &k, &v, &out)),
        ("k", bound(&q, &small, &v, &out)),
        ("v", bound(&q, &k, &small, &out)),
        ("out", bound(&q, &k, &v, &q)),
        ("out", LinearBuffers::new(whole(&q), whole(&k), whole(&v), shifted)),
        ("projection", whole_call().projection(whole(&small))),
        ("key_mask", whole_call().key_mask(whole(&small))),
    ];
    for (name, buffers) in cases {
        let error = plan.bind(buffers).expect_err(name);
        assert!(matches!(&error, Error::Argument { name: got, .. } if got == name), "{name}: {error}");
    }
    let given = good().map(FeatureMap::favor(16).projection(Projection::Given)).key_mask(true);
    let plan = gpu().kernels().linear_attention(shape, given).unwrap();
    let [projection, mask] = [16 * 16, 64].map(|len| storage(device, &vec![1.0; len]));
    assert!(plan.bind(whole_call().key_mask(whole(&mask))).unwrap_err().to_string().contains("projection"));
    assert!(
        plan.bind(whole_call().projection(whole(&projection))).unwrap_err().to_string().contains("key_mask")
    );
    plan.bind(whole_call().projection(whole(&projection)).key_mask(whole(&mask))).unwrap();
}
