//! A piece cut by another pattern, in closed form: the other is asked for the positions behind the places.

use crate::pattern::{Extent, Identity, Pattern, Range, Site, Span, Varies, spans};
use std::hash::Hash;
use std::sync::Arc;

/// The position of each place; `None`: the place itself.
type Order = Option<Arc<[u32]>>;

/// Keys per stretch of a query below which stretches rule out no block, and take longer than words.
const SCATTERED: usize = 128;

/// Keys that one goes over in the time that it takes to find the place of one.
const LOOKS: usize = 2;

/// In [`Cut::places`], of a key without a place.
const NOWHERE: u32 = u32::MAX;

/// Pairs of places that `inner` keeps and whose positions `other` keeps.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::pattern) struct Cut<A, B> {
    inner: A,
    other: B,
    /// The lengths that `other` is asked about.
    extent: Extent,
    q_order: Order,
    k_order: Order,
    /// Where the stretches of places start whose keys ascend, and a closing entry.
    rises: Arc<[usize]>,
    /// The place of each position of a key, where keys have an order.
    places: Arc<[u32]>,
}

impl<A, B> Cut<A, B> {
    pub(in crate::pattern) fn new(
        (inner, other): (A, B),
        extent: Extent,
        (q_order, k_order): (Order, Order),
    ) -> Self {
        let rises = k_order.as_deref().map_or(Arc::default(), |order| {
            let falls = |&place: &usize| place == 0 || order[place] <= order[place - 1];
            (0..order.len()).filter(falls).chain([order.len()]).collect()
        });
        let mut places = vec![NOWHERE; k_order.as_ref().map_or(0, |_| extent.kv_len)];
        for (place, &key) in k_order.iter().flat_map(|order| order.iter()).enumerate() {
            if let Some(of_key) = places.get_mut(key as usize) {
                *of_key = place as u32;
            }
        }
        Self { inner, other, extent, q_order, k_order, rises, places: places.into() }
    }

    /// Whether neighbouring places are of positions so far apart, as in a permutation, that a stretch of positions is no
    /// stretch of places.
    fn is_scattered(&self) -> bool {
        self.k_order.as_ref().is_some_and(|order| self.rises.len() * spans::BLOCK > order.len())
    }

    /// Of the places that `words` holds, those whose positions `other` holds: by the positions that are held, by those that are
    /// not, or place by place, whichever asks for the fewest.
    fn meet(&self, order: &[u32], words: &mut [u32], other: &[u32]) {
        let held: usize = other.iter().map(|word| word.count_ones() as usize).sum();
        let place = |key: usize| self.places[key];
        let at = |place: u32| (place as usize / 32, 1u32 << (place % 32));
        if LOOKS * held < order.len() {
            let mut found = vec![0; words.len()];
            for (n, bit) in bits(other).map(place).filter(|&place| place != NOWHERE).map(at) {
                found[n] |= bit;
            }
            words.iter_mut().zip(found).for_each(|(word, found)| *word &= found);
        } else if LOOKS * (self.extent.kv_len - held) < order.len() {
            let keys = 0..self.extent.kv_len;
            let free: Vec<u32> =
                other.iter().enumerate().map(|(n, word)| !word & spans::within(&keys, 32 * n)).collect();
            for (n, bit) in bits(&free).map(place).filter(|&place| place != NOWHERE).map(at) {
                words[n] &= !bit;
            }
        } else {
            let bit = |key: u32| other[key as usize / 32] >> (key % 32) & 1;
            for (word, keys) in words.iter_mut().zip(order.chunks(32)).filter(|(word, _)| **word != 0) {
                *word &= keys.iter().rev().fold(0, |bits, &key| bits << 1 | bit(key));
            }
        }
    }
}

/// The bits that are set, ascending.
fn bits(words: &[u32]) -> impl Iterator<Item = usize> + '_ {
    words.iter().enumerate().flat_map(|(n, &word)| {
        let left = |left: &u32| Some(left & left.wrapping_sub(1)).filter(|&left| left != 0);
        let rest = std::iter::successors(Some(word).filter(|&word| word != 0), left);
        rest.map(move |left| 32 * n + left.trailing_zeros() as usize)
    })
}

fn position(order: &Order, place: usize) -> usize {
    order.as_ref().map_or(place, |order| order[place] as usize)
}

impl<A: Pattern, B: Pattern> Cut<A, B> {
    /// What the other pattern says of the queries in these places, in positions of keys.
    fn other_spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        let site = Site { extent: self.extent, ..*site };
        let Some(order) = &self.q_order else {
            return self.other.spans(&site, rows);
        };
        // Neighbours in place are often neighbours in position, too, and then asked together.
        let runs = order[rows].chunk_by(|a, b| a + 1 == *b);
        let of = |run: &[u32]| {
            let first = run[0] as usize;
            self.other.spans(&site, first..first + run.len())
        };
        let mut lists: Vec<Vec<Span>> = Vec::new();
        for list in runs.map(of) {
            if list.len() > (self.extent.kv_len / SCATTERED).max(4) {
                return vec![Span { keys: 0..self.extent.kv_len, all: false }];
            }
            lists.push(list);
        }
        spans::all_together(lists, self.extent.kv_len)
    }

    /// The part of a stretch of places that lies in the other pattern's stretches of positions.
    fn places(&self, order: &[u32], of: &Span, positions: &[Span], found: &mut Vec<Span>) {
        let first = self.rises.partition_point(|&start| start <= of.keys.start).saturating_sub(1);
        let rises = self.rises[first..].windows(2).take_while(|rise| rise[0] < of.keys.end);
        for rise in rises {
            let places = rise[0].max(of.keys.start)..rise[1].min(of.keys.end);
            let keys = &order[places.clone()];
            let (Some(&low), Some(&high)) = (keys.first(), keys.last()) else { continue };
            let from = positions.partition_point(|span| span.keys.end <= low as usize);
            for span in positions[from..].iter().take_while(|span| span.keys.start <= high as usize) {
                let place = |at: usize| places.start + keys.partition_point(|&key| (key as usize) < at);
                let keys = place(span.keys.start)..place(span.keys.end);
                found.push(Span { keys, all: of.all && span.all });
            }
        }
    }
}

impl<A, B> Pattern for Cut<A, B>
where
    A: Pattern + Clone + Eq + Hash + 'static,
    B: Pattern + Clone + Eq + Hash + 'static,
{
    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        let at = Site { extent: self.extent, ..*site };
        self.inner.keep(site, i, j)
            && self.other.keep(&at, position(&self.q_order, i), position(&self.k_order, j))
    }

    fn keep_word(&self, site: &Site, i: usize, j: usize) -> u32 {
        let inner = self.inner.keep_word(site, i, j);
        let (at, i) = (Site { extent: self.extent, ..*site }, position(&self.q_order, i));
        let Some(order) = &self.k_order else {
            return if inner == 0 { 0 } else { inner & self.other.keep_word(&at, i, j) };
        };
        let (mut left, mut word) = (inner, inner);
        while left != 0 {
            let bit = left.trailing_zeros();
            if !self.other.keep(&at, i, order[j + bit as usize] as usize) {
                word &= !(1 << bit);
            }
            left &= left - 1;
        }
        word
    }

    /// Places are compared with the other's stretches where those are few, and otherwise with its row, which is made once.
    fn row(&self, site: &Site, i: usize, words: &mut [u32]) {
        self.inner.row(site, i, words);
        let (at, i) = (Site { extent: self.extent, ..*site }, position(&self.q_order, i));
        if let Some(order) = &self.k_order {
            let stretches = self.other.spans(&at, i..i + 1);
            if stretches.len() <= 2 && stretches.iter().all(|span| span.all) {
                for (word, keys) in words.iter_mut().zip(order.chunks(32)).filter(|(word, _)| **word != 0) {
                    *word &= stretches.iter().fold(0, |bits, span| bits | spans::inside(keys, &span.keys));
                }
                return;
            }
        }
        let mut other = vec![0; self.extent.kv_len.div_ceil(32)];
        self.other.row(&at, i, &mut other);
        match &self.k_order {
            Some(order) => self.meet(order, words, &other),
            None => words.iter_mut().zip(other).for_each(|(word, other)| *word &= other),
        }
    }

    fn spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        let inner = self.inner.spans(site, rows.clone());
        if self.is_scattered() {
            return inner.into_iter().map(|span| Span { all: false, ..span }).collect();
        }
        let other = self.other_spans(site, rows);
        let Some(order) = &self.k_order else {
            return spans::and(&inner, &other, site.extent.kv_len);
        };
        let mut found = Vec::new();
        for span in &inner {
            self.places(order, span, &other, &mut found);
        }
        found.retain(|span| !span.keys.is_empty());
        found
    }

    fn varies(&self) -> Varies {
        self.inner.varies().or(self.other.varies())
    }

    fn alike(&self, site: &Site, a: usize, b: usize) -> bool {
        let at = Site { extent: self.extent, ..*site };
        let [p, q] = [a, b].map(|place| position(&self.q_order, place));
        self.inner.alike(site, a, b) && self.other.alike(&at, p, q)
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }
}
