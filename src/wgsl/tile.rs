//! How a workgroup of the blocked kernel cuts its work, and what lies where in workgroup memory.

use super::family::Wants;
use super::limits::{check_powers, strange_bytes};
use super::{CooperativeTile, GpuFamily, Header, MatrixSums, TileKind, TileLimits};
use crate::{Error, Result};
use std::fmt;

/// The sizes of a workgroup of `attention.wgsl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Tile {
    /// Of a [`TileKind::Staged`].
    Staged(StagedTile),
    /// Of a [`TileKind::Direct`].
    Direct(DirectTile),
    /// Of a [`TileKind::Cooperative`].
    Cooperative(CooperativeTile),
}

/// Sizes of a workgroup whose lanes work alone: each on 4 queries by 16 keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct DirectTile {
    /// Lanes; 4 times as many rows.
    pub lanes: usize,
}

/// Sizes of a workgroup whose lanes share workgroup memory. A lane holds 4 or 8 queries by 4 or 8 keys of the scores; the sizes say
/// how many lanes there are each way and how much is staged at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct StagedTile {
    /// Lanes along the queries; 4 times as many rows, or 8 times where [`tall`](Self::tall).
    pub lanes_r: usize,
    /// Lanes along the keys, and along the output's columns; 4 times as many keys, or 8 times where [`far`](Self::far).
    pub lanes_c: usize,
    /// A lane holds 1 group of 4 output columns instead of 2; not where it is [`wide`](Self::wide) or [`tall`](Self::tall).
    #[cfg_attr(feature = "serde", serde(default))]
    pub narrow: bool,
    /// A lane holds 4 groups of 4 output columns instead of 2.
    pub wide: bool,
    /// A lane holds 8 keys of the scores instead of 4.
    pub far: bool,
    /// A lane holds 8 queries instead of 4; not where it is [`wide`](Self::wide).
    pub tall: bool,
    /// Groups of 4 elements of the head dimension that are staged at once, and keys whose products with values are spelt out: 8 at most.
    pub chunk: usize,
    /// Keys whose values are staged at once: a chunk at least.
    pub v_keys: usize,
    /// All of a row tile's queries stay in workgroup memory, instead of being staged with each chunk of keys.
    pub q_resident: bool,
    /// Lanes of a subgroup share their queries, and the compiler sees it, unless a subgroup has more lanes than there are along the keys. Needs
    /// `wgpu::Features::SUBGROUP`.
    #[cfg_attr(feature = "serde", serde(default))]
    pub by_subgroup: bool,
}

/// Where the pieces begin in the workgroup array, and its length: all in strips.
struct Arena {
    q_at: usize,
    k_at: usize,
    p_at: usize,
    v_at: usize,
    reduce_at: usize,
    len: usize,
}

impl Tile {
    /// Whether only devices that compute on a CPU would run it.
    pub(super) const fn is_for_cpus(&self) -> bool {
        match self {
            Self::Staged(_) => false,
            Self::Direct(_) => true,
            Self::Cooperative(tile) => tile.matrices.subgroup < 16,
        }
    }

    /// Queries of a workgroup.
    pub const fn rows(&self) -> usize {
        match self {
            Self::Staged(tile) => tile.rows(),
            Self::Direct(tile) => 4 * tile.lanes,
            Self::Cooperative(tile) => tile.rows(),
        }
    }

    /// Keys of a tile.
    pub const fn keys(&self) -> usize {
        match self {
            Self::Staged(tile) => tile.keys(),
            Self::Direct(_) => DirectTile::KEYS,
            Self::Cooperative(tile) => tile.keys(),
        }
    }

    /// Lanes of a workgroup.
    pub const fn lanes(&self) -> usize {
        match self {
            Self::Staged(tile) => tile.lanes(),
            Self::Direct(tile) => tile.lanes,
            Self::Cooperative(tile) => tile.lanes(),
        }
    }

    /// Bytes of workgroup memory.
    pub fn workgroup_bytes(&self, head_dim: usize) -> usize {
        match self {
            Self::Staged(tile) => tile.workgroup_bytes(head_dim),
            Self::Direct(_) => 0,
            Self::Cooperative(tile) => tile.workgroup_bytes(head_dim),
        }
    }

    /// The largest tile that the device allows, of at most `rows` rows (a mask block's, or all that there are) and, where the columns of the
    /// output leave the choice, of at most `keys` keys (a mask block's).
    ///
    /// # Errors
    /// [`Error::Limit`] if even the smallest does not fit.
    pub fn choose(
        head_dim: usize,
        value_dim: usize,
        rows: usize,
        keys: usize,
        limits: TileLimits,
    ) -> Result<Self> {
        match limits.kind {
            TileKind::Staged => StagedTile::choose(head_dim, value_dim, rows, keys, limits).map(Self::Staged),
            TileKind::Direct => Ok(Self::Direct(DirectTile::choose(rows))),
            TileKind::Cooperative(matrices) => {
                CooperativeTile::choose(head_dim, value_dim, rows, limits, matrices).map(Self::Cooperative)
            }
        }
    }

    /// With its sums elsewhere, if it is one of cooperative matrices.
    #[must_use]
    pub fn matrix_sums(self, sums: MatrixSums) -> Self {
        match self {
            Self::Cooperative(tile) => Self::Cooperative(CooperativeTile { sums, ..tile }),
            other => other,
        }
    }

    /// Checks a tile that a caller made up.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the size that does not fit.
    pub fn check(&self, value_dim: usize, block_q: usize) -> Result<()> {
        match self {
            Self::Staged(tile) => tile.check(value_dim)?,
            Self::Direct(tile) => check_powers(&[("tile.lanes", tile.lanes)])?,
            Self::Cooperative(tile) => tile.check(value_dim)?,
        }
        if !block_q.is_multiple_of(self.rows()) {
            let need = format!("rows that divide block_q ({block_q})");
            return Err(Error::argument("tile", need, self.rows()));
        }
        Ok(())
    }

    /// The constants of the shader, and the file that they are for.
    pub(super) fn constants(&self, header: Header, head_dim: usize) -> (Header, &'static str) {
        self.constants_of(header, head_dim, self.keys())
    }

    /// The same, for tiles of so many keys.
    pub(super) fn constants_of(
        &self,
        header: Header,
        head_dim: usize,
        keys: usize,
    ) -> (Header, &'static str) {
        let header = header.u32s(&[("LANES", self.lanes()), ("ROWS", self.rows()), ("KEYS", keys)]);
        match self {
            Self::Staged(tile) => {
                (tile.constants(header, head_dim), include_str!("../../shaders/tile/staged.wgsl"))
            }
            Self::Direct(tile) => (tile.constants(header), include_str!("../../shaders/tile/direct.wgsl")),
            Self::Cooperative(tile) => {
                (tile.constants(header, head_dim), include_str!("../../shaders/tile/cooperative.wgsl"))
            }
        }
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{} ", self.rows(), self.keys())?;
        match self {
            Self::Staged(tile) => {
                write!(f, "chunk {} v {}", tile.chunk, tile.v_keys)?;
                // Wide by choice: from 132 columns on every tile is.
                let flags = [
                    (tile.narrow, " narrow"),
                    (tile.wide && tile.lanes_c < 16, " wide"),
                    (tile.far, " far"),
                    (tile.tall, " tall"),
                    (tile.q_resident, " q-resident"),
                    (tile.by_subgroup, " by-subgroup"),
                ];
                flags.iter().filter(|(is, _)| *is).try_for_each(|(_, name)| f.write_str(name))
            }
            Self::Direct(_) => f.write_str("direct"),
            Self::Cooperative(tile) => write!(f, "matrix {tile}"),
        }
    }
}

impl DirectTile {
    /// 4 columns of 4 keys each: as many products as hide the cost of a loop's step (64x16 measured against 64x8 on lavapipe:
    /// 1.3 times as fast).
    const KEYS: usize = 16;

    /// A whole row block, in two of the 8-wide vectors of today's CPUs by default: more share the loads of k and v.
    fn choose(rows: usize) -> Self {
        Self { lanes: (rows / 4).clamp(1, 16) }
    }

    fn constants(&self, header: Header) -> Header {
        header.u32s(&[("LANES_R", self.lanes), ("LANES_C", Self::KEYS / 4)])
    }
}

impl StagedTile {
    /// The smallest.
    const ONE: Self = Self {
        lanes_r: 1,
        lanes_c: 1,
        narrow: false,
        wide: false,
        far: false,
        tall: false,
        chunk: 1,
        v_keys: 1,
        q_resident: false,
        by_subgroup: false,
    };
    /// Lanes that a workgroup has at least, if the keys allow: a wave of the widest GPUs.
    const FEW_LANES: usize = 64;
    /// Keys of a tile at most: as many as the error bound lets be added up in a row. From 260 columns on all tiles have them.
    const MOST_KEYS: usize = 128;

    /// Queries of a workgroup.
    pub const fn rows(&self) -> usize {
        4 * self.fours()
    }

    /// Fours of queries of a workgroup: lanes hold one or two.
    const fn fours(&self) -> usize {
        (if self.tall { 2 } else { 1 }) * self.lanes_r
    }

    /// Keys of a tile.
    pub const fn keys(&self) -> usize {
        (if self.far { 8 } else { 4 }) * self.lanes_c
    }

    /// Lanes of a workgroup.
    pub const fn lanes(&self) -> usize {
        self.lanes_r * self.lanes_c
    }

    /// The largest that fits.
    fn choose(
        head_dim: usize,
        value_dim: usize,
        rows: usize,
        keys: usize,
        limits: TileLimits,
    ) -> Result<Self> {
        let [first, second] = limits.family.wants(value_dim.div_ceil(4), limits.subgroups);
        let sized = |wants: Wants, limits: TileLimits| {
            // Queries of one chunk stay: they would be staged whole with each tile of keys. More of them take the place of other workgroups.
            let residences: &[bool] =
                if head_dim.div_ceil(4) <= wants.chunk { &[true, false] } else { &[false] };
            Self::largest([head_dim, value_dim], [rows, keys], limits, wants, residences)
        };
        // A tile that the call or the device is too small for is not cut down, where there is another.
        let whole = sized(first, TileLimits { workgroup_bytes: usize::MAX, ..limits })?;
        match sized(first, limits) {
            Ok(tile) if tile.rows() == whole.rows() && tile.tall == first.tall => Ok(tile),
            _ => sized(second, limits),
        }
    }

    /// The largest that fits and keeps no rows, for sums of so many columns.
    pub(super) fn choose_streaming(
        columns: usize,
        rows: usize,
        keys: usize,
        limits: TileLimits,
    ) -> Result<Self> {
        // A pass of the gradients holds sums of its own: of the family's wishes it takes the chunk.
        let groups = columns.div_ceil(4);
        let [any, own] = [GpuFamily::Any, limits.family].map(|family| family.wants(groups, false)[1]);
        let wants = Wants { chunk: own.chunk, ..any };
        Self::largest([columns; 2], [rows, keys], limits, wants, &[false])
    }

    fn largest(
        [head_dim, value_dim]: [usize; 2],
        [rows, keys]: [usize; 2],
        limits: TileLimits,
        wants: Wants,
        residences: &[bool],
    ) -> Result<Self> {
        let value_groups = value_dim.div_ceil(4);
        let Wants { narrow, wide, chunk, .. } = wants;
        let base = Self { narrow, wide, by_subgroup: wants.subgroup > 0, ..Self::ONE };
        let mut lanes_c = value_groups.div_ceil(base.groups()).next_power_of_two().max(4).max(wants.subgroup);
        let lanes = limits.lanes.min(wants.lanes);
        let keys = keys.min(Self::MOST_KEYS);
        let tall = wants.tall && rows / 8 * lanes_c >= Self::FEW_LANES;
        let per_row_lane = if tall { 8 } else { 4 };
        let far = wants.far && 8 * lanes_c <= keys && rows / per_row_lane * lanes_c >= Self::FEW_LANES;
        // Lanes that few rows leave idle take more keys.
        while rows / per_row_lane * lanes_c < Self::FEW_LANES && 8 * lanes_c <= keys {
            lanes_c *= 2;
        }
        let mut lanes_r = (rows / per_row_lane).min(lanes / lanes_c).max(1);
        // Fewer rows only if nothing else fits: they divide the traffic of k and v.
        loop {
            let base = Self { lanes_r, lanes_c, far, tall, chunk, v_keys: wants.v_keys, ..base };
            if let Some(tile) = base.fitting(head_dim, limits, residences) {
                return Ok(tile);
            }
            if lanes_r == 1 {
                let smallest = Self { chunk: 2, v_keys: 4, ..base };
                return Err(Error::limit(
                    "the smallest attention tile",
                    "max_compute_workgroup_storage_size",
                    smallest.workgroup_bytes(head_dim) as u64,
                    limits.workgroup_bytes as u64,
                ));
            }
            lanes_r /= 2;
        }
    }

    /// Of these lanes, the tile of the largest chunk, then of the most values at a time, that fits.
    fn fitting(self, head_dim: usize, limits: TileLimits, residences: &[bool]) -> Option<Self> {
        let most = self.keys().min(self.v_keys);
        let sizes = |chunk: usize| {
            let v_keys = std::iter::successors(Some(most), |v_keys| Some(v_keys / 2));
            v_keys.take_while(move |&v_keys| v_keys >= chunk).map(move |v_keys| (chunk, v_keys))
        };
        let chunks = [8, 4, 2].into_iter().filter(|&chunk| chunk <= self.chunk);
        let all = chunks.flat_map(sizes).map(|(chunk, v_keys)| Self { chunk, v_keys, ..self });
        // Small pieces cost a barrier each: below half the preferred ones give up residence first.
        let good = |tile: &Self| !tile.q_resident || (tile.chunk == self.chunk && 2 * tile.v_keys >= most);
        let of_each = residences
            .iter()
            .flat_map(|&q_resident| all.clone().map(move |tile| Self { q_resident, ..tile }));
        of_each
            .into_iter()
            .find(|tile| good(tile) && tile.workgroup_bytes(head_dim) <= limits.workgroup_bytes)
    }

    fn check(&self, value_dim: usize) -> Result<()> {
        check_powers(&[
            ("tile.lanes_r", self.lanes_r),
            ("tile.lanes_c", self.lanes_c),
            ("tile.chunk", self.chunk),
            ("tile.v_keys", self.v_keys),
        ])?;
        if self.chunk > 8 || self.chunk > self.v_keys {
            let need = format!("at most 8 and at most tile.v_keys ({})", self.v_keys);
            return Err(Error::argument("tile.chunk", need, self.chunk));
        }
        if self.tall && self.wide {
            return Err(Error::argument("tile.tall", "a tile that is not wide", true));
        }
        if self.narrow && (self.tall || self.wide) {
            return Err(Error::argument("tile.narrow", "a tile that is neither tall nor wide", true));
        }
        if 4 * self.v_groups() < value_dim {
            let need = format!("columns for value_dim ({value_dim})");
            return Err(Error::argument("tile.lanes_c", need, 4 * self.v_groups()));
        }
        if self.v_keys > self.keys() {
            let need = format!("at most the tile's keys ({})", self.keys());
            return Err(Error::argument("tile.v_keys", need, self.v_keys));
        }
        Ok(())
    }

    fn constants(&self, header: Header, head_dim: usize) -> Header {
        let arena = self.arena(head_dim);
        header
            .u32s(&[
                ("LANES_R", self.fours()),
                ("LANES_C", self.lanes_c),
                ("V_KEYS", self.v_keys),
                ("CHUNK", self.chunk),
                ("Q_AT", arena.q_at),
                ("K_AT", arena.k_at),
                ("P_AT", arena.p_at),
                ("V_AT", arena.v_at),
                ("REDUCE_AT", arena.reduce_at),
                ("ARENA", arena.len * self.strip()),
                ("STRIP", self.strip()),
                ("V_GROUPS", self.v_groups()),
            ])
            .bools(&[
                ("NARROW", self.narrow),
                ("WIDE", self.wide),
                ("FAR", self.far),
                ("TALL", self.tall),
                ("Q_RESIDENT", self.q_resident),
                ("REDUCE_UNDER_V", self.reduces_under_v()),
            ])
    }

    /// Vectors of a strip: odd, so that lanes on neighbouring rows hit different banks.
    fn strip(&self) -> usize {
        self.chunk | 1
    }

    /// Groups of 4 columns that the lanes of a row hold.
    fn v_groups(&self) -> usize {
        self.lanes_c * self.groups()
    }

    /// Groups of 4 columns that a lane holds.
    const fn groups(&self) -> usize {
        match (self.narrow, self.wide) {
            (true, _) => 1,
            (false, false) => 2,
            (false, true) => 4,
        }
    }

    /// What the lanes of a row compare lies where v will. It costs a barrier: for tiles that memory is short for, which the least pieces of
    /// v tell.
    fn reduces_under_v(&self) -> bool {
        self.v_keys == self.chunk
    }

    fn arena(&self, head_dim: usize) -> Arena {
        let chunks = if self.q_resident { head_dim.div_ceil(4).div_ceil(self.chunk) } else { 1 };
        let q = self.rows() * chunks;
        let k = self.keys();
        let p = self.keys() / self.chunk * self.fours();
        let v = self.v_keys / self.chunk * self.v_groups();
        let reduce = self.lanes_c.div_ceil(self.chunk) * self.fours();
        // A resident q must outlive p; otherwise p and v lie over q and k, which are dead by then.
        let p_at = if self.q_resident { q } else { 0 };
        let all = (q + k).max(p_at + p + v);
        let reduce_at = if self.reduces_under_v() { (q + k).max(p_at + p) } else { all };
        Arena { q_at: 0, k_at: q, p_at, v_at: p_at + p, reduce_at, len: all.max(reduce_at + reduce) }
    }

    /// Bytes of workgroup memory: the arena, and a bit per key.
    pub fn workgroup_bytes(&self, head_dim: usize) -> usize {
        16 * self.arena(head_dim).len * self.strip() + strange_bytes(self.keys())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_fits_the_webgpu_limits_with_the_default_block() {
        for head_dim in 1..=256 {
            for value_dim in 1..=256 {
                let tile = Tile::choose(head_dim, value_dim, 64, 64, TileLimits::WEBGPU).unwrap();
                assert!(tile.workgroup_bytes(head_dim) <= 16384, "{tile:?}");
                assert!(tile.lanes() <= 256 && 64 % tile.rows() == 0 && tile.rows() >= 16, "{tile:?}");
                tile.check(value_dim, 64).unwrap();
            }
        }
    }

    #[test]
    fn the_widest_rows_fit_the_webgpu_limits_too() {
        for value_dim in (257..=512).step_by(5).chain([512]) {
            for (head_dim, block_k) in [(1, 64), (64, 16), (320, 64), (576, 256)] {
                let tile = Tile::choose(head_dim, value_dim, 64, block_k, TileLimits::WEBGPU).unwrap();
                assert!(tile.workgroup_bytes(head_dim) <= 16384 && tile.keys() <= 128, "{tile:?}");
                assert!(tile.lanes() <= 256 && tile.rows() >= 8, "{tile:?}");
                tile.check(value_dim, 64).unwrap();
            }
        }
        let latent = |limits| Tile::choose(576, 512, 64, 64, limits).unwrap().to_string();
        assert_eq!(latent(TileLimits::WEBGPU), "8x128 chunk 4 v 4");
        assert_eq!(latent(TileLimits::GENEROUS), "16x128 chunk 8 v 8");
        let wide_head = Tile::choose(576, 64, 64, 64, TileLimits::GENEROUS).unwrap();
        assert_eq!(wide_head, Tile::choose(256, 64, 64, 64, TileLimits::GENEROUS).unwrap());
    }

    #[test]
    fn more_memory_takes_larger_pieces() {
        let small = Tile::choose(128, 128, 64, 64, TileLimits::WEBGPU).unwrap();
        let large = Tile::choose(128, 128, 64, 64, TileLimits::GENEROUS).unwrap();
        assert_eq!([small.to_string(), large.to_string()], ["32x64 chunk 8 v 8", "32x64 chunk 8 v 16"]);
        assert_eq!((large.rows(), large.keys(), large.lanes()), (32, 64, 128));
    }

    #[test]
    fn a_cpu_needs_no_workgroup_memory() {
        for (block_q, rows) in [(64, 64), (16, 16), (256, 64)] {
            let tile = Tile::choose(64, 64, block_q, 64, TileLimits::CPU).unwrap();
            assert_eq!((tile.rows(), tile.keys(), tile.workgroup_bytes(64)), (rows, 16, 0));
            tile.check(64, block_q).unwrap();
        }
    }

    #[test]
    fn too_little_memory_is_an_error_with_both_numbers() {
        let limits = TileLimits { workgroup_bytes: 256, ..TileLimits::WEBGPU };
        let text = Tile::choose(64, 64, 64, 64, limits).unwrap_err().to_string();
        assert!(text.contains("max_compute_workgroup_storage_size is 256"), "{text}");
    }
}
