//! What a rank computes in each step, planned.

use crate::plan::Plan;
use crate::routes::Routes;
use std::ops::Range;
use std::sync::OnceLock;
use wgpu_attention::pattern::Excerpt;
use wgpu_attention::ranks::source;
use wgpu_attention::ranks::stretches::{self, count};
use wgpu_attention::{
    Attention, AttentionPlan, BackwardPlan, ElementType, Error, Gpu, Gradients, Layout, Pattern, Result,
    Storage, Term,
};

/// Some queries over some keys: a call of its own.
pub(crate) struct Step {
    /// The rank that holds the keys; of keys that all ranks get, this one.
    pub(crate) from: usize,
    /// The queries, as places among the rank's own, or among those that all ranks get.
    pub(crate) queries: Vec<Range<usize>>,
    /// How many keys.
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

/// All that a rank computes in a pass; `None` where there is nothing.
pub(crate) struct Steps {
    /// Its queries over its own keys: half of them while rows travel to all ranks, half while results come back; all at first where none travel.
    pub(crate) own: [Option<Step>; 2],
    /// Its queries over the keys that all ranks get.
    pub(crate) given: Option<Step>,
    /// The queries that all ranks get over its own keys.
    pub(crate) asked: Option<Step>,
    /// Its queries over the keys of each other rank, in the order of the ring; the first entry stands for its own.
    pub(crate) ring: Vec<Option<Step>>,
}

/// Plans everything.
pub(crate) fn steps(
    gpu: &Gpu,
    attention: &Attention,
    pattern: &dyn Pattern,
    plan: &Plan,
    routes: &Routes,
) -> Result<Steps> {
    let (needs, rank) = (&routes.needs, routes.needs.rank());
    let (ranks, own) = (plan.queries.ranks(), plan.queries.rows(rank));
    let planned = |from, all: &[Range<usize>], queries: &[Range<usize>], keys: &[Range<usize>]| {
        let call = of_rank(attention, count(queries), count(keys));
        if call.shape.is_empty() || call.shape.kv_len == 0 {
            return Ok(None);
        }
        let pairs = Excerpt::new(pattern, attention.shape.extent(), queries, keys)?;
        let plan = gpu.kernels().attention(call, &pairs)?;
        let queries = stretches::places(all, queries);
        Ok(Some(Step { from, queries, keys: count(keys), plan, backward: OnceLock::new() }))
    };
    let staying = stretches::without(own, &routes.queries.rows);
    let of_own = |queries: &[Range<usize>], from, keys: &[Range<usize>]| planned(from, own, queries, keys);
    let halves = match routes.shares() {
        true => halves(&staying, plan.block.min(64)),
        false => [staying.clone(), vec![]],
    };
    let [first, second] = halves.map(|half| of_own(&half, rank, needs.from(rank)));
    let mut ring = vec![None];
    for step in 1..ranks {
        let from = source(rank, step, ranks);
        ring.push(of_own(&staying, from, needs.from(from))?);
    }
    let common = &routes.queries.rows;
    Ok(Steps {
        own: [first?, second?],
        given: of_own(&staying, rank, &routes.keys.rows)?,
        asked: planned(rank, common, common, plan.keys.rows(rank))?,
        ring,
    })
}

/// Rows cut in two of as many blocks; the first has one more where their number is odd.
fn halves(rows: &[Range<usize>], block: usize) -> [Vec<Range<usize>>; 2] {
    let len = count(rows);
    let first = (len.div_ceil(block).div_ceil(2) * block).min(len);
    [0..first, first..len].map(|places| stretches::positions(rows, [places]))
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
