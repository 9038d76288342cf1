//! One stretch of keys per query: what patterns are whose orders put the keys of a query side by side.

use super::{Identity, Pattern, Range, Site, Span, spans::word};
use std::sync::Arc;

/// One stretch of keys per query; the stretches of later queries neither start nor end earlier.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Stretches(pub(super) Arc<[Range<u32>]>);

impl Pattern for Stretches {
    fn keep(&self, _: &Site, i: usize, j: usize) -> bool {
        self.0[i].contains(&(j as u32))
    }

    fn keep_word(&self, site: &Site, i: usize, j: usize) -> u32 {
        let keys = self.0[i].start as isize..self.0[i].end as isize;
        word(keys, j, site.extent.kv_len)
    }

    /// What the last query's stretch has in common with the first one's, all attend.
    fn spans(&self, _: &Site, rows: Range<usize>) -> Vec<Span> {
        let (first, last) = (&self.0[rows.start], &self.0[rows.end - 1]);
        let span = |keys: Range<u32>, all| Span { keys: keys.start as usize..keys.end as usize, all };
        let spans = if last.start < first.end {
            vec![
                span(first.start..last.start, false),
                span(last.start..first.end, true),
                span(first.end..last.end, false),
            ]
        } else {
            vec![span(first.start..last.end, false)]
        };
        spans.into_iter().filter(|span| !span.keys.is_empty()).collect()
    }

    fn alike(&self, _: &Site, a: usize, b: usize) -> bool {
        self.0[a] == self.0[b]
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }
}
