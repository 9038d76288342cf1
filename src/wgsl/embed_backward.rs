//! Variants of the two kernels of an embedding's gradient: `embed_sums.wgsl`, `embed_carries.wgsl`.

use super::{Header, Shader, tensor};
use crate::ElementType;

/// All that tells one shader of an embedding's gradient from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EmbedBackwardVariant {
    /// The first of the two kernels adds up within blocks; the second what blocks carry.
    pub carries: bool,
    /// Storage of dout. That of the gradient is f32.
    pub dout: ElementType,
    /// The gradient is added to what is there.
    pub into: bool,
    /// Every row of every tensor begins at, and has, a multiple of 4 elements.
    pub aligned: bool,
}

impl EmbedBackwardVariant {
    /// Places of a block, as `lib/embed_runs.wgsl` says.
    pub const BLOCK: usize = 64;

    /// The shader of this variant.
    pub fn shader(&self) -> Shader {
        let runs = include_str!("../../shaders/lib/embed_runs.wgsl");
        let out = tensor::writes(ElementType::F32, self.aligned);
        let header = Header::default().bools(&[("INTO", self.into)]);
        let ends = format!(
            "{}{}",
            if self.into { " into" } else { "" },
            if self.aligned { "" } else { " unaligned" }
        );
        if self.carries {
            let files = [include_str!("../../shaders/embed_carries.wgsl"), runs, &out];
            return header.shader(format!("embed carries{ends}"), "embed_carries", &files);
        }
        let dout = tensor::reads("dout", self.dout, self.aligned);
        let files = [include_str!("../../shaders/embed_sums.wgsl"), runs, &dout, &out];
        header.shader(format!("embed sums {}{ends}", self.dout), "embed_sums", &files)
    }

    /// A list in which every file and every flag's values occur.
    pub(super) fn representatives() -> Vec<Self> {
        use ElementType::{Bf16, F16, F32};
        let variants = [(F32, false, true), (F16, true, true), (Bf16, true, false), (F32, false, false)];
        let both = |(dout, into, aligned)| [false, true].map(|carries| Self { carries, dout, into, aligned });
        variants.into_iter().flat_map(both).collect()
    }
}
