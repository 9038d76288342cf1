//! LSH attention on the device: hash, sort, attention over sorted chunks, rounds merged in place.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | [`LshPlan`]: shaders and sizes |
//! | `bind.rs` | [`LshBuffers`] checked and bound to a plan |
//! | `places.rs` | hash, sort and tables: what the attention and its gradients walk |
//! | `small.rs` | a small problem for a plan's pipelines, which a judge compares with the reference |
//! | `backward/` | gradients |
//! | `host.rs`, `uploaded.rs` | slices in, `Vec` out |

mod backward;
mod bind;
mod host;
mod places;
#[cfg(not(target_arch = "wasm32"))]
mod small;
mod uploaded;

pub use backward::{LshBackwardExplanation, LshBackwardPlan, LshGradBuffers, LshGradients};
pub use bind::LshBuffers;
pub use host::LshOutput;

use super::attention::{
    Outputs, Terms, base_variant, check_customs, check_tile, forced, merge_variant, q_scale,
};
use super::bindings::upload;
use super::kernels::Kernels;
use super::params::{AttentionParams, LshKeepParams, Params};
use super::pipeline::{Pipeline, Work};
use super::sort::{SortPlan, SortShape};
use crate::lsh::LshOptions;
use crate::schedule::scratch_bytes;
use crate::wgsl::{AttentionVariant, HashVariant, SortedChunks, Stats, Tile};
use crate::{Attention, AttentionShape, ElementType, Error, KernelPath, Result};
use places::PlacePipelines;
use std::sync::{Arc, OnceLock};

/// LSH attention (Kitaev 2020), planned and compiled: everything about a call that does not depend on the buffers. Made by
/// [`Kernels::lsh`]; clones share it.
///
/// Each round is a pass of the one blocked kernel over sorted places; later rounds merge into the rows that are there, so
/// that the scratch beside the tables of places, 4 to 16 bytes per round and position, is (m, l) per row.
#[derive(Debug, Clone)]
pub struct LshPlan {
    kernels: Kernels,
    attention: Attention,
    options: LshOptions,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    sort: SortPlan,
    places: PlacePipelines,
    chunks: SortedChunks,
    tile: Tile,
    terms: Terms,
    /// Where the options give a seed.
    projections: Option<wgpu::Buffer>,
    explanation: LshExplanation,
    /// By what is left beside out: lse in bit 0 of the place, the state in bit 1.
    pipelines: [OnceLock<Pipelines>; 4],
}

/// What an LSH plan will do and what it costs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
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
    pub fn lsh(&self, attention: impl Into<Attention>, options: LshOptions) -> Result<LshPlan> {
        LshPlan::new(self, attention.into(), options)
    }
}

impl LshPlan {
    fn new(kernels: &Kernels, attention: Attention, options: LshOptions) -> Result<Self> {
        options.check(&attention)?;
        check_customs(&attention)?;
        let shape = &attention.shape;
        if let Some(path @ KernelPath::Cooperative) = forced(kernels.options())? {
            let need = "the scalar path, or none forced: LSH attention has no other kernel";
            return Err(Error::argument("path", need, path));
        }
        let chunks = sorted_chunks(shape, &options);
        let tile = match kernels.options().tile {
            Some(tile) => check_tile(tile, &attention, AttentionVariant::ONE_BLOCK, kernels)?,
            None => {
                let rows = chunks.chunk.next_power_of_two().clamp(16, 64);
                Tile::choose(shape.head_dim, shape.value_dim, rows, rows, kernels.tile_limits())?
            }
        };
        let hash = HashVariant {
            head_dim: shape.head_dim,
            input: attention.storage.q,
            aligned: attention.q_strides().is_aligned() && shape.head_dim.is_multiple_of(4),
            rounds: options.rounds,
            factors: options.buckets.clone(),
            key_mask: options.key_mask,
        };
        let largest = (options.bucket_count() - usize::from(!options.key_mask)) as u32;
        let sort = SortShape::new(shape.batch * shape.heads * options.rounds, shape.q_len);
        let sort = kernels.sort(&sort.key_bits(u32::BITS - largest.leading_zeros()))?;
        let projections = options.seeded_projections(shape).filter(|_| !shape.is_empty());
        let upload =
            |values: Vec<f32>| upload(kernels.device(), "LSH projections", bytemuck::cast_slice(&values));
        let projections = projections.map(upload).transpose()?;

        let pairs = pairs(shape, &chunks, options.rounds);
        let places = options.len_buckets(shape) as u64;
        let mut scratch_bytes: u64 = scratch_bytes(&attention, options.rounds > 1, 1).iter().sum();
        scratch_bytes += places::place_bytes(places as usize, shape.len_lse(), &chunks);
        let explanation = LshExplanation {
            pairs,
            flops: shape.flops(pairs),
            hash_flops: 2.0 * places as f64 * (shape.head_dim * options.columns()) as f64,
            scratch_bytes,
            tile,
        };
        let pipelines = Default::default();
        let terms = Terms::new(kernels, &attention)?;
        let places = PlacePipelines::new(kernels, &hash, &chunks)?;
        let inner = Inner { sort, places, chunks, tile, terms, projections, explanation, pipelines };
        let plan = Self { kernels: kernels.clone(), attention, options, inner: Arc::new(inner) };
        plan.pipelines(Outputs::default())?;
        Ok(plan)
    }

    /// What was planned.
    pub fn attention(&self) -> &Attention {
        &self.attention
    }

    /// The options.
    pub fn options(&self) -> &LshOptions {
        &self.options
    }

    /// What the plan will do and what it costs.
    pub fn explain(&self) -> &LshExplanation {
        &self.inner.explanation
    }

    fn pipelines(&self, outputs: Outputs) -> Result<&Pipelines> {
        let place = &self.inner.pipelines[outputs.place()];
        if let Some(pipelines) = place.get() {
            return Ok(pipelines);
        }
        let pipelines = self.compile(outputs)?;
        Ok(place.get_or_init(|| pipelines))
    }

    fn compile(&self, outputs: Outputs) -> Result<Pipelines> {
        let kernels = &self.kernels;
        let several = self.options.rounds > 1;
        let attention = |accumulate| kernels.pipeline(self.attention_variant(outputs, accumulate).shader());
        let Outputs { lse, state } = outputs;
        let narrow = several && self.attention.storage.out != ElementType::F32;
        let wanted = narrow || lse && (several || state);
        let merge = wanted.then(|| merge_variant(&self.attention, narrow, lse));
        Ok(Pipelines {
            first: attention(false)?,
            later: several.then(|| attention(true)).transpose()?,
            merge: merge.map(|merge| kernels.pipeline(merge.shader())).transpose()?,
        })
    }

    fn attention_variant(&self, outputs: Outputs, accumulate: bool) -> AttentionVariant {
        let several = self.options.rounds > 1;
        // Rounds merge in f32, in scratch rows of whole groups where out is narrower.
        let merged = several && self.attention.storage.out != ElementType::F32;
        AttentionVariant {
            q_order: true,
            k_order: true,
            stats: match (several || outputs.state, outputs.lse) {
                (true, _) => Stats::State,
                (false, true) => Stats::Lse,
                (false, false) => Stats::None,
            },
            accumulate,
            chunks: Some(self.inner.chunks),
            score: self.attention.score.clone(),
            ..base_variant(&self.attention, self.inner.tile, merged)
        }
    }

    /// The parameters and the work of one round.
    fn round(&self, round: usize) -> Result<(Params, Work)> {
        let (shape, chunks) = (&self.attention.shape, &self.inner.chunks);
        let rows = self.inner.tile.rows();
        let row_tiles = self.row_tiles(round, rows);
        let places = (self.options.rounds * shape.q_len) as u32;
        let kernel = AttentionParams {
            row_tiles: row_tiles as u32,
            q_count: places,
            k_count: places,
            q_scale: q_scale(&self.attention, !self.attention.score.is_plain()),
            ..AttentionParams::of_sizes(&self.attention)
        };
        let params = Params::default().with("kernel", kernel).with("keep", self.keep(round));
        let params = params.with_rows(&self.attention).with_terms(&self.attention);
        let heaviest = shape.flops((chunks.seen(places as usize) * rows) as u64);
        let items = row_tiles as u128 * (shape.batch * shape.heads) as u128;
        Ok((params, self.kernels.work("LSH attention", items, heaviest)?))
    }

    /// Row tiles of so many rows that cover the chunks of a round's line which hold a place of the round.
    fn row_tiles(&self, round: usize, rows: usize) -> usize {
        let (len, chunks) = (self.attention.shape.q_len, &self.inner.chunks);
        let first_place = if chunks.chain_rounds { round * len } else { 0 };
        let last_place = first_place + len - 1;
        (last_place / chunks.chunk + 1 - first_place / chunks.chunk) * chunks.row_tiles(rows)
    }

    fn keep(&self, round: usize) -> LshKeepParams {
        let table = self.options.len_buckets(&self.attention.shape) as u32;
        LshKeepParams { round: round as u32, buckets_at: table, places_at: 2 * table }
    }
}

#[derive(Debug)]
struct Pipelines {
    /// The first round, and those that merge.
    first: Arc<Pipeline>,
    later: Option<Arc<Pipeline>>,
    merge: Option<Arc<Pipeline>>,
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
    (shape.len_lse() * rounds) as u64 * chunks.seen(line) as u64
}
