//! What a term says about itself: its formula, its tensors, its error, its shader.

use super::fields::Written;
use crate::uniform::Block;
use crate::{AttentionShape, Result};
use std::borrow::Cow;

/// A tensor that the caller gives for a term of the score, by name: f32, on the device and in slices.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TermTensor {
    /// The name, by which [`Inputs`](crate::Inputs) and `AttentionBuffers` take it.
    pub name: &'static str,
    /// Elements from its start to its last one.
    pub len: usize,
    /// Whether it may be followed by more: it has strides of its own.
    pub strided: bool,
}

/// A pair of a query and a key, where a score is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair<'a> {
    pub(crate) batch: usize,
    /// The query head.
    pub(crate) head: usize,
    pub(crate) i: usize,
    pub(crate) j: usize,
    /// i + Lk - Lq: where the query stands among the keys.
    pub(crate) position: i64,
    /// q_i, `[d]`.
    pub(crate) q: &'a [f32],
    /// k_j as the query head sees it, `[d]`.
    pub(crate) k: &'a [f32],
    /// The factor of products.
    pub(crate) scale: f64,
    pub(crate) shape: &'a AttentionShape,
}

impl Pair<'_> {
    /// (i + Lk - Lq) - j.
    pub(crate) fn distance(&self) -> i64 {
        self.position - self.j as i64
    }
}

/// A score so far, or a derivative of one, and how far a kernel may be from it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    /// The exact value.
    pub(crate) score: f64,
    pub(crate) error: f64,
}

/// The derivatives of a score by vectors of `[d]` elements, where a term adds products.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Products {
    /// By q_i, beside scale k_j.
    pub(crate) q: Vec<f64>,
    /// By k_j, beside scale q_i.
    pub(crate) k: Vec<f64>,
    /// By rows of the term's tensors: which tensor, the row's first element, the derivatives.
    pub(crate) rows: Vec<(usize, usize, Vec<f64>)>,
}

/// How a kernel finds the gradient of a tensor.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct TensorGradient {
    /// Whether different batch items, heads and queries read different elements: then their sums are made side by side.
    pub(crate) apart: [bool; 3],
    /// Where each pair reads rows of d elements: the file of `shaders/backward/` that says which.
    pub(crate) vectors: Option<&'static str>,
    /// Whether the tensor is of rows, not of pairs: sinks.
    pub(crate) of_rows: bool,
    /// Whether all pairs of a head read the same element, so that a tile of pairs adds to it once.
    pub(crate) one_element: bool,
}

impl TensorGradient {
    /// Of a tensor with elements of its own for each head.
    pub(super) fn per_head() -> Self {
        Self { apart: [false, true, false], ..Self::default() }
    }

    /// Of a tensor of which all pairs of a head read the same.
    pub(super) fn one_per_head() -> Self {
        Self { one_element: true, ..Self::per_head() }
    }
}

/// The tensors of a term, in order: the caller's, or the term's own.
pub(crate) type Tensors<'a> = [Cow<'a, [f32]>];

/// One rounding of f32 to either neighbour.
pub(super) const U: f64 = 1.0 / 8_388_608.0;
/// The smallest normal f32: what a flush may lose.
pub(super) const TINY: f64 = f32::MIN_POSITIVE as f64;

/// Below it, an element of k or q may be read as 0, in the storage that has the fewest numbers (f16).
pub(super) const SUBNORMAL: f64 = 1.0 / 16384.0;

/// Two units in the last place at f32's end are 2^105; no finite result of one rounding is further off than one of them.
const LAST_PLACE: f64 = (1u128 << 104) as f64;

/// The error of `after`, the score `before` with an f32 number added: one addition, and the flush of a number that is not
/// normal. What lies past f32's range is the business of whoever puts terms together.
pub(crate) fn added(before: Known, after: f64) -> f64 {
    let rounding = (U * (after.abs() + before.error)).min(LAST_PLACE);
    before.error + rounding + if after == 0.0 { 0.0 } else { TINY }
}

/// A term of the score. `tensors` are those of [`tensors`](Self::tensors), or of [`constants`](Self::constants), in order.
pub(crate) trait Rule {
    /// The name of the term's files, and of its function in WGSL, `NAME_score`.
    fn name(&self) -> &'static str;

    /// What its text says behind its name: as the term's `read` takes it.
    fn fields(&self) -> Written {
        Written::default()
    }

    /// Checks the term against the sizes.
    fn check(&self, shape: &AttentionShape) -> Result<()>;

    /// The tensors that the caller gives.
    fn tensors(&self, shape: &AttentionShape) -> Vec<TermTensor> {
        let _ = shape;
        vec![]
    }

    /// The tensor that the plan makes, if the term has one: its name and its elements.
    fn constants(&self, shape: &AttentionShape) -> Option<(&'static str, Vec<f32>)> {
        let _ = shape;
        None
    }

    /// Whether the pair stays in S.
    fn keeps(&self, at: &Pair<'_>, tensors: &Tensors<'_>) -> bool {
        let _ = (at, tensors);
        true
    }

    /// Whether [`keeps`](Self::keeps) may be false.
    fn may_remove(&self) -> bool {
        false
    }

    /// Whether a number of its tensors that is not finite makes the pair's row NaN, and its shader notes so in `spoilt`. (Minus
    /// infinity in a bias removes the pair, and what a part of the product reads shows in the product.)
    fn may_spoil(&self) -> bool {
        false
    }

    /// Whether the term takes part in the softmax of a row, and not in the score of a pair: see [`sink`](Self::sink). Its shader
    /// defines `begin_sums`.
    fn is_of_rows(&self) -> bool {
        false
    }

    /// Whether the term acts on the weights where they meet the values, and not on scores: [`Dropout`](super::Dropout).
    fn is_of_weights(&self) -> bool {
        false
    }

    /// Whether the term acts on the score of a pair.
    fn is_of_pairs(&self) -> bool {
        !self.is_of_rows() && !self.is_of_weights()
    }

    /// One more logit of the rows of a head, which has no value.
    fn sink(&self, head: usize, tensors: &Tensors<'_>) -> Option<f64> {
        let _ = (head, tensors);
        None
    }

    /// The score with this term, from the score without it.
    fn score(&self, before: f64, at: &Pair<'_>, tensors: &Tensors<'_>) -> f64;

    /// How far the kernel's score with this term may be from the formula's, given how far the one without it may be;
    /// infinite where f32 may overflow on the way to it. `after` is what [`score`](Self::score) gives for `before`; where that is past
    /// f32's range is seen to by whoever asks.
    fn error(&self, before: Known, after: f64, at: &Pair<'_>, tensors: &Tensors<'_>) -> f64;

    /// The number of the caller's that the term adds, if that is all it does: numbers of terms that stand one behind the other are added up
    /// before the score is, for -1e9 and 1e9 would take its digits with them.
    fn number(&self, at: &Pair<'_>, tensors: &Tensors<'_>) -> Option<f64> {
        let _ = (at, tensors);
        None
    }

    /// Whether [`number`](Self::number) gives one.
    fn is_number(&self) -> bool {
        false
    }

    /// The derivative of the score with this term by the score without it.
    fn slope(&self, before: f64, at: &Pair<'_>, tensors: &Tensors<'_>) -> f64 {
        let _ = (before, at, tensors);
        1.0
    }

    /// How far the kernel's [`slope`](Self::slope) may be from the formula's, given how far the score without the term may
    /// be; infinite where f32 may overflow.
    fn slope_error(&self, before: Known, at: &Pair<'_>, tensors: &Tensors<'_>) -> f64 {
        let _ = (before, at, tensors);
        0.0
    }

    /// The element of the caller's tensor that the pair reads, and the derivative of the score with this term by it, within
    /// what a kernel may be off; `None` where the term has no such tensor. The pair is in S.
    fn element(&self, before: Known, at: &Pair<'_>, tensors: &Tensors<'_>) -> Option<(usize, Known)> {
        let _ = (before, at, tensors);
        None
    }

    /// The same of all of the term's tensors of which a pair reads an element: which tensor, the element, the derivative.
    fn elements(&self, before: Known, at: &Pair<'_>, tensors: &Tensors<'_>) -> Vec<(usize, usize, Known)> {
        self.element(before, at, tensors).map(|(n, by)| (0, n, by)).into_iter().collect()
    }

    /// The derivatives of the score with this term by q_i, by k_j and by rows of the caller's tensors, of what the term adds to the
    /// product; `None` where it adds no products. The pair is in S.
    fn products(&self, at: &Pair<'_>, tensors: &Tensors<'_>) -> Option<Products> {
        let _ = (at, tensors);
        None
    }

    /// How a kernel finds the gradient of the caller's tensor `name`; `None` where the term has no derivative by it. Each pair reads
    /// one element, at `at_NAME(pairs)` of the [shader](Self::shader), and `by_NAME(pairs, scores)` is the derivative of the score
    /// with this term by it, given the score without; or it reads [vectors](TensorGradient::vectors).
    fn gradient(&self, name: &str, shape: &AttentionShape) -> Option<TensorGradient> {
        let _ = (name, shape);
        None
    }

    /// An ordinary element of one of [`tensors`](Self::tensors), from a number drawn from N(0, 1): for tests.
    fn drawn(&self, normal: f64) -> f32 {
        normal as f32
    }

    /// An element, from random bits, under which the term changes no score, though it may remove the pair, and a sink may be one
    /// more of 0; `None` if the term always changes some. For tests that need equal scores.
    fn silent(&self, bits: u64) -> Option<f32>;

    /// Whether the tile adds the term to the products, and no function `NAME_score` does.
    fn in_product(&self) -> bool {
        false
    }

    /// The WGSL that defines `NAME_score(pairs, scores)`, and where the term [scales](Self::scales) `NAME_slope(pairs, scores)`:
    /// the derivative of the score with this term by the score without it.
    fn shader(&self) -> Cow<'static, str>;

    /// Whether that derivative is not 1: the term does more than add something.
    fn scales(&self) -> bool;

    /// Whether a kernel's score of minus infinity stays that with this term, for it adds a number.
    fn adds(&self) -> bool {
        !self.scales()
    }

    /// Its parameters, if it has any.
    fn params(&self, shape: &AttentionShape) -> Option<Block> {
        let _ = shape;
        None
    }
}
