//! Pieces: a pattern cut into disjoint sets that lie densely in an order of their own.

use super::cut::Cut;
use crate::pattern::bits::Bits;
use crate::pattern::{And, Extent, Identity, Not, Or, Pattern, Range, Site, Span, spans};
use std::sync::Arc;

/// Some of a pattern's pairs, in places: place i' is query `q_order[i']`, place j' is key `k_order[j']`.
///
/// A column of every 128th key touches every block of 64 in natural order; side by side, its keys fill their blocks.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Which places meet. It is asked with the lengths of the orders.
    pub pattern: Box<dyn Pattern>,
    /// The query of each place; `None`: natural order.
    pub q_order: Option<Arc<[u32]>>,
    /// The key of each place; `None`: natural order.
    pub k_order: Option<Arc<[u32]>>,
    /// Queries and keys of the blocks that suit, where the piece is small or has blocks itself; `None`: any.
    pub blocks: Option<[usize; 2]>,
    /// Why its pairs may be scattered all the same, where the pattern knows: half a sentence.
    pub why: Option<&'static str>,
}

impl Piece {
    /// A piece in natural order.
    pub(in crate::pattern) fn natural(pattern: impl Pattern + 'static) -> Self {
        Self { pattern: Box::new(pattern), q_order: None, k_order: None, blocks: None, why: None }
    }

    /// Both patterns' pairs.
    pub(in crate::pattern) fn and(self, other: Box<dyn Pattern>, extent: Extent) -> Self {
        let orders = (self.q_order.clone(), self.k_order.clone());
        Self { pattern: Box::new(Cut::new((self.pattern, other), extent, orders)), ..self }
    }

    /// Blocks no larger than a gathered list needs: a power of two from 16 to 64.
    pub(in crate::pattern) fn fitted(self) -> Self {
        let fit = |order: &Option<Arc<[u32]>>| {
            order.as_ref().map_or(64, |order| order.len().next_power_of_two().clamp(16, 64))
        };
        Self { blocks: Some([fit(&self.q_order), fit(&self.k_order)]), ..self }
    }

    fn is_natural(&self) -> bool {
        self.q_order.is_none() && self.k_order.is_none()
    }
}

/// How a pattern lies best.
enum Form {
    /// In natural order, as one piece.
    Natural(Piece),
    /// In the orders of its pieces.
    Pieces(Vec<Piece>),
}

impl Form {
    fn of(pattern: &dyn Pattern, extent: &Extent) -> Self {
        match pattern.pieces(extent) {
            None => Self::Natural(Piece { why: pattern.why(), ..Piece::natural(written(pattern, extent)) }),
            Some(mut pieces) if pieces.len() == 1 && pieces[0].is_natural() => {
                Self::Natural(pieces.remove(0))
            }
            Some(pieces) => Self::Pieces(pieces),
        }
    }
}

fn written(pattern: &dyn Pattern, extent: &Extent) -> Box<dyn Pattern> {
    pattern.identity().written(extent)
}

/// Two natural pieces as one, in the smaller of their blocks.
fn joined(a: Piece, b: Piece, join: fn(Box<dyn Pattern>, Box<dyn Pattern>) -> Piece) -> Vec<Piece> {
    let blocks = match (a.blocks, b.blocks) {
        (Some([q, k]), Some([other_q, other_k])) => Some([q.min(other_q), k.min(other_k)]),
        // The other is as well served by any.
        (a, b) => a.or(b),
    };
    vec![Piece { blocks, why: a.why.or(b.why), ..join(a.pattern, b.pattern) }]
}

/// Keys that some of the queries attend.
fn keys(pattern: &dyn Pattern, extent: &Extent) -> u64 {
    const QUERIES: usize = 16;
    let mut words = vec![0; extent.kv_len.div_ceil(32)];
    let site = Site { batch: 0, head: 0, extent: *extent };
    // From the middle of each sixteenth: the first and the last queries are often unlike the rest.
    let rows = (0..QUERIES.min(extent.q_len)).map(|n| (2 * n + 1) * extent.q_len / (2 * QUERIES));
    let keys = |i: usize| {
        pattern.row(&site, i.min(extent.q_len - 1), &mut words);
        words.iter().map(|word| u64::from(word.count_ones())).sum::<u64>()
    };
    rows.map(keys).sum()
}

/// Whether the pairs of a natural piece are so few beside those of a pattern with pieces that they decide what is visited.
fn few(natural: &Piece, other: &dyn Pattern, extent: &Extent) -> bool {
    4 * keys(&natural.pattern, extent) <= keys(other, extent)
}

/// The pieces of [`And`]: those of one, each cut to the pairs of the other.
pub(in crate::pattern) fn and(a: &dyn Pattern, b: &dyn Pattern, extent: &Extent) -> Vec<Piece> {
    let cut = |pieces: Vec<Piece>, other: &dyn Pattern, why: Option<&'static str>| {
        let cut =
            |piece: Piece| Piece { why: piece.why.or(why), ..piece.and(written(other, extent), *extent) };
        pieces.into_iter().map(cut).collect()
    };
    let one_natural = |natural: Piece, pieces: Vec<Piece>, other: &dyn Pattern| {
        if few(&natural, other, extent) {
            let both = Box::new(And(natural.pattern, written(other, extent)));
            return vec![Piece { pattern: both, ..natural }];
        }
        cut(pieces, &natural.pattern, natural.why)
    };
    match (Form::of(a, extent), Form::of(b, extent)) {
        (Form::Natural(a), Form::Natural(b)) => joined(a, b, |a, b| Piece::natural(And(a, b))),
        (Form::Pieces(pieces), Form::Natural(natural)) => one_natural(natural, pieces, a),
        (Form::Natural(natural), Form::Pieces(pieces)) => one_natural(natural, pieces, b),
        (Form::Pieces(of_a), Form::Pieces(of_b)) => {
            let (pieces, other) = if keys(b, extent) < keys(a, extent) { (of_b, a) } else { (of_a, b) };
            let why = "both sides of an And want an order of their own, and that of the one with fewer pairs is taken";
            cut(pieces, other, Some(why))
        }
    }
}

/// The pieces of [`Or`]: those of one, and those of the other without what the first has.
pub(in crate::pattern) fn or(a: &dyn Pattern, b: &dyn Pattern, extent: &Extent) -> Vec<Piece> {
    let without = |pieces: Vec<Piece>, other: &dyn Pattern| {
        pieces
            .into_iter()
            .map(|piece| piece.and(Box::new(Not(written(other, extent))), *extent))
            .collect::<Vec<_>>()
    };
    let one_natural = |natural: Piece, pieces: Vec<Piece>, other: &dyn Pattern| {
        if few(&natural, other, extent) {
            return [pieces, without(vec![natural], other)].concat();
        }
        let rest = without(pieces, &natural.pattern);
        [vec![natural], rest].concat()
    };
    match (Form::of(a, extent), Form::of(b, extent)) {
        (Form::Natural(a), Form::Natural(b)) => joined(a, b, |a, b| Piece::natural(Or(a, b))),
        (Form::Natural(natural), Form::Pieces(pieces)) => one_natural(natural, pieces, b),
        (Form::Pieces(pieces), Form::Natural(natural)) => one_natural(natural, pieces, a),
        // The fewer pairs are cut: it takes less time.
        (Form::Pieces(pieces), Form::Pieces(others)) if keys(b, extent) > keys(a, extent) => {
            [others, without(pieces, b)].concat()
        }
        (Form::Pieces(pieces), Form::Pieces(others)) => [pieces, without(others, a)].concat(),
    }
}

/// The pieces of [`Not`]: the complement of And and Or is that of their parts, of Not the pattern itself; any other
/// complement of what is sparse is dense in natural order.
pub(in crate::pattern) fn not(of: &dyn Pattern, extent: &Extent) -> Vec<Piece> {
    match of.identity().pushed() {
        Some(pushed) => {
            let pattern = pushed.to_pattern();
            let why = pattern.why();
            pattern.pieces(extent).unwrap_or_else(|| vec![Piece { why, ..Piece::natural(pattern) }])
        }
        None => match Form::of(of, extent) {
            Form::Natural(piece) => vec![Piece { pattern: Box::new(Not(piece.pattern)), ..piece }],
            Form::Pieces(_) => vec![Piece {
                why: Some("what a pattern leaves out is visited in natural order"),
                ..Piece::natural(Not(written(of, extent)))
            }],
        },
    }
}

/// Positions sorted by their residue: class e holds first + e, first + e + step, ... The positions are
/// `first .. first + len`, and may begin below 0 (queries that stand before the first key).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::pattern) struct Residues {
    pub(in crate::pattern) first: isize,
    pub(in crate::pattern) len: usize,
    pub(in crate::pattern) step: usize,
}

impl Residues {
    /// Positions of class e before this place are at `start(e) ..`.
    fn start(&self, e: usize) -> usize {
        let (base, extra) = (self.len / self.step, self.len % self.step);
        e * base + e.min(extra)
    }

    fn count(&self, e: usize) -> usize {
        self.start(e + 1) - self.start(e)
    }

    /// Class and rank within it of a place.
    fn class(&self, place: usize) -> (usize, usize) {
        let (base, extra) = (self.len / self.step, self.len % self.step);
        let long = extra * (base + 1);
        if place < long {
            return (place / (base + 1), place % (base + 1));
        }
        // Past the long classes `base` is at least 1: otherwise there is no such place.
        let rest = place - long;
        (extra + rest / base.max(1), rest % base.max(1))
    }

    /// The position at a place.
    fn position(&self, place: usize) -> isize {
        let (e, rank) = self.class(place);
        self.first + (e + rank * self.step) as isize
    }

    /// The order itself, as offsets from `first`.
    pub(in crate::pattern) fn order(&self) -> Arc<[u32]> {
        let step = self.step.min(self.len.max(1));
        (0..step).flat_map(|e| (e..self.len).step_by(self.step)).map(|at| at as u32).collect()
    }
}

/// Pairs of one residue whose distance is a number of steps in a range: `low <= (i' - j) / step <= high`, in places of
/// [`Residues`] on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::pattern) struct ResidueBand {
    pub(in crate::pattern) queries: Residues,
    pub(in crate::pattern) keys: Residues,
    /// Ranges of steps, each inclusive, disjoint.
    pub(in crate::pattern) steps: Vec<[isize; 2]>,
}

impl ResidueBand {
    /// The keys' class of the same residue as class `e` of the queries, if it has any keys: its first place, its size,
    /// and the rank among them at which the query of rank t of class `e` stands.
    fn meet(&self, e: usize) -> Option<(usize, isize, impl Fn(usize) -> isize)> {
        let step = self.keys.step as isize;
        let first = self.queries.first + e as isize;
        let residue = first.rem_euclid(step) as usize;
        if residue >= self.keys.len {
            return None;
        }
        let own = (first - residue as isize).div_euclid(step);
        Some((self.keys.start(residue), self.keys.count(residue) as isize, move |t: usize| own + t as isize))
    }

    /// The keys of the queries of ranks `t0 ..= t1` of class `e`, who are all of the block if `one_class`.
    fn class_spans(&self, e: usize, [t0, t1]: [usize; 2], kv_len: usize, one_class: bool) -> Vec<Span> {
        let Some((start, count, own)) = self.meet(e) else { return vec![] };
        let clamp = |rank: isize| start + rank.clamp(0, count) as usize;
        let stretch = |&[low, high]: &[isize; 2]| {
            let any =
                clamp(own(t0).saturating_sub(high))..clamp(own(t1).saturating_sub(low).saturating_add(1));
            let all =
                clamp(own(t1).saturating_sub(high))..clamp(own(t0).saturating_sub(low).saturating_add(1));
            if !one_class || all.is_empty() {
                return vec![Span { keys: any, all: false }];
            }
            vec![
                Span { keys: any.start..all.start, all: false },
                Span { keys: all.clone(), all: true },
                Span { keys: all.end..any.end, all: false },
            ]
        };
        self.steps.iter().map(stretch).reduce(|a, b| spans::or(&a, &b, kv_len)).unwrap_or_default()
    }
}

impl Pattern for ResidueBand {
    fn keep(&self, _: &Site, i: usize, j: usize) -> bool {
        let distance = self.queries.position(i) - self.keys.position(j);
        let step = self.keys.step as isize;
        let steps = distance.div_euclid(step);
        distance.rem_euclid(step) == 0 && self.steps.iter().any(|[low, high]| (*low..=*high).contains(&steps))
    }

    /// A row's keys are stretches of places: no need to ask for each.
    fn keep_word(&self, site: &Site, i: usize, j: usize) -> u32 {
        let (e, t) = self.queries.class(i);
        spans::row_word(&self.class_spans(e, [t, t], site.extent.kv_len, true), j)
    }

    fn spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        let ((e0, t0), (e1, t1)) = (self.queries.class(rows.start), self.queries.class(rows.end - 1));
        let mut spans: Vec<Span> = (e0..=e1)
            .flat_map(|e| {
                let first = if e == e0 { t0 } else { 0 };
                let last = if e == e1 { t1 } else { self.queries.count(e).saturating_sub(1) };
                self.class_spans(e, [first, last], site.extent.kv_len, e0 == e1)
            })
            .filter(|span| !span.keys.is_empty())
            .collect();
        // Residues wrap around between the queries' classes and the keys'.
        spans.sort_by_key(|span| span.keys.start);
        spans
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }
}

/// Keys of a set, for every query, with a bit for each key and their stretches known: a row of a thousand keys takes no time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::pattern) struct Columns {
    bits: Bits,
    stretches: Arc<[Span]>,
}

impl Columns {
    /// From ascending keys, those of them that there are.
    pub(in crate::pattern) fn new(keys: &[usize], kv_len: usize) -> Self {
        let keys = &keys[..keys.partition_point(|&key| key < kv_len)];
        let mut bits = vec![false; kv_len];
        keys.iter().for_each(|&key| bits[key] = true);
        Self { bits: Bits::new(bits), stretches: spans::coarse(keys.iter().map(|&j| j..j + 1)).into() }
    }

    /// Whether a position is one of them.
    pub(in crate::pattern) fn has(&self, position: isize) -> bool {
        usize::try_from(position).is_ok_and(|position| self.bits.get(position))
    }
}

impl Pattern for Columns {
    fn keep(&self, _: &Site, _: usize, j: usize) -> bool {
        self.bits.get(j)
    }

    fn keep_word(&self, _: &Site, _: usize, j: usize) -> u32 {
        self.bits.word(j)
    }

    fn row(&self, _: &Site, _: usize, words: &mut [u32]) {
        words.copy_from_slice(self.bits.words());
    }

    fn spans(&self, _: &Site, _: Range<usize>) -> Vec<Span> {
        self.stretches.to_vec()
    }

    fn alike(&self, _: &Site, _: usize, _: usize) -> bool {
        true
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }
}

/// The first places of a list attend every key of theirs, the others none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::pattern) struct FirstRows(pub(in crate::pattern) usize);

impl Pattern for FirstRows {
    fn keep(&self, _: &Site, i: usize, _: usize) -> bool {
        i < self.0
    }

    fn keep_word(&self, site: &Site, i: usize, j: usize) -> u32 {
        if i < self.0 { spans::ones(site.extent.kv_len.saturating_sub(j)) } else { 0 }
    }

    fn spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        let keys = if rows.start < self.0 { 0..site.extent.kv_len } else { 0..0 };
        vec![Span { keys, all: rows.end <= self.0 }]
    }

    fn alike(&self, _: &Site, a: usize, b: usize) -> bool {
        (a < self.0) == (b < self.0)
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }
}
