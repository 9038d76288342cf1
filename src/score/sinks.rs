//! A learnt logit per head that has no value: attention sinks (gpt-oss, StreamingLLM).

use super::rule::{Known, Pair, Rule, TensorGradient, Tensors, TermTensor};
use crate::{AttentionShape, Result};
use std::borrow::Cow;

/// Gives the softmax of every row one more logit, which has no value (OpenAI 2025, gpt-oss; Miller 2023, *Attention is off by
/// one*, is a logit of 0; Xiao 2023, StreamingLLM's learnable sink): with the caller's f32 tensor `sinks`, `[H]`,
///
/// ```text
/// l_i = sum_j exp(score(i, j)) + exp(sinks_h)        o_i = sum_j exp(score(i, j)) v_j / l_i        lse_i = ln l_i
/// ```
///
/// The weights of a row sum to less than 1: what is left goes to the sink. It is a logit like a score, after every other term: neither
/// scale nor softcap acts on it. It counts once per row, over all parts and splits.
///
/// lse and the state (m, l) contain it, so that exp(score - lse) is a pair's weight, and the gradients of q, k and v need nothing
/// more; that of the sink is -sum_i exp(sinks_h - lse_i) D_i, D_i = do_i . o_i, over the rows of its head. (FlashAttention's lse does not contain it where a caller adds sinks afterwards, by the factor sigmoid(lse - sinks_h): ln(e^lse + e^sinks)
/// is ours.) A row without keys has o = 0 and lse = sinks_h. A sink of minus infinity leaves its head without one.
///
/// ```
/// use wgpu_attention::{AttentionShape, Full, Score, Sinks, reference};
/// // One key with a score of 0 and a sink of 0: each has half of the weight.
/// let attention = AttentionShape::new(1, 1, 1, 1).score(Score::new().with(Sinks));
/// let inputs = reference::Inputs::new(&[0.0f32], &[1.0f32], &[3.0]).tensor("sinks", &[0.0]);
/// let exact = reference::attention_with(&attention, &inputs, &Full)?;
/// assert_eq!((exact.out[0], exact.lse[0]), (1.5, 2f64.ln()));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Sinks;

impl Rule for Sinks {
    fn name(&self) -> &'static str {
        "sinks"
    }

    fn check(&self, _: &AttentionShape) -> Result<()> {
        Ok(())
    }

    fn tensors(&self, shape: &AttentionShape) -> Vec<TermTensor> {
        vec![TermTensor { name: "sinks", len: shape.heads, strided: false }]
    }

    fn score(&self, before: f64, _: &Pair<'_>, _: &Tensors<'_>) -> f64 {
        before
    }

    fn error(&self, before: Known, _: f64, _: &Pair<'_>, _: &Tensors<'_>) -> f64 {
        before.error
    }

    fn is_of_rows(&self) -> bool {
        true
    }

    fn sink(&self, head: usize, tensors: &Tensors<'_>) -> Option<f64> {
        Some(f64::from(tensors[0][head])).filter(|sink| *sink != f64::NEG_INFINITY)
    }

    fn gradient(&self, _: &str, _: &AttentionShape) -> Option<TensorGradient> {
        Some(TensorGradient { of_rows: true, ..TensorGradient::per_head() })
    }

    /// A sink like another key of a score of 0, or none.
    fn silent(&self, bits: u64) -> Option<f32> {
        Some(if bits & 1 == 0 { f32::NEG_INFINITY } else { 0.0 })
    }

    fn shader(&self) -> Cow<'static, str> {
        include_str!("../../shaders/score/sinks.wgsl").into()
    }

    fn scales(&self) -> bool {
        false
    }
}
