use super::{Causal, Identity, Pattern, Range, Site, Span, causal::staircase, spans::word};

/// A prefix that every query attends, then causal (Raffael 2019, section 3.2.1, "prefix LM"): j < len or j <= i + (Lk
/// - Lq). max(len, i + 1) keys per row at Lq = Lk. A `len` past the keys is valid and attends all of them.
///
/// ```text
/// len: 2
/// Lq = Lk     Lq < Lk     Lq > Lk
/// ██··        ███··       ██·
/// ██··        ████·       ██·
/// ███·        █████       ██·
/// ████                    ███
/// ```
///
/// The causal part is aligned as [`Causal`] is. The prefix is counted in keys, from the first one, whatever the
/// lengths. All causal keys are kept, so a union with a window is this mask again, without any window: the first keys
/// beside a window (attention sinks) are [`First`](super::First).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Prefix {
    /// Keys that every query attends.
    pub len: usize,
}

impl Pattern for Prefix {
    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        j < self.len || Causal.keep(site, i, j)
    }

    fn keep_word(&self, site: &Site, i: usize, j: usize) -> u32 {
        let len = self.len.min(site.extent.kv_len) as isize;
        word(0..len.max(site.aligned(i) + 1), j, site.extent.kv_len)
    }

    fn spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        let len = self.len.min(site.extent.kv_len) as isize;
        let (first, last) = (site.aligned(rows.start) + 1, site.aligned(rows.end - 1) + 1);
        staircase(site, first.max(len), last.max(len))
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }
}
