//! What is known of families of GPUs, as far as it decides how large the staged tile is.

use std::fmt;

/// A family of GPUs whose compiler and core want the same of a staged tile ([`StagedTile`](super::StagedTile)).
///
/// A hint, never a need: each family's tile is right on every device, and the limits of the device come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum GpuFamily {
    /// Nothing is known, or nothing better than the tile that suits most: Apple, Adreno, Mali, GCN, and browsers, which do not tell.
    #[default]
    Any,
    /// NVIDIA's.
    Nvidia,
    /// AMD's with subgroups of 32, RDNA.
    Rdna,
    /// Intel's with subgroups of 8 lanes: Xe-HPG and older ones.
    Intel,
    /// Intel's with subgroups of 16 lanes at least, from Xe2 on.
    IntelXe2,
}

/// What a family wants of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wants {
    /// A lane holds 1 group of 4 output columns instead of 2.
    pub(super) narrow: bool,
    /// A lane holds 4 groups of 4 output columns instead of 2.
    pub(super) wide: bool,
    /// A lane holds 8 keys of the scores instead of 4.
    pub(super) far: bool,
    /// A lane holds 8 queries instead of 4.
    pub(super) tall: bool,
    /// Groups of 4 elements of the head dimension that are staged at once, and steps that are spelt out, at most.
    pub(super) chunk: usize,
    /// Keys whose values are staged at once at most.
    pub(super) v_keys: usize,
    /// Lanes that a workgroup should have: enough to hide latency, few enough that several workgroups share a core.
    pub(super) lanes: usize,
    /// Lanes of the subgroups that share their queries; 0 where none do.
    pub(super) subgroup: usize,
}

impl Wants {
    /// What most compilers find registers for. Beyond 128 columns no subgroup has lanes enough but where each holds 16. As many values
    /// at once as steps between barriers of a chunk of q . k, or twice as many.
    const fn most(groups: usize) -> Self {
        Self {
            narrow: false,
            wide: groups > 32,
            far: false,
            tall: false,
            chunk: 8,
            v_keys: 16,
            lanes: 128,
            subgroup: 0,
        }
    }

    /// The same for subgroups of so many lanes that share their queries: up to 64 columns lanes hold 4, and there are twice as many.
    const fn shared(self, subgroup: usize, groups: usize) -> Self {
        let narrow = groups <= 16;
        Self { narrow, lanes: if narrow { 256 } else { 128 }, subgroup, ..self }
    }
}

impl GpuFamily {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Any, Self::Nvidia, Self::Rdna, Self::Intel, Self::IntelXe2];

    /// The one table of what they want, for so many groups of 4 output columns: by registers, spills and shares of the peak that
    /// `cargo xtask isa` predicts (docs/SPEED.md). [`why`](Self::why) gives the reasons. First what suits best, then what suits where the device
    /// has too little workgroup memory for that, or the call too few rows. `subgroups`: whether shaders may ask for those.
    pub(super) const fn wants(self, groups: usize, subgroups: bool) -> [Wants; 2] {
        let most = Wants::most(groups);
        let high = Wants { far: groups == 16, tall: groups >= 16 && groups <= 32, ..most };
        match self {
            Self::Any => [most; 2],
            Self::Nvidia => [high, Wants { wide: groups >= 16, far: groups >= 16, ..most }],
            Self::Rdna => {
                [Wants { far: false, ..high }, Wants { wide: groups >= 32, far: groups >= 32, ..most }]
            }
            Self::Intel => {
                let short = Wants { chunk: if groups == 32 { 4 } else { 8 }, ..most };
                let few =
                    Wants { v_keys: if groups <= 8 { 8 } else { 16 }, chunk: 4, ..most.shared(8, groups) };
                [if subgroups { few } else { Wants { far: groups == 16, ..short } }, short]
            }
            Self::IntelXe2 => {
                let short = Wants { chunk: if groups >= 32 { 4 } else { 8 }, ..most };
                let half = Wants {
                    chunk: if groups > 8 && groups <= 16 { 8 } else { 4 },
                    ..most.shared(16, groups)
                };
                [if subgroups { half } else { Wants { far: groups == 16, ..short } }, short]
            }
        }
    }

    /// Why its tiles are as they are.
    pub const fn why(self) -> &'static str {
        match self {
            Self::Any => {
                "4 keys and 8 columns per lane up to 128 columns, which most compilers find registers for"
            }
            Self::Nvidia => {
                "8 queries, and 8 keys where the columns leave lanes for them, from 64 to 128 columns: 255 registers hold them, and workgroup \
                 memory binds smaller ones"
            }
            Self::Rdna => {
                "8 queries per lane from 64 to 128 columns: 256 registers hold them, and workgroup memory binds smaller ones; 8 keys beside \
                 them would leave one wave per workgroup beside 25 KiB"
            }
            Self::Intel => {
                "with wgpu::Features::SUBGROUP lanes of a subgroup share their queries, whose numbers are then loaded, and kept, once for 8 lanes, and a \
                 lane holds 4 columns up to 64 and 4 steps, which 128 registers hold; without it 8 keys per lane for 64 columns, so that what they do not \
                 hold is spilled for twice as many products"
            }
            Self::IntelXe2 => {
                "with wgpu::Features::SUBGROUP lanes of a subgroup share their queries, whose numbers are then loaded, and kept, once for 16 lanes, and a \
                 lane holds 4 columns up to 64, which 128 registers hold; without it 8 keys per lane for 64 columns, so that what they do not hold is \
                 spilled for twice as many products"
            }
        }
    }
}

impl fmt::Display for GpuFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "any GPU",
            Self::Nvidia => "NVIDIA",
            Self::Rdna => "AMD RDNA",
            Self::Intel => "Intel",
            Self::IntelXe2 => "Intel Xe2",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wgsl::{Tile, TileLimits};

    /// The tiles of a family for d = dv = 32, 64, 128, 256.
    fn tiles(family: GpuFamily, subgroups: bool) -> [String; 4] {
        let limits = TileLimits { family, subgroups, ..TileLimits::GENEROUS };
        [32, 64, 128, 256].map(|dim| Tile::choose(dim, dim, 64, 64, limits).unwrap().to_string())
    }

    #[test]
    fn each_family_has_the_tiles_of_the_table() {
        let any = [
            "64x16 chunk 8 v 16 q-resident",
            "64x32 chunk 8 v 16",
            "32x64 chunk 8 v 16",
            "32x64 chunk 8 v 16",
        ];
        let nvidia = [any[0], "64x64 chunk 8 v 16 far tall", "64x64 chunk 8 v 16 tall", any[3]];
        let rdna = [any[0], "64x32 chunk 8 v 16 tall", "64x64 chunk 8 v 16 tall", any[3]];
        for subgroups in [false, true] {
            assert_eq!(tiles(GpuFamily::Any, subgroups), any);
            assert_eq!(tiles(GpuFamily::Nvidia, subgroups), nvidia);
            assert_eq!(tiles(GpuFamily::Rdna, subgroups), rdna);
        }
        let far = "64x64 chunk 8 v 16 far";
        assert_eq!(tiles(GpuFamily::Intel, false), [any[0], far, "32x64 chunk 4 v 16", any[3]]);
        assert_eq!(
            tiles(GpuFamily::IntelXe2, false),
            [any[0], far, "32x64 chunk 4 v 16", "32x64 chunk 4 v 8"]
        );
    }

    #[test]
    fn intels_subgroups_share_their_queries_where_they_may() {
        let wider = ["32x64 chunk 4 v 16 by-subgroup", "32x64 chunk 4 v 8 by-subgroup"];
        assert_eq!(
            tiles(GpuFamily::Intel, true),
            [
                "64x32 chunk 4 v 8 narrow by-subgroup",
                "64x64 chunk 4 v 16 narrow by-subgroup",
                wider[0],
                wider[1]
            ]
        );
        assert_eq!(
            tiles(GpuFamily::IntelXe2, true),
            [
                "64x64 chunk 4 v 16 narrow by-subgroup",
                "64x64 chunk 8 v 16 narrow by-subgroup",
                wider[0],
                wider[1]
            ]
        );
        // A row has as many lanes as a subgroup, however few its columns.
        for (family, lanes) in [(GpuFamily::Intel, 8), (GpuFamily::IntelXe2, 16)] {
            let limits = TileLimits { family, subgroups: true, ..TileLimits::WEBGPU };
            for (dim, rows) in (1..=512).flat_map(|dim| [(dim, 16), (dim, 64)]) {
                let Tile::Staged(tile) = Tile::choose(dim, dim, rows, 64, limits).unwrap() else {
                    unreachable!()
                };
                assert!(!tile.by_subgroup || tile.lanes_c >= lanes, "{family}: {tile:?}");
            }
        }
    }

    #[test]
    fn little_memory_and_few_rows_have_tiles_that_are_not_cut_down() {
        let tile = |family, rows, bytes| {
            let limits = TileLimits { family, workgroup_bytes: bytes, ..TileLimits::GENEROUS };
            Tile::choose(64, 64, rows, 64, limits).unwrap().to_string()
        };
        assert_eq!(tile(GpuFamily::Nvidia, 64, 16384), "64x32 chunk 8 v 16 wide far");
        assert_eq!(tile(GpuFamily::Rdna, 64, 16384), "64x32 chunk 8 v 16 tall");
        assert_eq!(tile(GpuFamily::Intel, 64, 16384), "64x32 chunk 8 v 16");
        let few = tile(GpuFamily::Any, 16, 32768);
        assert!(GpuFamily::ALL.into_iter().all(|family| tile(family, 16, 32768) == few), "{few}");
    }

    #[test]
    fn every_familys_tiles_fit_every_device() {
        for (family, subgroups) in
            GpuFamily::ALL.into_iter().flat_map(|family| [(family, false), (family, true)])
        {
            let limits = TileLimits { family, subgroups, ..TileLimits::WEBGPU };
            for (dim, rows) in (1..=512).flat_map(|dim| [(dim, 8), (dim, 64)]) {
                let tile = Tile::choose(dim, dim, rows, 64, limits).unwrap();
                tile.check(dim, 64).unwrap();
                let most = if dim <= 256 { 64 } else { 128 };
                assert!(
                    tile.workgroup_bytes(dim) <= limits.workgroup_bytes && tile.keys() <= most,
                    "{family}: {tile}"
                );
            }
        }
    }
}
