//! Calls whose gradients are integers, by what the tests themselves say who meets whom: all scores are all but equal, so that every weight is
//! 1 / n. They tell the exact pairs and how often each counts, in both roles of a position.

use super::super::{Case, both_kinds_of_tile};
use wgpu_attention::reference::Kind;
use wgpu_attention::{AttentionShape, Counter, Gpu, LshOptions, Score};

const D: usize = 8;
const DV: usize = 4;
/// Small enough that no score matters, and large enough that products keep their digits.
const SCALE: f32 = 1.0 / 1_048_576.0;

/// x is one of the unit vectors, or its negative, so that norms are 1.
pub(super) fn case(options: LshOptions) -> Case<f32> {
    let shape = AttentionShape::new(2, 2, 53, D).value_dim(DV).score(Score::new().scale(SCALE));
    let mut case = Case::<f32>::new(shape, options.self_penalty(0.0), Kind::Normal, 5);
    let draw = Counter::new(5, 50);
    case.qk.fill(0.0);
    for (n, x) in case.qk.chunks_mut(D).enumerate() {
        let place = draw.below(n as u64, 2 * D as u64) as usize;
        x[place / 2] = if place.is_multiple_of(2) { 1.0 } else { -1.0 };
    }
    case
}

pub(super) fn options() -> [LshOptions; 6] {
    let base = LshOptions::new(3, 4, 12);
    [
        base.clone(),
        base.clone().chain_rounds(false).causal(true),
        base.clone().within_bucket(true),
        base.clone().key_mask(true).causal(true),
        base.clone().count_once(true),
        base.count_once(true).within_bucket(true).key_mask(true),
    ]
}

/// What a row meets, once for each meeting; with `count_once`, once.
fn met(case: &Case<f32>, buckets: &[u32]) -> Vec<Vec<usize>> {
    let shape = case.attention.shape;
    let rows = case.met(buckets).map(|(at, keys)| {
        let first = (at.batch * shape.heads + at.head) * shape.q_len;
        let mut keys: Vec<usize> = keys.into_iter().map(|j| first + j as usize).collect();
        keys.sort_unstable();
        if case.options.count_once {
            keys.dedup();
        }
        keys
    });
    rows.collect()
}

/// dv: do_i = n_i b_i, b in {0, 1}, so that dv_j is the sum of b_i over the meetings with j.
pub(super) fn count_dv(gpu: &Gpu, case: &Case<f32>) -> Result<(), String> {
    let buckets = case.run_on(gpu).buckets;
    let draw = Counter::new(5, 51);
    let b: Vec<f32> = (0..case.attention.len_out()).map(|n| draw.below(n as u64, 2) as f32).collect();
    let (mut dout, mut want) = (b.clone(), vec![0.0; b.len()]);
    for (row, keys) in met(case, &buckets).iter().enumerate() {
        for c in 0..DV {
            dout[row * DV + c] *= keys.len() as f32;
            keys.iter().for_each(|j| want[j * DV + c] += f64::from(b[row * DV + c]));
        }
    }
    integers("dv", &case.gradients_on::<f32>(gpu, &dout).dv, 1.0, &want)
}

/// dqk: v_j = a_j e_0, do_i = n_i^2 e_0, so that ds_ij = n_i a_j - A_i, A_i the sum of a over the meetings of i. Of what a position gets as a key,
/// the part along itself goes: here, an element. Its own key gives nothing.
pub(super) fn count_dqk(gpu: &Gpu, case: &Case<f32>) -> Result<(), String> {
    let draw = Counter::new(5, 52);
    let rows = case.qk.len() / D;
    let a: Vec<f64> = (0..rows).map(|n| draw.below(n as u64, 2) as f64).collect();
    let mut case = case.clone();
    case.v.fill(0.0);
    case.v.chunks_mut(DV).zip(&a).for_each(|(v, a)| v[0] = *a as f32);
    let buckets = case.run_on(gpu).buckets;
    let x = |row: usize, c: usize| f64::from(case.qk[row * D + c]);
    let (mut dout, mut want) = (vec![0.0; rows * DV], vec![0.0; rows * D]);
    for (row, keys) in met(&case, &buckets).iter().enumerate() {
        let n = keys.len() as f64;
        dout[row * DV] = (n * n) as f32;
        let sum: f64 = keys.iter().map(|&j| a[j]).sum();
        for &j in keys.iter().filter(|&&j| j != row) {
            let ds = n * a[j] - sum;
            for c in 0..D {
                want[row * D + c] += ds * x(j, c);
                want[j * D + c] += if x(j, c) == 0.0 { ds * x(row, c) } else { 0.0 };
            }
        }
    }
    integers("dqk", &case.gradients_on::<f32>(gpu, &dout).dqk, SCALE.into(), &want)
}

fn integers(name: &str, got: &[f32], unit: f64, want: &[f64]) -> Result<(), String> {
    assert!(want.iter().any(|want| want.abs() > 2.0), "{name} is all but nothing");
    for (n, (got, want)) in got.iter().zip(want).enumerate() {
        let got = f64::from(*got) / unit;
        if !got.is_finite() || (got - want).abs() >= 0.25 {
            return Err(format!("{name}[{n}] is {got}, not {want}"));
        }
    }
    Ok(())
}

#[test]
fn every_meeting_counts() {
    // By turns under each kind of tile.
    for (n, options) in options().into_iter().enumerate() {
        let (gpu, case) = (&both_kinds_of_tile()[n % 2], case(options.clone()));
        let counted = count_dv(gpu, &case).and(count_dqk(gpu, &case));
        counted.unwrap_or_else(|e| panic!("{options:?}: {e}"));
    }
}
