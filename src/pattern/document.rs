use super::stretches::Stretches;
use super::{Extent, Identity, Pattern, Piece, Range, Site, Span, Varies, spans};
use crate::{Error, Result};
use std::fmt;
use std::sync::Arc;

/// Packed sequences: a query attends the keys of its own document (Krell 2021): `ids[i'] = ids[j]`, where i' = i +
/// (Lk - Lq) is the key that the query stands at when both sequences end together. As many keys per row as its document
/// has.
///
/// ```text
/// ids: 0 0 1 1 1
/// Lq = Lk     Lq < Lk     Lq > Lk
/// ██···       ··███       ·····
/// ██···       ··███       ██···
/// ··███                   ██···
/// ··███                   ··███
/// ··███                   ··███
///                         ··███
/// ```
///
/// There is one id per key, so a query that stands before the first key (Lq > Lk) attends nothing. Ids need not be
/// sorted: a document may lie in several pieces. Combine it with [`Causal`](super::Causal) by [`And`](super::And) for
/// packed causal training; FlashAttention's `cu_seqlens` are the lengths of our runs of equal ids.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(from = "json::Document", into = "json::Document"))]
pub struct Document {
    /// One list for all batch items, or one each.
    items: Arc<[Item]>,
}

/// The documents of one batch item.
#[derive(PartialEq, Eq, Hash)]
struct Item {
    ids: Vec<u32>,
    /// Where each run of equal ids starts, ascending.
    starts: Vec<u32>,
    /// The runs in order of their ids, so that the pieces of a document lie together.
    by_id: Vec<u32>,
}

impl Document {
    /// The same documents in every batch item: one id per key.
    pub fn new(ids: impl Into<Vec<u32>>) -> Self {
        Self::per_batch([ids.into()])
    }

    /// Documents of their own in every batch item: one id per key.
    pub fn per_batch(ids: impl IntoIterator<Item = Vec<u32>>) -> Self {
        Self { items: ids.into_iter().map(Item::new).collect() }
    }

    /// The ids that a query meets, and its own.
    fn own(&self, site: &Site, i: usize) -> Option<(&Item, u32)> {
        let item = self.item(site)?;
        let own = usize::try_from(site.aligned(i)).ok()?;
        Some((item, *item.ids.get(own)?))
    }

    fn item(&self, site: &Site) -> Option<&Item> {
        if self.items.len() == 1 { self.items.first() } else { self.items.get(site.batch) }
    }
}

impl Pattern for Document {
    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        self.own(site, i).is_some_and(|(item, own)| item.ids.get(j) == Some(&own))
    }

    fn keep_word(&self, site: &Site, i: usize, j: usize) -> u32 {
        let Some((item, own)) = self.own(site, i) else { return 0 };
        let keys = item.ids.iter().skip(j).take(32).enumerate();
        keys.fold(0, |word, (b, id)| word | u32::from(*id == own) << b)
    }

    /// By the document's stretches of keys, or by all ids where there are more of those than words.
    fn row(&self, site: &Site, i: usize, words: &mut [u32]) {
        words.fill(0);
        let Some((item, own)) = self.own(site, i) else { return };
        let runs = item.runs_of(own);
        if runs.len() > words.len() {
            let ids = own as usize..own as usize + 1;
            words.iter_mut().zip(item.ids.chunks(32)).for_each(|(word, of)| *word = spans::inside(of, &ids));
        } else {
            runs.iter().for_each(|&run| spans::set(&item.keys(run as usize), words));
        }
    }

    fn spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        let (Some(item), Ok(last)) = (self.item(site), usize::try_from(site.aligned(rows.end - 1))) else {
            return Vec::new();
        };
        let first = usize::try_from(site.aligned(rows.start));
        let mut ids: Vec<u32> =
            (item.run_at(first.unwrap_or(0))..=item.run_at(last)).map(|run| item.id(run)).collect();
        ids.sort_unstable();
        ids.dedup();
        let runs: Vec<&[u32]> = ids.iter().map(|&id| item.runs_of(id)).collect();
        let [Some(start), Some(end)] = [
            runs.iter().filter_map(|runs| runs.first()).min().map(|&run| item.keys(run as usize).start),
            runs.iter().filter_map(|runs| runs.last()).max().map(|&run| item.keys(run as usize).end),
        ] else {
            return Vec::new();
        };
        if runs.iter().map(|runs| runs.len()).sum::<usize>() * spans::BLOCK > end - start {
            // No block between them is without one.
            return vec![Span { keys: start..end, all: false }];
        }
        // Queries before the first key have no document, so then not all attend.
        let all = ids.len() == 1 && first.is_ok();
        let keys = |&run: &u32| Span { keys: item.keys(run as usize), all };
        let mut spans: Vec<Span> = runs.into_iter().flatten().map(keys).collect();
        spans.sort_unstable_by_key(|span| span.keys.start);
        spans
    }

    fn varies(&self) -> Varies {
        Varies { batch: self.items.len() > 1, heads: false }
    }

    /// Documents in many short pieces, as streams packed token by token: positions sorted by their id, where each
    /// document is one stretch.
    fn pieces(&self, extent: &Extent) -> Option<Vec<Piece>> {
        let [item] = &self.items[..] else { return None };
        item.interleaves().then(|| vec![item.sorted(extent)])
    }

    fn why(&self) -> Option<&'static str> {
        let many = self.items.len() > 1 && self.items.iter().any(Item::interleaves);
        many.then_some(
            "documents interleave, and batch items have lists of their own, but an order serves all items",
        )
    }

    fn check(&self, extent: &Extent) -> Result<()> {
        if self.items.len() != 1 && self.items.len() != extent.batch {
            let need = format!("1 list or {}, one per batch item", extent.batch);
            return Err(Error::argument("Document.ids", need, self.items.len()));
        }
        match self.items.iter().position(|item| item.ids.len() != extent.kv_len) {
            Some(item) => {
                let need = format!("{} ids, one per key", extent.kv_len);
                Err(Error::argument(format!("Document.ids[{item}]"), need, self.items[item].ids.len()))
            }
            None => Ok(()),
        }
    }

    fn alike(&self, site: &Site, a: usize, b: usize) -> bool {
        let id = |i| self.own(site, i).map(|(_, own)| own);
        id(a) == id(b)
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }
}

impl Item {
    fn new(ids: Vec<u32>) -> Self {
        let starts: Vec<u32> = (0..ids.len())
            .filter(|&key| key == 0 || ids[key] != ids[key - 1])
            .map(|key| key as u32)
            .collect();
        let mut by_id: Vec<u32> = (0..starts.len() as u32).collect();
        by_id.sort_by_key(|&run| ids[starts[run as usize] as usize]);
        Self { ids, starts, by_id }
    }

    /// Whether documents lie in more runs than there are documents, and the runs are shorter than blocks.
    fn interleaves(&self) -> bool {
        let documents = self.by_id.chunk_by(|&a, &b| self.id(a as usize) == self.id(b as usize)).count();
        self.starts.len() > documents && self.ids.len() / 64 < self.starts.len()
    }

    /// All pairs, with queries and keys sorted by id. Queries before the first key come first and attend nothing.
    fn sorted(&self, extent: &Extent) -> Piece {
        let keys: Arc<[u32]> =
            self.by_id.iter().flat_map(|&run| self.keys(run as usize)).map(|key| key as u32).collect();
        let first = extent.kv_len as isize - extent.q_len as isize;
        let idle = first.min(0).unsigned_abs().min(extent.q_len);
        let queries = keys.iter().filter_map(|&key| usize::try_from(key as isize - first).ok());
        let queries = (0..idle).chain(queries).map(|i| i as u32).collect::<Arc<[u32]>>();
        let id_of = |key: u32| self.ids[key as usize];
        let mut stretches = Vec::with_capacity(queries.len());
        let mut place = 0;
        for &i in queries[idle..].iter() {
            let id = id_of((i as isize + first) as u32);
            // Both sides ascend by id.
            while id_of(keys[place]) != id {
                place += 1;
            }
            stretches.push(place as u32);
        }
        let ends: Vec<u32> = stretches
            .iter()
            .map(|&start| {
                let id = id_of(keys[start as usize]);
                start + keys[start as usize..].partition_point(|&key| id_of(key) <= id) as u32
            })
            .collect();
        let stretches =
            std::iter::repeat_n(0..0, idle).chain(stretches.into_iter().zip(ends).map(|(a, b)| a..b));
        let pattern = Stretches(stretches.collect());
        Piece { q_order: Some(queries), k_order: Some(keys), ..Piece::natural(pattern) }
    }

    /// The run that a key lies in.
    fn run_at(&self, key: usize) -> usize {
        self.starts.partition_point(|&start| start as usize <= key).saturating_sub(1)
    }

    fn id(&self, run: usize) -> u32 {
        self.ids[self.starts[run] as usize]
    }

    fn keys(&self, run: usize) -> Range<usize> {
        let end = self.starts.get(run + 1).map_or(self.ids.len(), |&end| end as usize);
        self.starts[run] as usize..end
    }

    /// All runs of a document, ascending.
    fn runs_of(&self, id: u32) -> &[u32] {
        let runs = &self.by_id;
        let first = runs.partition_point(|&run| self.id(run as usize) < id);
        &runs[first..first + runs[first..].partition_point(|&run| self.id(run as usize) == id)]
    }
}

/// Counts instead of a million ids.
impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ids in {} runs", self.ids.len(), self.starts.len())
    }
}

#[cfg(feature = "serde")]
mod json {
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Document {
        ids: Ids,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(untagged, expecting = "a list of ids, one per key, or a list of such lists, one per batch item")]
    enum Ids {
        Shared(Vec<u32>),
        PerBatch(Vec<Vec<u32>>),
    }

    impl From<Document> for super::Document {
        fn from(json: Document) -> Self {
            match json.ids {
                Ids::Shared(ids) => Self::new(ids),
                Ids::PerBatch(ids) => Self::per_batch(ids),
            }
        }
    }

    impl From<super::Document> for Document {
        fn from(document: super::Document) -> Self {
            let mut lists: Vec<_> = document.items.iter().map(|item| item.ids.clone()).collect();
            Self {
                ids: match lists.len() {
                    1 => Ids::Shared(lists.remove(0)),
                    _ => Ids::PerBatch(lists),
                },
            }
        }
    }
}
