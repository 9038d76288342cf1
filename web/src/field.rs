//! The mask as a field of cells: how much of each is kept and visited, for a picture of any part of it in any size.

use std::ops::Range;
use wgpu_attention::{Part, Parts, RunKind};

/// Queries that a picture looks at, at most, and those of a row of cells at least, where it has so many: they lie evenly in it, its first one is
/// among them.
const QUERIES: usize = 1 << 15;
const LEAST: usize = 8;
/// Steps of a picture, at most; where there are more, fewer queries are looked at.
const STEPS: u64 = 1 << 25;

/// A stretch of queries and keys, in so many cells.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    pub(crate) queries: Range<usize>,
    pub(crate) keys: Range<usize>,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

/// Shares of a cell's pairs, each as 255 times its root, so that single pairs of many can be seen.
pub(crate) const BYTES: usize = 3;

/// What a pattern's parts visit, with the place of each query in each part.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) parts: Parts,
    /// For each part with an order of queries, the place of each query, or `NONE`.
    places: Vec<Option<Vec<u32>>>,
}

const NONE: u32 = u32::MAX;

impl Field {
    pub(crate) fn new(parts: Parts) -> Self {
        let queries = parts.extent().q_len;
        let places = parts.parts().iter().map(|part| {
            part.q_order.as_ref().map(|order| {
                let mut places = vec![NONE; queries];
                (0u32..).zip(order.iter()).for_each(|(place, &query)| places[query as usize] = place);
                places
            })
        });
        Self { places: places.collect(), parts }
    }

    /// Queries and keys of a part in its own order, or of all parts in natural order.
    pub(crate) fn sizes(&self, part: Option<usize>) -> Option<[usize; 2]> {
        let Some(part) = part else {
            let extent = self.parts.extent();
            return Some([extent.q_len, extent.kv_len]);
        };
        let grid = self.parts.parts().get(part)?.mask.grid();
        Some([grid.q_len, grid.kv_len])
    }

    /// For each cell, row by row, the shares of its pairs that are kept in full blocks, kept in partial blocks, and visited. Of a part in
    /// its own order, or of all parts in natural order.
    pub(crate) fn shares(&self, part: Option<usize>, window: &Window) -> Vec<u8> {
        let chosen = |n: usize| part.is_none_or(|part| part == n);
        let natural = part.is_none();
        let parts: Vec<_> = (0..).zip(self.parts.parts()).filter(|(n, _)| chosen(*n)).collect();
        let most = rows_of_a_cell(&parts, window, natural);
        let columns = Columns::new(window);
        let mut bytes = Vec::with_capacity(BYTES * window.rows * window.columns);
        for row in 0..window.rows {
            let queries = window.queries_of(row);
            let count = queries.len().min(most);
            let mut counts = Counts::new(&columns);
            for n in 0..count {
                let query = queries.start + n * queries.len() / count;
                for &(at, part) in &parts {
                    let places = self.places[at].as_ref().filter(|_| natural);
                    let place = places.map_or(query as u32, |places| places[query]);
                    if place != NONE {
                        counts.add(part, place as usize, natural);
                    }
                }
            }
            counts.write(count, &mut bytes);
        }
        bytes
    }
}

/// Queries of a row of cells that are looked at.
fn rows_of_a_cell(parts: &[(usize, &Part)], window: &Window, natural: bool) -> usize {
    let each: u64 = parts.iter().map(|(_, part)| steps(part, natural && part.k_order.is_some())).sum();
    let most = (QUERIES / window.rows.max(1)).max(LEAST);
    ((STEPS / (each * window.rows as u64).max(1)) as usize).clamp(1, most)
}

/// About what looking at a query takes: each key that it visits, where the keys have an order; else the stretches in its partial blocks.
fn steps(part: &Part, ordered: bool) -> u64 {
    let grid = part.mask.grid();
    let blocks = |q_block| {
        let row = part.mask.row(0, 0, q_block);
        row.partial.iter().map(|run| u64::from(run.count)).sum::<u64>()
    };
    let all = match ordered {
        true => part.mask.visited(),
        false => (0..grid.q_blocks()).map(blocks).sum::<u64>() * (grid.block_q * grid.block_k / 8) as u64,
    };
    all / (grid.q_len.max(1) as u64)
}

impl Window {
    fn queries_of(&self, row: usize) -> Range<usize> {
        let at = |row: usize| self.queries.start + part_of(self.queries.len(), row, self.rows);
        at(row)..at(row + 1).max(at(row) + 1).min(self.queries.end)
    }

    /// The first key of a cell.
    fn key_of(&self, column: usize) -> usize {
        self.keys.start + part_of(self.keys.len(), column, self.columns)
    }
}

/// size n / of, without an overflow where a `usize` has 32 bits.
fn part_of(size: usize, n: usize, of: usize) -> usize {
    (size as u64 * n as u64 / of.max(1) as u64) as usize
}

/// The columns of a window: where each begins, and the end of the last.
struct Columns<'a> {
    window: &'a Window,
    starts: Vec<usize>,
}

impl<'a> Columns<'a> {
    fn new(window: &'a Window) -> Self {
        Self { window, starts: (0..=window.columns).map(|column| window.key_of(column)).collect() }
    }

    /// The column of a key of the window.
    fn of(&self, key: usize) -> usize {
        let Window { keys, columns, .. } = self.window;
        let guess = part_of(*columns, key - keys.start, keys.len());
        // Rounded down on the way there and on the way back.
        if guess + 1 < *columns && self.starts[guess + 1] <= key { guess + 1 } else { guess }
    }
}

/// Pairs of each cell of a row.
struct Tally {
    /// Those at the ends of stretches.
    single: Vec<u64>,
    /// By how much more or fewer stretches cover a whole column than the one before it.
    whole: Vec<i64>,
}

impl Tally {
    /// Counts a stretch of places: itself in natural order, else each one's key.
    fn add(&mut self, columns: &Columns<'_>, places: Range<usize>, order: Option<&[u32]>) {
        let window = &columns.window.keys;
        if let Some(order) = order {
            let keys = order[places].iter().map(|&key| key as usize).filter(|key| window.contains(key));
            return keys.for_each(|key| self.single[columns.of(key)] += 1);
        }
        let (start, end) = (places.start.max(window.start), places.end.min(window.end));
        if start >= end {
            return;
        }
        let (first, last) = (columns.of(start), columns.of(end - 1));
        if first == last {
            self.single[first] += (end - start) as u64;
            return;
        }
        self.single[first] += (columns.starts[first + 1] - start) as u64;
        self.single[last] += (end - columns.starts[last]) as u64;
        self.whole[first + 1] += 1;
        self.whole[last] -= 1;
    }

    /// The pairs of each column.
    fn pairs<'t>(&'t self, columns: &'t Columns<'_>) -> impl Iterator<Item = u64> + 't {
        let mut covers = 0;
        columns.starts.windows(2).zip(self.single.iter().zip(&self.whole)).map(
            move |(ends, (single, more))| {
                covers += more;
                single + covers as u64 * (ends[1] - ends[0]) as u64
            },
        )
    }
}

/// What a row of cells keeps in full blocks, in partial blocks, and visits.
struct Counts<'a> {
    columns: &'a Columns<'a>,
    full: Tally,
    partial: Tally,
    visited: Tally,
}

impl<'a> Counts<'a> {
    fn new(columns: &'a Columns<'a>) -> Self {
        let count = columns.window.columns;
        let none = || Tally { single: vec![0; count], whole: vec![0; count] };
        Self { columns, full: none(), partial: none(), visited: none() }
    }

    /// What a part visits at the place of a query.
    fn add(&mut self, part: &Part, place: usize, natural: bool) {
        let (mask, grid, columns) = (&part.mask, part.mask.grid(), self.columns);
        let order = part.k_order.as_deref().filter(|_| natural);
        let row = mask.row(0, 0, place / grid.block_q);
        for run in row.full.iter().chain(row.partial) {
            let blocks = run.first as usize..(run.first + run.count) as usize;
            let keys = blocks.start * grid.block_k..(blocks.end * grid.block_k).min(grid.kv_len);
            self.visited.add(columns, keys.clone(), order);
            let RunKind::Tile(tile) = run.kind else {
                self.full.add(columns, keys, order);
                continue;
            };
            let words = grid.block_k.div_ceil(32);
            let kept = stretches(&mask.tile(tile)[place % grid.block_q * words..][..words]);
            for first in blocks.map(|block| block * grid.block_k) {
                for kept in &kept {
                    self.partial.add(columns, first + kept.start..first + kept.end, order);
                }
            }
        }
    }

    fn write(&self, queries: usize, bytes: &mut Vec<u8>) {
        let kinds = [&self.full, &self.partial, &self.visited].map(|tally| tally.pairs(self.columns));
        let [mut full, mut partial, mut visited] = kinds;
        for ends in self.columns.starts.windows(2) {
            let all = ((ends[1] - ends[0]) * queries).max(1) as f64;
            for pairs in [full.next(), partial.next(), visited.next()] {
                let share = pairs.unwrap_or(0) as f64 / all;
                bytes.push((255.0 * share.min(1.0).sqrt()).ceil() as u8);
            }
        }
    }
}

/// The stretches of bits that are set.
fn stretches(words: &[u32]) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = vec![];
    for (n, &word) in words.iter().enumerate() {
        let (mut rest, mut at) = (word, 32 * n);
        while rest != 0 {
            let gap = rest.trailing_zeros();
            let set = (rest >> gap).trailing_ones();
            at += gap as usize;
            match found.last_mut() {
                Some(last) if last.end == at => last.end = at + set as usize,
                _ => found.push(at..at + set as usize),
            }
            at += set as usize;
            rest = rest.checked_shr(gap + set).unwrap_or(0);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use wgpu_attention::{AnyPattern, BlockGrid, Extent, Pattern, Site};

    /// Lengths that are no multiple of a block, and differ.
    const SIZES: [usize; 2] = [150, 203];

    fn field(text: &str) -> (AnyPattern, Field) {
        let pattern = AnyPattern::parse(text).expect("a pattern");
        let parts = Parts::lower(&pattern, BlockGrid::new(SIZES[0], SIZES[1])).expect("parts");
        (pattern, Field::new(parts))
    }

    fn kept(pattern: &AnyPattern, i: usize, j: usize) -> bool {
        let extent = Extent { batch: 1, heads: 1, q_len: SIZES[0], kv_len: SIZES[1] };
        pattern.keep(&Site { batch: 0, head: 0, extent }, i, j)
    }

    /// Patterns of one part and of several, with orders of queries, of keys, and of both.
    const PATTERNS: [&str; 6] = [
        "causal",
        "window:before=9,after=3",
        "strided:stride=11",
        "longformer:window=8,global=[0,77,202]",
        "document:ids=[2]",
        "!bigbird:block=16,window=3,global=1,random=1",
    ];

    #[test]
    fn cells_of_a_pair_are_the_pattern() {
        for text in PATTERNS {
            let text = if text.starts_with("document") { documents() } else { text.into() };
            let (pattern, field) = field(&text);
            let window = Window { queries: 3..150, keys: 5..203, rows: 147, columns: 198 };
            let shares = field.shares(None, &window);
            assert_eq!(shares.len(), BYTES * 147 * 198);
            for (n, cell) in shares.chunks(BYTES).enumerate() {
                let (i, j) = (3 + n / 198, 5 + n % 198);
                let keeps = cell[0] == 255 || cell[1] == 255;
                assert_eq!(keeps, kept(&pattern, i, j), "{text} at {i}, {j}: {cell:?}");
                assert!(cell.iter().all(|share| [0, 255].contains(share)), "{text} at {i}, {j}: {cell:?}");
                assert!(!keeps || cell[2] == 255, "{text} at {i}, {j} is kept and not visited");
            }
        }
    }

    /// Interleaved: in an order of their own.
    fn documents() -> String {
        let ids: Vec<_> = (0..SIZES[1]).map(|key| (key % 3).to_string()).collect();
        format!("document:ids=[{}]", ids.join(","))
    }

    #[test]
    fn larger_cells_count_their_pairs() {
        for text in PATTERNS.into_iter().filter(|text| !text.starts_with("document")) {
            let (pattern, field) = field(text);
            let window = Window { queries: 0..150, keys: 0..203, rows: 31, columns: 17 };
            for (n, cell) in field.shares(None, &window).chunks(BYTES).enumerate() {
                let [rows, columns] =
                    [window.queries_of(n / 17), window.key_of(n % 17)..window.key_of(n % 17 + 1)];
                let pairs = rows.clone().flat_map(|i| columns.clone().map(move |j| (i, j)));
                let count = pairs.filter(|&(i, j)| kept(&pattern, i, j)).count();
                let share = |byte: u8| (f64::from(byte) / 255.0).powi(2);
                let (got, area) = (share(cell[0]) + share(cell[1]), (rows.len() * columns.len()) as f64);
                // A byte is off by up to one of 255, of the root.
                assert!(
                    (got - count as f64 / area).abs() < 0.017,
                    "{text} at cell {n}: {got}, {count} of {area}"
                );
                assert_eq!(count == 0, cell[0] == 0 && cell[1] == 0, "{text} at cell {n}");
            }
        }
    }

    #[test]
    fn a_part_is_shown_in_its_own_order() {
        let (_, field) = field("strided:stride=11");
        assert!(field.parts.parts().len() > 1 && field.sizes(Some(9)).is_none());
        for (n, part) in field.parts.parts().iter().enumerate() {
            let [rows, columns] = field.sizes(Some(n)).expect("the part");
            let window = Window { queries: 0..rows, keys: 0..columns, rows, columns };
            let shares = field.shares(Some(n), &window);
            for (at, cell) in shares.chunks(BYTES).enumerate() {
                let keeps = part.mask.keeps(0, 0, at / columns, at % columns);
                assert_eq!(cell[0] == 255 || cell[1] == 255, keeps, "part {n}, place {at}");
            }
        }
    }

    #[test]
    fn bits_are_stretches() {
        assert_eq!(stretches(&[0b1101_0000, 0]), [4..5, 6..8]);
        assert_eq!(stretches(&[1 << 31, 1, u32::MAX]), [31..33, 64..96]);
        assert_eq!(stretches(&[u32::MAX, u32::MAX, 2]), [0..64, 65..66]);
        assert_eq!(stretches(&[]), []);
    }
}
