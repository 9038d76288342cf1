//! The input tensors of one call, as slices.

use crate::{Attention, Error, Layout, Result};

/// The input tensors of one call, lying as the [`Attention`] says: q in one element type, k and v in another.
///
/// A contiguous layout wants exactly the tensor's elements ([`Attention::len_q`] and its like), a
/// [`Layout::Strided`] one at least those: the slice may go on behind the last row.
///
/// ```
/// use wgpu_attention::{AttentionShape, BiasStrides, Inputs, Score};
/// let attention = AttentionShape::new(1, 1, 2, 1).score(Score::new().bias(BiasStrides::broadcast([1, 1, 2, 2])));
/// let inputs = Inputs::new(&[1.0f32, 2.0], &[3.0f32, 4.0], &[5.0, 6.0]).tensor("bias", &[0.0; 4]);
/// inputs.check(&attention)?;
/// assert!(inputs.tensor("slopes", &[0.0]).check(&attention).unwrap_err().to_string().contains("slopes"));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Inputs<'a, Q, KV = Q> {
    /// q `[B, H, Lq, d]`.
    pub q: &'a [Q],
    /// k `[B, Hkv, Lk, d]`.
    pub k: &'a [KV],
    /// v `[B, Hkv, Lk, dv]`.
    pub v: &'a [KV],
    /// Those of the score's terms, by name: see [`Score::tensors`](crate::Score::tensors).
    pub tensors: Vec<(&'a str, &'a [f32])>,
}

impl<'a, Q, KV> Inputs<'a, Q, KV> {
    /// q, k and v alone.
    pub fn new(q: &'a [Q], k: &'a [KV], v: &'a [KV]) -> Self {
        Self { q, k, v, tensors: vec![] }
    }

    /// Adds a tensor of one of the score's terms.
    pub fn tensor(mut self, name: &'a str, values: &'a [f32]) -> Self {
        self.tensors.push((name, values));
        self
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&'a [f32]> {
        tensor_of(&self.tensors, name)
    }

    /// Checks the lengths, and that the score's tensors are there and no others.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the tensor.
    pub fn check(&self, attention: &Attention) -> Result<()> {
        let layouts = &attention.layouts;
        check_len("q", self.q.len(), attention.len_q(), layouts.q)?;
        check_len("k", self.k.len(), attention.len_k(), layouts.k)?;
        check_len("v", self.v.len(), attention.len_v(), layouts.v)?;
        check_tensors(attention, &self.tensors)
    }
}

/// The tensors of the score's terms: each is there, of its length, and there are no others.
pub(crate) fn check_tensors(attention: &Attention, given: &[(&str, &[f32])]) -> Result<()> {
    let needed = attention.score.tensors(&attention.shape);
    check_names(&needed, given.iter().map(|(name, _)| *name))?;
    for tensor in &needed {
        let got = tensor_of(given, tensor.name).map_or(0, <[f32]>::len);
        check_slice(tensor.name, got, tensor.len, tensor.strided)?;
    }
    Ok(())
}

/// The tensor of this name.
pub(crate) fn tensor_of<'a>(given: &[(&str, &'a [f32])], name: &str) -> Option<&'a [f32]> {
    given.iter().find(|(own, _)| *own == name).map(|(_, values)| *values)
}

/// The tensors that the terms of a score need, each once, and no others.
pub(crate) fn check_names<'n>(
    needed: &[crate::TermTensor],
    given: impl Iterator<Item = &'n str> + Clone,
) -> Result<()> {
    for tensor in needed {
        let got = match given.clone().filter(|name| *name == tensor.name).count() {
            1 => continue,
            0 => "none".into(),
            count => format!("{count} of them"),
        };
        return Err(Error::argument(tensor.name, "one tensor, since the score has this term", got));
    }
    match given.clone().find(|name| needed.iter().all(|tensor| tensor.name != *name)) {
        Some(name) => {
            Err(Error::argument(name.to_owned(), "none, since the score has no such term", "a tensor"))
        }
        None => Ok(()),
    }
}

/// Exactly the tensor for a contiguous layout; a strided view may be followed by more.
pub(crate) fn check_len(name: &'static str, got: usize, need: usize, layout: Layout) -> Result<()> {
    check_slice(name, got, need, matches!(layout, Layout::Strided(_)))
}

/// As [`check_len`], for tensors that have strides of their own.
pub(crate) fn check_slice(name: &'static str, got: usize, need: usize, strided: bool) -> Result<()> {
    if got == need || (strided && got > need) {
        return Ok(());
    }
    let need = format!("{}{need} elements", if strided { "at least " } else { "" });
    Err(Error::argument(name, need, format!("{got} elements")))
}
