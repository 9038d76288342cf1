//! A term of the caller's own: WGSL for the device, closures for the reference.

use super::fields::NAMES;
use super::rule::{Known, Pair, Rule, TensorGradient, Tensors, TermTensor};
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
    /// Of some of the tensors.
    gradients: Vec<TensorSlope>,
    score: Function,
    error: ErrorOf,
    slope: Slope,
}

/// The score before, and the pair: the score.
type Function = Arc<dyn Fn(f64, &CustomPair<'_>) -> f64 + Send + Sync>;
/// The score before, its error, the score after, the pair: its error.
type ErrorOf = Arc<dyn Fn(f64, f64, f64, &CustomPair<'_>) -> f64 + Send + Sync>;

/// The element that a pair reads of a tensor, and the derivative of the score by it.
#[derive(Clone)]
struct TensorSlope {
    tensor: &'static str,
    at: Index,
    by: Function,
    error: ErrorOf,
}

/// The pair: an element.
type Index = Arc<dyn Fn(&CustomPair<'_>) -> usize + Send + Sync>;

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
    /// A term that maps the score to any other: `score` is what `NAME_score` computes, in f64. Without a [`slope`](Self::slope) it has no
    /// gradients.
    pub fn new(
        name: &'static str,
        text: impl Into<Cow<'static, str>>,
        score: impl Fn(f64, &CustomPair<'_>) -> f64 + Send + Sync + 'static,
    ) -> Self {
        let error: ErrorOf = Arc::new(|_, _, _, _| f64::INFINITY);
        let (text, tensors, score) = (text.into(), vec![], Arc::new(score));
        Self { name, text, tensors, gradients: vec![], score, error, slope: Slope::Unknown }
    }

    /// A term that adds something to the score: its derivative by the score is 1, so that there are gradients.
    pub fn adds(
        name: &'static str,
        text: impl Into<Cow<'static, str>>,
        score: impl Fn(f64, &CustomPair<'_>) -> f64 + Send + Sync + 'static,
    ) -> Self {
        Self { slope: Slope::One, ..Self::new(name, text, score) }
    }

    /// Names an f32 tensor of `len` elements, which the caller gives like those of other terms. Its name begins with `NAME_`. It is a constant, unless it
    /// has a [`tensor_gradient`](Self::tensor_gradient).
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

    /// Gives a tensor a gradient. Each pair reads one element of it: which, the text has as `fn TENSOR_at(pairs: Pairs) -> vec4<u32>`, past the
    /// end for pairs that read none; and the derivative of the score by it as `fn TENSOR_by(pairs: Pairs, s: vec4<f32>) -> vec4<f32>`, at
    /// the score before. `at` and `by` are the same, and `error` says how far a kernel's derivative may be from `by`: by the score before,
    /// how far that may be, the derivative, and the pair.
    ///
    /// ```
    /// use wgpu_attention::Custom;
    /// // A learnt cost per head, of every key but the query's own.
    /// let text = "fn other_score(pairs: Pairs, s: vec4<f32>) -> vec4<f32> { return s + other_cost[pairs.head] * other_by(pairs); }
    /// fn other_by(pairs: Pairs) -> vec4<f32> { return select(vec4(1.0), vec4(0.0), pairs.distance == vec4(0)); }
    /// fn other_cost_at(pairs: Pairs) -> vec4<u32> { return vec4(pairs.head); }
    /// fn other_cost_by(pairs: Pairs, s: vec4<f32>) -> vec4<f32> { return other_by(pairs); }";
    /// let other = |distance: i64| if distance == 0 { 0.0 } else { 1.0 };
    /// let cost = Custom::adds("other", text, move |s, at| s + f64::from(at.tensors[0][at.head]) * other(at.distance))
    ///     .tensor("other_cost", 8)
    ///     .tensor_gradient("other_cost", |at| at.head, move |_, at| other(at.distance), |_, _, _, _| 0.0);
    /// # let _ = cost;
    /// ```
    pub fn tensor_gradient(
        mut self,
        tensor: &'static str,
        at: impl Fn(&CustomPair<'_>) -> usize + Send + Sync + 'static,
        by: impl Fn(f64, &CustomPair<'_>) -> f64 + Send + Sync + 'static,
        error: impl Fn(f64, f64, f64, &CustomPair<'_>) -> f64 + Send + Sync + 'static,
    ) -> Self {
        let (at, by, error) = (Arc::new(at), Arc::new(by), Arc::new(error));
        self.gradients.retain(|other| other.tensor != tensor);
        self.gradients.push(TensorSlope { tensor, at, by, error });
        self
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

    fn key(&self) -> Key<'_> {
        let gradients = self.gradients.iter().map(|gradient| gradient.tensor).collect();
        Key { name: self.name, text: &self.text, tensors: &self.tensors, gradients, scales: self.scales() }
    }

    /// The functions that the text has to define.
    #[cfg(feature = "custom")]
    pub(crate) fn functions(&self) -> Vec<String> {
        let slope = self.scales().then(|| format!("{}_slope", self.name));
        let by = self.gradients.iter().map(|gradient| format!("{}_by", gradient.tensor));
        [format!("{}_score", self.name)].into_iter().chain(slope).chain(by).collect()
    }

    /// Those of them that give elements.
    #[cfg(feature = "custom")]
    pub(crate) fn indices(&self) -> Vec<String> {
        self.gradients.iter().map(|gradient| format!("{}_at", gradient.tensor)).collect()
    }

    fn len(&self, tensor: &str) -> Option<usize> {
        self.tensors.iter().find(|(own, _)| *own == tensor).map(|(_, len)| *len)
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
        if let Some(other) = self.gradients.iter().find(|gradient| self.len(gradient.tensor).is_none()) {
            let need = format!("a tensor of `{}`", self.name);
            return Err(Error::argument("custom.tensor_gradient", need, format!("`{}`", other.tensor)));
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

    fn elements(&self, before: Known, at: &Pair<'_>, tensors: &Tensors<'_>) -> Vec<(usize, usize, Known)> {
        let at = CustomPair::new(at, tensors);
        let element = |gradient: &TensorSlope| {
            let tensor = self.tensors.iter().position(|(own, _)| *own == gradient.tensor)?;
            let element = (gradient.at)(&at);
            let by = (gradient.by)(before.score, &at);
            let error = (gradient.error)(before.score, before.error, by, &at);
            (element < self.tensors[tensor].1).then_some((tensor, element, Known { score: by, error }))
        };
        self.gradients.iter().filter_map(element).collect()
    }

    fn gradient(&self, name: &str, _: &AttentionShape) -> Option<TensorGradient> {
        self.gradients.iter().any(|gradient| gradient.tensor == name).then(TensorGradient::default)
    }

    fn silent(&self, _: u64) -> Option<f32> {
        None
    }

    fn shader(&self) -> Cow<'static, str> {
        let binding = |(name, _): &(&str, usize)| {
            format!("@group(0) @binding(BINDING_{name}) var<storage, read> {name}: array<f32>;\n")
        };
        let tensors: String = self.tensors.iter().map(binding).collect();
        // Elements of the caller's are kept within the tensor: they are where a kernel writes.
        let gradient = |gradient: &TensorSlope| {
            let (tensor, len) = (gradient.tensor, self.len(gradient.tensor).unwrap_or(0));
            format!(
                "\nfn at_{tensor}(pairs: Pairs) -> vec4<u32> {{\n    let at = {tensor}_at(pairs);\n    \
                 return select(vec4(0xffffffffu), at, at < vec4({len}u));\n}}\n\
                 \nfn by_{tensor}(pairs: Pairs, s: vec4<f32>) -> vec4<f32> {{ return {tensor}_by(pairs, s); }}\n"
            )
        };
        let gradients: String = self.gradients.iter().map(gradient).collect();
        format!("// The caller's own: {}.\n{tensors}{}\n{gradients}", self.name, self.text).into()
    }

    fn scales(&self) -> bool {
        matches!(self.slope, Slope::Given(..))
    }

    fn adds(&self) -> bool {
        matches!(self.slope, Slope::One)
    }
}

impl Debug for Custom {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Self { name, tensors, .. } = self;
        f.debug_struct("Custom").field("name", name).field("tensors", tensors).finish_non_exhaustive()
    }
}

/// What a shader holds.
#[derive(PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key<'a> {
    name: &'static str,
    text: &'a str,
    tensors: &'a [(&'static str, usize)],
    gradients: Vec<&'static str>,
    scales: bool,
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
