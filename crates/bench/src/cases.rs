//! What is computed: one value is a test (`subject/` verifies it) and a benchmark.

use crate::record::{Direction, Kernel, Shape};
use crate::scores;
use wgpu_attention::wgsl::{Tile, TileKind, TileLimits};
use wgpu_attention::{
    AddShape, AnyPattern, Attention, AttentionShape, BlockGrid, DecodeShape, ElementType, EmbedShape,
    FeatureMap, FeedForwardShape, Kernels, LinearOptions, LinformerOptions, LshOptions, MatmulShape,
    NormKind, NormShape, RecurrentShape, RotaryShape, Score, SoftmaxShape,
};

/// A case.
#[derive(Debug, Clone)]
pub struct Spec {
    /// A published workload's name, where this is one.
    pub known_as: Option<&'static str>,
    /// What is computed.
    pub work: Work,
    /// How lanes share it.
    pub lanes: Lanes,
}

/// How lanes share the work of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lanes {
    /// As the plan chooses.
    #[default]
    Planned,
    /// As on a GPU, wherever it runs.
    Staged,
    /// So, and within the workgroup memory that every WebGPU device has: attention alone, for whose other kernels a plan chooses as before.
    Portable,
}

impl Lanes {
    /// The kernels of a device, sharing work so.
    ///
    /// # Errors
    /// The device is lost; a head size that no tile has.
    pub(crate) fn on(self, kernels: &Kernels, work: &Work) -> wgpu_attention::Result<Kernels> {
        let options = *kernels.options();
        match (self, work) {
            (Self::Planned, _) => Ok(kernels.clone()),
            (Self::Portable, Work::Attention { attention, .. }) => {
                let AttentionShape { head_dim, value_dim, .. } = attention.shape;
                let block = BlockGrid::from(&attention.shape);
                let tile =
                    Tile::choose(head_dim, value_dim, block.block_q, block.block_k, TileLimits::WEBGPU)?;
                kernels.with_options(options.tile(tile))
            }
            _ => kernels.with_options(options.tile_kind(TileKind::Staged)),
        }
    }

    /// What a case's name says of it.
    fn suffix(self) -> &'static str {
        match self {
            Self::Planned => "",
            Self::Staged => " staged",
            Self::Portable => " portable",
        }
    }
}

/// A kernel with its sizes. Inputs and outputs have one element type.
#[derive(Debug, Clone)]
pub enum Work {
    /// Attention over a pattern.
    Attention {
        /// Sizes, score, storage.
        attention: Attention,
        /// Which pairs are attended.
        pattern: NamedPattern,
    },
    /// The gradients by q, k and v, given those of out.
    Backward {
        /// Sizes, score, storage.
        attention: Attention,
        /// Which pairs are attended.
        pattern: NamedPattern,
        /// Which of them.
        wanted: Wanted,
    },
    /// LSH attention.
    Lsh {
        /// Sizes and storage.
        attention: Attention,
        /// Rounds, buckets, chunks.
        options: LshOptions,
        /// Forward, its gradients, or both.
        direction: Direction,
    },
    /// Linear attention.
    Linear {
        /// Sizes and storage.
        attention: Attention,
        /// The feature map, and whether it is causal.
        options: LinearOptions,
        /// Forward, its gradients, or both.
        direction: Direction,
    },
    /// Linformer.
    Linformer {
        /// Sizes and storage.
        attention: Attention,
        /// The projections.
        options: LinformerOptions,
        /// Forward, its gradients, or both.
        direction: Direction,
    },
    /// The queries of new positions against a full key cache.
    Decode(DecodeShape),
    /// A layer around attention.
    Block(BlockShape),
    /// A matrix product.
    Matmul(MatmulShape),
    /// The chunked feed-forward layer.
    FeedForward(FeedForwardShape),
    /// A recurrent network.
    Recurrent(RecurrentShape),
    /// LayerNorm or RMSNorm.
    Norm(NormShape),
    /// Softmax of rows.
    Softmax(SoftmaxShape),
    /// Rotary embedding.
    Rotary(RotaryShape),
    /// Rows of a table.
    Embed(EmbedShape),
    /// A residual sum.
    Add(AddShape),
}

/// Which gradients a case computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wanted {
    /// Those by q, k and v.
    #[default]
    All,
    /// The pass over queries.
    Queries,
    /// The pass over keys.
    Keys,
}

impl Wanted {
    /// Of dq, dk and dv.
    pub fn each(self) -> [bool; 3] {
        match self {
            Self::All => [true; 3],
            Self::Queries => [true, false, false],
            Self::Keys => [false, true, true],
        }
    }

    /// What a case's name says of it.
    fn suffix(self) -> &'static str {
        match self {
            Self::All => "",
            Self::Queries => "-dq",
            Self::Keys => "-dk-dv",
        }
    }
}

/// A layer of a Transformer, f32, batch 1: q, k and v by one product, attention, the product behind it and its residual, the feed-forward layer
/// and its residual. Norms are left out.
#[derive(Debug, Clone)]
pub struct BlockShape {
    /// Positions of the sequence.
    pub len: usize,
    /// The model's width, of all heads together.
    pub model_dim: usize,
    /// Heads.
    pub heads: usize,
    /// Columns within the feed-forward layer.
    pub hidden_dim: usize,
    /// Which pairs are attended.
    pub pattern: NamedPattern,
}

impl BlockShape {
    /// Its attention, without the layout of its tensors.
    pub fn attention(&self) -> AttentionShape {
        AttentionShape::new(1, self.heads, self.len, self.model_dim / self.heads)
    }
}

/// A pattern as the command line takes it.
#[derive(Debug, Clone)]
pub struct NamedPattern {
    /// Short: the same at every length.
    pub name: &'static str,
    /// With its parameters, which may depend on the length.
    pub text: String,
}

impl NamedPattern {
    /// The pattern.
    ///
    /// # Errors
    /// The text is no pattern.
    pub fn parse(&self) -> wgpu_attention::Result<AnyPattern> {
        AnyPattern::parse(&self.text)
    }
}

/// A pattern's text, by the length of the sequence.
type OfLength = fn(usize) -> String;

/// The patterns, with parameters that suit a length: strides near its square root.
pub const PATTERNS: [(&str, OfLength); 11] = [
    ("full", |_| "full".into()),
    ("causal", |_| "causal".into()),
    ("window", |_| "window:before=511,after=0".into()),
    ("dilated", |n| format!("dilated:before={},after=0,step=4", 4 * n.isqrt())),
    ("strided", |n| format!("strided:stride={}", n.isqrt())),
    ("fixed", |n| format!("fixed:stride={},summary=8", n.isqrt())),
    ("random", |_| "random:block=64,count=6,seed=7".into()),
    ("bigbird", |_| "bigbird:block=64,window=3,global=2,random=3,seed=7".into()),
    ("longformer", |n| {
        let tokens: Vec<String> = (0..16).map(|token| (token * n / 16).to_string()).collect();
        format!("longformer:window=512,global=[{}]", tokens.join(","))
    }),
    ("prefix", |n| format!("prefix:len={}", n / 4)),
    ("document", |n| {
        // Eight packed sequences of equal length.
        let ids: Vec<String> = (0..n).map(|i| (8 * i / n).to_string()).collect();
        format!("causal & document:ids=[{}]", ids.join(","))
    }),
];

/// Patterns whose cost grows with the square of the length.
pub const QUADRATIC: [&str; 4] = ["full", "causal", "prefix", "document"];

/// One of [`PATTERNS`] at a length.
pub fn pattern(name: &str, len: usize) -> Option<NamedPattern> {
    let (name, of_len) = PATTERNS.into_iter().find(|(known, _)| *known == name)?;
    Some(NamedPattern { name, text: of_len(len) })
}

/// All of [`PATTERNS`] at a length.
///
/// # Errors
/// The length is too small for one of them.
pub fn patterns(len: usize) -> wgpu_attention::Result<Vec<(&'static str, AnyPattern)>> {
    PATTERNS.into_iter().map(|(name, of_len)| Ok((name, AnyPattern::parse(&of_len(len))?))).collect()
}

impl Spec {
    /// Unique in a suite, and the same in every run.
    pub fn name(&self) -> String {
        let kernel = self.kernel_name();
        let dtype = self.element();
        let sizes = match &self.work {
            Work::Attention { attention, .. } | Work::Backward { attention, .. } => {
                attention_sizes(&attention.shape)
            }
            Work::Lsh { attention, options, .. } => {
                let sizes = attention_sizes(&attention.shape);
                format!("{sizes} rounds{} chunk{}", options.rounds, options.chunk)
            }
            Work::Linear { attention, options, .. } => {
                let features = options.map.features(attention.shape.head_dim);
                format!("{} m{features}", attention_sizes(&attention.shape))
            }
            Work::Linformer { attention, options, .. } => {
                format!("{} k{}", attention_sizes(&attention.shape), options.projected)
            }
            Work::Decode(it) => attention_sizes(&decode_sizes(it)),
            Work::Block(it) => {
                format!("n{} w{} h{} hidden{}", it.len, it.model_dim, it.heads, it.hidden_dim)
            }
            Work::Matmul(it) => {
                let integers = it.integers.map(|format| format!(" {format}")).unwrap_or_default();
                format!("{}x{}x{}{integers}", it.rows, it.inner, it.columns)
            }
            Work::FeedForward(it) => format!("{}x{}x{}", it.rows, it.model_dim, it.hidden_dim),
            Work::Recurrent(it) => format!("b{} n{} {}x{}", it.batch, it.steps, it.input, it.hidden),
            Work::Norm(it) => format!("{}x{}", it.rows, it.width),
            Work::Softmax(it) => format!("{}x{}", it.rows, it.width),
            Work::Rotary(it) => format!("h{} n{} d{}", it.heads, it.len, it.head_dim),
            Work::Embed(it) => format!("{}x{} of {}", it.rows, it.width, it.table_rows),
            Work::Add(it) => format!("{}x{}", it.rows, it.width),
        };
        let known = self.known_as.map(|name| format!(" ({name})")).unwrap_or_default();
        format!("{kernel} {dtype} {sizes}{}{known}", self.lanes.suffix())
    }

    /// With the pattern and the score: `attention/causal+alibi`.
    fn kernel_name(&self) -> String {
        let score = self.score_name().map(|name| format!("+{name}")).unwrap_or_default();
        match &self.work {
            Work::Attention { pattern, .. } => format!("attention/{}{score}", pattern.name),
            Work::Backward { pattern, wanted, .. } => {
                format!("backward{}/{}{score}", wanted.suffix(), pattern.name)
            }
            Work::Lsh { options, direction, .. } => {
                let causal = if options.causal { "/causal" } else { "" };
                format!("{}lsh{causal}{score}", prefix(*direction))
            }
            Work::Linear { direction, .. } => {
                format!("{}linear/{}", prefix(*direction), self.pattern_name().unwrap_or_default())
            }
            Work::Linformer { direction, .. } => format!("{}linformer", prefix(*direction)),
            Work::Block(it) => format!("block/{}", it.pattern.name),
            Work::FeedForward(it) => {
                format!("feed_forward/{}{}", it.activation, if it.gated { "-gated" } else { "" })
            }
            Work::Recurrent(it) => format!("recurrent/{}", it.cell),
            Work::Decode(it) => format!("decode/{}", it.cache.storage),
            _ => self.kernel().name().into(),
        }
    }

    /// What tells it from others of its kernel and sizes: the short name of a pattern, of a feature map with what it sees, of a cell, of a cache's storage; what
    /// integers weights are.
    pub fn pattern_name(&self) -> Option<String> {
        match &self.work {
            Work::Attention { pattern, .. } | Work::Backward { pattern, .. } => Some(pattern.name.into()),
            Work::Block(it) => Some(it.pattern.name.into()),
            Work::Recurrent(it) => Some(it.cell.name().into()),
            Work::Decode(it) => Some(it.cache.storage.to_string()),
            Work::Matmul(it) => it.integers.map(|format| format.to_string()),
            Work::Linear { options, .. } => {
                let map = match options.map {
                    FeatureMap::Favor { .. } => "performer",
                    FeatureMap::Relu { .. } => "relu",
                    FeatureMap::Elu => "elu",
                    FeatureMap::Softmax => "softmax",
                    _ => "identity",
                };
                Some(if options.causal { format!("{map}-causal") } else { map.into() })
            }
            _ => None,
        }
    }

    /// Its pattern, as the command line takes it.
    pub fn pattern(&self) -> Option<&NamedPattern> {
        match &self.work {
            Work::Attention { pattern, .. } | Work::Backward { pattern, .. } => Some(pattern),
            Work::Block(it) => Some(&it.pattern),
            _ => None,
        }
    }

    /// Whether a filter takes the case: by a part of its name, or of the text of its score.
    pub fn matches(&self, filter: &str) -> bool {
        self.name().contains(filter) || self.score_text().is_some_and(|text| text.contains(filter))
    }

    /// The call of a kernel of attention.
    fn attention(&self) -> Option<&Attention> {
        match &self.work {
            Work::Attention { attention, .. }
            | Work::Backward { attention, .. }
            | Work::Lsh { attention, .. }
            | Work::Linear { attention, .. }
            | Work::Linformer { attention, .. } => Some(attention),
            _ => None,
        }
    }

    /// The short name of its score; none where that is the plain one, or there is no attention.
    pub fn score_name(&self) -> Option<String> {
        let attention = self.attention()?;
        scores::name(&attention.score, &attention.shape)
    }

    /// The text of its score, likewise.
    pub fn score_text(&self) -> Option<String> {
        let score = &self.attention()?.score;
        (*score != Score::new()).then(|| score.to_string())
    }

    /// Forward, its gradients, or both.
    pub fn direction(&self) -> Direction {
        match self.work {
            Work::Backward { .. } => Direction::Backward,
            Work::Lsh { direction, .. }
            | Work::Linear { direction, .. }
            | Work::Linformer { direction, .. } => direction,
            _ => Direction::Forward,
        }
    }

    /// As the record has it.
    pub fn kernel(&self) -> Kernel {
        match &self.work {
            Work::Attention { .. } | Work::Backward { .. } => Kernel::Attention,
            Work::Lsh { .. } => Kernel::Lsh,
            Work::Linear { .. } => Kernel::Linear,
            Work::Linformer { .. } => Kernel::Linformer,
            Work::Decode(_) => Kernel::Decode,
            Work::Block(_) => Kernel::Block,
            Work::Matmul(_) => Kernel::Matmul,
            Work::FeedForward(_) => Kernel::FeedForward,
            Work::Recurrent(_) => Kernel::Recurrent,
            Work::Norm(NormShape { kind: NormKind::Layer, .. }) => Kernel::LayerNorm,
            Work::Norm(_) => Kernel::RmsNorm,
            Work::Softmax(_) => Kernel::Softmax,
            Work::Rotary(_) => Kernel::Rotary,
            Work::Embed(_) => Kernel::Embed,
            Work::Add(_) => Kernel::Add,
        }
    }

    /// Of inputs and outputs.
    pub fn element(&self) -> ElementType {
        match &self.work {
            Work::Attention { attention, .. }
            | Work::Backward { attention, .. }
            | Work::Lsh { attention, .. }
            | Work::Linear { attention, .. }
            | Work::Linformer { attention, .. } => attention.storage.q,
            Work::Decode(it) => it.input,
            Work::Block(_) => ElementType::F32,
            Work::Matmul(it) => it.input,
            Work::FeedForward(it) => it.input,
            // Inputs and outputs are f32.
            Work::Recurrent(it) => it.weight,
            Work::Norm(it) => it.input,
            Work::Softmax(it) => it.input,
            Work::Rotary(it) => it.input,
            Work::Embed(it) => it.table,
            Work::Add(it) => it.input,
        }
    }

    /// As the record has it.
    pub fn shape(&self) -> Shape {
        match &self.work {
            Work::Attention { attention, .. }
            | Work::Backward { attention, .. }
            | Work::Lsh { attention, .. }
            | Work::Linear { attention, .. }
            | Work::Linformer { attention, .. } => attention_shape(&attention.shape),
            Work::Decode(it) => attention_shape(&decode_sizes(it)),
            Work::Block(it) => Shape::Block {
                positions: it.len,
                model_dim: it.model_dim,
                heads: it.heads,
                hidden_dim: it.hidden_dim,
            },
            Work::Matmul(it) => Shape::Matmul { rows: it.rows, inner: it.inner, columns: it.columns },
            Work::FeedForward(it) => Shape::FeedForward {
                rows: it.rows,
                model_dim: it.model_dim,
                hidden_dim: it.hidden_dim,
                gated: it.gated,
            },
            Work::Recurrent(it) => {
                Shape::Recurrent { batch: it.batch, steps: it.steps, input: it.input, hidden: it.hidden }
            }
            Work::Norm(it) => Shape::Rows { rows: it.rows, width: it.width },
            Work::Softmax(it) => Shape::Rows { rows: it.rows, width: it.width },
            Work::Rotary(it) => Shape::Rows { rows: it.batch * it.heads * it.len, width: it.head_dim },
            Work::Embed(it) => Shape::Rows { rows: it.rows, width: it.width },
            Work::Add(it) => Shape::Rows { rows: it.rows, width: it.width },
        }
    }
}

/// What the names of gradients begin with.
fn prefix(direction: Direction) -> &'static str {
    match direction {
        Direction::Forward => "",
        Direction::Backward => "backward/",
        Direction::Both => "both/",
    }
}

fn attention_shape(shape: &AttentionShape) -> Shape {
    let AttentionShape { batch, heads, kv_heads, q_len, kv_len, head_dim, value_dim, .. } = *shape;
    Shape::Attention { batch, heads, kv_heads, q_len, kv_len, head_dim, value_dim }
}

/// The new queries and all keys that the cache has room for.
pub(crate) fn decode_sizes(shape: &DecodeShape) -> AttentionShape {
    let cache = &shape.cache;
    AttentionShape::new(cache.batch, shape.heads, shape.new, cache.head_dim)
        .kv_heads(cache.kv_heads)
        .kv_len(cache.capacity)
        .value_dim(cache.value_dim)
}

/// `b1 h8 n512 d64`; `h32/8` for grouped heads, `q16 k4096` where the lengths differ.
fn attention_sizes(shape: &AttentionShape) -> String {
    let AttentionShape { batch, heads, kv_heads, q_len, kv_len, head_dim, .. } = shape;
    let heads = if heads == kv_heads { heads.to_string() } else { format!("{heads}/{kv_heads}") };
    let lens = if q_len == kv_len { format!("n{q_len}") } else { format!("q{q_len} k{kv_len}") };
    format!("b{batch} h{heads} {lens} d{head_dim}")
}

#[cfg(test)]
mod tests;
