//! A small problem for the pipelines of a plan, by which `self_test` judges them: the same kernels, a few blocks of each kind.

use crate::gpu::attention::AttentionPlan;
use crate::layout::Layout;
use crate::mask::{BlockGrid, BlockMask, Part, Parts};
use crate::pattern::PairPredicate;
use crate::schedule::{Schedule, scratch_bytes};
use crate::{Attention, AttentionShape, Error, Result, Strides};

/// Pairs of a small problem, dealt to the parts of a plan: whole blocks, blocks with holes and blocks without a pair, each kind
/// for each part.
#[derive(Debug, Clone, Copy)]
struct Pairs {
    parts: usize,
    block: [usize; 2],
    /// How many keys there are more than queries, where only keys up to a query's own are kept.
    causal: Option<isize>,
}

impl Pairs {
    /// The part that has the pair of query `i` and key `j`; of those left out none has it.
    fn owner(&self, i: usize, j: usize) -> Option<usize> {
        let later = |more: isize| j as isize > i as isize + more;
        if self.causal.is_some_and(later) {
            return None;
        }
        let [row, column] = [i / self.block[0], j / self.block[1]];
        let owner = (row + column) % self.parts;
        match (row + 3 * (column / self.parts)) % 4 {
            // Not the first column, so that short sequences have pairs.
            3 => None,
            2 => (!(7 * i + 13 * j).is_multiple_of(3)).then_some(owner),
            _ => Some(owner),
        }
    }
}

/// A plan of a small call that runs another plan's pipelines.
pub(crate) struct Small {
    pub(crate) plan: AttentionPlan,
    pairs: Pairs,
}

impl Small {
    /// Made for this plan.
    pub(crate) fn of(plan: &AttentionPlan) -> Result<Self> {
        Self::over(plan, small_attention(plan))
    }

    /// Made for this plan, of one key head where nothing but its number tells heads apart.
    pub(crate) fn of_few_heads(plan: &AttentionPlan) -> Result<Self> {
        let mut few = small_attention(plan);
        let AttentionShape { heads, kv_heads, .. } = few.shape;
        (few.shape.heads, few.shape.kv_heads) = (heads / kv_heads.max(1), kv_heads.min(1));
        let known = few.heads.chosen().is_none() && few.check().is_ok();
        Self::over(plan, if known { few } else { small_attention(plan) })
    }

    fn over(plan: &AttentionPlan, attention: Attention) -> Result<Self> {
        let inner = &*plan.inner;
        let pairs = Pairs {
            parts: inner.parts.len(),
            block: largest_blocks(&inner.sets),
            // A table of relative rows need not have those of later keys.
            causal: (attention.score.term("relative").is_some())
                .then(|| attention.shape.kv_len as isize - attention.shape.q_len as isize),
        };
        let parts = inner.sets.parts().iter().enumerate();
        let parts = parts.map(|(n, part)| small_part(&attention, part, n, pairs)).collect::<Result<_>>()?;
        let parts = Parts::new(parts, attention.shape.extent())?;
        let schedule = Schedule {
            scratch_bytes: scratch_bytes(&attention, pairs.parts > 1, inner.schedule.splits),
            ..inner.schedule.clone()
        };
        let small = AttentionPlan::cut(&plan.kernels, attention, parts, inner.choice.clone(), schedule)?;
        let pipelines = |plan: &AttentionPlan| plan.pipelines();
        if pipelines(&small)? != pipelines(plan)? {
            let need = "a call whose small problem runs the same shaders";
            return Err(Error::argument("attention", need, "one that runs others"));
        }
        Ok(Self { plan: small, pairs })
    }

    /// Its pairs as a pattern.
    pub(crate) fn pattern(&self) -> PairPredicate<impl Fn(usize, usize) -> bool + Send + Sync + 'static> {
        let pairs = self.pairs;
        PairPredicate::new(move |i, j| pairs.owner(i, j).is_some())
    }

    /// Its parts.
    pub(crate) fn parts(&self) -> &Parts {
        &self.plan.inner.sets
    }
}

/// The largest blocks of any part.
fn largest_blocks(parts: &Parts) -> [usize; 2] {
    parts.parts().iter().fold([1, 1], |[q, k], part| {
        let grid = part.mask.grid();
        [q.max(grid.block_q), k.max(grid.block_k)]
    })
}

/// The plan's call of one batch item with as many rows and keys as show every kind of block, in tensors of their own.
fn small_attention(plan: &AttentionPlan) -> Attention {
    let inner = &*plan.inner;
    let (large, schedule) = (&inner.attention, &inner.schedule);
    let [block_q, block_k] = largest_blocks(&inner.sets);
    let most = |size: fn(&crate::wgsl::Tile) -> usize| schedule.tiles.iter().map(size).max().unwrap_or(1);
    // Whole blocks and tiles, a part of one behind, and keys for every split.
    let rows = block_q + most(crate::wgsl::Tile::rows) / 2 + 5;
    let keys = (4 * block_k * inner.parts.len()).max(schedule.splits * most(crate::wgsl::Tile::keys)) + 7;
    let mut shape = large.shape;
    shape.batch = shape.batch.min(1);
    shape.q_len = shape.q_len.min(rows);
    shape.kv_len = shape.kv_len.min(keys);
    let mut small = large.clone();
    small.layouts.q = lying(large.q_strides(), shape.heads, shape.q_len, shape.head_dim);
    small.layouts.k = lying(large.k_strides(), shape.kv_heads, shape.kv_len, shape.head_dim);
    small.layouts.v = lying(large.v_strides(), shape.kv_heads, shape.kv_len, shape.value_dim);
    small.layouts.out = lying(large.out_strides(), shape.heads, shape.q_len, shape.value_dim);
    small.shape = shape;
    small
}

/// Rows that are whole vectors or not, as those of a large tensor are.
pub(crate) fn lying(strides: Strides, heads: usize, len: usize, dim: usize) -> Layout {
    if strides.is_aligned() {
        return Layout::Bhld;
    }
    let [heads, len, dim] = [heads, len, dim].map(|n| n as isize);
    Layout::Strided(Strides::new(heads * len * dim, len * dim, dim).offset(1))
}

/// The pairs of part `n`, in blocks and orders of the same kind as those of `large`.
fn small_part(attention: &Attention, large: &Part, n: usize, pairs: Pairs) -> Result<Part> {
    let (shape, blocks) = (&attention.shape, large.mask.grid());
    let order = |ordered: bool, len: usize| ordered.then(|| (0..len as u32).rev().collect());
    let q_order = order(large.q_order.is_some(), shape.q_len);
    let k_order = order(large.k_order.is_some(), shape.kv_len);
    let grid = BlockGrid::new(shape.q_len, shape.kv_len).batch(shape.batch).heads(shape.heads);
    let grid = BlockGrid { block_q: blocks.block_q, block_k: blocks.block_k, ..grid };
    let (q_last, k_last) = (shape.q_len.max(1) - 1, shape.kv_len.max(1) - 1);
    let turned = [q_order.is_some(), k_order.is_some()];
    let placed = PairPredicate::new(move |i, j| {
        let i = if turned[0] { q_last - i } else { i };
        let j = if turned[1] { k_last - j } else { j };
        pairs.owner(i, j) == Some(n)
    });
    Ok(Part { mask: BlockMask::new(&placed, grid)?, q_order, k_order })
}
