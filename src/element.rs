//! Element types of tensors in memory. Arithmetic is always f32 (on the GPU) or f64 (in the reference).

use half::{bf16, f16};
use std::borrow::Cow;

/// How the elements of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum ElementType {
    /// IEEE single precision, 4 bytes.
    #[default]
    F32,
    /// IEEE half precision, 2 bytes.
    F16,
    /// The upper half of a single, 2 bytes.
    Bf16,
}

impl ElementType {
    /// Bytes of one element.
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// `f32`, `f16` or `bf16`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// The largest relative error of rounding an f32 result to this type, with either neighbour allowed
    /// (WGSL promises no rounding mode): 0 for f32.
    pub const fn rounding(self) -> f64 {
        match self {
            Self::F32 => 0.0,
            Self::F16 => 1.0 / 1024.0,
            Self::Bf16 => 1.0 / 128.0,
        }
    }
}

impl std::fmt::Display for ElementType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A Rust type that tensors may hold: `f32`, [`half::f16`] or [`half::bf16`].
pub trait Element: bytemuck::Pod + Send + Sync + Into<f64> + 'static {
    /// The matching [`ElementType`].
    const TYPE: ElementType;
    /// The nearest value of this type.
    fn from_f64(x: f64) -> Self;
    /// The values in f32, which holds those of every type exactly: as they are, or a copy.
    fn widened(values: &[Self]) -> Cow<'_, [f32]>;
}

impl Element for f32 {
    const TYPE: ElementType = ElementType::F32;
    fn from_f64(x: f64) -> Self {
        x as f32
    }
    fn widened(values: &[Self]) -> Cow<'_, [f32]> {
        Cow::Borrowed(values)
    }
}

impl Element for f16 {
    const TYPE: ElementType = ElementType::F16;
    fn from_f64(x: f64) -> Self {
        f16::from_f64(x)
    }
    fn widened(values: &[Self]) -> Cow<'_, [f32]> {
        values.iter().map(|x| x.to_f32()).collect()
    }
}

impl Element for bf16 {
    const TYPE: ElementType = ElementType::Bf16;
    fn from_f64(x: f64) -> Self {
        bf16::from_f64(x)
    }
    fn widened(values: &[Self]) -> Cow<'_, [f32]> {
        values.iter().map(|x| x.to_f32()).collect()
    }
}
