use super::{Identity, Pattern, Range, Site, Span, spans};

/// Every query attends every key: S_i = all j (Vaswani 2017). Lk keys per row.
///
/// ```text
/// ████
/// ████
/// ████
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Full;

impl Pattern for Full {
    fn keep(&self, _: &Site, _: usize, _: usize) -> bool {
        true
    }

    fn keep_word(&self, site: &Site, _: usize, j: usize) -> u32 {
        spans::ones(site.extent.kv_len.saturating_sub(j))
    }

    fn spans(&self, site: &Site, _: Range<usize>) -> Vec<Span> {
        vec![Span { keys: 0..site.extent.kv_len, all: true }]
    }

    fn alike(&self, _: &Site, _: usize, _: usize) -> bool {
        true
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }
}
