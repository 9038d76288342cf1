use super::{Extent, Identity, Pattern, Range, Site, Span, Varies, spans::word};
use crate::{Error, Result};

/// Padding: batch item b has `lengths[b]` keys, the rest are never attended: `j < lengths[b]`. As many keys per row.
///
/// ```text
/// lengths: [2, 3]
/// item 0   item 1
/// ██··     ███·
/// ██··     ███·
/// ██··     ███·
/// ```
///
/// It is the same at Lq != Lk: only keys count. Combine it by [`And`](super::And). There, [`Causal`](super::Causal)
/// keeps its alignment to Lk; FlashAttention's `seqused_k` and packed `cu_seqlens` align each item to its own length
/// instead.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct KeyLengths {
    /// Keys of each batch item, each at most Lk.
    pub lengths: Vec<usize>,
}

impl KeyLengths {
    fn length(&self, site: &Site) -> usize {
        self.lengths.get(site.batch).copied().unwrap_or(0)
    }
}

impl Pattern for KeyLengths {
    fn keep(&self, site: &Site, _: usize, j: usize) -> bool {
        j < self.length(site)
    }

    fn keep_word(&self, site: &Site, _: usize, j: usize) -> u32 {
        word(0..self.length(site) as isize, j, site.extent.kv_len)
    }

    fn spans(&self, site: &Site, _: Range<usize>) -> Vec<Span> {
        vec![Span { keys: 0..self.length(site), all: true }]
    }

    fn varies(&self) -> Varies {
        Varies { batch: true, heads: false }
    }

    fn check(&self, extent: &Extent) -> Result<()> {
        if self.lengths.len() != extent.batch {
            let need = format!("{} lengths, one per batch item", extent.batch);
            return Err(Error::argument("KeyLengths.lengths", need, self.lengths.len()));
        }
        match self.lengths.iter().position(|&length| length > extent.kv_len) {
            Some(item) => {
                let need = format!("at most kv_len ({})", extent.kv_len);
                Err(Error::argument(format!("KeyLengths.lengths[{item}]"), need, self.lengths[item]))
            }
            None => Ok(()),
        }
    }

    fn alike(&self, _: &Site, _: usize, _: usize) -> bool {
        true
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }
}
