use crate::Checked;
use crate::harness::{Guarded, Rows, kernels, normal, run, with};
use wgpu_attention::reference::layer::{self, Bounded, Comparison};
use wgpu_attention::{
    AddShape, Combine, ElementType, EmbedShape, Kernels, NormBuffers, NormKind, NormShape, RowStrides,
    SoftmaxShape, sinusoidal_positions,
};

use ElementType::{Bf16, F16, F32};

const KINDS: [NormKind; 2] = [NormKind::Layer, NormKind::Rms];
const WIDTHS: [usize; 16] = [1, 2, 3, 4, 5, 7, 8, 63, 64, 65, 127, 128, 255, 256, 257, 1030];

pub(crate) fn judged(found: Comparison, case: &dyn std::fmt::Debug) -> Result<f64, String> {
    if found.pass {
        Ok(found.worst.map_or(0.0, |worst| worst.ratio))
    } else {
        Err(format!("{found}\n{case:?}"))
    }
}

pub(crate) fn strided(rows: usize, width: usize, row: usize) -> Rows {
    Rows { strides: RowStrides::new(0, row as isize), batch: 1, rows, width }
}

pub(crate) fn nothing(rows: &Rows) -> Vec<f64> {
    rows.spread(&vec![f64::NAN; rows.rows * rows.width])
}

/// Rows that are normalised within the bound; `offset` is added to all of x.
pub(crate) fn norm(kernels: &Kernels, shape: &NormShape, offset: f64) -> Result<f64, String> {
    let (rows, width) = (shape.rows, shape.width);
    let x =
        crate::harness::rounded(normal(1, 0, rows * width, F32).into_iter().map(|x| x + offset), shape.input);
    let (weight, bias) = (normal(1, 1, width, shape.weight), normal(1, 2, width, shape.weight));
    let x_rows = strided(rows, width, shape.stride_of_x());
    let out_rows = strided(rows, width, shape.stride_of_out());
    let (x_buffer, w_buffer) =
        (Guarded::new(&x_rows.spread(&x), shape.input), Guarded::new(&weight, shape.weight));
    let b_buffer = shape.bias.then(|| Guarded::new(&bias, shape.weight));
    let out = Guarded::new(&nothing(&out_rows), shape.output);
    let buffers = NormBuffers::new(x_buffer.binding(), w_buffer.binding(), out.binding())
        .bias(b_buffer.as_ref().map(Guarded::binding));
    let call = kernels.norm(shape).and_then(|plan| plan.bind(buffers)).map_err(|e| e.to_string())?;
    let got = run(&[&call, &call], &out, out_rows, shape.output)?;
    let (x, weight, bias) = (Bounded::exact(&x), Bounded::exact(&weight), Bounded::exact(&bias));
    let expected = layer::norm(shape, &x, &weight, shape.bias.then_some(&bias)).map_err(|e| e.to_string())?;
    judged(expected.compare(got, 0.0), shape)
}

pub(crate) fn softmax(kernels: &Kernels, shape: &SoftmaxShape, scale: f64) -> Result<f64, String> {
    let (rows, width) = (shape.rows, shape.width);
    let x = normal(2, 0, rows * width, F32).into_iter().map(|x| x * scale);
    let x = crate::harness::rounded(x, shape.input);
    let x_rows = strided(rows, width, shape.stride_of_x());
    let out_rows = strided(rows, width, shape.stride_of_out());
    let x_buffer = Guarded::new(&x_rows.spread(&x), shape.input);
    let out = Guarded::new(&nothing(&out_rows), shape.output);
    let plan = kernels.softmax(shape).map_err(|e| e.to_string())?;
    let call = plan.bind(x_buffer.binding(), out.binding()).map_err(|e| e.to_string())?;
    let got = run(&[&call], &out, out_rows, shape.output)?;
    let expected = layer::softmax(shape, &Bounded::exact(&x)).map_err(|e| e.to_string())?;
    judged(expected.compare(got, 0.0), shape)
}

/// Equal elements: every element is exactly 1 / n, whose sum misses none, for n a power of two.
fn count(kernels: &Kernels, width: usize) -> Checked {
    let rows = Rows::contiguous(3, width);
    let x = Guarded::new(&vec![-5.5; 3 * width], F32);
    let out = Guarded::new(&nothing(&rows), F32);
    let plan = kernels.softmax(&SoftmaxShape::new(3, width)).map_err(|e| e.to_string())?;
    let call = plan.bind(x.binding(), out.binding()).map_err(|e| e.to_string())?;
    let got = run(&[&call], &out, rows, F32)?;
    // exp(0) and a division by a whole number: 3 ULP and 2.5 ULP.
    let want = 1.0 / width as f64;
    match got.iter().find(|&&y| y.is_nan() || (y - want).abs() > 10.0 * f64::from(f32::EPSILON) * want) {
        Some(y) => Err(format!("{y} instead of 1 / {width}")),
        None => Ok(()),
    }
}

pub(crate) fn add(kernels: &Kernels, shape: &AddShape) -> Result<f64, String> {
    let rows = Rows::contiguous(shape.rows, shape.width);
    let (x, other) = (normal(3, 0, shape.len(), shape.input), normal(3, 1, shape.len(), shape.other));
    let (x_buffer, other_buffer) = (Guarded::new(&x, shape.input), Guarded::new(&other, shape.other));
    let plan = kernels.add(shape).map_err(|e| e.to_string())?;
    let (out, call) = if shape.in_place {
        let call = plan.bind_in_place(x_buffer.binding(), other_buffer.binding());
        (x_buffer, call.map_err(|e| e.to_string())?)
    } else {
        let out = Guarded::new(&nothing(&rows), shape.output);
        let call = plan.bind(x_buffer.binding(), other_buffer.binding(), out.binding());
        let call = call.map_err(|e| e.to_string())?;
        (out, call)
    };
    let got = run(&[&call], &out, rows, shape.output)?;
    let sign = if shape.subtract { -1.0 } else { 1.0 };
    let other: Vec<f64> = other.iter().map(|x| sign * x).collect();
    let expected = layer::add(&Bounded::exact(&x), &Bounded::exact(&other), shape.output);
    judged(expected.map_err(|e| e.to_string())?.compare(got, 0.0), shape)
}

/// Lookups, some of them past the table's end.
pub(crate) fn embed(kernels: &Kernels, shape: &EmbedShape) -> Result<f64, String> {
    let strides = RowStrides::new(0, shape.stride_of_out() as isize).offset(shape.out_at);
    let rows = Rows { strides, batch: 1, rows: shape.rows, width: shape.width };
    let (table, before) =
        (normal(4, 0, shape.len_table(), shape.table), normal(4, 1, shape.rows * shape.width, shape.output));
    let ids: Vec<u32> = (0..shape.rows as u32).map(|n| n * 7 % (shape.table_rows as u32 + 2)).collect();
    let into = shape.combine == Combine::AddInto;
    let (ids_buffer, table_buffer) = (Guarded::integers(&ids), Guarded::new(&table, shape.table));
    let out = Guarded::new(&if into { rows.spread(&before) } else { nothing(&rows) }, shape.output);
    let plan = kernels.embed(shape).map_err(|e| e.to_string())?;
    let call =
        plan.bind(ids_buffer.binding(), table_buffer.binding(), out.binding()).map_err(|e| e.to_string())?;
    let got = run(&[&call], &out, rows, shape.output)?;
    let before = Bounded::exact(&before);
    let expected = layer::embed(shape, &ids, &Bounded::exact(&table), into.then_some(&before));
    judged(expected.map_err(|e| e.to_string())?.compare(got, 0.0), shape)
}

/// A selection for the mutants.
pub(crate) fn selection(kernels: &Kernels) -> Checked {
    for kind in KINDS {
        for width in [7, 300] {
            let shape = NormShape::new(kind, 5, width, 1e-5).bias(true);
            norm(kernels, &shape.x_row(Some(width + 4)).out_row(Some(width + 8)), 0.0)?;
            norm(kernels, &shape.bias(false), 3.0)?;
        }
        norm(kernels, &NormShape::new(kind, 5, 8, 0.5), 0.0)?;
    }
    for width in [5, 64, 512] {
        count(kernels, width)?;
        softmax(kernels, &SoftmaxShape::new(5, width).x_row(Some(width + 4)).out_row(Some(width + 8)), 40.0)?;
        softmax(kernels, &SoftmaxShape::new(5, width), 1.0)?;
        add(kernels, &AddShape::new(31, width))?;
        add(kernels, &AddShape::new(31, width).subtract(true))?;
        add(kernels, &AddShape::new(31, width).in_place(true))?;
        embed(kernels, &EmbedShape::new(31, 9, width))?;
        embed(kernels, &EmbedShape::new(31, 9, width).combine(Combine::AddInto))?;
        embed(kernels, &EmbedShape::new(31, 9, width).out_at(width + 3).out_row(Some(2 * width + 4)))?;
    }
    Ok(())
}

#[test]
fn the_selection_passes() {
    selection(kernels()).unwrap();
}

#[test]
fn every_width_is_within_the_bound() {
    let mut worst = [0f64; 4];
    for width in WIDTHS {
        for (n, kind) in KINDS.into_iter().enumerate() {
            for offset in [0.0, 4.0] {
                let shape = NormShape::new(kind, 6, width, 1e-5).bias(offset == 0.0);
                worst[n] = worst[n].max(norm(kernels(), &shape, offset).unwrap());
            }
        }
        for scale in [1.0, 30.0] {
            worst[2] = worst[2].max(softmax(kernels(), &SoftmaxShape::new(6, width), scale).unwrap());
        }
        count(kernels(), width).unwrap();
        worst[3] = worst[3].max(add(kernels(), &AddShape::new(6, width)).unwrap());
        embed(kernels(), &EmbedShape::new(6, 9, width)).unwrap();
    }
    println!(
        "worst error/bound: layer norm {:.3}, RMS norm {:.3}, softmax {:.3}, addition {:.3}",
        worst[0], worst[1], worst[2], worst[3]
    );
}

#[test]
fn every_element_type_is_within_the_bound() {
    for (input, other, output) in
        [(F16, F16, F16), (Bf16, Bf16, Bf16), (F32, F16, Bf16), (Bf16, F32, F32), (F16, F32, F16)]
    {
        for width in [9, 72] {
            let shape = NormShape::new(NormKind::Layer, 7, width, 1e-5).bias(true);
            norm(kernels(), &shape.input(input).weight(other).output(output), 0.5).unwrap();
            softmax(kernels(), &SoftmaxShape::new(7, width).input(input).output(output), 3.0).unwrap();
            let sum = AddShape::new(7, width).input(input).other(other).output(output);
            add(kernels(), &sum).unwrap();
            add(kernels(), &sum.subtract(true)).unwrap();
            add(kernels(), &AddShape::new(7, width).other(other).subtract(true).in_place(true)).unwrap();
            embed(kernels(), &EmbedShape::new(7, 5, width).table(input).output(output)).unwrap();
        }
    }
}

#[test]
fn rows_of_one_value_normalise_to_the_bias() {
    // Variance 0: only eps keeps the inverse root finite.
    norm(kernels(), &NormShape::new(NormKind::Layer, 3, 1, 1e-12).bias(true), 0.0).unwrap();
}

#[test]
fn sinusoids_follow_the_formula() {
    let (len, width) = (300, 10);
    let table = sinusoidal_positions(len, width);
    for t in 0..len {
        for k in 0..width / 2 {
            let angle = t as f64 / 10000f64.powf(2.0 * k as f64 / width as f64);
            assert_eq!(table[t * width + 2 * k], angle.sin() as f32);
            assert_eq!(table[t * width + 2 * k + 1], angle.cos() as f32);
        }
    }
}

#[test]
fn bad_input_is_named() {
    let k = kernels();
    let norm = |shape: NormShape| k.norm(&shape).unwrap_err().to_string();
    let shape = NormShape::new(NormKind::Layer, 4, 8, 1e-5);
    for (message, words) in [
        (norm(with(shape, |shape| shape.eps = 0.0)), "eps: need a normal number above 0, got 0"),
        (norm(with(shape, |shape| shape.width = 0)), "width: need at least 1"),
        (norm(shape.out_row(Some(7))), "out_row: need rows of 8 elements that do not overlap"),
        (norm(with(shape, |shape| shape.rows = 1 << 31)), "rows x width needs"),
        (k.softmax(&SoftmaxShape::new(1, 0)).unwrap_err().to_string(), "width"),
        (k.add(&AddShape::new(1, 0)).unwrap_err().to_string(), "width"),
        (
            k.add(&AddShape::new(1, 4).in_place(true).input(F16)).unwrap_err().to_string(),
            "input: need f32 where x is overwritten",
        ),
        (k.embed(&EmbedShape::new(1, 0, 4)).unwrap_err().to_string(), "table_rows"),
        (
            k.embed(&EmbedShape::new(1, 1, 4).combine(Combine::Add)).unwrap_err().to_string(),
            "combine: need Store or",
        ),
        (
            k.embed(&EmbedShape::new(1, 1, 4).combine(Combine::AddInto).output(F16)).unwrap_err().to_string(),
            "output: need f32",
        ),
    ] {
        assert!(message.contains(words), "{words}: {message}");
    }
    let [x, weight, out] = [32, 8, 32].map(|len| Guarded::new(&vec![0.0; len], F32));
    let buffers = || NormBuffers::new(x.binding(), weight.binding(), out.binding());
    let plan = k.norm(&shape).unwrap();
    assert!(plan.bind(buffers()).is_ok());
    let message = |buffers| plan.bind(buffers).unwrap_err().to_string();
    assert!(message(buffers().x(weight.binding())).starts_with("x: need 128 bytes"));
    assert!(message(buffers().bias(Some(weight.binding()))).starts_with("bias: need none"));
    assert!(message(buffers().out(x.binding())).starts_with("out: need a buffer other than"));
    let plan = k.norm(&with(shape, |shape| shape.rows = 0)).unwrap();
    assert_eq!(plan.bind(buffers()).unwrap().dispatches(), 0);

    let [apart, in_place] = [false, true].map(|place| k.add(&AddShape::new(4, 8).in_place(place)).unwrap());
    let message = |call: wgpu_attention::Result<_>| call.map(drop).unwrap_err().to_string();
    let all = [&x, &x, &out].map(Guarded::binding);
    let [first, second, third] = all;
    assert!(message(in_place.bind(first.clone(), second.clone(), third)).starts_with("in_place: need false"));
    assert!(message(apart.bind_in_place(out.binding(), first.clone())).starts_with("in_place: need true"));
    assert!(message(in_place.bind_in_place(first, second)).starts_with("x: need a buffer other than"));
    assert!(message(in_place.bind_in_place(out.binding(), weight.binding())).starts_with("other: need 128"));
}
