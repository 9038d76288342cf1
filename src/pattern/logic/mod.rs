mod cut;
mod identity;
pub(in crate::pattern) mod lower;

pub use identity::Identity;
pub use lower::Piece;

use super::{Extent, Pattern, Range, Site, Span, Varies, spans};
use crate::Result;

/// Pairs that both patterns keep. Closed forms stay closed: stretches are intersected.
///
/// ```text
/// And(Causal, Window { before: 1, after: 1 })   Lq = Lk     Lq < Lk     Lq > Lk
///                                               █···        ·██··       ···
///                                               ██··        ··██·       █··
///                                               ·██·        ···██       ██·
///                                               ··██                    ·██
/// ```
///
/// At Lq != Lk each pattern keeps its own alignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct And<A, B>(
    /// One pattern.
    pub A,
    /// The other.
    pub B,
);

/// Pairs that either pattern keeps. Closed forms stay closed: stretches are united.
///
/// ```text
/// Or(Causal, Window { before: 0, after: 1 })   Lq = Lk     Lq < Lk     Lq > Lk
///                                              ██··        ████·       █··
///                                              ███·        █████       ██·
///                                              ████        █████       ███
///                                              ████                    ███
/// ```
///
/// At Lq != Lk each pattern keeps its own alignment. A pair that both keep counts once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Or<A, B>(
    /// One pattern.
    pub A,
    /// The other.
    pub B,
);

/// Pairs that a pattern does not keep. Closed forms stay closed: what was attended by all is attended by none.
///
/// ```text
/// Not(Causal)   Lq = Lk     Lq < Lk     Lq > Lk
///               ·███        ···██       ███
///               ··██        ····█       ·██
///               ···█        ·····       ··█
///               ····                    ···
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Not<P>(
    /// The pattern.
    pub P,
);

impl<A: Pattern, B: Pattern> Pattern for And<A, B> {
    fn alike(&self, site: &Site, a: usize, b: usize) -> bool {
        self.0.alike(site, a, b) && self.1.alike(site, a, b)
    }

    fn identity(&self) -> Identity<'_> {
        Identity::both(self.0.identity(), self.1.identity())
    }

    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        self.0.keep(site, i, j) && self.1.keep(site, i, j)
    }

    fn keep_word(&self, site: &Site, i: usize, j: usize) -> u32 {
        self.0.keep_word(site, i, j) & self.1.keep_word(site, i, j)
    }

    fn row(&self, site: &Site, i: usize, words: &mut [u32]) {
        let mut other = vec![0; words.len()];
        self.0.row(site, i, words);
        self.1.row(site, i, &mut other);
        words.iter_mut().zip(other).for_each(|(word, other)| *word &= other);
    }

    fn spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        let (a, b) = (self.0.spans(site, rows.clone()), self.1.spans(site, rows));
        spans::and(&a, &b, site.extent.kv_len)
    }

    fn varies(&self) -> Varies {
        self.0.varies().or(self.1.varies())
    }

    fn check(&self, extent: &Extent) -> Result<()> {
        self.0.check(extent)?;
        self.1.check(extent)
    }

    /// The pieces of one, each cut to the pairs of the other.
    fn pieces(&self, extent: &Extent) -> Option<Vec<Piece>> {
        Some(lower::and(&self.0, &self.1, extent))
    }
}

impl<A: Pattern, B: Pattern> Pattern for Or<A, B> {
    fn alike(&self, site: &Site, a: usize, b: usize) -> bool {
        self.0.alike(site, a, b) && self.1.alike(site, a, b)
    }

    fn identity(&self) -> Identity<'_> {
        Identity::either(self.0.identity(), self.1.identity())
    }

    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        self.0.keep(site, i, j) || self.1.keep(site, i, j)
    }

    fn keep_word(&self, site: &Site, i: usize, j: usize) -> u32 {
        self.0.keep_word(site, i, j) | self.1.keep_word(site, i, j)
    }

    fn row(&self, site: &Site, i: usize, words: &mut [u32]) {
        let mut other = vec![0; words.len()];
        self.0.row(site, i, words);
        self.1.row(site, i, &mut other);
        words.iter_mut().zip(other).for_each(|(word, other)| *word |= other);
    }

    fn spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        let (a, b) = (self.0.spans(site, rows.clone()), self.1.spans(site, rows));
        spans::or(&a, &b, site.extent.kv_len)
    }

    fn varies(&self) -> Varies {
        self.0.varies().or(self.1.varies())
    }

    fn check(&self, extent: &Extent) -> Result<()> {
        self.0.check(extent)?;
        self.1.check(extent)
    }

    /// The pieces of one, and those of the other without what the first has.
    fn pieces(&self, extent: &Extent) -> Option<Vec<Piece>> {
        Some(lower::or(&self.0, &self.1, extent))
    }
}

impl<P: Pattern> Pattern for Not<P> {
    fn alike(&self, site: &Site, a: usize, b: usize) -> bool {
        self.0.alike(site, a, b)
    }

    fn identity(&self) -> Identity<'_> {
        Identity::complement(self.0.identity())
    }

    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        !self.0.keep(site, i, j)
    }

    fn keep_word(&self, site: &Site, i: usize, j: usize) -> u32 {
        !self.0.keep_word(site, i, j) & spans::ones(site.extent.kv_len.saturating_sub(j))
    }

    fn row(&self, site: &Site, i: usize, words: &mut [u32]) {
        self.0.row(site, i, words);
        let keys = 0..site.extent.kv_len;
        words.iter_mut().enumerate().for_each(|(n, word)| *word = !*word & spans::within(&keys, 32 * n));
    }

    fn spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        spans::not(&self.0.spans(site, rows), site.extent.kv_len)
    }

    fn varies(&self) -> Varies {
        self.0.varies()
    }

    fn check(&self, extent: &Extent) -> Result<()> {
        self.0.check(extent)
    }

    /// The pieces of the complement, pushed to the parts of a combination.
    fn pieces(&self, extent: &Extent) -> Option<Vec<Piece>> {
        Some(lower::not(&self.0, extent))
    }
}
