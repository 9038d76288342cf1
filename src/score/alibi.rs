//! Linear biases by distance (ALiBi, Press 2022).

use super::fields::{Fields, Written};
use super::rule::{Known, Pair, Rule, TINY, TensorGradient, Tensors, TermTensor, U};
use crate::uniform::{Block, uniform};
use crate::{AttentionShape, Error, Result};
use std::borrow::Cow;
use std::fmt::{Display, Formatter};
use std::str::FromStr;

/// Adds -slope_h D, with D = (i + Lk - Lq) - j (Press 2022, section 3): for Lq = Lk the usual slope_h (j - i). Queries and
/// keys are aligned at their ends, as causal masks are, so that the last rows of a sequence, given alone with all keys, have
/// the scores that they have in the whole. A slope that is not finite makes the rows of its head NaN.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Alibi {
    slopes: Slopes,
    symmetric: bool,
}

/// The slopes of [`Alibi`], one per query head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[non_exhaustive]
pub enum Slopes {
    /// 2^(-8 h / H), h = 1 ..= H (Press 2022, section 3), rounded to f32: the formula for every number of heads.
    #[default]
    Paper,
    /// Those of the paper's published code and of Bloom: for H that is no power of two, the formula of the next lower power
    /// n, then every other slope of 2 n. The same as [`Paper`](Self::Paper) where H is a power of two.
    Bloom,
    /// Those of MPT: for H that is no power of two, of the formula of the next higher power n the second, fourth, ..., then
    /// the first, third, ..., as many as there are heads.
    Mpt,
    /// The caller's tensor `slopes`, `[H]`.
    Given,
}

uniform! {
    /// Of `shaders/score/alibi.wgsl`.
    AlibiParams { symmetric: u32 }
}

impl Alibi {
    /// The linear biases with these slopes.
    pub fn new(slopes: Slopes) -> Self {
        Self { slopes, symmetric: false }
    }

    /// Sets whether the term is -slope_h |D|: keys after the query count as far as those before it.
    pub fn symmetric(self, symmetric: bool) -> Self {
        Self { symmetric, ..self }
    }

    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, String> {
        fields.only(&["slopes", "symmetric"])?;
        let slopes = fields.find("slopes", "paper, bloom, mpt or given")?.unwrap_or_default();
        Ok(Self::new(slopes).symmetric(fields.flag("symmetric")?))
    }

    /// D, or |D|.
    fn distance(&self, at: &Pair<'_>) -> f64 {
        (if self.symmetric { at.distance().abs() } else { at.distance() }) as f64
    }

    fn term(&self, at: &Pair<'_>, tensors: &Tensors<'_>) -> f64 {
        -f64::from(tensors[0][at.head]) * self.distance(at)
    }
}

impl Slopes {
    /// The slopes of this many heads; `None` where the caller gives them.
    ///
    /// ```
    /// use wgpu_attention::Slopes;
    /// assert_eq!(Slopes::Paper.values(2), Some(vec![0.0625, 0.00390625]));
    /// assert_eq!(Slopes::Bloom.values(3), Some(vec![0.0625, 0.00390625, 0.25]));
    /// ```
    pub fn values(self, heads: usize) -> Option<Vec<f32>> {
        let slope = |h: usize, n: usize| (-8.0 * h as f64 / n as f64).exp2() as f32;
        let all = |n: usize| (1..=n).map(move |h| slope(h, n));
        match self {
            Self::Paper => Some(all(heads).collect()),
            Self::Bloom => {
                let lower = if heads.is_power_of_two() { heads } else { heads.next_power_of_two() / 2 };
                let odd = (0..).map(|n| slope(2 * n + 1, 2 * lower));
                Some(all(lower).chain(odd).take(heads).collect())
            }
            Self::Mpt => {
                let higher = heads.next_power_of_two();
                if higher == heads {
                    return Some(all(heads).collect());
                }
                let second = all(higher).skip(1).step_by(2);
                Some(second.chain(all(higher).step_by(2)).take(heads).collect())
            }
            Self::Given => None,
        }
    }
}

/// By their names in lower case.
impl FromStr for Slopes {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let of_name = |slopes: &Self| slopes.to_string() == text;
        let found = [Self::Paper, Self::Bloom, Self::Mpt, Self::Given].into_iter().find(of_name);
        found.ok_or_else(|| Error::argument("slopes", "paper, bloom, mpt or given", format!("`{text}`")))
    }
}

/// As [`from_str`](Self::from_str) reads it.
impl Display for Slopes {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Paper => "paper",
            Self::Bloom => "bloom",
            Self::Mpt => "mpt",
            Self::Given => "given",
        })
    }
}

impl Rule for Alibi {
    fn name(&self) -> &'static str {
        "alibi"
    }

    fn fields(&self) -> Written {
        let written = Written::default();
        let written = match self.slopes {
            Slopes::Paper => written,
            slopes => written.with("slopes", slopes),
        };
        written.with_flag("symmetric", self.symmetric)
    }

    fn check(&self, _: &AttentionShape) -> Result<()> {
        Ok(())
    }

    fn tensors(&self, shape: &AttentionShape) -> Vec<TermTensor> {
        let given = self.slopes == Slopes::Given;
        given.then_some(TermTensor { name: "slopes", len: shape.heads, strided: false }).into_iter().collect()
    }

    fn constants(&self, shape: &AttentionShape) -> Option<(&'static str, Vec<f32>)> {
        self.slopes.values(shape.heads).map(|slopes| ("slopes", slopes))
    }

    fn score(&self, before: f64, at: &Pair<'_>, tensors: &Tensors<'_>) -> f64 {
        before + self.term(at, tensors)
    }

    fn may_spoil(&self) -> bool {
        self.slopes == Slopes::Given
    }

    /// A distance past 2^24 and the product: two roundings; then the addition. A product past f32's range is an infinity, from which the
    /// score before does not lead back.
    fn error(&self, before: Known, after: f64, at: &Pair<'_>, tensors: &Tensors<'_>) -> f64 {
        let term = self.term(at, tensors).abs();
        let largest = f64::from(f32::MAX);
        if term * (1.0 + 2.0 * U) > largest && after > -largest {
            return f64::INFINITY;
        }
        let flush = if term == 0.0 { 0.0 } else { 2.0 * TINY };
        before.error + 2.0 * U * term + U * (after.abs() + before.error) + flush
    }

    /// -D; rounded where it is past 2^24.
    fn element(&self, _: Known, at: &Pair<'_>, _: &Tensors<'_>) -> Option<(usize, Known)> {
        let distance = self.distance(at);
        let error = if distance.abs() > 16_777_216.0 { U * distance.abs() } else { 0.0 };
        (self.slopes == Slopes::Given).then_some((at.head, Known { score: -distance, error }))
    }

    fn gradient(&self, _: &str, _: &AttentionShape) -> Option<TensorGradient> {
        Some(TensorGradient::one_per_head())
    }

    fn drawn(&self, normal: f64) -> f32 {
        normal.abs() as f32 / 16.0
    }

    fn silent(&self, _: u64) -> Option<f32> {
        (self.slopes == Slopes::Given).then_some(0.0)
    }

    fn shader(&self) -> Cow<'static, str> {
        include_str!("../../shaders/score/alibi.wgsl").into()
    }

    fn scales(&self) -> bool {
        false
    }

    fn params(&self, _: &AttentionShape) -> Option<Block> {
        Some(Block::new("alibi", AlibiParams { symmetric: self.symmetric.into() }))
    }
}

#[cfg(test)]
mod tests {
    use super::Slopes;

    #[test]
    fn slopes_of_head_counts_that_are_no_power_of_two() {
        // As the published code has them: for 6 heads those of 4, then the first and third of 8.
        let two = |exponents: &[f64]| Some(exponents.iter().map(|e| e.exp2() as f32).collect::<Vec<_>>());
        assert_eq!(Slopes::Bloom.values(6), two(&[-2.0, -4.0, -6.0, -8.0, -1.0, -3.0]));
        assert_eq!(Slopes::Mpt.values(6), two(&[-2.0, -4.0, -6.0, -8.0, -1.0, -3.0]));
        assert_eq!(Slopes::Mpt.values(3), two(&[-4.0, -8.0, -2.0]));
        assert_eq!(Slopes::Bloom.values(3), two(&[-4.0, -8.0, -2.0]));
        assert_eq!(Slopes::Bloom.values(12).unwrap()[8..], two(&[-0.5, -1.5, -2.5, -3.5]).unwrap());
        for heads in [1, 2, 8, 64] {
            assert_eq!(Slopes::Bloom.values(heads), Slopes::Paper.values(heads));
            assert_eq!(Slopes::Mpt.values(heads), Slopes::Paper.values(heads));
        }
    }
}
