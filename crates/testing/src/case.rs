use super::{Draw, Picked};
use std::fmt;
use wgpu_attention::reference::{Kind, Rows, Tensors, random};
use wgpu_attention::{
    Attention, AttentionShape, BiasStrides, BlockGrid, BlockMask, Element, Full, Options, Parts, Score,
    Storage, Term,
};

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
    /// Sizes, score, storage, layout.
    pub attention: Attention,
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
    /// What the bias holds, where the score has one.
    pub bias: BiasValues,
    /// Whether lse is asked for.
    pub lse: bool,
    /// Which rows are compared.
    pub rows: Rows,
}

impl Case {
    /// Dense attention over normal inputs, with lse, in blocks of 64.
    pub fn new(attention: impl Into<Attention>) -> Self {
        Self {
            attention: attention.into(),
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

    /// What its pipelines are compiled for, where few other cases have them: not for calls of f32, 16 wide at most, with nothing but a scale, which
    /// are in so many tests that both kinds of tile are compiled anyway.
    pub fn variant(&self) -> Option<String> {
        let AttentionShape { head_dim, value_dim, .. } = self.attention.shape;
        let (storage, terms) = (self.attention.storage, self.attention.score.terms());
        let names: Vec<_> = terms.iter().map(|term| term.name()).collect();
        let common = names.is_empty() && storage == Storage::default() && head_dim == 16 && value_dim <= 16;
        (!common).then(|| format!("{head_dim} x {value_dim}, {storage:?}, {names:?}"))
    }

    /// With another score.
    pub fn score(self, score: Score) -> Self {
        Self { attention: self.attention.score(score), ..self }
    }

    /// With tensors stored otherwise.
    pub fn storage(self, storage: Storage) -> Self {
        Self { attention: self.attention.storage(storage), ..self }
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
        BlockGrid::from(&self.attention.shape).blocks(self.blocks[0], self.blocks[1])
    }

    /// The pattern in one part.
    pub fn parts(&self) -> Parts {
        BlockMask::new(self.pattern.as_dyn(), self.grid()).unwrap_or_else(|e| panic!("{e}\n{self}")).into()
    }

    /// Inputs of the bound test.
    pub fn tensors<Q: Element, KV: Element>(&self) -> Tensors<Q, KV> {
        let mut tensors =
            random(&self.attention, self.kind, self.seed).unwrap_or_else(|e| panic!("{e}\n{self}"));
        if let (Some(strides), Some(bias)) = (self.bias_strides(), tensors.term_mut("bias")) {
            self.fill_bias(strides, bias);
        }
        tensors
    }

    /// Where the bias lies, if the score has one.
    pub fn bias_strides(&self) -> Option<BiasStrides> {
        match self.attention.score.term("bias") {
            Some(Term::Bias(bias)) => Some(bias.strides()),
            _ => None,
        }
    }

    fn fill_bias(&self, strides: BiasStrides, bias: &mut [f32]) {
        let mut draw = Draw::new(self.seed, 11);
        for (n, bias) in bias.iter_mut().enumerate() {
            // Where queries share a bias, all are query 0.
            let n = n.saturating_sub(strides.offset);
            let i = n.checked_div(strides.query.unsigned_abs()).unwrap_or(0) % self.attention.shape.q_len;
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
        let Self { attention, pattern, blocks: [block_q, block_k], options, kind, seed, bias, lse, .. } =
            self;
        write!(f, "Case: {attention:?}; {pattern:?}; blocks {block_q} x {block_k}; ")?;
        if let Some(tile) = options.tile {
            write!(f, "{tile:?}; ")?;
        }
        if let Some(kind) = options.tile_kind {
            write!(f, "TileKind::{kind:?}; ")?;
        }
        if let Some(splits) = options.splits {
            write!(f, "splits {splits}; ")?;
        }
        if self.bias_strides().is_some() {
            write!(f, "bias {bias:?}; ")?;
        }
        write!(f, "Kind::{kind:?}; seed {seed}; lse {lse}")
    }
}
