//! The tensors of a call with dout, read row by row in f64; and what a row's softmax leaves for its gradients.

use crate::Position;
use crate::inputs::check_len;
use crate::pattern::Pattern;
use crate::reference::call::{Call, check_type};
use crate::reference::rounding::{TINY, U};
use crate::score::{Known, Products};
use crate::{Attention, AttentionShape, Element, Error, Inputs, Result, Strides};
use rayon::prelude::*;
use std::borrow::Cow;

/// A call with the derivative of a loss by its output.
pub(super) struct GradientCall<'a> {
    pub(super) call: Call<'a>,
    dout: Cow<'a, [f32]>,
    strides: Strides,
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
        Ok(Self { call, dout: O::widened(dout), strides: attention.out_strides() })
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

    /// Every row, in order.
    pub(super) fn rows(&self) -> Vec<Row> {
        let rows = 0..self.shape().len_lse();
        rows.into_par_iter().map(|n| Row::new(self, Position::of_row(self.shape(), n))).collect()
    }

    /// The score of a pair, and its derivatives.
    pub(super) fn derivatives(&self, at: Position, j: u32, product: Known) -> Derivatives {
        let pair = self.call.pair(at, j as usize);
        let one = Known { score: 1.0, error: 0.0 };
        let mut all = Derivatives { score: product, slope: one, elements: vec![], products: vec![] };
        let mut tensor = 0;
        for (rule, tensors) in self.call.terms() {
            let before = all.score;
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
            let score = rule.score(before.score, &pair, tensors);
            all.score = Known { score, error: rule.error(before, score, &pair, tensors) };
            tensor += rule.tensors(self.shape()).len();
        }
        all
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
pub(super) struct Derivative {
    /// Which of [`Score::tensors`](crate::Score::tensors).
    pub(super) tensor: usize,
    /// Which element.
    pub(super) n: usize,
    pub(super) by: Known,
}

/// What a row's softmax leaves for its gradients.
pub(super) struct Row {
    pub(super) at: Position,
    /// q_i, `[d]`.
    pub(super) q: Vec<f64>,
    /// dout_i, `[dv]`.
    pub(super) dout: Vec<f64>,
    /// S_i, ascending.
    pub(super) keys: Vec<u32>,
    /// One more logit, which has no value.
    pub(super) sink: Option<f64>,
    /// The largest score, and the sum of exp(score - max), both with the sink; NaN where a score is not finite.
    max: f64,
    l: f64,
    /// D_i.
    pub(super) d: f64,
}

impl Row {
    fn new(call: &GradientCall<'_>, at: Position) -> Self {
        let (q, dout, keys) = (call.call.q(at), call.dout(at), call.call.keys(at));
        let score = |&j: &u32| call.call.score(call.call.product(&q, at, j), at, j);
        let scores: Vec<f64> = keys.iter().map(score).collect();
        // f64::max would skip a NaN.
        let sink = call.call.sink(at.head);
        let finite = scores.iter().chain(&sink).all(|score| score.is_finite());
        let max = scores.iter().chain(&sink).copied().fold(f64::NEG_INFINITY, f64::max);
        let max = if finite { max } else { f64::NAN };
        let l = scores.iter().chain(&sink).map(|score| (score - max).exp()).sum();
        let mut row = Self { at, q, dout, keys, sink, max, l, d: 0.0 };
        let shares = row.keys.iter().zip(&scores).map(|(&j, &score)| row.weight(score) * row.dp(call, j));
        row.d = shares.sum();
        row
    }

    /// ln p of a key with this score.
    pub(super) fn log_weight(&self, score: f64) -> f64 {
        score - self.max - self.l.ln()
    }

    /// p of a key with this score.
    pub(super) fn weight(&self, score: f64) -> f64 {
        (score - self.max).exp() / self.l
    }

    /// The gradient by the sink, whose value is 0: p (0 - D_i).
    pub(super) fn sink_gradient(&self) -> f64 {
        self.sink.map_or(0.0, |sink| -self.weight(sink) * self.d)
    }

    /// dout_i . v_j, as often as the value counts.
    pub(super) fn dp(&self, call: &GradientCall<'_>, j: u32) -> f64 {
        let dp: f64 = self.dout.iter().zip(call.call.v(self.at, j)).map(|(dout, v)| dout * v).sum();
        call.call.share(self.at, j) * dp
    }

    /// scale q_i . k_j.
    pub(super) fn product(&self, call: &GradientCall<'_>, j: u32) -> f64 {
        call.call.product(&self.q, self.at, j)
    }
}
