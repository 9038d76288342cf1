//! Variants of `rotary.wgsl`, and `rotary_tables.wgsl`.

use super::{Header, Shader, tensor};
use crate::ElementType;

/// All that tells one rotary embedding's shader from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RotaryVariant {
    /// Neighbours turn together, instead of halves.
    pub interleaved: bool,
    /// Pairs turn back.
    pub inverse: bool,
    /// Storage of x.
    pub input: ElementType,
    /// Storage of out.
    pub output: ElementType,
    /// Every row of out begins at, and has, a multiple of 4 elements.
    pub aligned_out: bool,
}

impl RotaryVariant {
    /// Lanes of a workgroup, as the shader says.
    pub const LANES: usize = 64;

    /// The shader of this variant.
    pub fn shader(&self) -> Shader {
        let label = format!(
            "rotary {}{} {}->{}{}",
            if self.interleaved { "interleaved" } else { "half-split" },
            if self.inverse { " inverse" } else { "" },
            self.input,
            self.output,
            if self.aligned_out { "" } else { " unaligned-out" }
        );
        // Element by element, whatever the alignment: a pair's elements do not lie in one vector.
        let x = tensor::reads("x", self.input, false);
        let out = tensor::writes(self.output, self.aligned_out);
        let lib = include_str!("../../shaders/lib/rotary.wgsl");
        let files = [include_str!("../../shaders/rotary.wgsl"), lib, &x, &out];
        let header = Header::default().bools(&[("INTERLEAVED", self.interleaved), ("INVERSE", self.inverse)]);
        header.shader(label, "rotary", &files)
    }

    /// A list in which every file and every flag's values occur.
    pub(super) fn representatives() -> Vec<Self> {
        use ElementType::{Bf16, F16, F32};
        [(F32, F32, true, false), (F16, F16, false, false), (Bf16, F32, false, true)]
            .map(|(input, output, aligned_out, inverse)| Self {
                interleaved: aligned_out,
                inverse,
                input,
                output,
                aligned_out,
            })
            .to_vec()
    }
}

/// The shader of a rotary embedding's tables: there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RotaryTables;

impl RotaryTables {
    /// Lanes of a workgroup, as the shader says.
    pub const LANES: usize = 64;

    /// The shader.
    pub fn shader(&self) -> Shader {
        let files = [include_str!("../../shaders/rotary_tables.wgsl")];
        Header::default().shader("rotary tables".to_owned(), "rotary_tables", &files)
    }
}
