//! Variants in which every file and every flag's values occur.

use super::super::{AttentionVariant, Matrices, SortedChunks, Tile, TileKind, TileLimits};
use super::{BackwardRows, BackwardVariant};
use crate::{Alibi, BiasStrides, Buckets, ElementType, Relative, Score, Segments, Slopes, Temperature};

impl BackwardVariant {
    /// Over sorted chunks, for the list below.
    fn sorted_representatives(base: impl Fn(BackwardRows) -> Self) -> Vec<Self> {
        let of_chunks = |chunks: SortedChunks| {
            let score = if chunks.count_once { Score::new().softcap(30.0).alibi() } else { Score::new() };
            let sorted = |rows| Self {
                chunks: Some(chunks),
                score: score.clone(),
                block_q: AttentionVariant::ONE_BLOCK,
                block_k: AttentionVariant::ONE_BLOCK,
                q_order: true,
                k_order: true,
                accumulate: true,
                ..base(rows)
            };
            [BackwardRows::Queries, BackwardRows::Keys { dk: true, dv: true }].map(sorted)
        };
        SortedChunks::representatives().into_iter().flat_map(of_chunks).collect()
    }

    /// A list in which every file and every flag's values occur.
    pub(in crate::wgsl) fn representatives() -> Vec<Self> {
        use ElementType::{Bf16, F16, F32};
        let both = BackwardRows::Keys { dk: true, dv: true };
        let one = |dk| BackwardRows::Keys { dk, dv: !dk };
        let tile = |rows: BackwardRows, dim, score: &Score, limits| {
            rows.tile([dim; 2], [64; 2], score, limits).expect("the limits allow a tile")
        };
        let base = |rows: BackwardRows, dim: usize| Self {
            rows,
            tile: tile(rows, dim, &Score::new(), TileLimits::CPU),
            head_dim: dim,
            value_dim: dim,
            q: F32,
            kv: F32,
            dout: F32,
            gradient: F32,
            aligned_q: dim.is_multiple_of(4),
            aligned_kv: dim.is_multiple_of(4),
            aligned_dout: dim.is_multiple_of(4),
            aligned_gradient: dim.is_multiple_of(4),
            block_q: 64,
            block_k: 64,
            q_order: false,
            k_order: false,
            chosen_heads: false,
            score: Score::new(),
            accumulate: false,
            late_maxima: false,
            chunks: None,
        };
        let mut list = vec![];
        let relative = Relative::new(63, 127).u(true).w(true);
        for (name, score, dim) in [
            ("bias", Score::new().bias(BiasStrides::default()), 64),
            ("slopes", Score::new().with(Alibi::new(Slopes::Given)), 7),
            ("temperature", Score::new().softcap(3.0).with(Temperature), 64),
            ("bucket_table", Score::new().with(Buckets::new(32, 128)), 64),
            ("relative_rows", Score::new().with(relative), 64),
            ("relative_biases", Score::new().with(relative), 7),
            ("segments", Score::new().with(Segments), 7),
            ("bias", Score::new().bias(BiasStrides::default()).dropout(0.1, 1), 7),
        ] {
            list.push(Self { score, ..base(BackwardRows::Tensor(name), dim) });
        }
        for rows in [BackwardRows::Queries, both] {
            for dim in [64, 128, 7] {
                list.push(base(rows, dim));
            }
            let ordered = Self { q_order: true, k_order: true, accumulate: true, ..base(rows, 64) };
            list.push(Self { accumulate: true, ..base(rows, 7) });
            list.push(ordered);
            list.push(Self { chosen_heads: true, ..base(rows, 64) });
            for element in [F16, Bf16] {
                let narrow = |dim| Self {
                    q: element,
                    kv: element,
                    dout: element,
                    gradient: element,
                    ..base(rows, dim)
                };
                list.extend([narrow(64), narrow(7)]);
            }
            list.push(Self { score: Score::new().softcap(30.0), ..base(rows, 64) });
        }
        for rows in [BackwardRows::Queries, one(true), one(false)] {
            for score in
                [Score::new(), Score::new().softcap(30.0).bias(BiasStrides::default()), Score::new().alibi()]
            {
                list.push(Self { score, ..base(rows, 64) });
            }
            list.push(Self { score: Score::new().softcap(3.0).with(Temperature), ..base(rows, 64) });
            list.push(Self { score: Score::new().with(Segments), ..base(rows, 64) });
            list.push(Self { score: Score::new().dropout(0.1, 1), ..base(rows, 64) });
            for (dim, relative) in [(64, Relative::new(63, 127)), (7, Relative::new(63, 127).u(true).w(true))]
            {
                list.push(Self { score: Score::new().with(relative), ..base(rows, dim) });
            }
        }
        list.extend(Self::sorted_representatives(|rows| base(rows, 64)));
        // The same for GPUs, where there is such a tile.
        for n in 0..list.len() {
            let it = &list[n];
            let tile = tile(it.rows, it.head_dim, &it.score, TileLimits::GENEROUS);
            if !matches!(tile, Tile::Direct(_)) {
                list.push(Self { tile, ..it.clone() });
            }
        }
        list.extend(Self::cooperative_representatives(base));
        list
    }

    /// On cooperative matrices.
    fn cooperative_representatives(base: impl Fn(BackwardRows, usize) -> Self) -> Vec<Self> {
        use ElementType::{F16, F32};
        let one = |dk| BackwardRows::Keys { dk, dv: !dk };
        let both = BackwardRows::Keys { dk: true, dv: true };
        let of_matrices = |(size, subgroup)| {
            let limits = TileLimits::of(TileKind::Cooperative(Matrices { size, subgroup }));
            let halves = |rows: BackwardRows, dim| {
                let tile =
                    rows.tile([dim; 2], [64; 2], &Score::new(), limits).expect("the limits allow a tile");
                Self { tile, q: F16, kv: F16, dout: F16, gradient: F16, late_maxima: true, ..base(rows, dim) }
            };
            let ordered = Self { q_order: true, k_order: true, accumulate: true, ..halves(both, 64) };
            let score = Score::new().softcap(30.0).bias(BiasStrides::default());
            let mut list = vec![
                halves(BackwardRows::Queries, 64),
                halves(both, 64),
                Self { gradient: F32, score, ..halves(BackwardRows::Queries, 7) },
                halves(both, 7),
                Self { gradient: F32, ..ordered },
            ];
            // Subgroups of 64 take 64 columns at a time, and wide rows of so many do not fit.
            if subgroup < 64 {
                list.extend([BackwardRows::Queries, one(true), one(false)].map(|rows| halves(rows, 128)));
            }
            list
        };
        [(8, 8), (16, 32), (16, 64)].into_iter().flat_map(of_matrices).collect()
    }
}
