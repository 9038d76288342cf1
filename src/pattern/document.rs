use super::{Extent, Identity, Pattern, Range, Site, Span, Varies};
use crate::{Error, Result};
use std::fmt;
use std::sync::Arc;

/// Packed sequences: a query attends the keys of its own document (Krell 2021): `ids[i'] = ids[j]`, where i' = i +
/// (Lk - Lq) is the key that the query stands at when both sequences end together. As many keys a row as its document
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
/// There is one id a key, so a query that stands before the first key (Lq > Lk) attends nothing. Ids need not be
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
    /// The same documents in every batch item: one id a key.
    pub fn new(ids: impl Into<Vec<u32>>) -> Self {
        Self::per_batch([ids.into()])
    }

    /// Documents of their own in every batch item: one id a key.
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

    fn spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        let (Some(item), Ok(last)) = (self.item(site), usize::try_from(site.aligned(rows.end - 1))) else {
            return Vec::new();
        };
        let first = usize::try_from(site.aligned(rows.start));
        let mut ids: Vec<u32> =
            (item.run_at(first.unwrap_or(0))..=item.run_at(last)).map(|run| item.id(run)).collect();
        ids.sort_unstable();
        ids.dedup();
        // Queries before the first key have no document, so then not all attend.
        let all = ids.len() == 1 && first.is_ok();
        let mut spans: Vec<Span> = ids
            .into_iter()
            .flat_map(|id| item.runs_of(id))
            .map(|run| Span { keys: item.keys(run), all })
            .collect();
        spans.sort_unstable_by_key(|span| span.keys.start);
        spans
    }

    fn varies(&self) -> Varies {
        Varies { batch: self.items.len() > 1, heads: false }
    }

    fn check(&self, extent: &Extent) -> Result<()> {
        if self.items.len() != 1 && self.items.len() != extent.batch {
            let need = format!("1 list or {}, one a batch item", extent.batch);
            return Err(Error::argument("Document.ids", need, self.items.len()));
        }
        match self.items.iter().position(|item| item.ids.len() != extent.kv_len) {
            Some(item) => {
                let need = format!("{} ids, one a key", extent.kv_len);
                Err(Error::argument(format!("Document.ids[{item}]"), need, self.items[item].ids.len()))
            }
            None => Ok(()),
        }
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

    /// All runs of a document.
    fn runs_of(&self, id: u32) -> impl Iterator<Item = usize> + '_ {
        let first = self.by_id.partition_point(|&run| self.id(run as usize) < id);
        let runs = self.by_id[first..].iter().map(|&run| run as usize);
        runs.take_while(move |&run| self.id(run) == id)
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
    #[serde(untagged, expecting = "a list of ids, one a key, or a list of such lists, one a batch item")]
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
