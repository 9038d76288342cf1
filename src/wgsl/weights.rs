//! Variants of `weights.wgsl`.

use super::{Header, Shader, score, tensor};
use crate::{Alibi, BiasStrides, ElementType, Relative, Score, Segments};

/// All that tells one shader of the weights of chosen rows from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WeightsVariant {
    /// Elements of a query and of a key, d.
    pub head_dim: usize,
    /// Storage of q.
    pub q: ElementType,
    /// Storage of k.
    pub kv: ElementType,
    /// Every row of q begins at, and has, a multiple of 4 elements.
    pub aligned_q: bool,
    /// Every row of k begins at, and has, a multiple of 4 elements.
    pub aligned_k: bool,
    /// Rows of a mask block.
    pub block_q: usize,
    /// Keys of a mask block.
    pub block_k: usize,
    /// Rows are reached through an order.
    pub q_order: bool,
    /// Keys are reached through an order.
    pub k_order: bool,
    /// The score: its terms count, not their numbers.
    pub score: Score,
    /// The weights are written.
    pub matrix: bool,
    /// A summary of the weights is written, which names this many keys; `None`: none is.
    pub summary: Option<usize>,
    /// Add to the summary of earlier parts.
    pub accumulate: bool,
    /// Attention ran on cooperative matrices: a score may be above the maximum of its row.
    pub late_maxima: bool,
}

impl WeightsVariant {
    /// Lanes of a workgroup, of 4 keys each.
    pub const LANES: usize = 64;
    /// Most keys that a summary names: what the lanes hand on fits into 16 KiB of workgroup memory.
    pub const MOST: usize = 24;

    /// The shader of this variant.
    pub fn shader(&self) -> Shader {
        let header = Header::default()
            .u32s(&[
                ("HEAD_DIM", self.head_dim),
                ("HEAD_GROUPS", self.head_dim.div_ceil(4)),
                ("LANES", Self::LANES),
                ("KEYS", 4 * Self::LANES),
                ("BLOCK_Q", self.block_q),
                ("BLOCK_K", self.block_k),
                ("WORDS_PER_TILE_ROW", self.block_k.div_ceil(32)),
                ("KEY_STRIDE", 1),
                ("TOP", self.summary.unwrap_or(0)),
                ("TOP_OR_1", self.summary.unwrap_or(0).max(1)),
            ])
            .bools(&[
                ("MAY_SPLIT", false),
                ("HAS_Q_ORDER", self.q_order),
                ("HAS_K_ORDER", self.k_order),
                ("ACCUMULATE", self.accumulate),
                ("LATE_MAXIMA", self.late_maxima),
                ("BASE_E", !self.score.is_plain()),
                ("SCORES_NEED_POSITIONS", self.score.changes_pairs()),
                ("SCORES_MAY_DROP", self.score.rules().any(|rule| rule.may_remove())),
            ]);
        let texts = self.texts();
        let files: Vec<&str> = texts.iter().map(String::as_str).collect();
        score::constants(header, &self.score).params(&self.params()).shader(self.label(), "weigh", &files)
    }

    /// The members of `params`, and their structs.
    fn params(&self) -> Vec<(&'static str, &'static str)> {
        let mut members = vec![("kernel", "KernelParams"), ("keep", "KeepParams")];
        members.extend(["q", "k", "v"].map(|tensor| (tensor, "Rows")));
        let shape = crate::AttentionShape::new(1, 1, 1, self.head_dim);
        // Dropout acts on values, of which there are none.
        let terms =
            self.score.rules().filter(|rule| rule.is_of_pairs()).filter_map(|rule| rule.params(&shape));
        members.extend(terms.map(|block| (block.member, block.name)));
        members
    }

    fn texts(&self) -> Vec<String> {
        let mut texts: Vec<String> = [
            include_str!("../../shaders/weights.wgsl"),
            include_str!("../../shaders/lib/pairs.wgsl"),
            include_str!("../../shaders/lib/weight.wgsl"),
            include_str!("../../shaders/keep/bits.wgsl"),
            if self.matrix {
                include_str!("../../shaders/weights/matrix.wgsl")
            } else {
                include_str!("../../shaders/weights/no_matrix.wgsl")
            },
            match self.summary {
                Some(_) => include_str!("../../shaders/weights/summary.wgsl"),
                None => include_str!("../../shaders/weights/no_summary.wgsl"),
            },
        ]
        .map(String::from)
        .into();
        texts.extend(score::texts(&self.score, None));
        match self.score.relative() {
            Some(relative) => {
                let whole = self.head_dim.is_multiple_of(4);
                let has_biases = relative.has_u() || relative.has_w();
                texts.extend([
                    include_str!("../../shaders/weights/relative.wgsl").into(),
                    tensor::reads("relative_rows", ElementType::F32, relative.is_aligned(self.head_dim)),
                    tensor::reads_if(has_biases, "relative_biases", ElementType::F32, whole),
                ]);
            }
            None => texts.push(include_str!("../../shaders/weights/no_relative.wgsl").into()),
        }
        match self.score.term("segments") {
            Some(_) => texts.extend([
                include_str!("../../shaders/weights/segments.wgsl").into(),
                tensor::reads("segments", ElementType::F32, false),
            ]),
            None => texts.push(include_str!("../../shaders/weights/no_segments.wgsl").into()),
        }
        texts.extend([
            tensor::reads("q", self.q, self.aligned_q),
            tensor::reads("k", self.kv, self.aligned_k),
        ]);
        texts
    }

    fn label(&self) -> String {
        let mut label = format!(
            "weights d{} {}/{} block {}x{}",
            self.head_dim, self.q, self.kv, self.block_q, self.block_k
        );
        label.extend(self.summary.map(|top| format!(" top {top}")));
        let flags = [
            (self.matrix, "matrix"),
            (!self.aligned_q, "unaligned-q"),
            (!self.aligned_k, "unaligned-k"),
            (self.late_maxima, "late-maxima"),
            (self.q_order, "q-order"),
            (self.k_order, "k-order"),
            (self.accumulate, "accumulate"),
        ];
        label += &score::suffix(&flags, &self.score);
        label
    }

    /// A list in which every file and every flag's two values occur.
    pub(super) fn representatives() -> Vec<Self> {
        use ElementType::{Bf16, F16, F32};
        let base = Self {
            head_dim: 64,
            q: F32,
            kv: F32,
            aligned_q: true,
            aligned_k: true,
            block_q: 64,
            block_k: 64,
            q_order: false,
            k_order: false,
            score: Score::new(),
            matrix: true,
            summary: Some(4),
            accumulate: false,
            late_maxima: false,
        };
        // Within the 8 storage buffers of every device.
        let with = |score: Score| Self { score, summary: None, ..base.clone() };
        vec![
            base.clone(),
            Self { matrix: false, summary: Some(0), ..base.clone() },
            Self {
                q_order: true,
                k_order: true,
                accumulate: true,
                summary: Some(Self::MOST),
                ..base.clone()
            },
            Self { q: F16, kv: Bf16, late_maxima: true, ..base.clone() },
            Self { head_dim: 7, aligned_q: false, aligned_k: false, ..base.clone() },
            with(Score::new().softcap(30.0).bias(BiasStrides::default()).with(Alibi::default())),
            with(Score::new().with(Relative::new(63, 127))),
            with(Score::new().with(Relative::new(63, 127).u(true).w(true).clip(true))),
            with(Score::new().with(Segments)),
        ]
    }
}
