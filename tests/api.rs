//! The API as a wgpu user meets it: own device, buffers and encoder; bad input; small and lost devices.

use std::sync::OnceLock;
use wgpu::util::DeviceExt;
use wgpu_attention::{
    AttentionBuffers, AttentionShape, BiasStrides, BlockGrid, BlockMask, Causal, ElementType, Error, Full,
    Gpu, Inputs, Kernels, Layout, Options, Strides, reference,
};

const NO_ADAPTER: &str = "no GPU adapter: run the tests by `cargo xtask test`, which fetches a software adapter where \
                          no driver is installed";

fn gpu() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| Gpu::new().expect(NO_ADAPTER))
}

fn adapter() -> wgpu::Adapter {
    pollster::block_on(Gpu::adapters()).expect(NO_ADAPTER).swap_remove(0)
}

/// A device with exactly these limits.
fn device(required_limits: wgpu::Limits) -> (wgpu::Device, wgpu::Queue) {
    let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
    pollster::block_on(adapter().request_device(&descriptor)).expect("the adapter has these limits")
}

/// q, k, v of a shape, each a little different.
fn tensors(shape: &AttentionShape) -> [Vec<f32>; 3] {
    let wave = |len: usize, step: f32| (0..len).map(|n| (n as f32 * step).sin()).collect();
    [wave(shape.len_q(), 0.37), wave(shape.len_k(), 0.73), wave(shape.len_v(), 1.19)]
}

fn storage(device: &wgpu::Device, data: &[f32]) -> wgpu::Buffer {
    device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
        label: None,
        contents: bytemuck::cast_slice(data),
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
    })
}

fn read(device: &wgpu::Device, queue: &wgpu::Queue, buffer: &wgpu::Buffer) -> Vec<f32> {
    let copy = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: buffer.size(),
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let mut encoder = device.create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(buffer, 0, &copy, 0, buffer.size());
    queue.submit([encoder.finish()]);
    copy.map_async(wgpu::MapMode::Read, .., |result| result.expect("mapping"));
    device.poll(wgpu::PollType::wait_indefinitely()).expect("polling");
    bytemuck::pod_collect_to_vec(&copy.slice(..).get_mapped_range().expect("mapped"))
}

/// Asserts that `out` is right for the shape and causal attention over its tensors.
fn assert_right(shape: &AttentionShape, [q, k, v]: &[Vec<f32>; 3], out: &[f32]) {
    let inputs = reference::Inputs { q, k, v, bias: None };
    let got = reference::Got { out, lse: None };
    let report = reference::verify(shape, &inputs, &Causal, got, Default::default()).expect("valid");
    assert!(report.pass, "{report}");
}

#[test]
fn two_calls_in_one_encoder_keep_their_own_parameters() {
    let (device, queue) = (gpu().device(), gpu().queue());
    let kernels = Kernels::new(device, Options::default()).unwrap();
    let shapes = [AttentionShape::new(1, 2, 70, 16), AttentionShape::new(1, 2, 70, 16).scale(3.0)];
    let mut encoder = device.create_command_encoder(&Default::default());
    let mut results = vec![];
    for shape in &shapes {
        let data = tensors(shape);
        let [q, k, v] = [0, 1, 2].map(|n| storage(device, &data[n]));
        let out = storage(device, &vec![f32::NAN; shape.len_out()]);
        let mask = BlockMask::new(&Causal, BlockGrid::from(shape)).unwrap();
        let plan = kernels.attention(shape, &mask).unwrap();
        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let call = plan
            .bind(AttentionBuffers {
                q: whole(&q),
                k: whole(&k),
                v: whole(&v),
                bias: None,
                out: whole(&out),
                lse: None,
            })
            .unwrap();
        call.encode(&mut encoder);
        results.push((data, out));
    }
    queue.submit([encoder.finish()]);
    for (shape, (data, out)) in shapes.iter().zip(&results) {
        assert_right(shape, data, &read(device, queue, out));
    }
}

#[test]
fn buffers_may_have_offsets_and_a_pass_of_the_caller() {
    let (device, queue) = (gpu().device(), gpu().queue());
    let kernels = gpu().kernels();
    let shape = AttentionShape::new(1, 1, 64, 16);
    let data = tensors(&shape);
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
    let mask = BlockMask::new(&Causal, BlockGrid::from(&shape)).unwrap();
    let call = kernels
        .attention(&shape, &mask)
        .unwrap()
        .bind(AttentionBuffers {
            q: at(&inputs, 0),
            k: at(&inputs, 1),
            v: at(&inputs, 2),
            bias: None,
            out: at(&outputs, 0),
            lse: Some(at(&outputs, 1)),
        })
        .unwrap();
    let mut encoder = device.create_command_encoder(&Default::default());
    call.dispatch(&mut encoder.begin_compute_pass(&Default::default()));
    queue.submit([encoder.finish()]);
    let got = read(device, queue, &outputs);
    assert_right(&shape, &data, &got[floats..][..shape.len_out()]);
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
        let data = tensors(&shape);
        let out: Vec<f32> = gpu.attention(&shape, &data[0], &data[1], &data[2], &Causal).unwrap();
        assert_right(&shape, &data, &out);
    }
}

#[test]
fn many_dispatches_equal_one() {
    let shape = AttentionShape::new(2, 2, 200, 16);
    let data = tensors(&shape);
    let inputs = Inputs { q: &data[0], k: &data[1], v: &data[2], bias: None };
    let mask = BlockMask::new(&Causal, BlockGrid::from(&shape)).unwrap();
    let kernels = Kernels::new(gpu().device(), Options::default().dispatch_flops(1.0)).unwrap();
    let plan = kernels.attention(&shape, &mask).unwrap();
    assert!(plan.explain().dispatches > 8, "{:?}", plan.explain());
    let many = gpu().with_kernels(kernels).run::<_, f32>(&shape, &inputs, &mask).unwrap();
    assert_eq!(many, gpu().run(&shape, &inputs, &mask).unwrap());
}

#[test]
fn nothing_to_do_is_no_error() {
    for shape in [AttentionShape::new(0, 2, 8, 16), AttentionShape::new(1, 2, 8, 16).q_len(0)] {
        let data = tensors(&shape);
        let out: Vec<f32> = gpu().attention(&shape, &data[0], &data[1], &data[2], &Full).unwrap();
        assert!(out.is_empty());
    }
}

#[test]
fn async_calls_run_without_a_runtime() {
    let shape = AttentionShape::new(1, 1, 33, 16);
    let data = tensors(&shape);
    let call = gpu().attention_async::<f32, f32>(&shape, &data[0], &data[1], &data[2], &Causal);
    assert_right(&shape, &data, &pollster::block_on(call).unwrap());
}

#[test]
fn two_threads_share_one_device() {
    std::thread::scope(|scope| {
        for heads in 1..=4 {
            scope.spawn(move || {
                let shape = AttentionShape::new(1, heads, 90, 16);
                let data = tensors(&shape);
                let out: Vec<f32> = gpu().attention(&shape, &data[0], &data[1], &data[2], &Causal).unwrap();
                assert_right(&shape, &data, &out);
            });
        }
    });
}

#[test]
fn a_lost_device_is_an_error() {
    let (device, queue) = device(wgpu::Limits::default());
    let lost = Gpu::with_device(adapter().get_info(), device.clone(), queue, Options::default()).unwrap();
    let shape = AttentionShape::new(1, 1, 64, 16);
    let data = tensors(&shape);
    let run = || lost.attention::<f32, f32>(&shape, &data[0], &data[1], &data[2], &Causal);
    run().unwrap();
    device.destroy();
    for _ in 0..2 {
        let error = run().unwrap_err();
        assert!(matches!(error, Error::DeviceLost(_)), "{error}");
    }
    assert!(Kernels::new(&device, Options::default()).is_err(), "new kernels on a lost device");
    let mask = BlockMask::new(&Causal, BlockGrid::from(&shape)).unwrap();
    assert!(lost.kernels().attention(&shape, &mask).is_err(), "a plan on a lost device");
}

/// Asserts the message of a shape that is refused.
fn refused(shape: AttentionShape, message: &str) {
    assert_eq!(shape.check().unwrap_err().to_string(), message);
    let mask = BlockMask::new(&Full, BlockGrid::new(64, 64)).unwrap();
    assert_eq!(gpu().kernels().attention(&shape, &mask).unwrap_err().to_string(), message);
}

#[test]
fn bad_shapes_say_what_is_wrong() {
    let good = AttentionShape::new(1, 4, 64, 16);
    refused(AttentionShape { heads: 0, ..good }, "heads: need at least 1, got 0");
    refused(good.kv_heads(0), "kv_heads: need at least 1, got 0");
    refused(good.kv_len(0), "kv_len: need at least 1, got 0");
    refused(good.kv_heads(3), "kv_heads: need a divisor of heads (4), got 3");
    refused(AttentionShape { head_dim: 0, ..good }, "head_dim: need 1 to 256, got 0");
    refused(good.value_dim(257), "value_dim: need 1 to 256, got 257");
    refused(good.scale(f32::NAN), "scale: need a finite number, got NaN");
    refused(good.scale(f32::INFINITY), "scale: need a finite number, got inf");
    refused(good.softcap(0.0), "softcap: need a finite number above 0, got 0");
    refused(good.softcap(f32::NAN), "softcap: need a finite number above 0, got NaN");
    refused(
        good.out_layout(Layout::Strided(Strides { batch: 0, head: 0, row: 16 })),
        "out_layout: need rows that do not overlap: 16 apart, got a stride of 0 (batch 0, head 0, row 16)",
    );
    refused(
        good.out_layout(Layout::Strided(Strides { batch: 4096, head: 1024, row: 15 })),
        "out_layout: need rows that do not overlap: 16 apart, got a stride of 15 (batch 4096, head 1024, row 15)",
    );
    let huge = AttentionShape::new(1 << 20, 1 << 20, 1 << 20, 16);
    refused(huge, "q_layout needs 18446744073709551615, but elements a tensor is 4294967295");
    refused(
        good.k_layout(Layout::Strided(Strides { batch: usize::MAX, head: 1 << 40, row: 16 })),
        "k_layout needs 3298534884352, but elements a tensor is 4294967295",
    );
    refused(
        good.bias(BiasStrides { batch: 0, head: 1 << 33, query: 0, key: 1 }),
        "bias needs 25769803840, but elements a tensor is 4294967295",
    );
}

#[test]
fn a_mask_of_another_size_is_refused() {
    let kernels = gpu().kernels();
    let shape = AttentionShape::new(2, 4, 64, 16);
    let plan = |grid: BlockGrid| kernels.attention(&shape, BlockMask::new(&Causal, grid).unwrap());
    assert!(plan(BlockGrid::new(64, 64)).is_ok(), "a mask of one head serves all");
    assert!(plan(BlockGrid::new(64, 64).heads(4).batch(2)).is_ok());
    let message = plan(BlockGrid::new(64, 65)).unwrap_err().to_string();
    assert_eq!(message, "mask: need a mask of 64 queries by 64 keys, as the shape says, got 64 by 65");
}

#[test]
fn options_are_checked() {
    let options = Options::default().dispatch_flops(0.0);
    let message = Kernels::new(gpu().device(), options).unwrap_err().to_string();
    assert_eq!(message, "dispatch_flops: need a number above 0, got 0");
}

#[test]
fn slices_of_the_wrong_length_are_refused() {
    let shape = AttentionShape::new(1, 1, 64, 16);
    let [q, k, v] = tensors(&shape);
    let message = gpu().attention::<f32, f32>(&shape, &q, &k[1..], &v, &Causal).unwrap_err().to_string();
    assert_eq!(message, "k: need 1024 elements, got 1023 elements");
    let message =
        gpu().attention::<f32, f32>(&shape.bias(BiasStrides::broadcast([1, 1, 64, 64])), &q, &k, &v, &Causal);
    let message = message.unwrap_err().to_string();
    assert_eq!(message, "bias: need a tensor, since the shape has a bias, got none");
}

/// Buffers of a call, one more of 4092 bytes, and one that is no storage buffer.
struct Buffers {
    good: [wgpu::Buffer; 5],
    small: wgpu::Buffer,
    uniform: wgpu::Buffer,
}

/// Asserts that the call is fine, and the message of what `spoil` makes of it.
fn spoiled<'a>(buffers: &'a Buffers, spoil: impl FnOnce(&mut AttentionBuffers<'a>), message: &str) {
    let shape = AttentionShape::new(1, 1, 64, 16);
    let [q, k, v, out, lse] = buffers.good.each_ref().map(wgpu::Buffer::as_entire_buffer_binding);
    let mut bindings = AttentionBuffers { q, k, v, bias: None, out, lse: Some(lse) };
    let mask = BlockMask::new(&Causal, BlockGrid::from(&shape)).unwrap();
    let plan = gpu().kernels().attention(&shape, &mask).unwrap();
    plan.bind(bindings.clone()).expect("unspoiled, the call is fine");
    spoil(&mut bindings);
    assert_eq!(plan.bind(bindings).unwrap_err().to_string(), message);
}

#[test]
fn bad_buffers_say_what_is_wrong() {
    let device = gpu().device();
    let buffers = Buffers {
        good: [1024, 1024, 1024, 1024, 64].map(|len| storage(device, &vec![0.0; len])),
        small: storage(device, &[0.0; 1023]),
        uniform: device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 4096,
            usage: wgpu::BufferUsages::UNIFORM,
            mapped_at_creation: false,
        }),
    };
    spoiled(
        &buffers,
        |b| b.k = buffers.small.as_entire_buffer_binding(),
        "k: need 4096 bytes (1024 elements of f32), got 4092 bytes at offset 0 of a buffer of 4092",
    );
    spoiled(
        &buffers,
        |b| b.v.size = wgpu::BufferSize::new(64),
        "v: need 4096 bytes (1024 elements of f32), got 64 bytes at offset 0 of a buffer of 4096",
    );
    spoiled(
        &buffers,
        |b| b.q.offset = 1 << 20,
        "q: need 4096 bytes (1024 elements of f32), got 0 bytes at offset 1048576 of a buffer of 4096",
    );
    spoiled(
        &buffers,
        |b| b.q.size = wgpu::BufferSize::new(1 << 20),
        "q: need 4096 bytes (1024 elements of f32), got 1048576 bytes at offset 0 of a buffer of 4096",
    );
    let alignment = device.limits().min_storage_buffer_offset_alignment;
    let need = format!("an offset that is a multiple of {alignment} (min_storage_buffer_offset_alignment)");
    spoiled(&buffers, |b| b.out.offset = 4, &format!("out: need {need}, got offset 4"));
    spoiled(
        &buffers,
        |b| b.q = buffers.uniform.as_entire_buffer_binding(),
        "q: need a buffer with BufferUsages::STORAGE, got BufferUsages(UNIFORM)",
    );
    spoiled(
        &buffers,
        |b| b.out = b.k.clone(),
        "out: need a buffer other than that of k, got the same buffer",
    );
    spoiled(
        &buffers,
        |b| b.lse = Some(b.out.clone()),
        "lse: need bytes apart from those of out, got bytes 0..256 beside 0..4096 of one buffer",
    );
    spoiled(
        &buffers,
        |b| b.bias = Some(buffers.small.as_entire_buffer_binding()),
        "bias: need none, since the shape has no bias, got a buffer",
    );
}

#[test]
fn a_device_that_is_too_small_is_refused() {
    let few = wgpu::Limits { max_storage_buffers_per_shader_stage: 6, ..wgpu::Limits::default() };
    let message = Kernels::new(&device(few).0, Options::default()).unwrap_err().to_string();
    assert_eq!(message, "the attention kernel needs 7, but max_storage_buffers_per_shader_stage is 6");

    let narrow = wgpu::Limits { max_storage_buffer_binding_size: 1024, ..wgpu::Limits::default() };
    let (device, queue) = device(narrow);
    let gpu = Gpu::with_device(adapter().get_info(), device, queue, Options::default()).unwrap();
    let shape = AttentionShape::new(1, 1, 64, 16);
    let [q, k, v] = tensors(&shape);
    let message = gpu.attention::<f32, f32>(&shape, &q, &k, &v, &Causal).unwrap_err().to_string();
    assert_eq!(message, "q needs 4096, but max_storage_buffer_binding_size is 1024");
}

#[test]
fn sixteen_bit_elements_are_those_of_the_slices() {
    let shape = AttentionShape::new(1, 1, 64, 16);
    let [q, k, v] = tensors(&shape).map(|t| t.into_iter().map(half::f16::from_f32).collect::<Vec<_>>());
    let out: Vec<half::f16> = gpu().attention(&shape, &q, &k, &v, &Causal).unwrap();
    let shape = shape.elements(ElementType::F16);
    let inputs = reference::Inputs { q: &q, k: &k, v: &v, bias: None };
    let got = reference::Got { out: &out, lse: None };
    let report = reference::verify(&shape, &inputs, &Causal, got, Default::default()).unwrap();
    assert!(report.pass, "{report}");
}
