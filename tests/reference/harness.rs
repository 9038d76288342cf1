//! The harness itself: what it must let pass, and what it must catch.

use wgpu_attention::reference::{
    self, Expected, Got, Kind, Output, Position, Report, Rows, Tensors, VerifyOptions, compare_expected,
    verify,
};
use wgpu_attention::{AttentionShape, Causal, Element, ElementType, Layout, Layouts, Storage, Strides};

fn shape() -> AttentionShape {
    AttentionShape::new(2, 2, 33, 16).kv_heads(1).value_dim(5)
}

fn case() -> (AttentionShape, Tensors<f32>, Output) {
    let shape = shape();
    let tensors = reference::random(shape, Kind::Normal, 3).unwrap();
    let exact = reference::attention_with(shape, &tensors.inputs(), &Causal).unwrap();
    (shape, tensors, exact)
}

/// Verifies the exact result after `change`.
fn report_of(change: impl FnOnce(&mut Vec<f32>, &mut Vec<f32>)) -> Report {
    let (shape, tensors, exact) = case();
    let mut out: Vec<f32> = exact.out.iter().map(|&x| x as f32).collect();
    let mut lse: Vec<f32> = exact.lse.iter().map(|&x| x as f32).collect();
    change(&mut out, &mut lse);
    let got = Got::new(&out).lse(&lse[..]);
    verify(shape, &tensors.inputs(), &Causal, got, VerifyOptions::default()).unwrap()
}

#[test]
fn the_exact_result_passes() {
    let report = report_of(|_, _| {});
    assert!(report.pass && report.ratio() < 0.5, "{report}");
    assert_eq!((report.rows_checked, report.unspecified), (2 * 2 * 33, 0));
}

#[test]
fn the_exact_result_passes_in_every_type() {
    fn check<E: Element>() {
        let attention = shape().storage(Storage::all(E::TYPE));
        for kind in Kind::ALL {
            let tensors = reference::random::<E, E>(&attention, kind, 3).unwrap();
            let exact = reference::attention_with(&attention, &tensors.inputs(), &Causal).unwrap();
            let out: Vec<E> = exact.out.iter().map(|&x| E::from_f64(x)).collect();
            let got = Got::new(&out);
            let report =
                verify(&attention, &tensors.inputs(), &Causal, got, VerifyOptions::default()).unwrap();
            assert!(report.pass, "{} {kind:?}: {report}", E::TYPE);
        }
    }
    check::<f32>();
    check::<half::f16>();
    check::<half::bf16>();
}

#[test]
fn faults_are_caught() {
    let (shape, tensors, _) = case();
    let at = Position { batch: 1, head: 0, i: 20 };
    let row = reference::row(shape, &tensors.inputs(), &Causal, at, None).unwrap();
    let n = (2 * 33 + 20) * 5 + 2;

    let nan = report_of(|out, _| out[n] = f32::NAN);
    let infinite = report_of(|out, _| out[n] = f32::INFINITY);
    let small = report_of(|out, _| out[n] += (4.0 * row.bound[2]) as f32);
    for report in [&nan, &infinite, &small] {
        assert!(!report.pass, "{report}");
        let worst = report.worst_out.unwrap();
        assert_eq!((worst.position, worst.column), (at, Some(2)));
    }
    assert_eq!(nan.ratio(), f64::INFINITY);
    assert!((3.0..5.0).contains(&small.ratio()), "{small}");

    let lse = report_of(|_, lse| lse[n / 5] += (4.0 * row.lse_bound) as f32);
    assert!(!lse.pass && (3.0..5.0).contains(&lse.worst_lse.unwrap().ratio), "{lse}");
    assert_eq!(lse.worst_lse.unwrap().position, at);

    assert!(!report_of(|out, _| out.fill(-77.0)).pass, "an untouched output");
    assert!(!report_of(|out, _| out[160..165].fill(0.0)).pass, "one row untouched");
    assert!(
        !report_of(|out, lse| {
            out.fill(f32::NAN);
            lse.fill(f32::NAN)
        })
        .pass,
        "all NaN"
    );
    assert!(!report_of(|out, _| (0..5).for_each(|c| out.swap(160 + c, 165 + c))).pass, "two rows swapped");
    assert!(!report_of(|_, lse| lse.swap(7, 8)).pass, "two lse swapped");
    assert!(!report_of(|out, _| out.rotate_right(33 * 5)).pass, "heads rotated");
}

#[test]
fn an_empty_row_must_be_exactly_zero() {
    // Two queries more than keys: the first two rows are empty.
    let shape = AttentionShape::new(1, 1, 4, 2).q_len(6);
    let tensors = reference::random::<f32, f32>(shape, Kind::Normal, 0).unwrap();
    let exact = reference::attention_with(shape, &tensors.inputs(), &Causal).unwrap();
    let check = |first: f32, first_lse: f32| {
        let mut out: Vec<f32> = exact.out.iter().map(|&x| x as f32).collect();
        let mut lse: Vec<f32> = exact.lse.iter().map(|&x| x as f32).collect();
        (out[0], lse[0]) = (first, first_lse);
        let got = Got::new(&out).lse(&lse[..]);
        verify(shape, &tensors.inputs(), &Causal, got, VerifyOptions::default()).unwrap()
    };
    assert!(check(0.0, f32::MIN).pass);
    let report = check(1e-30, f32::MIN);
    assert!(!report.pass && report.ratio() == f64::INFINITY, "{report}");
    assert!(!check(0.0, f32::MIN.next_up()).pass);
    assert!(!check(0.0, f32::NEG_INFINITY).pass);
}

#[test]
fn the_report_says_where_and_how_much() {
    let report = report_of(|out, _| out[(2 * 33 + 20) * 5 + 2] = 9.0).to_string();
    for part in [
        "FAIL, 132 rows",
        "worst out: batch 1, head 0, query 20, column 2: got 9e0, expected",
        "bound",
        "error/bound",
    ] {
        assert!(report.contains(part), "{report}");
    }
}

#[test]
fn rows_that_depend_on_nan_must_not_be_finite() {
    let shape = AttentionShape::new(1, 1, 4, 2);
    let mut tensors = reference::random::<f32, f32>(shape, Kind::Normal, 0).unwrap();
    tensors.v[2 * 2] = f32::NAN;
    let exact = reference::attention_with(shape, &tensors.inputs(), &Causal).unwrap();
    let out: Vec<f32> = exact.out.iter().map(|&x| x as f32).collect();
    let check = |out: &[f32]| {
        verify(shape, &tensors.inputs(), &Causal, Got::new(out), VerifyOptions::default()).unwrap()
    };
    let report = check(&out);
    assert!(report.pass && (report.unspecified, report.compared) == (0, 8), "{report}");
    let with = |n: usize, x: f32| {
        let mut changed = out.clone();
        changed[n] = x;
        check(&changed).pass
    };
    assert!(!with(0, f32::NAN), "NaN where nothing depends on it");
    assert!(with(4, f32::INFINITY), "infinity says so, too");
    assert!(!with(4, 1.0), "a number where NaN is due");
    assert!(!with(7, 1.0), "a number in another column of such a row");
}

#[test]
fn strided_outputs_are_read_where_they_lie() {
    let (shape, tensors, exact) = case();
    for layout in [Layout::Blhd, Layout::Strided(Strides::new(1000, 7, 14).offset(11))] {
        let attention = shape.layouts(Layouts::default().out(layout));
        let mut out = vec![f32::NAN; attention.len_out()];
        for (n, row) in exact.out.chunks(5).enumerate() {
            let start = attention.out_strides().at(n / 66, n / 33 % 2, n % 33);
            out[start..start + 5].iter_mut().zip(row).for_each(|(got, &x)| *got = x as f32);
        }
        let got = Got::new(&out);
        let report = verify(&attention, &tensors.inputs(), &Causal, got, VerifyOptions::default()).unwrap();
        assert!(report.pass, "{report}");
    }
}

#[test]
fn other_systems_results_are_compared_with_an_allowance() {
    let (shape, tensors, exact) = case();
    let rounded = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<f32>>();
    let (mut out, lse) = (rounded(&exact.out), rounded(&exact.lse));
    let check = |out: &[f32], lse: &[f32], allowance: f64| {
        let (out_got, lse_got) = (rounded(&exact.out), rounded(&exact.lse));
        let options = VerifyOptions::default().allowance(allowance);
        let got = Got::new(&out_got).lse(&lse_got[..]);
        compare_expected(shape, &tensors.inputs(), &Causal, got, Expected::new(out).lse(Some(lse)), options)
    };
    assert!(check(&out, &lse, 0.0).unwrap().pass);
    out[100] += 1e-3;
    assert!(!check(&out, &lse, 1e-4).unwrap().pass);
    assert!(check(&out, &lse, 2e-3).unwrap().pass);
    assert_eq!(
        check(&out[1..], &lse, 0.0).unwrap_err().to_string(),
        "expected.out: need 660 elements, got 659 elements"
    );
    assert!(check(&out, &lse, f64::NAN).unwrap_err().to_string().starts_with("allowance: "));
    assert!(check(&out, &lse, -1.0).is_err());
}

#[test]
fn wrong_outputs_are_refused() {
    let (shape, tensors, _) = case();
    let error = |got: Got<'_, f32>| {
        verify(shape, &tensors.inputs(), &Causal, got, VerifyOptions::default()).unwrap_err().to_string()
    };
    assert_eq!(error(Got::new(&[0.0; 659])), "out: need 660 elements, got 659 elements");
    assert_eq!(error(Got::new(&[0.0; 660]).lse(&[][..])), "lse: need 132 elements, got 0 elements");
    let half = shape.storage(Storage::default().out(ElementType::F16));
    let got = Got::new(&[0.0f32; 660]);
    let error =
        verify(&half, &tensors.inputs(), &Causal, got, VerifyOptions::default()).unwrap_err().to_string();
    assert_eq!(error, "out: need f16 elements, as the storage says, got f32");
}

#[test]
fn samples_hold_the_ends_and_block_edges_of_the_outer_heads() {
    let shape = AttentionShape::new(3, 4, 4097, 8);
    let rows = Rows::Sample { count: 64, seed: 5 }.positions(&shape);
    assert_eq!(rows.len(), 64);
    assert!(rows.is_sorted() && rows.windows(2).all(|pair| pair[0] != pair[1]));
    for (batch, head, i) in [(0, 0, 0), (0, 3, 4096), (2, 0, 4096), (2, 3, 0)] {
        assert!(rows.contains(&Position { batch, head, i }));
    }
    let edges = rows.iter().filter(|at| matches!(at.i % 16, 0 | 1 | 15)).count();
    assert!((32..=56).contains(&edges), "{edges}");
    assert!(rows.iter().any(|at| at.batch == 1));
    assert_eq!(rows, Rows::Sample { count: 64, seed: 5 }.positions(&shape));
    assert_ne!(rows, Rows::Sample { count: 64, seed: 6 }.positions(&shape));

    for (len, count) in [(1, 64), (3, 2), (15, 4), (17, 16), (0, 64)] {
        let shape = AttentionShape::new(1, 1, len.max(1), 8).q_len(len);
        assert_eq!(Rows::Sample { count, seed: 0 }.positions(&shape).len(), count.min(len));
    }
    assert_eq!(Rows::auto(&AttentionShape::new(1, 2, 512, 64)), Rows::All);
    assert_eq!(Rows::auto(&shape), Rows::Sample { count: 64, seed: 0 });
}
