//! Patterns: which keys a query attends. One small file per pattern, each with its formula, its paper and its picture.
//!
//! A pattern is one predicate, [`Pattern::keep`], and, where it can say so, a closed form of the keys that a block of
//! queries touches, [`Pattern::spans`]. It knows nothing of GPUs: [`BlockMask`](crate::BlockMask) turns it into
//! blocks.
//!
//! To add one: write its file, name it in the list below, and (for the command line) in `AnyPattern`. What makes planning
//! quick: [`keep_word`](Pattern::keep_word) and [`spans`](Pattern::spans) in closed form, [`alike`](Pattern::alike) where
//! queries repeat each other, and [`pieces`](Pattern::pieces) where the pairs are scattered.

use crate::Result;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

mod bigbird;
mod bits;
mod blocks;
mod causal;
mod document;
mod excerpt;
mod first;
mod fixed;
mod full;
mod global;
mod key_lengths;
mod logic;
mod mask;
mod permutation;
mod predicate;
mod prefix;
mod stretches;
mod strided;
mod window;

#[cfg(feature = "serde")]
mod any;
#[cfg(feature = "serde")]
mod json;
#[cfg(feature = "serde")]
mod names;
#[cfg(feature = "serde")]
mod short;
mod spans;

pub use bigbird::{BigBird, BigBirdEnds, BigBirdLists, Random};
pub use blocks::{BlockLayout, Blocks};
pub use causal::{Causal, CausalTopLeft};
pub use document::Document;
pub use excerpt::Excerpt;
pub use first::First;
pub use fixed::{Fixed, FixedPart};
pub use full::Full;
pub use global::{Global, Longformer};
pub use key_lengths::KeyLengths;
pub use logic::{And, Identity, Not, Or, Piece};
pub use mask::Mask;
pub use permutation::Permutation;
pub use predicate::{PairPredicate, Predicate};
pub use prefix::Prefix;
pub use strided::{Dilated, Strided, StridedPart};
pub use window::Window;

#[cfg(feature = "serde")]
pub use any::{Alignment, AnyPattern, Tensors};

/// The lengths that a pattern is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Batch items, B.
    pub batch: usize,
    /// Query heads, H.
    pub heads: usize,
    /// Queries, Lq.
    pub q_len: usize,
    /// Keys, Lk.
    pub kv_len: usize,
}

/// One head of one batch item: where [`Pattern::keep`] is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Site {
    /// Batch item, below B.
    pub batch: usize,
    /// Query head, below H.
    pub head: usize,
    /// All the lengths.
    pub extent: Extent,
}

impl Site {
    /// The key at which query i stands when both sequences end together: i + (Lk - Lq), the bottom-right alignment.
    /// Negative where there are more queries than keys and i is among the first.
    pub fn aligned(&self, i: usize) -> isize {
        i as isize + self.extent.kv_len as isize - self.extent.q_len as isize
    }
}

/// A stretch of keys, seen from a block of queries.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Span {
    /// The keys.
    pub keys: Range<usize>,
    /// `true`: every query of the block attends every key of the stretch. `false`: some may, ask `keep`.
    pub all: bool,
}

/// Along which axes of the grid a pattern differs; where it does not, its blocks are stored once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Varies {
    /// Batch items may differ (padding, packed documents).
    pub batch: bool,
    /// Heads may differ (per-head layouts, seeds).
    pub heads: bool,
}

impl Varies {
    /// Along the axes of either.
    pub fn or(self, other: Self) -> Self {
        Self { batch: self.batch || other.batch, heads: self.heads || other.heads }
    }
}

/// The set S of attended pairs, as a predicate.
///
/// `dyn Pattern` can be compared, hashed and cloned, so that plans can be kept by their pattern: see [`Identity`].
pub trait Pattern: Debug + Send + Sync {
    /// Whether query `i` attends key `j`. The definition: all else must agree with it.
    fn keep(&self, site: &Site, i: usize, j: usize) -> bool;

    /// Which pattern it is, for `==`, `Hash` and clones of `dyn Pattern`: [`Identity::of(self)`](Identity::of) in a
    /// pattern with parameters of its own. One that wraps another and keeps the same pairs hands on the other's.
    fn identity(&self) -> Identity<'_>;

    /// 32 pairs at once: bit b is `keep(i, j + b)`, and clear from Lk on. The default asks `keep`; a pattern that can
    /// say it faster does, and one that is made of others asks them for words, too. Bits of partial blocks come from
    /// here.
    fn keep_word(&self, site: &Site, i: usize, j: usize) -> u32 {
        let end = site.extent.kv_len.min(j + 32);
        (j..end).fold(0, |word, key| word | u32::from(self.keep(site, i, key)) << (key - j))
    }

    /// All pairs of a query at once: bit b of word w is `keep(i, 32 w + b)`, and clear from Lk on. The default takes the
    /// stretches of the query alone and, where they leave it open, asks [`keep_word`](Self::keep_word) for each word. Bits of
    /// rows that touch many partial blocks come from here.
    fn row(&self, site: &Site, i: usize, words: &mut [u32]) {
        let stretches = self.spans(site, i..i + 1);
        spans::row(&stretches, words);
        for Span { keys, .. } in stretches.iter().filter(|span| !span.all && !span.keys.is_empty()) {
            let touched = words.iter_mut().enumerate().take(keys.end.div_ceil(32)).skip(keys.start / 32);
            for (n, word) in touched {
                // Of a word at an end of the stretch, the other keys are those of its neighbours.
                *word &= self.keep_word(site, i, 32 * n) | !spans::within(keys, 32 * n);
            }
        }
    }

    /// The keys that any query of `rows` (not empty) attends, as disjoint ascending stretches within `0..kv_len`;
    /// keys outside of all stretches are attended by none of `rows`. The default leaves all to `keep`, at a cost of
    /// Lq Lk calls.
    fn spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        let _ = rows;
        vec![Span { keys: 0..site.extent.kv_len, all: false }]
    }

    /// Whether two queries are known to attend the same keys. Then words of one serve for the other.
    fn alike(&self, site: &Site, a: usize, b: usize) -> bool {
        let _ = (site, a, b);
        false
    }

    /// Along which axes the pattern differs.
    fn varies(&self) -> Varies {
        Varies::default()
    }

    /// Disjoint pieces that together are the pattern and that lie densely, for a pattern whose pairs are scattered in
    /// natural order; the first piece holds every query. `None`: natural order is best.
    fn pieces(&self, extent: &Extent) -> Option<Vec<Piece>> {
        let _ = extent;
        None
    }

    /// The same pairs in a form that takes memory linear in the lengths and is asked in less time: combinations ask their parts
    /// for every row. `None`: the pattern as it is.
    fn written(&self, extent: &Extent) -> Option<Box<dyn Pattern>> {
        let _ = extent;
        None
    }

    /// Why its pairs may be scattered in natural order, where it has no [`pieces`](Self::pieces) and knows: half a
    /// sentence for [`Parts::note`](crate::Parts::note).
    fn why(&self) -> Option<&'static str> {
        None
    }

    /// Checks the parameters, also against the lengths.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) naming the parameter.
    fn check(&self, extent: &Extent) -> Result<()> {
        let _ = extent;
        Ok(())
    }
}

/// The value of a flag that a file leaves out.
#[cfg(feature = "serde")]
fn yes() -> bool {
    true
}

macro_rules! forward {
    ($($owner:ty),*) => {
        $(impl<P: Pattern + ?Sized> Pattern for $owner {
            fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
                (**self).keep(site, i, j)
            }

            fn identity(&self) -> Identity<'_> {
                (**self).identity()
            }

            fn keep_word(&self, site: &Site, i: usize, j: usize) -> u32 {
                (**self).keep_word(site, i, j)
            }

            fn row(&self, site: &Site, i: usize, words: &mut [u32]) {
                (**self).row(site, i, words);
            }

            fn spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
                (**self).spans(site, rows)
            }

            fn alike(&self, site: &Site, a: usize, b: usize) -> bool {
                (**self).alike(site, a, b)
            }

            fn varies(&self) -> Varies {
                (**self).varies()
            }

            fn pieces(&self, extent: &Extent) -> Option<Vec<Piece>> {
                (**self).pieces(extent)
            }

            fn written(&self, extent: &Extent) -> Option<Box<dyn Pattern>> {
                (**self).written(extent)
            }

            fn why(&self) -> Option<&'static str> {
                (**self).why()
            }

            fn check(&self, extent: &Extent) -> Result<()> {
                (**self).check(extent)
            }
        })*
    };
}

forward!(&P, Box<P>, Arc<P>);
