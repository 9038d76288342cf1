//! LSH attention on the device: hash, sort, attention over sorted chunks, rounds merged in place.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | [`LshPlan`]: shaders and sizes |
//! | `bind.rs` | [`LshBuffers`] checked and bound: [`LshCall`] |
//! | `host.rs` | slices in, `Vec` out |

mod bind;
mod host;

pub use bind::{LshBuffers, LshCall, LshStage};
pub use host::LshOutput;

use super::kernels::Kernels;
use super::params::{AttentionParams, FinishParams, LshHashParams, LshTablesParams};
use super::path;
use super::pipeline::{Pipeline, Use, Work, filled_buffer};
use super::plan::{aligned_in, aligned_out, check_tile};
use super::scope::allocated;
use super::sort::{SortPlan, SortShape};
use crate::lsh::LshOptions;
use crate::schedule::scratch_bytes;
use crate::wgsl::{
    AttentionVariant, FinishVariant, HashVariant, PlaceTables, ScoreTerms, SortedChunks, Stats, Tile,
};
use crate::{AttentionShape, ElementType, Error, KernelPath, Result};
use std::sync::Arc;

/// LSH attention (Kitaev 2020), planned and compiled: everything about a call that does not depend on the buffers. Made by
/// [`Kernels::lsh`]; clones share it.
///
/// Each round is a pass of the one blocked kernel over sorted places; later rounds merge into the rows that are there, so
/// that the scratch beside the tables of places, 4 to 16 bytes a round and position, is (m, l) a row.
#[derive(Debug, Clone)]
pub struct LshPlan {
    kernels: Kernels,
    shape: AttentionShape,
    options: LshOptions,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    hash: HashVariant,
    sort: SortPlan,
    chunks: SortedChunks,
    tile: Tile,
    /// Where the options give a seed.
    projections: Option<wgpu::Buffer>,
    explanation: LshExplanation,
}

/// What an LSH plan will do and what it costs.
#[derive(Debug, Clone, PartialEq)]
pub struct LshExplanation {
    /// Pairs of query and key places in chunks that see each other, over all rounds, heads and batch items.
    pub pairs: u64,
    /// Floating-point operations on these pairs.
    pub flops: f64,
    /// Floating-point operations of the hash.
    pub hash_flops: f64,
    /// Bytes of a call's scratch without those of the sort, if neither buckets nor order are asked for.
    pub scratch_bytes: u64,
    /// Sizes of a workgroup of the blocked kernel.
    pub tile: Tile,
}

impl Kernels {
    /// Plans LSH attention over shared queries and keys `[B, H, L, d]`: checks the options and the shape, draws seeded
    /// projections, and compiles what is not compiled yet. See [`LshOptions`] for what is computed.
    ///
    /// # Errors
    /// As [`LshOptions::check`]; [`Error::Limit`] where the device is too small, [`Error::Device`] for what wgpu reports.
    ///
    /// ```no_run
    /// use wgpu_attention::{AttentionShape, Kernels, LshBuffers, LshOptions, Options};
    /// # fn example(device: &wgpu::Device, encoder: &mut wgpu::CommandEncoder, buffers: [&wgpu::Buffer; 3])
    /// # -> wgpu_attention::Result<()> {
    /// let kernels = Kernels::new(device, Options::default())?;
    /// let shape = AttentionShape::new(1, 8, 16384, 64);
    /// let plan = kernels.lsh(&shape, LshOptions::new(4, 256, 64).causal(true))?;
    /// let [qk, v, out] = buffers.map(wgpu::Buffer::as_entire_buffer_binding);
    /// let call = plan.bind(LshBuffers::new(qk, v, out))?; // lse, buckets, order: on request
    /// call.encode(encoder); // hash, sort, attention, merge: no read-back
    /// # Ok(())
    /// # }
    /// ```
    pub fn lsh(&self, shape: &AttentionShape, options: LshOptions) -> Result<LshPlan> {
        LshPlan::new(self, shape, options)
    }
}

impl LshPlan {
    fn new(kernels: &Kernels, shape: &AttentionShape, options: LshOptions) -> Result<Self> {
        options.check(shape)?;
        if let Some(path @ KernelPath::Cooperative) = path::forced(kernels.options())? {
            let need = "the scalar path, or none forced: LSH attention has no other kernel";
            return Err(Error::argument("path", need, path));
        }
        let chunks = sorted_chunks(shape, &options);
        let tile = match kernels.options().tile {
            Some(tile) => check_tile(tile, shape, AttentionVariant::ONE_BLOCK, kernels)?,
            None => {
                let rows = chunks.chunk.next_power_of_two().clamp(16, 64);
                Tile::choose(shape.head_dim, shape.value_dim, rows, rows, kernels.tile_limits())?
            }
        };
        let q = shape.q_strides();
        let hash = HashVariant {
            head_dim: shape.head_dim,
            input: shape.input,
            aligned: [shape.head_dim, q.batch, q.head, q.row].iter().all(|n| n % 4 == 0),
            rounds: options.rounds,
            factors: options.buckets.clone(),
            key_mask: options.key_mask,
        };
        let largest = (options.bucket_count() - usize::from(!options.key_mask)) as u32;
        let sort = SortShape::new(shape.batch * shape.heads * options.rounds, shape.q_len);
        let sort = kernels.sort(&sort.key_bits(u32::BITS - largest.leading_zeros()))?;
        let projections = options.seeded_projections(shape).filter(|_| !shape.is_empty());
        let projections =
            projections.map(|values| upload(kernels, "LSH projections", &values)).transpose()?;

        let pairs = pairs(shape, &chunks, options.rounds);
        let places = options.len_buckets(shape) as u64;
        let mut scratch_bytes: u64 = scratch_bytes(shape, options.rounds > 1, 1).iter().sum();
        // buckets and order, norms, tables
        scratch_bytes += 8 * places + 4 * shape.len_lse() as u64;
        scratch_bytes += if needs_tables(&chunks) { 12 * places } else { 0 };
        let explanation = LshExplanation {
            pairs,
            flops: shape.flops(pairs),
            hash_flops: 2.0 * places as f64 * (shape.head_dim * options.columns()) as f64,
            scratch_bytes,
            tile,
        };
        let inner = Inner { hash, sort, chunks, tile, projections, explanation };
        let plan = Self { kernels: kernels.clone(), shape: *shape, options, inner: Arc::new(inner) };
        plan.pipelines(false)?;
        Ok(plan)
    }

    /// The shape that was planned.
    pub fn shape(&self) -> &AttentionShape {
        &self.shape
    }

    /// The options.
    pub fn options(&self) -> &LshOptions {
        &self.options
    }

    /// What the plan will do and what it costs.
    pub fn explain(&self) -> &LshExplanation {
        &self.inner.explanation
    }

    /// Checks the buffers and binds them: nothing is recorded yet. A call may be recorded many times, and many calls into
    /// one encoder.
    ///
    /// # Errors
    /// [`Error::Argument`] for a buffer that is missing, too small, lacks the usage, is misaligned, or serves twice where
    /// one is written; [`Error::Limit`] for buffers or scratch past the device's binding size; [`Error::Device`] for what
    /// wgpu reports.
    pub fn bind(&self, buffers: LshBuffers<'_>) -> Result<LshCall> {
        LshCall::new(self, buffers)
    }

    fn pipelines(&self, lse: bool) -> Result<Pipelines> {
        use Use::{Read, Write};
        let kernels = &self.kernels;
        let several = self.options.rounds > 1;
        let attention = |accumulate| {
            let uses = [Read, Read, Read, Read, Write, Write, Read];
            let shader = self.attention_variant(lse, accumulate).shader();
            kernels.pipeline(shader, size_of::<AttentionParams>(), &uses)
        };
        let narrow = self.shape.output != ElementType::F32;
        let finish = (several && (narrow || lse)).then(|| FinishVariant {
            rows: narrow,
            value_dim: self.shape.value_dim,
            output: self.shape.output,
            aligned_out: aligned_out(&self.shape),
            lse,
        });
        let finish = finish.map(|finish| {
            kernels.pipeline(finish.shader(), size_of::<FinishParams>(), &[Read, Read, Write, Write])
        });
        let hash_uses = [Read, Read, Read, Write, Write];
        let tables = needs_tables(&self.inner.chunks).then(|| {
            kernels.pipeline(PlaceTables::shader(), size_of::<LshTablesParams>(), &[Read, Read, Write])
        });
        Ok(Pipelines {
            hash: kernels.pipeline(self.inner.hash.shader(), size_of::<LshHashParams>(), &hash_uses)?,
            tables: tables.transpose()?,
            first: attention(false)?,
            later: several.then(|| attention(true)).transpose()?,
            finish: finish.transpose()?,
        })
    }

    fn attention_variant(&self, lse: bool, accumulate: bool) -> AttentionVariant {
        let (shape, several) = (&self.shape, self.options.rounds > 1);
        // Rounds merge in f32, in scratch rows of whole groups where out is narrower.
        let merged = several && shape.output != ElementType::F32;
        AttentionVariant {
            tile: self.inner.tile,
            head_dim: shape.head_dim,
            value_dim: shape.value_dim,
            input: shape.input,
            output: if merged { ElementType::F32 } else { shape.output },
            aligned_in: aligned_in(shape),
            aligned_out: merged || aligned_out(shape),
            block_q: AttentionVariant::ONE_BLOCK,
            block_k: AttentionVariant::ONE_BLOCK,
            q_order: true,
            k_order: true,
            packed: false,
            score: ScoreTerms::default(),
            stats: match (several, lse) {
                (true, _) => Stats::State,
                (false, true) => Stats::Lse,
                (false, false) => Stats::None,
            },
            accumulate,
            chunks: Some(self.inner.chunks),
        }
    }

    /// The parameters and the work of one round.
    fn round(&self, round: usize) -> Result<(AttentionParams, Work)> {
        let (shape, chunks) = (&self.shape, &self.inner.chunks);
        let rows = self.inner.tile.rows();
        // Chunks of the round's line that hold a place of the round.
        let first_place = if chunks.chain_rounds { round * shape.q_len } else { 0 };
        let last_place = first_place + shape.q_len - 1;
        let row_tiles = (last_place / chunks.chunk + 1 - first_place / chunks.chunk) * chunks.row_tiles(rows);
        let items = row_tiles as u64 * (shape.batch * shape.heads) as u64;
        let items = u32::try_from(items)
            .map_err(|_| Error::limit("LSH attention", "work items a round", items, u32::MAX.into()))?;
        let places = (self.options.rounds * shape.q_len) as u32;
        let table = self.options.len_buckets(shape) as u32;
        let params = AttentionParams {
            row_tiles: row_tiles as u32,
            q_count: places,
            k_count: places,
            q_scale: (f64::from(shape.scale_value()) * std::f64::consts::LOG2_E) as f32,
            softcap: 1.0,
            part: round as u32,
            groups_at: table,
            places_at: 2 * table,
            ..AttentionParams::of_strides(shape)
        };
        let seen = (chunks.look_back + 1 + chunks.look_ahead).saturating_mul(chunks.chunk);
        let heaviest = shape.flops((seen.min(places as usize) * rows) as u64);
        let a_dispatch =
            (self.kernels.options().dispatch_flops / heaviest).clamp(1.0, u32::MAX as f64) as u32;
        Ok((params, Work { items, a_dispatch }))
    }
}

struct Pipelines {
    hash: Arc<Pipeline>,
    tables: Option<Arc<Pipeline>>,
    /// The first round, and those that merge.
    first: Arc<Pipeline>,
    later: Option<Arc<Pipeline>>,
    finish: Option<Arc<Pipeline>>,
}

/// The options as constants of a shader: a chunk is not much longer than its line, and no look goes further round than once,
/// so that what makes no difference makes no other shader.
fn sorted_chunks(shape: &AttentionShape, options: &LshOptions) -> SortedChunks {
    let line = (if options.chain_rounds { options.rounds } else { 1 } * shape.q_len).max(1);
    let chunk = options.chunk.min(line.next_power_of_two());
    let chunks = line.div_ceil(chunk);
    SortedChunks {
        chunk,
        look_back: options.look_back.min(chunks),
        look_ahead: options.look_ahead.min(chunks),
        wrap: options.wrap,
        chain_rounds: options.chain_rounds,
        causal: options.causal,
        within_bucket: options.within_bucket,
        count_once: options.count_once,
        key_mask: options.key_mask,
        buckets: if options.key_mask { options.bucket_count() } else { 0 },
        self_penalty: options.self_penalty.to_bits(),
    }
}

/// Whether the kernel looks up more than the order.
fn needs_tables(chunks: &SortedChunks) -> bool {
    chunks.within_bucket || chunks.count_once || chunks.key_mask
}

/// Pairs of places in chunks that see each other; a short last chunk counts as a whole one.
fn pairs(shape: &AttentionShape, chunks: &SortedChunks, rounds: usize) -> u64 {
    let line = if chunks.chain_rounds { rounds * shape.q_len } else { shape.q_len };
    let seen = (chunks.look_back + 1 + chunks.look_ahead).saturating_mul(chunks.chunk).min(line);
    (shape.len_lse() * rounds) as u64 * seen as u64
}

fn upload(kernels: &Kernels, label: &'static str, values: &[f32]) -> Result<wgpu::Buffer> {
    let (bytes, have) =
        (size_of_val(values) as u64, kernels.device().limits().max_storage_buffer_binding_size);
    if bytes > have {
        return Err(Error::limit(label, "max_storage_buffer_binding_size", bytes, have));
    }
    allocated(kernels.device(), label, bytes, || {
        filled_buffer(kernels.device(), label, wgpu::BufferUsages::STORAGE, bytemuck::cast_slice(values))
    })
}
