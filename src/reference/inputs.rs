//! Seeded inputs of several kinds, the same on every machine.

use crate::score::Rule;
use crate::{Attention, Counter, Element, ElementType, Inputs, Result, Strides};

/// Owned input tensors of a call.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Tensors<Q, KV = Q> {
    /// q, [`Attention::len_q`] elements.
    pub q: Vec<Q>,
    /// k, [`Attention::len_k`] elements.
    pub k: Vec<KV>,
    /// v, [`Attention::len_v`] elements.
    pub v: Vec<KV>,
    /// Those of the score's terms, by name.
    pub terms: Vec<(&'static str, Vec<f32>)>,
}

impl<Q, KV> Tensors<Q, KV> {
    /// q, k and v by the index of an element, and so the n-th element of a term's tensor.
    pub(super) fn new(
        attention: &Attention,
        [q, k, v]: [&dyn Fn(usize) -> f64; 3],
        term: impl Fn(&dyn Rule, usize) -> f32,
    ) -> Self
    where
        Q: Element,
        KV: Element,
    {
        let of_rule = |rule: &dyn Rule| -> Vec<(&'static str, Vec<f32>)> {
            let tensors = rule.tensors(&attention.shape).into_iter();
            tensors.map(|tensor| (tensor.name, (0..tensor.len).map(|n| term(rule, n)).collect())).collect()
        };
        Self {
            q: (0..attention.len_q()).map(|n| Q::from_f64(q(n))).collect(),
            k: (0..attention.len_k()).map(|n| KV::from_f64(k(n))).collect(),
            v: (0..attention.len_v()).map(|n| KV::from_f64(v(n))).collect(),
            terms: attention.score.rules().flat_map(of_rule).collect(),
        }
    }

    /// As slices.
    pub fn inputs(&self) -> Inputs<'_, Q, KV> {
        let inputs = Inputs::new(&self.q, &self.k, &self.v);
        self.terms.iter().fold(inputs, |inputs, (name, values)| inputs.tensor(name, values))
    }

    /// The tensor of a term, to change it.
    pub fn term_mut(&mut self, name: &str) -> Option<&mut Vec<f32>> {
        self.terms.iter_mut().find(|(own, _)| *own == name).map(|(_, values)| values)
    }
}

/// What [`random`] draws. The values are N(0, 1) unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// q and k N(0, 1): with the default scale, scores N(0, 1).
    Normal,
    /// q and k N(0, 16): scores of standard deviation 16, nearly all weight on a few keys.
    Peaky,
    /// N(0, 1) + 4 in all of q, k and v: a large common part of scores (16 sqrt(d) by the default scale) and
    /// outputs, so that cancellation and a missing maximum show.
    Offset,
    /// Scores that grow along the keys by about 16 altogether (by the default scale), so that the running maximum
    /// rises in every block.
    Rising,
    /// Element n of a tensor is ((n mod 251) - 125) / 125 (q), the same with 241 and 239 (k, v): no randomness, and
    /// any error of a stride shows.
    Arange,
    /// q and k N(0, 1) times 1e-20 (times 1e-4 in f16): products are subnormal in f32, and weights uniform.
    Tiny,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Normal, Self::Peaky, Self::Offset, Self::Rising, Self::Arange, Self::Tiny];
}

/// Inputs of a call, rounded to the element types; also what lies between strided rows is drawn. A bias is N(0, 4),
/// and finite.
///
/// # Errors
/// What [`Attention::check`] refuses; types that are not those of the storage.
pub fn random<Q: Element, KV: Element>(
    attention: impl Into<Attention>,
    kind: Kind,
    seed: u64,
) -> Result<Tensors<Q, KV>> {
    let attention = attention.into();
    let shape = &attention.shape;
    attention.check()?;
    super::call::check_type::<Q>("q", attention.storage.q)?;
    super::call::check_type::<KV>("k and v", attention.storage.kv)?;
    let normal = |stream, n: usize| Counter::new(seed, stream).normal(n as u64);
    let cycle = |n: usize, length: usize| ((n % length) as f64 - (length / 2) as f64) / (length / 2) as f64;
    let tiny = if [Q::TYPE, KV::TYPE].contains(&ElementType::F16) { 1e-4 } else { 1e-20 };
    let k_strides = attention.k_strides();
    let (q, k, v): (Draw<'_>, Draw<'_>, Draw<'_>) = match kind {
        Kind::Normal => (&|n| normal(0, n), &|n| normal(1, n), &|n| normal(2, n)),
        Kind::Peaky => (&|n| 4.0 * normal(0, n), &|n| 4.0 * normal(1, n), &|n| normal(2, n)),
        Kind::Offset => (&|n| 4.0 + normal(0, n), &|n| 4.0 + normal(1, n), &|n| 4.0 + normal(2, n)),
        Kind::Arange => (&|n| cycle(n, 251), &|n| cycle(n, 241), &|n| cycle(n, 239)),
        Kind::Tiny => (&|n| tiny * normal(0, n), &|n| tiny * normal(1, n), &|n| normal(2, n)),
        Kind::Rising => {
            // q . k = 4 rise (d + noise), rise from 0 to 4 / sqrt(d) along the keys.
            let last = 4.0 / (shape.head_dim as f64).sqrt();
            let rise = move |n| last * (row_of(k_strides, n) + 1) as f64 / shape.kv_len as f64;
            (&|n| 4.0 + 0.5 * normal(0, n), &move |n| rise(n) + 0.05 * normal(1, n), &|n| normal(2, n))
        }
    };
    Ok(Tensors::new(&attention, [q, k, v], |rule, n| rule.drawn(normal(3, n))))
}

type Draw<'a> = &'a dyn Fn(usize) -> f64;

/// The row of a tensor in which element n lies: the remainder by each stride that is larger than the row's. Exact where no
/// stride is negative, which is all that these inputs need.
fn row_of(strides: Strides, n: usize) -> usize {
    let [batch, head, row] = [strides.batch, strides.head, strides.row].map(isize::unsigned_abs);
    let mut outer = [batch, head];
    outer.sort_unstable();
    let n = n.saturating_sub(strides.offset);
    let n = outer.iter().rev().filter(|&&stride| stride > row).fold(n, |n, stride| n % stride);
    n.checked_div(row).unwrap_or(0)
}
