//! Variants of `attention.wgsl`.

use super::{
    GpuFamily, Header, Matrices, MatrixSums, Shader, SortedChunks, Tile, TileKind, TileLimits, score, tensor,
};
use crate::{Alibi, Bias, BiasStrides, Buckets, ElementType, Relative, Score, Segments, Sinks, Temperature};

/// What the kernel leaves beside the output rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stats {
    /// Nothing.
    None,
    /// lse, one f32 per row.
    Lse,
    /// (m, l), two f32 per row, so that a later part can merge.
    State,
}

/// All that tells one attention shader from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AttentionVariant {
    /// Sizes of a workgroup.
    pub tile: Tile,
    /// Elements of a query and of a key, d.
    pub head_dim: usize,
    /// Elements of a value, dv.
    pub value_dim: usize,
    /// Storage of q.
    pub q: ElementType,
    /// Storage of k and v.
    pub kv: ElementType,
    /// Storage of out.
    pub output: ElementType,
    /// Every row of q begins at, and has, a multiple of 4 elements.
    pub aligned_q: bool,
    /// Every row of k and of v begins at, and has, a multiple of 4 elements.
    pub aligned_kv: bool,
    /// Every row of out begins at, and has, a multiple of 4 elements.
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
    /// Some query heads are computed, which the mask lists.
    pub chosen_heads: bool,
    /// The score: its terms count, not their numbers.
    pub score: Score,
    /// What is left beside the output.
    pub stats: Stats,
    /// Merge with what an earlier part left (needs [`Stats::State`] and f32 output).
    pub accumulate: bool,
    /// Queries and keys in sorted places instead of under a block mask.
    pub chunks: Option<SortedChunks>,
}

/// Which query heads are computed: those that the mask lists, or all.
pub(super) fn heads(chosen: bool) -> &'static str {
    match chosen {
        true => include_str!("../../shaders/heads/chosen.wgsl"),
        false => include_str!("../../shaders/heads/all.wgsl"),
    }
}

/// Of the rows, likewise.
pub(super) fn rows_of_heads(chosen: bool) -> &'static str {
    match chosen {
        true => include_str!("../../shaders/heads/chosen_rows.wgsl"),
        false => include_str!("../../shaders/heads/all_rows.wgsl"),
    }
}

impl AttentionVariant {
    /// Block sizes of a variant over sorted chunks: places are not cut into blocks.
    pub const ONE_BLOCK: usize = 1 << 31;
    /// Whether scores are in base e instead of base 2: where terms are added to scale q . k.
    pub fn base_e(&self) -> bool {
        !self.score.is_plain()
    }

    /// Whether several workgroups may share the keys of a row: they leave it to be merged.
    fn may_split(&self) -> bool {
        self.stats == Stats::State && self.chunks.is_none()
    }

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
                ("WORDS_PER_TILE_ROW", self.block_k.div_ceil(32)),
            ])
            .bools(&[
                ("HAS_Q_ORDER", self.q_order),
                ("HAS_K_ORDER", self.k_order),
                ("PACKED", self.packed),
                ("ACCUMULATE", self.accumulate),
                ("MAY_SPLIT", self.may_split()),
                ("BASE_E", self.base_e()),
                ("SCORES_NEED_POSITIONS", self.chunks.is_some() || self.score.changes_pairs()),
                ("SCORES_MAY_DROP", self.score.rules().any(|rule| rule.may_remove())),
                ("SCORES_MAY_SPOIL", self.score.rules().any(|rule| rule.may_spoil())),
            ]);
        header = score::constants(header, &self.score);
        if let Some(chunks) = &self.chunks {
            header = chunks.constants(header, self.tile.rows(), self.base_e());
            header = header.bools(&[("ROWS_ARE_QUERIES", true)]);
        }
        let texts = self.texts(tile_file);
        let files: Vec<&str> = texts.iter().map(String::as_str).collect();
        Shader {
            for_cpus: self.tile.is_for_cpus(),
            // The tables of LSH attention are made on the device, from tensors; the caller's own text is anyone's.
            proven: self.chunks.is_none() && self.score.customs().next().is_none(),
            ..header.params(&self.params()).shader(self.label(), "attention", &files)
        }
    }

    /// The members of `params`, and their structs.
    fn params(&self) -> Vec<(&'static str, &'static str)> {
        let rows = ["q", "k", "v", "out"].map(|tensor| (tensor, "Rows"));
        let mut members = vec![("kernel", "KernelParams"), ("keep", "KeepParams")];
        members.extend(rows);
        let shape = crate::AttentionShape::new(1, 1, 1, self.head_dim);
        let terms = self.score.rules().filter_map(|rule| rule.params(&shape));
        members.extend(terms.map(|block| (block.member, block.name)));
        members
    }

    fn texts(&self, tile: &'static str) -> Vec<String> {
        let keep = match self.chunks {
            Some(_) => SortedChunks::KEEP,
            None => include_str!("../../shaders/keep/bits.wgsl"),
        };
        let stats = match self.stats {
            Stats::None => include_str!("../../shaders/stats/none.wgsl"),
            Stats::Lse => include_str!("../../shaders/stats/lse.wgsl"),
            Stats::State => include_str!("../../shaders/stats/state.wgsl"),
        };
        let files = [
            include_str!("../../shaders/attention.wgsl"),
            include_str!("../../shaders/lib/scores.wgsl"),
            include_str!("../../shaders/lib/pairs.wgsl"),
            include_str!("../../shaders/lib/tile_softmax.wgsl"),
            include_str!("../../shaders/lib/online_softmax.wgsl"),
            include_str!("../../shaders/lib/merge.wgsl"),
            tile,
            self.entry(),
            keep,
            stats,
        ];
        let mut texts: Vec<String> = files.map(String::from).into();
        texts.push(heads(self.chosen_heads).into());
        if !matches!(self.tile, Tile::Direct(_)) {
            texts.push(include_str!("../../shaders/lib/strange_values.wgsl").into());
        }
        if matches!(self.tile, Tile::Staged(_)) {
            texts.push(include_str!("../../shaders/lib/columns.wgsl").into());
        }
        if matches!(self.tile, Tile::Cooperative(_)) {
            texts.push(include_str!("../../shaders/lib/matrices.wgsl").into());
        }
        texts.extend(
            self.chunks.iter().flat_map(|_| [SortedChunks::SCORE, SortedChunks::NORMS].map(String::from)),
        );
        texts.extend(score::texts(&self.score, self.chunks.map(|_| SortedChunks::ENDS)));
        texts.extend(self.relative_texts());
        texts.push(score::rows(&self.score));
        texts.extend(score::weights(
            &self.score,
            include_str!("../../shaders/score/dropout_tile.wgsl"),
            include_str!("../../shaders/score/no_dropout.wgsl"),
        ));
        match self.score.term("segments") {
            Some(_) => texts.extend([
                include_str!("../../shaders/score/segments_tile.wgsl").into(),
                tensor::reads("segments", ElementType::F32, false),
            ]),
            None => texts.push(include_str!("../../shaders/score/no_segments.wgsl").into()),
        }
        texts.extend([
            tensor::reads("q", self.q, self.aligned_q),
            // Sorted places are of queries that are the keys, too: one binding less, for a tensor of the score.
            match self.chunks {
                Some(_) => tensor::same("k", "q"),
                None => tensor::reads("k", self.kv, self.aligned_kv),
            },
            tensor::reads("v", self.kv, self.aligned_kv),
            tensor::writes(self.output, self.aligned_out),
        ]);
        texts
    }

    /// Which lane works where.
    fn entry(&self) -> &'static str {
        match self.tile {
            Tile::Staged(tile) if tile.by_subgroup => include_str!("../../shaders/lanes/by_subgroup.wgsl"),
            _ => include_str!("../../shaders/lanes/by_index.wgsl"),
        }
    }

    /// What the products have beside scale q . k.
    fn relative_texts(&self) -> Vec<String> {
        let Some(relative) = self.score.relative() else {
            return vec![include_str!("../../shaders/score/no_relative.wgsl").into()];
        };
        let tile = include_str!("../../shaders/score/relative_tile.wgsl");
        let (has_biases, whole) = (relative.has_u() || relative.has_w(), self.head_dim.is_multiple_of(4));
        // Without orders, the distances of a tile are those of the tile before, moved on.
        let moves_on = !self.q_order && !self.k_order && !self.packed;
        vec![
            tile.into(),
            match self.tile {
                Tile::Direct(_) if moves_on => include_str!("../../shaders/score/relative_ring.wgsl").into(),
                _ => include_str!("../../shaders/score/relative_pairs.wgsl").into(),
            },
            tensor::reads("relative_rows", ElementType::F32, relative.is_aligned(self.head_dim)),
            tensor::reads_if(has_biases, "relative_biases", ElementType::F32, whole),
        ]
    }

    fn label(&self) -> String {
        let storage = if self.q == self.kv { self.q.to_string() } else { format!("{}/{}", self.q, self.kv) };
        let mut label = format!(
            "attention d{} dv{} {storage}->{} tile {} block {}x{}",
            self.head_dim, self.value_dim, self.output, self.tile, self.block_q, self.block_k
        );
        let flags = [
            (!self.aligned_q, "unaligned-q"),
            (!self.aligned_kv, "unaligned-kv"),
            (!self.aligned_out, "unaligned-out"),
            (self.q_order, "q-order"),
            (self.k_order, "k-order"),
            (self.packed, "packed"),
            (self.chosen_heads, "chosen-heads"),
            (self.stats == Stats::Lse, "lse"),
            (self.stats == Stats::State, "state"),
            (self.accumulate, "accumulate"),
        ];
        label += &score::suffix(&flags, &self.score);
        label.extend(self.chunks.iter().map(SortedChunks::label));
        label
    }

    /// A list in which every provider file and every flag's two values occur.
    pub(super) fn representatives() -> Vec<Self> {
        let base = |head_dim: usize, value_dim: usize, limits| Self {
            tile: Tile::choose(head_dim, value_dim, 64, 64, limits).expect("WebGPU's limits hold every size"),
            head_dim,
            value_dim,
            q: ElementType::F32,
            kv: ElementType::F32,
            output: ElementType::F32,
            aligned_q: head_dim.is_multiple_of(4),
            aligned_kv: head_dim.is_multiple_of(4) && value_dim.is_multiple_of(4),
            aligned_out: value_dim.is_multiple_of(4),
            block_q: 64,
            block_k: 64,
            q_order: false,
            k_order: false,
            packed: false,
            chosen_heads: false,
            score: Score::new(),
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
        // Latent rows: as wide as they may be.
        for limits in [TileLimits::WEBGPU, TileLimits::GENEROUS, TileLimits::CPU] {
            list.push(base(576, 512, limits));
        }
        for (family, subgroups) in
            GpuFamily::ALL.into_iter().flat_map(|family| [(family, false), (family, true)])
        {
            let limits = TileLimits { family, subgroups, ..TileLimits::GENEROUS };
            let new = [32, 64, 128, 256]
                .map(|dim| base(dim, dim, limits))
                .into_iter()
                .filter(|one| !list.contains(one));
            list.extend(new.collect::<Vec<_>>());
        }
        for (size, subgroup) in [(8, 8), (16, 32), (16, 64)] {
            let limits = TileLimits::of(TileKind::Cooperative(Matrices { size, subgroup }));
            let f16 = ElementType::F16;
            let halves = |dim, output| Self { q: f16, kv: f16, output, ..base(dim, dim, limits) };
            list.push(halves(64, ElementType::F16));
            list.push(halves(128, ElementType::F16));
            let in_matrices = halves(64, ElementType::F16);
            list.push(Self { tile: in_matrices.tile.matrix_sums(MatrixSums::Lanes), ..in_matrices });
            list.push(Self { stats: Stats::Lse, ..halves(7, ElementType::F16) });
            list.push(Self {
                stats: Stats::State,
                accumulate: true,
                k_order: true,
                ..halves(64, ElementType::F32)
            });
        }
        for element in [ElementType::F16, ElementType::Bf16] {
            list.push(Self { q: element, kv: element, output: element, ..small(64, 64) });
            list.push(Self { q: element, kv: element, output: element, ..small(7, 7) });
            list.push(Self { kv: element, ..small(64, 64) });
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
        list.push(Self { chosen_heads: true, ..small(64, 64) });
        list.push(Self { chosen_heads: true, stats: Stats::Lse, ..base(64, 64, TileLimits::CPU) });
        list.push(Self { stats: Stats::State, packed: true, ..few(128, TileLimits::WEBGPU) });
        list.push(Self { stats: Stats::State, packed: true, ..few(128, TileLimits::CPU) });
        let bias = BiasStrides::default();
        for score in [
            Score::new().softcap(30.0),
            Score::new().bias(bias),
            Score::new().alibi(),
            Score::new().with(Temperature),
            Score::new().with(Buckets::new(32, 128).bidirectional(true)),
            Score::new().with(Segments),
            Score::new().with(Relative::new(63, 127)),
            Score::new().with(Relative::new(63, 127).u(true).w(true).clip(true)),
            Score::new().with(Sinks),
            Score::new().dropout(0.1, 1),
            Score::new().softcap(30.0).with(Sinks).dropout(0.1, 1),
            Score::new().softcap(30.0).bias(bias).with(Alibi::default()),
            Score::new().bias(bias).with(Bias::second(bias)),
        ] {
            list.push(Self { score, stats: Stats::Lse, ..small(64, 64) });
        }
        list.push(Self { score: Score::new().dropout(0.1, 1), packed: true, ..few(128, TileLimits::CPU) });
        for relative in [Relative::new(63, 127), Relative::new(63, 127).u(true).w(true)] {
            list.push(Self { score: Score::new().with(relative), ..base(64, 64, TileLimits::CPU) });
            let score = Score::new().with(relative).with(Segments).softcap(2.0);
            list.push(Self { score, ..small(64, 64) });
        }
        for chunks in SortedChunks::representatives() {
            let one_block = Self::ONE_BLOCK;
            let plain = Self {
                chunks: Some(chunks),
                stats: Stats::State,
                block_q: one_block,
                block_k: one_block,
                ..small(64, 64)
            };
            if chunks.count_once {
                let score = Score::new().softcap(30.0).bias(bias).with(Sinks);
                list.push(Self { score, ..plain.clone() });
            }
            list.push(plain);
        }
        list
    }
}
