use super::{Identity, Pattern, Range, Site, Span, spans::word};

/// No query attends a later key (Vaswani 2017, section 3.2.3), with the last query at the last key:
/// j <= i + (Lk - Lq), the alignment of FlashAttention and of a key cache. [`Causal::top_left`] is j <= i.
/// The two agree for Lq = Lk. (Lk + 1) / 2 keys per row on average at Lq = Lk.
///
/// ```text
/// Lq = Lk     Lq < Lk     Lq > Lk
/// █···        ███··       ···
/// ██··        ████·       █··
/// ███·        █████       ██·
/// ████                    ███
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Causal;

impl Causal {
    /// j <= i, whatever the lengths.
    pub const fn top_left() -> CausalTopLeft {
        CausalTopLeft
    }
}

/// No query attends a later key, with the first query at the first key: j <= i, whatever the lengths (PyTorch's
/// `is_causal`, ONNX). Made by [`Causal::top_left`].
///
/// ```text
/// Lq = Lk     Lq < Lk     Lq > Lk
/// █···        █····       █··
/// ██··        ██···       ██·
/// ███·        ███··       ███
/// ████                    ███
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CausalTopLeft;

impl Pattern for Causal {
    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        j as isize <= site.aligned(i)
    }

    fn keep_word(&self, site: &Site, i: usize, j: usize) -> u32 {
        word(0..site.aligned(i) + 1, j, site.extent.kv_len)
    }

    fn spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        staircase(site, site.aligned(rows.start) + 1, site.aligned(rows.end - 1) + 1)
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }
}

impl Pattern for CausalTopLeft {
    fn keep(&self, _: &Site, i: usize, j: usize) -> bool {
        j <= i
    }

    fn keep_word(&self, site: &Site, i: usize, j: usize) -> u32 {
        word(0..i as isize + 1, j, site.extent.kv_len)
    }

    fn spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        staircase(site, rows.start as isize + 1, rows.end as isize)
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }
}

/// Keys before `first`, seen by every row, then those before `last`, seen by the later rows alone.
pub(super) fn staircase(site: &Site, first: isize, last: isize) -> Vec<Span> {
    let clamp = |key: isize| key.clamp(0, site.extent.kv_len as isize) as usize;
    let (all, some) = (clamp(first), clamp(last));
    vec![Span { keys: 0..all, all: true }, Span { keys: all..some, all: false }]
}
