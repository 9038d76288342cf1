//! What a device's cooperative matrices look like.

use super::Header;
use crate::{Error, Result};
use std::fmt;

/// What a device's cooperative matrices look like: of `size` by `size`, f16 operands and f32 sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Matrices {
    /// Rows and columns: 8 or 16.
    pub size: usize,
    /// Lanes that share a matrix, at most: the largest subgroup of the device.
    pub subgroup: usize,
}

impl Matrices {
    /// The types of the three operands, their size, and how many lanes share them.
    pub(super) fn declared(self, header: Header) -> Header {
        let matrix = |scalar: &str, role: &str| format!("coop_mat{0}x{0}<{scalar}, {role}>", self.size);
        header
            .enable(&["f16", "wgpu_cooperative_matrix"])
            .aliases(&[
                ("mat_a", matrix("f16", "A")),
                ("mat_b", matrix("f16", "B")),
                ("mat_c", matrix("f32", "C")),
            ])
            .u32s(&[("MATRIX", self.size), ("SUBGROUP", self.subgroup)])
    }

    /// Whether 16 scores per lane make whole matrices: 1 or 2 of them along the keys of a subgroup.
    pub(crate) fn check(self) -> Result<()> {
        let known = matches!((self.size, self.subgroup), (8, 8 | 16) | (16, 32 | 64));
        let need = "8 by 8 in subgroups of 8 or 16, or 16 by 16 in subgroups of 32 or 64";
        if known { Ok(()) } else { Err(Error::argument("matrices", need, self)) }
    }
}

impl fmt::Display for Matrices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{0} by {0} in subgroups of {1}", self.size, self.subgroup)
    }
}
