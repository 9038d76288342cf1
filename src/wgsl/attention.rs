//! Variants of `attention.wgsl`.

use super::{Header, Matrices, Shader, SortedChunks, Tile, TileKind, TileLimits};
use crate::ElementType;

/// Which terms the score has beside scale q . k.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ScoreTerms {
    /// c tanh(score / c).
    pub softcap: bool,
    /// An additive tensor.
    pub bias: bool,
    /// slope_h (j - i).
    pub alibi: bool,
}

impl ScoreTerms {
    /// Whether the score is scale q . k alone.
    pub fn is_plain(self) -> bool {
        self == Self::default()
    }
}

/// What the kernel leaves beside the output rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stats {
    /// Nothing.
    None,
    /// lse, one f32 a row.
    Lse,
    /// (m, l), two f32 a row, so that a later part can merge.
    State,
}

/// All that tells one attention shader from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AttentionVariant {
    /// Sizes of a workgroup.
    pub tile: Tile,
    /// d.
    pub head_dim: usize,
    /// dv.
    pub value_dim: usize,
    /// Storage of q, k, v.
    pub input: ElementType,
    /// Storage of out.
    pub output: ElementType,
    /// Every row of q, k and v begins at a multiple of 4 elements and is one long.
    pub aligned_in: bool,
    /// So does every row of out.
    pub aligned_out: bool,
    /// Rows of a mask block.
    pub block_q: usize,
    /// Keys of a mask block.
    pub block_k: usize,
    /// Queries are reached through an order.
    pub q_order: bool,
    /// Keys are reached through an order.
    pub k_order: bool,
    /// The queries of all heads that share a key head are the rows of one tile.
    pub packed: bool,
    /// Terms of the score.
    pub score: ScoreTerms,
    /// What is left beside the output.
    pub stats: Stats,
    /// Merge with what an earlier part left (needs [`Stats::State`] and f32 output).
    pub accumulate: bool,
    /// Queries and keys in sorted places instead of under a block mask.
    pub chunks: Option<SortedChunks>,
}

impl AttentionVariant {
    /// Block sizes of a variant over sorted chunks: places are not cut into blocks.
    pub const ONE_BLOCK: usize = 1 << 31;
    /// Storage buffers that the kernel binds, of the 8 that every device has.
    pub const STORAGE_BUFFERS: u32 = 7;

    /// The shader of this variant.
    pub fn shader(&self) -> Shader {
        let (header, tile_file) = self.tile.constants(Header::default(), self.head_dim);
        let mut header = header
            .u32s(&[
                ("HEAD_DIM", self.head_dim),
                ("VALUE_DIM", self.value_dim),
                ("HEAD_GROUPS", self.head_dim.div_ceil(4)),
                ("VALUE_GROUPS", self.value_dim.div_ceil(4)),
                ("BLOCK_Q", self.block_q),
                ("BLOCK_K", self.block_k),
                ("WORDS_A_TILE_ROW", self.block_k.div_ceil(32)),
                ("STATS_LSE", Stats::Lse as usize),
                ("STATS_STATE", Stats::State as usize),
                ("STATS", self.stats as usize),
            ])
            .bools(&[
                ("HAS_Q_ORDER", self.q_order),
                ("HAS_K_ORDER", self.k_order),
                ("PACKED", self.packed),
                ("ACCUMULATE", self.accumulate),
            ]);
        if !self.score.is_plain() {
            header = header.bools(&[
                ("HAS_SOFTCAP", self.score.softcap),
                ("HAS_BIAS", self.score.bias),
                ("HAS_ALIBI", self.score.alibi),
            ]);
        }
        if let Some(chunks) = &self.chunks {
            header = chunks.constants(header, self.tile.rows());
        }
        Shader {
            for_cpus: self.tile.is_for_cpus(),
            // The tables of LSH attention are made on the device, from tensors.
            proven: self.chunks.is_none(),
            ..header.shader(self.label(), "attention", &self.files(tile_file))
        }
    }

    fn files(&self, tile: &'static str) -> Vec<&'static str> {
        let [keep, score] = match self.chunks {
            Some(_) => SortedChunks::FILES,
            None if self.score.is_plain() => {
                [include_str!("../../shaders/keep/bits.wgsl"), include_str!("../../shaders/score/plain.wgsl")]
            }
            None => {
                [include_str!("../../shaders/keep/bits.wgsl"), include_str!("../../shaders/score/full.wgsl")]
            }
        };
        let mut files = vec![
            include_str!("../../shaders/attention.wgsl"),
            tile,
            keep,
            score,
            if self.aligned_in {
                include_str!("../../shaders/lib/load_x4.wgsl")
            } else {
                include_str!("../../shaders/lib/load_x1.wgsl")
            },
            match self.input {
                ElementType::F32 => include_str!("../../shaders/element/in_f32.wgsl"),
                ElementType::F16 => include_str!("../../shaders/element/in_f16.wgsl"),
                ElementType::Bf16 => include_str!("../../shaders/element/in_bf16.wgsl"),
            },
        ];
        files.extend(store_files(self.output, self.aligned_out));
        files
    }

    fn label(&self) -> String {
        let mut label = format!(
            "attention d{} dv{} {}->{} tile {} block {}x{}",
            self.head_dim, self.value_dim, self.input, self.output, self.tile, self.block_q, self.block_k
        );
        let flags = [
            (!self.aligned_in, "unaligned-in"),
            (!self.aligned_out, "unaligned-out"),
            (self.q_order, "q-order"),
            (self.k_order, "k-order"),
            (self.packed, "packed"),
            (self.score.softcap, "softcap"),
            (self.score.bias, "bias"),
            (self.score.alibi, "alibi"),
            (self.stats == Stats::Lse, "lse"),
            (self.stats == Stats::State, "state"),
            (self.accumulate, "accumulate"),
        ];
        for (_, name) in flags.iter().filter(|flag| flag.0) {
            label.push(' ');
            label.push_str(name);
        }
        label.extend(self.chunks.iter().map(SortedChunks::label));
        label
    }

    /// A list in which every provider file and every flag's two values occur.
    pub(super) fn representatives() -> Vec<Self> {
        let base = |head_dim: usize, value_dim: usize, limits| Self {
            tile: Tile::choose(head_dim, value_dim, 64, 64, limits).expect("WebGPU's limits hold every size"),
            head_dim,
            value_dim,
            input: ElementType::F32,
            output: ElementType::F32,
            aligned_in: head_dim.is_multiple_of(4) && value_dim.is_multiple_of(4),
            aligned_out: value_dim.is_multiple_of(4),
            block_q: 64,
            block_k: 64,
            q_order: false,
            k_order: false,
            packed: false,
            score: ScoreTerms::default(),
            stats: Stats::None,
            accumulate: false,
            chunks: None,
        };
        let small = |head_dim, value_dim| base(head_dim, value_dim, TileLimits::WEBGPU);
        let few = |dim, limits| Self {
            tile: Tile::choose(dim, dim, 8, 64, limits).expect("WebGPU's limits hold every size"),
            ..base(dim, dim, limits)
        };
        let mut list = vec![];
        for dim in [32, 64, 128, 256] {
            list.push(small(dim, dim));
            list.push(base(dim, dim, TileLimits::GENEROUS));
            list.push(base(dim, dim, TileLimits::CPU));
        }
        for (size, subgroup) in [(8, 8), (16, 64)] {
            let limits = TileLimits::of(TileKind::Matrix(Matrices { size, subgroup }));
            let halves = |dim, output| Self { input: ElementType::F16, output, ..base(dim, dim, limits) };
            list.push(halves(64, ElementType::F16));
            list.push(halves(128, ElementType::F16));
            list.push(Self { stats: Stats::Lse, ..halves(7, ElementType::F16) });
            list.push(Self {
                stats: Stats::State,
                accumulate: true,
                k_order: true,
                ..halves(64, ElementType::F32)
            });
        }
        for element in [ElementType::F16, ElementType::Bf16] {
            list.push(Self { input: element, output: element, ..small(64, 64) });
            list.push(Self { input: element, output: element, ..small(7, 7) });
        }
        list.push(Self { stats: Stats::Lse, ..small(80, 7) });
        list.push(Self { stats: Stats::State, ..small(64, 64) });
        list.push(Self {
            stats: Stats::State,
            accumulate: true,
            q_order: true,
            k_order: true,
            ..small(64, 64)
        });
        list.push(Self { stats: Stats::State, accumulate: true, ..small(7, 7) });
        list.push(Self { stats: Stats::State, packed: true, ..few(128, TileLimits::WEBGPU) });
        list.push(Self { stats: Stats::State, packed: true, ..few(128, TileLimits::CPU) });
        for (softcap, bias, alibi) in [(true, false, false), (false, true, false), (false, false, true)] {
            list.push(Self {
                score: ScoreTerms { softcap, bias, alibi },
                stats: Stats::Lse,
                ..small(64, 64)
            });
        }
        for chunks in SortedChunks::representatives() {
            let stats = Stats::State;
            let one_block = Self::ONE_BLOCK;
            list.push(Self {
                chunks: Some(chunks),
                stats,
                block_q: one_block,
                block_k: one_block,
                ..small(64, 64)
            });
        }
        list
    }
}

/// Files that define `out_word`, `store_out` and `load_out`.
pub(super) fn store_files(output: ElementType, aligned: bool) -> Vec<&'static str> {
    let f16 = include_str!("../../shaders/element/out_f16.wgsl");
    let bf16 = include_str!("../../shaders/element/out_bf16.wgsl");
    let x4 = include_str!("../../shaders/lib/store_16_x4.wgsl");
    let x1 = include_str!("../../shaders/lib/store_16_x1.wgsl");
    match (output, aligned) {
        (ElementType::F32, true) => vec![include_str!("../../shaders/lib/store_f32_x4.wgsl")],
        (ElementType::F32, false) => vec![include_str!("../../shaders/lib/store_f32_x1.wgsl")],
        (ElementType::F16, true) => vec![x4, f16],
        (ElementType::F16, false) => vec![x1, f16],
        (ElementType::Bf16, true) => vec![x4, bf16],
        (ElementType::Bf16, false) => vec![x1, bf16],
    }
}
