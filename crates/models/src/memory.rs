//! Segments and their memory: what Transformer-XL (Dai 2019) and XLNet (Yang 2019) have in common.
//!
//! The rows that a layer remembers are never copied: they stay in the tensor that the segment before left, and the products that
//! make keys and values write those of the memory in front of those of the segment, into one tensor.

use super::{Error, Layers, Machine, Pair, Sizes};
use wgpu_attention::{
    Activation, Attention, AttentionShape, Combine, FeedForwardShape, Layout, MatmulShape, Pattern, Relative,
    RowStrides, Score, Strides, WeightOrder,
};

/// Rows of a tensor `[batch, len, width]`: `count` of each item, from `first` on.
#[derive(Debug, Clone)]
pub struct Piece<T> {
    /// The tensor.
    pub tensor: T,
    /// Its rows per item.
    pub len: usize,
    /// The first of them that counts.
    pub first: usize,
    /// How many count.
    pub count: usize,
}

impl<T> Piece<T> {
    /// All rows.
    pub fn all(tensor: T, len: usize) -> Self {
        Self { tensor, len, first: 0, count: len }
    }
}

/// Rows of several pieces, one behind the other.
pub(crate) fn rows<T>(pieces: &[Piece<T>]) -> usize {
    pieces.iter().map(|piece| piece.count).sum()
}

/// The last `limit` rows of these pieces.
pub(crate) fn last<T>(pieces: Vec<Piece<T>>, limit: usize) -> Vec<Piece<T>> {
    let mut over = rows(&pieces).saturating_sub(limit);
    let cut = pieces.into_iter().map(|piece| {
        let left = over.min(piece.count);
        over -= left;
        Piece { first: piece.first + left, count: piece.count - left, ..piece }
    });
    cut.filter(|piece| piece.count > 0).collect()
}

/// The products of all rows of the pieces with a matrix, `[batch, rows, columns]`: each piece's where it belongs.
pub(crate) fn project<M: Machine>(
    machine: &mut M,
    [batch, width, columns]: [usize; 3],
    pieces: &[Piece<M::Tensor>],
    weights: WeightOrder,
    pair: &Pair<M::Tensor>,
) -> Result<M::Tensor, Error> {
    let all = rows(pieces);
    let out = machine.tensor(batch * all * columns);
    let shared = RowStrides::new(0, if weights == WeightOrder::OutIn { width } else { columns } as isize);
    let mut at = 0;
    for piece in pieces {
        let shape = MatmulShape::new(piece.count, width, columns)
            .batch(batch)
            .weights(weights)
            .a_strides(RowStrides::contiguous(piece.len, width).offset(piece.first * width))
            .b_strides(shared)
            .out_strides(RowStrides::contiguous(all, columns).offset(at * columns));
        machine.linear(&shape, &piece.tensor, pair, None, &out)?;
        at += piece.count;
    }
    Ok(out)
}

/// `[sin, cos]` of these positions, `[positions, width]` (Vaswani 2017, section 3.5, by halves).
pub(crate) fn sinusoids(positions: impl Iterator<Item = i64>, width: usize) -> Vec<f32> {
    let frequency = |n: usize| 10000f64.powf(-2.0 * n as f64 / width as f64);
    let row = |position: i64| {
        let angle = move |n: usize| position as f64 * frequency(n);
        let (sines, cosines) =
            ((0..width / 2).map(move |n| angle(n).sin()), (0..width / 2).map(move |n| angle(n).cos()));
        sines.chain(cosines).map(|x| x as f32)
    };
    positions.flat_map(row).collect()
}

/// Sizes of attention of queries behind a memory, whose heads need not be as wide together as the model is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) heads: usize,
    pub(crate) dim: usize,
}

impl Heads {
    pub(crate) fn width(self) -> usize {
        self.heads * self.dim
    }

    /// Of `[B, L, H, d]` tensors, with relative rows `[R, H, d]` of the distances from `first` down, u and w.
    pub(crate) fn attention(self, [batch, len, keys]: [usize; 3], first: usize, rows: usize) -> Attention {
        let strides = Strides::new(0, self.dim as isize, self.width() as isize);
        let relative = Relative::new(first as i32, rows).u(true).w(true).strides(strides);
        let shape = AttentionShape::new(batch, self.heads, len, self.dim).kv_len(keys);
        shape.score(Score::new().with(relative)).layout(Layout::Blhd)
    }
}

/// What a layer has behind its attention.
pub(crate) struct Behind<T> {
    pub(crate) o: Pair<T>,
    /// How `o` lies.
    pub(crate) order: WeightOrder,
    pub(crate) norm: Pair<T>,
    pub(crate) first: Pair<T>,
    pub(crate) second: Pair<T>,
    pub(crate) last_norm: Pair<T>,
    pub(crate) hidden: usize,
    pub(crate) activation: Activation,
    /// Norms come before each part instead of behind its residual.
    pub(crate) norm_first: bool,
}

impl<T: Clone> Behind<T> {
    /// x with what attention made of it, and then with the feed-forward layer's; a new tensor.
    pub(crate) fn finish<M: Machine<Tensor = T>>(
        &self,
        machine: &mut M,
        sizes: &Sizes,
        heads: Heads,
        x: &T,
        context: &T,
    ) -> Result<T, Error> {
        let (rows, width) = (sizes.rows(), sizes.width);
        let [y, z, out] = [(); 3].map(|()| machine.tensor(rows * width));
        let dense = MatmulShape::new(rows, heads.width(), width).weights(self.order).combine(Combine::Add);
        machine.linear(&dense, context, &self.o, Some(x), &y)?;
        let feed_forward = FeedForwardShape::new(rows, width, self.hidden, self.activation);
        let feed_forward = feed_forward.weights(WeightOrder::OutIn).bias(true).residual(true);
        let layers = Layers::new(&self.first, &self.second);
        if self.norm_first {
            machine.norm(&sizes.norm(), &y, &self.last_norm, &z)?;
            machine.feed_forward(&feed_forward, &z, layers, &y, &out)?;
            return Ok(out);
        }
        machine.norm(&sizes.norm(), &y, &self.norm, &z)?;
        machine.feed_forward(&feed_forward, &z, layers, &z, &y)?;
        machine.norm(&sizes.norm(), &y, &self.last_norm, &out)?;
        Ok(out)
    }
}

/// A boxed pattern is one.
pub(crate) type AnyPattern = Box<dyn Pattern>;
