//! Scores that terms take below f32's range, as two masks of f32::MIN that meet: against formulas written here.

use wgpu_attention::reference::gradient::{BoundOptions, BoundedGradients, bounded};
use wgpu_attention::reference::{self, Position, Row};
use wgpu_attention::{Alibi, Attention, AttentionShape, Bias, BiasStrides, Full, Inputs, Score, Slopes};

const MIN: f32 = f32::MIN;
/// The lowest score of a pair that is not left out.
const LOWEST: f64 = f32::MIN.next_up() as f64;
const SCORES: [f32; 4] = [0.5, -1.0, 2.0, 0.25];
const VALUES: [f32; 4] = [1.0, 2.0, 4.0, 8.0];

/// One query and four keys, with a slope of ALiBi's and two biases.
struct Masked {
    slope: f32,
    biases: [[f32; 4]; 2],
}

impl Masked {
    fn attention(&self) -> Attention {
        let strides = BiasStrides::broadcast([1, 1, 1, 4]);
        let score = Score::new().bias(strides).with(Bias::second(strides));
        AttentionShape::new(1, 1, 4, 1).q_len(1).score(score.with(Alibi::new(Slopes::Given)))
    }

    fn with<T>(&self, made: impl FnOnce(&Inputs<'_, f32>) -> T) -> T {
        let [first, second] = &self.biases;
        let inputs = Inputs::new(&[1.0f32], &SCORES, &VALUES).tensor("bias", first);
        made(&inputs.tensor("second_bias", second).tensor("slopes", &[self.slope]))
    }

    fn row(&self) -> Row {
        let at = Position { batch: 0, head: 0, i: 0 };
        self.with(|inputs| reference::row(self.attention(), inputs, &Full, at, None).expect("a row"))
    }

    fn gradients(&self) -> BoundedGradients {
        let made = |inputs: &Inputs<'_, f32>| {
            bounded(self.attention(), inputs, &[1.0f32], &Full, BoundOptions::default())
        };
        self.with(made).expect("gradients")
    }
}

/// Out and lse over the keys that are not masked, by the plain scores.
fn of_keys(keys: &[usize]) -> (f64, f64) {
    let weights = || keys.iter().map(|&j| (f64::from(SCORES[j]).exp(), f64::from(VALUES[j])));
    let l: f64 = weights().map(|(weight, _)| weight).sum();
    (weights().map(|(weight, value)| weight * value).sum::<f64>() / l, l.ln())
}

#[test]
fn masks_that_meet_weigh_nothing_beside_a_score() {
    let two = Masked { slope: 0.0, biases: [[0.0, MIN, MIN, 0.0], [0.0, MIN, -3e38, 0.0]] };
    // Distances of 3 to 0: a slope that takes a mask below f32's range, and one that is there by itself.
    let slope = Masked { slope: 1e38, biases: [[MIN, -2e38, -3e38, 0.0], [0.0; 4]] };
    let alone = Masked { slope: 2e38, biases: [[0.0; 4], [0.0, -3e38, 0.0, 0.0]] };
    for (masked, keys) in [(two, &[0, 3][..]), (slope, &[3]), (alone, &[3])] {
        let (row, (out, lse)) = (masked.row(), of_keys(keys));
        assert!((row.out[0] - out).abs() < 1e-12 && (row.lse - lse).abs() < 1e-12, "{row:?}");
        assert!(row.bound[0] < 1e-4 && row.lse_bound < 1e-4, "{row:?}");
        let gradients = masked.gradients();
        for (j, score) in SCORES.iter().enumerate() {
            let p = if keys.contains(&j) { (f64::from(*score) - lse).exp() } else { 0.0 };
            let dk = p * (f64::from(VALUES[j]) - out);
            for (got, exact) in [(&gradients.dv, p), (&gradients.dk, dk)] {
                assert!((got.out[j] - exact).abs() < 1e-12 && got.bound[j] < 1e-4, "{j}: {got:?}");
            }
        }
        assert!(gradients.dq.bound[0] < 1e-4, "{:?}", gradients.dq);
        assert!(gradients.terms.iter().all(|(_, x)| x.bound.iter().all(|x| x.is_finite())));
    }
}

/// Where nothing else is there, all scores are the lowest one: the mean of the values, whatever the masks' sums are.
#[test]
fn a_row_of_masks_that_meet_is_a_mean() {
    let equal = Masked { slope: 0.0, biases: [[MIN; 4]; 2] };
    let unequal = Masked { slope: 0.0, biases: [[MIN; 4], [-1e38, -3e38, MIN, -1e36]] };
    let one = Masked { slope: 0.0, biases: [[MIN; 4], [0.0; 4]] };
    for (masked, exact) in [(equal, true), (unequal, true), (one, false)] {
        let row = masked.row();
        assert!((row.out[0] - 3.75).abs() < 1e-12 && row.lse == LOWEST, "{row:?}");
        // A second bias of 0 is one rounding more, which may lift a score by a place.
        assert!(row.bound[0] < if exact { 1e-5 } else { 4.3 }, "{row:?}");
        assert!(row.lse_bound < 1e-6 * LOWEST.abs(), "{row:?}");
        if exact {
            let gradients = masked.gradients();
            for (j, value) in VALUES.iter().enumerate() {
                let dk = (f64::from(*value) - 3.75) / 4.0;
                for (got, exact) in [(&gradients.dv, 0.25), (&gradients.dk, dk)] {
                    assert!((got.out[j] - exact).abs() < 1e-12 && got.bound[j] < 1e-4, "{j}: {got:?}");
                }
            }
        }
    }
}

/// What a kernel cannot bring back: minus infinity, to which 3.4e38 is added, leaves the other keys, and the bound allows it. Plus infinity
/// leaves NaN, of which nothing is said.
#[test]
fn sums_that_leave_the_range_on_the_way() {
    // Key 1 is 2 before the query: -4e38 + 3.4e38 = -0.6e38, above the -1e38 of key 3, which is all that f32 leaves.
    let fell = Masked { slope: 2e38, biases: [[MIN, 3.4e38, MIN, -1e38], [0.0; 4]] };
    let row = fell.row();
    assert_eq!(row.out[0], 2.0);
    assert!(row.bound[0] >= 6.0 && row.bound[0] < 7.0 && row.lse_bound >= 0.4e38, "{row:?}");
    let rose = Masked { slope: -2e38, biases: [[0.0, -3e38, 0.0, 0.0], [0.0, -3e38, 0.0, 0.0]] };
    let both = Masked { slope: 0.0, biases: [[3e38, 0.0, 0.0, 0.0]; 2] };
    // Minus infinity and plus infinity.
    let nan = Masked { slope: 2e38, biases: [[3e38, 0.0, 0.0, 0.0]; 2] };
    for rose in [rose, both, nan] {
        let row = rose.row();
        assert!(row.bound[0].is_infinite() && row.lse_bound.is_infinite(), "{row:?}");
        assert!(rose.gradients().dq.bound[0].is_infinite());
    }
}

/// Biases that take each other back leave the score, in the reference and in f32: they are added to each other first.
#[test]
fn biases_that_take_each_other_back() {
    for huge in [1e9f32, 1e30, 3e38] {
        let away = Masked { slope: 0.0, biases: [[-huge, 0.0, huge, 0.0], [huge, 0.0, -huge, 0.0]] };
        let (row, (out, lse)) = (away.row(), of_keys(&[0, 1, 2, 3]));
        assert!((row.out[0] - out).abs() < 1e-12 && (row.lse - lse).abs() < 1e-12, "{huge:e}: {row:?}");
        assert!(row.bound[0] < 1e-4 && row.lse_bound < 1e-4, "{huge:e}: {row:?}");
    }
}
