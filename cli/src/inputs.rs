//! The input tensors of an attention call, out of a file.

use crate::score::Terms;
use crate::tensors::rounded;
use wgpu_attention::{Element, Inputs};

/// q in one element type, k and v in another.
#[derive(Debug, Clone)]
pub(crate) struct Owned<Q, KV = Q> {
    pub(crate) q: Vec<Q>,
    pub(crate) k: Vec<KV>,
    pub(crate) v: Vec<KV>,
    /// Those of the score's terms.
    pub(crate) terms: Terms,
}

impl<Q, KV> Owned<Q, KV> {
    /// As slices.
    pub(crate) fn inputs(&self) -> Inputs<'_, Q, KV> {
        let inputs = Inputs::new(&self.q, &self.k, &self.v);
        self.terms.iter().fold(inputs, |inputs, (name, values)| inputs.tensor(name, values))
    }
}

impl Owned<f32> {
    /// Rounded to element types; the name of the tensor that does not fit its range otherwise.
    pub(crate) fn rounded<Q: Element, KV: Element>(&self) -> Result<Owned<Q, KV>, String> {
        let Self { q, k, v, terms } = self;
        let terms = terms.clone();
        Ok(Owned { q: rounded("q", q)?, k: rounded("k", k)?, v: rounded("v", v)?, terms })
    }
}
