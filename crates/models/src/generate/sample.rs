//! The next token from logits.
//!
//! ```text
//! p_i = exp(l_i / T) / sum_j exp(l_j / T)
//! top-k    the k most likely (Fan, Lewis, Dauphin 2018)
//! top-p    of those, as few as hold p of their probability (nucleus sampling, Holtzman 2020), at least one
//! ```
//!
//! and what is left is scaled to a sum of 1. Of equal logits the lower id comes first, everywhere: a seed gives the same tokens for the same logits.

use crate::Error;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::cmp::Ordering;

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// T; at 0 the most likely token is chosen, the lowest id of several.
    pub temperature: f64,
    /// Only the k most likely.
    pub top_k: Option<usize>,
    /// Only as few of the most likely as hold this share of the probability.
    pub top_p: Option<f64>,
    /// Where the random numbers begin.
    pub seed: u64,
}

impl Default for Sampling {
    /// Greedy.
    fn default() -> Self {
        Self { temperature: 0.0, top_k: None, top_p: None, seed: 0 }
    }
}

/// Chooses tokens. It keeps its memory from token to token.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    random: StdRng,
    /// Ids that may come next, with weights and then probabilities.
    kept: Vec<(u32, f64)>,
}

impl Sampler {
    /// Nothing chosen yet.
    ///
    /// # Errors
    /// A temperature below 0 or not finite; a `top_k` of 0; a `top_p` that is not above 0 and at most 1; one of the two at temperature 0, where it
    /// would say nothing.
    pub fn new(sampling: Sampling) -> Result<Self, Error> {
        let Sampling { temperature, top_k, top_p, seed } = sampling;
        if !(temperature.is_finite() && temperature >= 0.0) {
            return Err(
                format!("temperature: need a finite number of at least 0, found {temperature}").into()
            );
        }
        let named = [("top_k", top_k.is_some()), ("top_p", top_p.is_some())];
        if let Some((name, _)) = named.iter().find(|(_, given)| *given && temperature == 0.0) {
            return Err(format!("{name}: need a temperature above 0 beside it, found 0").into());
        }
        if top_k == Some(0) {
            return Err("top_k: need at least 1, found 0".into());
        }
        match top_p {
            Some(p) if !(p > 0.0 && p <= 1.0) => {
                Err(format!("top_p: need a number above 0 and at most 1, found {p}").into())
            }
            _ => Ok(Self { sampling, random: StdRng::seed_from_u64(seed), kept: vec![] }),
        }
    }

    /// The next token.
    ///
    /// # Errors
    /// No logits, one that is NaN or infinite, none above minus infinity.
    pub fn choose(&mut self, logits: &[f32]) -> Result<u32, Error> {
        let greedy = self.sampling.temperature == 0.0;
        let kept = self.distribution(logits)?;
        let last = kept.last().map_or(0, |(id, _)| *id);
        if greedy {
            return Ok(last);
        }
        let at: f64 = self.random.random();
        let mut sum = 0.0;
        let reached = self.kept.iter().find(|(_, probability)| {
            sum += probability;
            at < sum
        });
        // Sums may end a rounding below 1.
        Ok(reached.map_or(last, |(id, _)| *id))
    }

    /// The tokens that may come next, with their probabilities, the most likely first where `top_k` or `top_p` is given.
    ///
    /// # Errors
    /// As [`choose`](Self::choose).
    pub fn distribution(&mut self, logits: &[f32]) -> Result<&[(u32, f64)], Error> {
        let best = best(logits)?;
        let Sampling { temperature, top_k, top_p, .. } = self.sampling;
        self.kept.clear();
        if temperature == 0.0 {
            self.kept.push((best, 1.0));
            return Ok(&self.kept);
        }
        let largest = f64::from(logits[best as usize]);
        let weight = |logit: f32| ((f64::from(logit) - largest) / temperature).exp();
        let weights = logits.iter().enumerate().map(|(id, &logit)| (id as u32, weight(logit)));
        self.kept.extend(weights.filter(|(_, weight)| *weight > 0.0));
        if let Some(k) = top_k {
            self.keep_most_likely(logits, k);
        }
        if let Some(p) = top_p {
            self.keep_nucleus(logits, p);
        }
        let total = self.total();
        self.kept.iter_mut().for_each(|(_, weight)| *weight /= total);
        Ok(&self.kept)
    }

    fn total(&self) -> f64 {
        self.kept.iter().map(|(_, weight)| weight).sum()
    }

    fn keep_most_likely(&mut self, logits: &[f32], k: usize) {
        let first = |a: &(u32, f64), b: &(u32, f64)| before(logits, a.0, b.0);
        if k < self.kept.len() {
            self.kept.select_nth_unstable_by(k - 1, first);
            self.kept.truncate(k);
        }
        self.kept.sort_unstable_by(first);
    }

    fn keep_nucleus(&mut self, logits: &[f32], p: f64) {
        let total = self.total();
        // What is lighter than this holds less than half of 1 - p together: the nucleus is among the rest, which is quick to sort.
        let lightest = total * (1.0 - p) / (2 * self.kept.len()) as f64;
        self.kept.retain(|(_, weight)| *weight >= lightest);
        self.kept.sort_unstable_by(|a, b| before(logits, a.0, b.0));
        let mut sum = 0.0;
        let reached = self.kept.iter().position(|(_, weight)| {
            sum += weight;
            sum >= p * total
        });
        // All of the probability is in all tokens, also where the last of them no longer change the sum.
        if let Some(last) = reached.filter(|_| p < 1.0) {
            self.kept.truncate(last + 1);
        }
    }
}

/// Larger logits first, and of equal ones the lower id.
fn before(logits: &[f32], a: u32, b: u32) -> Ordering {
    let logit = |id: u32| logits[id as usize];
    logit(b).partial_cmp(&logit(a)).unwrap_or(Ordering::Equal).then(a.cmp(&b))
}

/// The id of the largest logit, the lowest of several.
fn best(logits: &[f32]) -> Result<u32, Error> {
    let mut best = 0;
    for (id, &logit) in logits.iter().enumerate() {
        if logit.is_nan() || logit == f32::INFINITY {
            return Err(format!("logits: need numbers, found {logit} for id {id}").into());
        }
        if logit > logits[best] {
            best = id;
        }
    }
    match logits.get(best) {
        Some(&logit) if logit > f32::NEG_INFINITY => Ok(best as u32),
        Some(_) => Err("logits: need one above minus infinity, found none".into()),
        None => Err("logits: need at least 1, found none".into()),
    }
}
