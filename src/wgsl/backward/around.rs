//! Variants of the kernels around `backward.wgsl`: what prepares a row for it, brings its sums to a tensor's type, and adds up copies.

use super::super::attention::rows_of_heads;
use super::super::{Header, Shader, tensor};
use crate::ElementType;

/// All that tells one shader from another that prepares rows for the backward pass: `backward/records.wgsl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordVariant {
    /// Elements of a value, dv.
    pub value_dim: usize,
    /// Storage of out.
    pub out: ElementType,
    /// Storage of the gradient of out.
    pub dout: ElementType,
    /// Every row of out begins at, and has, a multiple of 4 elements.
    pub aligned_out: bool,
    /// Every row of the gradient of out begins at, and has, a multiple of 4 elements.
    pub aligned_dout: bool,
    /// What is copied behind the records, f32: the score's `relative_biases`, or the `norms` of LSH attention.
    pub behind: Option<&'static str>,
    /// Some query heads are computed, which the mask lists.
    pub chosen_heads: bool,
}

impl RecordVariant {
    /// Lanes of a workgroup, as the shader says.
    pub const LANES: usize = 64;

    /// The shader of this variant.
    pub fn shader(&self) -> Shader {
        let unaligned = |aligned, name| if aligned { "" } else { name };
        let label = format!(
            "backward records dv{} {} {}{}{}{}{}",
            self.value_dim,
            self.out,
            self.dout,
            unaligned(self.aligned_out, " unaligned-out"),
            unaligned(self.aligned_dout, " unaligned-dout"),
            self.behind.map_or_else(String::new, |name| format!(" {name}")),
            if self.chosen_heads { " chosen-heads" } else { "" }
        );
        let behind = match self.behind {
            Some(name) => tensor::reads(name, ElementType::F32, false) + &tensor::same("behind", name),
            None => tensor::reads_if(false, "behind", ElementType::F32, false),
        };
        let files = [
            include_str!("../../../shaders/backward/records.wgsl"),
            &tensor::reads("o", self.out, self.aligned_out),
            &tensor::reads("dout", self.dout, self.aligned_dout),
            &behind,
            rows_of_heads(self.chosen_heads),
        ];
        let header = Header::default()
            .u32s(&[("VALUE_DIM", self.value_dim), ("VALUE_GROUPS", self.value_dim.div_ceil(4))])
            .params(&[("kernel", "KernelParams"), ("out", "Rows"), ("dout", "Rows")]);
        header.shader(label, "record", &files)
    }

    pub(in crate::wgsl) fn representatives() -> Vec<Self> {
        use ElementType::{Bf16, F16, F32};
        let of = |(value_dim, out, dout): (usize, _, _)| {
            let aligned = value_dim.is_multiple_of(4);
            let behind = match (value_dim, out) {
                (7, F32) => Some("norms"),
                (7, _) => Some("relative_biases"),
                _ => None,
            };
            let chosen_heads = (value_dim, out) == (64, F16);
            Self { value_dim, out, dout, aligned_out: aligned, aligned_dout: aligned, behind, chosen_heads }
        };
        [(64, F32, F32), (7, F32, F16), (64, F16, Bf16), (7, Bf16, F32)].map(of).into()
    }
}

/// All that tells one shader from another that brings f32 sums of several parts to a gradient's type: `backward/narrow.wgsl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NarrowVariant {
    /// Elements of a row.
    pub dim: usize,
    /// Storage of the gradient.
    pub gradient: ElementType,
    /// Every row of the gradient begins at, and has, a multiple of 4 elements.
    pub aligned: bool,
    /// Whether rows of masked keys become 0.
    pub key_mask: bool,
}

impl NarrowVariant {
    /// Lanes of a workgroup, as the shader says: a group of 4 elements each.
    pub const LANES: usize = 64;

    /// The shader of this variant.
    pub fn shader(&self) -> Shader {
        let unaligned = if self.aligned { "" } else { " unaligned" };
        let masked = if self.key_mask { " key-mask" } else { "" };
        let label = format!("backward narrow d{} {}{unaligned}{masked}", self.dim, self.gradient);
        let files = [
            include_str!("../../../shaders/backward/narrow.wgsl"),
            match self.key_mask {
                true => include_str!("../../../shaders/linear/key_mask.wgsl"),
                false => include_str!("../../../shaders/linear/no_key_mask.wgsl"),
            },
            &tensor::reads("sums", ElementType::F32, self.dim.is_multiple_of(4)),
            &tensor::writes(self.gradient, self.aligned),
        ];
        let header = Header::default()
            .u32s(&[("DIM", self.dim), ("GROUPS", self.dim.div_ceil(4))])
            .params(&[("kernel", "KernelParams"), ("out", "Rows")]);
        header.shader(label, "narrow_rows", &files)
    }

    pub(in crate::wgsl) fn representatives() -> Vec<Self> {
        use ElementType::{Bf16, F16, F32};
        let of = |(dim, gradient, aligned, key_mask)| Self { dim, gradient, aligned, key_mask };
        let plain = [(64, F16, true, false), (64, Bf16, false, false), (7, F16, false, false)];
        plain.into_iter().chain([(64, F32, true, true), (7, Bf16, false, true)]).map(of).collect()
    }
}

/// The kernels around the passes over a tensor's copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CopyPass {
    /// All copies are 0.
    Zeros,
    /// The copies are added up.
    Sums,
    /// The gradient of `sinks`, which is of rows and not of pairs: every copy of it.
    Sinks {
        /// As [`BackwardVariant::late_maxima`](super::BackwardVariant::late_maxima).
        late_maxima: bool,
    },
}

impl CopyPass {
    /// Every one.
    pub const ALL: [Self; 4] =
        [Self::Zeros, Self::Sums, Self::Sinks { late_maxima: false }, Self::Sinks { late_maxima: true }];

    /// Lanes of a workgroup, as the shaders say: one element each.
    pub const LANES: usize = 64;

    /// The shader.
    pub fn shader(self) -> Shader {
        let (label, entry, text) = match self {
            Self::Zeros => ("backward zeros", "zero", include_str!("../../../shaders/backward/zeros.wgsl")),
            Self::Sums => ("backward sums", "add_up", include_str!("../../../shaders/backward/sums.wgsl")),
            Self::Sinks { late_maxima } => {
                let label = if late_maxima { "backward d sinks late-maxima" } else { "backward d sinks" };
                let files = [
                    include_str!("../../../shaders/backward/sinks.wgsl"),
                    include_str!("../../../shaders/lib/weight.wgsl"),
                ];
                let header = Header::default().bools(&[("BASE_E", true), ("LATE_MAXIMA", late_maxima)]);
                return header.shader(label.into(), "add_rows", &files);
            }
        };
        Header::default().shader(label.into(), entry, &[text])
    }
}
