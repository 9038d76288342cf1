//! Relations that hold bit by bit: repeats, factors of 2, what does not matter, what is nothing; and what is no number shows.

use super::super::{Case, both_kinds_of_tile, gpu};
use wgpu_attention::reference::Kind;
use wgpu_attention::{AttentionShape, Gpu, LshGradients, LshOptions};

fn shape() -> AttentionShape {
    AttentionShape::new(2, 2, 60, 16).value_dim(8)
}

fn bits(gradients: &LshGradients<f32>) -> Vec<u32> {
    [&gradients.dqk, &gradients.dv].into_iter().flatten().map(|x| x.to_bits()).collect()
}

#[test]
fn the_same_call_gives_the_same_bits() {
    let case = Case::<f32>::new(shape(), LshOptions::new(4, 8, 16), Kind::Normal, 3);
    let dout = case.dout();
    let [once, again] = [0; 2].map(|_| bits(&case.gradients_on(gpu(), &dout)));
    assert!(once == again);
}

#[test]
fn a_factor_of_two_of_dout_is_one_of_every_gradient() {
    let case = Case::<f32>::new(shape(), LshOptions::new(2, 8, 16).norm_eps(1e-3), Kind::Normal, 3);
    let (dout, times) = (case.dout(), |x: &[f32], by: f32| x.iter().map(|x| by * x).collect::<Vec<_>>());
    let one = case.gradients_on::<f32>(gpu(), &dout);
    let eight = case.gradients_on::<f32>(gpu(), &times(&dout, 8.0));
    assert!(eight.dqk == times(&one.dqk, 8.0) && eight.dv == times(&one.dv, 8.0));
    let none = case.gradients_on::<f32>(gpu(), &times(&dout, 0.0));
    assert!([none.dqk, none.dv].concat().iter().all(|x| *x == 0.0));
}

/// Masked positions within buckets of their own: they see no key, and no query sees them. NaN and infinity in all of theirs change nothing.
/// In rows of 7 elements, too, where a group of 4 would reach into the next row.
pub(super) fn nothing_leaks(gpu: &Gpu) -> Result<(), String> {
    [(16, 8), (7, 5)].into_iter().try_for_each(|sizes| nothing_leaks_of(gpu, sizes))
}

fn nothing_leaks_of(gpu: &Gpu, (dim, value_dim): (usize, usize)) -> Result<(), String> {
    let options = LshOptions::new(2, 4, 16).key_mask(true).within_bucket(true);
    let shape = AttentionShape::new(2, 2, 60, dim).value_dim(value_dim);
    let mut case = Case::<f32>::new(shape, options, Kind::Normal, 3);
    let mut dout = case.dout();
    let clean = case.gradients_on::<f32>(gpu, &dout);
    let strange = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    let mask = case.key_mask.clone().expect("the options ask for one");
    let hidden: Vec<usize> = (0..2 * 2 * 60).filter(|row| !mask[row / 120 * 60 + row % 60]).collect();
    assert!(hidden.len() > 20, "a quarter is hidden");
    for &row in &hidden {
        let gradients = [&clean.dqk[row * dim..][..dim], &clean.dv[row * value_dim..][..value_dim]].concat();
        if gradients.iter().any(|x| *x != 0.0) {
            return Err(format!("the gradients of row {row}, which meets nobody, are not 0"));
        }
        case.qk[row * dim..][..dim].fill(strange[row % 3]);
        case.v[row * value_dim..][..value_dim].fill(strange[(row + 1) % 3]);
        dout[row * value_dim..][..value_dim].fill(strange[(row + 2) % 3]);
    }
    match bits(&case.gradients_on(gpu, &dout)) == bits(&clean) {
        true => Ok(()),
        false => Err("what meets nobody matters".into()),
    }
}

/// A NaN in qk, v or dout of one position, unchained so that not all rows meet it: it shows in the gradients of the rows that meet it, and of
/// what they meet, and in those of no others.
pub(super) fn strange_values_show(gpu: &Gpu) -> Result<(), String> {
    let options = LshOptions::new(1, 8, 8).chain_rounds(false).wrap(false);
    let case = Case::<f32>::new(AttentionShape::new(1, 2, 90, 16).value_dim(8), options, Kind::Normal, 7);
    for tensor in 0..3 {
        let (mut case, mut dout) = (case.clone(), case.dout());
        let all: [&mut [f32]; 3] = [&mut case.qk[90 * 16..], &mut case.v[90 * 8..], &mut dout[90 * 8..]];
        all.into_iter().nth(tensor).expect("one of three")[37 * if tensor == 0 { 16 } else { 8 } + 3] =
            f32::NAN;
        let got = case.gradients_on::<f32>(gpu, &dout);
        let exact = case.exact_gradients::<f32>(&dout, &got.buckets);
        let strange = |x: &[f64]| x.iter().filter(|x| x.is_nan()).count();
        assert!((1..90 * 16).contains(&strange(&exact.dqk.out)), "some rows meet it, and not all");
        super::within(&exact, &got.dqk, &got.dv).map_err(|e| format!("tensor {tensor}: {e}"))?;
    }
    Ok(())
}

#[test]
fn what_meets_nobody_does_not_matter() {
    for gpu in both_kinds_of_tile() {
        nothing_leaks(&gpu).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn what_is_not_finite_shows_where_it_is_met() {
    for gpu in both_kinds_of_tile() {
        strange_values_show(&gpu).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn a_query_alone_has_no_gradient_and_nothing_is_empty() {
    // One chunk a position: each sees itself alone, at weight 1.
    let options = LshOptions::new(2, 4, 1).look_back(0).chain_rounds(false);
    let case = Case::<f32>::new(shape(), options, Kind::Normal, 3);
    let (dout, got) = (case.dout(), case.gradients_on::<f32>(gpu(), &case.dout()));
    assert!(got.dqk.iter().all(|x| *x == 0.0));
    let off = got.dv.iter().zip(&dout).map(|(got, want)| (got - want).abs()).fold(0.0, f32::max);
    assert!(off < 1e-5, "dv is dout, once for both rounds: {off}");

    for shape in [AttentionShape::new(0, 2, 10, 16), AttentionShape::new(2, 2, 0, 16)] {
        let none = Case::<f32>::new(shape, LshOptions::new(2, 8, 16), Kind::Normal, 3);
        let got = none.gradients_on::<f32>(gpu(), &[]);
        assert!(got.dqk.is_empty() && got.dv.is_empty() && got.buckets.is_empty());
    }
}
