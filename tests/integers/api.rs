//! As a wgpu user meets it: buffers with poison around them, and bad input one by one.

use crate::{drawn, normal};
use wgpu_attention::reference::layer;
use wgpu_attention::{
    Combine, ElementType, Error, Gpu, IntegerBuffers, IntegerFormat, IntegerMatmulBuffers,
    IntegerMatmulShape, IntegerOutput, IntegerType, KernelPath, MatmulBuffers, MatmulShape, Options,
    QuantizeRule, QuantizeShape, Quantized, ScaleGroups, WeightOrder,
};
use wgpu_attention_testing::{POISON, gpu, gpu_with, read, storage};

/// Words of poison before and behind a tensor.
const GUARD: usize = 64;

/// A tensor of words between guards.
struct Guarded {
    buffer: wgpu::Buffer,
    len: usize,
}

impl Guarded {
    fn new(words: &[u32]) -> Self {
        let mut all = vec![f32::from_bits(POISON); words.len() + 2 * GUARD];
        all[GUARD..][..words.len()].iter_mut().zip(words).for_each(|(to, &word)| *to = f32::from_bits(word));
        Self { buffer: storage(gpu().device(), &all), len: words.len() }
    }

    /// To be written.
    fn out(len: usize) -> Self {
        Self::new(&vec![POISON; len])
    }

    fn numbers(values: &[f32]) -> Self {
        Self::new(bytemuck::cast_slice(values))
    }

    fn binding(&self) -> wgpu::BufferBinding<'_> {
        let size = wgpu::BufferSize::new(4 * self.len as u64);
        wgpu::BufferBinding { buffer: &self.buffer, offset: 4 * GUARD as u64, size }
    }

    /// The words, once all the poison around them is found untouched.
    fn take(&self) -> Vec<u32> {
        let all: Vec<u32> =
            read(gpu().device(), gpu().queue(), &self.buffer).into_iter().map(f32::to_bits).collect();
        let (before, rest) = all.split_at(GUARD);
        let (tensor, behind) = rest.split_at(self.len);
        assert!(before.iter().chain(behind).all(|&word| word == POISON), "written beside the tensor");
        tensor.to_vec()
    }
}

/// A tensor of integers on the device.
struct OnDevice([Guarded; 3], bool);

impl OnDevice {
    fn new(tensor: &Quantized) -> Self {
        let zero_points: &[u32] = bytemuck::cast_slice(&tensor.zero_points);
        let all = [Guarded::new(&tensor.words), Guarded::numbers(&tensor.scales), Guarded::new(zero_points)];
        Self(all, tensor.format.zero_points)
    }

    fn buffers(&self) -> IntegerBuffers<'_> {
        let [words, scales, zero_points] = &self.0;
        IntegerBuffers::new(words.binding())
            .scales(scales.binding())
            .zero_points(self.1.then(|| zero_points.binding()))
    }
}

fn submit(calls: &[wgpu_attention::Call]) {
    let mut encoder = gpu().device().create_command_encoder(&Default::default());
    calls.iter().for_each(|call| call.encode(&mut encoder));
    gpu().queue().submit([encoder.finish()]);
}

/// The words, scales and zero points of a quantisation whose scales are made.
fn dynamic() -> QuantizeShape {
    let format = IntegerFormat::new(IntegerType::U8).groups(ScaleGroups::Rows).zero_points(true);
    QuantizeShape::new(5, 37, format, QuantizeRule::Range)
}

/// Numbers become bytes, bytes a product, in one submission; nothing is written beside the tensors.
#[test]
fn a_layer_in_one_submission() {
    let (shape, columns) = (dynamic(), 7);
    let x = normal(1, shape.len_x());
    let w = drawn(2, IntegerFormat::new(IntegerType::I8), columns, 37);
    let (x_buffer, weight) = (Guarded::numbers(&x), OnDevice::new(&w));
    let made = OnDevice([shape.len_words(), 5, 5].map(Guarded::out), true);
    let quantize = gpu().kernels().quantize(&shape).unwrap();
    assert_eq!(quantize.shape(), &shape);
    let mut calls = vec![quantize.bind(x_buffer.binding(), made.buffers()).unwrap()];
    let product = IntegerMatmulShape::new(5, 37, columns, shape.format, w.format);
    let bytes = IntegerOutput::Requantized { element: IntegerType::U8, scale: 3.0, zero_point: 100 };
    let outputs = [IntegerOutput::Sums, product.output, bytes].map(|output| product.output(output));
    let outs = outputs.map(|shape| Guarded::out(shape.len_out()));
    for (shape, out) in outputs.iter().zip(&outs) {
        let sums = shape.output == IntegerOutput::Sums;
        let (a, b) = (made.buffers(), weight.buffers());
        let (a, b) = if sums { (a.scales(None), b.scales(None)) } else { (a, b) };
        let plan = gpu().kernels().integer_matmul(shape).unwrap();
        assert_eq!(plan.shape(), shape);
        calls.push(plan.bind(IntegerMatmulBuffers::new(a, b, out.binding())).unwrap());
    }
    submit(&calls);
    let [words, scales, zero_points] = made.0.each_ref().map(Guarded::take);
    let a = Quantized::new(
        shape.format,
        5,
        37,
        &shape.quantize(&x).unwrap().values(),
        scales.into_iter().map(f32::from_bits).collect(),
        bytemuck::cast_vec(zero_points),
    );
    let a = a.unwrap();
    assert_eq!(a.words, words);
    for (shape, out) in outputs.iter().zip(&outs) {
        let exact = layer::integer_matmul(shape, &a, &w, None).unwrap();
        let got: Vec<f64> = match shape.output {
            IntegerOutput::Sums => out.take().into_iter().map(|word| f64::from(word as i32)).collect(),
            IntegerOutput::Scaled(_) => {
                out.take().into_iter().map(|word| f32::from_bits(word).into()).collect()
            }
            IntegerOutput::Requantized { .. } => {
                let rows: Vec<u8> = out.take().iter().flat_map(|word| word.to_le_bytes()).collect();
                // Behind the 7th byte of a row there is a 0.
                assert!(rows.chunks(8).all(|row| row[7] == 0));
                rows.chunks(8).flat_map(|row| row[..7].iter().map(|&byte| byte.into())).collect()
            }
        };
        let found = exact.compare(got, 0.0);
        assert!(found.pass && found.unspecified == 0, "{shape:?}: {found}");
    }
}

#[test]
fn numbers_are_written_where_they_belong() {
    for (columns, inner) in [(3, 37), (5, 64)] {
        let tensor = drawn(3, IntegerFormat::new(IntegerType::I4).zero_points(true), columns, inner);
        let (on_device, out) = (OnDevice::new(&tensor), Guarded::out(columns * inner));
        let plan = gpu().kernels().dequantize(tensor.format, columns, inner, ElementType::F32).unwrap();
        submit(&[plan.bind(on_device.buffers(), out.binding()).unwrap()]);
        let exact = layer::dequantized(&tensor).unwrap();
        let found = exact.compare(out.take().into_iter().map(f32::from_bits), 0.0);
        assert!(found.pass, "{found}");
    }
}

/// The same plan with a residual, and what out held: integers change the loads alone.
#[test]
fn integers_go_with_every_end() {
    let format = IntegerFormat::new(IntegerType::I8).groups(ScaleGroups::Groups(32));
    let w = drawn(1, format, 12, 64);
    let (x, there) = (normal(2, 5 * 64), normal(3, 5 * 12));
    let weight = OnDevice::new(&w);
    for combine in [Combine::Add, Combine::AddInto, Combine::MultiplyInto] {
        let shape = MatmulShape::new(5, 64, 12).weights(WeightOrder::OutIn).integers(format).combine(combine);
        let (a, residual) = (Guarded::numbers(&x), Guarded::numbers(&there));
        let out = Guarded::numbers(&there);
        let buffers = MatmulBuffers::new(a.binding(), weight.0[0].binding(), out.binding())
            .scales(weight.0[1].binding())
            .residual((combine == Combine::Add).then(|| residual.binding()));
        submit(&[gpu().kernels().matmul(&shape).unwrap().bind(buffers).unwrap()]);
        let [a, other] = [&x, &there].map(|values| layer::Bounded::exact(values));
        let b = layer::dequantized(&w).unwrap();
        let inputs = layer::MatmulInputs { a: &a, b: &b, bias: None, other: Some(&other) };
        let found =
            layer::matmul(&shape, &inputs).unwrap().compare(out.take().into_iter().map(f32::from_bits), 0.0);
        assert!(found.pass, "{combine:?}: {found}");
    }
}

fn message<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.expect_err("an error").to_string()
}

#[test]
fn bad_products_are_named() {
    let format = IntegerFormat::new(IntegerType::I8).groups(ScaleGroups::Groups(32));
    let shape = MatmulShape::new(4, 64, 12).weights(WeightOrder::OutIn).integers(format);
    let plan = |shape: MatmulShape| message(gpu().kernels().matmul(&shape));
    for (message, words) in [
        (plan(shape.weights(WeightOrder::InOut)), "weights: need OutIn where B is of integers, got InOut"),
        (plan(shape.batch(2)), "batch: need 1 where B is of integers"),
        (plan(shape.b_strides(wgpu_attention::RowStrides::new(0, 64))), "b_strides: need none"),
        (plan(shape.integers(format.groups(ScaleGroups::Groups(48)))), "groups: need 32, 64 or 128"),
        (
            plan(shape.integers(format.groups(ScaleGroups::Groups(128)))),
            "groups: need a divisor of inner (64), got 128",
        ),
        (
            message(gpu().kernels().matmul(&shape).unwrap().backward()),
            "integers: need none where gradients are wanted",
        ),
    ] {
        assert!(message.starts_with(words), "{words}: {message}");
    }
    let cooperative =
        gpu_with(Options::default()).kernels().with_options(Options::default().path(KernelPath::Cooperative));
    let error = message(cooperative.unwrap().matmul(&shape));
    assert!(error.starts_with("integers: need none for cooperative matrices"), "{error}");

    let (a, out) = (Guarded::out(4 * 64), Guarded::out(4 * 12));
    let (words, scales, short) = (Guarded::out(12 * 16), Guarded::out(24), Guarded::out(23));
    let plan = gpu().kernels().matmul(&shape).unwrap();
    let buffers = || MatmulBuffers::new(a.binding(), words.binding(), out.binding()).scales(scales.binding());
    assert_eq!(plan.bind(buffers()).unwrap().dispatches(), 1);
    for (buffers, words) in [
        (buffers().scales(None), "scales: need a buffer, since the shape has one, got none"),
        (buffers().scales(short.binding()), "scales: need 96 bytes (24 elements of f32)"),
        (buffers().zero_points(scales.binding()), "zero_points: need none"),
        (buffers().b(scales.binding()), "b: need 768 bytes"),
        (buffers().out(scales.binding()), "out: need"),
    ] {
        let error = message(plan.bind(buffers));
        assert!(error.starts_with(words), "{words}: {error}");
    }
    let zeros = shape.integers(format.zero_points(true));
    let error = message(gpu().kernels().matmul(&zeros).unwrap().bind(buffers()));
    assert!(error.starts_with("zero_points: need a buffer"), "{error}");
    let numbers = MatmulShape::new(4, 64, 3);
    assert!(
        message(gpu().kernels().matmul(&numbers).unwrap().bind(buffers())).starts_with("scales: need none")
    );
}

#[test]
fn bad_quantisations_are_named() {
    let bytes = IntegerFormat::new(IntegerType::I8);
    let of = |format, rule| message(gpu().kernels().quantize(&QuantizeShape::new(4, 64, format, rule)));
    let unsigned = IntegerFormat::new(IntegerType::U8);
    for (message, words) in [
        (
            of(unsigned, QuantizeRule::Symmetric),
            "format.element: need a signed one for the rule Symmetric, got u8",
        ),
        (of(bytes.zero_points(true), QuantizeRule::Symmetric), "format.zero_points: need none"),
        (of(bytes.zero_points(true), QuantizeRule::Range), "format.element: need an unsigned one"),
        (of(unsigned, QuantizeRule::Range), "format.zero_points: need some"),
        (of(unsigned.zero_points(true), QuantizeRule::ReducedRange { bits: 9 }), "rule.bits: need 1 to 8"),
        (
            of(bytes.groups(ScaleGroups::Groups(128)), QuantizeRule::Symmetric),
            "groups: need a divisor of inner (64)",
        ),
    ] {
        assert!(message.starts_with(words), "{words}: {message}");
    }
    let shape = QuantizeShape::new(2, 3, bytes, QuantizeRule::Symmetric);
    let given = QuantizeShape::new(2, 3, bytes, QuantizeRule::Given);
    let x = [1.0f32; 6];
    for (message, words) in [
        (message(shape.quantize(&x[..5])), "x: need 6 elements, got 5"),
        (
            message(shape.quantize(&[1.0, 2.0, f32::NAN, 0.0, 0.0, 0.0])),
            "x: need finite numbers, got NaN at 2",
        ),
        (
            message(shape.quantize(&[1.0, 2.0, 3.0, f32::INFINITY, 0.0, 0.0])),
            "x: need finite numbers, got inf at 3",
        ),
        (message(given.quantize(&x)), "rule: need one that makes scales"),
        (message(shape.quantize_with(&x, vec![1.0; 2], vec![])), "rule: need Given"),
        (message(given.quantize_with(&x, vec![1.0; 3], vec![])), "scales: need 2 (rows of [2, 3]), got 3"),
        (
            message(given.quantize_with(&x, vec![1.0, f32::NAN], vec![])),
            "scales: need finite numbers above 0",
        ),
        (message(given.quantize_with(&x, vec![1.0; 2], vec![0])), "zero_points: need 0"),
        (message(gpu().quantize(&given, &x)), "rule: need one that makes scales"),
        (message(gpu().quantize_with(&shape, &x, vec![1.0; 2], vec![])), "rule: need Given"),
        (
            message(gpu().quantize_with(&given, &x, vec![f32::INFINITY; 2], vec![])),
            "scales: need finite numbers above 0",
        ),
        (message(gpu().quantize(&shape, &x[..5])), "x: need 6 elements"),
    ] {
        assert!(message.starts_with(words), "{words}: {message}");
    }
    let wide = dynamic();
    let mut range = vec![0.0f32; wide.len_x()];
    (range[0], range[1]) = (f32::MAX, f32::MIN);
    assert!(message(wide.quantize(&range)).starts_with("x: need numbers whose range is a number of f32"));

    let plan = gpu().kernels().quantize(&wide).unwrap();
    let (x, words, scales, zeros) =
        (Guarded::out(5 * 37), Guarded::out(50), Guarded::out(5), Guarded::out(5));
    let all = || IntegerBuffers::new(words.binding()).scales(scales.binding()).zero_points(zeros.binding());
    assert_eq!(plan.bind(x.binding(), all()).unwrap().dispatches(), 3);
    for (buffers, need) in [
        (all().words(scales.binding()), "words: need 200 bytes"),
        (all().scales(None), "scales: need a buffer"),
        (all().zero_points(None), "zero_points: need a buffer"),
        (all().zero_points(scales.binding()), "zero_points: need a buffer other than that of scales"),
        (all().words(x.binding()), "words: need a buffer other than that of x"),
    ] {
        let error = message(plan.bind(x.binding(), buffers));
        assert!(error.starts_with(need), "{need}: {error}");
    }
    let plan = gpu().kernels().dequantize(wide.format, 5, 37, ElementType::F32).unwrap();
    assert!(message(plan.bind(all(), words.binding())).starts_with("out: need"));
    let bad =
        message(gpu().kernels().dequantize(bytes.groups(ScaleGroups::Groups(7)), 5, 37, ElementType::F32));
    assert!(bad.starts_with("groups: need 32, 64 or 128 elements, got 7"), "{bad}");
}

#[test]
fn bad_products_of_integers_are_named() {
    let (bytes, tensor) =
        (IntegerFormat::new(IntegerType::I8), drawn(1, IntegerFormat::new(IntegerType::I8), 3, 8));
    let shape = IntegerMatmulShape::new(3, 8, 3, bytes, bytes);
    let sums = shape.output(IntegerOutput::Sums);
    let with = |format, rows| drawn(2, format, rows, 8);
    let float = |shape: &IntegerMatmulShape, a: &Quantized, bias: Option<&[f32]>| {
        message(gpu().integer_matmul::<f32>(shape, a, &tensor, bias))
    };
    for (message, words) in [
        (float(&shape, &with(bytes, 4), None), "a: need i8 rows [3, 8], got i8 rows [4, 8]"),
        (
            float(&shape, &with(bytes.zero_points(true), 3), None),
            "a: need i8 rows [3, 8], got i8 rows zero points",
        ),
        (float(&shape.bias(true), &tensor, None), "bias: need a tensor"),
        (float(&shape.bias(true), &tensor, Some(&[0.0; 2])), "bias: need 3 elements"),
        (float(&sums, &tensor, None), "output: need Scaled"),
        (message(gpu().integer_sums(&shape, &tensor, &tensor)), "output: need Sums"),
        (message(gpu().integer_requantized(&shape, &tensor, &tensor)), "output: need Requantized"),
        (
            message(gpu().integer_sums(
                &IntegerMatmulShape::new(3, 0, 3, bytes, bytes).output(sums.output),
                &tensor,
                &tensor,
            )),
            "inner: need at least 1",
        ),
    ] {
        assert!(message.starts_with(words), "{words}: {message}");
    }
    let weights = MatmulShape::new(3, 8, 3).weights(WeightOrder::OutIn);
    let product = |gpu: &Gpu, shape: MatmulShape| {
        message(gpu.quantized_matmul::<f32, f32, f32>(&shape, &[0.0; 24], &tensor, None))
    };
    assert!(product(gpu(), weights).starts_with("integers: need i8 rows in the shape, got none"));
    assert!(
        product(gpu(), weights.integers(bytes.zero_points(true)))
            .starts_with("weight: need i8 rows zero points [3, 8]")
    );
    assert!(product(gpu(), weights.integers(bytes).combine(Combine::Add)).starts_with("combine: need Store"));

    let on_device = OnDevice::new(&tensor);
    let out = Guarded::out(9);
    let plan = gpu().kernels().integer_matmul(&sums).unwrap();
    let bare = || on_device.buffers().scales(None);
    assert_eq!(plan.bind(IntegerMatmulBuffers::new(bare(), bare(), out.binding())).unwrap().dispatches(), 1);
    for (buffers, words) in [
        (IntegerMatmulBuffers::new(on_device.buffers(), bare(), out.binding()), "a.scales: need none"),
        (
            IntegerMatmulBuffers::new(bare(), bare().zero_points(out.binding()), out.binding()),
            "b.zero_points: need none",
        ),
        (
            IntegerMatmulBuffers::new(bare().words(on_device.0[1].binding()), bare(), out.binding()),
            "a: need 24 bytes",
        ),
        (IntegerMatmulBuffers::new(bare(), bare(), on_device.0[0].binding()), "out: need 36 bytes"),
        (IntegerMatmulBuffers::new(bare(), bare(), out.binding()).bias(out.binding()), "bias: need none"),
    ] {
        let error = message(plan.bind(buffers));
        assert!(error.starts_with(words), "{words}: {error}");
    }
    let none = IntegerMatmulShape::new(0, 8, 3, bytes, bytes).output(sums.output);
    let plan = gpu().kernels().integer_matmul(&none).unwrap();
    assert_eq!(plan.bind(IntegerMatmulBuffers::new(bare(), bare(), out.binding())).unwrap().dispatches(), 0);
}
