//! Variants of `matmul.wgsl`.

use super::{Header, Shader, TileLimits, tensor};
use crate::{Activation, Combine, ElementType, Error, MatmulShape, Result, WeightOrder};

/// Sizes of one workgroup of `matmul.wgsl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MatmulTile {
    /// Lanes along the rows.
    pub lanes_r: usize,
    /// Lanes along the columns.
    pub lanes_c: usize,
    /// A lane holds 8 rows instead of 4.
    pub tall: bool,
    /// A lane holds 2 groups of 4 columns instead of 1.
    pub wide: bool,
    /// Groups of 4 elements of the inner dimension that are staged at once.
    pub chunk: usize,
}

impl MatmulTile {
    /// 128 x 128 for 256 lanes of 64 results each: for large products on devices with more workgroup memory than
    /// WebGPU promises (20 KiB).
    pub const LARGE: Self = Self { lanes_r: 16, lanes_c: 16, tall: true, wide: true, chunk: 4 };
    /// 64 x 64 for 64 lanes of 64 results each.
    pub const MEDIUM: Self = Self { lanes_r: 8, lanes_c: 8, tall: true, wide: true, chunk: 4 };
    /// 32 x 32 for 64 lanes of 16 results each: for small products, which larger tiles would leave on few cores.
    pub const SMALL: Self = Self { lanes_r: 8, lanes_c: 8, tall: false, wide: false, chunk: 8 };

    /// Tiles below which a smaller size is taken: about as many as large GPUs run at once.
    const ENOUGH: usize = 128;

    /// Rows of a tile.
    pub const fn rows(&self) -> usize {
        self.lanes_r * if self.tall { 8 } else { 4 }
    }

    /// Columns of a tile.
    pub const fn columns(&self) -> usize {
        self.lanes_c * if self.wide { 8 } else { 4 }
    }

    /// Lanes of a workgroup.
    pub const fn lanes(&self) -> usize {
        self.lanes_r * self.lanes_c
    }

    /// The largest tile that the device allows and that cuts the product into enough of them.
    pub fn choose(shape: &MatmulShape, limits: TileLimits) -> Self {
        let fits =
            |tile: &Self| tile.workgroup_bytes() <= limits.workgroup_bytes && tile.lanes() <= limits.lanes;
        let enough = |tile: &Self| {
            let tiles = shape.rows.div_ceil(tile.rows()) * shape.columns.div_ceil(tile.columns());
            tiles.saturating_mul(shape.batch) >= Self::ENOUGH
        };
        let large = [Self::LARGE, Self::MEDIUM].into_iter().find(|tile| fits(tile) && enough(tile));
        large.unwrap_or(Self::SMALL)
    }

    /// Checks a tile that a caller made up.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the size that does not fit, [`Error::Limit`] for what the device does not have.
    pub fn check(&self, limits: TileLimits) -> Result<()> {
        let sizes =
            [("tile.lanes_r", self.lanes_r), ("tile.lanes_c", self.lanes_c), ("tile.chunk", self.chunk)];
        for (name, size) in sizes {
            if !size.is_power_of_two() || size > 256 {
                return Err(Error::argument(name, "a power of two up to 256", size));
            }
        }
        for (limit, need, have) in [
            ("max_compute_invocations_per_workgroup", self.lanes(), limits.lanes),
            ("max_compute_workgroup_storage_size", self.workgroup_bytes(), limits.workgroup_bytes),
        ] {
            if need > have {
                return Err(Error::limit("the matrix product's tile", limit, need as u64, have as u64));
            }
        }
        Ok(())
    }

    /// Bytes of workgroup memory, for B of either order.
    pub fn workgroup_bytes(&self) -> usize {
        16 * (self.b_at() + self.b_len(WeightOrder::InOut).max(self.b_len(WeightOrder::OutIn)))
    }

    /// Odd, so that lanes on neighbouring rows hit different banks.
    fn pitch(&self) -> usize {
        self.chunk | 1
    }

    fn b_at(&self) -> usize {
        self.rows() * self.pitch()
    }

    fn b_len(&self, order: WeightOrder) -> usize {
        match order {
            WeightOrder::InOut => self.chunk * self.columns(),
            WeightOrder::OutIn => self.columns() * self.pitch(),
        }
    }
}

/// All that tells one matrix product's shader from another. Sizes are parameters, not constants: one shader serves all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MatmulVariant {
    /// Sizes of a workgroup.
    pub tile: MatmulTile,
    /// How B lies.
    pub weights: WeightOrder,
    /// Storage of A.
    pub input: ElementType,
    /// Storage of B and bias.
    pub weight: ElementType,
    /// Storage of C and of the residual.
    pub output: ElementType,
    /// Every row of A begins at a multiple of 4 elements and is one long.
    pub aligned_a: bool,
    /// So does every stored row of B.
    pub aligned_b: bool,
    /// So does every row of the residual.
    pub aligned_residual: bool,
    /// So does every row of C.
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
            weights: shape.weights,
            input: shape.input,
            weight: shape.weight,
            output: shape.output,
            aligned_a: shape.strides_of_a().is_aligned(shape.inner),
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
        let tile = &self.tile;
        let groups = tile.columns() / 4;
        // How far apart lie, in vectors: neighbouring lanes' parts of B, a lane's 4 vectors, and those of the next 4 k.
        let [lane, step, group] = match self.weights {
            WeightOrder::InOut => [1, groups, 4 * groups],
            WeightOrder::OutIn => [tile.pitch(), groups * tile.pitch(), 1],
        };
        let header = Header::default()
            .u32s(&[
                ("LANES_R", tile.lanes_r),
                ("LANES_C", tile.lanes_c),
                ("LANES", tile.lanes()),
                ("ROWS", tile.rows()),
                ("COLUMN_GROUPS", groups),
                ("CHUNK", tile.chunk),
                ("PANEL", 8),
                ("A_PITCH", tile.pitch()),
                ("B_AT", tile.b_at()),
                ("B_LANE", lane),
                ("B_STEP", step),
                ("B_GROUP", group),
                ("ARENA", tile.b_at() + tile.b_len(self.weights)),
                ("ADD", Combine::Add as usize),
                ("ADD_INTO", Combine::AddInto as usize),
                ("MULTIPLY_INTO", Combine::MultiplyInto as usize),
                ("COMBINE", self.combine as usize),
            ])
            .u32s(&activation_constants(self.activation))
            .bools(&[
                ("TALL", tile.tall),
                ("WIDE", tile.wide),
                ("B_IN_OUT", self.weights == WeightOrder::InOut),
                ("HAS_BIAS", self.bias),
            ]);
        let files = [
            include_str!("../../shaders/matmul.wgsl"),
            include_str!("../../shaders/lib/activation.wgsl"),
            &tensor::reads("a", self.input, self.aligned_a),
            &tensor::reads("b", self.weight, self.aligned_b),
            &tensor::reads("bias", self.weight, false),
            &tensor::reads("residual", self.output, self.aligned_residual),
            &tensor::writes(self.output, self.aligned_out),
        ];
        header.shader(self.label(), "matmul", &files)
    }

    fn label(&self) -> String {
        let mut label = format!(
            "matmul {}x{}->{} tile {}x{}",
            self.input,
            self.weight,
            self.output,
            self.tile.rows(),
            self.tile.columns()
        );
        let activation = self.activation.map(Activation::name).unwrap_or_default();
        let flags = [
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
}

/// `ACTIVATION` and the names of its values, for `lib/activation.wgsl`.
fn activation_constants(activation: Option<Activation>) -> [(&'static str, usize); 6] {
    [
        ("RELU", Activation::Relu as usize),
        ("GELU_ERF", Activation::GeluErf as usize),
        ("GELU_TANH", Activation::GeluTanh as usize),
        ("SILU", Activation::Silu as usize),
        ("TANH", Activation::Tanh as usize),
        ("ACTIVATION", activation.map_or(Activation::ALL.len(), |activation| activation as usize)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_fit_their_devices() {
        for tile in [MatmulTile::MEDIUM, MatmulTile::SMALL] {
            tile.check(TileLimits::WEBGPU).unwrap();
        }
        MatmulTile::LARGE.check(TileLimits::GENEROUS).unwrap();
        let error = MatmulTile::LARGE.check(TileLimits::WEBGPU).unwrap_err().to_string();
        assert!(error.contains("max_compute_workgroup_storage_size is 16384"), "{error}");
        let error = MatmulTile { lanes_r: 3, ..MatmulTile::SMALL }.check(TileLimits::WEBGPU).unwrap_err();
        assert!(error.to_string().contains("tile.lanes_r"), "{error}");
    }

    #[test]
    fn small_products_get_small_tiles() {
        let choose = |rows, columns, limits| MatmulTile::choose(&MatmulShape::new(rows, 64, columns), limits);
        assert_eq!(choose(4096, 4096, TileLimits::GENEROUS), MatmulTile::LARGE);
        assert_eq!(choose(4096, 4096, TileLimits::WEBGPU), MatmulTile::MEDIUM);
        assert_eq!(choose(1, 768, TileLimits::GENEROUS), MatmulTile::SMALL);
    }
}
