//! The tensors of a call with dout, read row by row in f64; and what a row's softmax leaves for its gradients.

use super::derivatives::{Derivatives, derivatives};
use crate::Position;
use crate::inputs::check_len;
use crate::pattern::Pattern;
use crate::reference::call::{Call, check_type};
use crate::reference::exact::{Exact, solve};
use crate::reference::weights::{Query, product_error};
use crate::score::Known;
use crate::{Attention, AttentionShape, Element, Error, Inputs, Result, Strides};
use std::borrow::Cow;

/// A call with the derivative of a loss by its output.
pub(in crate::reference) struct GradientCall<'a> {
    pub(super) call: Call<'a>,
    dout: Cow<'a, [f32]>,
    strides: Strides,
    /// max |k_jc| of each key, `[B, Hkv, Lk]`.
    largest_k: Vec<f64>,
    /// Who knows the rows, where the pattern does not.
    rows: Option<&'a dyn RowSource>,
}

/// Rows whose pairs no pattern names: those of LSH attention.
pub(in crate::reference) trait RowSource: Sync {
    /// A row; k is the tensor's, and what else there is to a key is in the slopes.
    fn solve(&self, at: Position) -> Solved;
}

/// A row of the forward pass, with the derivatives of its scores.
pub(in crate::reference) struct Solved {
    /// Keys ascending, each as often as it counts.
    pub(in crate::reference) forward: Exact,
    /// Of each key.
    pub(in crate::reference) by: Vec<Derivatives>,
    /// The places of the keys, part by part, where the forward pass does not walk them as a route says.
    pub(in crate::reference) parts: Option<Vec<Vec<usize>>>,
}

impl<'a> GradientCall<'a> {
    pub(in crate::reference) fn new<Q: Element, KV: Element, O: Element>(
        attention: &'a Attention,
        inputs: &Inputs<'a, Q, KV>,
        dout: &'a [O],
        pattern: &'a dyn Pattern,
    ) -> Result<Self> {
        let call = Call::new(attention, inputs, pattern)?;
        if let Some(name) = attention.score.without_slope() {
            return Err(Error::argument("score", "terms whose derivative is known: `Custom::slope`", name));
        }
        check_type::<O>("dout", attention.storage.out)?;
        check_len("dout", dout.len(), attention.len_out(), attention.layouts.out)?;
        let shape = &attention.shape;
        let [_, kv_heads, kv_len] = shape.key_rows();
        let group = shape.heads / kv_heads.max(1);
        let largest = |n: usize| {
            let (batch, kv_head) = (n / kv_len / kv_heads, n / kv_len % kv_heads);
            let at = Position { batch, head: kv_head * group, i: 0 };
            call.k(at, (n % kv_len) as u32).fold(0.0, |max: f64, k| max.max(k.abs()))
        };
        let largest_k = (0..shape.key_rows().iter().product()).map(largest).collect();
        Ok(Self { call, dout: O::widened(dout), strides: attention.out_strides(), largest_k, rows: None })
    }

    /// The same over rows that no pattern names.
    pub(in crate::reference) fn over(self, rows: &'a dyn RowSource) -> Self {
        Self { rows: Some(rows), ..self }
    }

    /// A row by the pattern, or by who knows it.
    fn solve(&self, at: Position) -> Solved {
        if let Some(rows) = self.rows {
            return rows.solve(at);
        }
        let forward = solve(&self.call, at);
        let (query, one) = (Query::new(&self.call, at), Known { score: 1.0, error: 0.0 });
        let by = forward.keys.iter().zip(&forward.products).map(|(&j, &score)| {
            let product = Known { score, error: product_error(&self.call, &query, at, j) };
            derivatives(self.call.terms(), &self.call.pair(at, j as usize), product, one)
        });
        let by = by.collect();
        Solved { forward, by, parts: None }
    }

    /// max |k_jc|.
    pub(super) fn largest_k(&self, at: Position, j: u32) -> f64 {
        let shape = self.shape();
        let line = at.batch * shape.kv_heads + shape.kv_head(at.head);
        self.largest_k[line * shape.kv_len + j as usize]
    }

    pub(super) fn shape(&self) -> &'a AttentionShape {
        self.call.shape
    }

    pub(super) fn scale(&self) -> f64 {
        self.call.attention.scale_value().into()
    }

    /// dout_i, `[dv]`.
    fn dout(&self, at: Position) -> Vec<f64> {
        let start = self.strides.at(at.batch, at.head, at.i);
        self.dout[start..start + self.shape().value_dim].iter().map(|&x| x.into()).collect()
    }
}

/// A row of queries with its pairs: all that its gradients are made of.
pub(super) struct Row {
    pub(super) at: Position,
    /// q_i, `[d]`.
    pub(super) q: Vec<f64>,
    /// dout_i, `[dv]`.
    pub(super) dout: Vec<f64>,
    /// S_i, the scores, the sink, and what the forward pass makes of them.
    pub(super) forward: Exact,
    /// [`Solved::parts`].
    pub(super) parts: Option<Vec<Vec<usize>>>,
    /// The largest score, and ln sum exp(score - max), both with the sink; NaN where a score is not finite.
    max: f64,
    log_l: f64,
    l: f64,
    /// D_i.
    pub(super) d: f64,
    /// Of each key.
    pub(super) pairs: Vec<Pair>,
    /// dq_i.
    pub(super) dq: Vec<f64>,
}

/// A pair of a query and a key.
pub(super) struct Pair {
    /// The weight.
    pub(super) p: f64,
    /// dout . v, as often as the value counts.
    pub(super) dp: f64,
    /// The gradient by the score.
    pub(super) ds: f64,
    /// The score and its derivatives, within what a kernel may be off.
    pub(super) by: Derivatives,
}

impl Row {
    pub(super) fn new(call: &GradientCall<'_>, at: Position) -> Self {
        let Solved { forward, by, parts } = call.solve(at);
        let logits = || forward.logits();
        // f64::max would skip a NaN.
        let finite = logits().all(f64::is_finite);
        let max = if finite { logits().fold(f64::NEG_INFINITY, f64::max) } else { f64::NAN };
        let l: f64 = logits().map(|score| (score - max).exp()).sum();
        let (q, dout) = (call.call.q(at), call.dout(at));
        let (pairs, dq) = (vec![], vec![]);
        let mut row = Self { at, q, dout, forward, parts, max, log_l: l.ln(), l, d: 0.0, pairs, dq };
        let pairs = row.forward.keys.iter().zip(&row.forward.scores).zip(by);
        let pair = |((&j, &score), by): ((&u32, &f64), Derivatives)| Pair {
            p: row.weight(score),
            dp: row.dp(call, j),
            ds: 0.0,
            by,
        };
        let mut pairs: Vec<_> = pairs.map(pair).collect();
        row.d = pairs.iter().map(|pair| pair.p * pair.dp).sum();
        pairs.iter_mut().for_each(|pair| pair.ds = pair.p * (pair.dp - row.d));
        row.pairs = pairs;
        row.dq = row.gradient(call);
        row
    }

    /// S_i, ascending.
    pub(super) fn keys(&self) -> &[u32] {
        &self.forward.keys
    }

    /// dq_i.
    fn gradient(&self, call: &GradientCall<'_>) -> Vec<f64> {
        let mut dq = vec![0.0; self.q.len()];
        for (&j, pair) in self.keys().iter().zip(&self.pairs) {
            let factor = call.scale() * pair.ds * pair.by.slope.score;
            dq.iter_mut().zip(call.call.k(self.at, j)).for_each(|(dq, k)| *dq += factor * k);
            for added in &pair.by.products {
                add(&mut dq, pair.ds * added.slope.score, &added.products.q);
            }
        }
        dq
    }

    /// ln p of a key with this score.
    pub(super) fn log_weight(&self, score: f64) -> f64 {
        score - self.max - self.log_l
    }

    /// p of a key with this score.
    pub(super) fn weight(&self, score: f64) -> f64 {
        (score - self.max).exp() / self.l
    }

    /// The gradient by the sink, whose value is 0: p (0 - D_i).
    pub(super) fn sink_gradient(&self) -> f64 {
        self.forward.sink.map_or(0.0, |sink| -self.weight(sink) * self.d)
    }

    /// dout_i . v_j, as often as the value counts.
    fn dp(&self, call: &GradientCall<'_>, j: u32) -> f64 {
        let dp: f64 = self.dout.iter().zip(call.call.v(self.at, j)).map(|(dout, v)| dout * v).sum();
        call.call.share(self.at, j) * dp
    }
}

/// Adds a multiple of a vector.
pub(super) fn add(sum: &mut [f64], factor: f64, x: &[f64]) {
    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += factor * x);
}
