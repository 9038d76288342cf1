//! The tensors of a call with dout, read row by row in f64; and what a row's softmax leaves for its gradients.

use crate::Position;
use crate::inputs::check_len;
use crate::pattern::Pattern;
use crate::reference::call::{Call, check_type};
use crate::reference::exact::{Exact, solve};
use crate::reference::rounding::{TINY, U};
use crate::reference::terms::Made;
use crate::reference::weights::{Query, product_error};
use crate::score::{Known, Products};
use crate::{Attention, AttentionShape, Element, Error, Inputs, Result, Strides};
use std::borrow::Cow;

/// A call with the derivative of a loss by its output.
pub(super) struct GradientCall<'a> {
    pub(super) call: Call<'a>,
    dout: Cow<'a, [f32]>,
    strides: Strides,
    /// max |k_jc| of each key, `[B, Hkv, Lk]`.
    largest_k: Vec<f64>,
}

impl<'a> GradientCall<'a> {
    pub(super) fn new<Q: Element, KV: Element, O: Element>(
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
        Ok(Self { call, dout: O::widened(dout), strides: attention.out_strides(), largest_k })
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

    /// The score of a pair, and its derivatives.
    fn derivatives(&self, at: Position, j: u32, product: Known) -> Derivatives {
        let pair = self.call.pair(at, j as usize);
        let one = Known { score: 1.0, error: 0.0 };
        let mut all = Derivatives { score: product, slope: one, elements: vec![], products: vec![] };
        let (mut tensor, mut made) = (0, Made::of(product));
        for (rule, tensors) in self.call.terms() {
            let before = made.known;
            let slope = rule.slope(before.score, &pair, tensors);
            let slope = Known { score: slope, error: rule.slope_error(before, &pair, tensors) };
            all.slope = times(all.slope, slope);
            all.elements.iter_mut().for_each(|element| element.by = times(element.by, slope));
            all.products.iter_mut().for_each(|added| added.slope = times(added.slope, slope));
            if let Some(products) = rule.products(&pair, tensors) {
                all.products.push(Added { first_tensor: tensor, products, slope: one });
            }
            let own = rule.elements(before, &pair, tensors).into_iter();
            all.elements.extend(own.map(|(own, n, by)| Derivative { tensor: tensor + own, n, by }));
            made = made.with(rule, &pair, tensors);
            tensor += rule.tensors(self.shape()).len();
        }
        Derivatives { score: made.finished(), ..all }
    }
}

/// A product, rounded once where neither factor is 1.
fn times(a: Known, b: Known) -> Known {
    let one = |x: Known| x.score == 1.0 && x.error == 0.0;
    if one(a) || one(b) {
        return if one(a) { b } else { a };
    }
    let score = a.score * b.score;
    let moved = a.error * (b.score.abs() + b.error) + a.score.abs() * b.error;
    Known { score, error: moved + U * (score.abs() + moved) + TINY }
}

/// The score of a pair with its derivatives.
pub(super) struct Derivatives {
    pub(super) score: Known,
    /// By scale q . k.
    pub(super) slope: Known,
    /// By the elements of the caller's tensors that the pair reads.
    pub(super) elements: Vec<Derivative>,
    /// Of the terms that add products.
    pub(super) products: Vec<Added>,
}

/// The products that a term adds.
pub(super) struct Added {
    /// The first of the term's tensors among [`Score::tensors`](crate::Score::tensors).
    pub(super) first_tensor: usize,
    pub(super) products: Products,
    /// Of the score by what the term adds.
    pub(super) slope: Known,
}

/// The derivative of a score by an element.
#[derive(Clone, Copy)]
pub(super) struct Derivative {
    /// Which of [`Score::tensors`](crate::Score::tensors).
    pub(super) tensor: usize,
    /// Which element.
    pub(super) n: usize,
    pub(super) by: Known,
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
        let forward = solve(&call.call, at);
        let logits = || forward.logits();
        // f64::max would skip a NaN.
        let finite = logits().all(f64::is_finite);
        let max = if finite { logits().fold(f64::NEG_INFINITY, f64::max) } else { f64::NAN };
        let l: f64 = logits().map(|score| (score - max).exp()).sum();
        let (q, dout) = (call.call.q(at), call.dout(at));
        let mut row = Self { at, q, dout, forward, max, log_l: l.ln(), l, d: 0.0, pairs: vec![], dq: vec![] };
        let query = Query::new(&call.call, at);
        let pairs = row.forward.keys.iter().zip(&row.forward.products).zip(&row.forward.scores);
        let pair = |((&j, &score), &with_terms): ((&u32, &f64), &f64)| {
            let product = Known { score, error: product_error(&call.call, &query, at, j) };
            let (p, dp, by) = (row.weight(with_terms), row.dp(call, j), call.derivatives(at, j, product));
            Pair { p, dp, ds: 0.0, by }
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
