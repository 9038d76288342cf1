//! Drawn calls: PROPTEST_CASES (32; in a long run 256) of each property. What a pipeline is compiled for comes from a short list; sizes
//! and strides are free.

use crate::harness::kernels;
use crate::{cross_entropy, feed_forward, matmul, rotary, rows};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use wgpu_attention::wgsl::MatmulTile;
use wgpu_attention::{
    AOrder, Activation, AddShape, Combine, CrossEntropyShape, ElementType, EmbedShape, FeedForwardShape,
    Layout, LossGradient, MatmulShape, NormKind, NormShape, RotaryPairs, RotaryShape, RowStrides,
    SoftmaxShape, WeightOrder,
};
use wgpu_attention_testing::cases;

use ElementType::{Bf16, F16, F32};
use WeightOrder::{InOut, OutIn};

/// What a product's pipeline is compiled for: order, types of A, B and C, which of inner and columns are multiples of 4, bias,
/// activation, combination, tile.
type Product = (WeightOrder, [ElementType; 3], [bool; 2], bool, Option<Activation>, Combine, MatmulTile);

const PRODUCTS: [Product; 8] = [
    (InOut, [F32; 3], [true, true], true, None, Combine::Store, MatmulTile::MEDIUM),
    (OutIn, [F32; 3], [true, false], false, Some(Activation::GeluErf), Combine::Add, MatmulTile::SMALL),
    (InOut, [F32; 3], [false, true], true, Some(Activation::GeluTanh), Combine::AddInto, MatmulTile::SMALL),
    (OutIn, [F32; 3], [false, false], false, None, Combine::MultiplyInto, MatmulTile::MEDIUM),
    (InOut, [F16; 3], [false, false], true, Some(Activation::Tanh), Combine::Add, MatmulTile::SMALL),
    (OutIn, [Bf16; 3], [false, true], true, Some(Activation::Silu), Combine::Store, MatmulTile::SMALL),
    (OutIn, [F16, F16, F32], [true, true], true, None, Combine::Add, MatmulTile::MEDIUM),
    (
        InOut,
        [F32, Bf16, F16],
        [true, false],
        false,
        Some(Activation::Relu),
        Combine::Store,
        MatmulTile::SMALL,
    ),
];

/// Gated, with a residual, order, whether the widths are multiples of 4.
const LAYERS: [(bool, bool, WeightOrder, bool); 4] = [
    (false, true, InOut, true),
    (true, false, OutIn, true),
    (false, false, OutIn, false),
    (true, true, InOut, false),
];

/// A multiple of 4, or an odd number.
fn fitting(n: usize, whole: bool) -> usize {
    if whole { n.next_multiple_of(4) } else { n | 1 }
}

const TYPES: [ElementType; 3] = [F32, F16, Bf16];

/// Rows in memory, with `gap` elements between rows and between batch items.
fn spaced(rows: usize, width: usize, gap: usize) -> RowStrides {
    let row = width + gap;
    RowStrides::new((rows * row + gap) as isize, row as isize)
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: cases(32),
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        max_shrink_iters: 500,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn products_of_any_size_and_stride(
        variant in 0..PRODUCTS.len(),
        batch in 1..4usize,
        [rows, inner, columns] in [1..90usize, 1..80usize, 1..90usize],
        gaps in [0..3usize, 0..3usize, 0..3usize, 0..3usize],
    ) {
        let (weights, [input, weight, output], whole, bias, activation, combine, tile) = PRODUCTS[variant];
        let (inner, columns) = (fitting(inner, whole[0]), fitting(columns, whole[1]));
        // Rows that are multiples of 4 stay apart by multiples of 4; of the others any gap is another place in a word.
        let [a, b, residual, out] = gaps.map(|gap| if whole == [false; 2] { gap } else { 4 * gap });
        // The variants of bf16 and of odd widths take A as [inner, rows], too.
        let transposed = variant == 3 || variant == 5;
        let a_order = if transposed { AOrder::InnerRows } else { AOrder::RowsInner };
        let rows = if transposed { fitting(rows, variant == 5) } else { rows };
        let (a_rows, a_width) = if transposed { (inner, rows) } else { (rows, inner) };
        let (b_rows, b_width) = if weights == InOut { (inner, columns) } else { (columns, inner) };
        let shape = MatmulShape::new(rows, inner, columns)
            .batch(batch)
            .a_order(a_order)
            .weights(weights)
            .input(input)
            .weight(weight)
            .output(output)
            .bias(bias)
            .activation(activation)
            .combine(combine)
            .a_strides(spaced(a_rows, a_width, a))
            .b_strides(spaced(b_rows, b_width, b))
            .residual_strides(spaced(rows, columns, residual))
            .out_strides(spaced(rows, columns, out));
        prop_assert_eq!(matmul::bound(kernels(), &shape, tile).err(), None);
    }

    #[test]
    fn feed_forward_in_any_chunks(
        variant in 0..LAYERS.len(),
        [rows, model, hidden, chunk] in [1..60usize, 1..40usize, 1..60usize, 1..70usize],
    ) {
        let (gated, residual, order, whole) = LAYERS[variant];
        let [model, hidden] = [model, hidden].map(|n| fitting(n, whole));
        let shape = FeedForwardShape::new(rows, model, hidden, Activation::Silu)
            .gated(gated)
            .bias(gated)
            .residual(residual)
            .weights(order)
            .chunk(Some(chunk));
        prop_assert_eq!(feed_forward::bound(kernels(), &shape).err(), None);
    }

    #[test]
    fn norms_and_softmax_of_any_width_and_stride(
        (layer, bias, element) in (any::<bool>(), any::<bool>(), 0..3usize),
        [rows, width, x_gap, out_gap] in [1..20usize, 1..700usize, 0..9usize, 0..9usize],
        offset in -3..4i32,
    ) {
        let (kind, element) = (if layer { NormKind::Layer } else { NormKind::Rms }, TYPES[element]);
        let (x, out) = (Some(width + x_gap), Some(width + out_gap));
        let shape = NormShape::new(kind, rows, width, 1e-5).bias(bias).elements(element).x_row(x).out_row(out);
        prop_assert_eq!(rows::norm(kernels(), &shape, offset.into()).err(), None);
        let shape = SoftmaxShape::new(rows, width).input(element).output(element).x_row(x).out_row(out);
        prop_assert_eq!(rows::softmax(kernels(), &shape, f64::from(1 << (offset + 3))).err(), None);
    }

    #[test]
    fn losses_of_any_vocabulary_and_stride(
        (input, stored, place) in (0..3usize, 0..3usize, 0..3usize),
        [rows, vocabulary, logits_gap, gradient_gap] in [1..20usize, 1..700usize, 0..9usize, 0..9usize],
        (smoothing, size) in (0..3u8, 0..7u8),
    ) {
        let gradient = [LossGradient::None, LossGradient::InPlace, LossGradient::Stored(TYPES[stored])][place];
        let apart = matches!(gradient, LossGradient::Stored(_));
        let shape = CrossEntropyShape::new(rows, vocabulary)
            .input(TYPES[input])
            .gradient(gradient)
            .smoothing(f32::from(smoothing) * 0.5)
            .logits_row(Some(vocabulary + logits_gap))
            .gradient_row(apart.then_some(vocabulary + gradient_gap));
        prop_assert_eq!(cross_entropy::bound(kernels(), &shape, f64::from(1 << size)).err(), None);
    }

    #[test]
    fn rows_are_added_and_looked_up(
        [input, other, output] in [0..3usize, 0..3usize, 0..3usize],
        [rows, table, width] in [1..40usize, 1..30usize, 1..70usize],
        [into, subtract]: [bool; 2],
    ) {
        let [input, other, output] = [input, other, output].map(|n| TYPES[n]);
        let shape = AddShape::new(rows, width).input(input).other(other).output(output).subtract(subtract);
        prop_assert_eq!(rows::add(kernels(), &shape).err(), None);
        let shape = AddShape::new(rows, width).other(other).subtract(subtract).in_place(true);
        prop_assert_eq!(rows::add(kernels(), &shape).err(), None);
        let combine = if into { Combine::AddInto } else { Combine::Store };
        let shape = EmbedShape::new(rows, table, width).table(input).combine(combine);
        let shape = if into { shape } else { shape.output(output) };
        prop_assert_eq!(rows::embed(kernels(), &shape).err(), None);
    }

    #[test]
    fn rotations_of_any_part(
        [batch, heads, len, half, rest] in [1..3usize, 1..4usize, 1..12usize, 1..20usize, 0..9usize],
        (interleaved, tables, by_len, element) in (any::<bool>(), any::<bool>(), any::<bool>(), 0..3usize),
    ) {
        let layout = if by_len { Layout::Blhd } else { Layout::Bhld };
        let shape = RotaryShape::new(batch, heads, len, 2 * half + rest)
            .rotary_dim(2 * half)
            .pairs(if interleaved { RotaryPairs::Interleaved } else { RotaryPairs::HalfSplit })
            .tables_per_item(tables)
            .input(TYPES[element])
            .output(TYPES[element])
            .x_layout(layout)
            .out_layout(if tables { Layout::Bhld } else { layout });
        prop_assert_eq!(rotary::bound(kernels(), &shape).err(), None);
    }
}
