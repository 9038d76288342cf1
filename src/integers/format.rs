//! What the elements of an integer tensor are, and how they lie.

use crate::layout::check_u32;
use crate::{Error, Result};

/// The elements of an integer tensor, packed into words of 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum IntegerType {
    /// Signed bytes, -128 to 127.
    #[default]
    I8,
    /// Unsigned bytes, 0 to 255.
    U8,
    /// Signed nibbles, -8 to 7: ONNX's INT4.
    I4,
    /// Unsigned nibbles, 0 to 15: ONNX's UINT4.
    U4,
}

impl IntegerType {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::I8, Self::U8, Self::I4, Self::U4];

    /// Bits of an element: 8 or 4.
    pub const fn bits(self) -> usize {
        match self {
            Self::I8 | Self::U8 => 8,
            Self::I4 | Self::U4 => 4,
        }
    }

    /// Elements of a word of 32 bits.
    pub const fn per_word(self) -> usize {
        32 / self.bits()
    }

    /// Whether elements may be below 0.
    pub const fn is_signed(self) -> bool {
        matches!(self, Self::I8 | Self::I4)
    }

    /// The smallest element and the largest.
    pub const fn range(self) -> [i32; 2] {
        match self {
            Self::I8 => [-128, 127],
            Self::U8 => [0, 255],
            Self::I4 => [-8, 7],
            Self::U4 => [0, 15],
        }
    }

    /// `i8`, `u8`, `i4` or `u4`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::I8 => "i8",
            Self::U8 => "u8",
            Self::I4 => "i4",
            Self::U4 => "u4",
        }
    }

    /// The bits of an element, in the lowest of a word.
    pub(super) fn encoded(self, value: i32) -> u32 {
        value as u32 & (u32::MAX >> (32 - self.bits()))
    }

    /// The element in a word's lowest bits.
    pub(super) fn decoded(self, word: u32) -> i32 {
        let shift = 32 - self.bits() as u32;
        match self.is_signed() {
            true => (word << shift) as i32 >> shift,
            false => (word << shift >> shift) as i32,
        }
    }
}

impl std::fmt::Display for IntegerType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Which elements of a tensor `[rows, inner]` share a scale, and a zero point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ScaleGroups {
    /// All.
    Tensor,
    /// Those of a row: per output channel, where rows are those of a weight `[out, in]`.
    #[default]
    Rows,
    /// This many neighbours in a row: 32, 64 or 128, which must divide the row.
    Groups(usize),
}

impl std::fmt::Display for ScaleGroups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tensor => f.write_str("tensor"),
            Self::Rows => f.write_str("rows"),
            Self::Groups(size) => write!(f, "groups of {size}"),
        }
    }
}

/// How an integer tensor `[rows, inner]` stands for numbers:
///
/// ```text
/// x = scale (q - zero_point)        one scale, and zero point, for all, for a row, or for a group of a row
/// ```
///
/// In memory the elements of a row lie one after the other from the lowest bits of a word on, 4 or 8 to a word; every row begins with
/// a word of its own, and what is behind its last element is 0. Scales are f32 and zero points i32, both `[1]`, `[rows]` or
/// `[rows, inner / group]`. Without zero points they are 0.
///
/// ```
/// use wgpu_attention::{IntegerFormat, IntegerType, ScaleGroups};
/// let weights = IntegerFormat::new(IntegerType::I4).groups(ScaleGroups::Groups(32));
/// weights.check(768, 3072)?;
/// assert_eq!((weights.len_words(768, 3072), weights.len_scales(768, 3072)), (768 * 384, 768 * 96));
/// assert!(weights.check(768, 48).unwrap_err().to_string().starts_with("groups: need a divisor of inner (48)"));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct IntegerFormat {
    /// The elements.
    pub element: IntegerType,
    /// Which of them share a scale.
    pub groups: ScaleGroups,
    /// Whether there are zero points, as many as scales.
    pub zero_points: bool,
}

impl IntegerFormat {
    /// A scale per row, no zero points.
    pub fn new(element: IntegerType) -> Self {
        Self { element, groups: ScaleGroups::Rows, zero_points: false }
    }

    /// Sets which elements share a scale.
    pub fn groups(mut self, groups: ScaleGroups) -> Self {
        self.groups = groups;
        self
    }

    /// Sets whether there are zero points.
    pub fn zero_points(mut self, zero_points: bool) -> Self {
        self.zero_points = zero_points;
        self
    }

    /// Words of a row.
    pub fn row_words(&self, inner: usize) -> usize {
        inner.div_ceil(self.element.per_word())
    }

    /// Words of a tensor `[rows, inner]`.
    pub fn len_words(&self, rows: usize, inner: usize) -> usize {
        rows * self.row_words(inner)
    }

    /// Scales of a tensor `[rows, inner]`, and zero points if there are any.
    pub fn len_scales(&self, rows: usize, inner: usize) -> usize {
        match self.groups {
            ScaleGroups::Tensor => 1,
            ScaleGroups::Rows => rows,
            ScaleGroups::Groups(size) => rows * (inner / size.max(1)),
        }
    }

    /// The index of the scale of the element at place k of a row.
    pub fn scale_at(&self, inner: usize, row: usize, k: usize) -> usize {
        match self.groups {
            ScaleGroups::Tensor => 0,
            ScaleGroups::Rows => row,
            ScaleGroups::Groups(size) => row * (inner / size.max(1)) + k / size.max(1),
        }
    }

    /// Elements that share a scale: neighbours in memory, but for the words' ends.
    pub(crate) fn slice_len(&self, rows: usize, inner: usize) -> usize {
        match self.groups {
            ScaleGroups::Tensor => rows * inner,
            ScaleGroups::Rows => inner,
            ScaleGroups::Groups(size) => size,
        }
    }

    /// Bytes of a tensor `[rows, inner]`, scales and zero points with it.
    pub fn bytes(&self, rows: usize, inner: usize) -> usize {
        let per_scale = if self.zero_points { 8 } else { 4 };
        4 * self.len_words(rows, inner) + per_scale * self.len_scales(rows, inner)
    }

    /// Checks everything that can be said without a device.
    ///
    /// # Errors
    /// [`Error::Argument`] for an `inner` of 0, for groups other than 32, 64 and 128, and for those that do not divide `inner`;
    /// [`Error::Limit`] where an element's index would pass 32 bits.
    pub fn check(&self, rows: usize, inner: usize) -> Result<()> {
        if inner == 0 {
            return Err(Error::argument("inner", "at least 1", 0));
        }
        check_u32("rows", rows as u128)?;
        check_u32("elements", rows as u128 * inner as u128)?;
        let ScaleGroups::Groups(size) = self.groups else { return Ok(()) };
        if ![32, 64, 128].contains(&size) {
            return Err(Error::argument("groups", "32, 64 or 128 elements", size));
        }
        if !inner.is_multiple_of(size) {
            return Err(Error::argument("groups", format!("a divisor of inner ({inner})"), size));
        }
        Ok(())
    }
}

impl std::fmt::Display for IntegerFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let zero_points = if self.zero_points { " zero points" } else { "" };
        write!(f, "{} {}{zero_points}", self.element, self.groups)
    }
}
