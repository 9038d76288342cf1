//! The checks fail where they must: a test of the tests.

use crate::support::{
    Case, Checked, Cut, Guarded, PATTERNS, bound_on, check_all, combinations, count_on, cut, gather_on, gpu,
    kinds_of_tile, long, one_in, picked, run,
};
use std::collections::HashSet;
use wgpu_attention::{AttentionShape, BlockMask, Gpu, Kernels, Options};

const LEN: usize = 70;

/// Kernels whose shader was changed in one place.
fn edited(find: &'static str, replace: &'static str) -> Gpu {
    let edit = move |text: &str| {
        assert!(text.contains(find), "the shader has no `{find}`");
        text.replacen(find, replace, 1)
    };
    let kernels = Kernels::with_edited_shaders(gpu().device(), Options::default().splits(1), edit)
        .expect("valid options");
    gpu().with_kernels(kernels)
}

/// Asserts that each of the checks fails on these kernels, with a message that reproduces the case.
fn all_fail(gpu: &Gpu, checks: &[fn(&Gpu, &Case) -> Checked]) {
    let shape = AttentionShape::new(1, 2, LEN, 16);
    let case = Case::new(shape).pattern(picked("causal", &shape.extent(), 1)).without_lse();
    for check in checks {
        let message = check(gpu, &case).expect_err("the check must fail");
        assert!(message.contains("Case: Attention {") && message.contains("seed 1"), "{message}");
        assert!(message.contains("causal") && message.contains("Kind::Normal"), "{message}");
    }
}

const START: &str = "let work = params.kernel.first_work";
const STORE: &str = "store_out(to, count, x);";

#[test]
fn an_untouched_output_fails() {
    let nothing =
        edited(START, "if (params.kernel.heads > 0u) { return; }\n let work = params.kernel.first_work");
    all_fail(&nothing, &[bound_on, count_on, gather_on]);
}

#[test]
fn one_untouched_element_fails() {
    let gap = edited(STORE, "if (group != 2u || end.out_at != 48u) { store_out(to, count, x); }");
    all_fail(&gap, &[bound_on, count_on, gather_on]);
}

#[test]
fn one_nan_fails() {
    let nan = "if (group == 1u && end.out_at == 48u) { x.y = bitcast<f32>(0x7fc00000u + params.kernel.first_work); }";
    let nan = edited(STORE, Box::leak(format!("{nan} {STORE}").into_boxed_str()));
    all_fail(&nan, &[bound_on, count_on, gather_on]);
}

#[test]
fn a_small_error_in_one_element_fails() {
    // 1e-4 of the value: ggml's 5e-4 of normalised mean square would let 2 % of the whole pass.
    let error = "if (group == 1u && end.out_at == 800u) { x.y += 1e-4; }";
    let error = edited(STORE, Box::leak(format!("{error} {STORE}").into_boxed_str()));
    all_fail(&error, &[bound_on, count_on]);
}

#[test]
fn a_write_outside_of_the_rows_fails() {
    use crate::support::Placement;
    // A row that is one group too long writes into the gap behind it.
    let long = edited(STORE, "store_out(to, count, x); store_out(to + 4u, count, x);");
    let shape = Placement::Gap(4).apply(AttentionShape::new(1, 2, LEN, 16));
    let case = Case::new(&shape).without_lse();
    let got = run::<f32, f32, f32>(&long, &shape, &case.tensors().inputs(), &case.parts(), false);
    let message = got.expect_err("the guards must notice");
    assert!(message.starts_with("out was written between its rows: byte 64 of"), "{message}");
}

#[test]
fn guards_notice_every_byte() {
    let shape = crate::support::Placement::Gap(3).apply(AttentionShape::new(1, 1, 2, 5));
    let guarded = Guarded::of_rows(gpu().device(), "out", 2, &shape);
    let clean = guarded.bytes();
    assert!(guarded.take::<half::f16>(&clean).is_ok(), "poison everywhere");
    let mut noticed = 0;
    for n in 0..clean.len() {
        let mut bytes = clean.clone();
        bytes[n] ^= 1;
        noticed += usize::from(guarded.take::<half::f16>(&bytes).is_err());
    }
    // All but the two rows of 5 elements of 2 bytes.
    assert_eq!(noticed, clean.len() - 20);
}

#[test]
fn check_all_fails_on_failures_and_on_nothing() {
    let case = || Case::new(AttentionShape::new(1, 1, 1, 1));
    let fails = |cases: usize| {
        let run = move || check_all("harness", (0..cases).map(|_| case()), |_| Err("planted".into()));
        std::panic::catch_unwind(run).is_err()
    };
    assert!(fails(2));
    assert!(fails(0));
}

#[test]
fn patterns_are_told_apart_and_drawn_again_alike() {
    let extent = AttentionShape::new(2, 3, 50, 1).kv_len(70).extent();
    let names: HashSet<_> = PATTERNS.iter().map(|entry| entry.0).collect();
    assert_eq!(names.len(), PATTERNS.len(), "a name comes twice");
    let grid = |seed, name| {
        let grid = wgpu_attention::BlockGrid::new(50, 70).batch(2).heads(3).blocks(16, 16);
        BlockMask::new(picked(name, &extent, seed).as_dyn(), grid).expect("a mask")
    };
    for (name, _) in PATTERNS {
        assert_eq!(grid(1, name), grid(1, name), "{name}");
    }
    assert_ne!(grid(1, "window"), grid(2, "window"), "the seed draws the parameters");
}

#[test]
fn cuts_are_disjoint_and_whole() {
    let shape = AttentionShape::new(2, 2, 40, 1).kv_len(50);
    for seed in 0..3 {
        for (name, _) in PATTERNS {
            let case = Case::new(shape).pattern(picked(name, &shape.extent(), seed)).blocks(16, 16);
            for how in Cut::ALL {
                let parts = cut(&case, how, seed);
                parts.check_disjoint().unwrap_or_else(|e| panic!("{how:?}: {e}\n{case}"));
                assert_eq!(parts.kept(), kept(&case, &parts), "{how:?}: {case}");
            }
        }
    }
}

/// Pairs of the case's pattern, all of which must be in the parts.
fn kept(case: &Case, parts: &wgpu_attention::Parts) -> u64 {
    let extent = case.attention.shape.extent();
    let mut kept = 0;
    for (batch, head) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        for (i, j) in (0..40).flat_map(|i| (0..50).map(move |j| (i, j))) {
            if case.pattern.as_dyn().keep(&wgpu_attention::Site { batch, head, extent }, i, j) {
                assert!(parts.keeps(batch, head, i, j), "{i}, {j} of {case}");
                kept += 1;
            }
        }
    }
    kept
}

#[test]
fn cases_of_one_name_have_one_kind_of_tile() {
    let kinds = |of: Option<&str>| (0..40).map(|_| kinds_of_tile(of)).collect::<Vec<_>>();
    let same = kinds(Some("f16"));
    assert!(same.iter().all(|kinds| *kinds == same[0]));
    let drawn = kinds(None);
    assert!(long() || drawn.iter().any(|kinds| *kinds != drawn[0]));
}

#[test]
fn one_in_three_is_a_third() {
    let many = |places| if long() { places } else { places / 3 };
    assert_eq!(one_in(3, 60).len(), many(60));
    assert!((20..=61).contains(&one_in(3, 61).len()));
    assert_eq!(one_in(3, 2), [0, 1]);
    assert!(long() || (0..9).any(|_| one_in(3, 60) != one_in(3, 60)));
}

#[test]
fn combinations_have_each_value_of_the_first_axis_once() {
    let found = combinations([6, 3, 2, 9]);
    assert!(found.iter().all(|it| it[0] < 6 && it[1] < 3 && it[2] < 2 && it[3] < 9), "{found:?}");
    if long() {
        assert_eq!(found.iter().collect::<HashSet<_>>().len(), 6 * 3 * 2 * 9);
        return;
    }
    assert_eq!(found.iter().map(|it| it[0]).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    let times = |axis: usize, value| found.iter().filter(|it| it[axis] == value).count();
    assert!(
        (0..3).all(|value| times(1, value) == 2) && (0..2).all(|value| times(2, value) == 3),
        "{found:?}"
    );
    assert!((0..9).all(|value| times(3, value) <= 1), "{found:?}");
    let orders: HashSet<_> = (0..50).map(|_| combinations([8, 8])).collect();
    assert!(orders.len() > 40, "what is dealt is drawn");
}
