//! The score of a query and a key: scale q . k, and the terms that a call adds.
//!
//! ```text
//! score(i, j) = term_n( ... term_1( scale q_i . k_j ) )          the terms in the order of [`Term`]
//! D           = (i + Lk - Lq) - j                                the distance, counted from the aligned ends
//! l_i         = sum_j exp(score(i, j)) + exp(sink_h)             where the call has sinks
//! o_i         = sum_j keep_ij / (1 - rate) exp(score(i, j)) v_j / l_i       where it has dropout
//! ```
//!
//! Each term is one small file here (formula in f64, tensors, its part of the error bound) and one of the same name in
//! `shaders/score/`; a shader holds the terms that its call has, and nothing of the others.
//!
//! To add one: write both files, name the term in the list below and in [`Term`].

mod alibi;
mod bias;
mod buckets;
mod custom;
mod dropout;
mod fields;
mod relative;
mod rule;
mod segments;
mod sinks;
mod softcap;
mod temperature;
mod text;
mod threefry;

pub use alibi::{Alibi, Slopes};
pub use bias::Bias;
pub use buckets::Buckets;
pub use custom::{Custom, CustomPair};
pub use dropout::Dropout;
pub use relative::Relative;
pub use rule::TermTensor;
pub(crate) use rule::{Known, Pair, Products, Rule, TensorGradient, added};
pub use segments::Segments;
pub use sinks::Sinks;
pub use softcap::Softcap;
pub use temperature::Temperature;

use crate::{AttentionShape, BiasStrides, Error, Result};
use std::hash::{Hash, Hasher};

/// The score of every pair of a call: scale q . k, and terms.
///
/// A score that terms take below f32's range, as two masks of `f32::MIN` do that meet, is the lowest score, next above `f32::MIN`. Such a pair
/// weighs nothing beside a score within the range; a row that has no other pair is the mean of its values, and has the gradients of that
/// mean. A score above the range makes its row NaN.
///
/// ```
/// use wgpu_attention::{Alibi, AttentionShape, Score};
/// // Gemma 2's cap, under a linear bias.
/// let score = Score::new().softcap(50.0).with(Alibi::default());
/// assert_eq!(score.to_string(), "softcap:cap=50 + alibi");
/// let attention = AttentionShape::new(1, 8, 1024, 64).score(score);
/// attention.check()?;
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Score {
    scale: Option<f32>,
    terms: Vec<Term>,
}

/// A term of the score. Terms apply in the order in which they stand here, whatever the order they are given in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Term {
    /// Adds products of the queries with rows by distance.
    Relative(Relative),
    /// Adds products of the queries with a row for their segment or for another.
    Segments(Segments),
    /// Divides by a temperature per head.
    Temperature(Temperature),
    /// c tanh(score / c).
    Softcap(Softcap),
    /// Adds slope_h times the distance.
    Alibi(Alibi),
    /// Adds an element of a table, by bucket of the distance.
    Buckets(Buckets),
    /// Adds a tensor; its elements of minus infinity remove their pairs.
    Bias(Bias),
    /// What the caller's text makes of the score; a score may have several.
    Custom(Custom),
    /// Gives every row one more logit, without a value.
    Sinks(Sinks),
    /// Drops weights at random.
    Dropout(Dropout),
}

impl Term {
    /// What the term says about itself.
    pub(crate) fn rule(&self) -> &dyn Rule {
        match self {
            Self::Relative(term) => term,
            Self::Segments(term) => term,
            Self::Temperature(term) => term,
            Self::Softcap(term) => term,
            Self::Alibi(term) => term,
            Self::Buckets(term) => term,
            Self::Bias(term) => term,
            Self::Custom(term) => term,
            Self::Sinks(term) => term,
            Self::Dropout(term) => term,
        }
    }

    /// The term's name, which is that of its files.
    pub fn name(&self) -> &'static str {
        self.rule().name()
    }
}

macro_rules! terms {
    ($($term:ident),*) => {
        $(impl From<$term> for Term {
            fn from(term: $term) -> Self {
                Self::$term(term)
            }
        })*
    };
}

terms!(Relative, Segments, Temperature, Softcap, Alibi, Buckets, Bias, Custom, Sinks, Dropout);

impl Score {
    /// scale q . k with a scale of 1 / sqrt(d) (Vaswani 2017, eq. 1), without terms.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the factor of q . k.
    pub fn scale(self, scale: f32) -> Self {
        Self { scale: Some(scale), ..self }
    }

    /// Adds a term; one of the same name is replaced. [`Dropout`] of a rate of 0 is none.
    pub fn with(mut self, term: impl Into<Term>) -> Self {
        let term = term.into();
        self.terms.retain(|other| other.name() != term.name());
        let is_none = matches!(&term, Term::Dropout(dropout) if dropout.rate() == 0.0);
        if !is_none {
            self.terms.push(term);
            self.terms.sort();
        }
        self
    }

    /// Caps scores: c tanh(score / c) (Gemma 2).
    pub fn softcap(self, cap: f32) -> Self {
        self.with(Softcap::new(cap))
    }

    /// Adds a tensor with these strides.
    pub fn bias(self, strides: BiasStrides) -> Self {
        self.with(Bias::new(strides))
    }

    /// Adds the linear biases of ALiBi, with the paper's slopes.
    pub fn alibi(self) -> Self {
        self.with(Alibi::default())
    }

    /// Drops weights at random: see [`Dropout`].
    pub fn dropout(self, rate: f32, seed: u64) -> Self {
        self.with(Dropout::new(rate, seed))
    }

    /// The terms, in the order in which they apply.
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// Whether the score is scale q . k alone.
    pub fn is_plain(&self) -> bool {
        self.terms.is_empty()
    }

    /// The term of this name, if the score has one.
    pub fn term(&self, name: &str) -> Option<&Term> {
        self.terms.iter().find(|term| term.name() == name)
    }

    /// The cap of [`Softcap`], if the score has one.
    pub fn softcap_value(&self) -> Option<f32> {
        self.terms.iter().find_map(|term| match term {
            Term::Softcap(softcap) => Some(softcap.cap()),
            _ => None,
        })
    }

    /// Its dropout, if it has any.
    pub fn dropout_term(&self) -> Option<&Dropout> {
        self.terms.iter().find_map(|term| match term {
            Term::Dropout(dropout) => Some(dropout),
            _ => None,
        })
    }

    /// The relative rows, if the score has them.
    pub(crate) fn relative(&self) -> Option<&Relative> {
        self.terms.iter().find_map(|term| match term {
            Term::Relative(relative) => Some(relative),
            _ => None,
        })
    }

    /// The terms of the caller's own.
    pub(crate) fn customs(&self) -> impl Iterator<Item = &Custom> {
        self.terms.iter().filter_map(|term| match term {
            Term::Custom(custom) => Some(custom),
            _ => None,
        })
    }

    /// A term whose derivative is not known, if there is one.
    pub(crate) fn without_slope(&self) -> Option<&'static str> {
        self.terms.iter().find_map(|term| match term {
            Term::Custom(custom) if !custom.has_slope() => Some(term.name()),
            _ => None,
        })
    }

    /// Whether some term acts on the score of a pair.
    pub(crate) fn changes_pairs(&self) -> bool {
        self.rules().any(Rule::is_of_pairs)
    }

    /// The factor of q . k for heads of `head_dim` elements.
    pub fn scale_value(&self, head_dim: usize) -> f32 {
        self.scale.unwrap_or((1.0 / (head_dim as f64).sqrt()) as f32)
    }

    /// The tensors that the caller gives for the terms, in the order of the terms.
    pub fn tensors(&self, shape: &AttentionShape) -> Vec<TermTensor> {
        self.rules().flat_map(|rule| rule.tensors(shape)).collect()
    }

    /// How a kernel finds the gradient of the tensor of this name.
    pub(crate) fn gradient(&self, name: &str, shape: &AttentionShape) -> Option<TensorGradient> {
        let has = |rule: &&dyn Rule| rule.tensors(shape).iter().any(|tensor| tensor.name == name);
        self.rules().find(has)?.gradient(name, shape)
    }

    pub(crate) fn rules(&self) -> impl Iterator<Item = &dyn Rule> {
        self.terms.iter().map(Term::rule)
    }

    /// Checks the scale and every term against the sizes.
    ///
    /// # Errors
    /// [`Error::Argument`] for a scale that is not finite, and whatever a term refuses.
    pub fn check(&self, shape: &AttentionShape) -> Result<()> {
        let scale = self.scale_value(shape.head_dim);
        if !scale.is_finite() {
            return Err(Error::argument("scale", "a finite number", scale));
        }
        self.rules().try_for_each(|rule| rule.check(shape))
    }

    fn key(&self) -> (Option<u32>, &[Term]) {
        (self.scale.map(f32::to_bits), &self.terms)
    }
}

// By the bits of the scale, so that scores are keys of a map.
impl PartialEq for Score {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Score {}

impl Hash for Score {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_apply_in_one_order() {
        let bias = BiasStrides::broadcast([1, 1, 4, 4]);
        let one = Score::new().bias(bias).alibi().softcap(5.0);
        let other = Score::new().softcap(9.0).softcap(5.0).alibi().bias(bias);
        assert_eq!(one, other);
        let names: Vec<_> = one.terms().iter().map(Term::name).collect();
        assert_eq!(names, ["softcap", "alibi", "bias"]);
        assert!(one.term("bias").is_some() && one.term("temperature").is_none());
        assert_ne!(one, Score::new().softcap(5.0).alibi());
        // Of two biases each stays, the second behind the first; another first replaces the first.
        let two = Score::new().with(Bias::second(bias)).bias(BiasStrides::default()).bias(bias);
        let names: Vec<_> = two.terms().iter().map(Term::name).collect();
        assert_eq!(names, ["bias", "second_bias"]);
        assert_ne!(Score::new().scale(1.0), Score::new());
    }

    #[test]
    fn bad_terms_are_named() {
        let shape = AttentionShape::new(1, 2, 4, 8);
        for (score, name) in [
            (Score::new().scale(f32::NAN), "scale"),
            (Score::new().softcap(0.0), "softcap"),
            (Score::new().softcap(f32::INFINITY), "softcap"),
            (Score::new().with(Buckets::new(1, 128)), "buckets: need 2 to 4096 of them, got 1"),
            (
                Score::new().with(Buckets::new(3, 9).bidirectional(true)),
                "buckets: need 4 to 4096 of them, got 3",
            ),
            (Score::new().with(Buckets::new(32, 16)), "buckets.max_distance: need 17 to 1073741824"),
            (Score::new().bias(BiasStrides { key: -1, ..BiasStrides::default() }), "bias"),
        ] {
            let error = score.check(&shape).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
