//! The terms of a call's score with their tensors, in f64. LSH attention has the same.

use crate::score::{Known, Pair, Rule};
use crate::{Attention, Score};
use std::borrow::Cow;

/// The terms of a score, each with its tensors: the caller's, or the term's own.
pub(super) struct Terms<'a> {
    score: &'a Score,
    tensors: Vec<Vec<Cow<'a, [f32]>>>,
    may_remove: bool,
}

impl<'a> Terms<'a> {
    /// Those of a call; `get` finds the caller's tensors, which have been checked.
    pub(super) fn new(attention: &'a Attention, get: impl Fn(&str) -> Option<&'a [f32]>) -> Self {
        let (score, shape) = (&attention.score, &attention.shape);
        let tensors = |rule: &dyn Rule| -> Vec<Cow<'a, [f32]>> {
            let given = rule.tensors(shape).into_iter().filter_map(|tensor| get(tensor.name));
            given.map(Cow::Borrowed).chain(rule.constants(shape).map(|(_, own)| Cow::Owned(own))).collect()
        };
        let may_remove = score.rules().any(Rule::may_remove);
        Self { score, tensors: score.rules().map(tensors).collect(), may_remove }
    }

    pub(super) fn each(&self) -> impl Iterator<Item = (&dyn Rule, &[Cow<'a, [f32]>])> {
        self.score.rules().zip(self.tensors.iter().map(Vec::as_slice))
    }

    /// Whether a term may remove a pair from S.
    pub(super) fn may_remove(&self) -> bool {
        self.may_remove
    }

    /// Whether no term removes the pair from S.
    pub(super) fn keep(&self, pair: &Pair<'_>) -> bool {
        self.each().all(|(rule, tensors)| rule.keeps(pair, tensors))
    }

    /// One more logit of the rows of a head, which has no value.
    pub(super) fn sink(&self, head: usize) -> Option<f64> {
        self.each().find_map(|(rule, tensors)| rule.sink(head, tensors))
    }

    /// The product with every term.
    pub(super) fn score(&self, product: f64, pair: &Pair<'_>) -> f64 {
        self.each().fold(product, |score, (rule, tensors)| rule.score(score, pair, tensors))
    }

    /// The same, and how far a kernel may be from it.
    pub(super) fn known(&self, product: Known, pair: &Pair<'_>) -> Known {
        self.each().fold(product, |known, (rule, tensors)| {
            let score = rule.score(known.score, pair, tensors);
            Known { score, error: rule.error(known, score, pair, tensors) }
        })
    }
}
