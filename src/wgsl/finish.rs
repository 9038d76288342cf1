//! Variants of `finish.wgsl`.

use super::attention::store_files;
use super::{Header, Shader};
use crate::ElementType;

/// All that tells one finishing shader from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FinishVariant {
    /// dv.
    pub value_dim: usize,
    /// Storage of out.
    pub output: ElementType,
    /// Whether rows are written; f32 rows of several parts are already in place.
    pub rows: bool,
    /// Rows of out begin at multiples of 4 elements.
    pub aligned_out: bool,
    /// Whether lse is written.
    pub lse: bool,
}

impl FinishVariant {
    /// Lanes of a workgroup, as the shader says.
    pub const LANES: usize = 64;

    /// The shader of this variant.
    pub fn shader(&self) -> Shader {
        let label = format!(
            "finish dv{} {}{}{}{}",
            self.value_dim,
            self.output,
            if self.rows { " rows" } else { "" },
            if self.aligned_out { "" } else { " unaligned-out" },
            if self.lse { " lse" } else { "" }
        );
        let mut files = vec![include_str!("../../shaders/finish.wgsl")];
        files.extend(store_files(self.output, self.aligned_out));
        Header::default()
            .u32s(&[("VALUE_DIM", self.value_dim), ("VALUE_GROUPS", self.value_dim.div_ceil(4))])
            .bools(&[("WRITE_ROWS", self.rows), ("WRITE_LSE", self.lse)])
            .shader(label, "finish", &files)
    }

    pub(super) fn representatives() -> Vec<Self> {
        let f32 = ElementType::F32;
        let mut list = vec![Self { value_dim: 64, output: f32, rows: false, aligned_out: true, lse: true }];
        for output in [f32, ElementType::F16, ElementType::Bf16] {
            list.push(Self { value_dim: 64, output, rows: true, aligned_out: true, lse: true });
            list.push(Self { value_dim: 7, output, rows: true, aligned_out: false, lse: false });
        }
        list
    }
}
