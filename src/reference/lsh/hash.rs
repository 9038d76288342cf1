//! Buckets in f64, and the stable order that they give.

use super::LshCall;
use crate::lsh::{LshInputs, LshOptions};
use crate::reference::rounding::{TINY, U, gamma};
use crate::{Attention, Element, ElementType, Position, Result};
use rayon::prelude::*;

/// What [`lsh_buckets`] returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LshBuckets {
    /// `[B, H, R, L]`: below [`LshOptions::bucket_count`], or equal to it where the key mask hides the position.
    pub buckets: Vec<u32>,
    /// `[B, H, R, L]`: whether every f32 kernel must find the same bucket. With the error of a projection at most
    /// e = gamma_{d+1} sum |x||p| (one rounding of either kind per operation, u = 2^-23), the best and every other one
    /// are further apart than their errors.
    pub certain: Vec<bool>,
}

/// The buckets of all positions in all rounds, in f64: argmax over `[x P_r ; -x P_r]`, ties to the lowest index.
///
/// # Errors
/// As [`lsh`](fn@super::lsh).
pub fn lsh_buckets<E: Element>(
    attention: impl Into<Attention>,
    options: &LshOptions,
    inputs: &LshInputs<'_, E>,
) -> Result<LshBuckets> {
    let attention = attention.into();
    let shape = &attention.shape;
    let call = LshCall::new(&attention, options, inputs)?;
    let seeded = options.seeded_projections(shape);
    let projections = inputs.projections.or(seeded.as_deref()).unwrap_or_default();
    let (len, rounds) = (shape.q_len, options.rounds);
    let hashed: Vec<(u32, bool)> = (0..options.len_buckets(shape))
        .into_par_iter()
        .map(|n| {
            let (line, round, i) = (n / len / rounds, n / len % rounds, n % len);
            let at = Position { batch: line / shape.heads, head: line % shape.heads, i };
            if call.hidden(at.batch, i) {
                return (options.bucket_count() as u32, true);
            }
            bucket(&call, projections, at.head, round, &call.x(at, i))
        })
        .collect();
    let (buckets, certain) = hashed.into_iter().unzip();
    Ok(LshBuckets { buckets, certain })
}

/// h0 + b0 h1 + b0 b1 h2 ..., and whether every one of them is certain.
fn bucket(call: &LshCall<'_>, projections: &[f32], head: usize, round: usize, x: &[f64]) -> (u32, bool) {
    let (options, d) = (call.options, x.len());
    let head = if options.per_head() { head } else { 0 };
    let (columns, mut first) = (options.columns(), 0);
    let (mut bucket, mut place_value, mut certain) = (0, 1, true);
    for factor in &options.buckets {
        let half = factor / 2;
        // (x . p, its largest error) of each column
        let products: Vec<(f64, f64)> = (first..first + half)
            .map(|column| {
                let terms = x.iter().enumerate().map(|(c, x)| {
                    x * f64::from(projections[((head * d + c) * options.rounds + round) * columns + column])
                });
                let (sum, size) =
                    terms.fold((0.0, 0.0), |(sum, size), term: f64| (sum + term, size + term.abs()));
                (sum, projection_error(call.attention.storage.q, d + 1, size))
            })
            .collect();
        let (best, sure) = argmax(&products);
        bucket += place_value * best;
        certain &= sure;
        place_value *= factor;
        first += half;
    }
    (bucket as u32, certain)
}

/// gamma_k times the size of a sum of products, and what flushing may lose of inputs of ordinary size.
fn projection_error(input: ElementType, k: usize, size: f64) -> f64 {
    // A subnormal f16 may be read as 0; d of them times a projection of at most 2^4.
    let flushed = if input == ElementType::F16 { k as f64 * 2f64.powi(-10) * (2.0 * U) } else { 0.0 };
    gamma(k) * size + k as f64 * 4.0 * TINY + flushed
}

/// The lowest index of the largest of [p ; -p], and whether it stays so within the errors.
fn argmax(products: &[(f64, f64)]) -> (usize, bool) {
    let negated = products.iter().map(|&(product, error)| (-product, error));
    let all: Vec<(f64, f64)> = products.iter().copied().chain(negated).collect();
    let mut best = 0;
    for n in 1..all.len() {
        if all[n].0 > all[best].0 {
            best = n;
        }
    }
    let apart =
        |(n, &(value, error)): (usize, &(f64, f64))| n == best || all[best].0 - value > all[best].1 + error;
    (best, all.iter().enumerate().all(apart))
}

/// The order `[segments, len]` of the positions of each segment of `len` buckets: sorted by (bucket, position).
///
/// ```
/// use wgpu_attention::reference::lsh_order;
/// assert_eq!(lsh_order(&[1, 0, 1, 0, 5, 5, 4, 5], 4), [1, 3, 0, 2, 2, 0, 1, 3]);
/// ```
pub fn lsh_order(buckets: &[u32], len: usize) -> Vec<u32> {
    let order = |segment: &[u32]| {
        let mut order: Vec<u32> = (0..segment.len() as u32).collect();
        order.sort_by_key(|&i| (segment[i as usize], i));
        order
    };
    buckets.chunks(len.max(1)).flat_map(order).collect()
}
