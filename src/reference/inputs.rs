//! Seeded inputs of several kinds, the same on every machine.

use crate::{AttentionShape, Counter, Element, Inputs, Result, Strides};

/// Owned input tensors of a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensors<E> {
    /// q, [`AttentionShape::len_q`] elements.
    pub q: Vec<E>,
    /// k, [`AttentionShape::len_k`] elements.
    pub k: Vec<E>,
    /// v, [`AttentionShape::len_v`] elements.
    pub v: Vec<E>,
    /// bias, [`AttentionShape::len_bias`] elements, if the shape has one.
    pub bias: Option<Vec<f32>>,
}

impl<E> Tensors<E> {
    /// As slices.
    pub fn inputs(&self) -> Inputs<'_, E> {
        Inputs { q: &self.q, k: &self.k, v: &self.v, bias: self.bias.as_deref() }
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

/// Inputs for `shape`, rounded to the element type; also what lies between strided rows is drawn. A bias is N(0, 4),
/// and finite.
///
/// # Errors
/// What [`AttentionShape::check`] refuses; an `E` that is not the shape's `input`.
pub fn random<E: Element>(shape: &AttentionShape, kind: Kind, seed: u64) -> Result<Tensors<E>> {
    shape.check()?;
    super::call::check_type::<E>("E", shape.input)?;
    let normal = |stream, n: usize| Counter::new(seed, stream).normal(n as u64);
    let cycle = |n: usize, length: usize| ((n % length) as f64 - (length / 2) as f64) / (length / 2) as f64;
    let tiny = if E::TYPE == crate::ElementType::F16 { 1e-4 } else { 1e-20 };
    let k_strides = shape.k_strides();
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
    let tensor = |len, draw: Draw<'_>| (0..len).map(|n| E::from_f64(draw(n))).collect();
    Ok(Tensors {
        q: tensor(shape.len_q(), q),
        k: tensor(shape.len_k(), k),
        v: tensor(shape.len_v(), v),
        bias: shape.bias.map(|_| (0..shape.len_bias()).map(|n| 2.0 * normal(3, n) as f32).collect()),
    })
}

type Draw<'a> = &'a dyn Fn(usize) -> f64;

/// The row of a tensor in which element n lies: the remainder by each stride that is larger than the row's.
fn row_of(strides: Strides, n: usize) -> usize {
    let mut outer = [strides.batch, strides.head];
    outer.sort_unstable();
    let n = outer.iter().rev().filter(|&&stride| stride > strides.row).fold(n, |n, stride| n % stride);
    n.checked_div(strides.row).unwrap_or(0)
}
