use super::{Identity, Pattern, Range, Site, Span, spans::word};

/// The first keys, for every query: j < count (the attention sinks of StreamingLLM, Xiao 2023, section 3.2). `count` keys
/// per row; a `count` past the keys is valid and keeps all of them.
///
/// ```text
/// count: 2
/// Lq = Lk     Lq < Lk     Lq > Lk
/// ██··        ██···       ██·
/// ██··        ██···       ██·
/// ██··        ██···       ██·
/// ██··                    ██·
/// ```
///
/// It is not causal: keys count from the first one, and every query attends them, whatever the lengths. The sinks of a
/// causal model are `Or(And(First { count: 4 }, Causal), Window { before: 1023, after: 0 })`, as text
/// `first:count=4 & causal | window:before=1023`. [`Prefix`](super::Prefix) is another thing: it keeps the causal keys,
/// too, so that a union of it with a window is a prefix mask, and the window is lost in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct First {
    /// Keys that every query attends.
    pub count: usize,
}

impl Pattern for First {
    fn keep(&self, _: &Site, _: usize, j: usize) -> bool {
        j < self.count
    }

    fn keep_word(&self, site: &Site, _: usize, j: usize) -> u32 {
        let kv_len = site.extent.kv_len;
        word(0..self.count.min(kv_len) as isize, j, kv_len)
    }

    fn spans(&self, site: &Site, _: Range<usize>) -> Vec<Span> {
        vec![Span { keys: 0..self.count.min(site.extent.kv_len), all: true }]
    }

    fn alike(&self, _: &Site, _: usize, _: usize) -> bool {
        true
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }
}
