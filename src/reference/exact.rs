//! One row of attention by the formula, in f64.

use super::call::{Call, share};
use crate::{Attention, Position};

/// A row in f64, with what it was made from.
pub(super) struct Exact {
    /// S_i, ascending. (Of LSH attention: by rounds, and as often as they meet.)
    pub(super) keys: Vec<u32>,
    /// scale q_i . k_j for each of `keys`.
    pub(super) products: Vec<f64>,
    /// score(i, j) for each of `keys`.
    pub(super) scores: Vec<f64>,
    /// One more logit, which has no value.
    pub(super) sink: Option<f64>,
    /// o_i, `[dv]`.
    pub(super) out: Vec<f64>,
    pub(super) lse: f64,
}

impl Exact {
    /// All that the softmax is over: the scores, then the sink.
    pub(super) fn logits(&self) -> impl Iterator<Item = f64> + Clone {
        self.scores.iter().chain(&self.sink).copied()
    }
}

/// A row of a call: the scores of S_i, and their [`softmax`].
pub(super) fn solve(call: &Call<'_>, at: Position) -> Exact {
    let (keys, sink) = (call.keys(at), call.sink(at.head));
    let q = call.q(at);
    let products: Vec<f64> = keys.iter().map(|&j| call.product(&q, at, j)).collect();
    let scores = keys.iter().zip(&products).map(|(&j, &product)| call.score(product, at, j)).collect();
    let row = Exact { keys, products, scores, sink, out: vec![], lse: f64::from(f32::MIN) };
    softmax(row, call.attention, at, |j| call.v(at, j))
}

/// A row of which the scores are known, with its output. Two passes over S_i: the scores with their maximum M, then
/// l = sum exp(s_j - M), o = sum exp(s_j - M) v_j / l, lse = M + ln l. A score, or an attended
/// value, that is NaN or infinite makes all of the row NaN. With dropout a value counts 0 times or 1 / (1 - rate) times. A sink is one
/// more score, without a value.
pub(super) fn softmax<V: Iterator<Item = f64>>(
    mut row: Exact,
    attention: &Attention,
    at: Position,
    value: impl Fn(u32) -> V,
) -> Exact {
    row.out = vec![0.0; attention.shape.value_dim];
    if row.keys.is_empty() && row.sink.is_none() {
        return row;
    }
    // f64::max would skip a NaN.
    let finite = row.products.iter().chain(&row.scores).chain(&row.sink).all(|score| score.is_finite());
    if !finite || row.keys.iter().any(|&j| value(j).any(|v| !v.is_finite())) {
        row.out.fill(f64::NAN);
        row.lse = f64::NAN;
        return row;
    }
    let max = row.logits().fold(f64::NEG_INFINITY, f64::max);

    let mut l = row.sink.map_or(0.0, |sink| (sink - max).exp());
    for (&j, score) in row.keys.iter().zip(&row.scores) {
        let p = (score - max).exp();
        l += p;
        let met = p * share(attention, at, j);
        for (o, v) in row.out.iter_mut().zip(value(j)) {
            *o += met * v;
        }
    }
    row.out.iter_mut().for_each(|o| *o /= l);
    row.lse = max + f64::ln(l);
    row
}
