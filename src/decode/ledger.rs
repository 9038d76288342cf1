//! What the host knows of a cache: lengths, and who has which page.

use super::{CacheShape, Paging};
use crate::{Error, Result};

/// Lengths and pages of all sequences. Whatever fails changes nothing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ledger {
    capacity: usize,
    lengths: Vec<usize>,
    pool: Option<Pool>,
}

/// Pages: a sequence's table lists those of its positions, in order, and perhaps some that it will need.
#[derive(Debug, Clone, PartialEq)]
struct Pool {
    page: usize,
    /// Entries of a table, at most.
    width: usize,
    tables: Vec<Vec<u32>>,
    /// How many tables have each page.
    owners: Vec<u32>,
    free: Vec<u32>,
}

/// What has to be done on the device.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Changes {
    /// Pages to copy, from and to, before they are written.
    pub(crate) copies: Vec<[u32; 2]>,
    /// Entries of the tables `[B, capacity / page]`, and their pages.
    pub(crate) entries: Vec<(usize, u32)>,
}

impl Ledger {
    /// Empty sequences.
    pub(crate) fn new(shape: &CacheShape) -> Self {
        let pool = shape.paging.map(|Paging { page, pages }| Pool {
            page,
            width: shape.capacity / page,
            tables: vec![vec![]; shape.batch],
            owners: vec![0; pages],
            free: (0..pages as u32).rev().collect(),
        });
        Self { capacity: shape.capacity, lengths: vec![0; shape.batch], pool }
    }

    pub(crate) fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Pages that nobody has; none where there are no pages.
    pub(crate) fn free_pages(&self) -> Option<usize> {
        self.pool.as_ref().map(|pool| pool.free.len())
    }

    /// The pages of a sequence.
    #[cfg(test)]
    fn table(&self, sequence: usize) -> &[u32] {
        &self.pool.as_ref().expect("a paged cache").tables[sequence]
    }

    /// So many more positions per sequence, and what the device has to do before they are written.
    pub(crate) fn extend(&mut self, counts: &[usize]) -> Result<Changes> {
        let ends = self.ends(counts)?;
        let Self { lengths, pool, .. } = self;
        let mut changes = Changes::default();
        if let Some(pool) = pool {
            let written = |b: usize| (counts[b] > 0).then_some(lengths[b]);
            pool.check_room(&ends, &written)?;
            changes = pool.grow(&ends);
            (0..ends.len()).for_each(|b| pool.own(b, written(b), &mut changes));
        }
        *lengths = ends;
        Ok(changes)
    }

    /// Pages for so many more positions per sequence, which stay as long as they are.
    pub(crate) fn reserve(&mut self, counts: &[usize]) -> Result<Changes> {
        let ends = self.ends(counts)?;
        let Some(pool) = &mut self.pool else { return Ok(Changes::default()) };
        pool.check_room(&ends, &|_| None)?;
        Ok(pool.grow(&ends))
    }

    /// A sequence forgets what is past a length, and gives back its pages.
    pub(crate) fn truncate(&mut self, sequence: usize, length: usize) -> Result<()> {
        let have = self.length("sequence", sequence)?;
        if length > have {
            return Err(Error::argument("length", format!("at most the sequence's own, {have}"), length));
        }
        if let Some(pool) = &mut self.pool {
            pool.shorten(sequence, length.div_ceil(pool.page));
        }
        self.lengths[sequence] = length;
        Ok(())
    }

    /// `to` becomes what `from` is; they share pages until one of them writes.
    pub(crate) fn fork(&mut self, from: usize, to: usize) -> Result<Changes> {
        let length = self.length("from", from)?;
        self.length("to", to)?;
        if from == to {
            return Err(Error::argument("to", "another sequence than from", to));
        }
        let Some(pool) = &mut self.pool else {
            return Err(Error::argument("paging", "a paged cache, whose pages sequences can share", "none"));
        };
        pool.shorten(to, 0);
        let shared = pool.tables[from][..length.div_ceil(pool.page)].to_vec();
        shared.iter().for_each(|&page| pool.owners[page as usize] += 1);
        let entries = shared.iter().enumerate().map(|(n, &page)| (to * pool.width + n, page)).collect();
        pool.tables[to] = shared;
        self.lengths[to] = length;
        Ok(Changes { copies: vec![], entries })
    }

    fn length(&self, name: &'static str, sequence: usize) -> Result<usize> {
        let need = || format!("below the number of sequences ({})", self.lengths.len());
        self.lengths.get(sequence).copied().ok_or_else(|| Error::argument(name, need(), sequence))
    }

    /// Lengths after so many more positions, if the cache has them.
    fn ends(&self, counts: &[usize]) -> Result<Vec<usize>> {
        if counts.len() != self.lengths.len() {
            let need = format!("one per sequence ({})", self.lengths.len());
            return Err(Error::argument("counts", need, counts.len()));
        }
        let ends = self.lengths.iter().zip(counts).map(|(length, count)| length.saturating_add(*count));
        let ends: Vec<usize> = ends.collect();
        match ends.iter().position(|&end| end > self.capacity) {
            None => Ok(ends),
            Some(b) => Err(Error::limit(
                format!("sequence {b} of the cache"),
                "its capacity",
                ends[b] as u64,
                self.capacity as u64,
            )),
        }
    }
}

impl Pool {
    /// Whether there are pages for these lengths, and for copies of shared pages where sequences write next.
    fn check_room(&self, ends: &[usize], written: &dyn Fn(usize) -> Option<usize>) -> Result<()> {
        let grown = |(b, &end): (usize, &usize)| end.div_ceil(self.page).saturating_sub(self.tables[b].len());
        let mut need: usize = ends.iter().enumerate().map(grown).sum();
        // Of those who share a page and write, the last may keep it if nobody else has it.
        let mut sharers: Vec<(u32, u32)> = vec![];
        for page in (0..ends.len()).filter_map(|b| self.shared(b, written(b))) {
            let known = sharers.iter().position(|sharer| sharer.0 == page).unwrap_or_else(|| {
                sharers.push((page, self.owners[page as usize]));
                sharers.len() - 1
            });
            if sharers[known].1 > 1 {
                sharers[known].1 -= 1;
                need += 1;
            }
        }
        match need <= self.free.len() {
            true => Ok(()),
            false => Err(Error::limit(
                "the cache",
                "the number of free pages",
                need as u64,
                self.free.len() as u64,
            )),
        }
    }

    /// The page in which a sequence writes at this position, if others have it, too.
    fn shared(&self, sequence: usize, position: Option<usize>) -> Option<u32> {
        let page = *self.tables[sequence].get(position? / self.page)?;
        (self.owners[page as usize] > 1).then_some(page)
    }

    /// Tables long enough for these lengths. There is room.
    fn grow(&mut self, ends: &[usize]) -> Changes {
        let mut changes = Changes::default();
        for (b, end) in ends.iter().enumerate() {
            for n in self.tables[b].len()..end.div_ceil(self.page) {
                let Some(page) = self.free.pop() else { return changes };
                self.owners[page as usize] = 1;
                self.tables[b].push(page);
                changes.entries.push((b * self.width + n, page));
            }
        }
        changes
    }

    /// A copy of the page in which a sequence writes at this position, if others have it. There is room.
    fn own(&mut self, sequence: usize, position: Option<usize>, changes: &mut Changes) {
        let (Some(position), Some(shared)) = (position, self.shared(sequence, position)) else { return };
        let Some(page) = self.free.pop() else { return };
        self.owners[shared as usize] -= 1;
        self.owners[page as usize] = 1;
        let n = position / self.page;
        self.tables[sequence][n] = page;
        changes.copies.push([shared, page]);
        changes.entries.push((sequence * self.width + n, page));
    }

    /// A sequence keeps so many pages.
    fn shorten(&mut self, sequence: usize, pages: usize) {
        let keep = pages.min(self.tables[sequence].len());
        for page in self.tables[sequence].split_off(keep) {
            self.owners[page as usize] -= 1;
            if self.owners[page as usize] == 0 {
                self.free.push(page);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Counter;

    fn paged(batch: usize, capacity: usize, page: usize, pages: usize) -> Ledger {
        Ledger::new(&CacheShape::new(batch, 1, capacity, 4).paged(page, pages))
    }

    /// Pages are counted right: each is free or has as many owners as tables list it.
    fn assert_sound(ledger: &Ledger) {
        let pool = ledger.pool.as_ref().unwrap();
        let mut owners = vec![0; pool.owners.len()];
        pool.tables.iter().flatten().for_each(|&page| owners[page as usize] += 1);
        assert_eq!(owners, pool.owners);
        let mut free = pool.free.clone();
        free.sort_unstable();
        let none: Vec<u32> = (0..owners.len() as u32).filter(|&page| owners[page as usize] == 0).collect();
        assert_eq!(free, none);
        for (table, &length) in pool.tables.iter().zip(&ledger.lengths) {
            assert!(table.len() >= length.div_ceil(pool.page) && length <= ledger.capacity);
        }
    }

    #[test]
    fn pages_are_taken_as_positions_come() {
        let mut ledger = paged(2, 16, 4, 5);
        assert_eq!(ledger.extend(&[4, 0]).unwrap().entries, [(0, 0)]);
        assert_eq!(ledger.extend(&[1, 3]).unwrap().entries, [(1, 1), (4, 2)]);
        assert_eq!(ledger.extend(&[3, 1]).unwrap(), Changes::default());
        assert_eq!((ledger.lengths(), ledger.free_pages()), (&[8, 4][..], Some(2)));
    }

    #[test]
    fn a_full_cache_changes_nothing() {
        let mut ledger = paged(2, 16, 4, 5);
        ledger.extend(&[13, 4]).unwrap();
        let before = ledger.clone();
        let message = ledger.extend(&[4, 0]).unwrap_err().to_string();
        assert_eq!(message, "sequence 0 of the cache needs 17, but its capacity is 16");
        let message = ledger.extend(&[1, 1]).unwrap_err().to_string();
        assert_eq!(message, "the cache needs 1, but the number of free pages is 0");
        assert!(ledger.extend(&[1]).unwrap_err().to_string().contains("counts: need one per sequence (2)"));
        assert!(ledger.reserve(&[0, usize::MAX]).is_err());
        assert_eq!(ledger, before);
        ledger.extend(&[3, 0]).unwrap();
    }

    #[test]
    fn forks_share_until_one_writes() {
        let mut ledger = paged(3, 16, 4, 8);
        ledger.extend(&[6, 0, 0]).unwrap();
        let entries = ledger.fork(0, 1).unwrap().entries;
        assert_eq!(entries, [(4, 0), (5, 1)]);
        ledger.fork(1, 2).unwrap();
        assert_eq!(ledger.free_pages(), Some(6));
        // Two of three write: each gets a copy of the last page; the third keeps it, then alone.
        let changes = ledger.extend(&[1, 1, 0]).unwrap();
        assert_eq!(changes.copies, [[1, 2], [1, 3]]);
        assert_eq!(changes.entries, [(1, 2), (5, 3)]);
        assert!(ledger.extend(&[0, 0, 1]).unwrap().copies.is_empty());
        assert_eq!((ledger.table(0)[0], ledger.table(1)[0], ledger.table(2)), (0, 0, &[0, 1][..]));
        assert_sound(&ledger);
        // At a page's border there is nothing to copy.
        ledger.truncate(0, 4).unwrap();
        ledger.fork(0, 1).unwrap();
        assert!(ledger.extend(&[1, 1, 0]).unwrap().copies.is_empty());
        // What was forgotten within a shared page is written elsewhere.
        ledger.truncate(2, 3).unwrap();
        assert_eq!(ledger.extend(&[0, 0, 1]).unwrap().copies.len(), 1);
        assert_sound(&ledger);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let mut ledger = paged(2, 16, 4, 8);
        ledger.extend(&[5, 0]).unwrap();
        let before = ledger.clone();
        for (error, words) in [
            (ledger.truncate(0, 6).unwrap_err(), "length: need at most the sequence's own, 5"),
            (ledger.truncate(2, 0).unwrap_err(), "sequence: need below the number of sequences (2)"),
            (ledger.fork(0, 0).unwrap_err(), "to: need another sequence"),
            (ledger.fork(2, 0).unwrap_err(), "from"),
            (ledger.fork(0, 3).unwrap_err(), "to"),
        ] {
            assert!(error.to_string().contains(words), "{error}");
        }
        assert_eq!(ledger, before);
        let mut contiguous = Ledger::new(&CacheShape::new(2, 1, 8, 4));
        assert!(contiguous.fork(0, 1).unwrap_err().to_string().contains("paging"));
        assert_eq!(contiguous.extend(&[8, 1]).unwrap(), Changes::default());
        assert!(contiguous.extend(&[1, 0]).is_err());
        assert_eq!((contiguous.lengths(), contiguous.free_pages()), (&[8, 1][..], None));
    }

    /// Any walk of operations, against a model in which each sequence has a text of its own.
    #[test]
    fn every_sequence_keeps_its_text() {
        let draw = Counter::new(5, 1);
        let (batch, capacity, page) = (4, 24, 4);
        let mut ledger = paged(batch, capacity, page, 13);
        let mut texts: Vec<Vec<u64>> = vec![vec![]; batch];
        let mut memory = vec![0u64; 13 * page];
        let mut refused = 0;
        for step in 0..4000u64 {
            let pick = |n: u64, below: u64| draw.below(8 * step + n, below) as usize;
            let (a, b) = (pick(0, batch as u64), pick(1, batch as u64));
            match pick(2, 8) {
                0 if a != b => {
                    ledger.fork(a, b).unwrap();
                    texts[b] = texts[a].clone();
                }
                1 => {
                    let length = pick(3, texts[a].len() as u64 + 1);
                    ledger.truncate(a, length).unwrap();
                    texts[a].truncate(length);
                }
                2 => drop(ledger.reserve(&vec![2; batch])),
                _ => {
                    let counts: Vec<usize> = (0..batch as u64).map(|n| pick(4 + n, 3)).collect();
                    let before = ledger.clone();
                    let Ok(changes) = ledger.extend(&counts) else {
                        assert_eq!(ledger, before);
                        refused += 1;
                        continue;
                    };
                    for [from, to] in changes.copies.map_usize() {
                        memory.copy_within(from * page..(from + 1) * page, to * page);
                    }
                    for (n, text) in texts.iter_mut().enumerate() {
                        for _ in 0..counts[n] {
                            let at = ledger.table(n)[text.len() / page] as usize * page + text.len() % page;
                            memory[at] = 10 * step + n as u64;
                            text.push(memory[at]);
                        }
                    }
                }
            }
            assert_sound(&ledger);
            for (n, text) in texts.iter().enumerate() {
                assert_eq!(ledger.lengths()[n], text.len());
                let read = |p: usize| memory[ledger.table(n)[p / page] as usize * page + p % page];
                assert!((0..text.len()).all(|p| read(p) == text[p]), "step {step}, sequence {n}");
            }
        }
        assert!(refused > 50, "{refused}");
    }

    trait Indices {
        fn map_usize(&self) -> Vec<[usize; 2]>;
    }

    impl Indices for Vec<[u32; 2]> {
        fn map_usize(&self) -> Vec<[usize; 2]> {
            self.iter().map(|pair| pair.map(|page| page as usize)).collect()
        }
    }
}
