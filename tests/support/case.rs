use super::{Draw, Picked};
use std::fmt;
use wgpu_attention::reference::{Kind, Rows, Tensors, random};
use wgpu_attention::{AttentionShape, BlockGrid, BlockMask, Element, Full, Options, Parts};

/// What a bias holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BiasValues {
    /// N(0, 4).
    Normal,
    /// One in eight is minus infinity, and so are all of every fifth query.
    Holes,
    /// Query i has all of one huge negative number, by turns 0, -1e9, -1e30, f32::MIN, beside the N(0, 4).
    Floors,
}

/// One call: what is computed, on which inputs, and how the kernel cuts it. Its text reproduces it.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) shape: AttentionShape,
    pub(crate) pattern: Picked,
    /// Queries and keys of a mask block.
    pub(crate) blocks: [usize; 2],
    pub(crate) options: Options,
    pub(crate) kind: Kind,
    pub(crate) seed: u64,
    pub(crate) bias: BiasValues,
    pub(crate) lse: bool,
    pub(crate) rows: Rows,
}

impl Case {
    /// Dense attention over normal inputs, with lse, in blocks of 64.
    pub(crate) fn new(shape: AttentionShape) -> Self {
        Self {
            shape,
            pattern: Full.into(),
            blocks: [64, 64],
            options: Options::default(),
            kind: Kind::Normal,
            seed: 1,
            bias: BiasValues::Normal,
            lse: true,
            rows: Rows::Auto,
        }
    }

    pub(crate) fn pattern(self, pattern: impl Into<Picked>) -> Self {
        Self { pattern: pattern.into(), ..self }
    }

    pub(crate) fn blocks(self, block_q: usize, block_k: usize) -> Self {
        Self { blocks: [block_q, block_k], ..self }
    }

    pub(crate) fn options(self, options: Options) -> Self {
        Self { options, ..self }
    }

    pub(crate) fn kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    pub(crate) fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    pub(crate) fn bias(self, bias: BiasValues) -> Self {
        Self { bias, ..self }
    }

    pub(crate) fn without_lse(self) -> Self {
        Self { lse: false, ..self }
    }

    pub(crate) fn rows(self, rows: Rows) -> Self {
        Self { rows, ..self }
    }

    /// The sizes in blocks.
    pub(crate) fn grid(&self) -> BlockGrid {
        BlockGrid::from(&self.shape).blocks(self.blocks[0], self.blocks[1])
    }

    /// The pattern in one part.
    pub(crate) fn parts(&self) -> Parts {
        BlockMask::new(self.pattern.as_dyn(), self.grid()).unwrap_or_else(|e| panic!("{e}\n{self}")).into()
    }

    /// Inputs of the bound test.
    pub(crate) fn tensors<E: Element>(&self) -> Tensors<E> {
        let mut tensors = random(&self.shape, self.kind, self.seed).unwrap_or_else(|e| panic!("{e}\n{self}"));
        if let Some(bias) = &mut tensors.bias {
            self.fill_bias(bias);
        }
        tensors
    }

    fn fill_bias(&self, bias: &mut [f32]) {
        let (shape, mut draw) = (&self.shape, Draw::new(self.seed, 11));
        let strides = shape.bias.expect("the shape has a bias");
        for (n, bias) in bias.iter_mut().enumerate() {
            // Where queries share a bias, all are query 0.
            let i = n.checked_div(strides.query).unwrap_or(0) % shape.q_len;
            match self.bias {
                BiasValues::Normal => {}
                BiasValues::Holes if draw.once_in(8) || i % 5 == 4 => *bias = f32::NEG_INFINITY,
                BiasValues::Holes => {}
                // f32::MIN minus something would pass f32's range.
                BiasValues::Floors => *bias = (*bias + [0.0, -1e9, -1e30, f32::MIN][i % 4]).max(f32::MIN),
            }
        }
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shape, pattern, blocks: [block_q, block_k], options, kind, seed, bias, lse, .. } = self;
        write!(f, "Case: {shape:?}; {pattern:?}; blocks {block_q} x {block_k}; ")?;
        if let Some(tile) = options.tile {
            write!(f, "{tile:?}; ")?;
        }
        if let Some(kind) = options.tile_kind {
            write!(f, "TileKind::{kind:?}; ")?;
        }
        if let Some(splits) = options.splits {
            write!(f, "splits {splits}; ")?;
        }
        if shape.bias.is_some() {
            write!(f, "bias {bias:?}; ")?;
        }
        write!(f, "Kind::{kind:?}; seed {seed}; lse {lse}")
    }
}
