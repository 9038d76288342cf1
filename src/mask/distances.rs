//! Which distances between query and key a mask keeps.

use super::{BlockMask, Part, Parts, Run, RunKind};
use std::collections::HashMap;
use std::ops::Range;

impl Parts {
    /// The lowest and the highest distance D = (i + Lk - Lq) - j of the pairs that are kept, over all batch items and heads;
    /// `None` where none is. From runs and bits in natural order; pair by pair in partial blocks of another.
    ///
    /// ```
    /// use wgpu_attention::{Window, mask::{BlockGrid, Parts}};
    /// let parts = Parts::lower(&Window { before: 9, after: 4 }, BlockGrid::new(300, 500))?;
    /// assert_eq!(parts.distances(), Some([-4, 9]));
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    pub fn distances(&self) -> Option<[i64; 2]> {
        let shift = self.extent().kv_len as i64 - self.extent().q_len as i64;
        let each = self.parts().iter().filter_map(|part| Finder::new(part, shift).all());
        each.reduce(union)
    }
}

fn union(a: [i64; 2], b: [i64; 2]) -> [i64; 2] {
    [a[0].min(b[0]), a[1].max(b[1])]
}

/// Finds the distances of one part.
struct Finder<'a> {
    part: &'a Part,
    mask: &'a BlockMask,
    shift: i64,
    /// Row - key within a bit tile of so many rows.
    tiles: HashMap<(u32, usize), Option<[i64; 2]>>,
}

impl<'a> Finder<'a> {
    fn new(part: &'a Part, shift: i64) -> Self {
        Self { part, mask: &part.mask, shift, tiles: HashMap::new() }
    }

    fn all(mut self) -> Option<[i64; 2]> {
        let q_blocks = self.mask.grid().q_blocks().max(1);
        let mut found = None;
        for index in 0..self.mask.stored_rows() {
            let queries = self.mask.grid().queries(index % q_blocks);
            let row = self.mask.stored_row(index);
            for run in row.full.iter().chain(row.partial) {
                let of_run = self.of_run(&queries, run);
                found = [found, of_run].into_iter().flatten().reduce(union);
            }
        }
        found
    }

    fn of_run(&mut self, queries: &Range<usize>, run: &Run) -> Option<[i64; 2]> {
        let blocks = run.first as usize..(run.first + run.count) as usize;
        let natural = self.part.q_order.is_none() && self.part.k_order.is_none();
        match run.kind {
            RunKind::Full => {
                let keys =
                    self.mask.grid().keys(blocks.start).start..self.mask.grid().keys(blocks.end - 1).end;
                let [q, k] = [self.queries(queries.clone())?, self.keys(keys)?];
                Some([q[0] - k[1], q[1] - k[0]])
            }
            RunKind::Tile(tile) if natural => {
                let [low, high] = self.of_tile(tile, queries.len())?;
                let first = self.shift + queries.start as i64;
                let block_k = self.mask.grid().block_k;
                let key = |block: usize| (block * block_k) as i64;
                Some([first - key(blocks.end - 1) + low, first - key(blocks.start) + high])
            }
            RunKind::Tile(tile) => {
                let pairs = blocks.flat_map(|block| {
                    let keys = self.mask.grid().keys(block);
                    let kept = self.bits(tile, queries.len()).filter(move |(_, t)| *t < keys.len());
                    let start = block * self.mask.grid().block_k;
                    kept.map(move |(row, t)| (queries.start + row, start + t))
                });
                let distance = |(i, j)| Some(self.queries(i..i + 1)?[0] - self.keys(j..j + 1)?[0]);
                pairs.filter_map(distance).map(|distance| [distance; 2]).reduce(union)
            }
        }
    }

    fn of_tile(&mut self, tile: u32, rows: usize) -> Option<[i64; 2]> {
        if let Some(found) = self.tiles.get(&(tile, rows)) {
            return *found;
        }
        let found = self.bits(tile, rows).map(|(row, t)| [row as i64 - t as i64; 2]).reduce(union);
        self.tiles.insert((tile, rows), found);
        found
    }

    /// (row, key) of each bit of the first rows of a tile.
    fn bits(&self, tile: u32, rows: usize) -> impl Iterator<Item = (usize, usize)> + use<'a> {
        let (words, block_k) = (self.mask.grid().row_words(), self.mask.grid().block_k);
        let tile: &'a [u32] = self.mask.tile(tile);
        let set = move |row: usize, t: usize| tile[row * words + t / 32] >> (t % 32) & 1 == 1;
        (0..rows).flat_map(move |row| (0..block_k).filter(move |t| set(row, *t)).map(move |t| (row, t)))
    }

    /// The lowest and the highest position of queries, among the keys.
    fn queries(&self, places: Range<usize>) -> Option<[i64; 2]> {
        positions(self.part.q_order.as_deref(), places).map(|both| both.map(|i| i + self.shift))
    }

    fn keys(&self, places: Range<usize>) -> Option<[i64; 2]> {
        positions(self.part.k_order.as_deref(), places)
    }
}

fn positions(order: Option<&[u32]>, places: Range<usize>) -> Option<[i64; 2]> {
    if places.is_empty() {
        return None;
    }
    match order {
        None => Some([places.start as i64, places.end as i64 - 1]),
        Some(order) => order[places].iter().map(|&n| [i64::from(n); 2]).reduce(union),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::BlockGrid;
    use crate::{Causal, Full, PairPredicate, Pattern, Site, Strided};

    /// Against all pairs, in natural order and in orders.
    #[test]
    fn distances_are_those_of_the_pairs() {
        let predicate = PairPredicate::new(|i, j| (i * 7 + j * 3) % 11 == 0 && j != 5);
        let none = PairPredicate::new(|_, _| false);
        let strided = Strided::new(8).unwrap();
        let patterns: [&dyn Pattern; 5] = [&Full, &Causal, &strided, &predicate, &none];
        for (q_len, kv_len) in [(40, 40), (33, 70), (70, 33), (1, 50)] {
            let grid = BlockGrid::new(q_len, kv_len).blocks(16, 16);
            for pattern in patterns {
                let site = Site { batch: 0, head: 0, extent: grid.extent() };
                let all = (0..q_len).flat_map(|i| (0..kv_len).map(move |j| (i, j)));
                let kept = all.filter(|&(i, j)| pattern.keep(&site, i, j));
                let distance = |(i, j)| [i as i64 + kv_len as i64 - q_len as i64 - j as i64; 2];
                let parts = Parts::lower(pattern, grid).unwrap();
                assert_eq!(
                    parts.distances(),
                    kept.map(distance).reduce(union),
                    "{pattern:?} {q_len}x{kv_len}"
                );
            }
        }
    }
}
