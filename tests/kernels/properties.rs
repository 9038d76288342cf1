//! Drawn calls: PROPTEST_CASES (32; in a long run 256) of each property. Dimensions, types and score terms come from a short list, since each
//! combination is a pipeline to compile, and a run draws half of that, unless it is long; all else is free.

use crate::repeats::spoil_keys;
use crate::support::{
    BiasValues, Case, Checked, Cut, PATTERNS, Placement, bound, bound_of_parts, cases, count, count_of_parts,
    cut, gather, gather_of_parts, gpu_with, one_in, picked, summary, typed,
};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use std::sync::LazyLock;
use wgpu_attention::ElementType::{Bf16, F16, F32};
use wgpu_attention::reference::Kind;
use wgpu_attention::wgsl::TileKind;
use wgpu_attention::{Attention, AttentionShape, BiasStrides, Options, Score, Storage, Temperature};

/// What a pipeline is compiled for.
#[derive(Debug, Clone, Copy)]
struct Variant {
    storage: Storage,
    dims: (usize, usize),
    /// Terms of the score, by name.
    terms: &'static [&'static str],
    blocks: [usize; 2],
}

const VARIANTS: [Variant; 10] = [
    Variant { storage: Storage::all(F32), dims: (64, 64), terms: &[], blocks: [64, 64] },
    Variant { storage: Storage::all(F32), dims: (7, 5), terms: &[], blocks: [16, 16] },
    Variant { storage: Storage::all(F16), dims: (16, 16), terms: &["bias"], blocks: [64, 32] },
    Variant { storage: Storage::all(Bf16), dims: (7, 7), terms: &[], blocks: [32, 64] },
    Variant { storage: Storage::all(F32).out(F16), dims: (16, 7), terms: &[], blocks: [64, 128] },
    Variant {
        storage: Storage::all(F32),
        dims: (16, 32),
        terms: &["softcap", "bias", "alibi"],
        blocks: [64, 64],
    },
    Variant { storage: Storage::all(F16).out(F32), dims: (80, 80), terms: &["softcap"], blocks: [128, 16] },
    Variant { storage: Storage::all(Bf16).out(F32), dims: (24, 132), terms: &[], blocks: [16, 256] },
    Variant { storage: Storage::all(F32).kv(F16), dims: (16, 16), terms: &["temperature"], blocks: [64, 64] },
    Variant { storage: Storage::all(F32), dims: (16, 8), terms: &["softcap", "dropout"], blocks: [64, 32] },
];

/// Those whose calls are also cut into parts: each kind of part is a pipeline more.
const OF_PARTS: [Variant; 5] = [
    VARIANTS[0],
    VARIANTS[2],
    VARIANTS[3],
    VARIANTS[9],
    Variant { terms: &["softcap", "bias"], ..VARIANTS[5] },
];

impl Variant {
    /// The call of these sizes, but for where its tensors lie.
    fn attention(
        &self,
        batch: usize,
        kv_heads: usize,
        group: usize,
        q_len: usize,
        kv_len: usize,
        bias_axes: usize,
    ) -> Attention {
        let shape = AttentionShape::new(batch, kv_heads * group, q_len, self.dims.0).kv_heads(kv_heads);
        let shape = shape.kv_len(kv_len).value_dim(self.dims.1);
        let sizes = [batch, shape.heads, q_len, kv_len];
        let axis = |axis: usize| if bias_axes >> axis & 1 == 1 { sizes[axis] } else { 1 };
        let term = |score: Score, name: &&str| match *name {
            "softcap" => score.softcap(60.0),
            "bias" => score.bias(BiasStrides::broadcast([0, 1, 2, 3].map(axis))),
            "alibi" => score.alibi(),
            "temperature" => score.with(Temperature),
            "dropout" => score.dropout(0.4, 6),
            other => panic!("no term {other}"),
        };
        shape.storage(self.storage).score(self.terms.iter().fold(Score::new(), term))
    }

    /// Gaps keep rows on groups of four where the dimensions do.
    fn placement(&self, n: usize, gap: usize) -> Placement {
        let whole = self.dims.0.is_multiple_of(4) && self.dims.1.is_multiple_of(4);
        let gap = if whole { 4 * gap } else { gap };
        use Placement::{Bhld, Blhd, BlhdGap, Gap, Offset, Reversed};
        [Bhld, Blhd, Gap(gap), BlhdGap(gap), Offset(gap), Reversed(gap)][n]
    }
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..=20, 60usize..=68, 125usize..=132, 1usize..=200]
}

/// The places of a list that this run takes: half of them. With and without lse, whole and in splits, each is a handful of pipelines.
fn half(variants: &[Variant]) -> Vec<usize> {
    static TAKEN: LazyLock<[Vec<usize>; 2]> =
        LazyLock::new(|| [VARIANTS.len(), OF_PARTS.len()].map(|many| one_in(2, many)));
    TAKEN[usize::from(variants.len() == OF_PARTS.len())].clone()
}

prop_compose! {
    fn call(variants: &'static [Variant])(
        variant in proptest::sample::select(half(variants)),
        (batch, kv_heads, group) in (1usize..=2, 1usize..=2, 1usize..=2),
        (q_len, kv_len) in (length(), length()),
        same_length in any::<bool>(),
        pattern in 0..PATTERNS.len(),
        (placement, gap) in (0..6usize, 1..4usize),
        axes in 0..16usize,
        floors in 0..3usize,
        kind in 0..Kind::ALL.len(),
        keeps_lse in any::<bool>(),
        splits in prop_oneof![Just(1usize), 2usize..=5],
        seed in 0..1u64 << 32,
    ) -> Case {
        // Each variant under one kind of tile, those after each other under the other; the first two also without lse.
        let tile_kind = [TileKind::Staged, TileKind::Direct][variant % 2];
        let lse = keeps_lse || variant > 1;
        let variant = variants[variant];
        let q_len = if same_length { kv_len } else { q_len };
        let attention = variant.attention(batch, kv_heads, group, q_len, kv_len, axes);
        let extent = attention.shape.extent();
        let case = Case::new(variant.placement(placement, gap).apply(attention));
        let case = case.blocks(variant.blocks[0], variant.blocks[1]).kind(Kind::ALL[kind]).seed(seed);
        let case = case.pattern(picked(PATTERNS[pattern].0, &extent, seed));
        let case = case.bias([BiasValues::Normal, BiasValues::Holes, BiasValues::Floors][floors]);
        let case = case.options(Options::default().tile_kind(tile_kind).splits(splits));
        if lse { case } else { case.without_lse() }
    }
}

/// The call of an oracle, which leaves no room for ALiBi.
fn for_oracle(case: Case) -> Case {
    let terms = case.attention.score.terms().iter().filter(|term| term.name() != "alibi");
    let score = terms.fold(Score::new(), |score, term| score.with(term.clone()));
    case.score(score)
}

/// Whether the code of a key fits head_dim: the gather test needs that.
fn fits_code(case: &Case) -> bool {
    let shape = case.attention.shape;
    shape.head_dim >= 8 || shape.kv_len <= 1 << shape.head_dim
}

fn passed(checked: Checked) -> Result<(), TestCaseError> {
    checked.map(drop).map_err(TestCaseError::fail)
}

/// Calls drawn for a property where `PROPTEST_CASES` says nothing. Every run draws others.
const CASES: u32 = 32;

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: cases(CASES),
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        max_shrink_iters: 500,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_call_is_within_the_bound(case in call(&VARIANTS)) {
        passed(bound(&case))?;
    }

    #[test]
    fn any_call_counts_exactly_its_keys(case in call(&VARIANTS).prop_map(for_oracle)) {
        passed(count(&case))?;
    }

    #[test]
    fn any_call_gathers_the_key_it_addresses(case in call(&VARIANTS).prop_map(for_oracle)) {
        prop_assume!(fits_code(&case));
        passed(gather(&case))?;
    }

    #[test]
    fn any_key_reaches_only_the_rows_that_attend_it(case in call(&VARIANTS), poison in 0..3usize) {
        // Outputs in f32: an f16 may hide what was reached.
        let poisons = [[f64::NAN, 0.5], [f64::INFINITY, f64::NAN], [f64::NEG_INFINITY, -3.0]][poison];
        let storage = case.attention.storage.out(F32);
        typed!(storage, spoil_keys(&case.storage(storage), Cut::Whole, &poisons));
    }

    #[test]
    fn any_parts_merge_within_the_bound(case in call(&OF_PARTS), how in 0..Cut::ALL.len()) {
        passed(bound_of_parts(&gpu_with(case.options), &case, &cut(&case, Cut::ALL[how], case.seed)))?;
    }

    #[test]
    fn any_parts_count_exactly_their_keys(case in call(&OF_PARTS).prop_map(for_oracle), how in 0..Cut::ALL.len()) {
        passed(count_of_parts(&gpu_with(case.options), &case, &cut(&case, Cut::ALL[how], case.seed)))?;
    }

    #[test]
    fn any_parts_gather_the_key_they_address(case in call(&OF_PARTS).prop_map(for_oracle), how in 0..Cut::ALL.len()) {
        prop_assume!(fits_code(&case));
        passed(gather_of_parts(&gpu_with(case.options), &case, &cut(&case, Cut::ALL[how], case.seed)))?;
    }
}

#[test]
fn summarise() {
    summary("properties");
}
