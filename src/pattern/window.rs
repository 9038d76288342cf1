use super::{Identity, Pattern, Range, Site, Span, spans::word};

/// A band along the diagonal (Child 2019; Beltagy 2020): i' - before <= j <= i' + after, where i' = i + (Lk - Lq) is
/// the key that a query stands at when both sequences end together. Both ends are inclusive, so that a row keeps
/// before + 1 + after keys, fewer at the edges; ends past the sequence are valid, up to `usize::MAX`. `after: 0` is
/// causal.
///
/// ```text
/// before: 1, after: 0
/// Lq = Lk     Lq < Lk     Lq > Lk
/// █···        ·██··       ···
/// ██··        ··██·       █··
/// ·██·        ···██       ██·
/// ··██                    ·██
/// ```
///
/// FlashAttention's `window_size = (before, after)` is the same, with -1 for no end: `usize::MAX` here, -1 in JSON and in
/// the short form. There `after` may be left out and is then 0, the causal window. Hugging Face's `sliding_window = w` is
/// `before: w - 1, after: 0`, Longformer's `attention_window = w` is `w / 2` on each side. DeepSpeed's windows count blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Window {
    /// Keys before the query's own.
    #[cfg_attr(feature = "serde", serde(with = "super::json::reach"))]
    pub before: usize,
    /// Keys after the query's own.
    #[cfg_attr(feature = "serde", serde(default, with = "super::json::reach"))]
    pub after: usize,
}

impl Window {
    /// First and last key of a query, not yet clipped to the keys there are.
    fn ends(&self, site: &Site, i: usize) -> (isize, isize) {
        let own = site.aligned(i);
        (own.saturating_sub_unsigned(self.before), own.saturating_add_unsigned(self.after))
    }
}

impl Pattern for Window {
    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        let (first, last) = self.ends(site, i);
        first <= j as isize && j as isize <= last
    }

    fn keep_word(&self, site: &Site, i: usize, j: usize) -> u32 {
        let (first, last) = self.ends(site, i);
        word(first..last.saturating_add(1), j, site.extent.kv_len)
    }

    fn spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        let clamp = |key: isize| key.clamp(0, site.extent.kv_len as isize) as usize;
        let (first, last) = (self.ends(site, rows.start), self.ends(site, rows.end - 1));
        // The window slides: all rows share what lies between the last row's first key and the first row's last key.
        let any = clamp(first.0)..clamp(last.1.saturating_add(1));
        let all = clamp(last.0)..clamp(first.1.saturating_add(1));
        if all.is_empty() {
            return vec![Span { keys: any, all: false }];
        }
        vec![
            Span { keys: any.start..all.start, all: false },
            Span { keys: all.clone(), all: true },
            Span { keys: all.end..any.end, all: false },
        ]
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }
}
