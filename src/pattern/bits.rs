//! Many truth values, 32 to a word.

use std::sync::Arc;

/// Bits that are read one by one or 32 from any place on. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Bits {
    words: Arc<[u32]>,
    len: usize,
}

impl Bits {
    pub(super) fn new(values: impl IntoIterator<Item = bool>) -> Self {
        let (mut words, mut len) = (Vec::new(), 0usize);
        for value in values {
            if len.is_multiple_of(32) {
                words.push(0u32);
            }
            if let Some(word) = words.last_mut() {
                *word |= u32::from(value) << (len % 32);
            }
            len += 1;
        }
        Self { words: words.into(), len }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// `false` past the end.
    pub(super) fn get(&self, at: usize) -> bool {
        self.words.get(at / 32).is_some_and(|word| word >> (at % 32) & 1 == 1)
    }

    /// The 32 bits from a place on, clear past the end.
    pub(super) fn word(&self, at: usize) -> u32 {
        let word = |index: usize| u64::from(self.words.get(index).copied().unwrap_or(0));
        ((word(at / 32) | word(at / 32 + 1) << 32) >> (at % 32)) as u32
    }

    /// All of them, clear past the end.
    pub(super) fn words(&self) -> &[u32] {
        &self.words
    }

    pub(super) fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = bool> + '_ {
        (0..self.len).map(|at| self.get(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_from_any_place() {
        let value = |at: usize| at < 70 && at * at % 7 < 3;
        let bits = Bits::new((0..70).map(value));
        assert_eq!((bits.len(), bits.count()), (70, (0..70).filter(|&at| value(at)).count()));
        for at in 0..110 {
            let want = (0..32).fold(0, |word, b| word | u32::from(value(at + b)) << b);
            assert_eq!((bits.word(at), bits.get(at)), (want, value(at)), "{at}");
        }
        assert_eq!(Bits::new(bits.iter()), bits);
    }
}
