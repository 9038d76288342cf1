use super::{Identity, Pattern, Site, Varies};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

const WHY: &str = "a predicate says nothing of an order in which its pairs lie densely";

/// Any predicate of a site, a query and a key: S_i = { j : f(site, i, j) }. It is what `f` says at any lengths.
///
/// Nothing is known of `f`, so every pair is asked once: a [`BlockMask`](crate::BlockMask) costs B H Lq Lk calls to
/// build, 17 s at 1 ns per call for one head of 131,072 positions. [`PairPredicate`] divides that by B H. A pattern of your own
/// with closed [`spans`](Pattern::spans) costs what it keeps.
///
/// Two predicates are equal where they share one closure: a clone equals what it was cloned from, but no other call of
/// [`new`](Self::new) gives an equal one, were it with the same closure. Keep it, to find its plan again.
///
/// ```
/// use wgpu_attention::{Predicate, mask::{BlockGrid, BlockMask}};
/// let dilated = Predicate::new(|site, i, j| j <= i && (i - j) % (site.head + 1) == 0);
/// let mask = BlockMask::new(&dilated, BlockGrid::new(4, 4).heads(2))?;
/// assert_eq!(mask.pairs(0, 1), "█···\n·█··\n█·█·\n·█·█\n");
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub struct Predicate<F>(Arc<F>);

/// Any predicate of a query and a key alone, the same in every head and batch item: S_i = { j : f(i, j) }. See
/// [`Predicate`]: a [`BlockMask`](crate::BlockMask) costs Lq Lk calls to build.
/// Two are equal where one is a clone of the other, as there.
///
/// ```
/// use wgpu_attention::{PairPredicate, mask::{BlockGrid, BlockMask}};
/// let mask = BlockMask::new(&PairPredicate::new(|i, j| (i + j) % 2 == 0), BlockGrid::new(2, 4))?;
/// assert_eq!(mask.pairs(0, 0), "█·█·\n·█·█\n");
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub struct PairPredicate<F>(Arc<F>);

impl<F: Fn(&Site, usize, usize) -> bool> Predicate<F> {
    /// Whether query i attends key j: `keep(site, i, j)`.
    pub fn new(keep: F) -> Self {
        Self(Arc::new(keep))
    }
}

impl<F: Fn(usize, usize) -> bool> PairPredicate<F> {
    /// Whether query i attends key j: `keep(i, j)`.
    pub fn new(keep: F) -> Self {
        Self(Arc::new(keep))
    }
}

impl<F: Fn(&Site, usize, usize) -> bool + Send + Sync + 'static> Pattern for Predicate<F> {
    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        (self.0)(site, i, j)
    }

    fn varies(&self) -> Varies {
        Varies { batch: true, heads: true }
    }

    fn why(&self) -> Option<&'static str> {
        Some(WHY)
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }
}

impl<F: Fn(usize, usize) -> bool + Send + Sync + 'static> Pattern for PairPredicate<F> {
    fn keep(&self, _: &Site, i: usize, j: usize) -> bool {
        (self.0)(i, j)
    }

    fn why(&self) -> Option<&'static str> {
        Some(WHY)
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }
}

/// What holds for every predicate, as nothing is known of its closure.
macro_rules! by_closure {
    ($name:ident) => {
        impl<F> Clone for $name<F> {
            fn clone(&self) -> Self {
                Self(self.0.clone())
            }
        }

        impl<F> PartialEq for $name<F> {
            fn eq(&self, other: &Self) -> bool {
                Arc::ptr_eq(&self.0, &other.0)
            }
        }

        impl<F> Eq for $name<F> {}

        impl<F> Hash for $name<F> {
            fn hash<H: Hasher>(&self, state: &mut H) {
                Arc::as_ptr(&self.0).hash(state);
            }
        }

        impl<F> fmt::Debug for $name<F> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

by_closure!(Predicate);
by_closure!(PairPredicate);
