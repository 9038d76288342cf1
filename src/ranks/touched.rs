//! Sets of blocks.

use crate::mask::BlockMask;
use std::ops::Range;

/// The batch items and heads whose rows a mask stores: shared ones once.
pub(super) fn sites(mask: &BlockMask) -> impl Iterator<Item = [usize; 2]> + use<> {
    let grid = mask.grid();
    let stored = |stride: usize, size: usize| if stride == 0 { size.min(1) } else { size };
    let (items, heads) = (stored(mask.batch_stride(), grid.batch), stored(mask.head_stride(), grid.heads));
    (0..items).flat_map(move |batch| (0..heads).map(move |head| [batch, head]))
}

/// A set of blocks that grows by runs.
#[derive(Debug, Clone)]
pub(super) struct Touched {
    bits: Vec<u64>,
    len: usize,
    /// Long runs that are not among the bits yet.
    long: Vec<Range<usize>>,
}

/// Blocks of a run from which setting its bits would take longer than keeping it.
const LONG: usize = 64;

impl Touched {
    /// None of so many blocks.
    pub(super) fn new(len: usize) -> Self {
        Self { bits: vec![0; len.div_ceil(64)], len, long: vec![] }
    }

    /// Adds a run; what is asked later is asked after [`settle`](Self::settle).
    pub(super) fn add(&mut self, blocks: Range<usize>) {
        match blocks.len() {
            LONG.. => self.long.push(blocks),
            _ => drop(self.set(blocks)),
        }
    }

    /// Sets the bits of long runs, each block once.
    pub(super) fn settle(&mut self) {
        let mut long = std::mem::take(&mut self.long);
        long.sort_unstable_by_key(|blocks| blocks.start);
        let mut next = 0;
        for blocks in long {
            self.set(blocks.start.max(next)..blocks.end);
            next = next.max(blocks.end);
        }
    }

    /// Adds a run at once; how many blocks were not there before.
    pub(super) fn set(&mut self, blocks: Range<usize>) -> u64 {
        let mut new = 0;
        for (word, of_range) in words(blocks) {
            new += u64::from((of_range & !self.bits[word]).count_ones());
            self.bits[word] |= of_range;
        }
        new
    }

    /// How many blocks of all.
    pub(super) fn count(&self) -> u64 {
        self.count_of(0..self.len)
    }

    /// How many blocks of a range.
    pub(super) fn count_of(&self, blocks: Range<usize>) -> u64 {
        words(blocks).map(|(word, of_range)| u64::from((self.bits[word] & of_range).count_ones())).sum()
    }

    /// The blocks, as ascending runs that do not touch.
    pub(super) fn runs(&self) -> Vec<Range<usize>> {
        self.runs_of(0..self.len)
    }

    /// Those of a range.
    pub(super) fn runs_of(&self, blocks: Range<usize>) -> Vec<Range<usize>> {
        let (mut runs, mut at) = (vec![], blocks.start);
        while let Some(start) = self.next(at, true).filter(|&start| start < blocks.end) {
            at = self.next(start, false).unwrap_or(self.len).min(blocks.end);
            runs.push(start..at);
        }
        runs
    }

    /// The first block from `at` on that is in the set, or that is not.
    fn next(&self, at: usize, is: bool) -> Option<usize> {
        let mut word = at / 64;
        let mut mask = u64::MAX << (at % 64);
        while word < self.bits.len() {
            let bits = (if is { self.bits[word] } else { !self.bits[word] }) & mask;
            if bits != 0 {
                let found = 64 * word + bits.trailing_zeros() as usize;
                return (found < self.len).then_some(found);
            }
            (word, mask) = (word + 1, u64::MAX);
        }
        None
    }
}

/// The words that hold the bits of a range, each with the range's bits in it set.
fn words(range: Range<usize>) -> impl Iterator<Item = (usize, u64)> {
    let words = if range.is_empty() { 0..0 } else { range.start / 64..range.end.div_ceil(64) };
    words.map(move |word| {
        let [from, to] = [range.start, range.end].map(|bit| bit.saturating_sub(64 * word).min(64));
        (word, u64::MAX >> (64 - (to - from)) << from)
    })
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "a list of one stretch is meant")]
mod tests {
    use super::*;

    #[test]
    fn runs_come_out_as_they_went_in() {
        let mut touched = Touched::new(300);
        for run in [3..5, 4..9, 63..65, 100..190, 150..200, 299..300, 7..7] {
            touched.add(run);
        }
        touched.settle();
        assert_eq!(touched.runs(), [3..9, 63..65, 100..200, 299..300]);
        assert_eq!((touched.count(), touched.count_of(64..101), touched.set(60..110)), (109, 2, 38));
        let all: Vec<_> = [0, 64, 128]
            .map(|len| {
                let mut all = Touched::new(len);
                all.add(0..len);
                all.settle();
                all.runs()
            })
            .into();
        assert_eq!(all, [vec![], vec![0..64], vec![0..128]]);
    }
}
