//! A plan: everything about a call that does not depend on the buffers.

use super::bind::{AttentionBuffers, AttentionCall};
use super::kernels::Kernels;
use super::params::{AttentionParams, FinishParams};
use super::path::{self, PathChoice};
use super::pipeline::{Pipeline, Use, Work, filled_buffer};
use super::scope::allocated;
use crate::mask::{Part, Parts};
use crate::schedule::{Schedule, heaviest_tiles, items, rows_of};
use crate::wgsl::{AttentionVariant, FinishVariant, ScoreTerms, Stats, Tile, TileLimits};
use crate::{AttentionShape, ElementType, Error, Result};
use std::sync::Arc;

/// Everything about an attention call that does not depend on the buffers: the compiled kernel, the mask on the
/// device, how the work is cut into dispatches. Made by [`Kernels::attention`]; clones share it.
#[derive(Debug, Clone)]
pub struct AttentionPlan {
    pub(super) kernels: Kernels,
    pub(super) shape: AttentionShape,
    pub(super) inner: Arc<Inner>,
}

/// Compiled once per kind of output: a call that wants lse runs another variant than one that does not.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) without_lse: Variant,
    pub(super) with_lse: Variant,
    pub(super) parts: Vec<PartPlan>,
    pub(super) schedule: Schedule,
    choice: PathChoice,
    explanation: Explanation,
}

/// The compiled [`Variant`].
pub(super) struct Compiled {
    pub(super) parts: Vec<Arc<Pipeline>>,
    pub(super) finish: Option<Arc<Pipeline>>,
}

/// The shaders of a plan, one a part, and the finishing one where there are several parts.
#[derive(Debug)]
pub(super) struct Variant {
    parts: Vec<AttentionVariant>,
    pub(super) finish: Option<FinishVariant>,
}

#[derive(Debug)]
pub(super) struct PartPlan {
    pub(super) tables: wgpu::Buffer,
    pub(super) params: AttentionParams,
    pub(super) work: Work,
}

/// What a plan will do and what it costs.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// Parts, each a pass of the kernel over a set of pairs of its own.
    pub parts: usize,
    /// Pairs in S, over all batch items and heads.
    pub kept: u64,
    /// Pairs in the blocks that the kernel visits.
    pub visited: u64,
    /// Bytes of the masks, orders and slopes on the device.
    pub mask_bytes: u64,
    /// Bytes of the scratch that a call allocates.
    pub scratch_bytes: u64,
    /// Dispatches of a call, finishing included.
    pub dispatches: usize,
    /// Floating-point operations that workgroups execute: on the visited pairs, of the rows that their tiles have. A tile of few
    /// rows does not compute those that the last block lacks.
    pub flops: f64,
    /// Sizes of a workgroup, of the first part.
    pub tile: Tile,
    /// Workgroups that share the keys of one row tile: more than 1 where there are few rows.
    pub splits: usize,
    /// Bytes of workgroup memory.
    pub workgroup_bytes: usize,
    /// The kernel and the reason for it.
    pub choice: PathChoice,
}

impl AttentionPlan {
    /// Plans, and compiles for calls with or without lse.
    pub(super) fn new(kernels: &Kernels, shape: &AttentionShape, parts: Parts, lse: bool) -> Result<Self> {
        shape.check()?;
        check_parts(shape, &parts)?;
        let (choice, kind) = path::choose(kernels, shape, &parts)?;
        let several = parts.parts().len() > 1;
        let schedule = schedule(kernels, shape, &parts, kernels.limits_of(kind))?;
        let merges = several || schedule.splits > 1;

        let variants = |lse: bool| -> Result<Variant> {
            let stats = if merges {
                Stats::State
            } else if lse {
                Stats::Lse
            } else {
                Stats::None
            };
            let cuts = schedule.tiles.iter().zip(&schedule.packed);
            let parts = parts.parts().iter().zip(cuts).enumerate();
            let parts = parts
                .map(|(n, (part, (tile, packed)))| AttentionVariant {
                    tile: *tile,
                    packed: *packed,
                    stats,
                    accumulate: n > 0,
                    ..variant(shape, part, *tile, schedule.scratch_bytes[1] > 0)
                })
                .collect();
            // f32 rows of several parts are merged in place; then only lse is left to do.
            let rows = schedule.scratch_bytes[1] > 0;
            let finish = (merges && (rows || lse)).then(|| FinishVariant {
                value_dim: shape.value_dim,
                output: shape.output,
                rows,
                aligned_out: aligned_out(shape),
                lse,
            });
            Ok(Variant { parts, finish })
        };
        let (without_lse, with_lse) = (variants(false)?, variants(true)?);

        let mut part_plans = Vec::with_capacity(parts.parts().len());
        let mut mask_bytes = 0;
        let mut flops = 0.0;
        for (part, variant) in parts.parts().iter().zip(&without_lse.parts) {
            let (plan, bytes) = PartPlan::new(kernels, shape, part, variant, schedule.splits)?;
            mask_bytes += bytes;
            flops += executed_flops(shape, part, variant);
            part_plans.push(plan);
        }
        let tile = without_lse.parts[0].tile;
        let mut inner = Inner {
            explanation: Explanation {
                parts: parts.parts().len(),
                kept: parts.parts().iter().map(|part| part_pairs(shape, part).0).sum(),
                visited: parts.parts().iter().map(|part| part_pairs(shape, part).1).sum(),
                mask_bytes,
                scratch_bytes: schedule.scratch_bytes.iter().sum(),
                dispatches: 0,
                flops,
                tile,
                splits: schedule.splits,
                workgroup_bytes: tile.workgroup_bytes(shape.head_dim),
                choice: choice.clone(),
            },
            choice,
            without_lse,
            with_lse,
            parts: part_plans,
            schedule,
        };
        let plan_work: usize = inner.parts.iter().map(|part| part.work.dispatches().count()).sum();
        inner.explanation.dispatches = plan_work + usize::from(inner.without_lse.finish.is_some());
        let plan = Self { kernels: kernels.clone(), shape: *shape, inner: Arc::new(inner) };
        // Compiling here, not in `bind`, keeps the cost where the caller expects it.
        plan.pipelines(lse)?;
        Ok(plan)
    }

    /// The shape that was planned.
    pub fn shape(&self) -> &AttentionShape {
        &self.shape
    }

    /// The kernel that runs, and why that one.
    pub fn path(&self) -> &PathChoice {
        &self.inner.choice
    }

    /// What the plan will do and what it costs.
    pub fn explain(&self) -> &Explanation {
        &self.inner.explanation
    }

    /// Checks the buffers and binds them: nothing is recorded yet. A call may be recorded many times, and many calls
    /// into one encoder.
    ///
    /// # Errors
    /// [`Error::Argument`] for a buffer that is too small, lacks the usage, is misaligned, or serves as an input and as
    /// an output; [`Error::Limit`] for one past the device's binding size; [`Error::Device`] for what wgpu reports.
    pub fn bind(&self, buffers: AttentionBuffers<'_>) -> Result<AttentionCall> {
        AttentionCall::new(self, buffers)
    }

    /// The pipelines of all parts, compiled unless they are already. lse is rarely asked for, so its variants are
    /// compiled when it is.
    pub(super) fn pipelines(&self, lse: bool) -> Result<Compiled> {
        use Use::{Read, Write};
        let variant = self.variant(lse);
        let attention = |part: &AttentionVariant| {
            let uses = [Read, Read, Read, Read, Write, Write, Read];
            self.kernels.pipeline(part.shader(), size_of::<AttentionParams>(), &uses)
        };
        let finish = |finish: &FinishVariant| {
            self.kernels.pipeline(finish.shader(), size_of::<FinishParams>(), &[Read, Read, Write, Write])
        };
        let parts = variant.parts.iter().map(attention).collect::<Result<_>>()?;
        let finish = variant.finish.as_ref().map(finish).transpose()?;
        Ok(Compiled { parts, finish })
    }

    pub(super) fn variant(&self, lse: bool) -> &Variant {
        if lse { &self.inner.with_lse } else { &self.inner.without_lse }
    }

    /// Whether parts or splits leave a state, so that a finish follows.
    pub(super) fn merges(&self) -> bool {
        self.inner.parts.len() > 1 || self.inner.schedule.splits > 1
    }
}

/// How a call of several parts or splits ends.
pub(super) fn finish_params(shape: &AttentionShape, splits: usize) -> (FinishParams, Work) {
    let out = shape.out_strides();
    let params = FinishParams {
        rows: shape.len_lse() as u32,
        splits: splits as u32,
        heads: shape.heads as u32,
        q_len: shape.q_len as u32,
        out_batch: out.batch as u32,
        out_head: out.head as u32,
        out_row: out.row as u32,
        ..Default::default()
    };
    let lanes = shape.len_lse() * shape.value_dim.div_ceil(4);
    let items = lanes.div_ceil(FinishVariant::LANES) as u32;
    (params, Work { items, a_dispatch: items })
}

impl PartPlan {
    fn new(
        kernels: &Kernels,
        shape: &AttentionShape,
        part: &Part,
        variant: &AttentionVariant,
        splits: usize,
    ) -> Result<(Self, u64)> {
        let packed = part.mask.packed();
        let mut words = packed.words;
        let mut append = |list: &mut dyn ExactSizeIterator<Item = u32>| {
            let at = words.len() as u32;
            words.extend(list);
            at
        };
        let order = |order: &Option<Arc<[u32]>>| order.clone().unwrap_or_default();
        let q_order_at = append(&mut order(&part.q_order).iter().copied());
        let k_order_at = append(&mut order(&part.k_order).iter().copied());
        let slopes = if shape.alibi { shape.alibi_slopes() } else { vec![] };
        let slopes_at = append(&mut slopes.iter().map(|slope| slope.to_bits()));

        let bytes = 4 * words.len() as u64;
        let have = kernels.device().limits().max_storage_buffer_binding_size;
        if bytes > have {
            return Err(Error::limit("the block mask", "max_storage_buffer_binding_size", bytes, have));
        }
        let tables = allocated(kernels.device(), "uploading the block mask", bytes, || {
            let usage = wgpu::BufferUsages::STORAGE;
            filled_buffer(kernels.device(), "attention mask", usage, bytemuck::cast_slice(&words))
        })?;

        let grid = part.mask.grid();
        let rows = rows_of(shape, part, variant.packed);
        let items = (items(shape, part, variant.packed, &variant.tile) * splits) as u64;
        let items = u32::try_from(items)
            .map_err(|_| Error::limit("attention", "work items a call", items, u32::MAX.into()))?;
        // In base 2 from the start where the score is q . k alone; otherwise its other terms come first.
        let base = if variant.score.is_plain() { std::f64::consts::LOG2_E } else { 1.0 };
        let params = AttentionParams {
            row_tiles: rows.div_ceil(variant.tile.rows()) as u32,
            splits: splits as u32,
            q_count: rows as u32,
            k_count: grid.kv_len as u32,
            rows_at: packed.rows_at,
            runs_at: packed.runs_at,
            tiles_at: packed.tiles_at,
            q_order_at,
            k_order_at,
            slopes_at,
            mask_batch: packed.batch_stride,
            mask_head: packed.head_stride,
            q_scale: (shape.scale_value() as f64 * base) as f32,
            softcap: shape.softcap.unwrap_or(1.0),
            ..AttentionParams::of_strides(shape)
        };
        let pairs = heaviest_tiles(part, &variant.tile).div_ceil(splits as u64).max(1)
            * (variant.tile.rows() * variant.tile.keys()) as u64;
        let heaviest = shape.flops(pairs);
        let a_dispatch = (kernels.options().dispatch_flops / heaviest).clamp(1.0, u32::MAX as f64) as u32;
        // A dispatch has two dimensions of workgroups; the limit squared is far beyond what u32 items can be.
        Ok((Self { tables, params, work: Work { items, a_dispatch } }, bytes))
    }
}

impl AttentionParams {
    /// What the shape alone says: sizes, strides of the tensors and of the bias. The rest is 0.
    pub(super) fn of_strides(shape: &AttentionShape) -> Self {
        let (q, k, v, out) = (shape.q_strides(), shape.k_strides(), shape.v_strides(), shape.out_strides());
        let bias = shape.bias.unwrap_or(crate::BiasStrides { batch: 0, head: 0, query: 0, key: 0 });
        Self {
            splits: 1,
            batch: shape.batch as u32,
            heads: shape.heads as u32,
            heads_a_kv_head: (shape.heads / shape.kv_heads) as u32,
            q_len: shape.q_len as u32,
            q_batch: q.batch as u32,
            q_head: q.head as u32,
            q_row: q.row as u32,
            k_batch: k.batch as u32,
            k_head: k.head as u32,
            k_row: k.row as u32,
            v_batch: v.batch as u32,
            v_head: v.head as u32,
            v_row: v.row as u32,
            out_batch: out.batch as u32,
            out_head: out.head as u32,
            out_row: out.row as u32,
            bias_batch: bias.batch as u32,
            bias_head: bias.head as u32,
            bias_query: bias.query as u32,
            bias_key: bias.key as u32,
            ..Default::default()
        }
    }

    /// Rows of out in scratch that holds whole groups of 4, `[B, H, Lq, dv rounded up]`.
    pub(super) fn with_merged_rows(self, shape: &AttentionShape) -> Self {
        let row = 4 * shape.value_dim.div_ceil(4);
        Self {
            out_row: row as u32,
            out_head: (row * shape.q_len) as u32,
            out_batch: (row * shape.q_len * shape.heads) as u32,
            ..self
        }
    }
}

fn executed_flops(shape: &AttentionShape, part: &Part, variant: &AttentionVariant) -> f64 {
    let grid = part.mask.grid();
    let rows = items(shape, part, variant.packed, &variant.tile) * variant.tile.rows();
    let in_blocks = shape.batch * shape.heads * grid.q_len.next_multiple_of(grid.block_q);
    shape.flops(part_pairs(shape, part).1) * rows as f64 / in_blocks.max(1) as f64
}

/// Kept and visited pairs of a part over the batch items and heads of the shape (a mask may be made for one of each).
fn part_pairs(shape: &AttentionShape, part: &Part) -> (u64, u64) {
    let grid = part.mask.grid();
    let repeat = |mine: usize, all: usize| if mine == all { 1 } else { all as u64 };
    let times = repeat(grid.batch, shape.batch) * repeat(grid.heads, shape.heads);
    (part.mask.kept() * times, part.mask.visited() * times)
}

pub(super) fn aligned_out(shape: &AttentionShape) -> bool {
    let s = shape.out_strides();
    [shape.value_dim, s.batch, s.head, s.row].iter().all(|n| n % 4 == 0)
}

pub(super) fn aligned_in(shape: &AttentionShape) -> bool {
    let strides = [shape.q_strides(), shape.k_strides(), shape.v_strides()];
    let strides = strides.iter().flat_map(|s| [s.batch, s.head, s.row]);
    strides.chain([shape.head_dim, shape.value_dim]).all(|n| n % 4 == 0)
}

/// The cut of the call, by what the caller forced and the device allows.
fn schedule(
    kernels: &Kernels,
    shape: &AttentionShape,
    parts: &Parts,
    limits: TileLimits,
) -> Result<Schedule> {
    let options = kernels.options();
    if let Some(tile) = options.tile {
        for part in parts.parts() {
            check_tile(tile, shape, part.mask.grid().block_q, kernels)?;
        }
    }
    if options.splits == Some(0) {
        return Err(Error::argument("splits", "at least 1", 0));
    }
    Schedule::new(shape, parts, limits, options.tile, options.splits)
}

/// The shader of a part, but for what depends on the part's place and on the output.
fn variant(shape: &AttentionShape, part: &Part, tile: Tile, merged_rows: bool) -> AttentionVariant {
    let grid = part.mask.grid();
    AttentionVariant {
        tile,
        head_dim: shape.head_dim,
        value_dim: shape.value_dim,
        input: shape.input,
        // Parts and splits merge in f32, in scratch rows of whole groups.
        output: if merged_rows { ElementType::F32 } else { shape.output },
        aligned_in: aligned_in(shape),
        aligned_out: merged_rows || aligned_out(shape),
        block_q: grid.block_q,
        block_k: grid.block_k,
        q_order: part.q_order.is_some(),
        k_order: part.k_order.is_some(),
        packed: false,
        score: ScoreTerms {
            softcap: shape.softcap.is_some(),
            bias: shape.bias.is_some(),
            alibi: shape.alibi,
        },
        stats: Stats::None,
        accumulate: false,
        chunks: None,
    }
}

pub(super) fn check_tile(
    tile: Tile,
    shape: &AttentionShape,
    block_q: usize,
    kernels: &Kernels,
) -> Result<Tile> {
    let limits = kernels.device().limits();
    let lanes =
        limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x) as usize;
    tile.check(shape.value_dim, block_q)?;
    if tile.lanes() > lanes {
        let limit = "max_compute_invocations_per_workgroup";
        return Err(Error::limit("the forced tile", limit, tile.lanes() as u64, lanes as u64));
    }
    let (need, have) = (tile.workgroup_bytes(shape.head_dim), limits.max_compute_workgroup_storage_size);
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

/// The parts must be made for this shape: same lengths, and heads and batch items either as many or shared.
fn check_parts(shape: &AttentionShape, parts: &Parts) -> Result<()> {
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
