//! Dropout on the attention weights.

use super::fields::{Fields, Written};
use super::rule::{Known, Pair, Rule, Tensors};
use super::threefry::threefry;
use crate::uniform::{Block, uniform};
use crate::{AttentionShape, Error, Result};
use std::borrow::Cow;

/// Drops weights at random while training (Srivastava 2014; on attention Vaswani 2017, section 5.4; `dropout_p` of PyTorch and
/// FlashAttention):
///
/// ```text
/// o_i = sum_j p_ij keep_ij / (1 - rate) v_j            p_ij = exp(score(i, j) - lse_i)
/// ```
///
/// The softmax is over all keys of S_i, dropped ones too: lse and the state (m, l) are those without dropout, and a
/// [plan for weights](crate::WeightsPlan) gives p_ij. The gradients are those of this o.
///
/// keep_ij is a function of (seed, batch, head, i, j) alone, i and j being positions in the tensors, so that forward pass, gradients and
/// reference decide alike on every device, whatever the pattern, its blocks, parts and orders:
///
/// ```text
/// key_bh  = threefry(key: seed, counter: (batch, head))               the seed as its low word, then its high word
/// keep_ij = threefry(key: key_bh, counter: (i, j)).0 >= round(rate 2^32)
/// ```
///
/// with Threefry2x32 of 13 rounds (Salmon 2011). So a weight is dropped with probability round(rate 2^32) / 2^32: of a rate that f32 holds,
/// `rate` itself from 2^-9 on. Head is the query head.
///
/// Seed and rate are parameters of a call, not of a shader: another seed compiles nothing, and a plan that is there takes one by
/// [`AttentionBuffers::dropout_seed`](crate::AttentionBuffers::dropout_seed). A rate of 0 is no dropout: a [`Score`](crate::Score) is left without the term.
///
/// A value that is not finite shows in every row that attends it, though its weight be dropped: 0 times NaN is NaN.
///
/// ```
/// use wgpu_attention::{AttentionShape, Dropout, Full, Score, reference};
/// let dropout = Dropout::new(0.5, 7);
/// let attention = AttentionShape::new(1, 1, 8, 1).q_len(1).score(Score::new().with(dropout));
/// // Scores of 0: each of the 8 keys weighs 1/8, or 2/8 where it is kept.
/// let exact = reference::attention(&attention, &[0.0f32], &[1.0f32; 8], &[1.0; 8], &Full)?;
/// let kept = (0..8).filter(|&j| dropout.keeps(0, 0, 0, j)).count();
/// assert_eq!(exact.out[0], kept as f64 / 4.0);
/// assert_eq!(exact.lse[0], 8f64.ln());
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dropout {
    /// Of the rate, so that it is a key of a map.
    bits: u32,
    seed: u64,
}

uniform! {
    /// Of `shaders/score/dropout.wgsl`.
    DropoutParams { seed_low: u32, seed_high: u32, threshold: u32, factor: f32 }
}

impl Dropout {
    /// Drops this share of the weights, from 0 to less than 1.
    pub fn new(rate: f32, seed: u64) -> Self {
        Self { bits: rate.to_bits(), seed }
    }

    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, String> {
        fields.only(&["rate", "seed"])?;
        let seed = fields.find("seed", "a whole number")?.unwrap_or(0);
        Ok(Self::new(fields.need("rate", "a number")?, seed))
    }

    /// The share that is dropped.
    pub fn rate(&self) -> f32 {
        f32::from_bits(self.bits)
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The same rate with another seed.
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Whether the weight of a pair meets its value. `head` is the query head; no index is checked.
    pub fn keeps(&self, batch: usize, head: usize, i: usize, j: usize) -> bool {
        let words = [self.seed as u32, (self.seed >> 32) as u32];
        let key = threefry(words, [batch as u32, head as u32]);
        threefry(key, [i as u32, j as u32])[0] >= self.threshold()
    }

    /// round(rate 2^32), exact: below 2^32 for every f32 below 1.
    fn threshold(&self) -> u32 {
        (f64::from(self.rate()) * 2f64.powi(32)).round() as u32
    }

    /// 1 / (1 - rate): what a weight that is kept is multiplied by.
    pub(crate) fn factor(&self) -> f64 {
        1.0 / (1.0 - f64::from(self.rate()))
    }

    /// For the shaders.
    pub(crate) fn values(&self) -> DropoutParams {
        DropoutParams {
            seed_low: self.seed as u32,
            seed_high: (self.seed >> 32) as u32,
            threshold: self.threshold(),
            factor: self.factor() as f32,
        }
    }
}

impl Rule for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn fields(&self) -> Written {
        Written::default().with("rate", self.rate()).with("seed", self.seed)
    }

    fn check(&self, _: &AttentionShape) -> Result<()> {
        // Not NaN, either.
        if !(0.0..1.0).contains(&self.rate()) {
            return Err(Error::argument("dropout.rate", "a number from 0 to less than 1", self.rate()));
        }
        Ok(())
    }

    fn is_of_weights(&self) -> bool {
        true
    }

    fn score(&self, before: f64, _: &Pair<'_>, _: &Tensors<'_>) -> f64 {
        before
    }

    fn error(&self, before: Known, _: f64, _: &Pair<'_>, _: &Tensors<'_>) -> f64 {
        before.error
    }

    fn silent(&self, _: u64) -> Option<f32> {
        Some(0.0)
    }

    fn shader(&self) -> Cow<'static, str> {
        include_str!("../../shaders/score/dropout.wgsl").into()
    }

    fn scales(&self) -> bool {
        false
    }

    fn params(&self, _: &AttentionShape) -> Option<Block> {
        Some(Block::new(self.name(), self.values()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Score;

    #[test]
    fn rates_drop_their_share_of_all_words() {
        for (rate, threshold) in [
            (0.0, 0),
            (0.5, 1 << 31),
            (0.25, 1 << 30),
            (0.1, 429_496_736), // 0.1 in f32 is 13421773 2^-27
            (2f32.powi(-32), 1),
            (2f32.powi(-34), 0),
            (1.0 - f32::EPSILON / 2.0, u32::MAX - 255),
        ] {
            assert_eq!(Dropout::new(rate, 1).threshold(), threshold, "{rate}");
        }
    }

    /// Each share within 5 standard deviations of n (1 - rate), over all pairs and along every axis by itself.
    #[test]
    fn the_share_is_near_the_rate() {
        for (rate, seed) in [(0.1, 0), (0.5, 1), (0.9, u64::MAX)] {
            let dropout = Dropout::new(rate, seed);
            let near = |kept: usize, n: usize, what: &str| {
                let (mean, share) = (n as f64 * (1.0 - f64::from(rate)), f64::from(rate));
                let deviation = (mean * share).sqrt();
                assert!((kept as f64 - mean).abs() < 5.0 * deviation, "{kept} of {n}, rate {rate}, {what}");
            };
            let kept = |batches: usize, heads: usize, rows: usize, keys: usize| {
                let all = (0..batches * heads * rows * keys).filter(|n| {
                    let (j, i) = (n % keys, n / keys % rows);
                    dropout.keeps(n / keys / rows / heads, n / keys / rows % heads, i, j)
                });
                all.count()
            };
            near(kept(3, 4, 50, 60), 36_000, "all");
            near(kept(2000, 1, 1, 1), 2000, "batch");
            near(kept(1, 2000, 1, 1), 2000, "head");
            near(kept(1, 1, 2000, 1), 2000, "i");
            near(kept(1, 1, 1, 2000), 2000, "j");
        }
    }

    /// Two seeds, or two positions of any axis, agree by chance alone.
    #[test]
    fn decisions_depend_on_everything() {
        let dropout = Dropout::new(0.5, 3);
        let differ = |other: &dyn Fn(usize, usize) -> bool, what: &str| {
            let pairs = (0..1600).map(|n| (n / 40, n % 40));
            let differing = pairs.filter(|&(i, j)| dropout.keeps(1, 2, i, j) != other(i, j)).count();
            assert!((700..900).contains(&differing), "{what}: {differing} of 1600");
        };
        differ(&|i, j| dropout.with_seed(4).keeps(1, 2, i, j), "seed");
        differ(&|i, j| dropout.with_seed(3 + (1 << 32)).keeps(1, 2, i, j), "the seed's high word");
        differ(&|i, j| dropout.keeps(2, 2, i, j), "batch");
        differ(&|i, j| dropout.keeps(1, 3, i, j), "head");
        differ(&|i, j| dropout.keeps(2, 1, i, j), "batch for head");
        differ(&|i, j| dropout.keeps(1, 2, i + 1, j), "i");
        differ(&|i, j| dropout.keeps(1, 2, i, j + 1), "j");
        differ(&|i, j| dropout.keeps(1, 2, j, i + 40), "i for j");
    }

    #[test]
    fn bad_rates_are_named() {
        let shape = AttentionShape::new(1, 1, 4, 8);
        for rate in [1.0, -0.1, 1.5, f32::NAN, f32::INFINITY] {
            let error = Score::new().with(Dropout::new(rate, 1)).check(&shape).unwrap_err().to_string();
            let need = "dropout.rate: need a number from 0 to less than 1, got ";
            assert_eq!(error, format!("{need}{rate}"));
        }
    }

    #[test]
    fn a_rate_of_0_is_no_dropout() {
        let none = Score::new().dropout(0.5, 1).with(Dropout::new(0.0, 2));
        assert!(none.is_plain() && none.dropout_term().is_none());
        assert_eq!(none, Score::new());
    }
}
