//! Drawn calls: PROPTEST_CASES (32) of each property. What a pipeline is compiled for comes from a short list; sizes are free.

use crate::{product, quantize, weights};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use wgpu_attention::wgsl::TileKind;
use wgpu_attention::{
    IntegerFormat, IntegerMatmulShape, IntegerType, MatmulShape, Options, QuantizeRule, QuantizeShape,
    ScaleGroups, WeightOrder,
};
use wgpu_attention_testing::{cases, gpu, gpu_with};

const FORMATS: [(IntegerType, ScaleGroups, bool); 6] = [
    (IntegerType::I8, ScaleGroups::Rows, false),
    (IntegerType::I8, ScaleGroups::Groups(64), true),
    (IntegerType::U8, ScaleGroups::Tensor, true),
    (IntegerType::I4, ScaleGroups::Groups(32), false),
    (IntegerType::U4, ScaleGroups::Groups(128), true),
    (IntegerType::I4, ScaleGroups::Tensor, true),
];

fn format(n: usize) -> IntegerFormat {
    let (element, groups, zero_points) = FORMATS[n];
    IntegerFormat::new(element).groups(groups).zero_points(zero_points)
}

/// Of groups a multiple, otherwise any.
fn fitting(format: IntegerFormat, inner: usize) -> usize {
    match format.groups {
        ScaleGroups::Groups(size) => inner.next_multiple_of(size),
        _ => inner,
    }
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: cases(32),
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn products_with_integer_weights(n in 0..FORMATS.len(), rows in 1..70usize, inner in 1..300usize, columns in 1..140usize,
                                     direct in any::<bool>(), bias in any::<bool>(), seed in any::<u32>()) {
        let (format, kind) = (format(n), if direct { TileKind::Direct } else { TileKind::Staged });
        let shape = MatmulShape::new(rows, fitting(format, inner), columns).weights(WeightOrder::OutIn);
        let gpu = gpu_with(Options::default().tile_kind(kind));
        let checked = weights::bound::<f32, f32>(&gpu, &shape.integers(format).bias(bias), seed.into());
        prop_assert_eq!(checked.err(), None);
    }

    #[test]
    fn quantisations(n in 0..FORMATS.len(), rows in 1..40usize, inner in 1..900usize, reduced in any::<bool>(), seed in any::<u32>()) {
        let format = format(n);
        let signed = format.element.is_signed();
        let rule = match (signed, reduced) {
            (true, _) => QuantizeRule::Symmetric,
            (false, true) => QuantizeRule::ReducedRange { bits: format.element.bits() as u32 - 1 },
            (false, false) => QuantizeRule::Range,
        };
        let shape = QuantizeShape::new(rows, fitting(format, inner), format.zero_points(!signed), rule);
        prop_assert_eq!(quantize::made(gpu(), &shape, seed.into()).err(), None);
    }

    #[test]
    fn products_of_integers(n in 0..4usize, rows in 1..70usize, inner in 1..300usize, columns in 1..70usize, seed in any::<u32>()) {
        let of = |element, groups, zero_points| IntegerFormat::new(element).groups(groups).zero_points(zero_points);
        let (i8, u8, rows_of, all) = (IntegerType::I8, IntegerType::U8, ScaleGroups::Rows, ScaleGroups::Tensor);
        let (a, b) = [
            (of(u8, all, true), of(i8, rows_of, false)),
            (of(u8, rows_of, true), of(i8, all, true)),
            (of(i8, all, false), of(i8, all, false)),
            (of(u8, all, false), of(u8, rows_of, true)),
        ][n];
        let shape = IntegerMatmulShape::new(rows, inner, columns, a, b);
        prop_assert_eq!(product::check(gpu(), &shape, seed.into()).err(), None);
    }
}
