//! As a wgpu user meets it, and bad input one by one.

use super::{Case, gpu};
use wgpu_attention::reference::{self, Kind, Rows};
use wgpu_attention::{
    Attention, AttentionShape, BiasStrides, Custom, ElementType, Error, Gpu, Kernels, Layout, Layouts,
    LshBuffers, LshInputs, LshOptions, Options, Projections, Relative, Score, Segments, Sinks, SortBuffers,
    SortShape, Stage, Storage, Strides, Temperature,
};
use wgpu_attention_testing::{read, storage};

#[test]
fn two_calls_in_one_encoder_on_a_device_with_default_limits() {
    let adapter = pollster::block_on(Gpu::adapters()).expect("an adapter").swap_remove(0);
    let (device, queue) =
        pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).unwrap();
    let kernels = Kernels::new(&device, Options::default()).unwrap();
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let mut encoder = device.create_command_encoder(&Default::default());
    let mut made = vec![];
    for (len, rounds) in [(100, 2), (130, 1)] {
        let case = Case::<f32>::new(
            AttentionShape::new(1, 2, len, 16),
            LshOptions::new(rounds, 8, 16),
            Kind::Normal,
            5,
        );
        let plan = kernels.lsh(&case.attention, case.options.clone()).unwrap();
        let [qk, v] = [&case.qk, &case.v].map(|data| storage(&device, data));
        let out = storage(&device, &vec![-7.0; case.attention.len_out() + 64]);
        // Nothing asked for beside out: buckets, order and (m, l) are scratch.
        let call = plan.bind(LshBuffers::new(whole(&qk), whole(&v), whole(&out))).unwrap();
        call.encode(&mut encoder);
        made.push((case, out));
    }
    queue.submit([encoder.finish()]);
    for (case, out) in made {
        let got = read(&device, &queue, &out);
        let want = case.run().out;
        assert!(got[want.len()..].iter().all(|&x| x == -7.0), "nothing behind out is written");
        let error = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(error < 1e-5, "{error}");
    }
}

#[test]
fn stages_in_turn_are_the_whole() {
    let case =
        Case::<f32>::new(AttentionShape::new(1, 2, 100, 16), LshOptions::new(2, 8, 16), Kind::Normal, 5);
    let plan = gpu().kernels().lsh(&case.attention, case.options.clone()).unwrap();
    assert!(plan.explain().pairs == 2 * 2 * 100 * 32 && plan.explain().flops > 0.0, "{:?}", plan.explain());
    let device = gpu().device();
    let [qk, v] = [&case.qk, &case.v].map(|data| storage(device, data));
    let out = storage(device, &vec![-7.0; case.attention.len_out()]);
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let call = plan.bind(LshBuffers::new(whole(&qk), whole(&v), whole(&out))).unwrap();
    let mut encoder = device.create_command_encoder(&Default::default());
    for stage in Stage::ALL {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        call.dispatch_stage(&mut pass, stage);
    }
    gpu().queue().submit([encoder.finish()]);
    assert_eq!(read(device, gpu().queue(), &out), case.run().out);
}

#[test]
fn empty_calls_are_valid() {
    for shape in [AttentionShape::new(0, 2, 10, 16), AttentionShape::new(2, 2, 0, 16)] {
        let inputs = LshInputs::new(&[] as &[f32], &[]);
        let got = gpu().lsh::<f32, f32>(&shape, &LshOptions::new(2, 8, 16), &inputs).unwrap();
        assert!(got.out.is_empty() && got.lse.is_empty() && got.buckets.is_empty() && got.order.is_empty());
    }
}

/// Both the message and that nothing is planned.
fn refused(attention: impl Into<Attention>, options: LshOptions, words: &[&str]) {
    let error = gpu().kernels().lsh(attention, options).expect_err("refused");
    let text = error.to_string();
    assert!(matches!(error, Error::Argument { .. } | Error::Limit { .. }), "{text}");
    assert!(words.iter().all(|word| text.contains(word)), "{text}: {words:?}");
}

#[test]
fn bad_options_are_refused_one_by_one() {
    let shape = AttentionShape::new(1, 2, 64, 16);
    let good = || LshOptions::new(2, 8, 16);
    refused(shape, LshOptions::new(0, 8, 16), &["rounds", "at least 1", "0"]);
    refused(shape, LshOptions::new(65, 8, 16), &["rounds", "65", "64"]);
    refused(shape, LshOptions::new(2, 8, 0), &["chunk", "at least 1"]);
    refused(shape, LshOptions::new(2, 0, 16), &["buckets", "even", "0"]);
    refused(shape, LshOptions::new(2, 7, 16), &["buckets", "even", "7"]);
    refused(shape, good().buckets(vec![4, 3]), &["buckets", "even", "3"]);
    refused(shape, good().buckets(vec![]), &["buckets", "at least one", "none"]);
    refused(shape, LshOptions::new(2, 65_538, 16), &["buckets", "65538", "65536"]);
    refused(shape, good().buckets(vec![1 << 32, 1 << 32]), &["buckets", "65536"]);
    refused(shape, good().self_penalty(f32::NAN), &["self_penalty", "finite"]);
    refused(shape, good().self_penalty(f32::NEG_INFINITY), &["self_penalty", "finite"]);
    refused(shape, good().norm_eps(-1.0), &["norm_eps", "0 or a normal number", "-1"]);
    refused(shape, good().norm_eps(f32::INFINITY), &["norm_eps", "inf"]);
}

#[test]
fn bad_shapes_are_refused_one_by_one() {
    let shape = AttentionShape::new(1, 2, 64, 16);
    let good = || LshOptions::new(2, 8, 16);
    refused(shape.kv_heads(1), good(), &["kv_heads", "2", "1"]);
    refused(shape.kv_len(65), good(), &["kv_len", "64", "65"]);
    let none = |name| format!("{name}: need none for LSH attention, where ");
    for (score, name, why) in [
        (Score::new().dropout(0.1, 1), "dropout", "a pair may meet several times"),
        (Score::new().with(Relative::new(63, 127)), "relative", "divided by the norm of the key"),
        (Score::new().alibi().with(Segments), "segments", "divided by the norm of the key"),
    ] {
        refused(shape.score(score), good(), &[&none(name), why]);
    }
    refused(shape.score(Score::new().softcap(0.0)), good(), &["softcap", "above 0"]);
    let bias = Score::new().bias(BiasStrides { key: -1, ..Default::default() });
    refused(shape.score(bias), good(), &["bias"]);
    let custom = Custom::adds("mine", "fn mine_score() {}", |s, _| s);
    refused(shape.score(Score::new().with(custom)), good(), &["custom.mine"]);
    refused(shape.layouts(Layouts::default().k(Layout::Blhd)), good(), &["k_layout"]);
    refused(shape.storage(Storage::default().kv(ElementType::F16)), good(), &["storage.kv", "f32", "f16"]);
    refused(shape.score(Score::new().scale(f32::NAN)), good(), &["scale"]);
    refused(AttentionShape::new(1, 0, 64, 16), good(), &["heads"]);
    refused(AttentionShape::new(1, 1, 64, 257), good(), &["head_dim", "256", "257"]);
    refused(AttentionShape::new(1, 1, (1 << 24) + 1, 1), good(), &["q_len", "16777217", "16777216"]);
    refused(AttentionShape::new(1, 2, 1 << 24, 1), LshOptions::new(64, 8, 16), &["places", "4294967295"]);
    let overlap = Layouts::default().out(Layout::Strided(Strides::new(0, 0, 16)));
    refused(shape.layouts(overlap), good(), &["out_layout", "overlap"]);
}

#[test]
fn bad_slices_are_refused_one_by_one() {
    let shape = AttentionShape::new(1, 2, 64, 16);
    let data = vec![0.5f32; shape.len_q() + 1];
    let good = LshOptions::new(2, 8, 16);
    let given = good.clone().projections(Projections::Given { per_head: true });
    let masked = good.clone().key_mask(true);
    let need = 2 * 16 * 2 * 4;
    let exact = &data[..shape.len_q()];
    let mask = [true; 65];
    let cases: [(&LshOptions, LshInputs<'_, f32>, &str); 8] = [
        (&good, LshInputs::new(&data, exact), "qk"),
        (&good, LshInputs::new(exact, &data[..5]), "v"),
        (&given, LshInputs::new(exact, exact), "projections"),
        (&given, LshInputs::new(exact, exact).projections(&data[..need - 1]), "projections"),
        (&good, LshInputs::new(exact, exact).projections(&data[..need]), "projections"),
        (&masked, LshInputs::new(exact, exact), "key_mask"),
        (&masked, LshInputs::new(exact, exact).key_mask(&mask[..]), "key_mask"),
        (&good, LshInputs::new(exact, exact).key_mask(&mask[..64]), "key_mask"),
    ];
    for (options, inputs, name) in cases {
        let error = gpu().lsh::<f32, f32>(&shape, options, &inputs).expect_err(name);
        assert!(matches!(&error, Error::Argument { name: got, .. } if got == name), "{error}");
    }
}

#[test]
fn bad_tensors_of_terms_are_refused_one_by_one() {
    let shape = AttentionShape::new(1, 2, 64, 16);
    let bias = BiasStrides::broadcast([1, 1, 64, 64]);
    let attention = shape.score(Score::new().bias(bias).with(Sinks));
    let (options, data) = (LshOptions::new(2, 8, 16), vec![0.5f32; 64 * 64]);
    let qk = &data[..shape.len_q()];
    let inputs = || LshInputs::new(qk, qk);
    let slices = [
        (inputs(), "bias", "one tensor, since the score has this term"),
        (inputs().tensor("bias", &data), "sinks", "one tensor"),
        (inputs().tensor("bias", &data[1..]).tensor("sinks", &data[..2]), "bias", "4096 elements, got 4095"),
        (inputs().tensor("bias", &data).tensor("sinks", &data[..3]), "sinks", "2 elements, got 3"),
        (
            inputs().tensor("bias", &data).tensor("sinks", &data[..2]).tensor("slopes", &data[..2]),
            "slopes",
            "none, since the score has no such term",
        ),
    ];
    for (inputs, name, words) in slices {
        let of_reference = reference::lsh(&attention, &options, &inputs).expect_err(name);
        for error in [gpu().lsh::<f32, f32>(&attention, &options, &inputs).expect_err(name), of_reference] {
            let text = error.to_string();
            assert!(text.starts_with(&format!("{name}: ")) && text.contains(words), "{text}");
        }
    }
    let device = gpu().device();
    let [qk, v, out, bias] = [0; 4].map(|_| storage(device, &data));
    let (sinks, small) = (storage(device, &[0.0; 2]), storage(device, &[0.0; 1]));
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let plan = gpu().kernels().lsh(&attention, options).unwrap();
    let base = || LshBuffers::new(whole(&qk), whole(&v), whole(&out));
    let good = || base().tensor("bias", whole(&bias)).tensor("sinks", whole(&sinks));
    plan.bind(good()).unwrap();
    let buffers = [
        (base().tensor("bias", whole(&bias)), "sinks", "one tensor"),
        (base().tensor("bias", whole(&bias)).tensor("sinks", whole(&small)), "sinks", "8 bytes"),
        (good().tensor("sinks", whole(&sinks)), "sinks", "2 of them"),
        (good().tensor("r", whole(&small)), "r", "no such term"),
        (base().tensor("bias", whole(&out)).tensor("sinks", whole(&sinks)), "out", "other than that of bias"),
        (good().lse(whole(&bias)), "lse", "other than that of bias"),
    ];
    for (buffers, name, words) in buffers {
        let text = plan.bind(buffers).expect_err(name).to_string();
        assert!(text.starts_with(&format!("{name}: ")) && text.contains(words), "{text}");
    }
}

/// WebGPU promises 8 storage buffers per stage: rounds that merge leave two for tensors of terms, a single round without lse three.
#[test]
fn tensors_of_terms_on_a_device_with_default_limits() {
    let adapter = pollster::block_on(Gpu::adapters()).expect("an adapter").swap_remove(0);
    let (device, queue) =
        pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).unwrap();
    assert_eq!(device.limits().max_storage_buffers_per_shader_stage, 8);
    let kernels = Kernels::new(&device, Options::default()).unwrap();
    let shape = AttentionShape::new(1, 2, 100, 16);
    let two = Score::new().softcap(2.0).alibi().with(Sinks);
    let three = two.clone().with(Temperature);
    let case = Case::<f32>::new(shape.score(two), LshOptions::new(2, 8, 16), Kind::Normal, 5);
    let plan = kernels.lsh(&case.attention, case.options.clone()).unwrap();
    let [qk, v, sinks] = [&case.qk[..], &case.v, case.tensor("sinks")].map(|data| storage(&device, data));
    let out = storage(&device, &vec![-7.0; case.attention.len_out()]);
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let buffers = LshBuffers::new(whole(&qk), whole(&v), whole(&out)).tensor("sinks", whole(&sinks));
    let mut encoder = device.create_command_encoder(&Default::default());
    plan.bind(buffers).unwrap().encode(&mut encoder);
    queue.submit([encoder.finish()]);
    assert_eq!(read(&device, &queue, &out), case.check_on(gpu(), Rows::All).out);

    let error = kernels.lsh(shape.score(three.clone()), LshOptions::new(2, 8, 16)).unwrap_err();
    let Error::Limit { limit, need: 9, have: 8, .. } = &error else { panic!("{error}") };
    assert_eq!(*limit, "max_storage_buffers_per_shader_stage");
    kernels.lsh(shape.score(three), LshOptions::new(1, 8, 16)).unwrap();
}

#[test]
fn bad_buffers_are_refused_one_by_one() {
    let device = gpu().device();
    let shape = AttentionShape::new(1, 2, 64, 16);
    let plan = gpu().kernels().lsh(shape, LshOptions::new(2, 8, 16)).unwrap();
    let [qk, v, out, other] = [0; 4].map(|_| storage(device, &vec![0.0; shape.len_q()]));
    let small = storage(device, &[0.0; 16]);
    let usage = wgpu::BufferUsages::COPY_DST;
    let no_storage = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 8192,
        usage,
        mapped_at_creation: false,
    });
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let good = || LshBuffers::new(whole(&qk), whole(&v), whole(&out));
    plan.bind(good()).unwrap();
    let shifted = wgpu::BufferBinding { buffer: &other, offset: 4, size: None };
    let cases = [
        ("qk", LshBuffers::new(whole(&small), whole(&v), whole(&out))),
        ("v", LshBuffers::new(whole(&qk), whole(&no_storage), whole(&out))),
        ("out", LshBuffers::new(whole(&qk), whole(&v), whole(&qk))),
        ("out", LshBuffers::new(whole(&qk), whole(&v), shifted)),
        ("lse", good().lse(whole(&small))),
        ("lse", good().lse(whole(&v))),
        ("buckets", good().buckets(whole(&small))),
        ("order", good().order(whole(&small))),
        ("order", good().buckets(whole(&other)).order(whole(&other))),
        ("projections", good().projections(whole(&other))),
        ("key_mask", good().key_mask(whole(&other))),
    ];
    for (name, buffers) in cases {
        let error = plan.bind(buffers).expect_err(name);
        assert!(matches!(&error, Error::Argument { name: got, .. } if got == name), "{name}: {error}");
    }
    let given = LshOptions::new(2, 8, 16).projections(Projections::Given { per_head: false });
    let plan = gpu().kernels().lsh(shape, given).unwrap();
    assert!(plan.bind(good()).unwrap_err().to_string().contains("projections"));
    assert!(plan.bind(good().projections(whole(&small))).unwrap_err().to_string().contains("projections"));
}

#[test]
fn bad_sorts_are_refused_one_by_one() {
    let kernels = gpu().kernels();
    let refused = |shape: SortShape, word: &str| {
        let text = kernels.sort(&shape).unwrap_err().to_string();
        assert!(text.contains(word), "{text}");
    };
    refused(SortShape::new(1, 8).key_bits(0), "key_bits");
    refused(SortShape::new(1, 8).key_bits(33), "key_bits");
    refused(SortShape::new(1, SortShape::MAX_LEN + 1), "len");
    refused(SortShape::new(1 << 20, 1 << 14), "the sort");
    refused(SortShape::new(1 << 26, 1), "the sort");
    assert!(gpu().sort(&SortShape::new(2, 3), &[0; 5], None).unwrap_err().to_string().contains("keys"));
    assert!(
        gpu().sort(&SortShape::new(2, 3), &[0; 6], Some(&[0; 7])).unwrap_err().to_string().contains("values")
    );

    let plan = kernels.sort(&SortShape::new(2, 64)).unwrap();
    let [keys, out] = [0; 2].map(|_| storage(gpu().device(), &[0.0; 128]));
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let good = SortBuffers::new(whole(&keys), whole(&out));
    plan.bind(good.clone()).unwrap();
    let cases = [
        ("values", good.clone().values(Some(whole(&keys)))),
        ("sorted_values", good.clone().sorted_values(whole(&keys))),
        ("sorted_values", good.clone().sorted_keys(Some(whole(&out)))),
    ];
    for (name, buffers) in cases {
        let error = plan.bind(buffers).expect_err(name);
        assert!(matches!(&error, Error::Argument { name: got, .. } if got == name), "{name}: {error}");
    }
}
