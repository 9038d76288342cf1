//! Count and gather tests: exactly which pairs a term removes, and at which positions one is asked; a query's own key; sinks; numbers that
//! are none. Judged by formulas of the tests' own.

use super::{Case, both_kinds_of_tile};
use wgpu_attention::reference::{Kind, Rows};
use wgpu_attention::{
    Alibi, AttentionShape, BiasStrides, Counter, LshOptions, Score, Sinks, Slopes, Temperature,
};

const LEN: usize = 70;

fn shape() -> AttentionShape {
    AttentionShape::new(2, 2, LEN, 16)
}

/// A bias with every axis of its own.
fn full_bias() -> BiasStrides {
    BiasStrides::broadcast([2, 2, LEN, LEN])
}

/// Rounds chained and not, causal, a key mask, buckets of one's own.
fn option_list() -> [LshOptions; 4] {
    let three = LshOptions::new(3, 8, 12);
    [
        three.clone(),
        three.clone().chain_rounds(false).causal(true),
        three.clone().key_mask(true),
        three.chain_rounds(false).within_bucket(true),
    ]
}

/// With products that are all 0, sorted as the queries and keys say.
fn silent(score: Score, options: LshOptions, seed: u64) -> Case<f32> {
    Case::new(shape().score(score.scale(0.0)), options, Kind::Normal, seed)
}

/// Every logit 0: an output, times the logits, is a sum of whole numbers.
#[test]
fn counts() {
    for (n, options) in option_list().into_iter().enumerate() {
        let score = Score::new().bias(full_bias()).with(Sinks);
        let mut case = silent(score, options.self_penalty(0.0), n as u64);
        let draw = Counter::new(n as u64, 7);
        let bias: Vec<f32> = (0..case.tensor("bias").len())
            .map(|n| if draw.below(n as u64, 3) == 0 { f32::NEG_INFINITY } else { 0.0 })
            .collect();
        case.v.iter_mut().enumerate().for_each(|(n, v)| *v = draw.below((1 << 40) + n as u64, 2) as f32);
        // The sink of one head is one logit more, the other head has none.
        let case = case.with_tensor("bias", bias).with_tensor("sinks", vec![0.0, f32::NEG_INFINITY]);
        let got = case.run_on(&both_kinds_of_tile()[n % 2]);
        for (row, (at, keys)) in case.met(&got.buckets).enumerate() {
            let line = at.batch * 2 + at.head;
            let stays = |j: &&u32| case.tensor("bias")[(line * LEN + at.i) * LEN + **j as usize] == 0.0;
            let keys: Vec<u32> = keys.iter().filter(stays).copied().collect();
            let logits = keys.len() + usize::from(at.head == 0);
            for c in 0..16 {
                let sum: f32 = keys.iter().map(|&j| case.v[(line * LEN + j as usize) * 16 + c]).sum();
                let (want, got) = (sum / logits.max(1) as f32, got.out[row * 16 + c]);
                assert!(
                    (got - want).abs() < 0.2 / logits.max(1) as f32,
                    "{:?} {at}: {got}, not {want}",
                    case.options
                );
                assert!(logits > 0 || got == 0.0, "{at}");
            }
            let lse = if logits == 0 { f32::MIN } else { (logits as f32).ln() };
            assert!((got.lse[row] - lse).abs() < 1e-4, "{at}: lse {}, not {lse}", got.lse[row]);
        }
    }
}

/// Each query's bias names one of the keys that it meets, 25 nats ahead, and each value is the binary code of its position.
#[test]
fn the_key_that_a_bias_names() {
    for (n, options) in option_list().into_iter().enumerate() {
        let mut case = silent(Score::new().bias(full_bias()), options, n as u64);
        code_positions(&mut case);
        let buckets = case.run_on(&both_kinds_of_tile()[n % 2]).buckets;
        let mut bias = vec![0.0; case.tensor("bias").len()];
        let draw = Counter::new(n as u64, 8);
        let others =
            |i: usize, keys: &[u32]| keys.iter().copied().filter(|&j| j as usize != i).collect::<Vec<_>>();
        let rows: Vec<_> = case.met(&buckets).map(|(at, keys)| (at, others(at.i, &keys))).collect();
        let targets = rows.iter().enumerate().map(|(row, (_, keys))| {
            let target = *keys.get(draw.below(row as u64, keys.len().max(1) as u64) as usize)?;
            bias[row * LEN + target as usize] = 25.0;
            Some(target as usize)
        });
        let targets: Vec<Option<usize>> = targets.collect();
        assert!(targets.iter().flatten().count() > LEN, "most queries meet some other key");
        let case = case.with_tensor("bias", bias);
        let got = case.run_on(&both_kinds_of_tile()[n % 2]);
        assert_eq!(got.buckets, buckets);
        assert_codes(&got.out, &targets, &case.options);
    }
}

/// Slopes so steep that the nearest position before the query's own has all of the weight: in the sequence, not in the sorted order.
#[test]
fn the_key_that_is_nearest() {
    for rounds in [1, 3] {
        for chain_rounds in [true, false] {
            let options = LshOptions::new(rounds, 8, 12).causal(true).chain_rounds(chain_rounds);
            let mut case = silent(Score::new().with(Alibi::new(Slopes::Given)), options, 4);
            code_positions(&mut case);
            let case = case.with_tensor("slopes", vec![30.0, 64.0]);
            let got = case.run_on(&both_kinds_of_tile()[0]);
            let nearest = |(at, keys): (wgpu_attention::reference::Position, Vec<u32>)| {
                keys.into_iter().map(|j| j as usize).filter(|&j| j != at.i).max()
            };
            let targets: Vec<_> = case.met(&got.buckets).map(nearest).collect();
            assert!(targets.iter().flatten().count() > LEN);
            assert_codes(&got.out, &targets, &case.options);
        }
    }
}

/// v holds the binary codes of the positions.
fn code_positions(case: &mut Case<f32>) {
    case.v.iter_mut().enumerate().for_each(|(n, v)| *v = (((n / 16 % LEN) >> (n % 16)) & 1) as f32);
}

fn assert_codes(out: &[f32], targets: &[Option<usize>], options: &LshOptions) {
    for (row, target) in targets.iter().enumerate() {
        let Some(target) = target else { continue };
        let bits = out[row * 16..][..7].iter().enumerate().map(|(n, &o)| ((o > 0.5) as usize) << n);
        assert_eq!(bits.sum::<usize>(), *target, "{options:?}: row {row}");
    }
}

/// The penalty stands in place of all terms: a row that sees nothing else has it as its lse.
#[test]
fn ones_own_key_scores_the_penalty() {
    let score = Score::new().softcap(0.5).alibi().bias(full_bias()).with(Temperature);
    // One position per chunk, which sees itself alone.
    let options = LshOptions::new(1, 2, 1).look_back(0).self_penalty(-3.0);
    let case = Case::<f32>::new(shape().score(score), options, Kind::Normal, 1);
    let got = case.check(Rows::All);
    assert!(got.lse.iter().all(|&lse| (lse + 3.0).abs() < 1e-6), "{:?}", &got.lse[..4]);
    assert_eq!(got.out, case.v);
    // Numbers that are none do not count there; minus infinity removes the pair.
    let strange = |at: usize| [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30][at % 4];
    let bias = (0..case.tensor("bias").len()).map(strange).collect();
    let case = case.with_tensor("bias", bias).with_tensor("temperature", vec![f32::NAN, 0.0]);
    let got = case.check(Rows::All);
    for row in 0..4 * LEN {
        let removed = strange(row * LEN + row % LEN) == f32::NEG_INFINITY;
        let (lse, o) = if removed { (f32::MIN, 0.0) } else { (-3.0, case.v[row * 16]) };
        assert_eq!((got.lse[row], got.out[row * 16]), (lse, o), "row {row}");
    }
}

/// As often as rounds merge, there is one sink; it is all that a row without keys has.
#[test]
fn a_sink_counts_once() {
    for rounds in [1, 2, 5] {
        for chain_rounds in [true, false] {
            let options = LshOptions::new(rounds, 4, 24).chain_rounds(chain_rounds).self_penalty(0.0);
            let case = silent(Score::new().with(Sinks), options, 2);
            let case = case.with_tensor("sinks", vec![0.0, 5.0]);
            let got = case.check(Rows::All);
            for (row, (at, keys)) in case.met(&got.buckets).enumerate() {
                let lse = (keys.len() as f32 + [1.0, 5f32.exp()][at.head]).ln();
                assert!(
                    (got.lse[row] - lse).abs() < 1e-5,
                    "{rounds} rounds, {at}: {}, not {lse}",
                    got.lse[row]
                );
            }
        }
    }
    let mut case = silent(Score::new().with(Sinks), LshOptions::new(3, 8, 16).key_mask(true), 3);
    case.key_mask = Some(vec![false; 2 * LEN]);
    let case = case.with_tensor("sinks", vec![-2.5, 40.0]);
    let got = case.check(Rows::All);
    assert!(got.out.iter().all(|&o| o == 0.0));
    let sinks = |(row, &lse): (usize, &f32)| lse == [-2.5, 40.0][row / LEN % 2];
    assert!(got.lse.iter().enumerate().all(sinks), "{:?}", &got.lse[..4]);
}

/// What is no number shows in the rows that meet it, and in no others.
#[test]
fn numbers_that_are_none_show_where_they_are_met() {
    let options = || LshOptions::new(2, 8, 12);
    let score = Score::new().softcap(1.0).bias(full_bias());
    let case = Case::<f32>::new(shape().score(score), options(), Kind::Normal, 6);
    let before = case.check(Rows::All);
    for strange in [f32::NAN, f32::INFINITY] {
        let mut bias = case.tensor("bias").to_vec();
        // Key 5 of every query of batch item 1, head 0.
        (0..LEN).for_each(|i| bias[(2 * LEN + i) * LEN + 5] = strange);
        let case = case.clone().with_tensor("bias", bias);
        let got = case.check(Rows::All);
        let (mut shown, mut kept) = (0, 0);
        for (row, (at, keys)) in case.met(&got.buckets).enumerate() {
            let meets = (at.batch, at.head) == (1, 0) && at.i != 5 && keys.contains(&5);
            let (new, old) = (&got.out[row * 16..][..16], &before.out[row * 16..][..16]);
            if meets {
                shown += 1;
                assert!(new.iter().all(|o| o.is_nan()) && got.lse[row].is_nan(), "{at}: {new:?}");
            } else {
                kept += 1;
                assert_eq!(new, old, "{at}");
            }
        }
        assert!(shown > 5 && kept > 200, "{shown} rows, {kept} others");
    }
    for strange in [f32::NAN, 0.0, f32::INFINITY] {
        let score = Score::new().softcap(1.0).with(Temperature);
        let case = Case::<f32>::new(shape().score(score), options(), Kind::Normal, 6);
        let case = case.with_tensor("temperature", vec![1.0, strange]);
        let got = case.check(Rows::All);
        let is_nan = |(n, o): (usize, &f32)| o.is_nan() == (n / (16 * LEN) % 2 == 1);
        assert!(got.out.iter().enumerate().all(is_nan), "{strange}");
    }
}
