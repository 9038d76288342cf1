//! What a rank computes in each step, planned.

use crate::plan::Plan;
use std::ops::Range;
use std::sync::OnceLock;
use wgpu_attention::pattern::Excerpt;
use wgpu_attention::ranks::{Needs, source};
use wgpu_attention::{
    Attention, AttentionPlan, BackwardPlan, ElementType, Error, Gpu, Gradients, Layout, Pattern, Result,
    Storage, Term,
};

/// The keys that a rank needs of another, and its call over them.
pub(crate) struct Step {
    /// The rank that holds the keys.
    pub(crate) from: usize,
    /// How many they are.
    pub(crate) keys: usize,
    pub(crate) plan: AttentionPlan,
    backward: OnceLock<BackwardPlan>,
}

impl Step {
    /// The gradients of the call, planned when they are first asked for.
    pub(crate) fn backward(&self) -> Result<&BackwardPlan> {
        if let Some(plan) = self.backward.get() {
            return Ok(plan);
        }
        let gradients = Gradients::of(self.plan.attention()).storage(ElementType::F32);
        let plan = self.plan.backward_with(gradients)?;
        Ok(self.backward.get_or_init(|| plan))
    }
}

/// One per rank, in the order of the ring; `None` where nothing is needed.
pub(crate) fn steps(
    gpu: &Gpu,
    attention: &Attention,
    pattern: &dyn Pattern,
    plan: &Plan,
    needs: &Needs,
) -> Result<Vec<Option<Step>>> {
    let (rank, ranks) = (needs.rank(), plan.queries.ranks());
    let step = |step| {
        let from = source(rank, step, ranks);
        let own = of_rank(attention, plan.queries.count(rank), needs.keys(from));
        if own.shape.is_empty() || own.shape.kv_len == 0 {
            return Ok(None);
        }
        let pairs = excerpt(attention, pattern, plan, rank, needs.from(from))?;
        let plan = gpu.kernels().attention(own, &pairs)?;
        Ok(Some(Step { from, keys: needs.keys(from), plan, backward: OnceLock::new() }))
    };
    (0..ranks).map(step).collect()
}

/// The pairs of a rank's queries and of some keys.
pub(crate) fn excerpt(
    attention: &Attention,
    pattern: &dyn Pattern,
    plan: &Plan,
    rank: usize,
    keys: &[Range<usize>],
) -> Result<Excerpt> {
    Excerpt::new(pattern, attention.shape.extent(), plan.queries.rows(rank), keys)
}

/// The call over so many queries and keys: contiguous, with out in f32, as it is merged.
pub(crate) fn of_rank(attention: &Attention, q_len: usize, kv_len: usize) -> Attention {
    let storage = Storage::all(attention.storage.q).kv(attention.storage.kv).out(ElementType::F32);
    Attention::from(attention.shape.q_len(q_len).kv_len(kv_len))
        .score(attention.score.clone())
        .storage(storage)
}

/// Refuses what would be another thing on a rank's own rows, and what does not fit the ranks.
pub(crate) fn check(attention: &Attention, plan: &Plan, rank: usize, ranks: usize) -> Result<()> {
    attention.check()?;
    if let Some(term) = attention.score.terms().iter().find(|term| !matches!(term, Term::Softcap(_))) {
        let need = "scale and softcap alone: other terms go by position, or bring a tensor";
        return Err(Error::argument("score", need, term.name()));
    }
    let layouts = &attention.layouts;
    for (name, layout) in [("q", layouts.q), ("k", layouts.k), ("v", layouts.v), ("out", layouts.out)] {
        if layout != Layout::Bhld {
            return Err(Error::argument(format!("{name}_layout"), "Layout::Bhld", format!("{layout:?}")));
        }
    }
    for (name, rows) in [("queries", &plan.queries), ("keys", &plan.keys)] {
        if rows.ranks() != ranks {
            return Err(Error::argument(format!("plan.{name}"), format!("{ranks} ranks"), rows.ranks()));
        }
    }
    match rank < ranks {
        true => Ok(()),
        false => Err(Error::argument("rank", format!("below {ranks}"), rank)),
    }
}
