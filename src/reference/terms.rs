//! The terms of a call's score with their tensors, in f64. LSH attention has the same.

use crate::score::{Known, Pair, Rule, added};
use crate::{Attention, Score};
use std::borrow::Cow;

/// The lowest score of a pair: f32::MIN says that a pair is left out.
const LOWEST: f64 = f32::from_bits(0xff7f_fffe) as f64;

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

    /// The product with every term, and no lower than scores go.
    pub(super) fn score(&self, product: f64, pair: &Pair<'_>) -> f64 {
        let made = self.each();
        let score = made.fold(Sum::of(product), |sum, (rule, tensors)| sum.with(rule, pair, tensors)).total();
        if self.score.is_plain() { score } else { kept_up(score) }
    }

    /// The same, and how far a kernel may be from it.
    pub(super) fn known(&self, product: Known, pair: &Pair<'_>) -> Known {
        let made = self.each();
        made.fold(Made::of(product), |made, (rule, tensors)| made.with(rule, pair, tensors)).finished()
    }
}

/// A score before some terms that add numbers, and the sum of these. It is added last, in f64 too.
#[derive(Clone, Copy)]
struct Sum {
    before: f64,
    numbers: Option<f64>,
}

impl Sum {
    fn of(before: f64) -> Self {
        Self { before, numbers: None }
    }

    fn with(self, rule: &dyn Rule, pair: &Pair<'_>, tensors: &[Cow<'_, [f32]>]) -> Self {
        match rule.number(pair, tensors) {
            Some(number) => Self { numbers: Some(self.numbers.map_or(number, |sum| sum + number)), ..self },
            None => Self::of(rule.score(self.total(), pair, tensors)),
        }
    }

    fn total(&self) -> f64 {
        self.numbers.map_or(self.before, |numbers| self.before + numbers)
    }
}

/// A score as far as its terms have made it.
#[derive(Clone, Copy)]
pub(super) struct Made {
    pub(super) known: Known,
    sum: Sum,
    /// How far a kernel may be from the score before the numbers, and from the sum of these.
    errors: [f64; 2],
    /// Whether a term has changed it: a product alone has no lowest score.
    changed: bool,
    /// Whether a kernel's may have passed f32's range downwards: then it is minus infinity, whatever is added later.
    fell: bool,
}

impl Made {
    pub(super) fn of(product: Known) -> Self {
        let sum = Sum::of(product.score);
        Self { known: product, sum, errors: [product.error, 0.0], changed: false, fell: false }
    }

    /// With one term more.
    pub(super) fn with(self, rule: &dyn Rule, pair: &Pair<'_>, tensors: &[Cow<'_, [f32]>]) -> Self {
        let sum = self.sum.with(rule, pair, tensors);
        let score = sum.total();
        let (error, errors) = match sum.numbers {
            Some(numbers) => {
                // The first is read as it is; each other is an addition.
                let others =
                    self.sum.numbers.map(|_| added(Known { score: 0.0, error: self.errors[1] }, numbers));
                let errors = [self.errors[0], others.unwrap_or(0.0)];
                let before = Known { score: sum.before, error: errors[0] + errors[1] };
                (added(before, score), errors)
            }
            None => {
                let error = rule.error(self.known, score, pair, tensors);
                (error, [error, 0.0])
            }
        };
        let end = f64::from(f32::MAX);
        // A number alone is one of f32, a sum of several may be none.
        let several = sum.numbers.filter(|_| self.sum.numbers.is_some()).map(|numbers| (numbers, errors[1]));
        let mut made = [Some((score, error)), several].into_iter().flatten();
        let rose = made.clone().any(|(made, error)| made + error > end);
        // Plus infinity makes its row NaN; and whoever multiplies minus infinity, or knows what else, may get anything.
        let lost = rose || (self.fell && !rule.adds());
        let fell = self.fell || made.any(|(made, error)| made - error < -end);
        let known = Known { score, error: if lost { f64::INFINITY } else { error } };
        let errors = if lost { [f64::INFINITY; 2] } else { errors };
        Self { known, sum, errors, changed: true, fell }
    }

    /// Behind the last term: section 1, `lowest`.
    pub(super) fn finished(self) -> Known {
        if !self.changed {
            return self.known;
        }
        let known = no_lower(self.known);
        let fall = if self.fell { known.score - LOWEST } else { 0.0 };
        // Not `max`, which takes NaN for nothing.
        if known.error < fall { Known { error: fall, ..known } } else { known }
    }
}

/// A score that terms have changed, with a kernel's last step: certain where it certainly is below all scores.
pub(super) fn no_lower(known: Known) -> Known {
    let Known { score, error } = known;
    match score.is_finite() && score + error <= LOWEST {
        true => Known { score: LOWEST, error: 0.0 },
        false => Known { score: kept_up(score), error },
    }
}

/// A score that numbers of f32 have made, where it is below all of them. Infinities and NaN stay.
fn kept_up(score: f64) -> f64 {
    if score.is_finite() && score < LOWEST { LOWEST } else { score }
}
