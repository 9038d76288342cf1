//! Gradients of norms and softmax against their bound, and where they can be counted.

use crate::Checked;
use crate::harness::{Guarded, Rows, gpu, kernels, normal, rounded, run, run_all, with};
use crate::rows::{judged, nothing, strided};
use wgpu_attention::reference::layer::backward::{self, NormGradients};
use wgpu_attention::reference::layer::{self, Bounded};
use wgpu_attention::{
    Combine, ElementType, Kernels, NormGradBuffers, NormKind, NormShape, RotaryBuffers, RotaryPairs,
    RotaryShape, RowGradients, SoftmaxShape,
};

use ElementType::{Bf16, F16, F32};

const KINDS: [NormKind; 2] = [NormKind::Layer, NormKind::Rms];

/// What a norm's gradients are computed from.
struct Given {
    x: Vec<f64>,
    weight: Vec<f64>,
    dout: Vec<f64>,
}

impl Given {
    /// Normal elements; `x` makes those of x.
    fn drawn(shape: &NormShape, gradients: &RowGradients, x: impl Fn(f64) -> f64) -> Self {
        let (rows, width) = (shape.rows, shape.width);
        Self {
            x: rounded(normal(11, 0, rows * width, F32).into_iter().map(x), shape.input),
            weight: normal(11, 1, width, shape.weight),
            dout: normal(11, 2, rows * width, gradients.dout),
        }
    }
}

/// dx, dweight and dbias of the kernels, the last empty without a bias; what is added to is `before`.
fn norm_of(
    kernels: &Kernels,
    shape: &NormShape,
    gradients: &RowGradients,
    given: &Given,
    before: &[f64],
) -> Result<[Vec<f64>; 3], String> {
    let (rows, width) = (shape.rows, shape.width);
    let spread = |row: Option<usize>, values: &[f64]| {
        let rows = strided(rows, width, row.unwrap_or(width));
        (rows, rows.spread(values))
    };
    let x = Guarded::new(&spread(shape.x_row, &given.x).1, shape.input);
    let weight = Guarded::new(&given.weight, shape.weight);
    let dout = Guarded::new(&spread(gradients.dout_row, &given.dout).1, gradients.dout);
    let (dx_rows, at_first) = match gradients.combine {
        Combine::AddInto => spread(gradients.dx_row, before),
        _ => spread(gradients.dx_row, &vec![f64::NAN; rows * width]),
    };
    let dx = Guarded::new(&at_first, gradients.dx);
    let at_first = if gradients.parameters == Combine::AddInto { 3.0 } else { f64::NAN };
    let [dweight, dbias] = [(); 2].map(|()| Guarded::new(&vec![at_first; width], F32));
    let buffers = NormGradBuffers::new(x.binding(), weight.binding(), dout.binding(), dx.binding())
        .dweight(dweight.binding())
        .dbias(shape.bias.then(|| dbias.binding()));
    let plan = kernels.norm(shape).and_then(|plan| plan.backward_with(*gradients));
    let call = plan.and_then(|plan| plan.bind(buffers)).map_err(|e| e.to_string())?;
    let parameters = Rows::contiguous(1, width);
    let mut outputs = vec![(&dx, dx_rows, gradients.dx), (&dweight, parameters, F32)];
    outputs.extend(shape.bias.then_some((&dbias, parameters, F32)));
    let mut got = run_all(&[&call], &outputs)?;
    got.resize(3, vec![]);
    Ok(got.try_into().expect("three tensors"))
}

fn expected(
    shape: &NormShape,
    gradients: &RowGradients,
    given: &Given,
    before: &[f64],
) -> Result<NormGradients, String> {
    let [x, weight, dout, before] = [&given.x[..], &given.weight, &given.dout, before].map(Bounded::exact);
    let before = (gradients.combine == Combine::AddInto).then_some(&before);
    let mut all =
        backward::norm_backward(shape, gradients, &x, &weight, &dout, before).map_err(|e| e.to_string())?;
    if gradients.parameters == Combine::AddInto {
        let there = Bounded::exact(&vec![3.0; shape.width]);
        for sum in [&mut all.dweight, &mut all.dbias] {
            *sum = layer::add(sum, &there, F32).map_err(|e| e.to_string())?;
        }
    }
    Ok(all)
}

/// Gradients of a norm, within the bound.
fn norm(
    kernels: &Kernels,
    shape: &NormShape,
    gradients: &RowGradients,
    x: impl Fn(f64) -> f64,
) -> Result<f64, String> {
    let given = Given::drawn(shape, gradients, x);
    let before = normal(11, 3, shape.rows * shape.width, F32);
    let got = norm_of(kernels, shape, gradients, &given, &before)?;
    let want = expected(shape, gradients, &given, &before)?;
    let mut worst = 0f64;
    let [dx, dweight, dbias] = got;
    for (name, got, want) in
        [("dx", dx, &want.dx), ("dweight", dweight, &want.dweight), ("dbias", dbias, &want.dbias)]
    {
        if name != "dbias" || shape.bias {
            worst = worst.max(judged(want.compare(got, 0.0), &(name, shape, gradients))?);
        }
    }
    Ok(worst)
}

/// Every row of dout counts once in dbias, and those of one row alone are found there: sums of whole numbers have no error.
fn counts(kernels: &Kernels, rows: usize, width: usize) -> Checked {
    let shape = NormShape::new(NormKind::Rms, rows, width, 1e-6).bias(true);
    let gradients = RowGradients::of_norm(&shape);
    // Rows of one value: z is that value's sign, but for eps.
    let x: Vec<f64> =
        (0..rows * width).map(|n| if (n / width).is_multiple_of(3) { -2.0 } else { 2.0 }).collect();
    let given = |dout: Vec<f64>| Given { x: x.clone(), weight: vec![1.0; width], dout };
    let [_, dweight, dbias] = norm_of(kernels, &shape, &gradients, &given(vec![1.0; rows * width]), &[])?;
    let negative = rows.div_ceil(3) as f64;
    for c in 0..width {
        if dbias[c] != rows as f64 {
            return Err(format!("{rows} rows: dbias[{c}] is {}", dbias[c]));
        }
        let want = rows as f64 - 2.0 * negative;
        if (dweight[c] - want).abs() > 1e-4 * rows as f64 + 1e-3 || dweight[c].is_nan() {
            return Err(format!("{rows} rows: dweight[{c}] is {}, not {want}", dweight[c]));
        }
    }
    // Each element of dout has a number of its own, which only its column shows.
    let column = |c: usize| (0..rows).map(move |r| ((r * 31 + c * 7) % 251) as f64);
    let dout = (0..rows * width).map(|n| ((n / width * 31 + n % width * 7) % 251) as f64).collect();
    let [_, _, dbias] = norm_of(kernels, &shape, &gradients, &given(dout), &[])?;
    match (0..width).find(|&c| dbias[c] != column(c).sum::<f64>()) {
        Some(c) => Err(format!("{rows} rows: dbias[{c}] is {}, not {}", dbias[c], column(c).sum::<f64>())),
        None => Ok(()),
    }
}

fn softmax(
    kernels: &Kernels,
    shape: &SoftmaxShape,
    gradients: &RowGradients,
    scale: f64,
) -> Result<f64, String> {
    let (rows, width) = (shape.rows, shape.width);
    let x = Bounded::exact(&normal(12, 0, rows * width, F32).iter().map(|x| x * scale).collect::<Vec<_>>());
    let contiguous = SoftmaxShape::new(rows, width);
    let y = rounded(layer::softmax(&contiguous, &x).map_err(|e| e.to_string())?.out, shape.output);
    let (dout, before) = (normal(12, 1, rows * width, gradients.dout), normal(12, 2, rows * width, F32));
    let add = gradients.combine == Combine::AddInto;
    let y_buffer =
        Guarded::new(&strided(rows, width, shape.out_row.unwrap_or(width)).spread(&y), shape.output);
    let dout_rows = strided(rows, width, gradients.dout_row.unwrap_or(width));
    let dout_buffer = Guarded::new(&dout_rows.spread(&dout), gradients.dout);
    let dx_rows = strided(rows, width, gradients.dx_row.unwrap_or(width));
    let dx = Guarded::new(&if add { dx_rows.spread(&before) } else { nothing(&dx_rows) }, gradients.dx);
    let plan = kernels.softmax(shape).and_then(|plan| plan.backward_with(*gradients));
    let call = plan.and_then(|plan| plan.bind(y_buffer.binding(), dout_buffer.binding(), dx.binding()));
    let got = run(&[&call.map_err(|e| e.to_string())?], &dx, dx_rows, gradients.dx)?;
    let [y, dout, before] = [y, dout, before].map(|values| Bounded::exact(&values));
    let want = backward::softmax_backward(shape, gradients, &y, &dout, add.then_some(&before));
    judged(want.map_err(|e| e.to_string())?.compare(got, 0.0), &(shape, gradients))
}

/// A turn and the gradient's turn are one another's inverse: what comes back is x, times cos^2 + sin^2 as they are stored.
fn turned_back(kernels: &Kernels, shape: &RotaryShape) -> Checked {
    let x = normal(13, 0, shape.len_x(), F32);
    let [cos, sin] = wgpu_attention::rotary_tables(shape.len, shape.rotary_dim, 10000.0);
    let [cos, sin] = [cos, sin].map(|table| table.into_iter().map(f64::from).collect::<Vec<_>>());
    let [x_, cos_, sin_] = [&x, &cos, &sin].map(|values| Guarded::new(values, F32));
    let rows = Rows::contiguous(1, x.len());
    let [between, back] = [(); 2].map(|()| Guarded::new(&nothing(&rows), F32));
    let plan = kernels.rotary(shape).map_err(|e| e.to_string())?;
    let there =
        plan.bind(RotaryBuffers::new(x_.binding(), cos_.binding(), sin_.binding(), between.binding()));
    let backward = plan.backward().map_err(|e| e.to_string())?;
    let calls = [
        there.map_err(|e| e.to_string())?,
        backward
            .bind(RotaryBuffers::new(between.binding(), cos_.binding(), sin_.binding(), back.binding()))
            .map_err(|e| e.to_string())?,
    ];
    let got = run(&[&calls[0], &calls[1]], &back, rows, F32)?;
    match got.iter().zip(&x).find(|(got, x)| got.is_nan() || (*got - *x).abs() > 1e-5 * (1.0 + x.abs())) {
        Some((got, x)) => Err(format!("{got} instead of {x}: {shape:?}")),
        None => Ok(()),
    }
}

/// A selection for the mutants.
pub(crate) fn selection(kernels: &Kernels) -> Checked {
    for kind in KINDS {
        for width in [7, 300] {
            let shape = NormShape::new(kind, 5, width, 1e-5).bias(true);
            let gradients = RowGradients::of_norm(&shape);
            let strided = gradients.dout_row(Some(width + 8)).dx_row(Some(width + 12));
            norm(kernels, &shape.x_row(Some(width + 4)), &strided, |x| x)?;
            let added = gradients.combine(Combine::AddInto).parameters(Combine::AddInto);
            norm(kernels, &shape, &added, |x| x + 3.0)?;
        }
    }
    far(kernels)?;
    for (rows, width) in [(1, 5), (255, 3), (257, 40), (700, 33)] {
        counts(kernels, rows, width)?;
    }
    for width in [5, 300] {
        let shape = SoftmaxShape::new(5, width);
        let gradients = RowGradients::of_softmax(&shape);
        let strided = gradients.dout_row(Some(width + 4)).dx_row(Some(width + 12));
        softmax(kernels, &shape.out_row(Some(width + 8)), &strided, 2.0)?;
        softmax(kernels, &shape, &gradients.combine(Combine::AddInto), 2.0)?;
    }
    for pairs in [RotaryPairs::HalfSplit, RotaryPairs::Interleaved] {
        turned_back(kernels, &RotaryShape::new(1, 2, 9, 12).rotary_dim(8).pairs(pairs))?;
    }
    Ok(())
}

/// Rows whose squares leave f32, whose mean is far above their spread, and rows with NaN.
fn far(kernels: &Kernels) -> Checked {
    for kind in KINDS {
        let shape = NormShape::new(kind, 3, 40, 1e-30).bias(true);
        let gradients = RowGradients::of_norm(&shape);
        for size in [1e-14, 1e24] {
            norm(kernels, &shape, &gradients, |x| x * size)?;
        }
        norm(kernels, &shape, &gradients, |x| x + 1000.0)?;
        // Longer than a block of a lane's sum.
        let long = NormShape::new(kind, 1, 9001, 1e-5);
        norm(kernels, &long, &RowGradients::of_norm(&long), |x| x)?;
        let mut given = Given::drawn(&shape, &gradients, |x| x);
        given.x[47] = f64::INFINITY;
        let [dx, dweight, dbias] = norm_of(kernels, &shape, &gradients, &given, &[])?;
        let fine = |row: &[f64]| row.iter().all(|x| x.is_finite());
        if !(dx[40..80].iter().all(|x| x.is_nan()) && fine(&dx[..40]) && fine(&dx[80..])) {
            return Err(format!("a row with infinity: dx is {dx:?}"));
        }
        if !(dweight.iter().all(|x| x.is_nan()) && fine(&dbias)) {
            return Err(format!("a row with infinity: dweight is {dweight:?}, dbias {dbias:?}"));
        }
    }
    Ok(())
}

#[test]
fn the_selection_passes() {
    selection(kernels()).unwrap();
}

#[test]
fn every_width_is_within_the_bound() {
    let mut worst = [0f64; 3];
    for width in [1, 2, 3, 4, 63, 64, 65, 255, 256, 257, 1030] {
        for (n, kind) in KINDS.into_iter().enumerate() {
            for offset in [0.0, 4.0] {
                let shape = NormShape::new(kind, 6, width, 1e-5).bias(offset == 0.0);
                let gradients = RowGradients::of_norm(&shape);
                worst[n] = worst[n].max(norm(kernels(), &shape, &gradients, |x| x + offset).unwrap());
            }
        }
        let shape = SoftmaxShape::new(6, width);
        for scale in [1.0, 20.0] {
            let gradients = RowGradients::of_softmax(&shape);
            worst[2] = worst[2].max(softmax(kernels(), &shape, &gradients, scale).unwrap());
        }
    }
    println!(
        "worst error/bound: layer norm {:.3}, RMS norm {:.3}, softmax {:.3}",
        worst[0], worst[1], worst[2]
    );
}

#[test]
fn rows_of_any_number_are_summed() {
    for rows in [1, 7, 8, 256, 257, 512, 65537] {
        counts(kernels(), rows, if rows > 1000 { 5 } else { 36 }).unwrap();
    }
}

#[test]
fn every_element_type_is_within_the_bound() {
    for (input, dout, dx) in [(F16, F16, F16), (Bf16, Bf16, Bf16), (F32, F16, Bf16), (Bf16, F32, F32)] {
        for width in [9, 72] {
            let shape = NormShape::new(NormKind::Layer, 7, width, 1e-5).bias(true).input(input).weight(dout);
            let gradients = RowGradients::of_norm(&shape).dout(dout).dx(dx);
            norm(kernels(), &shape, &gradients, |x| x + 0.5).unwrap();
            let shape = SoftmaxShape::new(7, width).output(input);
            softmax(kernels(), &shape, &RowGradients::of_softmax(&shape).dout(dout).dx(dx), 3.0).unwrap();
        }
    }
}

#[test]
fn slices_are_as_buffers() {
    let shape = NormShape::new(NormKind::Layer, 6, 20, 1e-5).bias(true);
    let gradients = RowGradients::of_norm(&shape);
    let given = Given::drawn(&shape, &gradients, |x| x);
    let f32s = |values: &[f64]| values.iter().map(|&x| x as f32).collect::<Vec<f32>>();
    let (x, weight, dout) = (f32s(&given.x), f32s(&given.weight), f32s(&given.dout));
    let got = gpu().norm_backward::<_, _, _, f32>(&shape, &x, &weight, &dout).unwrap();
    let want = norm_of(kernels(), &shape, &gradients, &given, &[]).unwrap();
    assert_eq!((got.dx, got.dweight), (f32s(&want[0]), f32s(&want[1])));
    assert_eq!(got.dbias, Some(f32s(&want[2])));
    let none =
        gpu().norm_backward::<f32, f32, f32, f32>(&with(shape, |s| s.rows = 0), &[], &weight, &[]).unwrap();
    assert_eq!((none.dx.len(), none.dweight), (0, vec![0.0; 20]));
    let y: Vec<f32> = gpu().softmax(&SoftmaxShape::new(6, 20), &x).unwrap();
    let dx: Vec<f32> = gpu().softmax_backward(&SoftmaxShape::new(6, 20), &y, &dout).unwrap();
    // What is added to all of x changes nothing.
    assert!(dx.chunks(20).all(|row| row.iter().sum::<f32>().abs() < 1e-6));
    assert!(gpu().softmax_backward::<f32, f32, f32>(&SoftmaxShape::new(6, 20), &y[1..], &dout).is_err());
}

#[test]
fn no_rows_give_parameters_gradients_of_zero() {
    let shape = with(NormShape::new(NormKind::Layer, 4, 6, 1e-5).bias(true), |shape| shape.rows = 0);
    let given = Given { x: vec![], weight: vec![1.0; 6], dout: vec![] };
    let gradients = RowGradients::of_norm(&shape);
    let [_, dweight, dbias] = norm_of(kernels(), &shape, &gradients, &given, &[]).unwrap();
    assert_eq!((dweight, dbias), (vec![0.0; 6], vec![0.0; 6]));
    let added = gradients.parameters(Combine::AddInto);
    let [_, dweight, dbias] = norm_of(kernels(), &shape, &added, &given, &[]).unwrap();
    assert_eq!((dweight, dbias), (vec![3.0; 6], vec![3.0; 6]));
}

#[test]
fn bad_input_is_named() {
    let shape = NormShape::new(NormKind::Layer, 4, 8, 1e-5);
    let gradients = RowGradients::of_norm(&shape);
    let plan = |gradients: RowGradients| kernels().norm(&shape).unwrap().backward_with(gradients);
    for (gradients, words) in [
        (gradients.dx(F16).combine(Combine::AddInto), "dx: need f32 where it is added to, got f16"),
        (gradients.combine(Combine::Add), "combine: need Store or AddInto, got Add"),
        (gradients.parameters(Combine::MultiplyInto), "parameters: need Store or AddInto"),
        (gradients.dx_row(Some(7)), "dx_row: need rows of 8 elements that do not overlap"),
    ] {
        let message = plan(gradients).unwrap_err().to_string();
        assert!(message.contains(words), "{words}: {message}");
    }
    let [x, weight, dout, dx] = [32, 8, 32, 32].map(|len| Guarded::new(&vec![0.0; len], F32));
    let buffers = || NormGradBuffers::new(x.binding(), weight.binding(), dout.binding(), dx.binding());
    let plan = plan(gradients).unwrap();
    assert!(plan.bind(buffers()).is_ok());
    let message = |buffers| plan.bind(buffers).unwrap_err().to_string();
    assert!(message(buffers().dout(weight.binding())).starts_with("dout: need 128 bytes"));
    assert!(message(buffers().dbias(weight.binding())).starts_with("dbias: need none"));
    assert!(message(buffers().dx(x.binding())).starts_with("dx: need a buffer other than"));
    assert!(message(buffers().dweight(dout.binding())).starts_with("dweight: need a buffer other than"));
    let softmax = kernels().softmax(&SoftmaxShape::new(4, 8)).unwrap();
    assert!(softmax.backward_with(gradients.combine(Combine::Add)).is_err());
    let softmax = softmax.backward().unwrap();
    let message = softmax.bind(x.binding(), weight.binding(), dx.binding()).unwrap_err().to_string();
    assert!(message.starts_with("dout: need 128 bytes"), "{message}");
}
