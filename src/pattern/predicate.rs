use super::{Pattern, Site, Varies};
use std::fmt;

/// Any predicate of a site, a query and a key: S_i = { j : f(site, i, j) }. It is what `f` says at any lengths.
///
/// Nothing is known of `f`, so every pair is asked once: a [`BlockMask`](crate::BlockMask) costs B H Lq Lk calls to
/// build, 16 s at 1 ns a call for 131,072 positions. [`PairPredicate`] divides that by B H. A pattern of your own
/// with closed [`spans`](Pattern::spans) costs what it keeps.
///
/// ```
/// use wgpu_attention::{Predicate, mask::{BlockGrid, BlockMask}};
/// let dilated = Predicate(|site, i, j| j <= i && (i - j) % (site.head + 1) == 0);
/// let mask = BlockMask::new(&dilated, BlockGrid::new(4, 4).heads(2))?;
/// assert_eq!(mask.pairs(0, 1), "█···\n·█··\n█·█·\n·█·█\n");
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Predicate<F: Fn(&Site, usize, usize) -> bool>(
    /// Whether query i attends key j.
    pub F,
);

/// Any predicate of a query and a key alone, the same in every head and batch item: S_i = { j : f(i, j) }. See
/// [`Predicate`]: a [`BlockMask`](crate::BlockMask) costs Lq Lk calls to build.
///
/// ```
/// use wgpu_attention::{PairPredicate, mask::{BlockGrid, BlockMask}};
/// let mask = BlockMask::new(&PairPredicate(|i, j| (i + j) % 2 == 0), BlockGrid::new(2, 4))?;
/// assert_eq!(mask.pairs(0, 0), "█·█·\n·█·█\n");
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct PairPredicate<F: Fn(usize, usize) -> bool>(
    /// Whether query i attends key j.
    pub F,
);

impl<F: Fn(&Site, usize, usize) -> bool + Send + Sync> Pattern for Predicate<F> {
    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        (self.0)(site, i, j)
    }

    fn varies(&self) -> Varies {
        Varies { batch: true, heads: true }
    }
}

impl<F: Fn(usize, usize) -> bool + Send + Sync> Pattern for PairPredicate<F> {
    fn keep(&self, _: &Site, i: usize, j: usize) -> bool {
        (self.0)(i, j)
    }
}

impl<F: Fn(&Site, usize, usize) -> bool> fmt::Debug for Predicate<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Predicate(..)")
    }
}

impl<F: Fn(usize, usize) -> bool> fmt::Debug for PairPredicate<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PairPredicate(..)")
    }
}
