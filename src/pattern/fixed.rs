use super::logic::lower::Piece;
use super::{Extent, Identity, Pattern, Range, Site, Span, spans};
use crate::{Error, Result};
use std::sync::Arc;

/// Which of the two sets of the fixed pattern a head attends (Child 2019, section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum FixedPart {
    /// The keys of the query's own block.
    Block,
    /// The last `summary` keys of every block.
    Summary,
    /// The union of both.
    #[default]
    Both,
}

/// The Sparse Transformer's fixed pattern (Child 2019, eq. 4): with i' = i + (Lk - Lq), l = `stride`, c = `summary`,
///
/// ```text
/// Block:   floor(j / l) = floor(i' / l), j <= i'     (l + 1) / 2 keys per row on average
/// Summary: j mod l >= l - c, j <= i'                 about c i' / l keys per row
///
/// stride: 3, summary: 1, Both, causal
/// Lq = Lk     Lq < Lk
/// █·····      ██····
/// ██····      ███···
/// ███···      ··██··
/// ··██··      ··███·
/// ··███·      ··████
/// ··████
/// ```
///
/// Not causal, the same without j <= i'. For text, with l = 128 or 256 and c = 8 to 32. Others differ: OpenAI's and
/// DeepSpeed's `fixed` count summary *blocks* from the end of a window of blocks, and DeepSpeed's `unidirectional` is
/// causal between blocks only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Fixed {
    /// Positions of a block, l.
    pub stride: usize,
    /// Keys at the end of each block that all later queries see, c; at most `stride`.
    pub summary: usize,
    /// Which set.
    #[cfg_attr(feature = "serde", serde(default))]
    pub part: FixedPart,
    /// Whether later keys are hidden.
    #[cfg_attr(feature = "serde", serde(default = "super::yes"))]
    pub causal: bool,
}

impl Fixed {
    /// Both sets, causal.
    ///
    /// # Errors
    /// [`Error::Argument`] for a stride of 0 and for a summary of 0 or past the stride.
    pub fn new(stride: usize, summary: usize) -> Result<Self> {
        let pattern = Self { stride, summary, part: FixedPart::Both, causal: true };
        pattern.check_sizes()?;
        Ok(pattern)
    }

    fn check_sizes(&self) -> Result<()> {
        if self.stride == 0 || self.stride > isize::MAX as usize / 4 {
            let need = format!("1 to {}", isize::MAX as usize / 4);
            return Err(Error::argument("Fixed.stride", need, self.stride));
        }
        if !(1..=self.stride).contains(&self.summary) {
            let need = format!("1 to stride ({})", self.stride);
            return Err(Error::argument("Fixed.summary", need, self.summary));
        }
        Ok(())
    }

    fn block_of(&self, position: isize) -> isize {
        position.div_euclid(self.stride as isize)
    }

    fn has(&self, part: FixedPart) -> bool {
        self.part == part || self.part == FixedPart::Both
    }

    fn own_block(self) -> Self {
        Self { part: FixedPart::Block, ..self }
    }

    fn block_spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        let (first, last) = (site.aligned(rows.start), site.aligned(rows.end - 1));
        let (b0, b1) = (self.block_of(first), self.block_of(last));
        let clamp = |key: isize| key.clamp(0, site.extent.kv_len as isize) as usize;
        let stride = self.stride as isize;
        let (start, end) = (b0.saturating_mul(stride), (b1 + 1).saturating_mul(stride));
        let end = if self.causal { end.min(last + 1) } else { end };
        if b0 != b1 {
            return vec![Span { keys: clamp(start)..clamp(end), all: false }];
        }
        let all = if self.causal { first + 1 } else { end };
        vec![
            Span { keys: clamp(start)..clamp(all), all: true },
            Span { keys: clamp(all)..clamp(end), all: false },
        ]
    }

    /// The summary keys among 32.
    fn summary_word(&self, j: usize) -> u32 {
        // The end of the block that the first of the keys lies in, and those of the blocks behind it.
        let ends = (self.stride - j % self.stride..).step_by(self.stride);
        let ends = ends.take_while(|end| end - self.summary.min(*end) < 32);
        ends.fold(0, |word, end| word | spans::ones(end) & !spans::ones(end.saturating_sub(self.summary)))
    }

    fn summary_spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        let kv_len = site.extent.kv_len;
        let seen_by = |i: usize| if self.causal { site.aligned(i) + 1 } else { kv_len as isize };
        let clamp = |key: isize| key.clamp(0, kv_len as isize) as usize;
        let (all, some) = (clamp(seen_by(rows.start)), clamp(seen_by(rows.end - 1)));
        if self.stride <= spans::BLOCK {
            // No block lies in a gap: one stretch says as much.
            let all = if self.summary == self.stride { all } else { 0 };
            let first = (self.stride - self.summary).max(all);
            let stretches =
                [Span { keys: 0..all, all: true }, Span { keys: first..some.max(first), all: false }];
            return stretches.into_iter().filter(|span| !span.keys.is_empty()).collect();
        }
        let mut spans = vec![];
        for end in (self.stride..).step_by(self.stride) {
            let (start, end) = (end - self.summary, end);
            if start >= some {
                break;
            }
            spans.push(Span { keys: start.min(all)..end.min(all), all: true });
            spans.push(Span { keys: start.max(all)..end.min(some).max(start.max(all)), all: false });
        }
        spans.retain(|span| !span.keys.is_empty());
        spans
    }
}

impl Pattern for Fixed {
    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        let own = site.aligned(i);
        if self.causal && j as isize > own {
            return false;
        }
        (self.has(FixedPart::Block) && self.block_of(own) == self.block_of(j as isize))
            || (self.has(FixedPart::Summary) && j % self.stride >= self.stride - self.summary)
    }

    fn keep_word(&self, site: &Site, i: usize, j: usize) -> u32 {
        let (own, kv_len) = (site.aligned(i), site.extent.kv_len);
        let seen = spans::word(0..if self.causal { own + 1 } else { isize::MAX }, j, kv_len);
        let block = |part: bool| {
            let start = self.block_of(own).saturating_mul(self.stride as isize);
            if part { spans::word(start..start.saturating_add_unsigned(self.stride), j, kv_len) } else { 0 }
        };
        let summary = if self.has(FixedPart::Summary) { self.summary_word(j) } else { 0 };
        seen & (block(self.has(FixedPart::Block)) | summary)
    }

    /// The words of summary keys repeat: most are copied.
    fn row(&self, site: &Site, i: usize, words: &mut [u32]) {
        let (own, kv_len) = (site.aligned(i), site.extent.kv_len);
        let is_summary = self.has(FixedPart::Summary);
        spans::repeat(self.stride, words, |j| if is_summary { self.summary_word(j) } else { 0 });
        let clamp = |key: isize| key.clamp(0, kv_len as isize) as usize;
        if self.has(FixedPart::Block) {
            let start = self.block_of(own).saturating_mul(self.stride as isize);
            let block = clamp(start)..clamp(start.saturating_add_unsigned(self.stride));
            spans::set(&block, words);
        }
        spans::end(if self.causal { clamp(own + 1) } else { kv_len }, words);
    }

    fn spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        match self.part {
            FixedPart::Block => self.block_spans(site, rows),
            FixedPart::Summary => self.summary_spans(site, rows),
            FixedPart::Both => {
                let block = self.block_spans(site, rows.clone());
                spans::or(&block, &self.summary_spans(site, rows), site.extent.kv_len)
            }
        }
    }

    fn check(&self, _: &Extent) -> Result<()> {
        self.check_sizes()
    }

    /// The block in natural order; the summary keys gathered, side by side. Those of the own block are left to the block.
    fn pieces(&self, extent: &Extent) -> Option<Vec<Piece>> {
        if self.part == FixedPart::Block {
            return None;
        }
        let is_summary = |j: &u32| *j as usize % self.stride >= self.stride - self.summary;
        let columns: Arc<[u32]> = (0..extent.kv_len as u32).filter(is_summary).collect();
        let summary = SummaryPlaces { fixed: *self, count: columns.len(), extent: *extent };
        let gathered = Piece { k_order: Some(columns.clone()), ..Piece::natural(summary) }.fitted();
        match self.part {
            // Without a single summary key there is nothing to gather.
            _ if columns.is_empty() => None,
            FixedPart::Both => Some(vec![Piece::natural(self.own_block()), gathered]),
            _ => Some(vec![gathered]),
        }
    }

    fn alike(&self, site: &Site, a: usize, b: usize) -> bool {
        let same_block = self.block_of(site.aligned(a)) == self.block_of(site.aligned(b));
        !self.causal && (same_block || self.part == FixedPart::Summary)
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }
}

/// The summary keys by their place among them, without the own block's where the block has its piece.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct SummaryPlaces {
    fixed: Fixed,
    /// Summary keys there are.
    count: usize,
    extent: Extent,
}

impl SummaryPlaces {
    /// Summary keys before a position, which is the place of the first one at or past it.
    fn before(&self, position: isize) -> usize {
        let (position, stride) = (position.max(0) as usize, self.fixed.stride);
        let of_the_last = (position % stride).saturating_sub(stride - self.fixed.summary);
        (position / stride * self.fixed.summary + of_the_last).min(self.count)
    }

    /// The places that a query does *not* see, in the middle or up to the end.
    fn hidden(&self, site: &Site, i: usize) -> Range<usize> {
        let own = Site { extent: self.extent, ..*site }.aligned(i);
        let stride = self.fixed.stride as isize;
        let block = self.fixed.block_of(own) * stride;
        match (self.fixed.part, self.fixed.causal) {
            (FixedPart::Both, true) => self.before(block)..self.count,
            (FixedPart::Both, false) => self.before(block)..self.before(block + stride),
            (_, true) => self.before(own + 1)..self.count,
            (_, false) => 0..0,
        }
    }
}

impl Pattern for SummaryPlaces {
    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        !self.hidden(site, i).contains(&j)
    }

    fn keep_word(&self, site: &Site, i: usize, j: usize) -> u32 {
        spans::row_word(&self.spans(site, i..i + 1), j)
    }

    fn spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        // What is hidden moves on with the queries: from a0 .. b0 for the first to a1 .. b1 for the last.
        let (Range { start: a0, end: b0 }, Range { start: a1, end: b1 }) =
            (self.hidden(site, rows.start), self.hidden(site, rows.end - 1));
        let span = |keys, all| Span { keys, all };
        let (before, after) = (span(0..a0, true), span(b1..self.count, true));
        if a1 < b0 {
            return vec![before, span(a0..a1, false), span(b0..b1, false), after];
        }
        vec![before, span(a0..b1, false), after]
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }
}
