use super::{Draw, Picked};
use std::fmt;
use wgpu_attention::reference::{Kind, Rows, Tensors, random};
use wgpu_attention::{AttentionShape, BlockGrid, BlockMask, Element, Full, Options, Parts};

/// What a bias holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BiasValues {
    /// N(0, 4).
    Normal,
    /// One in eight is minus infinity, and so are all of every fifth query.
    Holes,
    /// Query i has all of one huge negative number, by turns 0, -1e9, -1e30, f32::MIN, beside the N(0, 4).
    Floors,
}

/// One call: what is computed, on which inputs, and how the kernel cuts it. Its text reproduces it.
#[derive(Clone)]
pub struct Case {
    /// Sizes, layout, score.
    pub shape: AttentionShape,
    /// Which pairs are attended.
    pub pattern: Picked,
    /// Queries and keys of a mask block.
    pub blocks: [usize; 2],
    /// Of the kernels.
    pub options: Options,
    /// How inputs are distributed.
    pub kind: Kind,
    /// Of the inputs.
    pub seed: u64,
    /// What the bias holds, where the shape has one.
    pub bias: BiasValues,
    /// Whether lse is asked for.
    pub lse: bool,
    /// Which rows are compared.
    pub rows: Rows,
}

impl Case {
    /// Dense attention over normal inputs, with lse, in blocks of 64.
    pub fn new(shape: AttentionShape) -> Self {
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

    /// With another pattern.
    pub fn pattern(self, pattern: impl Into<Picked>) -> Self {
        Self { pattern: pattern.into(), ..self }
    }

    /// With other mask blocks.
    pub fn blocks(self, block_q: usize, block_k: usize) -> Self {
        Self { blocks: [block_q, block_k], ..self }
    }

    /// With other options.
    pub fn options(self, options: Options) -> Self {
        Self { options, ..self }
    }

    /// With other inputs.
    pub fn kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// With another seed.
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// With another bias.
    pub fn bias(self, bias: BiasValues) -> Self {
        Self { bias, ..self }
    }

    /// Without lse.
    pub fn without_lse(self) -> Self {
        Self { lse: false, ..self }
    }

    /// With other rows compared.
    pub fn rows(self, rows: Rows) -> Self {
        Self { rows, ..self }
    }

    /// The sizes in blocks.
    pub fn grid(&self) -> BlockGrid {
        BlockGrid::from(&self.shape).blocks(self.blocks[0], self.blocks[1])
    }

    /// The pattern in one part.
    pub fn parts(&self) -> Parts {
        BlockMask::new(self.pattern.as_dyn(), self.grid()).unwrap_or_else(|e| panic!("{e}\n{self}")).into()
    }

    /// Inputs of the bound test.
    pub fn tensors<E: Element>(&self) -> Tensors<E> {
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
