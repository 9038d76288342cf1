use super::logic::lower::{Piece, ResidueBand, Residues};
use super::{And, Extent, Identity, Pattern, Range, Site, Span, Window, spans};
use crate::{Error, Result};

/// Which of the two sets of a factorised pattern a head attends (Child 2019, section 4.2): give each its own head, or both
/// to each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum StridedPart {
    /// The keys up to `stride` before the query.
    Local,
    /// Every `stride`-th key.
    Column,
    /// The union of both.
    #[default]
    Both,
}

/// The Sparse Transformer's strided pattern (Child 2019, eq. 3): with i' = i + (Lk - Lq),
///
/// ```text
/// Local:  i' - stride <= j <= i'                     stride + 1 keys per row
/// Column: j <= i', (i' - j) mod stride = 0           about i' / stride + 1 keys per row
///
/// stride: 3, Both, causal
/// Lq = Lk     Lq < Lk
/// █·····      ██····
/// ██····      ███···
/// ███···      ████··
/// ████··      ·████·
/// ·████·      ··████
/// ··████
/// ```
///
/// Not causal, both sets reach to both sides: |i' - j| <= stride, and the columns without j <= i'.
///
/// For sequences with a period (images, music) take the period as the stride, or about sqrt(L): a row then keeps some
/// 2 sqrt(L) keys. Others differ: OpenAI's `strided` is the column set alone, and its `local` of l keys counts the query's
/// own among the l, where the paper's set has l + 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Strided {
    /// Keys from one of a column to the next, and the reach of the local set.
    pub stride: usize,
    /// Which set.
    #[cfg_attr(feature = "serde", serde(default))]
    pub part: StridedPart,
    /// Whether later keys are hidden.
    #[cfg_attr(feature = "serde", serde(default = "super::yes"))]
    pub causal: bool,
}

impl Strided {
    /// Both sets, causal.
    ///
    /// # Errors
    /// [`Error::Argument`] for a stride of 0.
    pub fn new(stride: usize) -> Result<Self> {
        let pattern = Self { stride, part: StridedPart::Both, causal: true };
        pattern.check_stride()?;
        Ok(pattern)
    }

    fn check_stride(&self) -> Result<()> {
        // A larger stride than this would mean no more than this.
        if self.stride == 0 || self.stride > isize::MAX as usize / 4 {
            let need = format!("1 to {}", isize::MAX as usize / 4);
            return Err(Error::argument("Strided.stride", need, self.stride));
        }
        Ok(())
    }

    fn local(&self) -> Window {
        Window { before: self.stride, after: if self.causal { 0 } else { self.stride } }
    }

    fn has(&self, part: StridedPart) -> bool {
        self.part == part || self.part == StridedPart::Both
    }

    /// Every `stride`-th of the 32 keys from `j` on, from the first one of the column of the query at `own`.
    fn column(&self, own: isize, j: usize) -> u32 {
        let first = (own - j as isize).rem_euclid(self.stride as isize) as usize;
        (first..32).step_by(self.stride).fold(0, |word, b| word | 1 << b)
    }

    /// The same, up to the last key that the query may see.
    fn column_word(&self, site: &Site, i: usize, j: usize) -> u32 {
        let own = site.aligned(i);
        let end = if self.causal { own + 1 } else { isize::MAX };
        self.column(own, j) & spans::word(0..end, j, site.extent.kv_len)
    }

    /// Stretches of the columns that meet a block of queries: it moves by `stride` and repeats.
    fn column_spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        let (first, last) = (site.aligned(rows.start), site.aligned(rows.end - 1));
        let (stride, kv_len) = (self.stride as isize, site.extent.kv_len as isize);
        let end = if self.causal { kv_len.min(last + 1) } else { kv_len };
        if self.stride < rows.len() + spans::BLOCK {
            // No block of keys lies between them.
            return vec![Span { keys: 0..end.max(0) as usize, all: self.stride == 1 && rows.len() == 1 }];
        }
        let all = rows.len() == 1;
        // The copy of the block that reaches into key 0, or begins there.
        let mut start = first - last.div_euclid(stride) * stride;
        let mut spans = vec![];
        while start < end {
            let keys = start.clamp(0, end)..(start + rows.len() as isize).clamp(0, end);
            spans.push(Span { keys: keys.start as usize..keys.end as usize, all });
            start += stride;
        }
        spans
    }
}

impl Pattern for Strided {
    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        let distance = site.aligned(i) - j as isize;
        let column = distance.rem_euclid(self.stride as isize) == 0 && (distance >= 0 || !self.causal);
        (self.has(StridedPart::Column) && column)
            || (self.has(StridedPart::Local) && self.local().keep(site, i, j))
    }

    fn keep_word(&self, site: &Site, i: usize, j: usize) -> u32 {
        let local = if self.has(StridedPart::Local) { self.local().keep_word(site, i, j) } else { 0 };
        let column = if self.has(StridedPart::Column) { self.column_word(site, i, j) } else { 0 };
        local | column
    }

    /// The words of a column repeat: most are copied.
    fn row(&self, site: &Site, i: usize, words: &mut [u32]) {
        words.fill(0);
        if self.has(StridedPart::Column) {
            let own = site.aligned(i);
            spans::repeat(self.stride, words, |j| self.column(own, j));
            let kv_len = site.extent.kv_len;
            spans::end(if self.causal { kv_len.min((own + 1).max(0) as usize) } else { kv_len }, words);
        }
        if self.has(StridedPart::Local) {
            for Span { keys, .. } in self.local().spans(site, i..i + 1) {
                spans::set(&keys, words);
            }
        }
    }

    fn spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        match self.part {
            StridedPart::Local => self.local().spans(site, rows),
            StridedPart::Column => self.column_spans(site, rows),
            StridedPart::Both => {
                let local = self.local().spans(site, rows.clone());
                spans::or(&local, &self.column_spans(site, rows), site.extent.kv_len)
            }
        }
    }

    fn check(&self, _: &Extent) -> Result<()> {
        self.check_stride()
    }

    /// The local set in natural order; the columns with positions sorted by their residue, where each column is a
    /// stretch. What both hold, the query's own key and the neighbours in its column, is left to the local set.
    fn pieces(&self, extent: &Extent) -> Option<Vec<Piece>> {
        if self.part == StridedPart::Local {
            return None;
        }
        let queries = Residues {
            first: extent.kv_len as isize - extent.q_len as isize,
            len: extent.q_len,
            step: self.stride,
        };
        let keys = Residues { first: 0, len: extent.kv_len, step: self.stride };
        let far = isize::MAX / 2;
        let steps = match (self.part, self.causal) {
            (StridedPart::Both, true) => vec![[2, far]],
            (StridedPart::Both, false) => vec![[-far, -2], [2, far]],
            (_, true) => vec![[0, far]],
            (_, false) => vec![[-far, far]],
        };
        let column = Piece {
            q_order: Some(queries.order()),
            k_order: Some(keys.order()),
            ..Piece::natural(ResidueBand { queries, keys, steps })
        };
        match self.part {
            StridedPart::Both => Some(vec![Piece::natural(self.local()), column]),
            _ => Some(vec![column]),
        }
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }
}

/// Every `step`-th key of a window (dilated sliding window, Beltagy 2020, section 3.1): with i' = i + (Lk - Lq),
/// i' - before <= j <= i' + after and (i' - j) mod step = 0. before / step + 1 + after / step keys per row. Ends are read as
/// those of [`Window`]: -1 is open, and `after` is 0 where it is left out.
///
/// ```text
/// before: 4, after: 0, step: 2
/// Lq = Lk     Lq < Lk
/// █·····      ·█····
/// ·█····      █·█···
/// █·█···      ·█·█··
/// ·█·█··      █·█·█·
/// █·█·█·      ·█·█·█
/// ·█·█·█
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Dilated {
    /// Keys before the query's own that the window reaches.
    #[cfg_attr(feature = "serde", serde(with = "super::json::reach"))]
    pub before: usize,
    /// Keys after the query's own that the window reaches.
    #[cfg_attr(feature = "serde", serde(default, with = "super::json::reach"))]
    pub after: usize,
    /// Distance of the keys that are kept; 1 is [`Window`].
    pub step: usize,
}

impl Dilated {
    /// A dilated window.
    ///
    /// # Errors
    /// [`Error::Argument`] for a step of 0.
    pub fn new(before: usize, after: usize, step: usize) -> Result<Self> {
        let pattern = Self { before, after, step };
        pattern.check_step()?;
        Ok(pattern)
    }

    fn check_step(&self) -> Result<()> {
        if self.step == 0 || self.step > isize::MAX as usize / 4 {
            let need = format!("1 to {}", isize::MAX as usize / 4);
            return Err(Error::argument("Dilated.step", need, self.step));
        }
        Ok(())
    }

    fn window(&self) -> Window {
        Window { before: self.before, after: self.after }
    }

    fn columns(&self) -> Strided {
        Strided { stride: self.step, part: StridedPart::Column, causal: false }
    }
}

impl Pattern for Dilated {
    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        And(self.window(), self.columns()).keep(site, i, j)
    }

    fn keep_word(&self, site: &Site, i: usize, j: usize) -> u32 {
        self.window().keep_word(site, i, j) & self.columns().keep_word(site, i, j)
    }

    fn row(&self, site: &Site, i: usize, words: &mut [u32]) {
        self.columns().row(site, i, words);
        let in_window = |n| self.window().keep_word(site, i, 32 * n);
        words.iter_mut().enumerate().for_each(|(n, word)| *word &= in_window(n));
    }

    fn spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        And(self.window(), self.columns()).spans(site, rows)
    }

    fn check(&self, _: &Extent) -> Result<()> {
        self.check_step()
    }

    /// Positions sorted by their residue: a plain window there.
    fn pieces(&self, extent: &Extent) -> Option<Vec<Piece>> {
        if self.step == 1 {
            return None;
        }
        let first = extent.kv_len as isize - extent.q_len as isize;
        let queries = Residues { first, len: extent.q_len, step: self.step };
        let keys = Residues { first: 0, len: extent.kv_len, step: self.step };
        let reach = |keys: usize| (keys / self.step).min(isize::MAX as usize / 2) as isize;
        let band = ResidueBand { queries, keys, steps: vec![[-reach(self.after), reach(self.before)]] };
        let orders = (Some(queries.order()), Some(keys.order()));
        Some(vec![Piece { q_order: orders.0, k_order: orders.1, ..Piece::natural(band) }])
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }
}
