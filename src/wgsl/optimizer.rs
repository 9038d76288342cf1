//! Variants of `optimizer.wgsl`, and the two shaders of the norm that gradients are clipped by: `squares.wgsl`, `clip.wgsl`.

use super::{Header, Shader, tensor};
use crate::ElementType;

/// All that tells one shader of an optimizer's step from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OptimizerVariant {
    /// Whether the rule is AdamW; otherwise gradient descent.
    pub adamw: bool,
    /// Whether there is a first state; AdamW has one.
    pub first: bool,
    /// Storage of the gradient.
    pub gradient: ElementType,
    /// Storage of the rounded copy, if there is one.
    pub rounded: Option<ElementType>,
    /// Whether a factor of the device multiplies the gradient.
    pub clipped: bool,
    /// The number of parameters is a multiple of 4.
    pub aligned: bool,
}

impl OptimizerVariant {
    /// Parameters of a workgroup: 64 lanes by 4.
    pub const PER_WORKGROUP: usize = 256;

    /// The shader of this variant.
    pub fn shader(&self) -> Shader {
        let state = |name| tensor::stores(name, ElementType::F32, self.aligned);
        let (name, members, rule) = match self.adamw {
            true => ("adamw", "AdamwParams", include_str!("../../shaders/optimizer/adamw.wgsl")),
            false => ("sgd", "SgdParams", include_str!("../../shaders/optimizer/sgd.wgsl")),
        };
        let first = match self.first {
            true => state("first"),
            false => include_str!("../../shaders/optimizer/no_first.wgsl").to_owned(),
        };
        let second = if self.adamw { state("second") } else { String::new() };
        let rounded = match self.rounded {
            Some(element) => {
                format!("{}\n{}", tensor::stores("rounded", element, self.aligned), tensor::narrow(element))
            }
            None => include_str!("../../shaders/optimizer/no_rounded.wgsl").to_owned(),
        };
        let clip = match self.clipped {
            true => include_str!("../../shaders/optimizer/clipped.wgsl"),
            false => include_str!("../../shaders/optimizer/unclipped.wgsl"),
        };
        let parameters = state("parameters");
        let gradient = tensor::reads("gradient", self.gradient, self.aligned);
        let mut files =
            vec![include_str!("../../shaders/optimizer.wgsl"), rule, &parameters, &gradient, &first];
        files.extend((!second.is_empty()).then_some(second.as_str()));
        files.extend([rounded.as_str(), clip]);
        let header = Header::default().params(&[("kernel", "KernelParams"), ("rule", members)]);
        header.shader(self.label(name), "optimize", &files)
    }

    fn label(&self, name: &str) -> String {
        let momentum = if self.first && !self.adamw { " momentum" } else { "" };
        let rounded = self.rounded.map_or(String::new(), |element| format!(" rounded {element}"));
        let clipped = if self.clipped { " clipped" } else { "" };
        let unaligned = if self.aligned { "" } else { " unaligned" };
        format!("optimizer {name}{momentum} gradient {}{rounded}{clipped}{unaligned}", self.gradient)
    }

    /// A list in which every file and every flag's values occur.
    pub(super) fn representatives() -> Vec<Self> {
        use ElementType::{Bf16, F16, F32};
        [
            (true, true, F32, None, false, true),
            (true, true, Bf16, Some(Bf16), true, false),
            (true, true, F16, Some(F16), true, true),
            (false, true, F32, None, false, false),
            (false, true, F16, Some(F16), true, false),
            (false, false, Bf16, Some(Bf16), false, true),
        ]
        .map(|(adamw, first, gradient, rounded, clipped, aligned)| Self {
            adamw,
            first,
            gradient,
            rounded,
            clipped,
            aligned,
        })
        .into()
    }
}

/// The sum of squares of a tensor, chunk by chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SquaresVariant {
    /// Storage of the tensor.
    pub input: ElementType,
    /// Its length is a multiple of 4.
    pub aligned: bool,
}

impl SquaresVariant {
    /// The shader of this variant.
    pub fn shader(&self) -> Shader {
        let files = [
            include_str!("../../shaders/squares.wgsl"),
            include_str!("../../shaders/lib/rows.wgsl"),
            include_str!("../../shaders/lib/largest.wgsl"),
            include_str!("../../shaders/lib/power_of_two.wgsl"),
            include_str!("../../shaders/lib/nan.wgsl"),
            &tensor::reads("x", self.input, self.aligned),
        ];
        let unaligned = if self.aligned { "" } else { " unaligned" };
        Header::default().shader(format!("squares {}{unaligned}", self.input), "squares", &files)
    }

    /// A list in which every file occurs.
    pub(super) fn representatives() -> Vec<Self> {
        use ElementType::{Bf16, F16, F32};
        [(F32, true), (F32, false), (F16, true), (Bf16, false)]
            .map(|(input, aligned)| Self { input, aligned })
            .into()
    }
}

/// The norm and the factor, from all sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClipFactor;

impl ClipFactor {
    /// The one shader.
    pub fn shader() -> Shader {
        let files = [
            include_str!("../../shaders/clip.wgsl"),
            include_str!("../../shaders/lib/rows.wgsl"),
            include_str!("../../shaders/lib/power_of_two.wgsl"),
            include_str!("../../shaders/lib/nan.wgsl"),
        ];
        Header::default().shader("clip factor".to_owned(), "clip_factor", &files)
    }
}
