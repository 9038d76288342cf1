//! Variants of the radix sort: `sort_count.wgsl`, `sort_scan.wgsl`, `sort_scatter.wgsl`.

use super::{Header, Shader};

/// Sizes of a pass of the radix sort.
pub struct SortPass;

impl SortPass {
    /// Bits of a digit.
    pub const DIGIT_BITS: u32 = 8;
    /// Lanes of a workgroup, and digits.
    pub const LANES: usize = 256;
    /// Tiles of [`LANES`](Self::LANES) keys that a workgroup takes one after the other.
    pub const TILES: usize = 8;
    /// Keys of a workgroup.
    pub const BLOCK: usize = Self::LANES * Self::TILES;

    /// Counts the digits of each block.
    pub fn count() -> Shader {
        let header = Header::default().u32s(&[("TILES", Self::TILES)]);
        header.shader("sort count".into(), "sort_count", &[include_str!("../../shaders/sort_count.wgsl")])
    }

    /// Sums the counts.
    pub fn scan() -> Shader {
        Header::default().shader(
            "sort scan".into(),
            "sort_scan",
            &[include_str!("../../shaders/sort_scan.wgsl")],
        )
    }

    /// Moves values, which are the keys' places where there are no `values`, and the keys where they are needed again.
    pub fn scatter(values: bool, write_keys: bool) -> Shader {
        let flag = |flag, name| if flag { name } else { "" };
        let label = format!("sort scatter{}{}", flag(values, " values"), flag(write_keys, " keys"));
        let files = [
            include_str!("../../shaders/sort_scatter.wgsl"),
            if values {
                include_str!("../../shaders/sort/values.wgsl")
            } else {
                include_str!("../../shaders/sort/places.wgsl")
            },
            if write_keys {
                include_str!("../../shaders/sort/keys.wgsl")
            } else {
                include_str!("../../shaders/sort/no_keys.wgsl")
            },
        ];
        Header::default().u32s(&[("TILES", Self::TILES)]).shader(label, "sort_scatter", &files)
    }

    pub(super) fn all() -> Vec<Shader> {
        let scatters = [(false, false), (false, true), (true, false), (true, true)];
        let mut list = vec![Self::count(), Self::scan()];
        list.extend(scatters.map(|(values, keys)| Self::scatter(values, keys)));
        list
    }
}
