//! Element types as arguments, and from a type known at run time to one known to the compiler.

use wgpu_attention::ElementType;

/// An [`ElementType`] as an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "wasm32"), derive(clap::ValueEnum))]
pub(crate) enum Dtype {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a single.
    Bf16,
}

impl From<Dtype> for ElementType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::Bf16 => Self::Bf16,
        }
    }
}

/// Evaluates an expression with a type alias for the element type: `typed!(element, E => work::<E>())`.
macro_rules! typed {
    ($element:expr, $E:ident => $body:expr) => {
        match $element {
            wgpu_attention::ElementType::F32 => {
                type $E = f32;
                $body
            }
            wgpu_attention::ElementType::F16 => {
                type $E = half::f16;
                $body
            }
            wgpu_attention::ElementType::Bf16 => {
                type $E = half::bf16;
                $body
            }
        }
    };
}
pub(crate) use typed;
