//! Which keys a query meets, and how often: from the buckets alone.

use super::hash::lsh_order;
use crate::lsh::LshOptions;
use std::collections::BTreeSet;

/// One batch item and head: its rounds, sorted and cut into chunks.
pub(super) struct Meetings {
    /// Position, round and bucket at each place; the rounds one after the other.
    places: Vec<Place>,
    /// For each round and position its place, `[R, L]`.
    place_of: Vec<usize>,
    /// The lines that are cut into chunks: first place and length.
    line: usize,
    len: usize,
    options: LshOptions,
}

#[derive(Clone, Copy)]
struct Place {
    position: usize,
    round: usize,
    bucket: u32,
}

impl Meetings {
    /// From the buckets `[R, L]`.
    pub(super) fn new(options: &LshOptions, len: usize, buckets: &[u32]) -> Self {
        let order = lsh_order(buckets, len);
        let place = |(n, &position): (usize, &u32)| {
            let (round, position) = (n / len, position as usize);
            Place { position, round, bucket: buckets[round * len + position] }
        };
        let places: Vec<Place> = order.iter().enumerate().map(place).collect();
        let mut place_of = vec![0; places.len()];
        for (n, place) in places.iter().enumerate() {
            place_of[place.round * len + place.position] = n;
        }
        let line = if options.chain_rounds { places.len() } else { len };
        Self { places, place_of, line, len, options: options.clone() }
    }

    /// The keys that query `i` meets in each round in which it asks, in the order of their places. A key that is met
    /// twice is there twice. The key mask is in the buckets.
    pub(super) fn of(&self, i: usize) -> Vec<Vec<usize>> {
        (0..self.options.rounds)
            .map(|round| {
                let place = self.place_of[round * self.len + i];
                let chunks = self.chunks_seen(place % self.line / self.options.chunk);
                let first = place / self.line * self.line;
                let seen = chunks.into_iter().flat_map(|chunk| {
                    let end = (chunk + 1).saturating_mul(self.options.chunk).min(self.line);
                    first + chunk * self.options.chunk..first + end
                });
                seen.filter(|&key| self.sees(place, key)).map(|key| self.places[key].position).collect()
            })
            .collect()
    }

    /// Chunks c - look_back ..= c + look_ahead of a line, each once.
    fn chunks_seen(&self, c: usize) -> BTreeSet<usize> {
        let LshOptions { chunk, look_back, look_ahead, wrap, .. } = self.options;
        let chunks = self.line.div_ceil(chunk) as i128;
        let (first, last) = (c as i128 - look_back as i128, c as i128 + look_ahead as i128);
        if !wrap {
            return (first.max(0)..=last.min(chunks - 1)).map(|c| c as usize).collect();
        }
        // More than a whole turn adds nothing.
        (first..=last.min(first.saturating_add(chunks - 1))).map(|c| c.rem_euclid(chunks) as usize).collect()
    }

    fn sees(&self, query: usize, key: usize) -> bool {
        let (query, key) = (self.places[query], self.places[key]);
        let options = &self.options;
        (!options.causal || key.position <= query.position)
            && (!options.within_bucket || (key.bucket == query.bucket && key.round == query.round))
            && !(options.key_mask && key.bucket as usize == options.bucket_count())
    }
}
