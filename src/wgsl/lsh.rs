//! Variants of the shaders of LSH attention: the hash, the tables, and what the blocked kernel needs to know.

use super::tensor::{narrow, reads, stores};
use super::{Header, Shader};
use crate::ElementType;
use std::f64::consts::LOG2_E;
use std::fmt::Write;

/// Keys of the blocked kernel in sorted places, cut into chunks: see [`LshOptions`](crate::LshOptions).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SortedChunks {
    /// Places of a chunk.
    pub chunk: usize,
    /// Chunks before its own that a query sees.
    pub look_back: usize,
    /// Chunks behind its own that a query sees.
    pub look_ahead: usize,
    /// The first chunk comes after the last.
    pub wrap: bool,
    /// All rounds are one line.
    pub chain_rounds: bool,
    /// No key after the query.
    pub causal: bool,
    /// Only keys of the query's bucket and round.
    pub within_bucket: bool,
    /// Pairs count once.
    pub count_once: bool,
    /// No query sees masked keys, which are in the bucket after the last.
    pub key_mask: bool,
    /// The number of buckets, which only a key mask needs.
    pub buckets: usize,
    /// The score of a query's own key, as bits.
    pub self_penalty: u32,
}

impl SortedChunks {
    pub(super) const KEEP: &'static str = include_str!("../../shaders/keep/lsh.wgsl");
    pub(super) const SCORE: &'static str = include_str!("../../shaders/score/lsh.wgsl");
    pub(super) const NORMS: &'static str = include_str!("../../shaders/lsh/norms.wgsl");
    /// What a backward pass has in its place.
    pub(super) const SLOPES: &'static str = include_str!("../../shaders/lsh/slopes.wgsl");
    /// The functions of that file that act before the first term of the score, and behind the last.
    pub(super) const ENDS: [&'static str; 2] = ["unit_key", "meeting"];

    /// Largest score in base 2, as the shader says.
    const MOST: f64 = 3.3e38;

    /// Keys that a query sees in a line of `line` places, at most.
    pub fn seen(&self, line: usize) -> usize {
        (self.look_back + 1 + self.look_ahead).saturating_mul(self.chunk).min(line)
    }

    /// Row tiles that cover a chunk.
    pub fn row_tiles(&self, rows: usize) -> usize {
        self.chunk.div_ceil(rows)
    }

    /// The constants, of scores in base e or 2.
    pub(super) fn constants(&self, header: Header, rows: usize, base_e: bool) -> Header {
        let penalty = f64::from(f32::from_bits(self.self_penalty));
        let own_score = if base_e { penalty } else { (penalty * LOG2_E).clamp(-Self::MOST, Self::MOST) };
        header
            .u32s(&[
                ("PLACES_PER_CHUNK", self.chunk),
                ("ROW_TILES_PER_CHUNK", self.row_tiles(rows)),
                ("LOOK_BACK", self.look_back),
                ("LOOK_AHEAD", self.look_ahead),
                ("BUCKETS", self.buckets),
            ])
            .bools(&[
                ("WRAP", self.wrap),
                ("CHAIN_ROUNDS", self.chain_rounds),
                ("CAUSAL", self.causal),
                ("WITHIN_BUCKET", self.within_bucket),
                ("COUNT_ONCE", self.count_once),
                ("HAS_KEY_MASK", self.key_mask),
            ])
            .f32s(&[("OWN_SCORE", own_score as f32)])
    }

    pub(super) fn label(&self) -> String {
        let flags = [
            (self.wrap, " wrap"),
            (self.chain_rounds, " chained"),
            (self.causal, " causal"),
            (self.within_bucket, " within-bucket"),
            (self.count_once, " count-once"),
            (self.key_mask, " key-mask"),
        ];
        let mut label = format!(" lsh chunk {} sees -{}+{}", self.chunk, self.look_back, self.look_ahead);
        flags.iter().filter(|flag| flag.0).for_each(|flag| label.push_str(flag.1));
        label
    }

    /// Options in which each flag has both its values.
    pub(super) fn representatives() -> [Self; 3] {
        let base = Self {
            chunk: 64,
            look_back: 1,
            look_ahead: 0,
            wrap: true,
            chain_rounds: true,
            causal: false,
            within_bucket: false,
            count_once: false,
            key_mask: false,
            buckets: 16,
            self_penalty: (-1e5f32).to_bits(),
        };
        let unchained =
            Self { wrap: false, chain_rounds: false, causal: true, key_mask: true, look_ahead: 1, ..base };
        [base, unchained, Self { within_bucket: true, count_once: true, chunk: 50, ..base }]
    }
}

/// All that tells one hashing shader from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HashVariant {
    /// Elements of a query and of a key, d.
    pub head_dim: usize,
    /// Storage of the shared queries and keys.
    pub input: ElementType,
    /// Their rows begin at, and have, multiples of 4 elements.
    pub aligned: bool,
    /// Hash rounds, R.
    pub rounds: usize,
    /// Factors of the number of buckets, each even.
    pub factors: Vec<usize>,
    /// Masked positions get the bucket after the last.
    pub key_mask: bool,
}

impl HashVariant {
    /// Positions of a workgroup, and its lanes, as the shader says.
    pub const ROWS: usize = 64;

    /// The shader of this variant.
    pub fn shader(&self) -> Shader {
        let label = format!(
            "lsh hash d{} {} r{} buckets {:?}{}{}",
            self.head_dim,
            self.input,
            self.rounds,
            self.factors,
            if self.aligned { "" } else { " unaligned" },
            if self.key_mask { " key-mask" } else { "" }
        );
        let halves = self.halves();
        Header::default()
            .u32s(&[
                ("HEAD_DIM", self.head_dim),
                ("HEAD_GROUPS", self.head_dim.div_ceil(4)),
                ("ROUNDS", self.rounds),
                ("FACTORS", self.factors.len()),
                ("COLUMNS", self.factors.iter().map(|factor| factor / 2).sum()),
                ("BUCKETS", self.factors.iter().product()),
            ])
            .shader(
                label,
                "lsh_hash",
                &[
                    &halves,
                    include_str!("../../shaders/lsh_hash.wgsl"),
                    if self.key_mask {
                        include_str!("../../shaders/lsh/key_mask.wgsl")
                    } else {
                        include_str!("../../shaders/lsh/no_key_mask.wgsl")
                    },
                    include_str!("../../shaders/lib/nan.wgsl"),
                    &reads("q", self.input, self.aligned),
                ],
            )
    }

    /// A function, not an array: an indexed constant array would have to lie somewhere.
    fn halves(&self) -> String {
        let mut text =
            "// Columns of a factor's projection.\nfn half_of(factor: u32) -> u32 {\n    switch factor {\n"
                .to_owned();
        let (last, first) = self.factors.split_last().expect("checked: at least one factor");
        for (n, factor) in first.iter().enumerate() {
            writeln!(text, "        case {n}u: {{ return {}u; }}", factor / 2)
                .expect("writing to a String succeeds");
        }
        write!(text, "        default: {{ return {}u; }}\n    }}\n}}\n", last / 2)
            .expect("writing to a String succeeds");
        text
    }

    pub(super) fn representatives() -> Vec<Self> {
        let base = Self {
            head_dim: 64,
            input: ElementType::F32,
            aligned: true,
            rounds: 4,
            factors: vec![16],
            key_mask: false,
        };
        vec![
            base.clone(),
            Self { head_dim: 7, aligned: false, factors: vec![4, 8], key_mask: true, ..base.clone() },
            Self { input: ElementType::F16, ..base },
        ]
    }
}

/// All that tells one shader from another that joins the gradients by queries and by keys: `lsh_join.wgsl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct JoinVariant {
    /// Elements of a query and of a key, d.
    pub head_dim: usize,
    /// Storage of the shared queries and keys.
    pub input: ElementType,
    /// Their rows begin at, and have, multiples of 4 elements.
    pub aligned: bool,
    /// Storage of their gradient.
    pub gradient: ElementType,
    /// Rows of the gradient begin at, and have, multiples of 4 elements.
    pub aligned_gradient: bool,
}

impl JoinVariant {
    /// Positions of a workgroup, and its lanes, as the shader says.
    pub const ROWS: usize = 64;

    /// The shader of this variant.
    pub fn shader(&self) -> Shader {
        let flag = |aligned, name| if aligned { "" } else { name };
        let label = format!(
            "lsh join d{} {}->{}{}{}",
            self.head_dim,
            self.input,
            self.gradient,
            flag(self.aligned, " unaligned"),
            flag(self.aligned_gradient, " unaligned-gradient")
        );
        let files = [
            include_str!("../../shaders/lsh_join.wgsl"),
            &reads("q", self.input, self.aligned),
            &stores("dqk", self.gradient, self.aligned_gradient),
            narrow(self.gradient),
        ];
        Header::default()
            .u32s(&[("HEAD_DIM", self.head_dim), ("HEAD_GROUPS", self.head_dim.div_ceil(4))])
            .params(&[("kernel", "KernelParams"), ("q", "Rows"), ("dqk", "Rows")])
            .shader(label, "lsh_join", &files)
    }

    pub(super) fn representatives() -> [Self; 3] {
        use ElementType::{Bf16, F16, F32};
        [(64, F32, F32), (7, F16, F16), (64, Bf16, Bf16)].map(|(head_dim, input, gradient)| {
            let aligned = head_dim == 64;
            Self { head_dim, input, aligned, gradient, aligned_gradient: aligned }
        })
    }
}

/// The one shader of `lsh_tables.wgsl`: tables of places beside the order.
pub struct PlaceTables;

impl PlaceTables {
    /// Lanes of a workgroup, as the shader says.
    pub const LANES: usize = 256;

    /// The shader.
    pub fn shader() -> Shader {
        let files = [include_str!("../../shaders/lsh_tables.wgsl")];
        Header::default().shader("lsh tables".into(), "lsh_tables", &files)
    }
}
