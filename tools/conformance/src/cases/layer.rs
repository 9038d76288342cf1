//! Cases of the kernels around attention, over contiguous tensors.

use anyhow::{Result, ensure};
use wgpu_attention::ElementType::{self, Bf16, F16, F32};
use wgpu_attention::reference::layer::{self, Bounded, FeedForwardInputs, MatmulInputs};
use wgpu_attention::wgsl::MatmulTile;
use wgpu_attention::{
    Activation, AddShape, Call, Combine, EmbedShape, Error, FeedForwardBuffers, FeedForwardShape, KernelPath,
    MatmulBuffers, MatmulPlan, MatmulShape, NormBuffers, NormKind, NormShape, Options, RotaryBuffers,
    RotaryPairs, RotaryShape, SoftmaxShape, WeightOrder, rotary_tables,
};

use crate::bench::{Bench, NotHere};
use crate::cases::{Case, Run, Set};
use crate::tensor::{Tensor, normal};

/// Input and output, each type on both sides; the first three are in the small set.
const TYPES: [(ElementType, ElementType); 5] =
    [(F32, F32), (F16, F16), (Bf16, Bf16), (F16, F32), (F32, Bf16)];

/// What the names of those have that are in the smallest set too.
const TINY: [&str; 4] = ["33 x 7 x 5, InOut", "37 rows", "width 300", "Interleaved"];

/// Its operands are f16.
const COOPERATIVE: &str = "matrix product, cooperative";

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (n, (input, output)) in TYPES.into_iter().enumerate() {
        let mut add = |kernel, small: bool, name: String, run: Run| {
            let name = format!("{name} -> {output}");
            let set = match Set::small_if(small && n < 3) {
                Set::Small
                    if (n == 0 || kernel == COOPERATIVE) && TINY.iter().any(|it| name.contains(it)) =>
                {
                    Set::Tiny
                }
                set => set,
            };
            cases.push(Case { kernel, element: input, name, set, run });
        };
        // What is added to while it is written must be f32.
        let can = |combine| output == F32 || combine != Combine::AddInto;
        for (small, name, shape, by) in products().into_iter().filter(|product| can(product.2.combine)) {
            let shape = shape.input(input).weight(input).output(output);
            let row = match by {
                By::Cooperative if input != ElementType::F16 => continue,
                By::Cooperative => COOPERATIVE,
                By::Tile(MatmulTile::DIRECT) => "matrix product, direct",
                By::Tile(_) => "matrix product",
            };
            add(row, small, name, Box::new(move |bench| matmul(bench, &shape, by)));
        }
        for gated in [false, true] {
            let shape = FeedForwardShape::new(37, 24, 40, Activation::GeluErf).gated(gated).bias(true);
            let shape = shape.residual(!gated).chunk(Some(16)).input(input).weight(input).output(output);
            let name = format!("37 rows in chunks of 16, gated {gated}");
            add("feed-forward", gated, name, Box::new(move |bench| feed_forward(bench, &shape)));
            if (input, output) == (F16, F16) {
                let (shape, name) =
                    (shape.hidden(F16), format!("37 rows in chunks of 16, gated {gated}, hidden f16"));
                add("feed-forward", gated, name, Box::new(move |bench| feed_forward(bench, &shape)));
            }
        }
        for width in [7, 300] {
            for kind in [NormKind::Layer, NormKind::Rms] {
                let shape = NormShape::new(kind, 33, width, 1e-5).bias(kind == NormKind::Layer);
                let shape = shape.input(input).weight(input).output(output);
                let small = width == 300;
                add(
                    "norm",
                    small,
                    format!("{kind:?}, width {width}"),
                    Box::new(move |bench| norm(bench, &shape)),
                );
            }
            let shape = SoftmaxShape::new(33, width).input(input).output(output);
            add(
                "softmax",
                width == 300,
                format!("width {width}"),
                Box::new(move |bench| softmax(bench, &shape)),
            );
            let shape = AddShape::new(33, width).input(input).other(output).output(output);
            add(
                "residual",
                width == 300,
                format!("width {width}"),
                Box::new(move |bench| residual(bench, &shape)),
            );
            if can(Combine::AddInto) {
                let shape = AddShape::new(33, width).other(input).subtract(true).in_place(true);
                let name = format!("width {width}, subtracted in place");
                add("residual", width == 300, name, Box::new(move |bench| residual(bench, &shape)));
            }
            for combine in [Combine::Store, Combine::AddInto].into_iter().filter(|&combine| can(combine)) {
                let shape = EmbedShape::new(33, 9, width).combine(combine).table(input).output(output);
                let name = format!("width {width}, {combine:?}");
                add("embedding", width == 300, name, Box::new(move |bench| embed(bench, &shape)));
            }
        }
        for pairs in [RotaryPairs::HalfSplit, RotaryPairs::Interleaved] {
            let shape =
                RotaryShape::new(2, 3, 21, 16).pairs(pairs).rotary_dim(12).input(input).output(output);
            add("rotary", true, format!("{pairs:?}"), Box::new(move |bench| rotary(bench, &shape)));
        }
    }
    cases
}

/// What computes a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Tile(MatmulTile),
    /// The tile that the cooperative path chooses.
    Cooperative,
}

/// Every tile, order of weights, activation and way to combine.
fn products() -> Vec<(bool, String, MatmulShape, By)> {
    let mut list = vec![];
    for weights in [WeightOrder::InOut, WeightOrder::OutIn] {
        for tile in [MatmulTile::LARGE, MatmulTile::MEDIUM, MatmulTile::SMALL] {
            let shape = MatmulShape::new(130, 68, 132).weights(weights);
            let small = tile == MatmulTile::MEDIUM;
            let name = format!("130 x 68 x 132, {weights:?}, {} rows", tile.rows());
            list.push((small, name, shape, By::Tile(tile)));
        }
        let odd = MatmulShape::new(33, 7, 5).weights(weights).bias(true).combine(Combine::Add);
        for by in [By::Tile(MatmulTile::SMALL), By::Tile(MatmulTile::DIRECT), By::Cooperative] {
            list.push((true, format!("33 x 7 x 5, {weights:?}, bias, residual"), odd, by));
        }
        for by in [By::Tile(MatmulTile::DIRECT), By::Cooperative] {
            let shape = MatmulShape::new(130, 68, 132).weights(weights);
            list.push((false, format!("130 x 68 x 132, {weights:?}"), shape, by));
        }
    }
    for (activation, combine) in [
        (Activation::Relu, Combine::AddInto),
        (Activation::GeluErf, Combine::MultiplyInto),
        (Activation::GeluTanh, Combine::AddInto),
        (Activation::Silu, Combine::MultiplyInto),
    ] {
        let shape = MatmulShape::new(33, 20, 12).activation(activation).combine(combine);
        list.push((false, format!("{activation:?}, {combine:?}"), shape, By::Tile(MatmulTile::SMALL)));
    }
    list
}

/// Runs a call, and compares what it leaves in `out`.
fn compare(bench: &Bench, call: &Call, out: &Tensor, expected: &Bounded) -> Result<f64> {
    let bytes = bench.run(|encoder| call.encode(encoder), &[&out.buffer])?;
    let found = expected.compare(out.values(&bytes[0])?, 0.0);
    ensure!(found.pass, "{found}");
    Ok(found.worst.map_or(0.0, |worst| worst.ratio))
}

fn matmul(bench: &Bench, shape: &MatmulShape, by: By) -> Result<f64> {
    let plan = planned(bench, shape, by)?;
    let [a, b] =
        [(1, shape.len_a()), (2, shape.len_b())].map(|(stream, len)| normal(stream, len, shape.input));
    let bias = normal(3, shape.columns, shape.weight);
    let other = normal(4, shape.len_out(), shape.output);
    let into = matches!(shape.combine, Combine::AddInto | Combine::MultiplyInto);
    let out = match into {
        true => Tensor::of(bench, &other, shape.output),
        false => Tensor::output(bench, shape.len_out(), shape.output),
    };
    let (a_tensor, b_tensor) = (Tensor::of(bench, &a, shape.input), Tensor::of(bench, &b, shape.weight));
    let bias_tensor = shape.bias.then(|| Tensor::of(bench, &bias, shape.weight));
    let residual = (shape.combine == Combine::Add).then(|| Tensor::of(bench, &other, shape.output));
    let buffers = MatmulBuffers::new(a_tensor.binding(), b_tensor.binding(), out.binding())
        .bias(bias_tensor.as_ref().map(Tensor::binding))
        .residual(residual.as_ref().map(Tensor::binding));
    let call = plan.bind(buffers)?;
    let [a, b, bias, other] = [a, b, bias, other].map(|values| Bounded::exact(&values));
    let inputs = MatmulInputs {
        a: &a,
        b: &b,
        bias: shape.bias.then_some(&bias),
        other: (shape.combine != Combine::Store).then_some(&other),
    };
    compare(bench, &call, &out, &layer::matmul(shape, &inputs)?)
}

fn planned(bench: &Bench, shape: &MatmulShape, by: By) -> Result<MatmulPlan> {
    Ok(match by {
        By::Tile(tile) => {
            if tile == MatmulTile::DIRECT {
                bench.compiles_direct_tiles()?;
            }
            let plan = bench.kernels().matmul_with_tile(shape, tile);
            ensure!(
                !matches!(plan, Err(Error::Limit { .. })),
                NotHere("the tile is too large for the device")
            );
            plan?
        }
        By::Cooperative => {
            bench.has_matrices()?;
            bench.with(Options::default().path(KernelPath::Cooperative))?.kernels().matmul(shape)?
        }
    })
}

fn feed_forward(bench: &Bench, shape: &FeedForwardShape) -> Result<f64> {
    let scaled = |stream, fan: usize| {
        let values = normal(stream, shape.len_weight(), F32).into_iter().map(|x| x / (fan as f64).sqrt());
        values.map(|x| f64::from(half::bf16::from_f64(x))).collect::<Vec<_>>() // exact in every type
    };
    let values = [
        normal(1, shape.len_x(), shape.input),
        scaled(2, shape.model_dim),
        normal(3, shape.hidden_dim, shape.weight),
        scaled(4, shape.model_dim),
        normal(5, shape.hidden_dim, shape.weight),
        scaled(6, shape.hidden_dim),
        normal(7, shape.model_dim, shape.weight),
        normal(8, shape.len_x(), shape.output),
    ];
    let tensor = |n: usize| {
        let element = match n {
            0 => shape.input,
            7 => shape.output,
            _ => shape.weight,
        };
        Tensor::of(bench, &values[n], element)
    };
    let tensors: Vec<Tensor> = (0..8).map(tensor).collect();
    let when = |wanted: bool, n: usize| wanted.then(|| tensors[n].binding());
    let out = Tensor::output(bench, shape.len_x(), shape.output);
    let buffers = FeedForwardBuffers::new(
        tensors[0].binding(),
        tensors[1].binding(),
        tensors[5].binding(),
        out.binding(),
    )
    .b1(when(shape.bias, 2))
    .w3(when(shape.gated, 3))
    .b3(when(shape.gated && shape.bias, 4))
    .b2(when(shape.bias, 6))
    .residual(when(shape.residual, 7));
    let call = bench.kernels().feed_forward(shape)?.bind(buffers)?;
    let [x, w1, b1, w3, b3, w2, b2, residual] = values.map(|values| Bounded::exact(&values));
    let inputs = FeedForwardInputs {
        x: &x,
        w1: &w1,
        b1: shape.bias.then_some(&b1),
        w3: shape.gated.then_some(&w3),
        b3: (shape.gated && shape.bias).then_some(&b3),
        w2: &w2,
        b2: shape.bias.then_some(&b2),
        residual: shape.residual.then_some(&residual),
    };
    compare(bench, &call, &out, &layer::feed_forward(shape, &inputs)?)
}

fn norm(bench: &Bench, shape: &NormShape) -> Result<f64> {
    let x = normal(1, shape.len_x(), shape.input);
    let (weight, bias) = (normal(2, shape.width, shape.weight), normal(3, shape.width, shape.weight));
    let (x_tensor, w_tensor) = (Tensor::of(bench, &x, shape.input), Tensor::of(bench, &weight, shape.weight));
    let b_tensor = shape.bias.then(|| Tensor::of(bench, &bias, shape.weight));
    let out = Tensor::output(bench, shape.len_out(), shape.output);
    let buffers = NormBuffers::new(x_tensor.binding(), w_tensor.binding(), out.binding())
        .bias(b_tensor.as_ref().map(Tensor::binding));
    let call = bench.kernels().norm(shape)?.bind(buffers)?;
    let [x, weight, bias] = [x, weight, bias].map(|values| Bounded::exact(&values));
    compare(bench, &call, &out, &layer::norm(shape, &x, &weight, shape.bias.then_some(&bias))?)
}

fn softmax(bench: &Bench, shape: &SoftmaxShape) -> Result<f64> {
    let x = normal(1, shape.len_x(), shape.input);
    let (x_tensor, out) =
        (Tensor::of(bench, &x, shape.input), Tensor::output(bench, shape.len_out(), shape.output));
    let call = bench.kernels().softmax(shape)?.bind(x_tensor.binding(), out.binding())?;
    compare(bench, &call, &out, &layer::softmax(shape, &Bounded::exact(&x))?)
}

fn residual(bench: &Bench, shape: &AddShape) -> Result<f64> {
    let (x, other) = (normal(1, shape.len(), shape.input), normal(2, shape.len(), shape.other));
    let (x_tensor, other_tensor) =
        (Tensor::of(bench, &x, shape.input), Tensor::of(bench, &other, shape.other));
    let plan = bench.kernels().add(shape)?;
    let (out, call) = if shape.in_place {
        let call = plan.bind_in_place(x_tensor.binding(), other_tensor.binding())?;
        (x_tensor, call)
    } else {
        let out = Tensor::output(bench, shape.len(), shape.output);
        let call = plan.bind(x_tensor.binding(), other_tensor.binding(), out.binding())?;
        (out, call)
    };
    let sign = if shape.subtract { -1.0 } else { 1.0 };
    let other: Vec<f64> = other.iter().map(|x| sign * x).collect();
    compare(bench, &call, &out, &layer::add(&Bounded::exact(&x), &Bounded::exact(&other), shape.output)?)
}

fn embed(bench: &Bench, shape: &EmbedShape) -> Result<f64> {
    let (table, before) =
        (normal(1, shape.len_table(), shape.table), normal(2, shape.len_out(), shape.output));
    // Some of them past the table's end.
    let ids: Vec<u32> = (0..shape.rows as u32).map(|n| n * 7 % (shape.table_rows as u32 + 2)).collect();
    let into = shape.combine == Combine::AddInto;
    let (ids_tensor, table_tensor) = (Tensor::words(bench, &ids), Tensor::of(bench, &table, shape.table));
    let out = match into {
        true => Tensor::of(bench, &before, shape.output),
        false => Tensor::output(bench, shape.len_out(), shape.output),
    };
    let call =
        bench.kernels().embed(shape)?.bind(ids_tensor.binding(), table_tensor.binding(), out.binding())?;
    let (table, before) = (Bounded::exact(&table), Bounded::exact(&before));
    compare(bench, &call, &out, &layer::embed(shape, &ids, &table, into.then_some(&before))?)
}

fn rotary(bench: &Bench, shape: &RotaryShape) -> Result<f64> {
    let x = normal(1, shape.len_x(), shape.input);
    let [cos, sin] = rotary_tables(shape.len, shape.rotary_dim, 100.0)
        .map(|table| table.into_iter().map(f64::from).collect::<Vec<_>>());
    let tensors = [(&x, shape.input), (&cos, F32), (&sin, F32)]
        .map(|(values, element)| Tensor::of(bench, values, element));
    let out = Tensor::output(bench, shape.len_out(), shape.output);
    let buffers =
        RotaryBuffers::new(tensors[0].binding(), tensors[1].binding(), tensors[2].binding(), out.binding());
    let call = bench.kernels().rotary(shape)?.bind(buffers)?;
    let [x, cos, sin] = [x, cos, sin].map(|values| Bounded::exact(&values));
    compare(bench, &call, &out, &layer::rotary(shape, &x, &cos, &sin)?)
}
