//! LSH attention by a formula of the tests' own: who meets whom from the buckets, and a score that a closure gives.

use super::Case;
use std::collections::BTreeMap;
use wgpu_attention::reference::{Position, lsh_order};
use wgpu_attention::{Element, LshOptions};

/// The keys that query i of one batch item and head meets, round by round, given its buckets `[R, L]`: with a look back of 1, no look ahead, and
/// a wrap.
pub(super) fn meetings(options: &LshOptions, len: usize, buckets: &[u32], i: usize) -> Vec<Vec<u32>> {
    assert!(options.look_back == 1 && options.look_ahead == 0 && options.wrap, "what this knows");
    let order = lsh_order(buckets, len);
    let line = if options.chain_rounds { order.len() } else { len };
    let chunks = line.div_ceil(options.chunk);
    let bucket = |place: usize| buckets[place / len * len + order[place] as usize];
    let round_of = |round: usize| {
        let place =
            round * len + order[round * len..][..len].iter().position(|&at| at as usize == i).unwrap();
        let (first, mine) = (place / line * line, place % line / options.chunk);
        let seen = |at: &usize| {
            let (j, chunk) = (order[*at] as usize, (at - first) / options.chunk);
            (chunk == mine || (chunk + 1) % chunks == mine)
                && (!options.causal || j <= i)
                && (!options.within_bucket || (at / len, bucket(*at)) == (round, bucket(place)))
                && !(options.key_mask && bucket(*at) as usize == options.bucket_count())
        };
        (first..first + line).filter(seen).map(|at| order[at]).collect()
    };
    (0..options.rounds).map(round_of).collect()
}

impl<E: Element> Case<E> {
    /// The rows, each with what it meets.
    pub(super) fn met<'a>(&'a self, buckets: &'a [u32]) -> impl Iterator<Item = (Position, Vec<u32>)> + 'a {
        let shape = self.attention.shape;
        let places = self.options.rounds * shape.q_len;
        (0..shape.len_lse()).map(move |n| {
            let at = Position {
                batch: n / shape.q_len / shape.heads,
                head: n / shape.q_len % shape.heads,
                i: n % shape.q_len,
            };
            let of_line = &buckets[n / shape.q_len * places..][..places];
            (at, meetings(&self.options, shape.q_len, of_line, at.i).concat())
        })
    }

    /// A row of a contiguous tensor of rows of `width`.
    fn row_of(&self, tensor: &[E], at: Position, i: usize, width: usize) -> Vec<f64> {
        let shape = self.attention.shape;
        let first = ((at.batch * shape.heads + at.head) * shape.q_len + i) * width;
        tensor[first..first + width].iter().map(|&x| x.into()).collect()
    }

    /// out and lse in f64: `score(product, row, j)` of every pair but a query's own key, `None` for a pair that is not there;
    /// `own(row)` says whether the own key is; `sink(head)` is one more logit.
    pub(super) fn expected(
        &self,
        buckets: &[u32],
        score: impl Fn(f64, Position, usize) -> Option<f64>,
        own: impl Fn(Position) -> bool,
        sink: impl Fn(usize) -> Option<f64>,
    ) -> [Vec<f64>; 2] {
        let (shape, options) = (self.attention.shape, &self.options);
        let scale = f64::from(self.attention.scale_value());
        let (mut out, mut lse) = (vec![], vec![]);
        for (at, keys) in self.met(buckets) {
            let mut times: BTreeMap<u32, f64> = BTreeMap::new();
            keys.iter().for_each(|&j| *times.entry(j).or_default() += 1.0);
            let q = self.row_of(&self.qk, at, at.i, shape.head_dim);
            // The weight of all of a key's meetings.
            let weight = |(&j, &n): (&u32, &f64)| -> Option<(usize, f64)> {
                let j = j as usize;
                let x = self.row_of(&self.qk, at, j, shape.head_dim);
                let norm = (x.iter().map(|x| x * x).sum::<f64>() + f64::from(options.norm_eps)).sqrt();
                let dot: f64 = q.iter().zip(&x).map(|(q, x)| q * x).sum();
                let s = match j == at.i {
                    true => own(at).then_some(f64::from(options.self_penalty)),
                    false => score(scale * dot / norm, at, j),
                };
                let n = if options.count_once { 1.0 } else { n };
                s.map(|s| (j, s + n.ln()))
            };
            let logits: Vec<(usize, f64)> = times.iter().filter_map(weight).collect();
            let all = || logits.iter().map(|logit| logit.1).chain(sink(at.head));
            let max = all().fold(f64::NEG_INFINITY, f64::max);
            let l: f64 = all().map(|s| (s - max).exp()).sum();
            let mut row = vec![0.0; shape.value_dim];
            for (j, s) in &logits {
                let v = self.row_of(&self.v, at, *j, shape.value_dim);
                row.iter_mut().zip(v).for_each(|(o, v)| *o += (s - max).exp() / l * v);
            }
            out.extend(row);
            lse.push(if max == f64::NEG_INFINITY { f64::from(f32::MIN) } else { max + l.ln() });
        }
        [out, lse]
    }
}
