//! The tiles of a block row that touches many partial blocks, query by query: asking for each word would take longer.

use super::build::{Builder, ones};
use crate::{Pattern, Site, Span};

/// Partial blocks of a row from which its tiles are filled query by query.
const MANY: usize = 8;

/// Blocks per partial block up to which whole rows of words are made: what they hold beside those blocks costs little.
const SPARSE: usize = 16;

/// Keys per stretch of a query below which words take less time than stretches.
const WORDY: usize = 128;

impl Builder {
    /// Finds for each query of a block one before it that attends the same keys, among the last few that differ.
    pub(super) fn find_twins<P: Pattern + ?Sized>(&mut self, pattern: &P, site: &Site, q_block: usize) {
        const FEW: usize = 4;
        let queries = self.grid.queries(q_block);
        let mut different: Vec<usize> = Vec::with_capacity(queries.len());
        self.twins.clear();
        for i in queries.clone() {
            // Where the first queries all differ, most patterns have no twins at all.
            let hopeless = different.len() == 2 * FEW && i == queries.start + 2 * FEW;
            if hopeless {
                break;
            }
            let twin = different.iter().rev().take(FEW).copied().find(|&twin| pattern.alike(site, twin, i));
            if twin.is_none() {
                different.push(i);
            }
            self.twins.push(twin.unwrap_or(i) - queries.start);
        }
    }

    /// The tiles of the blocks of one row that are asked for, where there are enough of them.
    pub(super) fn tiles_of_row<P: Pattern + ?Sized>(
        &self,
        pattern: &P,
        site: &Site,
        q_block: usize,
        asked: &[usize],
    ) -> Option<Vec<u32>> {
        if asked.len() < MANY {
            return None;
        }
        // Where one query's own stretches still have to be asked for, they save nothing.
        let queries = self.grid.queries(q_block);
        let knows = |i: usize| {
            let row = pattern.spans(site, i..i + 1);
            row.len() <= (self.grid.kv_len / WORDY).max(4) && row.iter().all(|span| span.all)
        };
        // Neighbours may be unlike: of a token and of another query.
        if [queries.start, queries.start + queries.len() / 2, queries.end - 1].into_iter().all(knows) {
            return Some(self.tiles_by_stretches(pattern, site, q_block, asked));
        }
        let dense = SPARSE * asked.len() >= self.grid.k_blocks();
        dense.then(|| self.tiles_by_words(pattern, site, q_block, asked))
    }

    /// The tiles from whole rows of words.
    fn tiles_by_words<P: Pattern + ?Sized>(
        &self,
        pattern: &P,
        site: &Site,
        q_block: usize,
        asked: &[usize],
    ) -> Vec<u32> {
        let (row_words, tile_words) = (self.grid.row_words(), self.grid.tile_words());
        let mut tiles = vec![0; asked.len() * tile_words];
        let mut words = vec![0; self.grid.kv_len.div_ceil(32)];
        for (row, i) in self.grid.queries(q_block).enumerate() {
            if self.copy_twin(&mut tiles, row) {
                continue;
            }
            pattern.row(site, i, &mut words);
            for (at, &k_block) in asked.iter().enumerate() {
                let tile = &mut tiles[at * tile_words + row * row_words..][..row_words];
                if self.grid.block_k.is_multiple_of(32) {
                    // Whole words; a short last block has fewer.
                    let of = &words[k_block * row_words..];
                    tile.iter_mut().zip(of).for_each(|(word, of)| *word = *of);
                    continue;
                }
                let keys = self.grid.keys(k_block);
                for (word, j) in tile.iter_mut().zip(keys.clone().step_by(32)) {
                    *word = words[j / 32] >> (j % 32) & ones(keys.end - j);
                }
            }
        }
        tiles
    }

    /// Fills a row of all tiles from that of a query before it that attends the same keys, if there is one.
    fn copy_twin(&self, tiles: &mut [u32], row: usize) -> bool {
        let Some(twin) = self.twins.get(row).copied().filter(|&twin| twin < row) else { return false };
        let row_words = self.grid.row_words();
        for tile in tiles.chunks_exact_mut(self.grid.tile_words()) {
            tile.copy_within(twin * row_words..(twin + 1) * row_words, row * row_words);
        }
        true
    }

    /// The tiles of many blocks of one row, from each query's own stretches: most of their words are clear, and asking
    /// for each would take longer.
    fn tiles_by_stretches<P: Pattern + ?Sized>(
        &self,
        pattern: &P,
        site: &Site,
        q_block: usize,
        asked: &[usize],
    ) -> Vec<u32> {
        let (block_k, row_words, tile_words) =
            (self.grid.block_k, self.grid.row_words(), self.grid.tile_words());
        let mut tiles = vec![0; asked.len() * tile_words];
        for (row, i) in self.grid.queries(q_block).enumerate() {
            if self.copy_twin(&mut tiles, row) {
                continue;
            }
            let place = |at: usize| at * tile_words + row * row_words;
            for Span { keys, all } in pattern.spans(site, i..i + 1) {
                let first = asked.partition_point(|&k_block| (k_block + 1) * block_k <= keys.start);
                let meets = |&(_, &k_block): &(usize, &usize)| k_block * block_k < keys.end;
                for (at, &k_block) in asked.iter().enumerate().skip(first).take_while(meets) {
                    let of = self.grid.keys(k_block);
                    for (word, j) in of.clone().step_by(32).enumerate() {
                        let before = |key: usize| ones(key.min(of.end).saturating_sub(j));
                        let within = before(keys.end) & !before(keys.start);
                        let kept = if all || within == 0 { within } else { pattern.keep_word(site, i, j) };
                        tiles[place(at) + word] |= kept & within;
                    }
                }
            }
        }
        tiles
    }
}
