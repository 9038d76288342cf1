//! From an element type known at run time to one known to the compiler.

/// Evaluates an expression with a type alias for the element type: `typed!(element, E => work::<E>())`.
#[macro_export]
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
