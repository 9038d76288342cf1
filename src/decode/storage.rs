//! How a cache stores keys and values.

use crate::ElementType;

/// How a [cache](crate::CacheShape) stores keys and values.
///
/// A row of int8 is quantised as it is appended, symmetrically and with a scale of its own (the convention of symmetric `qint8`):
///
/// ```text
/// scale = max |x| / 127        x = scale round(x / scale)        ties to even
/// ```
///
/// The scale is an f32 of 16 significant bits, so that each product scale int8 is an f32 without rounding, and at least 2^-100, which is that of
/// a row of zeros: x is off by at most half a step, |x - scale int8| <= (1/2 + 2^-12) scale. A row with NaN or infinity has NaN for its scale.
/// A row is its scale, then its elements, 4 per word, the first one lowest.
///
/// ```
/// use wgpu_attention::{CacheShape, CacheStorage, ElementType};
/// let shape = CacheShape::new(4, 8, 8192, 128).storage(ElementType::F16);
/// assert_eq!(shape.keys_bytes(), 4 * 8 * 8192 * 256);
/// assert_eq!(shape.storage(CacheStorage::Int8).keys_bytes(), 4 * 8 * 8192 * (4 + 128));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CacheStorage {
    /// As they are, rounded to the type.
    Elements(ElementType),
    /// Integers of 8 bits, with a scale per row of keys and per row of values.
    Int8,
}

impl From<ElementType> for CacheStorage {
    fn from(element: ElementType) -> Self {
        Self::Elements(element)
    }
}

impl CacheStorage {
    /// Bytes of one element.
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::Elements(element) => element.size_bytes(),
            Self::Int8 => 1,
        }
    }

    /// The type that holds what a kernel reads: f32 for int8.
    pub const fn element(self) -> ElementType {
        match self {
            Self::Elements(element) => element,
            Self::Int8 => ElementType::F32,
        }
    }

    /// Room before a row's own elements, in elements: that of its scale.
    pub(crate) const fn before_row(self) -> usize {
        match self {
            Self::Elements(_) => 0,
            Self::Int8 => 4,
        }
    }

    /// Elements from one row to the next.
    pub(crate) const fn row(self, dim: usize) -> usize {
        self.before_row() + dim.next_multiple_of(4)
    }
}

impl std::fmt::Display for CacheStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Elements(element) => element.fmt(f),
            Self::Int8 => f.write_str("int8"),
        }
    }
}
