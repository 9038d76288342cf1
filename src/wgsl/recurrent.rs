//! Variants of `recurrent.wgsl`.

use super::{Header, Shader, TileKind, activation, tensor};
use crate::{Activation, ElementType, RecurrentCell, RecurrentShape};

/// All that tells one shader of a recurrent step from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecurrentVariant {
    /// What a unit computes.
    pub cell: RecurrentCell,
    /// How lanes share the work.
    pub tile: RecurrentTile,
    /// Storage of the weights and biases.
    pub weight: ElementType,
    /// Whether there are biases.
    pub bias: bool,
    /// Whether h and c are given before the first step.
    pub initial: bool,
    /// The number of units is a multiple of 4.
    pub aligned: bool,
}

/// The sizes of a workgroup of `recurrent.wgsl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecurrentTile {
    /// `recurrent/direct.wgsl`: a lane has one item or two, and as many groups of 4 units.
    Direct {
        /// Whether a lane has two items.
        paired: bool,
        /// Groups of 4 units.
        groups: usize,
    },
    /// `recurrent/sliced.wgsl`: lanes are items by slices of the inner dimension; 4 units.
    Sliced {
        /// Items, a power of 2.
        items: usize,
        /// Slices, a power of 2.
        slices: usize,
    },
}

impl RecurrentTile {
    /// Lanes that a CPU runs in step.
    const VECTOR: usize = 8;
    /// Lanes of a sliced tile at most: sums of that many are half of WebGPU's workgroup memory.
    const LANES: usize = 128;
    /// Groups of 4 elements of h that a lane of a direct tile reads at once.
    const CHUNK: usize = 32;

    /// The tile for a shape.
    pub fn choose(shape: &RecurrentShape, kind: TileKind) -> Self {
        let items = shape.batch.max(1).next_power_of_two();
        match kind {
            // Few items share one of a CPU's vectors of lanes with the inner dimension.
            TileKind::Direct if shape.batch < Self::VECTOR => {
                Self::Sliced { items, slices: Self::VECTOR / items }
            }
            TileKind::Direct => Self::Direct {
                paired: shape.batch > Self::VECTOR,
                groups: if shape.hidden < 128 { 1 } else { 4 },
            },
            TileKind::Staged | TileKind::Cooperative(_) => {
                let items = items.min(16);
                let groups = shape.hidden.div_ceil(4).next_power_of_two();
                Self::Sliced { items, slices: groups.min(Self::LANES / items) }
            }
        }
    }

    /// Items of the batch that a workgroup computes.
    pub fn items(&self) -> usize {
        match *self {
            Self::Direct { paired, .. } => Self::VECTOR * if paired { 2 } else { 1 },
            Self::Sliced { items, .. } => items,
        }
    }

    /// Units that it computes.
    pub fn units(&self) -> usize {
        match *self {
            Self::Direct { groups, .. } => 4 * groups,
            Self::Sliced { .. } => 4,
        }
    }
}

impl RecurrentVariant {
    /// The variant for a shape.
    pub fn of(shape: &RecurrentShape, tile: RecurrentTile) -> Self {
        let RecurrentShape { cell, weight, bias, initial, .. } = *shape;
        Self { cell, tile, weight, bias, initial, aligned: shape.hidden.is_multiple_of(4) }
    }

    /// The shader of this variant.
    pub fn shader(&self) -> Shader {
        let f32 = ElementType::F32;
        let (product, constants) = match self.tile {
            RecurrentTile::Direct { groups, .. } => (
                include_str!("../../shaders/recurrent/direct.wgsl"),
                vec![("LANES", RecurrentTile::VECTOR), ("GROUPS", groups), ("CHUNK", RecurrentTile::CHUNK)],
            ),
            RecurrentTile::Sliced { items, slices } => (
                include_str!("../../shaders/recurrent/sliced.wgsl"),
                vec![("LANES", items * slices), ("ITEMS", items), ("SLICES", slices)],
            ),
        };
        let paired = match self.tile {
            RecurrentTile::Direct { paired, .. } => vec![("PAIRED", paired)],
            RecurrentTile::Sliced { .. } => vec![],
        };
        let reads = |given, name, element| tensor::reads_if(given, name, element, self.aligned);
        let mut texts = vec![
            reads(true, "inputs", f32),
            reads(true, "w", self.weight),
            reads(self.bias, "bias", self.weight),
            reads(self.initial, "h0", f32),
            tensor::stores("out", f32, self.aligned),
            tensor::stores("h_n", f32, self.aligned),
        ];
        let cell = match self.cell {
            RecurrentCell::RnnTanh | RecurrentCell::RnnRelu => {
                texts.push(include_str!("../../shaders/lib/activation.wgsl").into());
                include_str!("../../shaders/recurrent/rnn.wgsl")
            }
            RecurrentCell::Lstm => {
                texts.push(reads(self.initial, "c0", f32));
                texts.push(tensor::stores("c_n", f32, self.aligned));
                texts.push(include_str!("../../shaders/lib/sigmoid.wgsl").into());
                include_str!("../../shaders/recurrent/lstm.wgsl")
            }
            RecurrentCell::Gru => {
                texts.push(include_str!("../../shaders/lib/sigmoid.wgsl").into());
                include_str!("../../shaders/recurrent/gru.wgsl")
            }
        };
        let mut files = vec![include_str!("../../shaders/recurrent.wgsl"), product, cell];
        files.extend(texts.iter().map(String::as_str));
        files.extend([
            include_str!("../../shaders/lib/hyperbolic.wgsl"),
            include_str!("../../shaders/lib/nan.wgsl"),
        ]);
        let header =
            Header::default().u32s(&[("GATES", self.cell.gates())]).u32s(&constants).u32s(&self.activation());
        let header = header
            .bools(&[("HAS_INITIAL", self.initial)])
            .bools(&paired)
            .params(&[("kernel", "KernelParams")]);
        let shader = header.shader(self.label(), "recurrent", &files);
        Shader { for_cpus: matches!(self.tile, RecurrentTile::Direct { .. }), ..shader }
    }

    /// Of a cell that has one.
    fn activation(&self) -> Vec<(&'static str, usize)> {
        match self.cell {
            RecurrentCell::RnnTanh => activation::constants(Some(Activation::Tanh)).into(),
            RecurrentCell::RnnRelu => activation::constants(Some(Activation::Relu)).into(),
            RecurrentCell::Lstm | RecurrentCell::Gru => vec![],
        }
    }

    fn label(&self) -> String {
        let tile = match self.tile {
            RecurrentTile::Direct { groups, .. } => format!("direct {}x{}", self.tile.items(), 4 * groups),
            RecurrentTile::Sliced { items, slices } => format!("sliced {items}/{slices}"),
        };
        let bias = if self.bias { " bias" } else { "" };
        let initial = if self.initial { " initial" } else { "" };
        let unaligned = if self.aligned { "" } else { " unaligned" };
        format!("recurrent {} {tile} {}{bias}{initial}{unaligned}", self.cell, self.weight)
    }

    /// A list in which every file and every flag's values occur.
    pub(super) fn representatives() -> Vec<Self> {
        use ElementType::{Bf16, F16, F32};
        use RecurrentCell::{Gru, Lstm, RnnRelu, RnnTanh};
        use RecurrentTile::{Direct, Sliced};
        let large = Direct { paired: true, groups: 4 };
        let small = Direct { paired: false, groups: 1 };
        [
            (RnnTanh, Sliced { items: 16, slices: 8 }, F32, true, true, true),
            (RnnRelu, Sliced { items: 1, slices: 128 }, F16, false, false, false),
            (Lstm, Sliced { items: 16, slices: 8 }, F32, true, true, true),
            (Lstm, Sliced { items: 1, slices: 128 }, F32, true, false, true),
            (Lstm, Sliced { items: 4, slices: 4 }, Bf16, false, true, false),
            (Gru, Sliced { items: 16, slices: 8 }, F16, true, false, true),
            (Gru, Sliced { items: 2, slices: 1 }, F32, false, true, false),
            (RnnTanh, small, F32, false, false, false),
            (RnnRelu, large, Bf16, true, true, true),
            (Lstm, large, F32, true, false, true),
            (Lstm, small, F16, true, true, false),
            (Gru, large, F32, true, true, true),
        ]
        .map(|(cell, tile, weight, bias, initial, aligned)| Self {
            cell,
            tile,
            weight,
            bias,
            initial,
            aligned,
        })
        .into()
    }
}
