//! Attention on the device: plan, bind, encode.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | [`AttentionPlan`]: variants of the kernel, compiled; tables; how the work is cut |
//! | `explain.rs` | [`Explanation`]: what a plan will do and what it costs |
//! | `tables.rs` | one part: its mask, orders and parameters on the device |
//! | `terms.rs` | the terms of the score on the device; LSH attention uses it too |
//! | `bind.rs` | [`AttentionBuffers`] checked and bound to a plan |
//! | `outputs.rs` | what a call leaves beside out |
//! | `dropout.rs` | another seed than the plan's |
//! | `merge.rs` | the end of a call of several parts, rounds or splits; LSH attention uses it too |
//! | `path.rs` | which kernel computes a call, and why |
//! | `small.rs`, `verdict.rs`, `trust.rs` | a small problem for a plan's pipelines; what a judge says of it; what becomes of a plan that fails |
//! | `custom.rs` | the WGSL of the caller's own terms, checked |
//! | `backward/` | gradients |
//! | `weights/` | the weights of chosen rows |
//! | `host.rs`, `cache.rs` | slices in, `Vec` out; the plans of the last calls |
//! | `arrays.rs` | `ndarray`'s views in, arrays out |

#[cfg(all(feature = "ndarray", not(target_arch = "wasm32")))]
mod arrays;
mod backward;
mod bind;
mod cache;
#[cfg(feature = "custom")]
mod custom;
mod dropout;
mod explain;
mod host;
mod merge;
mod outputs;
mod path;
#[cfg(not(target_arch = "wasm32"))]
mod small;
mod tables;
mod terms;
#[cfg(not(target_arch = "wasm32"))]
mod trust;
mod uploaded;
mod uploaded_terms;
#[cfg(not(target_arch = "wasm32"))]
mod verdict;
mod weights;

#[cfg(all(feature = "ndarray", not(target_arch = "wasm32")))]
pub use arrays::ArrayGradients;
pub(super) use backward::Narrow;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use backward::SmallBackward;
pub use backward::{
    AttentionGradBuffers, AttentionGradients, BackwardExplanation, BackwardPlan, Gradients, TensorExplanation,
};
pub use bind::{AttentionBuffers, Scratch};
pub(super) use cache::PlanCache;
pub use explain::Explanation;
pub use host::AttentionOutput;
pub(super) use merge::{Merge, variant as merge_variant};
pub use outputs::Outputs;
pub(super) use path::forced;
pub use path::{PathChoice, cooperative_features};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use small::{Small, lying};
#[cfg(not(target_arch = "wasm32"))]
pub(in crate::gpu) use verdict::Pipelines;
#[cfg(not(target_arch = "wasm32"))]
pub use verdict::SelfTest;
pub use weights::{AttentionWeights, RowSummary, WeightsBuffers, WeightsOptions, WeightsPlan};

use super::kernels::Kernels;
use super::pipeline::Pipeline;
#[cfg(not(target_arch = "wasm32"))]
use crate::KernelPath;
use crate::mask::{BlockGrid, Part, Parts};
use crate::pattern::Pattern;
use crate::schedule::Schedule;
use crate::wgsl::{AttentionVariant, MergeVariant, Stats, Tile, TileLimits};
use crate::{Attention, ElementType, Error, Result};
use std::sync::{Arc, OnceLock};
use tables::PartPlan;
pub(super) use tables::q_scale;
pub(super) use terms::{Given, Terms, check_customs};
pub(super) use uploaded_terms::UploadedTerms;

/// Everything about an attention call that does not depend on the buffers: the compiled kernel, the mask on the
/// device, how the work is cut into dispatches. Made by [`Kernels::attention`]; clones share it.
#[derive(Debug, Clone)]
pub struct AttentionPlan {
    kernels: Kernels,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    attention: Attention,
    /// By what is left beside out: a call that wants lse or the state runs another variant than one that does not.
    variants: [Variant; 4],
    parts: Vec<PartPlan>,
    sets: Parts,
    terms: Terms,
    schedule: Schedule,
    choice: PathChoice,
    explanation: Explanation,
}

/// The shaders of a plan, one per part, and the merging one where there are several parts or splits. lse is rarely asked for,
/// so its variants are compiled when it is, once.
#[derive(Debug)]
struct Variant {
    parts: Vec<AttentionVariant>,
    merge: Option<MergeVariant>,
    compiled: OnceLock<Compiled>,
}

/// The pipelines of a [`Variant`].
#[derive(Debug)]
struct Compiled {
    parts: Vec<Arc<Pipeline>>,
    merge: Option<Arc<Pipeline>>,
}

impl Kernels {
    /// Plans one attention call: cuts the pattern into blocks, checks it against the device, uploads the mask and compiles
    /// what is not compiled yet. An [`AttentionShape`](crate::AttentionShape) alone is a call with the plain score, f32 and
    /// contiguous tensors.
    ///
    /// # Errors
    /// [`Error::Argument`] for a bad call or pattern, [`Error::Limit`] where the device is too small,
    /// [`Error::Device`] for what wgpu reports while compiling.
    pub fn attention(&self, attention: impl Into<Attention>, pattern: &dyn Pattern) -> Result<AttentionPlan> {
        let attention = attention.into();
        attention.check()?;
        let parts = Parts::lower(pattern, BlockGrid::from(&attention.shape))?;
        AttentionPlan::new(self, attention, parts)
    }

    /// [`Kernels::attention`] for experts: over a [`BlockMask`](crate::BlockMask) or a list of [`Parts`] with disjoint sets, in
    /// blocks and orders of the caller's choice.
    ///
    /// # Errors
    /// As [`Kernels::attention`], and [`Error::Argument`] for a mask of another size.
    ///
    /// ```no_run
    /// use wgpu_attention::{AttentionShape, BlockGrid, BlockMask, Kernels, Window};
    /// # fn example(kernels: &Kernels) -> wgpu_attention::Result<()> {
    /// let shape = AttentionShape::new(1, 8, 4096, 64);
    /// let mask = BlockMask::new(&Window { before: 255, after: 0 }, BlockGrid::from(shape).blocks(32, 64))?;
    /// let plan = kernels.attention_parts(shape, mask)?;
    /// println!("{:?}", plan.explain());
    /// # Ok(())
    /// # }
    /// ```
    pub fn attention_parts(
        &self,
        attention: impl Into<Attention>,
        parts: impl Into<Parts>,
    ) -> Result<AttentionPlan> {
        AttentionPlan::new(self, attention.into(), parts.into())
    }
}

impl AttentionPlan {
    fn new(kernels: &Kernels, attention: Attention, parts: Parts) -> Result<Self> {
        attention.check()?;
        check_parts(&attention, &parts)?;
        check_customs(&attention)?;
        let (choice, kind) = path::choose(kernels, &attention, &parts)?;
        let schedule = schedule(kernels, &attention, &parts, kernels.limits_of(kind))?;
        Self::cut(kernels, attention, parts, choice, schedule)
    }

    /// A plan whose path and cut are given.
    fn cut(
        kernels: &Kernels,
        attention: Attention,
        parts: Parts,
        choice: PathChoice,
        schedule: Schedule,
    ) -> Result<Self> {
        let variants = Outputs::ALL.map(|outputs| Variant::new(&attention, &parts, &schedule, outputs));
        let part_plan = |(part, variant)| PartPlan::new(kernels, &attention, part, variant, schedule.splits);
        let part_plans =
            parts.parts().iter().zip(&variants[0].parts).map(part_plan).collect::<Result<Vec<_>>>()?;
        let tile_why = path::tile_why(kernels, &variants[0].parts[0].tile);
        let explanation = explain::explain(
            &attention,
            &parts,
            &schedule,
            &variants[0],
            &part_plans,
            choice.clone(),
            tile_why,
        );
        let terms = Terms::new(kernels, &attention)?;
        let inner = Inner {
            attention,
            variants,
            parts: part_plans,
            sets: parts,
            terms,
            schedule,
            choice,
            explanation,
        };
        let plan = Self { kernels: kernels.clone(), inner: Arc::new(inner) };
        // Compiling here, not in `bind`, keeps the cost where the caller expects it.
        plan.compiled(Outputs::default())?;
        Ok(plan)
    }

    /// The same call by the scalar kernel, and why.
    #[cfg(not(target_arch = "wasm32"))]
    fn on_scalar(&self, why: String) -> Result<Self> {
        let Inner { attention, sets, .. } = &*self.inner;
        let limits = self.kernels.limits_of(self.kernels.scalar_tile_kind());
        let schedule = schedule(&self.kernels, attention, sets, limits)?;
        let choice = PathChoice { path: KernelPath::Scalar, why };
        Self::cut(&self.kernels, attention.clone(), sets.clone(), choice, schedule)
    }

    /// The same call with the sums of its cooperative matrices in lanes, and why; none where it has no others, or where the caller
    /// said where they live.
    #[cfg(not(target_arch = "wasm32"))]
    fn with_sums_in_lanes(&self, why: &str) -> Result<Option<Self>> {
        let Inner { attention, sets, schedule, choice, .. } = &*self.inner;
        let options = self.kernels.options();
        let other = schedule.clone().matrix_sums(crate::wgsl::MatrixSums::Lanes);
        if options.tile.is_some() || options.matrix_sums.is_some() || other.tiles == schedule.tiles {
            return Ok(None);
        }
        let choice =
            PathChoice { path: choice.path, why: format!("{}; sums in lanes, for {why}", choice.why) };
        Self::cut(&self.kernels, attention.clone(), sets.clone(), choice, other).map(Some)
    }

    /// The pipelines that a call of out alone runs.
    #[cfg(not(target_arch = "wasm32"))]
    pub(in crate::gpu) fn pipelines(&self) -> Result<Pipelines> {
        let compiled = self.compiled(Outputs::default())?;
        Ok(Pipelines(compiled.parts.iter().chain(&compiled.merge).cloned().collect()))
    }

    /// The names of the shaders that a call of out alone runs: those that profilers show, and `tools/isa/statistics` has.
    ///
    /// ```
    /// # fn main() -> Result<(), wgpu_attention::Error> {
    /// # let gpu = wgpu_attention::Gpu::new()?;
    /// use wgpu_attention::{AttentionShape, Causal};
    /// let plan = gpu.kernels().attention(AttentionShape::new(1, 1, 256, 64), &Causal)?;
    /// assert!(plan.shaders()[0].starts_with("attention d64 dv64 f32->f32 tile "));
    /// # Ok(())
    /// # }
    /// ```
    pub fn shaders(&self) -> Vec<String> {
        let variant = &self.inner.variants[Outputs::default().place()];
        let parts = variant.parts.iter().map(|part| part.shader().label);
        parts.chain(variant.merge.map(|merge| merge.shader().label)).collect()
    }

    /// What was planned.
    pub fn attention(&self) -> &Attention {
        &self.inner.attention
    }

    /// The kernel that runs, and why that one.
    pub fn path(&self) -> &PathChoice {
        &self.inner.choice
    }

    /// What the plan will do and what it costs.
    pub fn explain(&self) -> &Explanation {
        &self.inner.explanation
    }

    /// Those of [`Explanation`].
    fn flops(&self) -> f64 {
        self.inner.explanation.flops
    }

    /// Compiles what a call that asks for lse needs beside the rest, which otherwise happens when the first one is bound.
    ///
    /// # Errors
    /// [`Error::Device`] for what wgpu reports.
    pub fn prepare_lse(&self) -> Result<()> {
        self.prepare(Outputs::default().lse())
    }

    /// Compiles what a call that asks for these outputs needs, which otherwise happens when the first one is bound.
    ///
    /// # Errors
    /// [`Error::Device`] for what wgpu reports.
    pub fn prepare(&self, outputs: Outputs) -> Result<()> {
        self.compiled(outputs).map(|_| ())
    }

    fn compiled(&self, outputs: Outputs) -> Result<&Compiled> {
        let variant = &self.inner.variants[outputs.place()];
        if let Some(compiled) = variant.compiled.get() {
            return Ok(compiled);
        }
        let compiled = variant.compile(&self.kernels)?;
        Ok(variant.compiled.get_or_init(|| compiled))
    }
}

impl Variant {
    fn new(attention: &Attention, parts: &Parts, schedule: &Schedule, outputs: Outputs) -> Self {
        let merges = parts.parts().len() > 1 || schedule.splits > 1;
        // Parts and splits merge in f32, in scratch rows of whole groups, unless out itself can hold them.
        let rows = schedule.scratch_bytes[1] > 0;
        let Outputs { lse, state } = outputs;
        let stats = match (merges || state, lse) {
            (true, _) => Stats::State,
            (false, true) => Stats::Lse,
            (false, false) => Stats::None,
        };
        // Parts leave the state over all of them; splits each leave their own.
        let total = state && schedule.splits > 1;
        let wanted = lse && (merges || state) || rows || total;
        let cuts = schedule.tiles.iter().zip(&schedule.packed);
        let variants = parts.parts().iter().zip(cuts).enumerate().map(|(n, (part, (tile, packed)))| {
            let accumulate = n > 0;
            AttentionVariant { packed: *packed, stats, accumulate, ..variant(attention, part, *tile, rows) }
        });
        Self {
            parts: variants.collect(),
            merge: wanted.then(|| MergeVariant { total, ..merge::variant(attention, rows, lse) }),
            compiled: OnceLock::new(),
        }
    }

    fn compile(&self, kernels: &Kernels) -> Result<Compiled> {
        let parts = self.parts.iter().map(|part| kernels.pipeline(part.shader()));
        Ok(Compiled {
            parts: parts.collect::<Result<_>>()?,
            merge: self.merge.map(|merge| kernels.pipeline(merge.shader())).transpose()?,
        })
    }
}

/// The shader of a part, but for what depends on the part's place and on the output.
fn variant(attention: &Attention, part: &Part, tile: Tile, merged_rows: bool) -> AttentionVariant {
    let grid = part.mask.grid();
    AttentionVariant {
        tile,
        block_q: grid.block_q,
        block_k: grid.block_k,
        q_order: part.q_order.is_some(),
        k_order: part.k_order.is_some(),
        score: attention.score.clone(),
        ..base_variant(attention, tile, merged_rows)
    }
}

/// What the call alone says of a shader, whatever the mask.
pub(super) fn base_variant(attention: &Attention, tile: Tile, merged_rows: bool) -> AttentionVariant {
    let (shape, storage) = (&attention.shape, attention.storage);
    let whole = |dim: usize| dim.is_multiple_of(4);
    let aligned_keys = attention.k_strides().is_aligned() && whole(shape.head_dim);
    let aligned_values = attention.v_strides().is_aligned() && whole(shape.value_dim);
    AttentionVariant {
        tile,
        head_dim: shape.head_dim,
        value_dim: shape.value_dim,
        q: storage.q,
        kv: storage.kv,
        output: if merged_rows { ElementType::F32 } else { storage.out },
        aligned_q: attention.q_strides().is_aligned() && whole(shape.head_dim),
        aligned_kv: aligned_keys && aligned_values,
        aligned_out: merged_rows || aligned_out(attention),
        block_q: AttentionVariant::ONE_BLOCK,
        block_k: AttentionVariant::ONE_BLOCK,
        q_order: false,
        k_order: false,
        packed: false,
        chosen_heads: attention.heads.chosen().is_some(),
        score: crate::Score::new(),
        stats: Stats::None,
        accumulate: false,
        chunks: None,
    }
}

fn aligned_out(attention: &Attention) -> bool {
    attention.out_strides().is_aligned() && attention.shape.value_dim.is_multiple_of(4)
}

/// The cut of the call, by what the caller forced and the device allows.
fn schedule(kernels: &Kernels, attention: &Attention, parts: &Parts, limits: TileLimits) -> Result<Schedule> {
    let options = kernels.options();
    if let Some(tile) = options.tile {
        for part in parts.parts() {
            check_tile(tile, attention, part.mask.grid().block_q, kernels)?;
        }
    }
    if options.splits == Some(0) {
        return Err(Error::argument("splits", "at least 1", 0));
    }
    let schedule = Schedule::new(attention, parts, limits, options.tile, options.splits)?;
    Ok(match options.matrix_sums {
        Some(sums) => schedule.matrix_sums(sums),
        None => schedule,
    })
}

pub(super) fn check_tile(
    tile: Tile,
    attention: &Attention,
    block_q: usize,
    kernels: &Kernels,
) -> Result<Tile> {
    let limits = kernels.device().limits();
    let lanes =
        limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x) as usize;
    tile.check(attention.shape.value_dim, block_q)?;
    if matches!(tile, Tile::Staged(tile) if tile.by_subgroup) && !kernels.has_subgroups() {
        let need = "false on a device that does not let shaders ask for subgroups (wgpu::Features::SUBGROUP)";
        return Err(Error::argument("tile.by_subgroup", need, true));
    }
    if tile.lanes() > lanes {
        let limit = "max_compute_invocations_per_workgroup";
        return Err(Error::limit("the forced tile", limit, tile.lanes() as u64, lanes as u64));
    }
    let (need, have) =
        (tile.workgroup_bytes(attention.shape.head_dim), limits.max_compute_workgroup_storage_size);
    if need > have as usize {
        return Err(Error::limit(
            "the forced tile",
            "max_compute_workgroup_storage_size",
            need as u64,
            have.into(),
        ));
    }
    Ok(tile)
}

/// The parts must be made for this call: same lengths, and heads and batch items either as many or shared.
fn check_parts(attention: &Attention, parts: &Parts) -> Result<()> {
    let shape = &attention.shape;
    let extent = parts.extent();
    if (extent.q_len, extent.kv_len) != (shape.q_len, shape.kv_len) {
        let need = format!("a mask of {} queries by {} keys, as the shape says", shape.q_len, shape.kv_len);
        return Err(Error::argument("mask", need, format!("{} by {}", extent.q_len, extent.kv_len)));
    }
    for part in parts.parts() {
        let grid = part.mask.grid();
        let sides = [
            ("mask.heads", grid.heads, shape.heads, part.mask.head_stride()),
            ("mask.batch", grid.batch, shape.batch, part.mask.batch_stride()),
        ];
        for (name, have, need, stride) in sides {
            if have != need && (stride != 0 || have != 1) {
                return Err(Error::argument(name, format!("{need}, as the shape says, or a shared 1"), have));
            }
        }
    }
    Ok(())
}
