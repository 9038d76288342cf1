//! Where the elements of a tensor lie in memory.

use crate::{Error, Result};

/// Where the rows of a `[batch, head, row, element]` tensor lie, in elements. The last axis is contiguous.
///
/// Strides may be negative (a reversed axis) or 0 (one item for all; inputs only), as long as every element lies at or
/// behind the start of the binding or slice. [`offset`](Self::offset) is the index of element (0, 0, 0, 0).
///
/// ```
/// use wgpu_attention::Strides;
/// // k in a packed [B, L, 3, H, d] tensor of L = 128, H = 8, d = 64.
/// let k = Strides { offset: 8 * 64, batch: 128 * 3 * 8 * 64, head: 64, row: 3 * 8 * 64 };
/// assert_eq!(k.at(0, 1, 2), 512 + 64 + 2 * 1536);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Strides {
    /// Index of the first element of row 0 of head 0 of batch item 0.
    pub offset: usize,
    /// From one batch item to the next.
    pub batch: isize,
    /// From one head to the next.
    pub head: isize,
    /// From one row (position in the sequence) to the next.
    pub row: isize,
}

impl Strides {
    /// Rows that begin at element 0.
    pub const fn new(batch: isize, head: isize, row: isize) -> Self {
        Self { offset: 0, batch, head, row }
    }

    /// The same rows, from element `offset` on.
    pub const fn offset(self, offset: usize) -> Self {
        Self { offset, ..self }
    }

    /// Index of the first element of a row.
    pub fn at(&self, batch: usize, head: usize, row: usize) -> usize {
        // Wrapping arithmetic: a negative stride is taken back by the offset, which `check` has seen to.
        let step = |stride: isize, n: usize| (stride as usize).wrapping_mul(n);
        self.offset
            .wrapping_add(step(self.batch, batch))
            .wrapping_add(step(self.head, head))
            .wrapping_add(step(self.row, row))
    }

    /// Whether every row begins at a multiple of 4 elements.
    pub(crate) fn is_aligned(&self) -> bool {
        self.offset.is_multiple_of(4)
            && [self.batch, self.head, self.row].iter().all(|stride| stride % 4 == 0)
    }

    /// Elements from the start to the end of the row that lies last.
    pub(crate) fn extent(&self, sizes: [usize; 3], dim: usize) -> usize {
        Reach::of(self.offset, &self.axes(sizes)).map_or(0, |reach| reach.last as usize + dim)
    }

    /// Which axes lead to elements of their own: see [`apart`].
    pub(crate) fn apart(&self, sizes: [usize; 3], dim: usize) -> [bool; 3] {
        apart(self.axes(sizes), dim)
    }

    fn axes(&self, sizes: [usize; 3]) -> [(isize, usize); 3] {
        [(self.batch, sizes[0]), (self.head, sizes[1]), (self.row, sizes[2])]
    }

    /// Every element must have an index that 32 bits hold: WGSL has no wider one.
    pub(crate) fn check(&self, name: &'static str, sizes: [usize; 3], dim: usize) -> Result<()> {
        check_reach(name, self.offset, &self.axes(sizes), dim)
    }

    /// Two output rows may not share an element: with the axes sorted by stride, each stride must span all that the
    /// smaller ones reach.
    pub(crate) fn check_no_overlap(&self, name: &'static str, sizes: [usize; 3], dim: usize) -> Result<()> {
        if sizes.contains(&0) {
            return Ok(());
        }
        let axes = self.axes(sizes).into_iter().filter(|axis| axis.1 > 1);
        let mut axes: Vec<_> = axes.map(|(stride, size)| (stride.unsigned_abs(), size)).collect();
        axes.sort_unstable();
        let mut reach = dim;
        for (stride, size) in axes {
            if stride < reach {
                let got = format!(
                    "a stride of {stride} (batch {}, head {}, row {})",
                    self.batch, self.head, self.row
                );
                return Err(Error::argument(name, format!("rows that do not overlap: {reach} apart"), got));
            }
            reach += stride * (size - 1);
        }
        Ok(())
    }
}

/// Order of the axes of a tensor in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Layout {
    /// `[batch, heads, length, dim]`, contiguous.
    #[default]
    Bhld,
    /// `[batch, length, heads, dim]`, contiguous.
    Blhd,
    /// Anything else with a contiguous last axis: packed QKV, padded rows, a view into a larger tensor.
    Strided(Strides),
}

impl Layout {
    /// The strides of a tensor of these sizes.
    pub(crate) fn strides(self, heads: usize, len: usize, dim: usize) -> Strides {
        let (heads, len, dim) = (heads as isize, len as isize, dim as isize);
        // Sizes that pass the range are refused by `check`, which does not use these products.
        let product = |sizes: &[isize]| sizes.iter().fold(1isize, |all, &n| all.saturating_mul(n));
        match self {
            Self::Bhld => Strides::new(product(&[heads, len, dim]), product(&[len, dim]), dim),
            Self::Blhd => Strides::new(product(&[heads, len, dim]), dim, product(&[heads, dim])),
            Self::Strided(strides) => strides,
        }
    }

    /// Checks that every element has an index of 32 bits, at or behind the start.
    pub(crate) fn check(self, name: &'static str, sizes: [usize; 3], dim: usize) -> Result<()> {
        match self {
            Self::Strided(strides) => strides.check(name, sizes, dim),
            Self::Bhld | Self::Blhd => {
                let sizes = sizes.iter().map(|&x| x as u128);
                check_u32(name, sizes.fold(dim as u128, u128::saturating_mul))
            }
        }
    }
}

/// Strides of the additive bias over `[batch, head, query, key]`, in elements; 0 broadcasts.
///
/// With a stride of +1 per query and -1 per key, a tensor `[H, Lq + Lk - 1]` becomes a Toeplitz bias, without a copy: see [`BiasStrides::toeplitz`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct BiasStrides {
    /// Index of the element of batch item 0, head 0, query 0 and key 0.
    pub offset: usize,
    /// From one batch item to the next.
    pub batch: isize,
    /// From one query head to the next.
    pub head: isize,
    /// From one query to the next.
    pub query: isize,
    /// From one key to the next.
    pub key: isize,
}

impl BiasStrides {
    /// Strides of a contiguous tensor of these sizes, in which an axis of size 1 is broadcast.
    pub fn broadcast([batch, head, query, key]: [usize; 4]) -> Self {
        let stride = |size, stride: usize| if size == 1 { 0 } else { stride as isize };
        Self {
            offset: 0,
            batch: stride(batch, head * query * key),
            head: stride(head, query * key),
            query: stride(query, key),
            key: stride(key, 1),
        }
    }

    /// A bias t_h(D) that depends on the distance D = (i + Lk - Lq) - j alone: a tensor `[heads, q_len + kv_len - 1]`, by
    /// ascending D from 1 - Lq, the last key seen from the first query, to Lk - 1, the first key seen from the last.
    ///
    /// ```
    /// use wgpu_attention::BiasStrides;
    /// let bias = BiasStrides::toeplitz(3, 5);
    /// assert_eq!(bias.at(0, 0, 0, 4), 0);
    /// assert_eq!(bias.at(0, 1, 2, 0), 7 + 6);
    /// ```
    pub fn toeplitz(q_len: usize, kv_len: usize) -> Self {
        let row = (q_len + kv_len).saturating_sub(1);
        Self { offset: kv_len.saturating_sub(1), batch: 0, head: row as isize, query: 1, key: -1 }
    }

    /// Index of one element.
    pub fn at(&self, batch: usize, head: usize, i: usize, j: usize) -> usize {
        let axes = [(self.batch, batch), (self.head, head), (self.query, i), (self.key, j)];
        axes.iter().fold(self.offset, |at, &(stride, n)| at.wrapping_add((stride as usize).wrapping_mul(n)))
    }

    fn axes(&self, sizes: [usize; 4]) -> [(isize, usize); 4] {
        [(self.batch, sizes[0]), (self.head, sizes[1]), (self.query, sizes[2]), (self.key, sizes[3])]
    }

    /// Elements from the start to the last one of a tensor of these sizes.
    pub(crate) fn extent(&self, sizes: [usize; 4]) -> usize {
        Reach::of(self.offset, &self.axes(sizes)).map_or(0, |reach| reach.last as usize + 1)
    }

    /// Which axes lead to elements of their own: see [`apart`].
    pub(crate) fn apart(&self, sizes: [usize; 4]) -> [bool; 4] {
        apart(self.axes(sizes), 1)
    }

    pub(crate) fn check(&self, name: &'static str, sizes: [usize; 4]) -> Result<()> {
        check_reach(name, self.offset, &self.axes(sizes), 1)
    }
}

/// For each axis, whether two of its indices never lead to the same element, whatever the others': where its stride spans all that
/// the smaller ones reach, and so do those above it. May miss some.
fn apart<const N: usize>(axes: [(isize, usize); N], dim: usize) -> [bool; N] {
    let mut order: Vec<usize> = (0..N).filter(|&axis| axes[axis].1 > 1).collect();
    order.sort_by_key(|&axis| axes[axis].0.unsigned_abs());
    // An axis of one index has no second one.
    let mut result = axes.map(|(_, size)| size <= 1);
    let (mut below, mut reach) = (vec![], dim as u128);
    for axis in order {
        let (stride, size) = (axes[axis].0.unsigned_abs() as u128, axes[axis].1 as u128);
        if stride < reach {
            below.clear();
        } else {
            below.push(axis);
        }
        reach += stride * (size - 1);
    }
    below.into_iter().for_each(|axis| result[axis] = true);
    result
}

/// The smallest and the largest index that strides reach.
struct Reach {
    first: i128,
    last: i128,
}

impl Reach {
    /// Of axes of these strides and sizes; `None` where one of them is empty.
    fn of(offset: usize, axes: &[(isize, usize)]) -> Option<Self> {
        let mut reach = Self { first: offset as i128, last: offset as i128 };
        for &(stride, size) in axes {
            let steps = size.checked_sub(1)? as i128 * stride as i128;
            reach.first += steps.min(0);
            reach.last += steps.max(0);
        }
        Some(reach)
    }
}

fn check_reach(name: &'static str, offset: usize, axes: &[(isize, usize)], dim: usize) -> Result<()> {
    let Some(reach) = Reach::of(offset, axes) else { return Ok(()) };
    if reach.first < 0 {
        let got = format!("an element {} before it", -reach.first);
        return Err(Error::argument(name, "strides that stay behind the tensor's start", got));
    }
    check_u32(name, reach.last as u128 + dim as u128)
}

/// Element offsets are 32 bits wide on the device.
pub(crate) fn check_u32(name: &'static str, need: u128) -> Result<()> {
    if need > u128::from(u32::MAX) {
        let elements = need.min(u64::MAX.into()) as u64;
        return Err(Error::limit(name, "the largest 32-bit element index", elements, u32::MAX.into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_strides_reach_back_and_no_further() {
        let reversed = Strides { offset: 12, batch: 0, head: 0, row: -4 };
        assert_eq!([0, 1, 3].map(|row| reversed.at(0, 0, row)), [12, 8, 0]);
        assert_eq!(reversed.extent([1, 1, 4], 4), 16);
        reversed.check("q", [1, 1, 4], 4).unwrap();
        let error = reversed.check("q", [1, 1, 5], 4).unwrap_err().to_string();
        assert!(error.contains("4 before it"), "{error}");
        reversed.check_no_overlap("out", [1, 1, 4], 4).unwrap();
        assert!(reversed.check_no_overlap("out", [1, 1, 4], 5).is_err());
        assert!(Strides::new(0, 0, 8).check_no_overlap("out", [1, 2, 4], 4).is_err());
    }

    #[test]
    fn axes_are_apart_that_share_no_element() {
        let of = |strides: BiasStrides| strides.apart([2, 3, 4, 5]);
        assert_eq!(of(BiasStrides::broadcast([2, 3, 4, 5])), [true; 4]);
        assert_eq!(of(BiasStrides::broadcast([1, 3, 1, 5])), [false, true, false, true]);
        assert_eq!(of(BiasStrides::toeplitz(4, 5)), [false, true, false, false]);
        let reversed = BiasStrides { offset: 100, batch: -60, head: 20, query: -5, key: 1 };
        assert_eq!(of(reversed), [true; 4]);
        // Heads reach into each other's rows.
        assert_eq!(of(BiasStrides { head: 10, ..reversed }), [true, false, false, false]);
        assert_eq!(BiasStrides::default().apart([1, 1, 1, 5]), [true, true, true, false]);
        assert_eq!(Strides::new(0, 8, 4).apart([2, 3, 2], 4), [false, true, true]);
        assert_eq!(Strides::new(0, 8, 3).apart([2, 3, 2], 4), [false, true, false]);
    }

    #[test]
    fn contiguous_layouts_have_their_own_extent() {
        let (heads, len, dim) = (3, 5, 8);
        for layout in [Layout::Bhld, Layout::Blhd] {
            assert_eq!(layout.strides(heads, len, dim).extent([2, heads, len], dim), 2 * heads * len * dim);
        }
        assert_eq!(Layout::Bhld.strides(heads, len, dim).extent([0, heads, len], dim), 0);
        assert!(Layout::Bhld.check("q", [1 << 20, 1 << 20, 1 << 20], 64).is_err());
        assert!(Layout::Strided(Strides::new(1 << 31, 0, 0)).check("q", [2, 1, 1], 8).is_ok());
        assert!(Layout::Strided(Strides::new(1 << 32, 0, 0)).check("q", [2, 1, 1], 8).is_err());
    }
}
