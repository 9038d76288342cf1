//! Variants of `cross_entropy.wgsl`.

use super::{Header, Shader, tensor};
use crate::{ElementType, LossGradient};

/// All that tells one shader of the loss from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CrossEntropyVariant {
    /// Storage of the logits.
    pub input: ElementType,
    /// Where the gradient goes.
    pub gradient: LossGradient,
    /// Every row of logits and gradient begins at a multiple of 4 elements and is one long.
    pub aligned: bool,
}

impl CrossEntropyVariant {
    /// The shader of this variant.
    pub fn shader(&self) -> Shader {
        let logits = tensor::reads("x", self.input, self.aligned);
        let (to, tensors) = match self.gradient {
            LossGradient::None => (
                "no gradient".to_owned(),
                [logits, include_str!("../../shaders/loss/no_gradient.wgsl").into()],
            ),
            LossGradient::InPlace => {
                let x = include_str!("../../shaders/loss/in_place.wgsl").into();
                ("in place".into(), [x, tensor::reads_and_writes(self.input, self.aligned)])
            }
            LossGradient::Stored(element) => {
                (format!("gradient {element}"), [logits, tensor::writes(element, self.aligned)])
            }
        };
        let files = [
            include_str!("../../shaders/cross_entropy.wgsl"),
            include_str!("../../shaders/lib/rows.wgsl"),
            include_str!("../../shaders/lib/row_softmax.wgsl"),
            include_str!("../../shaders/lib/nan.wgsl"),
            &tensors[0],
            &tensors[1],
        ];
        let unaligned = if self.aligned { "" } else { " unaligned" };
        let header = Header::default().bools(&[("HAS_GRADIENT", self.gradient != LossGradient::None)]);
        header.shader(format!("cross entropy {} {to}{unaligned}", self.input), "cross_entropy", &files)
    }

    /// A list in which every file and every flag's values occur.
    pub(super) fn representatives() -> Vec<Self> {
        use ElementType::{Bf16, F16, F32};
        use LossGradient::{InPlace, None, Stored};
        [
            (F32, None, true),
            (Bf16, None, false),
            (F32, InPlace, true),
            (F32, InPlace, false),
            (F16, InPlace, true),
            (F16, InPlace, false),
            (Bf16, InPlace, true),
            (Bf16, InPlace, false),
            (F16, Stored(F32), true),
            (F32, Stored(F32), false),
            (Bf16, Stored(Bf16), true),
            (F16, Stored(F16), false),
        ]
        .map(|(input, gradient, aligned)| Self { input, gradient, aligned })
        .into()
    }
}
