//! Gradients of the matrix product, against f64 and its bound.

use crate::Checked;
use crate::harness::{Guarded, Rows, gpu, kernels, normal, run, run_all};
use wgpu_attention::reference::layer::backward::matmul_backward;
use wgpu_attention::reference::layer::{Bounded, MatmulInputs, matmul};
use wgpu_attention::{
    AOrder, Activation, Combine, ElementType, Error, Kernels, MatmulGradBuffers, MatmulShape, MatmulSlices,
    Options, RowStrides, WeightOrder,
};
use wgpu_attention_testing::combinations;

use ElementType::{Bf16, F16, F32};

const BOTH: [(AOrder, WeightOrder); 4] = [
    (AOrder::RowsInner, WeightOrder::InOut),
    (AOrder::RowsInner, WeightOrder::OutIn),
    (AOrder::InnerRows, WeightOrder::InOut),
    (AOrder::InnerRows, WeightOrder::OutIn),
];

/// The tensors as they lie in memory, gaps as NaN: a, b, bias, dout.
struct Data([Vec<f64>; 4]);

/// Rows of a, b and dout in memory; what all batch items share is there once.
fn rows_of(shape: &MatmulShape) -> [Rows; 3] {
    let MatmulShape { batch, rows, inner, columns, .. } = *shape;
    let a = if shape.a_order == AOrder::RowsInner { [rows, inner] } else { [inner, rows] };
    let b = if shape.weights == WeightOrder::InOut { [inner, columns] } else { [columns, inner] };
    let of = |strides: RowStrides, [rows, width]: [usize; 2]| {
        let batch = if strides.batch == 0 { 1 } else { batch };
        Rows { strides, batch, rows, width }
    };
    [of(shape.strides_of_a(), a), of(shape.strides_of_b(), b), of(shape.strides_of_out(), [rows, columns])]
}

impl Data {
    fn of(shape: &MatmulShape, value: impl Fn(u64, usize, ElementType) -> Vec<f64>) -> Self {
        let [a, b, dout] = rows_of(shape);
        let spread = |stream, rows: Rows, element| {
            rows.spread(&value(stream, rows.batch * rows.rows * rows.width, element))
        };
        let bias = value(2, shape.columns, shape.weight);
        Self([spread(0, a, shape.input), spread(1, b, shape.weight), bias, spread(3, dout, shape.output)])
    }

    fn normal(shape: &MatmulShape) -> Self {
        Self::of(shape, |stream, len, element| normal(31, stream, len, element))
    }

    /// Small integers, whose sums are exact.
    fn whole(shape: &MatmulShape) -> Self {
        Self::of(shape, |stream, len, _| {
            (0..len).map(|n| ((n * 37 + 11 * stream as usize) % 7) as f64 - 3.0).collect()
        })
    }

    fn exact(&self) -> [Bounded; 4] {
        [0, 1, 2, 3].map(|n| Bounded::exact(&self.0[n]))
    }
}

/// da, db and dbias (empty without one), computed `times` times over.
fn computed(
    kernels: &Kernels,
    shape: &MatmulShape,
    data: &Data,
    times: usize,
) -> Result<[Vec<f64>; 3], String> {
    let [a, b, bias, dout] = &data.0;
    let [a, b, bias, dout] = [
        Guarded::new(a, shape.input),
        Guarded::new(b, shape.weight),
        Guarded::new(bias, shape.weight),
        Guarded::new(dout, shape.output),
    ];
    let plan =
        kernels.matmul(shape).and_then(|plan| plan.backward()).map_err(|e| format!("{e}: {shape:?}"))?;
    let written = |len: usize| Guarded::new(&vec![-7.5; len], F32);
    let (da, db, dbias) = (written(plan.len_da()), written(plan.len_db()), written(shape.columns));
    let elements = plan.scratch_bytes() as usize / 4;
    let scratch = (elements > 0).then(|| Guarded::new(&vec![f64::NAN; elements], F32));
    let needs_bias = shape.bias && shape.activation.is_some();
    let buffers = MatmulGradBuffers::new(a.binding(), b.binding(), dout.binding())
        .bias(needs_bias.then(|| bias.binding()))
        .da(da.binding())
        .db(db.binding())
        .dbias(shape.bias.then(|| dbias.binding()))
        .scratch(scratch.as_ref().map(Guarded::binding));
    let call = plan.bind(buffers).map_err(|e| format!("{e}: {shape:?}"))?;
    let line = |len| Rows::contiguous(1, len);
    let mut outputs = vec![(&da, line(plan.len_da()), F32), (&db, line(plan.len_db()), F32)];
    outputs.extend(shape.bias.then_some((&dbias, line(shape.columns), F32)));
    outputs.extend(scratch.as_ref().map(|scratch| (scratch, line(elements), F32)));
    let mut found = run_all(&vec![&call; times], &outputs)?;
    found.truncate(2 + usize::from(shape.bias));
    found.resize(3, vec![]);
    Ok(found.try_into().expect("three"))
}

fn expected(shape: &MatmulShape, data: &Data) -> Result<[Bounded; 3], String> {
    let [a, b, bias, dout] = data.exact();
    let inputs = MatmulInputs { a: &a, b: &b, bias: shape.bias.then_some(&bias), other: None };
    let found = matmul_backward(shape, &inputs, &dout).map_err(|e| format!("{e}: {shape:?}"))?;
    Ok([found.da, found.db, found.dbias.unwrap_or_default()])
}

/// Every element within its bound. Returns the worst error / bound.
pub(crate) fn bound(kernels: &Kernels, shape: &MatmulShape) -> Result<f64, String> {
    let data = Data::normal(shape);
    let (got, want) = (computed(kernels, shape, &data, 1)?, expected(shape, &data)?);
    let mut worst = 0f64;
    for ((name, got), want) in ["da", "db", "dbias"].into_iter().zip(got).zip(want) {
        let found = want.compare(got, 0.0);
        if !found.pass {
            return Err(format!("{name}: {found}\n{shape:?}"));
        }
        worst = worst.max(found.worst.map_or(0.0, |it| it.ratio));
    }
    Ok(worst)
}

/// Integers: every term counts, once, and no other does.
fn whole(kernels: &Kernels, shape: &MatmulShape) -> Checked {
    let data = Data::whole(shape);
    let (got, want) = (computed(kernels, shape, &data, 1)?, expected(shape, &data)?);
    for ((name, got), want) in ["da", "db", "dbias"].into_iter().zip(got).zip(want) {
        if let Some(n) = (0..got.len()).find(|&n| got[n] != want.out[n]) {
            return Err(format!("{name}[{n}] is {} instead of {}: {shape:?}", got[n], want.out[n]));
        }
    }
    Ok(())
}

fn in_orders(shape: MatmulShape, (a_order, weights): (AOrder, WeightOrder)) -> MatmulShape {
    shape.a_order(a_order).weights(weights)
}

/// Shapes that all batch items share something of: B, then A; with gaps.
fn shared(order: (AOrder, WeightOrder)) -> [MatmulShape; 2] {
    let shape = in_orders(MatmulShape::new(33, 20, 36).batch(3).bias(true), order);
    let (a, b) = (shape.strides_of_a(), shape.strides_of_b());
    [shape.b_strides(RowStrides::new(0, b.row + 4)), shape.a_strides(RowStrides::new(0, a.row + 1))]
}

/// A selection for the mutants.
pub(crate) fn selection(kernels: &Kernels) -> Checked {
    for order in BOTH {
        whole(kernels, &in_orders(MatmulShape::new(70, 36, 40).batch(2).bias(true), order))?;
        whole(kernels, &in_orders(MatmulShape::new(33, 7, 5).bias(true), order))?;
        for shape in shared(order) {
            whole(kernels, &shape)?;
        }
    }
    let apart = RowStrides::new(10 * 15 + 3, 15);
    whole(kernels, &MatmulShape::new(10, 12, 12).batch(2).bias(true).out_strides(apart))?;
    for output in [F32, F16, Bf16] {
        let shape = MatmulShape::new(37, 12, 21).batch(2).bias(true).output(output);
        bound(kernels, &shape.activation(Activation::Silu))?;
    }
    Ok(())
}

#[test]
fn the_selection_passes() {
    selection(kernels()).unwrap();
}

#[test]
fn every_size_and_order_is_within_the_bound() {
    let edges = [1, 2, 3, 4, 5, 8, 31, 33, 64, 67, 130];
    let mut worst = 0f64;
    for [n, order] in combinations([edges.len(), BOTH.len()]) {
        let [second, third] = [edges[(n + 3) % edges.len()], edges[(n + 7) % edges.len()]];
        let shape = MatmulShape::new(edges[n], second, third).bias(n % 2 == 0);
        worst = worst.max(bound(kernels(), &in_orders(shape, BOTH[order])).unwrap());
    }
    // Rows past a block of the sums of columns.
    worst = worst.max(bound(kernels(), &MatmulShape::new(700, 4, 9).bias(true)).unwrap());
    println!("gradients of matmul: worst error/bound {worst:.3}");
}

#[test]
fn activations_types_and_combinations_are_within_the_bound() {
    let mut worst = 0f64;
    let activations: Vec<_> = Activation::ALL.map(Some).into_iter().chain([None]).collect();
    for [n, combine, order] in combinations([activations.len(), 3, BOTH.len()]) {
        let combine = [Combine::Store, Combine::Add, Combine::AddInto][combine];
        let shape = MatmulShape::new(34, 20, 23).bias(n % 2 == 0).activation(activations[n]).combine(combine);
        worst = worst.max(bound(kernels(), &in_orders(shape, BOTH[order])).unwrap());
    }
    let types = [(F16, F16, F16), (Bf16, Bf16, Bf16), (F16, F32, Bf16), (F32, Bf16, F16)];
    for [n, odd, activation, order] in combinations([types.len(), 4, activations.len(), BOTH.len()]) {
        let (input, weight, output) = types[n];
        let shape = MatmulShape::new(33, 12 + odd % 2, 20 + odd / 2).batch(2).bias(true);
        let shape = shape.activation(activations[activation]).input(input).weight(weight).output(output);
        worst = worst.max(bound(kernels(), &in_orders(shape, BOTH[order])).unwrap());
    }
    println!("gradients of matmul: worst error/bound {worst:.3}");
}

#[test]
fn what_all_batch_items_share_gets_the_sum() {
    for order in BOTH {
        for shape in shared(order) {
            bound(kernels(), &shape.activation(Activation::Tanh)).unwrap();
        }
    }
    // Both, and a C whose rows lie apart.
    let strides = RowStrides::new(0, 12);
    let shape = MatmulShape::new(10, 12, 12).batch(2).a_strides(strides).b_strides(strides).bias(true);
    whole(kernels(), &shape.out_strides(RowStrides::new(10 * 15 + 3, 15))).unwrap();
}

#[test]
fn the_reference_is_the_derivative() {
    let shape = in_orders(MatmulShape::new(3, 4, 5).batch(2).bias(true), BOTH[3]);
    let shape = shape.b_strides(RowStrides::new(0, 4)).activation(Activation::GeluErf);
    let data = Data::normal(&shape);
    let loss = |data: &Data| {
        let [a, b, bias, dout] = data.exact();
        let inputs = MatmulInputs { a: &a, b: &b, bias: Some(&bias), other: None };
        let out = matmul(&shape, &inputs).unwrap().out;
        out.iter().zip(&dout.out).map(|(x, d)| x * d).sum::<f64>()
    };
    for (tensor, gradient) in expected(&shape, &data).unwrap().into_iter().enumerate() {
        for n in 0..gradient.out.len() {
            let moved = |step: f64| {
                let mut data = Data(data.0.clone());
                data.0[tensor][n] += step;
                loss(&data)
            };
            let difference = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            let found = gradient.out[n];
            assert!((found - difference).abs() < 1e-7, "tensor {tensor}, {n}: {found} and {difference}");
        }
    }
}

#[test]
fn the_same_call_gives_the_same_bits() {
    let shape = shared(BOTH[0])[0].activation(Activation::Silu);
    let data = Data::normal(&shape);
    let (one, two) =
        (computed(kernels(), &shape, &data, 1).unwrap(), computed(kernels(), &shape, &data, 2).unwrap());
    assert!(one.iter().flatten().map(|x| x.to_bits()).eq(two.iter().flatten().map(|x| x.to_bits())));
}

#[test]
fn work_may_be_cut_into_dispatches() {
    let kernels = Kernels::new(gpu().device(), Options::default().dispatch_flops(1e4)).unwrap();
    whole(&kernels, &MatmulShape::new(700, 20, 70).bias(true)).unwrap();
}

#[test]
fn nothing_gives_gradients_of_zero() {
    let shape = MatmulShape::new(0, 3, 5).bias(true).activation(Activation::Relu);
    let plan = kernels().matmul(&shape).unwrap().backward().unwrap();
    let some = Guarded::new(&[0.0; 16], F32);
    let (db, dbias) = (Guarded::new(&[-7.5; 15], F32), Guarded::new(&[-7.5; 5], F32));
    let buffers = MatmulGradBuffers::new(some.binding(), some.binding(), some.binding())
        .bias(some.binding())
        .db(db.binding())
        .dbias(dbias.binding());
    let call = plan.bind(buffers).unwrap();
    let outputs = [(&db, Rows::contiguous(1, 15), F32), (&dbias, Rows::contiguous(1, 5), F32)];
    assert_eq!(run_all(&[&call], &outputs).unwrap(), [vec![0.0; 15], vec![0.0; 5]]);
}

#[test]
fn gradients_that_are_not_asked_for_are_not_computed() {
    let shape = MatmulShape::new(9, 8, 12).bias(true).activation(Activation::Tanh);
    let data = Data::normal(&shape);
    let all = computed(kernels(), &shape, &data, 1).unwrap();
    let [a, b, bias, dout] = [0, 1, 2, 3].map(|n| Guarded::new(&data.0[n], F32));
    let plan = kernels().matmul(&shape).unwrap().backward().unwrap();
    let none = || MatmulGradBuffers::new(a.binding(), b.binding(), dout.binding()).bias(bias.binding());
    assert_eq!(plan.bind(none()).unwrap().dispatches(), 0);
    for (n, want) in all.iter().enumerate() {
        let out = Guarded::new(&vec![-7.5; want.len()], F32);
        let buffers = match n {
            0 => none().da(out.binding()),
            1 => none().db(out.binding()),
            _ => none().dbias(out.binding()),
        };
        let call = plan.bind(buffers).unwrap();
        assert_eq!(call.dispatches(), 3);
        assert_eq!(&run(&[&call], &out, Rows::contiguous(1, want.len()), F32).unwrap(), want);
    }
}

#[test]
fn bad_input_is_named() {
    let shape = MatmulShape::new(4, 8, 12);
    let message = |shape: MatmulShape| kernels().matmul(&shape).unwrap().backward().unwrap_err().to_string();
    let got = message(shape.combine(Combine::MultiplyInto));
    assert!(got.starts_with("combine: need Store, Add or AddInto"), "{got}");
    let got = message(shape.activation(Activation::Relu).out_strides(RowStrides::new(0, 13)));
    assert!(got.starts_with("out_strides: need contiguous rows"), "{got}");

    let plan = kernels().matmul(&shape).unwrap().backward().unwrap();
    let [a, b, dout, da, db] = [32, 96, 48, 32, 96].map(|len| Guarded::new(&vec![0.0; len], F32));
    let buffers =
        || MatmulGradBuffers::new(a.binding(), b.binding(), dout.binding()).da(da.binding()).db(db.binding());
    let argument = |buffers: MatmulGradBuffers<'_>| match plan.bind(buffers) {
        Err(Error::Argument { name, .. }) => name.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(plan.bind(buffers()).unwrap().dispatches(), 2);
    assert_eq!(argument(buffers().dout(a.binding())), "dout");
    assert_eq!(argument(buffers().da(a.binding())), "da");
    assert_eq!(argument(buffers().db(da.binding())), "db");
    assert_eq!(argument(buffers().dbias(da.binding())), "dbias");
    assert_eq!(argument(buffers().bias(da.binding())), "bias");
    assert_eq!(argument(buffers().scratch(b.binding())), "scratch");
    let plan = kernels().matmul(&shape.bias(true).activation(Activation::Silu)).unwrap().backward().unwrap();
    assert!(plan.bind(buffers()).unwrap_err().to_string().starts_with("bias: need a buffer"));
    assert_eq!(plan.scratch_bytes(), 4 * 48);
}

#[test]
fn slices() {
    let shape = MatmulShape::new(2, 2, 1).bias(true).activation(Activation::Relu);
    let (a, b, bias) = ([1.0f32, 2.0, 3.0, -4.0], [1.0f32, 1.0], [0.5f32]);
    // S = [3.5, -0.5].
    let slices = MatmulSlices::new(&a, &b).bias(Some(&bias[..]));
    let found = gpu().matmul_backward(&shape, slices, &[2.0f32, 5.0]).unwrap();
    assert_eq!(
        (found.da, found.db, found.dbias),
        (vec![2.0, 2.0, 0.0, 0.0], vec![2.0, 4.0], Some(vec![2.0]))
    );
    let none =
        gpu().matmul_backward(&MatmulShape::new(0, 2, 1), MatmulSlices::new(&[0f32; 0], &b), &[0f32; 0]);
    let none = none.unwrap();
    assert_eq!((none.da, none.db), (vec![], vec![0.0, 0.0]));
    let error = gpu().matmul_backward(&shape, slices.other(&bias[..]), &[2.0f32, 5.0]).unwrap_err();
    assert!(error.to_string().starts_with("other: need none"), "{error}");
}
