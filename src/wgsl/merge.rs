//! Variants of `merge.wgsl`.

use super::attention::rows_of_heads;
use super::{Header, Shader, tensor};
use crate::ElementType;

/// All that tells one merging shader from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MergeVariant {
    /// Elements of a value, dv.
    pub value_dim: usize,
    /// Storage of out.
    pub output: ElementType,
    /// Whether rows are written; f32 rows of several parts are already in place.
    pub rows: bool,
    /// Rows of out begin at multiples of 4 elements.
    pub aligned_out: bool,
    /// Whether lse is written.
    pub lse: bool,
    /// Whether (m, l) over all splits is written.
    pub total: bool,
    /// Scores are in base e instead of 2: see [`AttentionVariant::base_e`](super::AttentionVariant::base_e).
    pub base_e: bool,
    /// Some query heads are computed, which the mask lists.
    pub chosen_heads: bool,
}

impl MergeVariant {
    /// Lanes of a workgroup, as the shader says.
    pub const LANES: usize = 64;

    /// The shader of this variant.
    pub fn shader(&self) -> Shader {
        let label = format!(
            "merge dv{} {}{}{}{}{}{}{}",
            self.value_dim,
            self.output,
            if self.rows { " rows" } else { "" },
            if self.aligned_out { "" } else { " unaligned-out" },
            if self.lse { " lse" } else { "" },
            if self.total { " total" } else { "" },
            if self.base_e { " base-e" } else { "" },
            if self.chosen_heads { " chosen-heads" } else { "" }
        );
        let out = tensor::writes(self.output, self.aligned_out);
        let rows = [include_str!("../../shaders/merge/rows.wgsl"), &out];
        let mut files = vec![
            include_str!("../../shaders/merge.wgsl"),
            include_str!("../../shaders/lib/online_softmax.wgsl"),
            rows_of_heads(self.chosen_heads),
            if self.lse {
                include_str!("../../shaders/stats/lse.wgsl")
            } else {
                include_str!("../../shaders/stats/none.wgsl")
            },
            if self.total {
                include_str!("../../shaders/merge/total.wgsl")
            } else {
                include_str!("../../shaders/merge/no_total.wgsl")
            },
        ];
        let mut params = vec![("kernel", "KernelParams")];
        if self.rows {
            files.extend(rows);
            params.push(("out", "Rows"));
        } else {
            files.push(include_str!("../../shaders/merge/none.wgsl"));
        }
        Header::default()
            .u32s(&[("VALUE_DIM", self.value_dim), ("VALUE_GROUPS", self.value_dim.div_ceil(4))])
            .bools(&[("BASE_E", self.base_e)])
            .params(&params)
            .shader(label, "merge", &files)
    }

    pub(super) fn representatives() -> Vec<Self> {
        let f32 = ElementType::F32;
        let base = Self {
            value_dim: 64,
            output: f32,
            rows: true,
            aligned_out: true,
            lse: true,
            total: false,
            base_e: false,
            chosen_heads: false,
        };
        let mut list = vec![Self { rows: false, base_e: true, ..base }];
        for output in [f32, ElementType::F16, ElementType::Bf16] {
            list.push(Self { output, total: output == f32, ..base });
            list.push(Self { output, chosen_heads: true, ..base });
            list.push(Self { value_dim: 7, output, aligned_out: false, lse: false, base_e: true, ..base });
        }
        list
    }
}
