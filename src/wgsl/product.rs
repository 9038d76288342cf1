//! How a workgroup of the matrix product cuts its work, and what lies where in workgroup memory.

use super::limits::check_powers;
use super::{FewRows, Header, Matrices, TileKind, TileLimits};
use crate::{AOrder, Error, KernelPath, MatmulShape, Result, WeightOrder};
use std::fmt;

/// The sizes of a workgroup of `matmul.wgsl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MatmulTile {
    /// Operands in workgroup memory: `product/staged.wgsl`. What GPUs want.
    Staged(StagedProduct),
    /// Each lane alone: `product/direct.wgsl`. What CPUs want.
    Direct(DirectProduct),
    /// For few rows and B `[out, in]`: `product/few.wgsl`. B is read at the speed of memory.
    Few(FewRows),
    /// Operands of f16 in workgroup memory and cooperative matrices: `product/cooperative.wgsl`.
    Cooperative(CooperativeProduct),
}

/// Sizes of a workgroup whose lanes share workgroup memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StagedProduct {
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

/// Sizes of a workgroup whose lanes work alone: each on 4 rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DirectProduct {
    /// Lanes; 4 times as many rows.
    pub lanes: usize,
    /// Groups of 16 columns.
    pub columns_16: usize,
    /// Groups of 4 elements of the inner dimension that a lane holds of A.
    pub chunk: usize,
}

/// Sizes of a workgroup whose subgroups hold C in cooperative matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CooperativeProduct {
    /// The device's.
    pub matrices: Matrices,
    /// Subgroups along the rows.
    pub subgroups_r: usize,
    /// Subgroups along the columns.
    pub subgroups_c: usize,
    /// A subgroup holds 4 by 4 matrices instead of 2 by 2.
    pub wide: bool,
}

impl MatmulTile {
    /// 128 x 128 for 256 lanes of 64 results each: for large products on devices with more workgroup memory than
    /// WebGPU promises (20 KiB).
    pub const LARGE: Self =
        Self::Staged(StagedProduct { lanes_r: 16, lanes_c: 16, tall: true, wide: true, chunk: 4 });
    /// 64 x 64 for 64 lanes of 64 results each.
    pub const MEDIUM: Self =
        Self::Staged(StagedProduct { lanes_r: 8, lanes_c: 8, tall: true, wide: true, chunk: 4 });
    /// 32 x 32 for 64 lanes of 16 results each: for small products, which larger tiles would leave on few cores.
    pub const SMALL: Self =
        Self::Staged(StagedProduct { lanes_r: 8, lanes_c: 8, tall: false, wide: false, chunk: 8 });
    /// 32 x 128 for 8 lanes, the width of today's CPUs' vectors.
    pub const DIRECT: Self = Self::Direct(DirectProduct { lanes: 8, columns_16: 8, chunk: 64 });

    /// Tiles below which a smaller size is taken: about as many as large GPUs run at once.
    const ENOUGH: usize = 128;

    /// The tile for up to [`FewRows::MOST`] rows of a product whose B is stored `[out, in]`; none for others.
    pub fn few(shape: &MatmulShape, kind: TileKind) -> Option<Self> {
        let fits = shape.weights == WeightOrder::OutIn && shape.a_order == AOrder::RowsInner;
        let few = (1..=FewRows::MOST).contains(&shape.rows);
        (fits && few).then(|| Self::Few(FewRows::choose(shape, kind == TileKind::Direct)))
    }

    /// Rows of a tile.
    pub const fn rows(&self) -> usize {
        match self {
            Self::Staged(tile) => tile.rows(),
            Self::Direct(tile) => 4 * tile.lanes,
            Self::Few(tile) => tile.rows(),
            Self::Cooperative(tile) => tile.side() * tile.subgroups_r,
        }
    }

    /// Columns of a tile.
    pub const fn columns(&self) -> usize {
        match self {
            Self::Staged(tile) => 4 * tile.column_groups(),
            Self::Direct(tile) => 16 * tile.columns_16,
            Self::Few(tile) => 4 * tile.column_groups,
            Self::Cooperative(tile) => tile.side() * tile.subgroups_c,
        }
    }

    /// Lanes of a workgroup.
    pub const fn lanes(&self) -> usize {
        match self {
            Self::Staged(tile) => tile.lanes_r * tile.lanes_c,
            Self::Direct(tile) => tile.lanes,
            Self::Few(tile) => tile.lanes,
            Self::Cooperative(tile) => tile.matrices.subgroup * tile.subgroups_r * tile.subgroups_c,
        }
    }

    /// The largest tile that the device allows and that cuts the product into enough of them.
    pub fn choose(shape: &MatmulShape, limits: TileLimits) -> Self {
        let [largest, smaller @ ..] = match limits.kind {
            TileKind::Direct => return Self::DIRECT,
            TileKind::Staged => [Self::LARGE, Self::MEDIUM, Self::SMALL],
            TileKind::Cooperative(matrices) => {
                let of = |subgroups, wide| {
                    let (subgroups_r, subgroups_c) = (subgroups, subgroups);
                    Self::Cooperative(CooperativeProduct { matrices, subgroups_r, subgroups_c, wide })
                };
                [of(2, true), of(2, false), of(1, false)]
            }
        };
        let fits =
            |tile: &Self| tile.workgroup_bytes() <= limits.workgroup_bytes && tile.lanes() <= limits.lanes;
        let enough = |tile: &Self| {
            let tiles = shape.rows.div_ceil(tile.rows()) * shape.columns.div_ceil(tile.columns());
            tiles.saturating_mul(shape.batch) >= Self::ENOUGH
        };
        let [medium, smallest] = smaller;
        [largest, medium].into_iter().find(|tile| fits(tile) && enough(tile)).unwrap_or(smallest)
    }

    /// Checks a tile that a caller made up.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the size that does not fit, [`Error::Limit`] for what the device does not have.
    pub fn check(&self, limits: TileLimits) -> Result<()> {
        match self {
            Self::Staged(tile) => check_powers(&[
                ("tile.lanes_r", tile.lanes_r),
                ("tile.lanes_c", tile.lanes_c),
                ("tile.chunk", tile.chunk),
            ])?,
            Self::Direct(tile) => check_powers(&[
                ("tile.lanes", tile.lanes),
                ("tile.columns_16", tile.columns_16),
                ("tile.chunk", tile.chunk),
            ])?,
            Self::Few(tile) => tile.check()?,
            Self::Cooperative(tile) => {
                check_powers(&[
                    ("tile.subgroups_r", tile.subgroups_r),
                    ("tile.subgroups_c", tile.subgroups_c),
                ])?;
                tile.matrices.check()?;
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

    /// Whether the tile takes A and B as they lie.
    #[cfg(feature = "gpu")]
    pub(crate) fn check_orders(&self, shape: &MatmulShape) -> Result<()> {
        let fits = shape.weights == WeightOrder::OutIn && shape.a_order == AOrder::RowsInner;
        if matches!(self, Self::Few(_)) && !fits {
            let got = format!("{:?} by {:?}", shape.a_order, shape.weights);
            return Err(Error::argument(
                "tile",
                "a tile other than that of few rows, unless A lies RowsInner and B OutIn",
                got,
            ));
        }
        Ok(())
    }

    /// Bytes of workgroup memory, for A and B of either order.
    pub fn workgroup_bytes(&self) -> usize {
        match self {
            Self::Staged(tile) => 16 * tile.arena(WeightOrder::InOut).max(tile.arena(WeightOrder::OutIn)),
            Self::Direct(_) => 0,
            Self::Few(tile) => tile.workgroup_bytes(),
            Self::Cooperative(tile) => tile.workgroup_bytes(),
        }
    }

    /// The kernel that it belongs to.
    pub const fn path(&self) -> KernelPath {
        match self {
            Self::Staged(_) | Self::Direct(_) | Self::Few(_) => KernelPath::Scalar,
            Self::Cooperative(_) => KernelPath::Cooperative,
        }
    }

    pub(super) const fn is_for_cpus(&self) -> bool {
        match self {
            Self::Direct(_) => true,
            Self::Few(tile) => tile.is_for_cpus(),
            Self::Staged(_) | Self::Cooperative(_) => false,
        }
    }

    pub(super) const fn provider(&self) -> &'static str {
        match self {
            Self::Staged(_) => include_str!("../../shaders/product/staged.wgsl"),
            Self::Direct(_) => include_str!("../../shaders/product/direct.wgsl"),
            Self::Few(_) => include_str!("../../shaders/product/few.wgsl"),
            Self::Cooperative(_) => include_str!("../../shaders/product/cooperative.wgsl"),
        }
    }

    pub(super) fn constants(&self, header: Header, a_order: AOrder, weights: WeightOrder) -> Header {
        match self {
            Self::Staged(tile) => tile.constants(header, weights),
            Self::Direct(tile) => {
                header.u32s(&[("COLUMN_GROUPS", 4 * tile.columns_16), ("CHUNK", tile.chunk)])
            }
            Self::Few(tile) => tile.constants(header),
            Self::Cooperative(tile) => tile.constants(header, a_order, weights),
        }
    }
}

impl StagedProduct {
    /// Groups of 4 columns of a tile.
    const fn column_groups(&self) -> usize {
        self.lanes_c * if self.wide { 2 } else { 1 }
    }

    const fn rows(&self) -> usize {
        self.lanes_r * if self.tall { 8 } else { 4 }
    }

    /// Odd, so that lanes on neighbouring rows hit different banks.
    const fn pitch(&self) -> usize {
        self.chunk | 1
    }

    /// Vectors of A; B's begin behind them.
    const fn b_at(&self) -> usize {
        self.rows() * self.pitch()
    }

    /// Vectors of A and B.
    const fn arena(&self, order: WeightOrder) -> usize {
        let of_b = match order {
            WeightOrder::InOut => self.chunk,
            WeightOrder::OutIn => self.pitch(),
        };
        self.b_at() + 4 * self.column_groups() * of_b
    }

    fn constants(&self, header: Header, weights: WeightOrder) -> Header {
        let groups = self.column_groups();
        // How far apart lie, in vectors: neighbouring lanes' parts of B, a lane's 4 vectors, and those of the next 4 k.
        let [lane, step, group] = match weights {
            WeightOrder::InOut => [1, groups, 4 * groups],
            WeightOrder::OutIn => [self.pitch(), groups * self.pitch(), 1],
        };
        header
            .u32s(&[
                ("LANES_R", self.lanes_r),
                ("LANES_C", self.lanes_c),
                ("COLUMN_GROUPS", groups),
                ("CHUNK", self.chunk),
                ("A_PITCH", self.pitch()),
                ("B_AT", self.b_at()),
                ("B_LANE", lane),
                ("B_STEP", step),
                ("B_GROUP", group),
                ("ARENA", self.arena(weights)),
            ])
            .bools(&[("TALL", self.tall), ("WIDE", self.wide)])
    }
}

impl CooperativeProduct {
    /// Elements of the inner dimension that are staged at once: two steps of the larger matrices.
    const DEPTH: usize = 32;
    /// As [`CooperativeTile`](super::CooperativeTile)'s.
    const PAD: usize = 8;

    /// Rows, and columns, of a subgroup.
    const fn side(&self) -> usize {
        self.matrices.size * if self.wide { 4 } else { 2 }
    }

    /// Elements between rows of A as it is staged, and their number.
    const fn a_rows(&self, order: AOrder) -> (usize, usize) {
        let rows = self.side() * self.subgroups_r;
        match order {
            AOrder::RowsInner => (Self::DEPTH + Self::PAD, rows),
            AOrder::InnerRows => (rows + Self::PAD, Self::DEPTH),
        }
    }

    /// Elements between rows of B as it is staged, and their number.
    const fn b_rows(&self, weights: WeightOrder) -> (usize, usize) {
        let columns = self.side() * self.subgroups_c;
        match weights {
            WeightOrder::InOut => (columns + Self::PAD, Self::DEPTH),
            WeightOrder::OutIn => (Self::DEPTH + Self::PAD, columns),
        }
    }

    fn workgroup_bytes(&self) -> usize {
        let elements = |(pitch, rows)| pitch * rows;
        let of_a = [AOrder::RowsInner, AOrder::InnerRows].map(|order| elements(self.a_rows(order)));
        let of_b = [WeightOrder::InOut, WeightOrder::OutIn].map(|order| elements(self.b_rows(order)));
        let patches = self.subgroups_r * self.subgroups_c * self.matrices.size.pow(2);
        2 * (of_a[0].max(of_a[1]) + of_b[0].max(of_b[1])) + 4 * patches
    }

    fn constants(&self, header: Header, a_order: AOrder, weights: WeightOrder) -> Header {
        let (a_pitch, a_rows) = self.a_rows(a_order);
        let (b_pitch, b_rows) = self.b_rows(weights);
        self.matrices
            .declared(header)
            .u32s(&[
                ("SUBGROUPS_C", self.subgroups_c),
                ("DEPTH", Self::DEPTH),
                // In vec4s.
                ("A_PITCH", a_pitch / 4),
                ("A_LEN", a_pitch / 4 * a_rows),
                ("B_PITCH", b_pitch / 4),
                ("B_LEN", b_pitch / 4 * b_rows),
            ])
            .bools(&[("WIDE", self.wide)])
    }
}

impl fmt::Display for MatmulTile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Staged(_) => "tile",
            Self::Direct(_) => "direct",
            Self::Few(_) => {
                return write!(f, "few {}x{} of {} lanes", self.rows(), self.columns(), self.lanes());
            }
            Self::Cooperative(_) => "matrix",
        };
        write!(f, "{kind} {}x{}", self.rows(), self.columns())
    }
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
        let odd = StagedProduct { lanes_r: 3, lanes_c: 8, tall: false, wide: false, chunk: 8 };
        let error = MatmulTile::Staged(odd).check(TileLimits::WEBGPU).unwrap_err();
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
