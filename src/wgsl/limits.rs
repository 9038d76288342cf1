//! What a workgroup may have.

use super::{GpuFamily, Matrices};
use crate::{Error, Result};

/// What a device allows a workgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TileLimits {
    /// Bytes of workgroup memory to use at most.
    pub workgroup_bytes: usize,
    /// Lanes of a workgroup at most.
    pub lanes: usize,
    /// How lanes share their work there.
    pub kind: TileKind,
    /// Which of several sizes suits it.
    pub family: GpuFamily,
    /// Shaders may ask for subgroups: `wgpu::Features::SUBGROUP`.
    pub subgroups: bool,
}

impl TileLimits {
    /// What every WebGPU device has: 16 KiB and 256 lanes.
    pub const WEBGPU: Self = Self {
        workgroup_bytes: 16384,
        lanes: 256,
        kind: TileKind::Staged,
        family: GpuFamily::Any,
        subgroups: false,
    };
    /// Two workgroups of this size share the 64 KiB of an RDNA compute unit; more for one starves the other.
    pub const GENEROUS: Self = Self { workgroup_bytes: 32768, ..Self::WEBGPU };
    /// Cooperative matrices share what all lanes stage: one large workgroup gains more by them than two by each other.
    pub const COOPERATIVE_BYTES: usize = 49152;
    /// A software adapter.
    pub const CPU: Self = Self { kind: TileKind::Direct, ..Self::WEBGPU };

    /// The most that this kind of tile makes use of.
    pub const fn of(kind: TileKind) -> Self {
        let generous = Self { kind, ..Self::GENEROUS };
        match kind {
            TileKind::Cooperative(_) => Self { workgroup_bytes: Self::COOPERATIVE_BYTES, ..generous },
            TileKind::Staged | TileKind::Direct => generous,
        }
    }
}

/// How the lanes of a workgroup of `attention.wgsl` share its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TileKind {
    /// Through workgroup memory: `tile/staged.wgsl`. What GPUs want.
    Staged,
    /// Not at all: `tile/direct.wgsl`. What CPUs want, where workgroup memory and barriers are dear.
    Direct,
    /// Through workgroup memory and cooperative matrices of f16: `tile/cooperative.wgsl`.
    Cooperative(Matrices),
}

impl TileKind {
    /// Rows of a tile at least: with fewer, a workgroup had fewer lanes than the GPUs' waves, or matrices were cut.
    pub(crate) const fn least_rows(self) -> usize {
        match self {
            Self::Staged | Self::Direct => 8,
            Self::Cooperative(matrices) => 2 * matrices.size,
        }
    }
}

/// Sizes must be powers of two that a workgroup can have.
pub(super) fn check_powers(sizes: &[(&'static str, usize)]) -> Result<()> {
    let bad = sizes.iter().find(|(_, size)| !size.is_power_of_two() || *size > 256);
    bad.map_or(Ok(()), |(name, size)| Err(Error::argument(*name, "a power of two up to 256", size)))
}

/// Bytes of `strange_keys`: a bit per key, in whole vec4s.
pub(super) const fn strange_bytes(keys: usize) -> usize {
    16 * keys.div_ceil(128)
}
