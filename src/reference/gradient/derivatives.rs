//! The score of a pair with its derivatives, by the chain rule.

use crate::reference::rounding::{TINY, U};
use crate::reference::terms::{Made, Terms};
use crate::score::{Known, Pair, Products};

/// The terms of a score, one after the other, of a pair whose product is known; `slope` is what the product itself is
/// multiplied by.
pub(in crate::reference) fn derivatives(
    terms: &Terms<'_>,
    pair: &Pair<'_>,
    product: Known,
    slope: Known,
) -> Derivatives {
    let one = Known { score: 1.0, error: 0.0 };
    let mut all = Derivatives { score: product, slope, elements: vec![], products: vec![] };
    let (mut tensor, mut made) = (0, Made::of(product));
    for (rule, tensors) in terms.each() {
        let before = made.known;
        let slope = rule.slope(before.score, pair, tensors);
        let slope = Known { score: slope, error: rule.slope_error(before, pair, tensors) };
        all.slope = times(all.slope, slope);
        all.elements.iter_mut().for_each(|element| element.by = times(element.by, slope));
        all.products.iter_mut().for_each(|added| added.slope = times(added.slope, slope));
        if let Some(products) = rule.products(pair, tensors) {
            all.products.push(Added { first_tensor: tensor, products, slope: one });
        }
        let own = rule.elements(before, pair, tensors).into_iter();
        all.elements.extend(own.map(|(own, n, by)| Derivative { tensor: tensor + own, n, by }));
        made = made.with(rule, pair, tensors);
        tensor += rule.tensors(pair.shape).len();
    }
    Derivatives { score: made.finished(), ..all }
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
pub(in crate::reference) struct Derivatives {
    pub(in crate::reference) score: Known,
    /// By scale q . k.
    pub(in crate::reference) slope: Known,
    /// By the elements of the caller's tensors that the pair reads.
    pub(in crate::reference) elements: Vec<Derivative>,
    /// Of the terms that add products.
    pub(in crate::reference) products: Vec<Added>,
}

/// The products that a term adds.
pub(in crate::reference) struct Added {
    /// The first of the term's tensors among [`Score::tensors`](crate::Score::tensors).
    pub(in crate::reference) first_tensor: usize,
    pub(in crate::reference) products: Products,
    /// Of the score by what the term adds.
    pub(in crate::reference) slope: Known,
}

/// The derivative of a score by an element.
#[derive(Clone, Copy)]
pub(in crate::reference) struct Derivative {
    /// Which of [`Score::tensors`](crate::Score::tensors).
    pub(in crate::reference) tensor: usize,
    /// Which element.
    pub(in crate::reference) n: usize,
    pub(in crate::reference) by: Known,
}
