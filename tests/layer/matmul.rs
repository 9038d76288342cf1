use crate::Checked;
use crate::harness::{Guarded, Rows, gpu, kernels, normal, rounded, run};
use wgpu_attention::reference::layer::{Bounded, MatmulInputs, activation as activation_of, matmul};
use wgpu_attention::wgsl::{MatmulTile, StagedProduct};
use wgpu_attention::{
    AOrder, Activation, Combine, ElementType, Error, Kernels, MatmulBuffers, MatmulShape, Options,
    RowStrides, WeightOrder,
};
use wgpu_attention_testing::combinations;

use ElementType::{Bf16, F16, F32};

const ORDERS: [WeightOrder; 2] = [WeightOrder::InOut, WeightOrder::OutIn];
/// Of A and B.
const BOTH: [(AOrder, WeightOrder); 4] = [
    (AOrder::RowsInner, WeightOrder::InOut),
    (AOrder::RowsInner, WeightOrder::OutIn),
    (AOrder::InnerRows, WeightOrder::InOut),
    (AOrder::InnerRows, WeightOrder::OutIn),
];
const TILES: [MatmulTile; 4] = [MatmulTile::SMALL, MatmulTile::MEDIUM, MatmulTile::LARGE, MatmulTile::DIRECT];

/// The contiguous tensors of a product.
struct Data {
    a: Vec<f64>,
    b: Vec<f64>,
    bias: Vec<f64>,
    other: Vec<f64>,
}

impl Data {
    fn normal(shape: &MatmulShape, seed: u64) -> Self {
        let [a, b, out] = sizes(shape);
        Self {
            a: normal(seed, 0, a, shape.input),
            b: normal(seed, 1, b, shape.weight),
            bias: normal(seed, 2, shape.columns, shape.weight),
            other: normal(seed, 3, out, shape.output),
        }
    }
}

/// Contiguous elements of A, of B and of C.
fn sizes(shape: &MatmulShape) -> [usize; 3] {
    let MatmulShape { batch, rows, inner, columns, .. } = *shape;
    let shared = shape.b_strides.is_some_and(|strides| strides.batch == 0);
    [batch * rows * inner, if shared { 1 } else { batch } * inner * columns, batch * rows * columns]
}

fn rows_of(shape: &MatmulShape) -> [Rows; 4] {
    let MatmulShape { batch, rows, inner, columns, .. } = *shape;
    let (a_rows, a_width) = if shape.a_order == AOrder::RowsInner { (rows, inner) } else { (inner, rows) };
    let (b_rows, b_width) =
        if shape.weights == WeightOrder::InOut { (inner, columns) } else { (columns, inner) };
    let b = shape.strides_of_b();
    let b_batch = if b.batch == 0 { 1 } else { batch };
    [
        Rows { strides: shape.strides_of_a(), batch, rows: a_rows, width: a_width },
        Rows { strides: b, batch: b_batch, rows: b_rows, width: b_width },
        Rows { strides: shape.strides_of_residual(), batch, rows, width: columns },
        Rows { strides: shape.strides_of_out(), batch, rows, width: columns },
    ]
}

/// Two batch items, with gaps between them in A, in B and in C: what reads past k, or writes past the last row, meets poison.
pub(crate) fn apart(shape: MatmulShape) -> MatmulShape {
    let gap =
        |strides: RowStrides, rows: usize| RowStrides::new(strides.row * (rows as isize + 9), strides.row);
    let shape = shape.batch(2).bias(true);
    let a_rows = if shape.a_order == AOrder::RowsInner { shape.rows } else { shape.inner };
    let a = gap(shape.strides_of_a(), a_rows);
    let b_rows = if shape.weights == WeightOrder::InOut { shape.inner } else { shape.columns };
    let b = gap(shape.strides_of_b(), b_rows);
    shape.a_strides(a).b_strides(b).out_strides(gap(shape.strides_of_out(), shape.rows))
}

/// Runs a product; the result is contiguous.
fn product(
    kernels: &Kernels,
    shape: &MatmulShape,
    tile: MatmulTile,
    data: &Data,
    times: usize,
) -> Result<Vec<f64>, String> {
    let [a_rows, b_rows, residual_rows, out_rows] = rows_of(shape);
    let a = Guarded::new(&a_rows.spread(&data.a), shape.input);
    let b = Guarded::new(&b_rows.spread(&data.b), shape.weight);
    let bias = shape.bias.then(|| Guarded::new(&data.bias, shape.weight));
    let add = shape.combine == Combine::Add;
    let residual = add.then(|| Guarded::new(&residual_rows.spread(&data.other), shape.output));
    let into = matches!(shape.combine, Combine::AddInto | Combine::MultiplyInto);
    let nothing = vec![f64::NAN; data.other.len()];
    let before = out_rows.spread(if into { &data.other } else { &nothing });
    let out = Guarded::new(&before, shape.output);
    let plan = kernels.matmul_with_tile(shape, tile).map_err(|e| format!("{e}: {shape:?}"))?;
    let buffers = MatmulBuffers::new(a.binding(), b.binding(), out.binding())
        .bias(bias.as_ref().map(Guarded::binding))
        .residual(residual.as_ref().map(Guarded::binding));
    let call = plan.bind(buffers).map_err(|e| format!("{e}: {shape:?}"))?;
    run(&vec![&call; times], &out, out_rows, shape.output)
}

/// Random tensors: every element within its bound. Returns the worst error / bound.
pub(crate) fn bound(kernels: &Kernels, shape: &MatmulShape, tile: MatmulTile) -> Result<f64, String> {
    let data = Data::normal(shape, 7);
    let got = product(kernels, shape, tile, &data, 1)?;
    let [a_rows, b_rows, residual_rows, out_rows] = rows_of(shape);
    let other_rows = if shape.combine == Combine::Add { residual_rows } else { out_rows };
    let (a, b) = (Bounded::exact(&a_rows.spread(&data.a)), Bounded::exact(&b_rows.spread(&data.b)));
    let (bias, other) = (Bounded::exact(&data.bias), Bounded::exact(&other_rows.spread(&data.other)));
    let inputs = MatmulInputs {
        a: &a,
        b: &b,
        bias: shape.bias.then_some(&bias),
        other: (shape.combine != Combine::Store).then_some(&other),
    };
    let expected = matmul(shape, &inputs).map_err(|e| format!("{e}: {shape:?}"))?;
    let found = expected.compare(got, 0.0);
    if found.pass {
        Ok(found.worst.map_or(0.0, |w| w.ratio))
    } else {
        Err(format!("{found}\n{shape:?} {tile:?}"))
    }
}

/// Ones by ones: every element is exactly K, so no k is missed or counted twice.
pub(crate) fn ones(kernels: &Kernels, shape: &MatmulShape, tile: MatmulTile) -> Checked {
    let [a, b, out] = sizes(shape);
    let [bias, other] = [shape.columns, out].map(|len| vec![0.0; len]);
    let data = Data { a: vec![1.0; a], b: vec![1.0; b], bias, other };
    let got = product(kernels, shape, tile, &data, 1)?;
    match got.iter().position(|&x| x != shape.inner as f64) {
        Some(n) => Err(format!("element {n} is {} instead of {}: {shape:?} {tile:?}", got[n], shape.inner)),
        None => Ok(()),
    }
}

/// Each row of A addresses one row of B, which holds its own index: every element comes from the right place, exactly.
pub(crate) fn gather(kernels: &Kernels, shape: &MatmulShape, tile: MatmulTile) -> Checked {
    let MatmulShape { batch, rows, inner, columns, .. } = *shape;
    let [a_len, b_len, out_len] = sizes(shape);
    let chosen = |n: usize| (n * 7 + n / inner) % inner;
    // Small integers, exact in every type; neighbours in all directions differ.
    let value = |n: usize| (n * 37 % 251) as f64;
    let mut a = vec![0.0; a_len];
    (0..batch * rows).for_each(|n| {
        let (item, row) = (n / rows * rows * inner, n % rows);
        a[item
            + match shape.a_order {
                AOrder::RowsInner => row * inner + chosen(n),
                AOrder::InnerRows => chosen(n) * rows + row,
            }] = 1.0;
    });
    let data = Data { a, b: (0..b_len).map(value).collect(), bias: vec![], other: vec![0.0; out_len] };
    let got = product(kernels, shape, tile, &data, 1)?;
    for (n, &got) in got.iter().enumerate() {
        let (column, row) = (n % columns, n / columns);
        let item = row / rows * inner * columns;
        let k = chosen(row);
        let want = value(match shape.weights {
            WeightOrder::InOut => item + k * columns + column,
            WeightOrder::OutIn => item + column * inner + k,
        });
        if got != want {
            return Err(format!("row {row}, column {column}: {got} instead of {want}: {shape:?} {tile:?}"));
        }
    }
    Ok(())
}

/// Products of one element by 1: nothing but the activation and the rounding, so that the bound is that of these alone.
fn one_by_one(kernels: &Kernels) -> Checked {
    let shape = MatmulShape::new(400, 1, 1);
    let a: Vec<f64> = (0..400).map(|n| f64::from((n as f32 - 200.0) * 0.05)).collect();
    let data = Data { b: vec![1.0], bias: vec![], other: vec![0.0; 400], a: a.clone() };
    for activation in Activation::ALL {
        let got = product(kernels, &shape.activation(activation), MatmulTile::SMALL, &data, 1)?;
        let found = activation_of(activation, &Bounded::exact(&a)).stored(F32).compare(got, 0.0);
        if !found.pass {
            return Err(format!("{activation}: {found}"));
        }
    }
    // Bit arithmetic, hence exactly the nearest one, ties to even.
    let got = product(kernels, &shape.output(Bf16), MatmulTile::SMALL, &data, 1)?;
    if got != rounded(a, Bf16) {
        return Err("bf16 is not rounded to nearest even".into());
    }
    Ok(())
}

/// A that is stored [inner, rows]: the same bits as A itself gives, whatever the tile.
pub(crate) fn transposed_alike(kernels: &Kernels, shape: &MatmulShape, tile: MatmulTile) -> Checked {
    let data = Data::normal(shape, 11);
    let plain = product(kernels, shape, tile, &data, 1)?;
    let (rows, inner) = (shape.rows, shape.inner);
    let a = (0..data.a.len()).map(|n| {
        let (item, k, row) = (n / (rows * inner), n / rows % inner, n % rows);
        data.a[(item * rows + row) * inner + k]
    });
    let a = a.collect();
    let got = product(kernels, &shape.a_order(AOrder::InnerRows), tile, &Data { a, ..data }, 1)?;
    match got.iter().zip(&plain).position(|(a, b)| a.to_bits() != b.to_bits()) {
        Some(n) => Err(format!("element {n}: {} and not {}: {shape:?} {tile:?}", got[n], plain[n])),
        None => Ok(()),
    }
}

/// Of A stored [inner, rows], for the mutants.
fn transposed_selection(kernels: &Kernels) -> Checked {
    for (weights, tile) in ORDERS.into_iter().cycle().zip(TILES) {
        let shape = MatmulShape::new(70, 68, 132).a_order(AOrder::InnerRows).weights(weights);
        ones(kernels, &shape, tile)?;
        gather(kernels, &shape.batch(2), tile)?;
        let odd = MatmulShape::new(33, 37, 35).a_order(AOrder::InnerRows).weights(weights);
        bound(kernels, &apart(odd), tile)?;
        gather(kernels, &odd.batch(2).elements(F16), tile)?;
    }
    // K that is no multiple of 4 beside rows that are.
    bound(
        kernels,
        &apart(MatmulShape::new(36, 37, 36))
            .a_strides(RowStrides::new(52 * 39, 52))
            .a_order(AOrder::InnerRows),
        MatmulTile::DIRECT,
    )?;
    transposed_alike(kernels, &MatmulShape::new(40, 24, 36).batch(2), MatmulTile::SMALL)
}

/// A selection for the mutants, of every part of the kernel.
pub(crate) fn selection(kernels: &Kernels) -> Checked {
    for weights in ORDERS {
        for tile in [MatmulTile::SMALL, MatmulTile::MEDIUM, MatmulTile::DIRECT] {
            let shape = MatmulShape::new(70, 68, 132).weights(weights);
            ones(kernels, &shape, tile)?;
            gather(kernels, &shape.batch(2), tile)?;
        }
        bound(kernels, &apart(MatmulShape::new(33, 37, 36).weights(weights)), MatmulTile::DIRECT)?;
        // Several chunks of k, several tiles of columns.
        gather(kernels, &MatmulShape::new(40, 520, 260).weights(weights), MatmulTile::DIRECT)?;
        gather(
            kernels,
            &MatmulShape::new(9, 19, 7).batch(2).weights(weights).elements(F16),
            MatmulTile::SMALL,
        )?;
        gather(
            kernels,
            &MatmulShape::new(9, 19, 7).batch(2).weights(weights).elements(Bf16),
            MatmulTile::SMALL,
        )?;
    }
    transposed_selection(kernels)?;
    // Several panels of row tiles.
    gather(kernels, &MatmulShape::new(32 * 17 + 1, 4, 68), MatmulTile::SMALL)?;
    let padded = |width: isize| RowStrides::new(40 * (width + 4), width + 4);
    for combine in [Combine::Store, Combine::Add, Combine::AddInto, Combine::MultiplyInto] {
        let shape = MatmulShape::new(37, 24, 36).batch(2).bias(true).combine(combine);
        let shape = shape.a_strides(padded(24)).out_strides(padded(36)).residual_strides(padded(36));
        bound(kernels, &shape, MatmulTile::SMALL)?;
    }
    for activation in Activation::ALL {
        bound(kernels, &MatmulShape::new(33, 5, 40).activation(activation), MatmulTile::SMALL)?;
    }
    one_by_one(kernels)?;
    for element in [F16, Bf16] {
        bound(
            kernels,
            &MatmulShape::new(33, 20, 40).elements(element).combine(Combine::Add),
            MatmulTile::SMALL,
        )?;
        bound(
            kernels,
            &MatmulShape::new(5, 7, 9).elements(element).combine(Combine::Add),
            MatmulTile::SMALL,
        )?;
    }
    let shape = MatmulShape::new(37, 40, 36);
    let data = Data::normal(&shape, 1);
    let (one, two) =
        (product(kernels, &shape, TILES[0], &data, 1)?, product(kernels, &shape, TILES[0], &data, 2)?);
    if one != two { Err("the second call gives other bits".into()) } else { Ok(()) }
}

#[test]
fn the_selection_passes() {
    selection(kernels()).unwrap();
}

#[test]
fn every_size_is_within_the_bound() {
    let edges = [1, 2, 3, 4, 5, 7, 8, 31, 32, 33, 63, 64, 65, 67, 127, 128, 129, 130];
    let mut worst = 0f64;
    for (n, &size) in edges.iter().enumerate() {
        // Each size once in each place, beside others of all kinds.
        let [second, third] = [edges[(n + 5) % edges.len()], edges[(n + 11) % edges.len()]];
        for [order, tile] in combinations([BOTH.len(), TILES.len()]) {
            let ((a_order, weights), tile) = (BOTH[order], TILES[tile]);
            let shape = MatmulShape::new(size, second, third).a_order(a_order).weights(weights);
            let shape = shape.bias(n % 2 == 0);
            worst = worst.max(bound(kernels(), &shape, tile).unwrap());
            ones(kernels(), &shape, tile).unwrap();
        }
    }
    println!("matmul: worst error/bound {worst:.3}");
}

#[test]
fn every_element_type_is_within_the_bound() {
    let types = [F32, F16, Bf16];
    let forms = [
        (36, 40, 36, AOrder::InnerRows),
        (33, 40, 36, AOrder::RowsInner),
        (5, 7, 3, AOrder::InnerRows),
        (5, 7, 3, AOrder::RowsInner),
    ];
    for output in types {
        for [form, input, weight] in combinations([forms.len(), 3, 3]) {
            let (rows, inner, columns, a_order) = forms[form];
            let shape = MatmulShape::new(rows, inner, columns).a_order(a_order).batch(2).bias(true);
            let shape = shape.input(types[input]).weight(types[weight]).output(output).combine(Combine::Add);
            bound(kernels(), &shape, MatmulTile::SMALL).unwrap();
        }
    }
}

#[test]
fn a_transposed_gives_the_bits_of_a() {
    let shapes = [MatmulShape::new(70, 68, 132).batch(2), MatmulShape::new(33, 37, 35)];
    for [tile, shape] in combinations([TILES.len(), shapes.len()]) {
        transposed_alike(kernels(), &shapes[shape], TILES[tile]).unwrap();
    }
}

#[test]
fn activations_and_combinations_are_within_the_bound() {
    let activations: Vec<_> = Activation::ALL.map(Some).into_iter().chain([None]).collect();
    let combines = [Combine::Store, Combine::Add, Combine::AddInto, Combine::MultiplyInto];
    for [activation, combine] in combinations([activations.len(), combines.len()]) {
        let shape = MatmulShape::new(66, 36, 68).bias(true);
        let shape = shape.activation(activations[activation]).combine(combines[combine]);
        bound(kernels(), &shape, MatmulTile::MEDIUM).unwrap();
    }
}

#[test]
fn what_out_holds_in_16_bits_is_multiplied() {
    for [element, tile] in combinations([2, TILES.len()]) {
        let element = [F16, Bf16][element];
        for (rows, columns) in [(37, 36), (21, 7)] {
            let shape = MatmulShape::new(rows, 12, columns).combine(Combine::MultiplyInto).output(element);
            bound(kernels(), &shape, TILES[tile]).unwrap();
            // Odd rows share 32-bit words with their neighbours.
            let gaps = RowStrides::new(rows as isize * 41, 41);
            bound(kernels(), &shape.batch(2).input(element).out_strides(gaps), TILES[tile]).unwrap();
        }
    }
}

#[test]
fn strides_share_and_interleave() {
    // The rows of q in packed [rows, 3, columns], written there, one B for all batch items.
    let packed = RowStrides::new(3 * 40 * 20, 3 * 40);
    let shape = MatmulShape::new(20, 24, 40).batch(3).b_strides(RowStrides::new(0, 40)).out_strides(packed);
    for element in [F32, F16, Bf16] {
        bound(kernels(), &shape.elements(element), MatmulTile::SMALL).unwrap();
        // Odd rows share 32-bit words with their neighbours in 16 bits.
        let odd = MatmulShape::new(21, 5, 7).batch(2).out_strides(RowStrides::new(21 * 9, 9));
        bound(kernels(), &odd.elements(element), MatmulTile::SMALL).unwrap();
    }
}

#[test]
fn work_may_be_cut_into_dispatches() {
    let options = Options::default().dispatch_flops(1e5);
    let kernels = Kernels::new(gpu().device(), options).unwrap();
    gather(&kernels, &MatmulShape::new(150, 33, 140), MatmulTile::SMALL).unwrap();
}

#[test]
fn rows_without_nan_do_not_see_it() {
    let shape = MatmulShape::new(40, 20, 36);
    let mut data = Data::normal(&shape, 3);
    let clean = product(kernels(), &shape, MatmulTile::SMALL, &data, 1).unwrap();
    // Infinity: the harness takes NaN for a gap.
    data.a[13 * 20 + 5] = f64::INFINITY;
    let got = product(kernels(), &shape, MatmulTile::SMALL, &data, 1).unwrap();
    let others = |row: &usize| row / 36 != 13;
    assert!((0..got.len()).filter(others).all(|n| got[n] == clean[n]));
}

#[test]
fn nothing_to_do_writes_nothing() {
    for shape in [MatmulShape::new(0, 4, 4), MatmulShape::new(3, 4, 4).batch(0)] {
        let plan = kernels().matmul(&shape).unwrap();
        let buffer = Guarded::new(&[0.0; 16], F32);
        let out = Guarded::new(&[f64::NAN; 16], F32);
        let buffers = MatmulBuffers::new(buffer.binding(), buffer.binding(), out.binding());
        assert_eq!(plan.bind(buffers).unwrap().dispatches(), 0);
    }
}

#[test]
fn bad_input_is_named() {
    let message = |shape: MatmulShape| kernels().matmul(&shape).unwrap_err().to_string();
    let shape = MatmulShape::new(4, 8, 12);
    for (shape, words) in [
        (MatmulShape::new(4, 0, 12), "inner: need at least 1, got 0"),
        (MatmulShape::new(4, 8, 0), "columns: need at least 1, got 0"),
        (
            shape.out_strides(RowStrides::new(0, 11)),
            "out_strides: need rows of 12 elements that do not overlap",
        ),
        (shape.batch(2).out_strides(RowStrides::new(0, 12)), "out_strides"),
        (shape.combine(Combine::AddInto).output(F16), "output: need f32"),
        (MatmulShape::new(1 << 20, 1 << 13, 4), "a needs"),
        (MatmulShape::new(usize::MAX, usize::MAX, usize::MAX), "rows needs"),
        (shape.a_strides(RowStrides::new(0, isize::MAX)), "a_strides needs"),
        (shape.a_order(AOrder::InnerRows).a_strides(RowStrides::new(0, isize::MAX)), "a_strides needs"),
    ] {
        assert!(message(shape).contains(words), "{words}: {}", message(shape));
    }
    let bad_tile =
        MatmulTile::Staged(StagedProduct { lanes_r: 3, lanes_c: 8, tall: false, wide: false, chunk: 8 });
    assert!(kernels().matmul_with_tile(&shape, bad_tile).unwrap_err().to_string().contains("tile.lanes_r"));

    let plan = kernels().matmul(&shape).unwrap();
    let [a, b, out] = [32, 96, 48].map(|len| Guarded::new(&vec![0.0; len], F32));
    let buffers = || MatmulBuffers::new(a.binding(), b.binding(), out.binding());
    assert_eq!(plan.bind(buffers()).unwrap().dispatches(), 1);
    let argument = |buffers: MatmulBuffers<'_>| match plan.bind(buffers) {
        Err(Error::Argument { name, .. }) => name.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(argument(buffers().b(a.binding())), "b");
    assert_eq!(argument(buffers().bias(Some(a.binding()))), "bias");
    assert_eq!(argument(buffers().residual(Some(out.binding()))), "residual");
    assert_eq!(argument(buffers().out(b.binding())), "out");
    let shifted = wgpu::BufferBinding { offset: 4, ..a.binding() };
    assert_eq!(argument(buffers().a(shifted)), "a");
    let tall = MatmulShape::new(4, 8, 12).a_order(AOrder::InnerRows).a_strides(RowStrides::new(0, 5));
    assert_eq!(tall.len_a(), 7 * 5 + 4);
    let error = kernels().matmul(&tall).unwrap().bind(buffers()).unwrap_err().to_string();
    assert!(error.starts_with("a: need 156 bytes"), "{error}");
    let plan = kernels().matmul(&shape.bias(true).combine(Combine::Add)).unwrap();
    assert!(plan.bind(buffers()).unwrap_err().to_string().starts_with("bias: need a buffer"));
}
