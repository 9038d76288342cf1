//! Who holds which rows.

use super::stretches::joined;
use crate::{Error, Result};
use std::ops::Range;

/// The rows of a sequence that each rank holds: per rank ascending stretches, each row with exactly one rank.
///
/// ```
/// use wgpu_attention::ranks::Assignment;
/// let contiguous = Assignment::contiguous(1000, 64, 3)?;                 // 16 blocks: 5, 5 and 6
/// assert_eq!(contiguous.rows(1), [320..640]);
/// let zig_zag = Assignment::zig_zag(1000, 64, 2)?;                       // stripes 0 and 3, 1 and 2
/// assert_eq!((zig_zag.rows(0), zig_zag.rows(1)), (&[0..256, 768..1000][..], &[256..768][..]));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Assignment {
    len: usize,
    rows: Vec<Vec<Range<usize>>>,
}

impl Assignment {
    /// One stretch per rank, in the order of ranks, of whole blocks of `block` rows as evenly as they go: rank r has the
    /// blocks from floor(n r / R) to floor(n (r + 1) / R) of n. Ranks beyond the blocks have no rows.
    ///
    /// # Errors
    /// [`Error::Argument`] for no rank and for blocks of no row.
    pub fn contiguous(len: usize, block: usize, ranks: usize) -> Result<Self> {
        let stripes = stripes(len, block, ranks, ranks)?;
        Ok(Self { len, rows: stripes.into_iter().map(|stripe| joined([stripe])).collect() })
    }

    /// Two of 2 R stripes of whole blocks per rank, r and 2 R - 1 - r: under a causal mask all ranks have about as much to do,
    /// because an early stripe sees as many keys less as the late one beside it sees more.
    ///
    /// # Errors
    /// As [`contiguous`](Self::contiguous).
    pub fn zig_zag(len: usize, block: usize, ranks: usize) -> Result<Self> {
        let stripes = stripes(len, block, ranks, 2 * ranks)?;
        let rows = (0..ranks).map(|r| joined([stripes[r].clone(), stripes[2 * ranks - 1 - r].clone()]));
        Ok(Self { len, rows: rows.collect() })
    }

    /// One stretch per rank, in the order of ranks, each of the given number of rows, which may be 0.
    ///
    /// # Errors
    /// [`Error::Argument`] for no rank.
    pub fn uneven(rows: &[usize]) -> Result<Self> {
        check(1, rows.len())?;
        let mut len = 0;
        let rows = rows.iter().map(|&count| {
            len += count;
            joined(std::iter::once(len - count..len))
        });
        let rows = rows.collect();
        Ok(Self { len, rows })
    }

    /// The rows of the whole sequence.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the sequence has no rows.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of ranks.
    pub fn ranks(&self) -> usize {
        self.rows.len()
    }

    /// The rows of a rank, as ascending stretches that do not touch. None for a rank that is not there.
    pub fn rows(&self, rank: usize) -> &[Range<usize>] {
        self.rows.get(rank).map_or(&[], Vec::as_slice)
    }

    /// The number of rows of a rank.
    pub fn count(&self, rank: usize) -> usize {
        self.rows(rank).iter().map(Range::len).sum()
    }

    /// The place of a row among those of a rank, if it is one of them.
    pub fn place(&self, rank: usize, row: usize) -> Option<usize> {
        let mut before = 0;
        for stretch in self.rows(rank) {
            if stretch.contains(&row) {
                return Some(before + row - stretch.start);
            }
            before += stretch.len();
        }
        None
    }

    /// The rank that holds a row. `None` past the end.
    pub fn owner(&self, row: usize) -> Option<usize> {
        (0..self.ranks()).find(|&rank| self.place(rank, row).is_some())
    }
}

fn check(block: usize, ranks: usize) -> Result<()> {
    for (name, size) in [("block", block), ("ranks", ranks)] {
        if size == 0 {
            return Err(Error::argument(name, "at least 1", size));
        }
    }
    Ok(())
}

/// The rows cut into so many stripes of whole blocks.
fn stripes(len: usize, block: usize, ranks: usize, count: usize) -> Result<Vec<Range<usize>>> {
    check(block, ranks)?;
    let blocks = len.div_ceil(block) as u128;
    let start = |stripe: usize| ((blocks * stripe as u128 / count as u128) as usize * block).min(len);
    Ok((0..count).map(|stripe| start(stripe)..start(stripe + 1)).collect())
}
