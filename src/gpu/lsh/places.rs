//! Who stands where: positions hashed and sorted, on the device. The gradients do it again, which gives the same places.

use super::{LshPlan, needs_tables};
use crate::gpu::bindings::{Bindings, scratch};
use crate::gpu::call::Stage;
use crate::gpu::kernels::Kernels;
use crate::gpu::params::{LshHashParams, LshTablesParams, Params};
use crate::gpu::pipeline::{Pipeline, Step, Work};
use crate::gpu::sort::SortBuffers;
use crate::lsh::Projections;
use crate::wgsl::{HashVariant, PlaceTables, SortedChunks};
use crate::{Error, Result};
use std::sync::Arc;

/// What is hashed, and where buckets and order go, if not to scratch. All have been checked.
pub(super) struct Sources<'a> {
    pub(super) qk: wgpu::BufferBinding<'a>,
    pub(super) projections: Option<wgpu::BufferBinding<'a>>,
    pub(super) key_mask: Option<wgpu::BufferBinding<'a>>,
    pub(super) buckets: Option<wgpu::BufferBinding<'a>>,
    pub(super) order: Option<wgpu::BufferBinding<'a>>,
}

/// The compiled kernels that find the places.
#[derive(Debug)]
pub(super) struct PlacePipelines {
    hash: Arc<Pipeline>,
    tables: Option<Arc<Pipeline>>,
}

/// The places of a call.
pub(super) struct Places<'p> {
    plan: &'p LshPlan,
    sources: Sources<'p>,
    buckets: Option<wgpu::Buffer>,
    order: Option<wgpu::Buffer>,
    norms: wgpu::Buffer,
    tables: Option<wgpu::Buffer>,
}

impl PlacePipelines {
    pub(super) fn new(kernels: &Kernels, hash: &HashVariant, chunks: &SortedChunks) -> Result<Self> {
        let tables = needs_tables(chunks).then(|| kernels.pipeline(PlaceTables::shader()));
        Ok(Self { hash: kernels.pipeline(hash.shader())?, tables: tables.transpose()? })
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl PlacePipelines {
    pub(super) fn pipelines(&self) -> Vec<Arc<Pipeline>> {
        [Some(&self.hash), self.tables.as_ref()].into_iter().flatten().cloned().collect()
    }
}

impl LshPlan {
    /// Whether a call gives what the options say, and no more.
    pub(super) fn check_given(&self, projections: bool, key_mask: bool) -> Result<()> {
        let given = matches!(self.options.projections, Projections::Given { .. });
        let optional = [("projections", given, projections), ("key_mask", self.options.key_mask, key_mask)];
        for (name, wanted, got) in optional {
            if wanted != got {
                let words = |is| if is { "a buffer" } else { "none" };
                let need = format!("{}, as the options say", words(wanted));
                return Err(Error::argument(name, need, words(got)));
            }
        }
        Ok(())
    }

    /// Bytes of the scratch of the places of a call, if neither buckets nor order are asked for.
    pub(super) fn place_bytes(&self) -> u64 {
        let shape = &self.attention.shape;
        place_bytes(self.options.len_buckets(shape), shape.len_lse(), &self.inner.chunks)
    }
}

/// Bytes of buckets, order, norms and tables.
pub(super) fn place_bytes(places: usize, rows: usize, chunks: &SortedChunks) -> u64 {
    let tables = if needs_tables(chunks) { 12 } else { 0 };
    (8 + tables) * places as u64 + 4 * rows as u64
}

impl<'p> Places<'p> {
    pub(super) fn new(plan: &'p LshPlan, sources: Sources<'p>) -> Result<Self> {
        let (shape, options) = (&plan.attention.shape, &plan.options);
        let places_bytes = 4 * options.len_buckets(shape) as u64;
        let device = plan.kernels.device();
        let some = |wanted: bool, label, bytes| wanted.then(|| scratch(device, label, bytes)).transpose();
        Ok(Self {
            buckets: some(sources.buckets.is_none(), "LSH buckets", places_bytes)?,
            order: some(sources.order.is_none(), "LSH order", places_bytes)?,
            norms: scratch(device, "LSH norms", 4 * shape.len_lse() as u64)?,
            tables: some(needs_tables(&plan.inner.chunks), "LSH tables", 3 * places_bytes)?,
            plan,
            sources,
        })
    }

    /// Hash, sort, and tables where they are needed.
    pub(super) fn steps(&self) -> Result<Vec<(Stage, Step)>> {
        let pipelines = &self.plan.inner.places;
        let mut steps = vec![(Stage::Hash, self.hash(&pipelines.hash)?)];
        let sorted = SortBuffers {
            keys: self.buckets(),
            values: None,
            sorted_keys: None,
            sorted_values: self.order(),
        };
        steps.extend(self.plan.inner.sort.steps(&sorted)?.into_iter().map(|step| (Stage::Sort, step)));
        if let (Some(pipeline), Some(tables)) = (&pipelines.tables, &self.tables) {
            steps.push((Stage::Sort, self.table_step(pipeline, tables)?));
        }
        Ok(steps)
    }

    /// What the kernels look up: the order alone, or all tables.
    pub(super) fn tables(&self) -> wgpu::BufferBinding<'_> {
        self.tables.as_ref().map_or_else(|| self.order(), wgpu::Buffer::as_entire_buffer_binding)
    }

    /// 1 / |x| of each position.
    pub(super) fn norms(&self) -> wgpu::BufferBinding<'_> {
        self.norms.as_entire_buffer_binding()
    }

    fn buckets(&self) -> wgpu::BufferBinding<'_> {
        either(&self.buckets, &self.sources.buckets, &self.norms)
    }

    fn order(&self) -> wgpu::BufferBinding<'_> {
        either(&self.order, &self.sources.order, &self.norms)
    }

    fn hash(&self, pipeline: &Pipeline) -> Result<Step> {
        let (plan, shape) = (self.plan, &self.plan.attention.shape);
        let q = plan.attention.q_strides();
        let row_tiles = shape.q_len.div_ceil(HashVariant::ROWS);
        let projection = shape.head_dim * plan.options.rounds * plan.options.columns();
        let params = Params::of(LshHashParams {
            row_tiles: row_tiles as u32,
            heads: shape.heads as u32,
            len: shape.q_len as u32,
            q_at: q.offset as u32,
            q_batch: q.batch as u32,
            q_head: q.head as u32,
            q_row: q.row as u32,
            projection_head: if plan.options.per_head() { projection as u32 } else { 0 },
            norm_eps: plan.options.norm_eps,
            ..Default::default()
        });
        let items = (shape.batch * shape.heads * row_tiles * plan.options.rounds) as u128;
        let flops = 2.0 * (HashVariant::ROWS * shape.head_dim * plan.options.columns()) as f64;
        let work = plan.kernels.work("LSH hash", items, flops)?;
        let bindings = Bindings::default()
            .with("q", self.sources.qk.clone())
            .with("projections", either(&plan.inner.projections, &self.sources.projections, &self.norms))
            .with_some("key_mask", self.sources.key_mask.clone())
            .with("buckets", self.buckets())
            .with("norms", self.norms());
        Step::new(plan.kernels.device(), pipeline, &params, work, &bindings)
    }

    /// Tables of places beside the order, where the kernel looks up more than that.
    fn table_step(&self, pipeline: &Pipeline, tables: &wgpu::Buffer) -> Result<Step> {
        let (options, shape) = (&self.plan.options, &self.plan.attention.shape);
        let total = options.len_buckets(shape);
        let params = Params::of(LshTablesParams {
            len: shape.q_len as u32,
            places: (options.rounds * shape.q_len) as u32,
            total: total as u32,
            ..Default::default()
        });
        let items = total.div_ceil(PlaceTables::LANES) as u32;
        let work = Work { items, per_dispatch: items };
        let bindings = Bindings::default()
            .with("order", self.order())
            .with("buckets", self.buckets())
            .with("tables", tables.as_entire_buffer_binding());
        Step::new(self.plan.kernels.device(), pipeline, &params, work, &bindings)
    }
}

/// The crate's own buffer, or the caller's: one of them is there.
fn either<'b>(
    own: &'b Option<wgpu::Buffer>,
    given: &'b Option<wgpu::BufferBinding<'_>>,
    neither: &'b wgpu::Buffer,
) -> wgpu::BufferBinding<'b> {
    match (own, given) {
        (Some(own), _) => own.as_entire_buffer_binding(),
        (None, Some(given)) => given.clone(),
        (None, None) => neither.as_entire_buffer_binding(),
    }
}
