//! What a backward plan will do and what it costs.

use super::{AttentionPlan, Narrow, Pass, PathChoice, TensorPass};
use crate::mask::Parts;

/// What a backward plan will do and what it costs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BackwardExplanation {
    /// Pairs in S, over all batch items and heads.
    pub kept: u64,
    /// Pairs in the blocks that each of the passes, over queries and over keys, visits.
    pub visited: u64,
    /// Bytes of the transposed masks and orders on the device, beside those of the forward plan.
    pub mask_bytes: u64,
    /// Bytes of the records of a call, 16 per query and head, and of a copy of `relative_biases`; and, where several parts add up to
    /// gradients in 16 bits, of their sums in f32.
    pub scratch_bytes: u64,
    /// Dispatches of a call that asks for dq, dk and dv.
    pub dispatches: usize,
    /// Floating-point operations of dq, dk and dv on the visited pairs: 8 d + 6 dv each, and 6 d more under relative rows, which both
    /// passes multiply and the one over queries adds to dq.
    pub flops: f64,
    /// The kernels of dq, dk and dv, and why those.
    pub choice: PathChoice,
    /// What the gradients of the tensors of the score's terms cost beside that, where they are asked for.
    pub tensors: Vec<TensorExplanation>,
}

impl BackwardExplanation {
    /// What [`BoundOptions::chains`](crate::reference::gradient::BoundOptions::chains) takes: see [`TensorExplanation::chain`].
    pub fn chains(&self) -> Vec<(&'static str, usize)> {
        self.tensors.iter().filter_map(|tensor| Some((tensor.name, tensor.chain?))).collect()
    }
}

/// What the gradient of a tensor of the score's terms costs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TensorExplanation {
    /// The tensor.
    pub name: &'static str,
    /// Copies of the tensor that workgroups add to side by side, before they are added up. One is the caller's buffer itself.
    pub copies: usize,
    /// Bytes of the copies: 16 MiB at most, whatever the lengths.
    pub scratch_bytes: u64,
    /// Dispatches: workgroups that would meet in an element run in several.
    pub dispatches: usize,
    /// Additions in a row that make an element, at most. `None` where it may be as many as pairs read the element.
    pub chain: Option<usize>,
}

pub(super) fn explain(
    forward: &AttentionPlan,
    transposed: &Parts,
    [queries, keys]: [&Pass; 2],
    narrow: &[Option<Narrow>; 3],
    tensors: &[TensorPass],
    choice: &PathChoice,
) -> BackwardExplanation {
    let (attention, explanation) = (forward.attention(), forward.explain());
    let shape = &attention.shape;
    let dispatches =
        |pass: &Pass| -> usize { pass.parts.iter().map(|part| part.work.dispatches().count()).sum() };
    let passes = if keys.fits(forward) { 1 } else { 2 };
    let flops = (8 * shape.head_dim + 6 * shape.value_dim + 6 * attention.relative_dim()) as f64;
    BackwardExplanation {
        kept: explanation.kept,
        visited: explanation.visited,
        mask_bytes: transposed.bytes(),
        scratch_bytes: super::record_bytes(attention)
            + narrow.iter().flatten().map(|it| it.bytes).sum::<u64>(),
        dispatches: usize::from(shape.len_lse() > 0)
            + dispatches(queries)
            + passes * dispatches(keys)
            + narrow.iter().flatten().map(Narrow::dispatches).sum::<usize>(),
        flops: flops * explanation.visited as f64,
        choice: choice.clone(),
        tensors: tensors.iter().map(TensorExplanation::of).collect(),
    }
}

impl TensorExplanation {
    fn of(pass: &TensorPass) -> Self {
        let (scratch_bytes, dispatches) = (pass.scratch_bytes(), pass.dispatches());
        Self { name: pass.name, copies: pass.copies, scratch_bytes, dispatches, chain: pass.chain }
    }
}
