//! Attention as families that read a text from left to right leave it to others: a whole pass computes it here, a step of generation over caches.

use super::{Error, Machine};
use wgpu_attention::{Attention, Layout, RotaryShape};

/// What the attention of a model needs to know, and who feeds it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DecoderSizes {
    /// Layers.
    pub layers: usize,
    /// Elements of a hidden state.
    pub width: usize,
    /// Ids.
    pub vocabulary: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Positions of a text, at most.
    pub positions: usize,
    /// The base of the rotary embedding's angles, where keys and queries turn.
    pub theta: Option<f64>,
}

/// The attention of a layer: the machine, the layer's number, q, k and v `[L, H, d]` before anything turns, and the context that is written.
pub(crate) type Attend<'a, M> =
    dyn FnMut(&mut M, usize, &[<M as Machine>::Tensor; 3], &<M as Machine>::Tensor) -> Result<(), Error> + 'a;

/// Attention of a whole text.
pub(crate) struct Whole<M: Machine> {
    pub(crate) attention: Attention,
    pub(crate) mask: M::Mask,
    /// cos and sin `[L, d/2]`, where keys and queries turn.
    pub(crate) tables: Option<[M::Tensor; 2]>,
}

impl<M: Machine> Whole<M> {
    /// The same attention for every layer, as [`Attend`].
    pub(crate) fn layers(
        &self,
    ) -> impl FnMut(&mut M, usize, &[M::Tensor; 3], &M::Tensor) -> Result<(), Error> + '_ {
        |machine, _, qkv, context| self.attend(machine, qkv, context)
    }

    fn attend(&self, machine: &mut M, qkv: &[M::Tensor; 3], context: &M::Tensor) -> Result<(), Error> {
        let shape = &self.attention.shape;
        let Some(tables) = &self.tables else {
            return machine.attention(&self.attention, &self.mask, qkv, &[], context);
        };
        let mut turned = |x: &M::Tensor, heads: usize| -> Result<M::Tensor, Error> {
            let turn = RotaryShape::new(shape.batch, heads, shape.q_len, shape.head_dim);
            let turn = turn.x_layout(Layout::Blhd).out_layout(Layout::Blhd);
            let out = machine.tensor(shape.batch * shape.q_len * heads * shape.head_dim);
            machine.rotary(&turn, x, tables, &out)?;
            Ok(out)
        };
        let [q, k, v] = qkv;
        let qkv = [turned(q, shape.heads)?, turned(k, shape.kv_heads)?, v.clone()];
        machine.attention(&self.attention, &self.mask, &qkv, &[], context)
    }
}
