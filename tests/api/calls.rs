//! Calls on buffers and encoders of the caller's, on slices, from several threads, on a lost device.

use super::{adapter, assert_right, device, gpu, inputs, read, storage, tensors};
use wgpu_attention::{
    AttentionBuffers, AttentionShape, Causal, ElementType, Error, Full, Gpu, Inputs, Kernels, Layout,
    Layouts, Options, Outputs, Pattern, Score, Storage, Strided, Strides, reference,
};

#[test]
fn two_calls_in_one_encoder_keep_their_own_parameters() {
    let (device, queue) = (gpu().device(), gpu().queue());
    let kernels = Kernels::new(device, Options::default()).unwrap();
    let shape = AttentionShape::new(1, 2, 70, 16);
    let both = [shape.into(), shape.score(Score::new().scale(3.0))];
    let mut encoder = device.create_command_encoder(&Default::default());
    let mut results = vec![];
    for attention in &both {
        let data = tensors(attention);
        let [q, k, v] = [0, 1, 2].map(|n| storage(device, &data[n]));
        let out = storage(device, &vec![f32::NAN; attention.len_out()]);
        let plan = kernels.attention(attention, &Causal).unwrap();
        let [q, k, v, to] = [&q, &k, &v, &out].map(wgpu::Buffer::as_entire_buffer_binding);
        plan.bind(AttentionBuffers::new(q, k, v, to)).unwrap().encode(&mut encoder);
        results.push((data, out));
    }
    queue.submit([encoder.finish()]);
    for (attention, (data, out)) in both.iter().zip(&results) {
        assert_right(attention, data, &read(device, queue, out));
    }
}

#[test]
fn buffers_may_have_offsets_and_a_pass_of_the_caller() {
    let (device, queue) = (gpu().device(), gpu().queue());
    let kernels = gpu().kernels();
    let shape = AttentionShape::new(1, 1, 64, 16);
    let data = tensors(shape);
    let floats = device.limits().min_storage_buffer_offset_alignment as usize / 4;
    // One buffer for all inputs, one for both outputs, each tensor behind a gap.
    let place = shape.len_q().next_multiple_of(floats) + floats;
    let mut packed = vec![f32::NAN; 3 * place];
    for (n, tensor) in data.iter().enumerate() {
        packed[n * place + floats..][..tensor.len()].copy_from_slice(tensor);
    }
    let inputs = storage(device, &packed);
    let outputs = storage(device, &vec![-7.0; 2 * place]);
    let at = |buffer, n: usize| wgpu::BufferBinding {
        buffer,
        offset: 4 * (n * place + floats) as u64,
        size: None,
    };
    let buffers = AttentionBuffers::new(at(&inputs, 0), at(&inputs, 1), at(&inputs, 2), at(&outputs, 0));
    let plan = kernels.attention(shape, &Causal).unwrap();
    let call = plan.bind(buffers.lse(at(&outputs, 1))).unwrap();
    let mut encoder = device.create_command_encoder(&Default::default());
    call.dispatch(&mut encoder.begin_compute_pass(&Default::default()));
    queue.submit([encoder.finish()]);
    let got = read(device, queue, &outputs);
    assert_right(shape, &data, &got[floats..][..shape.len_out()]);
    assert!(got[..floats].iter().all(|x| *x == -7.0), "the gap before out is untouched");
    assert!(
        got[floats + shape.len_out()..place + floats].iter().all(|x| *x == -7.0),
        "so is the one behind it"
    );
    assert!(got[place + floats..][..64].iter().all(|x| *x != -7.0), "lse is written");
}

#[test]
fn a_device_with_default_limits_is_enough() {
    let (device, queue) = device(wgpu::Limits::default());
    let gpu = Gpu::with_device(adapter().get_info(), device, queue, Options::default()).unwrap();
    for dim in [16, 64, 128, 256] {
        let shape = AttentionShape::new(1, 2, 100, dim);
        let data = tensors(shape);
        let out: Vec<f32> = gpu.attention(shape, &data[0], &data[1], &data[2], &Causal).unwrap();
        assert_right(shape, &data, &out);
    }
}

#[test]
fn many_dispatches_equal_one() {
    let shape = AttentionShape::new(2, 2, 200, 16);
    let data = tensors(shape);
    let run =
        |gpu: &Gpu| gpu.run::<_, _, f32>(shape, &inputs(&data), &Causal, Outputs::default().lse()).unwrap();
    let kernels = Kernels::new(gpu().device(), Options::default().dispatch_flops(1.0)).unwrap();
    let plan = kernels.attention(shape, &Causal).unwrap();
    assert!(plan.explain().dispatches > 8, "{:?}", plan.explain());
    assert_eq!(run(&gpu().with_kernels(kernels)), run(gpu()));
}

#[test]
fn nothing_to_do_is_no_error() {
    for shape in [AttentionShape::new(0, 2, 8, 16), AttentionShape::new(1, 2, 8, 16).q_len(0)] {
        let data = tensors(shape);
        let out: Vec<f32> = gpu().attention(shape, &data[0], &data[1], &data[2], &Full).unwrap();
        assert!(out.is_empty());
    }
}

/// With and without lse, under a pattern of one part and of several.
#[test]
fn no_keys_is_no_error() {
    let shape = AttentionShape::new(2, 3, 70, 16).kv_len(0);
    let q = vec![1.0f32; shape.len_q()];
    let strided = Strided::new(8).unwrap();
    for pattern in [&Full as &dyn Pattern, &Causal, &strided] {
        let inputs = Inputs::new(&q, &[], &[]);
        let got = gpu().run::<f32, f32, f32>(shape, &inputs, pattern, Outputs::default().lse()).unwrap();
        assert_eq!(got.out, vec![0.0; shape.len_out()]);
        assert_eq!(got.lse, Some(vec![f32::MIN; shape.len_lse()]));
        let out = gpu().attention::<f32, f32, f32>(shape, &q, &[], &[], pattern).unwrap();
        assert_eq!(out, vec![0.0; shape.len_out()]);
    }
}

/// q, k and v in one tensor [B, L, 3, H, d], as a projection leaves them, bound three times.
#[test]
fn packed_queries_keys_and_values_need_no_copy() {
    let (device, queue) = (gpu().device(), gpu().queue());
    let shape = AttentionShape::new(2, 3, 50, 16);
    let row = 3 * 3 * 16;
    let packed = Strides::new(50 * row, 16, row);
    let at = |n: usize| Layout::Strided(packed.offset(n * 3 * 16));
    let attention = shape.layouts(Layouts::default().q(at(0)).k(at(1)).v(at(2)));
    let data: Vec<f32> = (0..2 * 50 * row as usize).map(|n| (n as f32 * 0.37).sin()).collect();
    let (x, out) = (storage(device, &data), storage(device, &vec![f32::NAN; shape.len_out()]));
    let plan = gpu().kernels().attention(&attention, &Causal).unwrap();
    let [q, k, v, to] = [&x, &x, &x, &out].map(wgpu::Buffer::as_entire_buffer_binding);
    let mut encoder = device.create_command_encoder(&Default::default());
    plan.bind(AttentionBuffers::new(q, k, v, to)).unwrap().encode(&mut encoder);
    queue.submit([encoder.finish()]);

    // The same as three tensors, [B, H, L, d].
    let unpacked = |n: usize| -> Vec<f32> {
        let place = |e: usize| {
            let (rest, c) = (e / 16, e % 16);
            let (rest, i) = (rest / 50, rest % 50);
            (rest / 3 * 50 + i) * row as usize + (n * 3 + rest % 3) * 16 + c
        };
        (0..shape.len_q()).map(|e| data[place(e)]).collect()
    };
    let got = read(device, queue, &out);
    assert_right(shape, &[0, 1, 2].map(unpacked), &got);
}

#[test]
fn async_calls_run_without_a_runtime() {
    let shape = AttentionShape::new(1, 1, 33, 16);
    let data = tensors(shape);
    let call = gpu().attention_async::<f32, f32, f32>(shape, &data[0], &data[1], &data[2], &Causal);
    assert_right(shape, &data, &pollster::block_on(call).unwrap());
}

#[test]
fn two_threads_share_one_device() {
    std::thread::scope(|scope| {
        for heads in 1..=4 {
            scope.spawn(move || {
                let shape = AttentionShape::new(1, heads, 90, 16);
                let data = tensors(shape);
                let out: Vec<f32> = gpu().attention(shape, &data[0], &data[1], &data[2], &Causal).unwrap();
                assert_right(shape, &data, &out);
            });
        }
    });
}

#[test]
fn a_lost_device_is_an_error() {
    let (device, queue) = device(wgpu::Limits::default());
    let lost = Gpu::with_device(adapter().get_info(), device.clone(), queue, Options::default()).unwrap();
    let shape = AttentionShape::new(1, 1, 64, 16);
    let data = tensors(shape);
    let run = || lost.attention::<f32, f32, f32>(shape, &data[0], &data[1], &data[2], &Causal);
    run().unwrap();
    device.destroy();
    for _ in 0..2 {
        let error = run().unwrap_err();
        assert!(matches!(error, Error::DeviceLost(_)), "{error}");
    }
    assert!(Kernels::new(&device, Options::default()).is_err(), "new kernels on a lost device");
    assert!(lost.kernels().attention(shape, &Causal).is_err(), "a plan on a lost device");
}

#[test]
fn sixteen_bit_elements_are_those_of_the_slices() {
    let shape = AttentionShape::new(1, 1, 64, 16);
    let [q, k, v] = tensors(shape).map(|t| t.into_iter().map(half::f16::from_f32).collect::<Vec<_>>());
    let out: Vec<half::f16> = gpu().attention(shape, &q, &k, &v, &Causal).unwrap();
    let halves = shape.storage(Storage::all(ElementType::F16));
    let got = reference::Got::new(&out);
    let report =
        reference::verify(halves, &Inputs::new(&q, &k, &v), &Causal, got, Default::default()).unwrap();
    assert!(report.pass, "{report}");
}
