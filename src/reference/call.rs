//! The tensors of one call: checked once, then read row by row in f64; and the score.

use super::terms::Terms;
use crate::pattern::{Pattern, Site};
use crate::score::{Known, Pair};
use crate::{Attention, AttentionShape, Dropout, Element, Error, Inputs, Position, Result, Strides};
use std::borrow::Cow;

/// A call whose sizes have been checked: nothing below can index past an end.
pub(super) struct Call<'a> {
    pub(super) attention: &'a Attention,
    /// Its sizes.
    pub(super) shape: &'a AttentionShape,
    /// In f32, which holds every element type exactly, so that what follows is compiled once.
    q: Cow<'a, [f32]>,
    k: Cow<'a, [f32]>,
    v: Cow<'a, [f32]>,
    pattern: &'a dyn Pattern,
    terms: Terms<'a>,
    strides: [Strides; 3],
}

impl<'a> Call<'a> {
    pub(super) fn new<Q: Element, KV: Element>(
        attention: &'a Attention,
        inputs: &Inputs<'a, Q, KV>,
        pattern: &'a dyn Pattern,
    ) -> Result<Self> {
        let shape = &attention.shape;
        attention.check()?;
        check_type::<Q>("q", attention.storage.q)?;
        check_type::<KV>("k and v", attention.storage.kv)?;
        inputs.check(attention)?;
        pattern.check(&shape.extent())?;
        Ok(Self {
            attention,
            shape,
            q: Q::widened(inputs.q),
            k: KV::widened(inputs.k),
            v: KV::widened(inputs.v),
            pattern,
            terms: Terms::new(attention, |name| inputs.get(name)),
            strides: [attention.q_strides(), attention.k_strides(), attention.v_strides()],
        })
    }

    pub(super) fn check_position(&self, at: Position) -> Result<()> {
        let shape = self.shape;
        let axes =
            [("batch", at.batch, shape.batch), ("head", at.head, shape.heads), ("i", at.i, shape.q_len)];
        for (name, got, size) in axes {
            if got >= size {
                return Err(Error::argument(format!("position.{name}"), format!("below {size}"), got));
            }
        }
        Ok(())
    }

    /// S_i, ascending; of a head that is left out, empty.
    pub(super) fn keys(&self, at: Position) -> Vec<u32> {
        if !self.attention.heads.computes(at.head) {
            return vec![];
        }
        let site = self.site(at);
        let kept = (0..self.shape.kv_len).filter(|&j| self.pattern.keep(&site, at.i, j));
        kept.filter(|&j| self.terms_keep(at, j)).map(|j| j as u32).collect()
    }

    /// Whether j is in S_i: a bias of minus infinity removes it.
    pub(super) fn keeps(&self, at: Position, j: usize) -> bool {
        let computed = self.attention.heads.computes(at.head);
        computed && self.pattern.keep(&self.site(at), at.i, j) && self.terms_keep(at, j)
    }

    fn site(&self, at: Position) -> Site {
        Site { batch: at.batch, head: at.head, extent: self.shape.extent() }
    }

    fn terms_keep(&self, at: Position, j: usize) -> bool {
        !self.terms.may_remove() || self.terms.keep(&self.pair(at, j))
    }

    /// One more logit of the rows of a head, which has no value.
    pub(super) fn sink(&self, head: usize) -> Option<f64> {
        self.terms.sink(head).filter(|_| self.attention.heads.computes(head))
    }

    /// The terms of the score, each with its tensors.
    pub(super) fn terms(&self) -> &Terms<'a> {
        &self.terms
    }

    pub(super) fn pair(&self, at: Position, j: usize) -> Pair<'_> {
        let position = at.i as i64 + self.shape.kv_len as i64 - self.shape.q_len as i64;
        let d = self.shape.head_dim;
        let q_at = self.strides[0].at(at.batch, at.head, at.i);
        let k_at = self.strides[1].at(at.batch, self.shape.kv_head(at.head), j);
        let (q, k) = (&self.q[q_at..q_at + d], &self.k[k_at..k_at + d]);
        let scale = f64::from(self.attention.scale_value());
        Pair { batch: at.batch, head: at.head, i: at.i, j, position, q, k, scale, shape: self.shape }
    }

    /// q_i, `[d]`.
    pub(super) fn q(&self, at: Position) -> Vec<f64> {
        let start = self.strides[0].at(at.batch, at.head, at.i);
        self.q[start..start + self.shape.head_dim].iter().map(|&x| x.into()).collect()
    }

    /// k_j as the row's head sees it, `[d]`.
    pub(super) fn k(&self, at: Position, j: u32) -> impl Iterator<Item = f64> + '_ {
        let start = self.strides[1].at(at.batch, self.shape.kv_head(at.head), j as usize);
        self.k[start..start + self.shape.head_dim].iter().map(|&x| x.into())
    }

    /// v_j as the row's head sees it, `[dv]`.
    pub(super) fn v(&self, at: Position, j: u32) -> impl Iterator<Item = f64> + '_ {
        let start = self.strides[2].at(at.batch, self.shape.kv_head(at.head), j as usize);
        self.v[start..start + self.shape.value_dim].iter().map(|&x| x.into())
    }

    /// What is left of a weight where it meets its value: 1, or with dropout 0 or 1 / (1 - rate).
    pub(super) fn share(&self, at: Position, j: u32) -> f64 {
        share(self.attention, at, j)
    }

    /// The largest [`share`](Self::share) that there may be.
    pub(super) fn most_share(&self) -> f64 {
        most_share(self.attention)
    }

    /// Roundings of a product with a share: its own, and that of the factor.
    pub(super) fn share_roundings(&self) -> usize {
        share_roundings(self.attention)
    }

    /// scale q_i . k_j.
    pub(super) fn product(&self, q: &[f64], at: Position, j: u32) -> f64 {
        let dot: f64 = q.iter().zip(self.k(at, j)).map(|(q, k)| q * k).sum();
        f64::from(self.attention.scale_value()) * dot
    }

    /// score(i, j) of a product, and how far a kernel may be from it.
    pub(super) fn known(&self, product: Known, at: Position, j: u32) -> Known {
        self.terms.known(product, &self.pair(at, j as usize))
    }

    /// score(i, j): the product with every term.
    pub(super) fn score(&self, product: f64, at: Position, j: u32) -> f64 {
        self.terms.score(product, &self.pair(at, j as usize))
    }
}

/// What is left of a pair's weight where it meets its value.
pub(super) fn share(attention: &Attention, at: Position, j: u32) -> f64 {
    attention.score.dropout_term().map_or(1.0, |dropout| {
        if dropout.keeps(at.batch, at.head, at.i, j as usize) { dropout.factor() } else { 0.0 }
    })
}

/// The largest [`share`] that there may be.
pub(super) fn most_share(attention: &Attention) -> f64 {
    attention.score.dropout_term().map_or(1.0, Dropout::factor)
}

/// Roundings of a product with a share: its own, and that of the factor.
pub(super) fn share_roundings(attention: &Attention) -> usize {
    if attention.score.dropout_term().is_some() { 2 } else { 0 }
}

pub(super) fn check_type<E: Element>(name: &'static str, need: crate::ElementType) -> Result<()> {
    if E::TYPE != need {
        return Err(Error::argument(name, format!("{need} elements, as the storage says"), E::TYPE));
    }
    Ok(())
}
