//! Rows in the bytes of a key cache.

use std::ops::Range;

use crate::reference::{INT8_STEPS, int8_row, int8_scale, int8_words};
use crate::{CacheShape, CacheStorage, Element, Paging};

/// Where the rows of sequences lie, among all rows of keys or of values.
pub(super) struct Places {
    pub(super) shape: CacheShape,
    /// `[B, capacity / page]`.
    pub(super) tables: Vec<u32>,
}

impl Places {
    /// Position `p` of a sequence, of a head.
    pub(super) fn row(&self, sequence: usize, head: usize, p: usize) -> usize {
        let shape = &self.shape;
        match shape.paging {
            None => (sequence * shape.kv_heads + head) * shape.capacity + p,
            Some(Paging { page, .. }) => {
                let own = self.tables[sequence * (shape.capacity / page) + p / page] as usize;
                (own * shape.kv_heads + head) * page + p % page
            }
        }
    }
}

/// All keys of a cache, or all values.
#[derive(Clone, PartialEq)]
pub(super) struct Image {
    pub(super) storage: CacheStorage,
    pub(super) dim: usize,
    pub(super) bytes: Vec<u8>,
}

impl Image {
    /// NaN everywhere, whatever the storage.
    pub(super) fn strange(storage: CacheStorage, dim: usize, bytes: usize) -> Self {
        Self { storage, dim, bytes: vec![0xff; bytes] }
    }

    pub(super) fn of(&self, row: usize) -> Range<usize> {
        let size = self.storage.row(self.dim) * self.storage.size_bytes();
        row * size..(row + 1) * size
    }

    /// Stores a row, as an appending kernel does.
    pub(super) fn put<KV: Element>(&mut self, row: usize, values: &[KV]) {
        let stored: Vec<u8> = match self.storage {
            CacheStorage::Int8 => bytemuck::cast_slice(&int8_words(&widened(values))).to_vec(),
            CacheStorage::Elements(_) => bytemuck::cast_slice(values).to_vec(),
        };
        let at = self.of(row);
        self.bytes[at.clone()].fill(0);
        self.bytes[at][..stored.len()].copy_from_slice(&stored);
    }

    /// A row as a kernel reads it.
    pub(super) fn get<KV: Element>(&self, row: usize) -> Vec<KV> {
        let bytes = &self.bytes[self.of(row)];
        match self.storage {
            CacheStorage::Int8 => {
                let words: Vec<u32> = bytemuck::pod_collect_to_vec(bytes);
                int8_row(&words, self.dim).1.into_iter().map(|x| KV::from_f64(x.into())).collect()
            }
            CacheStorage::Elements(_) => bytemuck::pod_collect_to_vec(&bytes[..self.dim * size_of::<KV>()]),
        }
    }

    /// What is wrong with a row that was appended, if anything is.
    pub(super) fn fault<KV: Element>(&self, row: usize, given: &[KV]) -> Option<String> {
        let got: Vec<KV> = self.get(row);
        let mut most = 0.0;
        if self.storage == CacheStorage::Int8 {
            // The scale is exact, elements are off by half of its steps.
            let scale = int8_scale(&widened(given));
            let word: [u8; 4] = self.bytes[self.of(row)][..4].try_into().expect("4 bytes");
            let stored = f32::from_ne_bytes(word);
            if stored != scale {
                return Some(format!("the row's scale: got {stored:e}, expected {scale:e}"));
            }
            most = INT8_STEPS * f64::from(scale);
        }
        let off = |(given, got): (&KV, &KV)| {
            let (given, got): (f64, f64) = ((*given).into(), (*got).into());
            // A comparison that NaN does not pass.
            let within = (given - got).abs() <= most;
            (!within).then(|| format!("got {got:e}, expected {given:e} within {most:.1e}"))
        };
        let mut faults = given.iter().zip(&got).map(off).enumerate();
        faults.find_map(|(column, fault)| fault.map(|fault| format!("column {column}: {fault}")))
    }
}

fn widened<E: Element>(values: &[E]) -> Vec<f32> {
    values.iter().map(|&x| Into::<f64>::into(x) as f32).collect()
}
