//! Bad input one by one, and devices that are too small: what the messages say.

use super::{adapter, device, gpu, storage, tensors};
use wgpu_attention::{
    Attention, AttentionBuffers, AttentionShape, BiasStrides, BlockGrid, BlockMask, Causal, Full, Gpu,
    Inputs, KernelPath, Kernels, Layout, Layouts, Options, Outputs, Pattern, Relative, Score, Segments,
    Strided, Strides, Temperature, Window,
};

/// Asserts the message of a call that is refused.
fn refused(attention: impl Into<Attention>, message: &str) {
    let attention = attention.into();
    assert_eq!(attention.check().unwrap_err().to_string(), message);
    assert_eq!(gpu().kernels().attention(&attention, &Full).unwrap_err().to_string(), message);
    let mask = BlockMask::new(&Full, BlockGrid::new(64, 64)).unwrap();
    assert_eq!(gpu().kernels().attention_parts(&attention, mask).unwrap_err().to_string(), message);
}

#[test]
fn bad_shapes_say_what_is_wrong() {
    let good = AttentionShape::new(1, 4, 64, 16);
    refused(AttentionShape::new(1, 0, 64, 16), "heads: need at least 1, got 0");
    refused(good.kv_heads(0), "kv_heads: need at least 1, got 0");
    refused(good.kv_heads(3), "kv_heads: need a divisor of heads (4), got 3");
    refused(AttentionShape::new(1, 4, 64, 0), "head_dim: need 1 to 576, got 0");
    refused(AttentionShape::new(1, 4, 64, 577).value_dim(16), "head_dim: need 1 to 576, got 577");
    refused(good.value_dim(513), "value_dim: need 1 to 512, got 513");
    let scored = |score| good.score(score);
    refused(scored(Score::new().scale(f32::NAN)), "scale: need a finite number, got NaN");
    refused(scored(Score::new().scale(f32::INFINITY)), "scale: need a finite number, got inf");
    refused(scored(Score::new().softcap(0.0)), "softcap: need a finite normal number above 0, got 0");
    refused(scored(Score::new().softcap(f32::NAN)), "softcap: need a finite normal number above 0, got NaN");
    let strided = |strides| Layout::Strided(strides);
    refused(
        good.layouts(Layouts::default().out(strided(Strides::new(0, 0, 16)))),
        "out_layout: need rows that do not overlap: 16 apart, got a stride of 0 (batch 0, head 0, row 16)",
    );
    refused(
        good.layouts(Layouts::default().out(strided(Strides::new(4096, 1024, 15)))),
        "out_layout: need rows that do not overlap: 16 apart, got a stride of 15 (batch 4096, head 1024, row 15)",
    );
    refused(
        good.layouts(Layouts::default().q(strided(Strides::new(4096, 1024, -16)))),
        "q_layout: need strides that stay behind the tensor's start, got an element 1008 before it",
    );
    let backwards = BiasStrides { offset: 60, query: 1, key: -1, ..Default::default() };
    refused(
        scored(Score::new().bias(backwards)),
        "bias: need strides that stay behind the tensor's start, got an element 3 before it",
    );
    let limit = "the largest 32-bit element index is 4294967295";
    let huge = AttentionShape::new(1 << 20, 1 << 20, 1 << 20, 16);
    refused(huge, &format!("lse needs 1152921504606846976, but {limit}"));
    let rows = AttentionShape::new(1, 1, 1 << 31, 16);
    refused(rows, &format!("q_layout needs 34359738368, but {limit}"));
    refused(
        good.layouts(Layouts::default().k(strided(Strides::new(isize::MAX, 1 << 40, 16)))),
        &format!("k_layout needs 3298534884352, but {limit}"),
    );
    let far = BiasStrides { head: 1 << 33, key: 1, ..Default::default() };
    refused(scored(Score::new().bias(far)), &format!("bias needs 25769803840, but {limit}"));
}

#[test]
fn rows_that_only_plain_attention_takes_are_refused_by_others() {
    use wgpu_attention::{FeatureMap, LinearOptions, LinformerOptions, LshOptions};
    let wide = AttentionShape::new(1, 2, 64, 300);
    assert!(wide.check().is_ok() && wide.value_dim(512).check().is_ok());
    let message = |checked: wgpu_attention::Result<()>| checked.unwrap_err().to_string();
    let of = |what| format!("head_dim: need 1 to 256 for {what}, got 300");
    assert_eq!(message(LshOptions::new(1, 4, 16).check(wide)), of("LSH attention"));
    assert_eq!(message(LinearOptions::new(FeatureMap::Elu).check(wide)), of("linear attention"));
    assert_eq!(message(LinformerOptions::new(64, 16).check(wide)), of("Linformer"));
}

#[test]
fn a_mask_of_another_size_is_refused() {
    let kernels = gpu().kernels();
    let shape = AttentionShape::new(2, 4, 64, 16);
    let plan = |grid: BlockGrid| kernels.attention_parts(shape, BlockMask::new(&Causal, grid).unwrap());
    assert!(plan(BlockGrid::new(64, 64)).is_ok(), "a mask of one head serves all");
    assert!(plan(BlockGrid::new(64, 64).heads(4).batch(2)).is_ok());
    let message = plan(BlockGrid::new(64, 65)).unwrap_err().to_string();
    assert_eq!(message, "mask: need a mask of 64 queries by 64 keys, as the shape says, got 64 by 65");
}

#[test]
fn relative_rows_that_do_not_serve_are_refused() {
    let shape = AttentionShape::new(1, 2, 64, 16);
    let scored = |relative: Relative| shape.score(Score::new().with(relative));
    refused(scored(Relative::new(0, 0)), "relative.rows: need 1 to 1,073,741,824, got 0");
    refused(
        scored(Relative::new(-1_500_000_000, 3)),
        "relative.first_distance: need a distance within 1,073,741,824 of 0, got -1500000000",
    );
    refused(
        scored(Relative::new(63, 127).strides(Strides::new(0, 0, -16))),
        "relative_rows: need strides that stay behind the tensor's start, got an element 2016 before it",
    );
    let kernels = gpu().kernels();
    let plan = |relative, pattern: &dyn Pattern| kernels.attention(scored(relative), pattern).map(|_| ());
    let message = plan(Relative::new(62, 126), &Full).unwrap_err().to_string();
    let need =
        "relative: need rows of the distances -63 to 63, which the pattern keeps, or `clip`, got rows of";
    assert_eq!(message, format!("{need} -63 to 62"));
    plan(Relative::new(62, 126).clip(true), &Full).unwrap();
    plan(Relative::new(63, 64), &Causal).unwrap();
    assert!(plan(Relative::new(63, 63), &Causal).unwrap_err().to_string().ends_with("got rows of 1 to 63"));
    plan(Relative::new(9, 12), &Window { before: 9, after: 2 }).unwrap();
    plan(Relative::new(9, 12), &Window { before: 9, after: 3 }).unwrap_err();

    let tensors = tensors(shape);
    let inputs =
        || Inputs::new(&tensors[0], &tensors[1], &tensors[2]).tensor("relative_rows", &[0.0; 2 * 127 * 16]);
    let both = scored(Relative::new(63, 127).u(true).w(true));
    let short = inputs().tensor("relative_biases", &[0.0; 32]).check(&both).unwrap_err().to_string();
    assert_eq!(short, "relative_biases: need 64 elements, got 32 elements");
    let message = inputs().check(&both).unwrap_err().to_string();
    assert_eq!(message, "relative_biases: need one tensor, since the score has this term, got none");

    let forced = Kernels::new(gpu().device(), Options::default().path(KernelPath::Cooperative)).unwrap();
    let message = forced.attention(scored(Relative::new(63, 127)), &Full).unwrap_err().to_string();
    let need = "a score without relative rows, whose products matrix units do not make here";
    assert_eq!(message, format!("score: need {need}, got relative"));
    let path = kernels.attention(scored(Relative::new(63, 127)), &Full).unwrap().path().clone();
    assert!(path.why.contains(need), "{}", path.why);
}

#[test]
fn segments_that_do_not_serve_are_refused() {
    let shape = AttentionShape::new(1, 2, 64, 16);
    let segmented = shape.score(Score::new().with(Segments));
    let tensors = tensors(shape);
    let inputs = Inputs::new(&tensors[0], &tensors[1], &tensors[2]);
    let missing = inputs.check(&segmented).unwrap_err().to_string();
    assert_eq!(missing, "segments: need one tensor, since the score has this term, got none");
    let short = inputs.clone().tensor("segments", &[0.0; 96]).check(&segmented).unwrap_err().to_string();
    assert_eq!(short, "segments: need 224 elements, got 96 elements");
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
    let [q, k, v] = tensors(shape);
    let message = gpu().attention::<f32, f32, f32>(shape, &q, &k[1..], &v, &Causal).unwrap_err().to_string();
    assert_eq!(message, "k: need 1024 elements, got 1023 elements");
    let biased = shape.score(Score::new().bias(BiasStrides::broadcast([1, 1, 64, 64])));
    let message = gpu().attention::<f32, f32, f32>(biased, &q, &k, &v, &Causal).unwrap_err().to_string();
    assert_eq!(message, "bias: need one tensor, since the score has this term, got none");
    let inputs = Inputs::new(&q, &k, &v).tensor("slopes", &[1.0]);
    let message = gpu().run::<f32, f32, f32>(shape, &inputs, &Causal, Outputs::default());
    let message = message.unwrap_err().to_string();
    assert_eq!(message, "slopes: need none, since the score has no such term, got a tensor");
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
    let mut bindings = AttentionBuffers::new(q, k, v, out).lse(lse);
    let plan = gpu().kernels().attention(shape, &Causal).unwrap();
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
        |b| b.tensors.push(("bias", buffers.small.as_entire_buffer_binding())),
        "bias: need none, since the score has no such term, got a tensor",
    );
}

#[test]
fn a_device_that_is_too_small_is_refused() {
    let few = wgpu::Limits { max_storage_buffers_per_shader_stage: 4, ..wgpu::Limits::default() };
    let kernels = Kernels::new(&device(few).0, Options::default()).unwrap();
    let shape = AttentionShape::new(1, 1, 64, 16);
    let message = kernels.attention(shape, &Causal).unwrap_err().to_string();
    assert!(message.ends_with(" needs 5, but max_storage_buffers_per_shader_stage is 4"), "{message}");

    // Of three terms with tensors beside (m, l), which parts leave: one more than every device has.
    let bias = BiasStrides::broadcast([1, 1, 64, 64]);
    let many = shape.score(Score::new().with(Temperature).alibi().bias(bias));
    let least = wgpu::Limits::default().max_storage_buffers_per_shader_stage;
    let kernels = Kernels::new(&device(wgpu::Limits::default()).0, Options::default()).unwrap();
    let message = kernels.attention(&many, &Strided::new(8).unwrap()).unwrap_err().to_string();
    let want = format!(" needs 9, but max_storage_buffers_per_shader_stage is {least}");
    assert!(message.ends_with(&want), "{message}");
    assert!(kernels.attention(many, &Causal).is_ok(), "8 are there");

    let narrow = wgpu::Limits { max_storage_buffer_binding_size: 1024, ..wgpu::Limits::default() };
    let (device, queue) = device(narrow);
    let gpu = Gpu::with_device(adapter().get_info(), device, queue, Options::default()).unwrap();
    let shape = AttentionShape::new(1, 1, 64, 16);
    let [q, k, v] = tensors(shape);
    let message = gpu.attention::<f32, f32, f32>(shape, &q, &k, &v, &Causal).unwrap_err().to_string();
    assert_eq!(message, "q needs 4096, but max_storage_buffer_binding_size is 1024");
}
