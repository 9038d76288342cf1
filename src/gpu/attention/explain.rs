//! What a plan will do and what it costs.

use super::Variant;
use super::path::PathChoice;
use super::tables::PartPlan;
use crate::gpu::loads::Loads;
use crate::mask::{Part, Parts};
use crate::schedule::{Schedule, items};
use crate::wgsl::{AttentionVariant, Tile};
use crate::{Attention, Options};

/// What a plan will do and what it costs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Explanation {
    /// Parts, each a pass of the kernel over a set of pairs of its own.
    pub parts: usize,
    /// Pairs in S, over all batch items and heads.
    pub kept: u64,
    /// Pairs in the blocks that the kernel visits.
    pub visited: u64,
    /// Bytes of the masks and orders on the device.
    pub mask_bytes: u64,
    /// Bytes of the scratch of a call, which [`Scratch`](super::Scratch) can share among calls.
    pub scratch_bytes: u64,
    /// Dispatches of a call without lse, merging included.
    pub dispatches: usize,
    /// Workgroups of all dispatches, without those that merge.
    pub workgroups: u64,
    /// Floating-point operations that workgroups execute, as [`Attention::flops`] counts them: on the visited pairs, of the rows that
    /// their tiles have. A tile of few rows does not compute those that the last block lacks.
    pub flops: f64,
    /// Sizes of a workgroup, of the first part.
    pub tile: Tile,
    /// Why those: the caller, or what suits the [family](crate::wgsl::GpuFamily) of GPUs.
    pub tile_why: String,
    /// Workgroups that share the keys of one row tile: more than 1 where there are few rows.
    pub splits: usize,
    /// Bytes of workgroup memory.
    pub workgroup_bytes: usize,
    /// The kernel and the reason for it.
    pub choice: PathChoice,
    /// Of each part: workgroups, and what they do.
    passes: Vec<(u32, Loads)>,
    merges: bool,
}

impl Explanation {
    /// Dispatches of the same workgroups on a device of this kind whose speed is not measured, merging included: what
    /// [`Options::dispatch_flops`](crate::Options::dispatch_flops) says of its default.
    ///
    /// ```
    /// # fn main() -> Result<(), wgpu_attention::Error> {
    /// # let gpu = wgpu_attention::Gpu::new()?;
    /// use wgpu_attention::{AttentionShape, Full, wgpu::DeviceType};
    /// let shape = AttentionShape::new(1, 64, 2048, 64);
    /// let explained = gpu.kernels().attention(shape, &Full)?.explain().clone();
    /// assert_eq!(explained.dispatches_on(DeviceType::DiscreteGpu), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn dispatches_on(&self, kind: wgpu::DeviceType) -> usize {
        let of = |(workgroups, loads): &(u32, Loads)| {
            workgroups.div_ceil(Options::default().items_per_dispatch(kind, loads)) as usize
        };
        self.passes.iter().map(of).sum::<usize>() + usize::from(self.merges)
    }
}

/// The explanation of a plan.
pub(super) fn explain(
    attention: &Attention,
    parts: &Parts,
    schedule: &Schedule,
    variant: &Variant,
    plans: &[PartPlan],
    choice: PathChoice,
    tile_why: String,
) -> Explanation {
    let shape = &attention.shape;
    let tile = variant.parts[0].tile;
    let pairs = || parts.parts().iter().map(|part| part_pairs(attention, part));
    let dispatches: usize = plans.iter().map(|plan| plan.work.dispatches().count()).sum();
    let flops = parts.parts().iter().zip(&variant.parts);
    Explanation {
        parts: parts.parts().len(),
        kept: pairs().map(|pairs| pairs.0).sum(),
        visited: pairs().map(|pairs| pairs.1).sum(),
        mask_bytes: parts.bytes(),
        scratch_bytes: schedule.scratch_bytes.iter().sum(),
        dispatches: dispatches + usize::from(variant.merge.is_some()),
        workgroups: plans.iter().map(|plan| u64::from(plan.work.items)).sum(),
        flops: flops.map(|(part, variant)| executed_flops(attention, part, variant)).sum(),
        tile,
        tile_why,
        splits: schedule.splits,
        workgroup_bytes: tile.workgroup_bytes(shape.head_dim),
        choice,
        passes: plans.iter().map(|plan| (plan.work.items, plan.loads.clone())).collect(),
        merges: variant.merge.is_some(),
    }
}

fn executed_flops(attention: &Attention, part: &Part, variant: &AttentionVariant) -> f64 {
    let (shape, grid) = (&attention.shape, part.mask.grid());
    let rows = items(attention, part, variant.packed, &variant.tile) * variant.tile.rows();
    let in_blocks = shape.batch * attention.computed_heads() * grid.q_len.next_multiple_of(grid.block_q);
    attention.flops(part_pairs(attention, part).1) * rows as f64 / in_blocks.max(1) as f64
}

/// Kept and visited pairs of a part over the batch items and computed heads of the call (a mask may be made for one of each).
fn part_pairs(attention: &Attention, part: &Part) -> (u64, u64) {
    let (shape, grid) = (&attention.shape, part.mask.grid());
    let items = if grid.batch == shape.batch { 1 } else { shape.batch as u64 };
    let of_heads = |heads: &[u32]| {
        let own = |head: u32| if part.mask.head_stride() == 0 { 0 } else { head as usize };
        let pairs = heads.iter().map(|&head| part.mask.pairs_of_head(own(head)));
        pairs.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    };
    let (kept, visited) = match attention.heads.chosen() {
        Some(heads) => of_heads(heads),
        None => {
            let times = if grid.heads == shape.heads { 1 } else { shape.heads as u64 };
            (part.mask.kept() * times, part.mask.visited() * times)
        }
    };
    (kept * items, visited * items)
}
