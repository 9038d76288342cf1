//! The algebra of stretches: what And, Or and Not do to closed forms.

use super::{Range, Span};

/// How many queries of a block attend a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cover {
    /// No query does.
    None,
    /// Some may: ask `keep`.
    Some,
    /// Every query does.
    All,
}

/// Applies `op` to what two lists of stretches say of each key of `0..kv_len`, in time proportional to the lists.
pub(super) fn combine(
    a: &[Span],
    b: &[Span],
    kv_len: usize,
    op: impl Fn(Cover, Cover) -> Cover,
) -> Vec<Span> {
    let (mut a, mut b) = (Walk(a), Walk(b));
    let (mut key, mut spans) = (0, Vec::new());
    while key < kv_len {
        let ((in_a, a_end), (in_b, b_end)) = (a.at(key, kv_len), b.at(key, kv_len));
        let end = a_end.min(b_end);
        push(&mut spans, key..end, op(in_a, in_b));
        key = end;
    }
    spans
}

/// Attended where both are.
pub(super) fn and(a: &[Span], b: &[Span], kv_len: usize) -> Vec<Span> {
    combine(a, b, kv_len, Cover::min)
}

/// Attended where either is.
pub(super) fn or(a: &[Span], b: &[Span], kv_len: usize) -> Vec<Span> {
    combine(a, b, kv_len, Cover::max)
}

/// Attended where the stretches are not.
pub(super) fn not(a: &[Span], kv_len: usize) -> Vec<Span> {
    combine(a, &[], kv_len, |cover, _| match cover {
        Cover::None => Cover::All,
        Cover::Some => Cover::Some,
        Cover::All => Cover::None,
    })
}

/// What two groups of queries attend together: all only where both do.
pub(super) fn together(a: &[Span], b: &[Span], kv_len: usize) -> Vec<Span> {
    combine(a, b, kv_len, |a, b| if a == b { a } else { Cover::Some })
}

/// The least keys of a block: neither in a gap nor in a stretch that is shorter lies a whole one.
pub(super) const BLOCK: usize = 16;

/// Stretches that all attend, given ascending and disjoint, as few as kernels can tell apart: short ones with short
/// gaps become one that some may attend. A thousand tokens are then no thousand stretches.
pub(super) fn coarse(stretches: impl Iterator<Item = Range<usize>>) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for keys in stretches.filter(|keys| !keys.is_empty()) {
        match spans.last_mut() {
            Some(last)
                if keys.len() < BLOCK
                    && keys.start - last.keys.end < BLOCK
                    && (!last.all || last.keys.len() < BLOCK) =>
            {
                *last = Span { keys: last.keys.start..keys.end, all: false };
            }
            _ => spans.push(Span { keys, all: true }),
        }
    }
    spans
}

/// [`together`] of any number of groups, in pairs of equal size: each list is walked a few times, not once per group.
pub(super) fn all_together(mut lists: Vec<Vec<Span>>, kv_len: usize) -> Vec<Span> {
    while lists.len() > 1 {
        lists = lists
            .chunks(2)
            .map(|pair| match pair {
                [a, b] => together(a, b, kv_len),
                _ => pair.concat(),
            })
            .collect();
    }
    lists.pop().unwrap_or_default()
}

/// A word whose first `count` bits are set.
pub(super) fn ones(count: usize) -> u32 {
    if count >= 32 { u32::MAX } else { (1 << count) - 1 }
}

/// The 32 keys from `j` on, those within `keys` set: [`keep_word`](super::Pattern::keep_word) of a row that keeps one
/// stretch.
pub(super) fn word(keys: Range<isize>, j: usize, kv_len: usize) -> u32 {
    let before = |key: isize| ones(key.min(kv_len as isize).saturating_sub_unsigned(j).clamp(0, 32) as usize);
    before(keys.end) & !before(keys.start)
}

/// The 32 keys from `j` on, those of a stretch set.
pub(super) fn within(keys: &Range<usize>, j: usize) -> u32 {
    let before = |key: usize| ones(key.saturating_sub(j));
    before(keys.end) & !before(keys.start)
}

/// Which of 32 keys, in any order, lie in a stretch.
pub(super) fn inside(keys: &[u32], stretch: &Range<usize>) -> u32 {
    let (start, len) = (stretch.start as u32, stretch.len() as u32);
    // Bytes first, which compilers make of many keys at once; a product moves the bits of 8 of them side by side.
    let mut inside = [0; 32];
    for (inside, key) in inside.iter_mut().zip(keys) {
        *inside = u8::from(key.wrapping_sub(start) < len);
    }
    inside.chunks_exact(8).rev().fold(0, |word, eight| {
        let bytes = u64::from_le_bytes(eight.try_into().unwrap_or_default());
        word << 8 | (bytes.wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
    })
}

/// 32 pairs of a row as [`Pattern::keep_word`](super::Pattern::keep_word) wants them, from stretches of that row
/// alone.
pub(super) fn row_word(row: &[Span], j: usize) -> u32 {
    row.iter().fold(0, |word, span| word | within(&span.keys, j))
}

/// A whole row as [`Pattern::row`](super::Pattern::row) wants it, from stretches of that row alone.
pub(super) fn row(row: &[Span], words: &mut [u32]) {
    words.fill(0);
    row.iter().for_each(|span| set(&span.keys, words));
}

/// Sets the bits of a stretch in the words of a row.
pub(super) fn set(keys: &Range<usize>, words: &mut [u32]) {
    if keys.is_empty() {
        return;
    }
    let first = keys.start / 32;
    let touched = words[first..keys.end.div_ceil(32)].iter_mut().enumerate();
    touched.for_each(|(n, word)| *word |= within(keys, 32 * (first + n)));
}

/// A row of words that repeats every `stride` keys: few are made by `word`, of the keys from `j` on, the rest are copied.
pub(super) fn repeat(stride: usize, words: &mut [u32], word: impl Fn(usize) -> u32) {
    let period = stride >> stride.trailing_zeros().min(5);
    for n in 0..words.len() {
        words[n] = match n.checked_sub(period) {
            Some(before) => words[before],
            None => word(32 * n),
        };
    }
}

/// Clears the bits of a row from a key on.
pub(super) fn end(key: usize, words: &mut [u32]) {
    let behind = words.iter_mut().enumerate().skip(key / 32);
    behind.for_each(|(n, word)| *word &= within(&(0..key), 32 * n));
}

fn push(spans: &mut Vec<Span>, keys: Range<usize>, cover: Cover) {
    if cover == Cover::None {
        return;
    }
    let all = cover == Cover::All;
    match spans.last_mut() {
        Some(last) if last.all == all && last.keys.end == keys.start => last.keys.end = keys.end,
        _ => spans.push(Span { keys, all }),
    }
}

/// Stretches that are left to walk.
struct Walk<'a>(&'a [Span]);

impl Walk<'_> {
    /// What is said of `key`, and up to which key that holds.
    fn at(&mut self, key: usize, kv_len: usize) -> (Cover, usize) {
        while self.0.first().is_some_and(|span| span.keys.end <= key) {
            self.0 = &self.0[1..];
        }
        match self.0.first() {
            Some(Span { keys, .. }) if key < keys.start => (Cover::None, keys.start.min(kv_len)),
            Some(Span { keys, all }) => (if *all { Cover::All } else { Cover::Some }, keys.end.min(kv_len)),
            None => (Cover::None, kv_len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stretches from a picture: `#` all, `?` some, `.` none.
    fn read(picture: &str) -> Vec<Span> {
        let mut spans = Vec::new();
        for (key, symbol) in picture.chars().enumerate() {
            let cover = match symbol {
                '#' => Cover::All,
                '?' => Cover::Some,
                _ => Cover::None,
            };
            push(&mut spans, key..key + 1, cover);
        }
        spans
    }

    #[test]
    fn every_pair_of_covers() {
        let (a, b) = ("...???###", ".?#.?#.?#");
        assert_eq!(and(&read(a), &read(b), 9), read("....??.?#"));
        assert_eq!(or(&read(a), &read(b), 9), read(".?#??####"));
        assert_eq!(together(&read(a), &read(b), 9), read(".???????#"));
        assert_eq!(not(&read(a), 9), read("###???..."));
    }

    #[test]
    fn words() {
        assert_eq!(word(0..5, 0, 100), 0b11111);
        assert_eq!(word(-7..5, 3, 100), 0b11);
        assert_eq!(word(34..isize::MAX, 32, 100), !0b11);
        assert_eq!(word(34..isize::MAX, 32, 36), 0b1100);
        assert_eq!(word(isize::MIN..isize::MAX, 64, 100), u32::MAX);
        assert_eq!(word(5..5, 0, 100), 0);
        assert_eq!(word(0..10, 32, 100), 0);
    }

    #[test]
    fn keys_inside_a_stretch() {
        let keys: Vec<u32> = (0..32).map(|n| n * 13 % 37).collect();
        for (start, end) in [(0, 0), (0, 37), (5, 6), (7, 20), (36, 40), (0, 1)] {
            for len in [32, 9, 8, 1, 0] {
                let keys = &keys[..len];
                let bit = |(n, &key): (usize, &u32)| u32::from((start..end).contains(&(key as usize))) << n;
                let want = keys.iter().enumerate().map(bit).fold(0, |word, bit| word | bit);
                assert_eq!(inside(keys, &(start..end)), want, "{start}..{end} of {keys:?}");
            }
        }
    }

    /// Short stretches with short gaps are joined; long ones keep what blocks they hold.
    #[test]
    fn coarse_stretches() {
        let span = |keys, all| Span { keys, all };
        let of = |stretches: &[[usize; 2]]| coarse(stretches.iter().map(|&[start, end]| start..end));
        assert_eq!(of(&[[3, 4], [6, 8], [9, 10]]), [span(3..10, false)]);
        assert_eq!(of(&[[3, 4], [5, 5], [20, 21]]), [span(3..4, true), span(20..21, true)]);
        assert_eq!(of(&[[0, 16], [17, 18], [19, 40]]), [0..16, 17..18, 19..40].map(|keys| span(keys, true)));
        assert_eq!(of(&[[0, 1], [2, 3], [4, 20]]), [span(0..3, false), span(4..20, true)]);
    }

    #[test]
    fn empty_stretches_and_empty_lists() {
        let empty = [Span { keys: 3..3, all: true }, Span { keys: 5..5, all: false }];
        assert_eq!(not(&empty, 7), [Span { keys: 0..7, all: true }]);
        assert_eq!(and(&[], &read("###"), 3), []);
        assert_eq!(or(&[], &read("#.?"), 3), read("#.?"));
        assert_eq!(not(&[], 0), []);
    }
}
