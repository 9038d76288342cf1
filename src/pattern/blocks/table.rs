//! Rows of blocks, written down once: patterns that draw theirs are asked for each row only once.

use crate::pattern::{BlockLayout, Identity, Pattern, Range, Site, Span, Varies, spans};

/// The query block floor(i' / block), with i' = i + (Lk - Lq), attends the key blocks of its row. Queries before and
/// behind the rows attend nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::pattern) struct BlockTable {
    pub(in crate::pattern) block: usize,
    /// The query block of the first row.
    pub(in crate::pattern) first: usize,
    /// Its columns are keys: whole blocks of them, without a division for each key that is asked for.
    pub(in crate::pattern) layout: BlockLayout,
}

impl BlockTable {
    fn row(&self, head: usize, r: isize) -> &[Range<u32>] {
        match usize::try_from(r).ok().and_then(|r| r.checked_sub(self.first)) {
            Some(row) => self.layout.row(head, row),
            None => &[],
        }
    }

    fn query_block(&self, site: &Site, i: usize) -> isize {
        site.aligned(i).div_euclid(self.block as isize)
    }
}

impl Pattern for BlockTable {
    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        has(self.row(site.head, self.query_block(site, i)), j)
    }

    fn keep_word(&self, site: &Site, i: usize, j: usize) -> u32 {
        word(self.row(site.head, self.query_block(site, i)), 1, j, site.extent.kv_len)
    }

    fn spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        let kv_len = site.extent.kv_len;
        let (first, last) = (self.query_block(site, rows.start), self.query_block(site, rows.end - 1));
        let of = |r| stretches(self.row(site.head, r), 1, kv_len);
        spans::all_together((first..=last).map(of).collect(), kv_len)
    }

    fn varies(&self) -> Varies {
        Varies { batch: false, heads: self.layout.sizes()[0] > 1 }
    }

    fn alike(&self, site: &Site, a: usize, b: usize) -> bool {
        self.query_block(site, a) == self.query_block(site, b)
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }
}

/// Whether a row of key blocks holds one.
pub(in crate::pattern) fn has(row: &[Range<u32>], block: usize) -> bool {
    let after = row.partition_point(|run| run.start as usize <= block);
    row[..after].last().is_some_and(|run| block < run.end as usize)
}

/// [`keep_word`](Pattern::keep_word) of a row of key blocks.
pub(in crate::pattern) fn word(row: &[Range<u32>], block: usize, j: usize, kv_len: usize) -> u32 {
    let edge = |column: u32| (column as usize).saturating_mul(block).min(kv_len).saturating_sub(j);
    // Most rows are short, and then a search costs more than it saves.
    let from = if row.len() <= 8 { 0 } else { row.partition_point(|run| edge(run.end) == 0) };
    let runs = row[from..].iter().take_while(|run| edge(run.start) < 32);
    runs.fold(0, |word, run| word | spans::ones(edge(run.end)) & !spans::ones(edge(run.start)))
}

/// The keys of a row of key blocks.
pub(in crate::pattern) fn stretches(row: &[Range<u32>], block: usize, kv_len: usize) -> Vec<Span> {
    let edge = |column: u32| (column as usize).saturating_mul(block).min(kv_len);
    row.iter().map(|run| Span { keys: edge(run.start)..edge(run.end), all: true }).collect()
}

/// Why blocks of this size are scattered for a kernel.
pub(in crate::pattern) fn why(block: usize) -> Option<&'static str> {
    (!block.is_multiple_of(16))
        .then_some("its blocks are no multiple of the 16 keys that a kernel visits at once")
}
