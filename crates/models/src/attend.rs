//! Attention as families that read a text from left to right leave it to others: a whole pass computes it here, a step of generation over caches.

use super::{Error, Machine, Pair};
use wgpu_attention::{Attention, Layout, Layouts, MatmulShape, RotaryShape, Strides};

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

/// What makes q, k and v of a row.
pub(crate) enum Projections<T> {
    /// A matrix each.
    Apart([Pair<T>; 3]),
    /// One, whose outputs are those of q, then of k, then of v.
    Joined(Pair<T>),
}

impl<T: Clone> Projections<T> {
    /// q, k and v of rows, `shape` but for its columns; a tensor three times over where they are joined.
    pub(crate) fn of<M: Machine<Tensor = T>>(
        &self,
        machine: &mut M,
        shape: &MatmulShape,
        columns: [usize; 3],
        x: &T,
    ) -> Result<[T; 3], Error> {
        let mut product = |pair: &Pair<T>, columns: usize| -> Result<T, Error> {
            let out = machine.tensor(shape.rows * columns);
            let mut shape = *shape;
            shape.columns = columns;
            machine.linear(&shape, x, pair, None, &out)?;
            Ok(out)
        };
        match self {
            Self::Joined(pair) => {
                product(pair, columns.iter().sum()).map(|all| [all.clone(), all.clone(), all])
            }
            Self::Apart([q, k, v]) => {
                Ok([product(q, columns[0])?, product(k, columns[1])?, product(v, columns[2])?])
            }
        }
    }

    /// Where q, k and v of so many rows lie, and what attention makes of them.
    pub(crate) fn layouts(&self, sizes: &DecoderSizes, rows: usize) -> Layouts {
        let DecoderSizes { heads, kv_heads, head_dim, .. } = *sizes;
        let width = (heads + 2 * kv_heads) * head_dim;
        let from = |head: usize| {
            let strides = Strides::new((rows * width) as isize, head_dim as isize, width as isize);
            Layout::Strided(Strides { offset: head * head_dim, ..strides })
        };
        match self {
            Self::Apart(_) => Layouts::all(Layout::Blhd),
            Self::Joined(_) => Layouts::all(Layout::Blhd).q(from(0)).k(from(heads)).v(from(heads + kv_heads)),
        }
    }
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
