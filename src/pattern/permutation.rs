use super::stretches::Stretches;
use super::{Extent, Identity, Pattern, Piece, Range, Site, Span, Varies, spans};
use crate::{Error, Result};
use std::fmt;
use std::sync::Arc;

/// Permutation language modelling (XLNet, Yang 2019, section 2.2): a query attends the positions that come before it in the
/// order, whatever their places. `order[n]` is the position that comes n-th. The content stream also attends its own position;
/// the query stream, which must not know it, does not. Keys before the first position are memory, which every query attends.
///
/// ```text
/// order: 2 0 3 1
/// content     query       content, Lq < Lk
/// █·█·        ··█·        ███·█·
/// ████        █·██        ██████
/// ··█·        ····        ██··█·
/// █·██        █·█·        ███·██
/// ```
///
/// There are min(Lq, Lk) positions: the last ones on both sides. A query that stands before the first key (Lq > Lk) attends
/// nothing. Of [`given`](Self::given) positions nothing is predicted: they are the first of the order, and every query attends them
/// (what XLNet's training calls tokens that are not masked).
///
/// Both streams are two calls over the same keys and values. Sorted by the order it is a causal pattern, and that is how one order
/// for all batch items is planned; orders of their own per batch item are planned in natural order, pair by pair.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(from = "json::Permutation", into = "json::Permutation"))]
pub struct Permutation {
    /// One order for all batch items, or one each.
    items: Arc<[Item]>,
    query: bool,
    given: usize,
}

/// The order of one batch item.
#[derive(PartialEq, Eq, Hash)]
struct Item {
    order: Vec<u32>,
    /// When a position comes; `u32::MAX` for one that does not, which [`Permutation::check`] refuses.
    ranks: Vec<u32>,
}

impl Permutation {
    /// The content stream of one order for all batch items: each position once.
    pub fn new(order: impl Into<Vec<u32>>) -> Self {
        Self::per_batch([order.into()])
    }

    /// The content stream, with an order per batch item.
    pub fn per_batch(orders: impl IntoIterator<Item = Vec<u32>>) -> Self {
        Self { items: orders.into_iter().map(Item::new).collect(), query: false, given: 0 }
    }

    /// Sets whether it is the query stream, which leaves a query's own position out.
    pub fn query(self, query: bool) -> Self {
        Self { query, ..self }
    }

    /// Sets how many positions, the first of the order, every query attends.
    pub fn given(self, given: usize) -> Self {
        Self { given, ..self }
    }

    fn item(&self, site: &Site) -> Option<&Item> {
        if self.items.len() == 1 { self.items.first() } else { self.items.get(site.batch) }
    }

    /// How many positions of the order the query at one of this rank attends.
    fn seen(&self, rank: u32) -> u32 {
        rank.saturating_add(u32::from(!self.query)).max(self.given as u32)
    }

    /// The order that a query meets, how many keys are memory, and how many positions it attends.
    fn own(&self, site: &Site, i: usize) -> Option<(&Item, usize, u32)> {
        let item = self.item(site)?;
        let memory = site.extent.kv_len.checked_sub(item.ranks.len())?;
        let own = usize::try_from(site.aligned(i)).ok()?.checked_sub(memory)?;
        Some((item, memory, self.seen(*item.ranks.get(own)?)))
    }
}

impl Pattern for Permutation {
    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        self.own(site, i).is_some_and(|(item, memory, seen)| match j.checked_sub(memory) {
            None => true,
            Some(position) => item.ranks.get(position).is_some_and(|&rank| rank < seen),
        })
    }

    fn keep_word(&self, site: &Site, i: usize, j: usize) -> u32 {
        let Some((item, memory, seen)) = self.own(site, i) else { return 0 };
        // Keys of the memory, then positions, whose ranks are compared side by side.
        let shared = memory.saturating_sub(j).min(32);
        let ranks = item.ranks.iter().skip((j + shared).saturating_sub(memory)).take(32 - shared);
        let positions = ranks.enumerate().fold(0, |word, (b, &rank)| word | u32::from(rank < seen) << b);
        spans::ones(shared) | positions.checked_shl(shared as u32).unwrap_or(0)
    }

    fn spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        let Some((_, memory, _)) = self.own(site, rows.end - 1) else { return Vec::new() };
        // With memory there are no queries before the first key.
        let spans =
            [Span { keys: 0..memory, all: true }, Span { keys: memory..site.extent.kv_len, all: false }];
        spans.into_iter().filter(|span| !span.keys.is_empty()).collect()
    }

    fn alike(&self, site: &Site, a: usize, b: usize) -> bool {
        let seen = |i| self.own(site, i).map(|(_, _, seen)| seen);
        seen(a) == seen(b)
    }

    fn varies(&self) -> Varies {
        Varies { batch: self.items.len() > 1, heads: false }
    }

    /// Queries and keys in the order, where it is a causal pattern behind the memory.
    fn pieces(&self, extent: &Extent) -> Option<Vec<Piece>> {
        let [item] = &self.items[..] else { return None };
        let memory = extent.kv_len.saturating_sub(item.order.len()) as u32;
        let idle = extent.q_len.saturating_sub(item.order.len()) as u32;
        let ends = (0..item.order.len() as u32).map(|rank| memory + self.seen(rank));
        let stretches = std::iter::repeat_n(0, idle as usize).chain(ends).map(|end| 0..end).collect();
        let piece = Piece::natural(Stretches(stretches));
        if item.order.is_sorted() {
            return Some(vec![piece]);
        }
        let after = |first: u32| (0..first).chain(item.order.iter().map(move |&position| first + position));
        Some(vec![Piece {
            q_order: Some(after(idle).collect()),
            k_order: Some(after(memory).collect()),
            ..piece
        }])
    }

    fn written(&self, extent: &Extent) -> Option<Box<dyn Pattern>> {
        let [item] = &self.items[..] else { return None };
        Some(Box::new(Prefixes::new(self, item, extent)))
    }

    fn why(&self) -> Option<&'static str> {
        (self.items.len() > 1)
            .then_some("batch items have permutations of their own, but an order serves all items")
    }

    fn check(&self, extent: &Extent) -> Result<()> {
        if self.items.len() != 1 && self.items.len() != extent.batch {
            let need = format!("1 list or {}, one per batch item", extent.batch);
            return Err(Error::argument("Permutation.order", need, self.items.len()));
        }
        let positions = extent.q_len.min(extent.kv_len);
        for (n, Item { order, ranks }) in self.items.iter().enumerate() {
            let name = || format!("Permutation.order[{n}]");
            if order.len() != positions {
                let need = format!("{positions} positions, the lesser of q_len and kv_len");
                return Err(Error::argument(name(), need, order.len()));
            }
            if let Some(missing) = ranks.iter().position(|&rank| rank == u32::MAX) {
                let need = format!("each position from 0 to {} once", positions - 1);
                return Err(Error::argument(name(), need, format!("a list without {missing}")));
            }
        }
        if self.given > positions {
            return Err(Error::argument(
                "Permutation.given",
                format!("at most {positions} positions"),
                self.given,
            ));
        }
        Ok(())
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }
}

/// The keys of the first positions of an order, for a few numbers of positions: a row is the nearest of them and the positions
/// that come between.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Prefixes {
    permutation: Permutation,
    /// Positions from one to the next.
    step: usize,
    /// A row of words each.
    rows: Arc<[u32]>,
}

impl Prefixes {
    /// How many there are: memory stays linear in the length.
    const COUNT: usize = 64;

    fn new(permutation: &Permutation, item: &Item, extent: &Extent) -> Self {
        let memory = extent.kv_len.saturating_sub(item.order.len());
        let step = item.order.len().div_ceil(Self::COUNT).max(1);
        let mut row = vec![0; extent.kv_len.div_ceil(32)];
        spans::set(&(0..memory), &mut row);
        let mut rows = row.clone();
        for positions in item.order.chunks_exact(step) {
            set(positions, memory, &mut row);
            rows.extend_from_slice(&row);
        }
        Self { permutation: permutation.clone(), step, rows: rows.into() }
    }
}

/// Sets the keys of these positions.
fn set(positions: &[u32], memory: usize, words: &mut [u32]) {
    for key in positions.iter().map(|&position| memory + position as usize) {
        words[key / 32] |= 1 << (key % 32);
    }
}

impl Pattern for Prefixes {
    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        self.permutation.keep(site, i, j)
    }

    fn keep_word(&self, site: &Site, i: usize, j: usize) -> u32 {
        self.permutation.keep_word(site, i, j)
    }

    fn row(&self, site: &Site, i: usize, words: &mut [u32]) {
        words.fill(0);
        let Some((item, memory, seen)) = self.permutation.own(site, i) else { return };
        let before = seen as usize / self.step;
        words.copy_from_slice(&self.rows[before * words.len()..][..words.len()]);
        set(&item.order[before * self.step..seen as usize], memory, words);
    }

    fn spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        self.permutation.spans(site, rows)
    }

    fn alike(&self, site: &Site, a: usize, b: usize) -> bool {
        self.permutation.alike(site, a, b)
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }
}

impl Item {
    fn new(order: Vec<u32>) -> Self {
        let mut ranks = vec![u32::MAX; order.len()];
        for (rank, &position) in order.iter().enumerate() {
            if let Some(own) = ranks.get_mut(position as usize) {
                *own = rank as u32;
            }
        }
        Self { order, ranks }
    }
}

/// A count instead of a million positions.
impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} positions", self.order.len())
    }
}

#[cfg(feature = "serde")]
mod json {
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Permutation {
        order: Order,
        #[serde(default)]
        stream: Stream,
        #[serde(default, skip_serializing_if = "none")]
        given: usize,
    }

    fn none(given: &usize) -> bool {
        *given == 0
    }

    #[derive(Serialize, Deserialize, Default)]
    #[serde(rename_all = "snake_case")]
    enum Stream {
        #[default]
        Content,
        Query,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(untagged, expecting = "a list of positions, or a list of such lists, one per batch item")]
    enum Order {
        Shared(Vec<u32>),
        PerBatch(Vec<Vec<u32>>),
    }

    impl From<Permutation> for super::Permutation {
        fn from(json: Permutation) -> Self {
            let content = match json.order {
                Order::Shared(order) => Self::new(order),
                Order::PerBatch(orders) => Self::per_batch(orders),
            };
            content.query(matches!(json.stream, Stream::Query)).given(json.given)
        }
    }

    impl From<super::Permutation> for Permutation {
        fn from(permutation: super::Permutation) -> Self {
            let mut lists: Vec<_> = permutation.items.iter().map(|item| item.order.clone()).collect();
            let order = match lists.len() {
                1 => Order::Shared(lists.remove(0)),
                _ => Order::PerBatch(lists),
            };
            let stream = if permutation.query { Stream::Query } else { Stream::Content };
            Self { order, stream, given: permutation.given }
        }
    }
}
