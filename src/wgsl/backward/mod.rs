//! Variants of `backward.wgsl`.
//!
//! - [`mod@around`]: of the kernels around it.
//! - [`mod@cooperative`]: its tiles of cooperative matrices.
//! - [`mod@representatives`]: a list of variants for static checks.

mod around;
mod cooperative;
mod representatives;

pub use around::{CopyPass, NarrowVariant, RecordVariant};
pub(in crate::wgsl) use cooperative::PassMemory;

use super::attention::heads;
use super::{
    CooperativeTile, Header, Shader, SortedChunks, StagedTile, Tile, TileKind, TileLimits, score, tensor,
};
use crate::{ElementType, Result, Score};

/// Whose gradient a pass of the backward kernel computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackwardRows {
    /// Of the queries: dq.
    Queries,
    /// Of the keys, of the values, or of both.
    Keys {
        /// Whether dk is computed.
        dk: bool,
        /// Whether dv is computed.
        dv: bool,
    },
    /// Of what the pairs of queries read of a tensor of the score's terms, of this name.
    Tensor(&'static str),
}

/// Whether pairs have products beside those of q and k.
fn adds_rows(score: &Score) -> bool {
    score.relative().is_some() || score.term("segments").is_some()
}

impl BackwardRows {
    /// Columns of a tile at most.
    const MOST_COLUMNS: usize = 128;
    /// Pairs of a tile at most, where sums are of pairs.
    const MOST_PAIRS: usize = 1024;
    /// Columns of sums whose tile has 32 columns by as many rows.
    const PAIRS_COLUMNS: usize = 64;

    /// The largest tile that fits, of at most `rows` rows and, where the columns of the sums leave the choice, of at most `columns` columns.
    ///
    /// # Errors
    /// [`Error::Limit`](crate::Error::Limit) if even the smallest does not fit.
    pub fn tile(
        self,
        [head_dim, value_dim]: [usize; 2],
        [rows, columns]: [usize; 2],
        score: &Score,
        limits: TileLimits,
    ) -> Result<Tile> {
        let dims = [head_dim, value_dim];
        let (width, rows) = match self {
            // Its sums are of pairs: lanes for 1,024 of them.
            Self::Tensor(_) => (Self::PAIRS_COLUMNS, rows.min(32)),
            _ => (self.width(dims), rows),
        };
        match limits.kind {
            TileKind::Cooperative(matrices) if self.on_matrices(score) => {
                PassMemory::choose(self, dims, rows, limits, matrices).map(Tile::Cooperative)
            }
            TileKind::Staged | TileKind::Cooperative(_) => {
                let beside = self.bytes_beside(score, Self::MOST_COLUMNS, Self::MOST_PAIRS);
                let left = limits.workgroup_bytes.saturating_sub(beside);
                let limits = TileLimits { workgroup_bytes: left, ..limits };
                StagedTile::choose_streaming(width, rows, columns, limits).map(Tile::Staged)
            }
            TileKind::Direct => Tile::choose(
                head_dim,
                value_dim,
                rows,
                columns,
                TileLimits { kind: TileKind::Direct, ..limits },
            ),
        }
    }

    /// Workgroup memory beside a staged tile of so many columns and pairs: two numbers of each column, as `backward/staged_added.wgsl` has
    /// them, a derivative and an element of each pair, as `backward/terms.wgsl` has them.
    fn bytes_beside(self, score: &Score, columns: usize, pairs: usize) -> usize {
        let numbers = if adds_rows(score) { 8 * columns } else { 0 };
        let of_pairs = if matches!(self, Self::Tensor(_)) { 8 * pairs } else { 0 };
        numbers + of_pairs
    }

    /// Whether matrices make its products, and nothing is added to each.
    fn on_matrices(self, score: &Score) -> bool {
        !matches!(self, Self::Tensor(_)) && !adds_rows(score)
    }

    /// Columns of the sums.
    fn width(self, [head_dim, value_dim]: [usize; 2]) -> usize {
        match self {
            Self::Queries | Self::Keys { dk: true, dv: false } => head_dim,
            Self::Keys { dk: false, .. } => value_dim,
            Self::Keys { .. } => head_dim.max(value_dim),
            Self::Tensor(_) => 0,
        }
    }

    /// Whether dq, dk and dv are computed.
    fn has(self) -> [bool; 3] {
        match self {
            Self::Queries => [true, false, false],
            Self::Tensor(_) => [false, false, false],
            Self::Keys { dk, dv } => [false, dk, dv],
        }
    }

    /// Whether the derivatives by the scores are needed: dv is a sum of weights alone.
    fn has_slopes(self) -> bool {
        self != Self::Keys { dk: false, dv: true }
    }
}

/// All that tells one shader of the backward pass from another. What it calls queries are the rows of the pass, its keys are
/// the columns: under [`BackwardRows::Keys`] the mask is transposed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BackwardVariant {
    /// Whose gradients.
    pub rows: BackwardRows,
    /// How the lanes of a workgroup share its work: see [`BackwardRows::tile`].
    pub tile: Tile,
    /// Elements of a query and of a key, d.
    pub head_dim: usize,
    /// Elements of a value, dv.
    pub value_dim: usize,
    /// Storage of q.
    pub q: ElementType,
    /// Storage of k and v.
    pub kv: ElementType,
    /// Storage of the gradient of out.
    pub dout: ElementType,
    /// Storage of what is written.
    pub gradient: ElementType,
    /// Every row of q begins at, and has, a multiple of 4 elements.
    pub aligned_q: bool,
    /// Every row of k and of v begins at, and has, a multiple of 4 elements.
    pub aligned_kv: bool,
    /// Every row of the gradient of out begins at, and has, a multiple of 4 elements.
    pub aligned_dout: bool,
    /// Every row that is written begins at, and has, a multiple of 4 elements.
    pub aligned_gradient: bool,
    /// Rows of a mask block.
    pub block_q: usize,
    /// Columns of a mask block.
    pub block_k: usize,
    /// Rows are reached through an order.
    pub q_order: bool,
    /// Columns are reached through an order.
    pub k_order: bool,
    /// Some query heads are computed, which the mask lists.
    pub chosen_heads: bool,
    /// The score: its terms count, not their numbers.
    pub score: Score,
    /// Add to what an earlier part wrote (needs f32).
    pub accumulate: bool,
    /// The forward pass ran on cooperative matrices: a score may be above the maximum of its row.
    pub late_maxima: bool,
    /// Rows and columns in sorted places instead of under a block mask; the norms of the keys then lie behind the records.
    pub chunks: Option<SortedChunks>,
}

impl BackwardVariant {
    fn has(&self) -> [bool; 3] {
        self.rows.has()
    }

    /// Whether a lane can hold the sums: of dk and dv both, wide ones leave the registers of most GPUs.
    pub fn fits_registers(&self) -> bool {
        let both = self.rows == BackwardRows::Keys { dk: true, dv: true };
        let wide = match self.tile {
            Tile::Staged(StagedTile { wide, .. }) | Tile::Cooperative(CooperativeTile { wide, .. }) => wide,
            Tile::Direct(_) => false,
        };
        !(both && wide)
    }

    /// What lies in workgroup memory, if it is laid out for cooperative matrices.
    pub(in crate::wgsl) fn memory(&self) -> Option<PassMemory> {
        let Self { rows, head_dim, value_dim, .. } = *self;
        match self.tile {
            Tile::Cooperative(tile) => Some(PassMemory { tile, rows, head_dim, value_dim }),
            Tile::Staged(_) | Tile::Direct(_) => None,
        }
    }

    /// Columns of a tile. The direct tile of dq, dk and dv takes twice as many as the forward pass, where the rows meet as many in a row.
    fn columns(&self) -> usize {
        let in_a_row = match &self.chunks {
            Some(chunks) => chunks.chunk * (chunks.look_back + 1 + chunks.look_ahead),
            None => self.block_k,
        };
        let one_by_one = adds_rows(&self.score) || matches!(self.rows, BackwardRows::Tensor(_));
        match self.tile {
            Tile::Direct(_) if !one_by_one && in_a_row >= 2 * self.tile.keys() => 2 * self.tile.keys(),
            _ => self.tile.keys(),
        }
    }

    /// The shader of this variant.
    pub fn shader(&self) -> Shader {
        let [dq, dk, dv] = self.has();
        let header = self
            .tile_constants()
            .u32s(&[
                ("HEAD_DIM", self.head_dim),
                ("VALUE_DIM", self.value_dim),
                ("HEAD_GROUPS", self.head_dim.div_ceil(4)),
                ("VALUE_GROUPS", self.value_dim.div_ceil(4)),
                ("BLOCK_Q", self.block_q),
                ("BLOCK_K", self.block_k),
                ("WORDS_PER_TILE_ROW", self.block_k.div_ceil(32)),
                ("KEY_STRIDE", self.key_stride()),
            ])
            .bools(&[
                ("MAY_SPLIT", false),
                ("HAS_Q_ORDER", self.q_order),
                ("HAS_K_ORDER", self.k_order),
                ("ROWS_ARE_QUERIES", !matches!(self.rows, BackwardRows::Keys { .. })),
                ("HAS_HEAD", dq || dk),
                ("HAS_VALUE", dv),
                ("HAS_SLOPES", self.rows.has_slopes()),
                ("ACCUMULATE", self.accumulate),
                ("LATE_MAXIMA", self.late_maxima),
                ("BASE_E", !self.score.is_plain()),
                ("SCORES_NEED_POSITIONS", self.chunks.is_some() || self.score.changes_pairs()),
                ("SCORES_MAY_DROP", self.score.rules().any(|rule| rule.may_remove())),
                ("HAS_RELATIVE", self.score.relative().is_some()),
                ("HAS_SEGMENTS", self.score.term("segments").is_some()),
            ]);
        let mut header = score::constants(header, &self.score);
        if let Some(chunks) = &self.chunks {
            header = chunks.constants(header, self.tile.rows(), !self.score.is_plain());
        }
        let texts = self.texts();
        let files: Vec<&str> = texts.iter().map(String::as_str).collect();
        Shader {
            for_cpus: self.tile.is_for_cpus(),
            ..header.params(&self.params()).shader(self.label(), "backward", &files)
        }
    }

    fn tile_constants(&self) -> Header {
        match self.memory() {
            Some(memory) => {
                let tile = &self.tile;
                let sizes = [("LANES", tile.lanes()), ("ROWS", tile.rows()), ("KEYS", tile.keys())];
                memory.constants(Header::default().u32s(&sizes))
            }
            // The constants are those of the forward pass's tile, the text is not.
            None => {
                let (header, _) = self.tile.constants_of(Header::default(), self.head_dim, self.columns());
                let (rows, columns) = (self.tile.rows(), self.tile.keys());
                match self.tile {
                    Tile::Staged(_) => {
                        let beside = self.rows.bytes_beside(&self.score, columns, rows * columns);
                        header.u32s(&[("BESIDE_BYTES", beside)])
                    }
                    _ => header,
                }
            }
        }
    }

    /// How far the 4 columns lie apart whose bits of the mask are asked for together.
    fn key_stride(&self) -> usize {
        match self.tile {
            Tile::Staged(tile) => tile.lanes_c,
            Tile::Direct(_) | Tile::Cooperative(_) => 1,
        }
    }

    /// The members of `params`, and their structs.
    fn params(&self) -> Vec<(&'static str, &'static str)> {
        let rows = ["q", "k", "v", "dout"].map(|tensor| (tensor, "Rows"));
        let mut members = vec![("kernel", "KernelParams"), ("keep", "KeepParams")];
        members.extend(rows);
        let written = ["dq", "dk", "dv"].into_iter().zip(self.has()).filter(|(_, has)| *has);
        members.extend(written.map(|(name, _)| (name, "Rows")));
        if let BackwardRows::Tensor(_) = self.rows {
            members.push(("term", "TermParams"));
        }
        let shape = crate::AttentionShape::new(1, 1, 1, self.head_dim);
        let terms = self.score.rules().filter_map(|rule| rule.params(&shape));
        members.extend(terms.map(|block| (block.member, block.name)));
        members
    }

    fn texts(&self) -> Vec<String> {
        let mut texts: Vec<String> = vec![include_str!("../../../shaders/backward.wgsl").into()];
        texts.extend(self.pass_texts());
        texts.push(heads(self.chosen_heads).into());
        texts.push(include_str!("../../../shaders/lib/pairs.wgsl").into());
        texts.push(include_str!("../../../shaders/lib/weight.wgsl").into());
        let ends = self.chunks.map(|_| SortedChunks::ENDS);
        match self.chunks {
            Some(_) => texts
                .extend([SortedChunks::KEEP, SortedChunks::SCORE, SortedChunks::SLOPES].map(String::from)),
            None => texts.push(include_str!("../../../shaders/keep/bits.wgsl").into()),
        }
        texts.extend(score::texts(&self.score, ends));
        texts.push(score::slope(&self.score, self.tensor(), ends));
        match self.score.relative() {
            Some(relative) => {
                let aligned = relative.is_aligned(self.head_dim);
                texts.push(include_str!("../../../shaders/backward/relative.wgsl").into());
                texts.push(tensor::reads("relative_rows", ElementType::F32, aligned));
            }
            None => texts.push(include_str!("../../../shaders/backward/no_relative.wgsl").into()),
        }
        let segments = self.score.term("segments").is_some();
        if segments {
            texts.push(include_str!("../../../shaders/backward/segments.wgsl").into());
            texts.push(tensor::reads("segments", ElementType::F32, false));
        } else {
            texts.push(include_str!("../../../shaders/backward/no_segments.wgsl").into());
        }
        texts.extend(score::weights(
            &self.score,
            include_str!("../../../shaders/backward/dropout.wgsl"),
            include_str!("../../../shaders/backward/no_dropout.wgsl"),
        ));
        texts.push(self.added_text().into());
        texts.extend([
            tensor::reads("q", self.q, self.aligned_q),
            match self.chunks {
                Some(_) => tensor::same("k", "q"),
                None => tensor::reads("k", self.kv, self.aligned_kv),
            },
            tensor::reads_if(self.rows.has_slopes(), "v", self.kv, self.aligned_kv),
            tensor::reads("dout", self.dout, self.aligned_dout),
        ]);
        let written = ["dq", "dk", "dv"].into_iter().zip(self.has()).filter(|(_, has)| *has);
        let store = |(name, _)| tensor::stores(name, self.gradient, self.aligned_gradient);
        texts.extend(written.map(store));
        texts.push(tensor::narrow(self.gradient).into());
        texts
    }

    /// What the products of pairs have beside those of q and k, on this tile.
    fn added_text(&self) -> &'static str {
        match (&self.tile, adds_rows(&self.score)) {
            (Tile::Direct(_), true) => include_str!("../../../shaders/backward/added.wgsl"),
            (Tile::Direct(_), false) => include_str!("../../../shaders/backward/no_added.wgsl"),
            (Tile::Staged(_), true) => include_str!("../../../shaders/backward/staged_added.wgsl"),
            (Tile::Staged(_), false) => include_str!("../../../shaders/backward/staged_no_added.wgsl"),
            // Matrices make no products beside: `on_matrices`.
            (Tile::Cooperative(_), _) => "",
        }
    }

    /// Whose gradients, where they go, and how the lanes share the work.
    fn pass_texts(&self) -> Vec<String> {
        let [dq, dk, dv] = self.has();
        let mut texts = vec![match self.rows {
            BackwardRows::Keys { .. } => include_str!("../../../shaders/backward/keys.wgsl"),
            _ => include_str!("../../../shaders/backward/queries.wgsl"),
        }];
        texts.push(match (dq, dk) {
            (true, _) => include_str!("../../../shaders/backward/dq.wgsl"),
            (_, true) => include_str!("../../../shaders/backward/dk.wgsl"),
            _ => include_str!("../../../shaders/backward/no_head.wgsl"),
        });
        texts.push(match dv {
            true => include_str!("../../../shaders/backward/dv.wgsl"),
            false => include_str!("../../../shaders/backward/no_value.wgsl"),
        });
        match self.tile {
            Tile::Direct(_) => texts.push(include_str!("../../../shaders/backward/direct.wgsl")),
            Tile::Cooperative(_) => texts.extend([
                include_str!("../../../shaders/backward/cooperative.wgsl"),
                include_str!("../../../shaders/lib/matrices.wgsl"),
            ]),
            Tile::Staged(_) => texts.extend([
                include_str!("../../../shaders/backward/staged.wgsl"),
                include_str!("../../../shaders/lib/columns.wgsl"),
            ]),
        }
        texts.into_iter().map(String::from).chain(self.term_texts()).collect()
    }

    /// What becomes of the derivatives beside: the gradient of a tensor of the score's terms.
    fn term_texts(&self) -> Vec<String> {
        let BackwardRows::Tensor(name) = self.rows else {
            return vec![include_str!("../../../shaders/backward/no_terms.wgsl").into()];
        };
        let shape = crate::AttentionShape::new(1, 1, 1, self.head_dim);
        let vectors = self.score.gradient(name, &shape).and_then(|gradient| gradient.vectors);
        let mut texts =
            vec![include_str!("../../../shaders/backward/terms.wgsl").into(), score::element(name)];
        match vectors {
            Some(vectors) => {
                texts.extend([include_str!("../../../shaders/backward/vectors.wgsl").into(), vectors.into()])
            }
            None => texts.push(include_str!("../../../shaders/backward/elements.wgsl").into()),
        }
        texts
    }

    fn tensor(&self) -> Option<&'static str> {
        match self.rows {
            BackwardRows::Tensor(name) => Some(name),
            _ => None,
        }
    }

    fn label(&self) -> String {
        let rows = match self.rows {
            BackwardRows::Tensor(name) => &format!("d {name}"),
            BackwardRows::Queries => "dq",
            BackwardRows::Keys { dk: true, dv: true } => "dk dv",
            BackwardRows::Keys { dk: true, .. } => "dk",
            BackwardRows::Keys { .. } => "dv",
        };
        let mut label = format!(
            "backward {rows} d{} dv{} {}/{} {}->{} tile {} block {}x{}",
            self.head_dim,
            self.value_dim,
            self.q,
            self.kv,
            self.dout,
            self.gradient,
            self.tile,
            self.block_q,
            self.block_k
        );
        let flags = [
            (!self.aligned_q, "unaligned-q"),
            (!self.aligned_kv, "unaligned-kv"),
            (!self.aligned_dout, "unaligned-dout"),
            (!self.aligned_gradient, "unaligned-gradient"),
            (self.late_maxima, "late-maxima"),
            (self.q_order, "q-order"),
            (self.k_order, "k-order"),
            (self.chosen_heads, "chosen-heads"),
            (self.accumulate, "accumulate"),
            (self.columns() > self.tile.keys(), "32-columns"),
        ];
        label += &score::suffix(&flags, &self.score);
        label.extend(self.chunks.iter().map(SortedChunks::label));
        label
    }
}
