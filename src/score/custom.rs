//! A term of the caller's own: WGSL for the device, closures for the reference.

use super::fields::NAMES;
use super::rule::{Known, Pair, Rule, Tensors, TermTensor};
use crate::{AttentionShape, Error, Result};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt::{Debug, Formatter};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A term of the caller's own: maps the score of a pair to another. It applies behind all other terms of the pair.
///
/// The text is WGSL that defines `NAME_score`, of a query with four keys at once, and, where the score has a
/// [`slope`](Self::slope), `NAME_slope`. It may define more: every name that it declares begins with `NAME_`. This is there for it:
///
/// ```text
/// struct Pairs { batch: u32, head: u32, i: u32, j: vec4<u32>, distance: vec4<i32> }    distance = (i + Lk - Lq) - j
/// fn hyperbolic(x: vec4<f32>) -> vec4<f32>                                             tanh, right for every f32
/// NAME_...: array<f32>                                                                 the tensors that it names, read-only
/// ```
///
/// naga checks it when a plan is made; an error shows the line of the text. Variables of a module, other bindings, entry points and
/// barriers are refused by name; loops that do not end are the caller's to avoid. To leave pairs out is what patterns are for: a score of
/// minus infinity becomes the lowest score.
///
/// The closures are the same in f64, for the reference, with what a kernel may be off; without [`error`](Self::error) nothing is
/// promised, and a check compares nothing. See `examples/your_score.rs`.
///
/// ```
/// use wgpu_attention::{AttentionShape, Custom, Score};
/// // Every key but the query's own costs 1.
/// let text = "fn other_score(pairs: Pairs, s: vec4<f32>) -> vec4<f32> {
///     return s - select(vec4(1.0), vec4(0.0), pairs.distance == vec4(0));
/// }";
/// let other = Custom::adds("other", text, |s, at| if at.distance == 0 { s } else { s - 1.0 })
///     .error(|_, error, after, _| error + f64::from(f32::EPSILON) * (after.abs() + error));
/// let attention = AttentionShape::new(1, 8, 64, 32).score(Score::new().with(other));
/// attention.check()?;
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Clone)]
pub struct Custom {
    name: &'static str,
    text: Cow<'static, str>,
    tensors: Vec<(&'static str, usize)>,
    score: Function,
    error: ErrorOf,
    slope: Slope,
}

/// The score before, and the pair: the score.
type Function = Arc<dyn Fn(f64, &CustomPair<'_>) -> f64 + Send + Sync>;
/// The score before, its error, the score after, the pair: its error.
type ErrorOf = Arc<dyn Fn(f64, f64, f64, &CustomPair<'_>) -> f64 + Send + Sync>;

/// The derivative by the score before.
#[derive(Clone)]
enum Slope {
    /// 1.
    One,
    /// There is none.
    Unknown,
    /// In the text, too.
    Given(Function, ErrorOf),
}

/// A pair whose score is asked of a [`Custom`] term.
#[derive(Debug)]
#[non_exhaustive]
pub struct CustomPair<'a> {
    /// The batch item.
    pub batch: usize,
    /// The query head.
    pub head: usize,
    /// The query.
    pub i: usize,
    /// The key.
    pub j: usize,
    /// (i + Lk - Lq) - j.
    pub distance: i64,
    /// The term's tensors, in the order in which they were named.
    pub tensors: Vec<&'a [f32]>,
}

impl<'a> CustomPair<'a> {
    fn new(at: &Pair<'_>, tensors: &'a Tensors<'_>) -> Self {
        let tensors = tensors.iter().map(|tensor| &**tensor).collect();
        Self { batch: at.batch, head: at.head, i: at.i, j: at.j, distance: at.distance(), tensors }
    }
}

impl Custom {
    /// A term that gives the score that it likes; `score` is what `NAME_score` computes.
    pub fn new(
        name: &'static str,
        text: impl Into<Cow<'static, str>>,
        score: impl Fn(f64, &CustomPair<'_>) -> f64 + Send + Sync + 'static,
    ) -> Self {
        let error: ErrorOf = Arc::new(|_, _, _, _| f64::INFINITY);
        let (text, tensors, score) = (text.into(), vec![], Arc::new(score));
        Self { name, text, tensors, score, error, slope: Slope::Unknown }
    }

    /// A term that adds something to the score: its derivative by the score is 1, so that there are gradients.
    pub fn adds(
        name: &'static str,
        text: impl Into<Cow<'static, str>>,
        score: impl Fn(f64, &CustomPair<'_>) -> f64 + Send + Sync + 'static,
    ) -> Self {
        Self { slope: Slope::One, ..Self::new(name, text, score) }
    }

    /// Names a tensor, f32, of so many elements: given like those of other terms. Its name begins with `NAME_`. It is a constant: it has
    /// no gradient.
    pub fn tensor(mut self, name: &'static str, len: usize) -> Self {
        self.tensors.push((name, len));
        self
    }

    /// How far a kernel's score may be from the formula's: by the score before, how far that may be, the score after, and the pair.
    /// An addition is `error + f32::EPSILON * (after.abs() + error)`; [`reference/bound.rs`] says what WGSL promises.
    ///
    /// [`reference/bound.rs`]: mod@crate::reference
    pub fn error(
        self,
        error: impl Fn(f64, f64, f64, &CustomPair<'_>) -> f64 + Send + Sync + 'static,
    ) -> Self {
        Self { error: Arc::new(error), ..self }
    }

    /// Gives the derivative of the score by the score before, which the text has as `NAME_slope(pairs, s)` at the score before; and
    /// how far a kernel's may be from it: by the score before, how far that may be, the derivative, and the pair.
    pub fn slope(
        self,
        slope: impl Fn(f64, &CustomPair<'_>) -> f64 + Send + Sync + 'static,
        error: impl Fn(f64, f64, f64, &CustomPair<'_>) -> f64 + Send + Sync + 'static,
    ) -> Self {
        Self { slope: Slope::Given(Arc::new(slope), Arc::new(error)), ..self }
    }

    /// Whether the derivative is known.
    pub(crate) fn has_slope(&self) -> bool {
        !matches!(self.slope, Slope::Unknown)
    }

    /// The caller's text.
    #[cfg(feature = "custom")]
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    fn key(&self) -> (&'static str, &str, &[(&'static str, usize)], bool) {
        (self.name, &self.text, &self.tensors, self.scales())
    }

    /// The functions that the text has to define.
    #[cfg(feature = "custom")]
    pub(crate) fn functions(&self) -> Vec<String> {
        let slope = self.scales().then(|| format!("{}_slope", self.name));
        [format!("{}_score", self.name)].into_iter().chain(slope).collect()
    }
}

impl Rule for Custom {
    fn name(&self) -> &'static str {
        self.name
    }

    fn check(&self, _: &AttentionShape) -> Result<()> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let begins = self.name.starts_with(|c: char| c.is_ascii_lowercase()) && !self.name.ends_with('_');
        if !begins || !self.name.chars().all(plain) || NAMES.contains(&self.name) {
            let need = "a name of its own in lower case, as `image_bias`";
            return Err(Error::argument("custom.name", need, format!("`{}`", self.name)));
        }
        for (n, (tensor, len)) in self.tensors.iter().enumerate() {
            let rest = tensor.strip_prefix(self.name).and_then(|rest| rest.strip_prefix('_'));
            if !rest.is_some_and(|rest| !rest.is_empty() && rest.chars().all(plain)) {
                let need = format!("a name in lower case that begins with `{}_`", self.name);
                return Err(Error::argument("custom.tensor", need, format!("`{tensor}`")));
            }
            if *len == 0 || self.tensors[..n].iter().any(|(other, _)| other == tensor) {
                let need = format!("`{tensor}` once, with at least 1 element");
                return Err(Error::argument("custom.tensor", need, format!("{len} elements")));
            }
        }
        Ok(())
    }

    fn tensors(&self, _: &AttentionShape) -> Vec<TermTensor> {
        let tensor = |&(name, len): &(&'static str, usize)| TermTensor { name, len, strided: false };
        self.tensors.iter().map(tensor).collect()
    }

    fn score(&self, before: f64, at: &Pair<'_>, tensors: &Tensors<'_>) -> f64 {
        (self.score)(before, &CustomPair::new(at, tensors))
    }

    fn error(&self, before: Known, after: f64, at: &Pair<'_>, tensors: &Tensors<'_>) -> f64 {
        (self.error)(before.score, before.error, after, &CustomPair::new(at, tensors))
    }

    fn slope(&self, before: f64, at: &Pair<'_>, tensors: &Tensors<'_>) -> f64 {
        match &self.slope {
            Slope::One => 1.0,
            Slope::Unknown => f64::NAN,
            Slope::Given(slope, _) => slope(before, &CustomPair::new(at, tensors)),
        }
    }

    fn slope_error(&self, before: Known, at: &Pair<'_>, tensors: &Tensors<'_>) -> f64 {
        match &self.slope {
            Slope::One => 0.0,
            Slope::Unknown => f64::INFINITY,
            Slope::Given(slope, error) => {
                let at = CustomPair::new(at, tensors);
                error(before.score, before.error, slope(before.score, &at), &at)
            }
        }
    }

    fn silent(&self, _: u64) -> Option<f32> {
        None
    }

    fn shader(&self) -> Cow<'static, str> {
        let binding = |(name, _): &(&str, usize)| {
            format!("@group(0) @binding(BINDING_{name}) var<storage, read> {name}: array<f32>;\n")
        };
        let tensors: String = self.tensors.iter().map(binding).collect();
        format!("// The caller's own: {}.\n{tensors}{}\n", self.name, self.text).into()
    }

    fn scales(&self) -> bool {
        matches!(self.slope, Slope::Given(..))
    }
}

impl Debug for Custom {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Self { name, tensors, .. } = self;
        f.debug_struct("Custom").field("name", name).field("tensors", tensors).finish_non_exhaustive()
    }
}

// By what a shader holds: two closures cannot be compared.
impl PartialEq for Custom {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Custom {}

impl Hash for Custom {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialOrd for Custom {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Custom {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}
