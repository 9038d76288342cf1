//! Variants of `matmul.wgsl`.

use super::{
    CooperativeProduct, Header, MatmulTile, Matrices, Shader, TileKind, activation, integers, tensor,
};
use crate::{
    AOrder, Activation, Combine, ElementType, IntegerFormat, IntegerType, MatmulShape, ScaleGroups,
    WeightOrder,
};

/// All that tells one matrix product's shader from another. Sizes are parameters, not constants: one shader serves all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MatmulVariant {
    /// Sizes of a workgroup.
    pub tile: MatmulTile,
    /// How A lies.
    pub a_order: AOrder,
    /// How B lies.
    pub weights: WeightOrder,
    /// Storage of A.
    pub input: ElementType,
    /// Storage of B and bias.
    pub weight: ElementType,
    /// B as integers.
    pub integers: Option<IntegerFormat>,
    /// Storage of C and of the residual.
    pub output: ElementType,
    /// Every stored row of A begins at, and has, a multiple of 4 elements.
    pub aligned_a: bool,
    /// Every stored row of B begins at, and has, a multiple of 4 elements.
    pub aligned_b: bool,
    /// Every row of the residual begins at, and has, a multiple of 4 elements.
    pub aligned_residual: bool,
    /// Every row of C begins at, and has, a multiple of 4 elements.
    pub aligned_out: bool,
    /// Whether a bias is added.
    pub bias: bool,
    /// Applied to A B + bias.
    pub activation: Option<Activation>,
    /// What happens to the result.
    pub combine: Combine,
}

impl MatmulVariant {
    /// The variant for a shape.
    pub fn of(shape: &MatmulShape, tile: MatmulTile) -> Self {
        Self {
            tile,
            a_order: shape.a_order,
            weights: shape.weights,
            input: shape.input,
            weight: shape.weight,
            integers: shape.integers,
            output: shape.output,
            aligned_a: shape.strides_of_a().is_aligned(shape.a_sizes()[1]),
            aligned_b: shape.strides_of_b().is_aligned(shape.b_sizes()[1]),
            // Without a residual the provider is not called: one text for all.
            aligned_residual: shape.combine != Combine::Add
                || shape.strides_of_residual().is_aligned(shape.columns),
            aligned_out: shape.strides_of_out().is_aligned(shape.columns),
            bias: shape.bias,
            activation: shape.activation,
            combine: shape.combine,
        }
    }

    /// The shader of this variant.
    pub fn shader(&self) -> Shader {
        let header = self
            .tile
            .constants(Header::default(), self.a_order, self.weights)
            .u32s(&[
                ("ROWS", self.tile.rows()),
                ("COLUMNS", self.tile.columns()),
                ("LANES", self.tile.lanes()),
                ("PANEL", 8),
                ("ADD", Combine::Add as usize),
                ("ADD_INTO", Combine::AddInto as usize),
                ("MULTIPLY_INTO", Combine::MultiplyInto as usize),
                ("COMBINE", self.combine as usize),
            ])
            .u32s(&activation::constants(self.activation))
            .bools(&[
                ("A_BY_ROWS", self.a_order == AOrder::RowsInner),
                ("B_IN_OUT", self.weights == WeightOrder::InOut),
                ("HAS_BIAS", self.bias),
                // An aligned row of A is a multiple of 4 long.
                ("WHOLE_K", self.a_order == AOrder::RowsInner && self.aligned_a),
            ]);
        let (header, b) = match self.integers {
            None => {
                let along = include_str!("../../shaders/product/numbers.wgsl");
                (header, [along, &tensor::reads("b", self.weight, self.aligned_b)].join("\n"))
            }
            Some(format) => {
                let header = integers::weight_constants(header, format, self.aligned_b);
                (header, integers::weights(format))
            }
        };
        // Sums that are added to are f32, which any writer reads.
        let out = match self.combine {
            Combine::MultiplyInto => tensor::reads_and_writes(self.output, self.aligned_out),
            _ => tensor::writes(self.output, self.aligned_out),
        };
        let files = [
            include_str!("../../shaders/matmul.wgsl"),
            self.tile.provider(),
            include_str!("../../shaders/lib/activation.wgsl"),
            include_str!("../../shaders/lib/hyperbolic.wgsl"),
            include_str!("../../shaders/lib/nan.wgsl"),
            &tensor::reads("a", self.input, self.aligned_a),
            &b,
            &tensor::reads_if(self.bias, "bias", self.weight, false),
            &tensor::reads_if(self.combine == Combine::Add, "residual", self.output, self.aligned_residual),
            &out,
        ];
        let shader = header.shader(self.label(), "matmul", &files);
        Shader { for_cpus: self.tile.is_for_cpus(), ..shader }
    }

    fn label(&self) -> String {
        let b = self.integers.map_or(self.weight.to_string(), |format| format!("({format}) {}", self.weight));
        let mut label = format!("matmul {}x{b}->{} {}", self.input, self.output, self.tile);
        let activation = self.activation.map(Activation::name).unwrap_or_default();
        let flags = [
            (self.a_order == AOrder::InnerRows, "inner-rows"),
            (self.weights == WeightOrder::OutIn, "out-in"),
            (!self.aligned_a, "unaligned-a"),
            (!self.aligned_b, "unaligned-b"),
            (!self.aligned_residual, "unaligned-residual"),
            (!self.aligned_out, "unaligned-out"),
            (self.bias, "bias"),
            (self.activation.is_some(), activation),
            (self.combine == Combine::Add, "residual"),
            (self.combine == Combine::AddInto, "add-into"),
            (self.combine == Combine::MultiplyInto, "multiply-into"),
        ];
        for (_, name) in flags.iter().filter(|flag| flag.0) {
            label.push(' ');
            label.push_str(name);
        }
        label
    }

    /// A list in which every provider file and every flag's values occur.
    pub(super) fn representatives() -> Vec<Self> {
        use Combine::{Add, AddInto, MultiplyInto};
        use ElementType::{Bf16, F16, F32};
        let aligned = MatmulShape::new(512, 64, 64);
        let odd = MatmulShape::new(33, 7, 5).bias(true);
        let mut list = vec![];
        for weights in [WeightOrder::InOut, WeightOrder::OutIn] {
            for tile in [MatmulTile::LARGE, MatmulTile::MEDIUM, MatmulTile::SMALL] {
                list.push(Self::of(&aligned.weights(weights), tile));
            }
            for (input, output) in [(F16, F32), (Bf16, F16), (F32, Bf16)] {
                let mixed =
                    |shape: MatmulShape| shape.weights(weights).input(input).weight(input).output(output);
                list.push(Self::of(&mixed(aligned).combine(Add), MatmulTile::MEDIUM));
                list.push(Self::of(&mixed(odd).combine(Add), MatmulTile::SMALL));
            }
        }
        for tile in [MatmulTile::LARGE, MatmulTile::SMALL, MatmulTile::DIRECT] {
            list.push(Self::of(&aligned.a_order(AOrder::InnerRows), tile));
            list.push(Self::of(&odd.a_order(AOrder::InnerRows).weights(WeightOrder::OutIn), tile));
        }
        for weights in [WeightOrder::InOut, WeightOrder::OutIn] {
            list.push(Self::of(&aligned.weights(weights), MatmulTile::DIRECT));
            list.push(Self::of(&odd.weights(weights).combine(Add), MatmulTile::DIRECT));
            for (size, subgroup, wide) in [(8, 8, false), (16, 32, true)] {
                let matrices = Matrices { size, subgroup };
                let tile = CooperativeProduct { matrices, subgroups_r: 2, subgroups_c: 2, wide };
                let halves = |shape: MatmulShape| shape.weights(weights).elements(F16);
                list.push(Self::of(&halves(aligned), MatmulTile::Cooperative(tile)));
                list.push(Self::of(&halves(odd).combine(Add), MatmulTile::Cooperative(tile)));
                let transposed = halves(if wide { odd } else { aligned }).a_order(AOrder::InnerRows);
                list.push(Self::of(&transposed, MatmulTile::Cooperative(tile)));
            }
        }
        for (element, tile) in [(F16, MatmulTile::SMALL), (Bf16, MatmulTile::DIRECT)] {
            for shape in [aligned, odd] {
                list.push(Self::of(&shape.output(element).combine(MultiplyInto), tile));
            }
        }
        list.extend(Self::of_integers());
        list.extend(Self::of_few_rows());
        for (activation, combine) in [
            (Activation::Relu, AddInto),
            (Activation::GeluErf, MultiplyInto),
            (Activation::GeluTanh, AddInto),
            (Activation::Silu, MultiplyInto),
            (Activation::Tanh, Combine::Store),
        ] {
            list.push(Self::of(&aligned.activation(activation).combine(combine), MatmulTile::MEDIUM));
            list.push(Self::of(&odd.activation(activation).combine(combine), MatmulTile::SMALL));
        }
        list
    }

    /// Those of few rows, for GPUs and for CPUs.
    fn of_few_rows() -> Vec<Self> {
        let few = |rows: usize, kind: TileKind, change: fn(MatmulShape) -> MatmulShape| {
            let shape = change(MatmulShape::new(rows, 64, 36).weights(WeightOrder::OutIn));
            MatmulTile::few(&shape, kind).map(|tile| Self::of(&shape, tile))
        };
        let nibbles = |shape: MatmulShape| {
            shape.integers(IntegerFormat::new(IntegerType::I4).groups(ScaleGroups::Groups(32)))
        };
        [
            few(1, TileKind::Staged, |shape| shape),
            few(1, TileKind::Staged, nibbles),
            few(3, TileKind::Direct, |shape| shape.elements(ElementType::F16).bias(true)),
            few(2, TileKind::Direct, nibbles),
            few(8, TileKind::Direct, nibbles),
            few(8, TileKind::Direct, |shape| shape),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Those whose weights are integers.
    fn of_integers() -> Vec<Self> {
        let of = |element, groups, zero_points| {
            let format = IntegerFormat::new(element).groups(groups).zero_points(zero_points);
            MatmulShape::new(33, 64, 36).weights(WeightOrder::OutIn).integers(format)
        };
        let per_row = of(IntegerType::I8, ScaleGroups::Rows, false);
        let groups = of(IntegerType::I4, ScaleGroups::Groups(32), false).input(ElementType::F16);
        let zero_points = of(IntegerType::U4, ScaleGroups::Groups(64), true).bias(true);
        let mut odd = of(IntegerType::U8, ScaleGroups::Tensor, true);
        (odd.inner, odd.columns) = (7, 5);
        vec![
            Self::of(&per_row, MatmulTile::MEDIUM),
            Self::of(&per_row, MatmulTile::DIRECT),
            Self::of(&groups, MatmulTile::SMALL),
            Self::of(&groups, MatmulTile::DIRECT),
            Self::of(&zero_points, MatmulTile::SMALL),
            Self::of(&odd, MatmulTile::SMALL),
            Self::of(&odd, MatmulTile::DIRECT),
        ]
    }
}
