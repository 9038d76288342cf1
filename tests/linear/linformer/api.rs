//! As a wgpu user meets it, and bad input one by one.

use super::{Call, options, shape};
use wgpu_attention::reference::Kind;
use wgpu_attention::{
    AttentionShape, Error, Gpu, KernelPath, Kernels, LinformerBuffers, LinformerInputs, LinformerOptions,
    Options, Score, Stage,
};
use wgpu_attention_testing::{Guarded, Placement, gpu, read, storage};

#[test]
fn calls_in_one_encoder_share_scratch_on_a_device_with_default_limits() {
    let adapter = pollster::block_on(Gpu::adapters()).expect("an adapter").swap_remove(0);
    let (device, queue) =
        pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).unwrap();
    let kernels = Kernels::new(&device, Options::default()).unwrap();
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let mut encoder = device.create_command_encoder(&Default::default());
    let mut made = vec![];
    let mut shared = None;
    for (len, gap, seed) in [(70, 3, 5), (40, 4, 6)] {
        let attention = Placement::Gap(gap).apply(shape().kv_len(len));
        let call = Call::<f32>::new(attention, options().key_mask(true), Kind::Normal, seed);
        let plan = kernels.linformer(&call.attention, call.options).unwrap();
        assert!(plan.scratch_bytes() > 0 && plan.flops() > 0.0);
        let scratch = shared.get_or_insert_with(|| plan.scratch().unwrap());
        let (v, f) = (call.v.as_ref().expect("asked for"), call.f.as_ref().expect("asked for"));
        let [q, k, v, e, f] = [&call.q, &call.k, v, &call.e, f].map(|data| storage(&device, data));
        let mask = call.key_mask.as_ref().expect("asked for");
        let mask: Vec<f32> = mask.iter().map(|&counts| f32::from_bits(counts.into())).collect();
        let mask = storage(&device, &mask);
        // Poison before, behind and between the rows.
        let out = Guarded::of_rows(&device, "out", 4, &call.attention);
        let buffers = LinformerBuffers::new(whole(&q), whole(&k), whole(&e), out.binding())
            .v(whole(&v))
            .f(whole(&f))
            .key_mask(whole(&mask));
        plan.bind_with(buffers, scratch).unwrap().encode(&mut encoder);
        made.push((call, out));
    }
    queue.submit([encoder.finish()]);
    for (call, out) in made {
        let bytes = read(&device, &queue, &out.buffer);
        let got: Vec<f32> = out.take(bytemuck::cast_slice(&bytes)).unwrap();
        let report = call.report(&got);
        assert!(report.pass && report.unspecified == 0, "{report}");
    }
}

#[test]
fn stages_in_turn_are_the_whole() {
    let call = Call::<f32>::new(shape().value_dim(12), options().values(false), Kind::Normal, 5);
    let device = gpu().device();
    let plan = gpu().kernels().linformer(&call.attention, call.options).unwrap();
    let f = call.f.as_ref().expect("asked for");
    let [q, k, e, f] = [&call.q, &call.k, &call.e, f].map(|data| storage(device, data));
    let out = storage(device, &vec![-7.0; call.attention.len_out()]);
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let buffers = LinformerBuffers::new(whole(&q), whole(&k), whole(&e), whole(&out)).f(whole(&f));
    let bound = plan.bind(buffers).unwrap();
    let mut encoder = device.create_command_encoder(&Default::default());
    for stage in Stage::ALL {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        bound.dispatch_stage(&mut pass, stage);
    }
    gpu().queue().submit([encoder.finish()]);
    assert_eq!(read(device, gpu().queue(), &out), call.run());
}

#[test]
fn bad_options_are_refused_one_by_one() {
    let kernels = gpu().kernels();
    let refused = |attention: wgpu_attention::Attention, options: LinformerOptions, words: &[&str]| {
        let error = kernels.linformer(attention, options).expect_err("refused");
        let text = error.to_string();
        assert!(matches!(error, Error::Argument { .. } | Error::Limit { .. }), "{text}");
        assert!(words.iter().all(|word| text.contains(word)), "{text}: {words:?}");
    };
    refused(shape().into(), LinformerOptions::new(90, 0), &["projected", "at least 1"]);
    refused(shape().kv_len(0).into(), options(), &["kv_len", "at least 1"]);
    refused(shape().into(), LinformerOptions::new(69, 8), &["kv_len", "69", "70"]);
    refused(shape().into(), options().values(false), &["value_dim", "12", "20"]);
    refused(shape().score(Score::new().alibi()), options(), &["score", "positions"]);
    refused(shape().kv_heads(3).into(), options(), &["kv_heads", "divisor", "3"]);
    refused(AttentionShape::new(1, 1, 8, 257).into(), options(), &["head_dim", "256", "257"]);
    let huge = LinformerOptions::new(1 << 20, 1 << 20);
    refused(shape().into(), huge, &["projections", "4294967295"]);
    let forced = kernels.with_options(Options::default().path(KernelPath::Cooperative)).unwrap();
    let error = forced.linformer(shape(), options()).unwrap_err().to_string();
    assert!(error.contains("path") && error.contains("Linformer"), "{error}");
}

#[test]
fn bad_slices_are_refused_one_by_one() {
    let shape = AttentionShape::new(1, 2, 64, 16);
    let data = vec![0.5f32; shape.len_q() + 1];
    let (exact, mask) = (&data[..shape.len_q()], [true; 65]);
    let with = LinformerOptions::new(64, 8);
    let alone = with.values(false).value_projection(false);
    let masked = alone.key_mask(true);
    let e = &data[..64 * 8];
    let whole = || LinformerInputs::new(exact, exact, e);
    let cases: [(LinformerOptions, LinformerInputs<'_, f32>, &str); 13] = [
        (alone, LinformerInputs::new(&data, exact, e), "q"),
        (alone, LinformerInputs::new(exact, &data[..5], e), "k"),
        (alone, LinformerInputs::new(exact, exact, &data[..511]), "e"),
        (alone.per_head(true), whole(), "e"),
        (with, whole().f(e), "v"),
        (with, whole().v(&data[..]).f(e), "v"),
        (alone, whole().v(exact), "v"),
        (with, whole().v(exact), "f"),
        (with, whole().v(exact).f(&data[..513]), "f"),
        (alone, whole().f(e), "f"),
        (masked, whole(), "key_mask"),
        (masked, whole().key_mask(&mask[..]), "key_mask"),
        (alone, whole().key_mask(&mask[..64]), "key_mask"),
    ];
    for (options, inputs, name) in cases {
        let error = gpu().linformer::<f32, f32, f32>(shape, &options, &inputs).expect_err(name);
        assert!(matches!(&error, Error::Argument { name: got, .. } if got == name), "{name}: {error}");
    }
}

#[test]
fn bad_buffers_are_refused_one_by_one() {
    let device = gpu().device();
    let shape = AttentionShape::new(1, 2, 64, 16);
    let plan = gpu().kernels().linformer(shape, LinformerOptions::new(64, 8)).unwrap();
    let [q, k, v, out] = [0; 4].map(|_| storage(device, &vec![0.0; shape.len_q()]));
    let [e, f] = [0; 2].map(|_| storage(device, &[0.0; 512]));
    let small = storage(device, &[0.0; 16]);
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let bound = |q, k, e, out| LinformerBuffers::new(whole(q), whole(k), whole(e), whole(out));
    let good = || bound(&q, &k, &e, &out).v(whole(&v)).f(whole(&f));
    plan.bind(good()).unwrap();
    let shifted = wgpu::BufferBinding { buffer: &out, offset: 4, size: None };
    let cases = [
        ("q", bound(&small, &k, &e, &out).v(whole(&v)).f(whole(&f))),
        ("k", bound(&q, &small, &e, &out).v(whole(&v)).f(whole(&f))),
        ("e", bound(&q, &k, &small, &out).v(whole(&v)).f(whole(&f))),
        ("v", good().v(whole(&small))),
        ("f", good().f(whole(&small))),
        ("v", bound(&q, &k, &e, &out).f(whole(&f))),
        ("f", bound(&q, &k, &e, &out).v(whole(&v))),
        ("out", good().out(whole(&q))),
        ("out", good().out(whole(&v))),
        ("out", good().out(shifted)),
        ("key_mask", good().key_mask(whole(&small))),
    ];
    for (name, buffers) in cases {
        let error = plan.bind(buffers).expect_err(name);
        assert!(matches!(&error, Error::Argument { name: got, .. } if got == name), "{name}: {error}");
    }
    let wider = gpu().kernels().linformer(shape, LinformerOptions::new(64, 64)).unwrap();
    let [e, f] = [0; 2].map(|_| storage(device, &[0.0; 64 * 64]));
    let buffers = bound(&q, &k, &e, &out).v(whole(&v)).f(whole(&f));
    let error = wider.bind_with(buffers, &plan.scratch().unwrap()).expect_err("too little scratch");
    assert!(error.to_string().contains("scratch"), "{error}");
}

#[test]
fn nothing_is_asked_of_an_empty_call() {
    for empty in [shape().q_len(0), AttentionShape::new(0, 1, 5, 4).kv_len(7)] {
        let call = Call::<f32>::new(empty, options().key_mask(true), Kind::Normal, 1);
        assert!(call.run().is_empty());
    }
}
