use crate::{Error, Result};
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::hash::BuildHasher;

/// Bit tiles, each kept once, numbered as they come.
#[derive(Debug)]
pub(super) struct Tiles<S = RandomState> {
    size: usize,
    words: Vec<u32>,
    /// Hash of a tile to the last tile that has it: the words are stored once, not once more as a key.
    newest: HashMap<u64, u32, RandomState>,
    /// For each tile its hash, and an earlier one of the same hash.
    older: Vec<(u64, Option<u32>)>,
    hasher: S,
}

impl Tiles {
    /// No tiles yet, of `size` words each.
    pub(super) fn new(size: usize) -> Self {
        Self::with_hasher(size, RandomState::default())
    }

    /// No tiles yet, of the same size and with the same hashes.
    pub(super) fn empty(&self) -> Self {
        Self::with_hasher(self.size, self.hasher.clone())
    }
}

impl<S: BuildHasher> Tiles<S> {
    fn with_hasher(size: usize, hasher: S) -> Self {
        Self { size, words: Vec::new(), newest: HashMap::default(), older: Vec::new(), hasher }
    }

    /// The number of an equal tile, stored now if there was none.
    pub(super) fn intern(&mut self, tile: &[u32]) -> Result<u32> {
        self.intern_hashed(self.hasher.hash_one(tile), tile)
    }

    /// The numbers that the tiles of another, made by [`empty`](Tiles::empty), get here.
    pub(super) fn append(&mut self, other: &Self) -> Result<Vec<u32>> {
        let tiles = other.words.chunks_exact(other.size).zip(&other.older);
        tiles.map(|(tile, &(hash, _))| self.intern_hashed(hash, tile)).collect()
    }

    fn intern_hashed(&mut self, hash: u64, tile: &[u32]) -> Result<u32> {
        let newest = self.newest.get(&hash).copied();
        let mut candidate = newest;
        while let Some(index) = candidate {
            if self.get(index) == tile {
                return Ok(index);
            }
            candidate = self.older[index as usize].1;
        }
        let need = (self.words.len() + tile.len()) as u64;
        if need > u32::MAX as u64 {
            return Err(Error::limit(
                "bit tiles of the block mask",
                "the largest 32-bit word index",
                need,
                u32::MAX as u64,
            ));
        }
        let index = self.older.len() as u32;
        self.words.extend_from_slice(tile);
        self.older.push((hash, newest));
        self.newest.insert(hash, index);
        Ok(index)
    }

    /// The words of a tile.
    pub(super) fn get(&self, index: u32) -> &[u32] {
        &self.words[index as usize * self.size..][..self.size]
    }

    /// The words of all tiles, one after another.
    pub(super) fn into_words(self) -> Vec<u32> {
        self.words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::{BuildHasherDefault, Hasher};

    /// Everything collides.
    #[derive(Default)]
    struct Same;

    impl Hasher for Same {
        fn finish(&self) -> u64 {
            7
        }

        fn write(&mut self, _: &[u8]) {}
    }

    #[test]
    fn tiles_of_one_hash_stay_apart() {
        let mut tiles = Tiles::with_hasher(2, BuildHasherDefault::<Same>::default());
        for round in 0..2 {
            for tile in 0..4u32 {
                assert_eq!(tiles.intern(&[tile, 0]), Ok(tile), "round {round}");
            }
        }
    }

    #[test]
    fn equal_tiles_are_stored_once() {
        let mut tiles = Tiles::new(2);
        assert_eq!(tiles.intern(&[1, 2]), Ok(0));
        assert_eq!(tiles.intern(&[2, 1]), Ok(1));
        assert_eq!(tiles.intern(&[1, 2]), Ok(0));
        assert_eq!(tiles.get(1), [2, 1]);
        assert_eq!(tiles.into_words(), [1, 2, 2, 1]);
    }
}
