//! Variants of `cross_entropy.wgsl`.

use super::{Header, Shader, tensor};
use crate::{ElementType, LossGradient};

/// All that tells one shader of the loss from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CrossEntropyVariant {
    /// Storage of the logits.
    pub input: ElementType,
    /// Storage of a teacher's logits, which say what is wanted; else targets do.
    pub teacher: Option<ElementType>,
    /// Where the gradient goes.
    pub gradient: LossGradient,
    /// Every row of logits and gradient begins at, and has, a multiple of 4 elements.
    pub aligned: bool,
}

impl CrossEntropyVariant {
    /// The shader of this variant.
    pub fn shader(&self) -> Shader {
        let logits = tensor::reads("x", self.input, self.aligned);
        let (to, [x, out]) = match self.gradient {
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
        let (name, wanted) = match self.teacher {
            None => (String::new(), vec![include_str!("../../shaders/loss/targets.wgsl").to_owned()]),
            Some(element) => {
                let wanted = include_str!("../../shaders/loss/teacher.wgsl").to_owned();
                let teacher = tensor::reads("teacher", element, self.aligned);
                (format!(" teacher {element}"), vec![wanted, teacher, tensor::row_maximum("teacher")])
            }
        };
        let maximum = tensor::row_maximum("x");
        let mut files = vec![include_str!("../../shaders/cross_entropy.wgsl")];
        files.extend(wanted.iter().map(String::as_str));
        files.extend([
            include_str!("../../shaders/lib/rows.wgsl"),
            include_str!("../../shaders/lib/row_softmax.wgsl"),
            &maximum,
            include_str!("../../shaders/lib/nan.wgsl"),
            &x,
            &out,
        ]);
        let unaligned = if self.aligned { "" } else { " unaligned" };
        let header = Header::default()
            .bools(&[("HAS_GRADIENT", self.gradient != LossGradient::None)])
            .params(&[("kernel", "KernelParams"), ("wanted", "WantedParams")]);
        let label = format!("cross entropy {}{name} {to}{unaligned}", self.input);
        header.shader(label, "cross_entropy", &files)
    }

    /// A list in which every file and every flag's values occur.
    pub(super) fn representatives() -> Vec<Self> {
        use ElementType::{Bf16, F16, F32};
        use LossGradient::{InPlace, Stored};
        let targets = [
            (F32, LossGradient::None, true),
            (Bf16, LossGradient::None, false),
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
        ];
        let teachers = [
            (F32, F32, LossGradient::None, true),
            (F32, F32, InPlace, true),
            (F16, F16, Stored(F32), false),
            (F32, Bf16, InPlace, false),
        ];
        let of_targets =
            targets.map(|(input, gradient, aligned)| Self { input, teacher: None, gradient, aligned });
        let of_teachers = teachers.map(|(input, teacher, gradient, aligned)| Self {
            input,
            teacher: Some(teacher),
            gradient,
            aligned,
        });
        of_targets.into_iter().chain(of_teachers).collect()
    }
}
