//! The gradient of a tensor of the score's terms: a pass over queries, which adds to copies of the tensor, and their sum.
//!
//! Many pairs read one element, and there are no atomics. So a workgroup adds the pairs of its rows, each lane those elements that are its
//! own, to a copy of the tensor; workgroups whose rows read the same elements run in dispatches one after the other, or have
//! different copies; one more kernel adds up the copies in their order. A large tensor has one copy, the caller's buffer: of a bias per
//! pair nothing is held twice. A small one has many, within 16 MiB. Sinks are of rows, not of pairs: their pass walks no mask.

use super::{AttentionPlan, Gradients, Pass, PassPart};
use crate::gpu::bindings::Bindings;
use crate::gpu::params::{CopyParams, Params, SinkParams, TermParams};
use crate::gpu::pipeline::{Step, Work};
use crate::gpu::zeros::zeros;
use crate::mask::{Part, Parts};
use crate::score::TensorGradient;
use crate::wgsl::{BackwardRows, BackwardVariant, CopyPass, Tile};
use crate::{Attention, KernelPath, Result};

/// Elements of all copies of a tensor, where there are several: 16 MiB.
const MOST_ELEMENTS: usize = 1 << 22;
/// Copies at most: their sum is one loop of one lane.
const MOST_COPIES: usize = 1024;

/// Additions in a row within a tile of 1,024 pairs: of 32, and of 32 such sums (`shaders/backward/terms.wgsl`).
const TILE_CHAIN: usize = 64;

/// The gradient of one tensor, compiled when it is first bound.
#[derive(Debug)]
pub(super) struct TensorPass {
    pub(super) name: &'static str,
    pub(super) len: usize,
    /// Workgroups that run together and read the same elements each have a copy of the tensor. Where there is one copy, it is the
    /// caller's buffer, and workgroups that would meet in it run one after the other.
    pub(super) copies: usize,
    /// Additions in a row for one element at most, where the sizes tell.
    pub(super) chain: Option<usize>,
    pub(super) source: Source,
}

/// What the gradient of a tensor is summed over.
#[derive(Debug)]
pub(super) enum Source {
    /// The pairs of the mask.
    Pairs(Pass),
    /// All rows, whatever they attend: of sinks. `backward/sinks.wgsl`.
    Rows { pass: CopyPass, params: SinkParams, work: Work },
}

/// Rows that a copy of the gradient of sinks has, at least.
const ROWS_PER_COPY: usize = 64;

impl TensorPass {
    pub(super) fn new(
        forward: &AttentionPlan,
        gradients: &Gradients,
        parts: &Parts,
        (name, len): (&'static str, usize),
        gradient: TensorGradient,
    ) -> Result<Self> {
        if gradient.of_rows {
            return Self::of_rows(forward, (name, len));
        }
        let attention = forward.attention();
        let shared = forward.inner.parts.iter().map(|part| (part.tables.clone(), part.keep)).collect();
        let mut pass = {
            let rows = (BackwardRows::Tensor(name), forward.kernels.scalar_tile_kind());
            Pass::new(forward, gradients, parts, rows, Some(shared))?
        };
        let orders = parts.parts().iter().zip(&pass.variants);
        let orders = orders.map(|(part, variant)| Order::new(attention, part, variant.tile, gradient.apart));
        let orders: Vec<_> = orders.collect();
        let together = orders.iter().map(|order| order.items() / order.apart().max(1)).max().unwrap_or(1);
        let copies = (MOST_ELEMENTS / len.max(1)).min(MOST_COPIES).min(together).max(1);
        // A tile of pairs adds to the element once, and row tiles that share a copy do so one after the other.
        let tiles = |((part, order), variant): ((&Part, &Order), &BackwardVariant)| {
            let in_a_row = order.items().div_ceil(order.apart().max(1) * copies);
            let grid = part.mask.grid();
            in_a_row * grid.k_blocks() * grid.block_k.div_ceil(variant.tile.keys())
        };
        let tiles: usize = parts.parts().iter().zip(&orders).zip(&pass.variants).map(tiles).sum();
        let chain = gradient.one_element.then_some(TILE_CHAIN + tiles + copies);
        let with_order = |(part, order): (&PassPart, &Order)| {
            let Work { items, per_dispatch } = part.work;
            // As many in a row have a place of their own: those that differ in what lies apart, in every copy.
            let alone = u32::try_from(order.apart() * copies).unwrap_or(u32::MAX);
            let work = Work { items, per_dispatch: per_dispatch.min(alone.max(1)) };
            PassPart {
                work,
                params: part.params.clone().with("term", order.params(copies, len)),
                ..part.clone()
            }
        };
        pass.parts = pass.parts.iter().zip(&orders).map(with_order).collect();
        Ok(Self { name, len, copies, chain, source: Source::Pairs(pass) })
    }

    fn of_rows(forward: &AttentionPlan, (name, len): (&'static str, usize)) -> Result<Self> {
        let shape = &forward.attention().shape;
        let rows = shape.batch * shape.q_len;
        let most = (MOST_ELEMENTS / len.max(1)).clamp(1, MOST_COPIES);
        let copies = rows.div_ceil(ROWS_PER_COPY).clamp(1, most);
        let params = SinkParams {
            heads: shape.heads as u32,
            copies: copies as u32,
            rows: rows as u32,
            q_len: shape.q_len as u32,
            ..Default::default()
        };
        // A weight, a product and a sum per row.
        let work = copy_work(forward, copies * len, 16 * rows.div_ceil(copies))?;
        let pass = CopyPass::Sinks { late_maxima: forward.path().path == KernelPath::Cooperative };
        let chain = Some(rows.div_ceil(copies) + copies);
        Ok(Self { name, len, copies, chain, source: Source::Rows { pass, params, work } })
    }

    /// Bytes of the copies, beside the caller's buffer.
    pub(super) fn scratch_bytes(&self) -> u64 {
        if self.copies == 1 { 0 } else { 4 * (self.copies * self.len) as u64 }
    }

    /// Sets all of the copies to 0.
    pub(super) fn zero(&self, plan: &AttentionPlan, sums: wgpu::BufferBinding<'_>) -> Result<Step> {
        zeros(&plan.kernels, self.copies * self.len, sums)
    }

    /// Adds up the copies.
    pub(super) fn sum(
        &self,
        plan: &AttentionPlan,
        sums: wgpu::BufferBinding<'_>,
        gradient: wgpu::BufferBinding<'_>,
    ) -> Result<Step> {
        let pipeline = plan.kernels.pipeline(CopyPass::Sums.shader())?;
        let (len, copies) = (self.len as u32, self.copies as u32);
        let params = Params::of(CopyParams { len, copies, ..Default::default() });
        let bindings = Bindings::default().with("sums", sums).with("gradient", gradient);
        let work = copy_work(plan, self.len, self.copies)?;
        Step::new(plan.kernels.device(), &pipeline, &params, work, &bindings)
    }

    /// Dispatches of a call that asks for it.
    pub(super) fn dispatches(&self) -> usize {
        let passes = match &self.source {
            Source::Pairs(pass) => {
                let parts = pass.parts.iter().map(|part| part.work.dispatches().count());
                1 + parts.sum::<usize>()
            }
            Source::Rows { work, .. } => work.dispatches().count(),
        };
        passes + usize::from(self.copies > 1)
    }
}

fn copy_work(plan: &AttentionPlan, len: usize, copies: usize) -> Result<Work> {
    let items = len.div_ceil(CopyPass::LANES) as u128;
    plan.kernels.work("backward", items, (CopyPass::LANES * copies) as f64)
}

/// In which order the work items of a part come: batch items, heads and row tiles that read elements of their own first, so that as
/// many as possible run together.
#[derive(Debug)]
struct Order {
    /// Batch items, computed heads, row tiles.
    sizes: [usize; 3],
    apart: [bool; 3],
}

impl Order {
    fn new(attention: &Attention, part: &Part, tile: Tile, apart: [bool; 3]) -> Self {
        let row_tiles = part.mask.grid().q_len.div_ceil(tile.rows());
        Self { sizes: [attention.shape.batch, attention.computed_heads(), row_tiles], apart }
    }

    fn items(&self) -> usize {
        self.sizes.iter().product()
    }

    /// Work items that read elements of their own.
    fn apart(&self) -> usize {
        self.sizes.iter().zip(self.apart).map(|(&size, apart)| if apart { size } else { 1 }).product()
    }

    fn params(&self, copies: usize, len: usize) -> TermParams {
        let (mut steps, mut next) = ([1; 3], 1);
        for apart in [true, false] {
            for axis in (0..3).rev().filter(|&axis| self.apart[axis] == apart) {
                steps[axis] = next;
                // Without any there is no work.
                next *= self.sizes[axis].max(1);
            }
        }
        let [batch_step, head_step, tile_step] = steps.map(|step| step as u32);
        TermParams {
            tile_step,
            head_step,
            batch_step,
            batch: self.sizes[0] as u32,
            apart: self.apart().max(1) as u32,
            copies: copies as u32,
            len: len as u32,
        }
    }
}
