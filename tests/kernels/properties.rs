//! Drawn calls: PROPTEST_CASES (256) of each property. Dimensions, types and score terms come from a short list, since each
//! combination is a pipeline to compile; all else is free.

use crate::repeats::spoil_keys;
use crate::support::{
    BiasValues, Case, Checked, Cut, PATTERNS, Placement, bound, bound_of_parts, count, count_of_parts, cut,
    gather, gather_of_parts, gpu_with, picked, summary,
};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use wgpu_attention::ElementType::{self, Bf16, F16, F32};
use wgpu_attention::reference::Kind;
use wgpu_attention::wgsl::TileKind;
use wgpu_attention::{AttentionShape, BiasStrides, Options};

/// What a pipeline is compiled for.
#[derive(Debug, Clone, Copy)]
struct Variant {
    elements: (ElementType, ElementType),
    dims: (usize, usize),
    /// softcap, bias, ALiBi.
    terms: (bool, bool, bool),
    blocks: [usize; 2],
}

const NONE: (bool, bool, bool) = (false, false, false);

const VARIANTS: [Variant; 8] = [
    Variant { elements: (F32, F32), dims: (64, 64), terms: NONE, blocks: [64, 64] },
    Variant { elements: (F32, F32), dims: (7, 5), terms: NONE, blocks: [16, 16] },
    Variant { elements: (F16, F16), dims: (16, 16), terms: (false, true, false), blocks: [64, 32] },
    Variant { elements: (Bf16, Bf16), dims: (7, 7), terms: NONE, blocks: [32, 64] },
    Variant { elements: (F32, F16), dims: (16, 7), terms: NONE, blocks: [64, 128] },
    Variant { elements: (F32, F32), dims: (16, 32), terms: (true, true, true), blocks: [64, 64] },
    Variant { elements: (F16, F32), dims: (80, 80), terms: (true, false, false), blocks: [128, 16] },
    Variant { elements: (Bf16, F32), dims: (24, 132), terms: NONE, blocks: [16, 256] },
];

/// Those whose calls are also cut into parts: each kind of part is a pipeline more.
const OF_PARTS: [Variant; 4] =
    [VARIANTS[0], VARIANTS[2], VARIANTS[3], Variant { terms: (true, true, false), ..VARIANTS[5] }];

impl Variant {
    /// Sizes, with what the variant says; gaps keep rows on groups of four where the dimensions do.
    fn shape(
        &self,
        batch: usize,
        kv_heads: usize,
        group: usize,
        q_len: usize,
        kv_len: usize,
    ) -> AttentionShape {
        let shape = AttentionShape::new(batch, kv_heads * group, q_len, self.dims.0).kv_heads(kv_heads);
        let shape =
            shape.kv_len(kv_len).value_dim(self.dims.1).input(self.elements.0).output(self.elements.1);
        let shape = if self.terms.0 { shape.softcap(60.0) } else { shape };
        shape.alibi(self.terms.2)
    }

    fn placement(&self, n: usize, gap: usize) -> Placement {
        let whole = self.dims.0.is_multiple_of(4) && self.dims.1.is_multiple_of(4);
        let gap = if whole { 4 * gap } else { gap };
        [Placement::Bhld, Placement::Blhd, Placement::Gap(gap), Placement::BlhdGap(gap)][n]
    }
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..=20, 60usize..=68, 125usize..=132, 1usize..=200]
}

prop_compose! {
    fn call(variants: &'static [Variant])(
        variant in 0..variants.len(),
        (batch, kv_heads, group) in (1usize..=2, 1usize..=2, 1usize..=2),
        (q_len, kv_len) in (length(), length()),
        same_length in any::<bool>(),
        pattern in 0..PATTERNS.len(),
        (placement, gap) in (0..4usize, 1..4usize),
        axes in 0..16usize,
        floors in 0..3usize,
        kind in 0..Kind::ALL.len(),
        lse in any::<bool>(),
        splits in prop_oneof![Just(1usize), 2usize..=5],
        seed in 0..1u64 << 32,
    ) -> Case {
        // Each variant under one kind of tile, those after each other under the other.
        let tile_kind = [TileKind::Staged, TileKind::Direct][variant % 2];
        let variant = variants[variant];
        let q_len = if same_length { kv_len } else { q_len };
        let shape = variant.shape(batch, kv_heads, group, q_len, kv_len);
        let mut shape = variant.placement(placement, gap).apply(shape);
        if variant.terms.1 {
            let sizes = [batch, shape.heads, q_len, kv_len];
            let sizes = std::array::from_fn(|axis| if axes >> axis & 1 == 1 { sizes[axis] } else { 1 });
            shape = shape.bias(BiasStrides::broadcast(sizes));
        }
        let case = Case::new(shape).blocks(variant.blocks[0], variant.blocks[1]).kind(Kind::ALL[kind]).seed(seed);
        let case = case.pattern(picked(PATTERNS[pattern].0, &shape.extent(), seed));
        let case = case.bias([BiasValues::Normal, BiasValues::Holes, BiasValues::Floors][floors]);
        let case = case.options(Options::default().tile_kind(tile_kind).splits(splits));
        if lse { case } else { case.without_lse() }
    }
}

/// The call of an oracle, which leaves no room for ALiBi.
fn for_oracle(case: Case) -> Case {
    Case { shape: case.shape.alibi(false), ..case }
}

/// Whether the code of a key fits head_dim: the gather test needs that.
fn fits_code(case: &Case) -> bool {
    case.shape.head_dim >= 8 || case.shape.kv_len <= 1 << case.shape.head_dim
}

fn passed(checked: Checked) -> Result<(), TestCaseError> {
    checked.map(drop).map_err(TestCaseError::fail)
}

fn config() -> ProptestConfig {
    ProptestConfig {
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
        match case.shape.input {
            F32 => spoil_keys::<f32>(&case, Cut::Whole, &poisons),
            F16 => spoil_keys::<half::f16>(&case, Cut::Whole, &poisons),
            Bf16 => spoil_keys::<half::bf16>(&case, Cut::Whole, &poisons),
        };
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
