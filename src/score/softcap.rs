//! c tanh(score / c): scores stay within a cap (Gemma 2).

use super::fields::{Fields, Written};
use super::rule::{Known, Pair, Rule, TINY, Tensors, U};
use crate::uniform::{Block, uniform};
use crate::{AttentionShape, Error, Result};
use std::borrow::Cow;

/// Caps scores smoothly: c tanh(score / c) (Gemma Team 2024, section 2). Exact to a few units in the last place for every
/// cap: a cap far above the scores leaves them as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Softcap {
    /// Of c, so that a cap is a key of a map.
    bits: u32,
}

uniform! {
    /// Of `shaders/score/softcap.wgsl`.
    SoftcapParams { cap: f32 }
}

impl Softcap {
    /// A cap c: a normal number above 0, or [`Score::check`](crate::Score::check) refuses it.
    pub fn new(cap: f32) -> Self {
        Self { bits: cap.to_bits() }
    }

    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, String> {
        fields.only(&["cap"])?;
        Ok(Self::new(fields.need("cap", "a number")?))
    }

    /// c.
    pub fn cap(&self) -> f32 {
        f32::from_bits(self.bits)
    }
}

/// Units in the last place that the shader's tanh may be off, the division by c and the product with it included:
/// below 1/4, 8 roundings of the series and its first neglected term; above, exp within (3 + 2|x|) ULP, where it moves
/// (1 - z) / (1 + z) by less than 3 times that, 1 - z, 1 + z and their quotient.
const TANH_ULP: f64 = 20.0;

impl Rule for Softcap {
    fn name(&self) -> &'static str {
        "softcap"
    }

    fn fields(&self) -> Written {
        Written::default().with("cap", self.cap())
    }

    fn check(&self, _: &AttentionShape) -> Result<()> {
        let cap = self.cap();
        // Below the normal numbers a device may take the cap for 0.
        if !(cap.is_finite() && cap >= f32::MIN_POSITIVE) {
            return Err(Error::argument("softcap", "a finite normal number above 0", cap));
        }
        Ok(())
    }

    fn score(&self, before: f64, _: &Pair<'_>, _: &Tensors<'_>) -> f64 {
        let cap = f64::from(self.cap());
        cap * (before / cap).tanh()
    }

    /// The error before it, less steep than it was: tanh's slope is largest where the interval is nearest to 0. Then
    /// [`TANH_ULP`] of the result, and a flush of the score and of the result. The quotient is taken only from 2^-13 on, where
    /// neither it nor its square is flushed; below, the score stands for the result, which misses a third of t^2 < 2^-26.
    fn error(&self, before: Known, after: f64, _: &Pair<'_>, _: &Tensors<'_>) -> f64 {
        let cap = f64::from(self.cap());
        let nearest = (before.score.abs() - before.error).max(0.0) / cap;
        let slope = 1.0 - nearest.tanh().powi(2);
        slope * before.error + TANH_ULP * U * (after.abs() + slope * before.error) + 3.0 * TINY
    }

    /// 1 - tanh^2 (score / c).
    fn slope(&self, before: f64, _: &Pair<'_>, _: &Tensors<'_>) -> f64 {
        let cap = f64::from(self.cap());
        // By cosh, for 1 - tanh^2 has no places left where tanh is all but 1.
        (before / cap).cosh().powi(-2)
    }

    /// What the error of tanh, b = error / c and a flush of the quotient, makes of its square, b (2 |tanh| + b), and three
    /// roundings.
    fn slope_error(&self, before: Known, at: &Pair<'_>, tensors: &Tensors<'_>) -> f64 {
        let (cap, after) = (f64::from(self.cap()), self.score(before.score, at, tensors));
        let tanh_error = self.error(before, after, at, tensors) / cap + TINY;
        tanh_error * (2.0 * after.abs() / cap + tanh_error) + 6.0 * U
    }

    fn silent(&self, _: u64) -> Option<f32> {
        Some(0.0) // it has no elements, and leaves a score of 0
    }

    fn shader(&self) -> Cow<'static, str> {
        include_str!("../../shaders/score/softcap.wgsl").into()
    }

    fn scales(&self) -> bool {
        true
    }

    fn params(&self, _: &AttentionShape) -> Option<Block> {
        Some(Block::new("softcap", SoftcapParams { cap: self.cap() }))
    }
}
