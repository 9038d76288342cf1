//! Buffers checked and bound to an LSH plan: a call, ready to record.

use super::{LshPlan, Pipelines, needs_tables};
use crate::gpu::attention::Merge;
use crate::gpu::bindings::{Access, Bindings, check_aliasing, checked_binding, scratch};
use crate::gpu::call::{Call, Stage};
use crate::gpu::params::{LshHashParams, LshTablesParams, Params};
use crate::gpu::pipeline::{Pipeline, Step, Work};
use crate::gpu::sort::SortBuffers;
use crate::lsh::Projections;
use crate::schedule::scratch_bytes;
use crate::wgsl::{HashVariant, PlaceTables};
use crate::{ElementType, Error, Result};

/// The buffers of one call of LSH attention. All need `BufferUsages::STORAGE`; each output is a buffer of its own. Offsets
/// and sizes are as for [`AttentionBuffers`](crate::AttentionBuffers).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LshBuffers<'a> {
    /// Shared queries and keys `[B, H, L, d]`, of the input type.
    pub qk: wgpu::BufferBinding<'a>,
    /// v `[B, H, L, dv]`, of the input type.
    pub v: wgpu::BufferBinding<'a>,
    /// Projections `[H or 1, d, R, sum of the factors / 2]` in f32, if and only if the options say that they are given.
    pub projections: Option<wgpu::BufferBinding<'a>>,
    /// `[B, L]` in u32, not 0 where a key may be seen; if and only if the options say that there is a key mask.
    pub key_mask: Option<wgpu::BufferBinding<'a>>,
    /// Those of the score's terms, f32, by name: see [`Score::tensors`](crate::Score::tensors).
    pub tensors: Vec<(&'a str, wgpu::BufferBinding<'a>)>,
    /// out `[B, H, L, dv]`, of the output type.
    pub out: wgpu::BufferBinding<'a>,
    /// lse `[B, H, L]` in f32, where wanted, with the sink if there is one; `f32::MIN` for rows without either.
    pub lse: Option<wgpu::BufferBinding<'a>>,
    /// Buckets `[B, H, R, L]` in u32, where wanted.
    pub buckets: Option<wgpu::BufferBinding<'a>>,
    /// The positions of each round, sorted by (bucket, position): `[B, H, R, L]` in u32, where wanted.
    pub order: Option<wgpu::BufferBinding<'a>>,
}

impl<'a> LshBuffers<'a> {
    /// The tensors that every call has.
    pub fn new(
        qk: wgpu::BufferBinding<'a>,
        v: wgpu::BufferBinding<'a>,
        out: wgpu::BufferBinding<'a>,
    ) -> Self {
        let (projections, key_mask, tensors) = (None, None, vec![]);
        Self { qk, v, projections, key_mask, tensors, out, lse: None, buckets: None, order: None }
    }

    /// Sets where the projections lie.
    pub fn projections(mut self, projections: wgpu::BufferBinding<'a>) -> Self {
        self.projections = Some(projections);
        self
    }

    /// Sets where the key mask lies.
    pub fn key_mask(mut self, key_mask: wgpu::BufferBinding<'a>) -> Self {
        self.key_mask = Some(key_mask);
        self
    }

    /// Adds a tensor of one of the score's terms.
    pub fn tensor(mut self, name: &'a str, tensor: wgpu::BufferBinding<'a>) -> Self {
        self.tensors.push((name, tensor));
        self
    }

    /// Asks for lse.
    pub fn lse(mut self, lse: wgpu::BufferBinding<'a>) -> Self {
        self.lse = Some(lse);
        self
    }

    /// Asks for the buckets.
    pub fn buckets(mut self, buckets: wgpu::BufferBinding<'a>) -> Self {
        self.buckets = Some(buckets);
        self
    }

    /// Asks for the order.
    pub fn order(mut self, order: wgpu::BufferBinding<'a>) -> Self {
        self.order = Some(order);
        self
    }
}

impl LshPlan {
    /// Checks the buffers and binds them: nothing is recorded yet. A call may be recorded many times, and many calls into
    /// one encoder.
    ///
    /// # Errors
    /// [`Error::Argument`] for a buffer that is missing, too small, lacks the usage, is misaligned, or serves twice where
    /// one is written; [`Error::Limit`] for buffers or scratch past the device's binding size; [`Error::Device`] for what
    /// wgpu reports.
    pub fn bind(&self, buffers: LshBuffers<'_>) -> Result<Call> {
        check_given(self, &buffers)?;
        if self.attention.shape.is_empty() {
            return Ok(Call::new("LSH attention", []));
        }
        let buffers = check_buffers(self, buffers)?;
        Binder::new(self, &buffers)?.call()
    }
}

fn check_given(plan: &LshPlan, buffers: &LshBuffers<'_>) -> Result<()> {
    let given = matches!(plan.options.projections, Projections::Given { .. });
    let optional = [
        ("projections", given, buffers.projections.is_some()),
        ("key_mask", plan.options.key_mask, buffers.key_mask.is_some()),
    ];
    for (name, wanted, got) in optional {
        if wanted != got {
            let words = |is| if is { "a buffer" } else { "none" };
            return Err(Error::argument(name, format!("{}, as the options say", words(wanted)), words(got)));
        }
    }
    plan.inner.terms.check_names(&buffers.tensors)
}

/// The bindings, cut to the bytes that the tensors have.
fn check_buffers<'a>(plan: &LshPlan, buffers: LshBuffers<'a>) -> Result<LshBuffers<'a>> {
    let (attention, options) = (&plan.attention, &plan.options);
    let (shape, storage) = (&attention.shape, attention.storage);
    let limits = plan.kernels.device().limits();
    let word = ElementType::F32;
    let one = |name, binding: &wgpu::BufferBinding<'a>, len, element| {
        checked_binding(&limits, name, binding, len, element)
    };
    let optional = |name, binding: &Option<wgpu::BufferBinding<'a>>, len| {
        binding.as_ref().map(|binding| one(name, binding, len, word)).transpose()
    };
    let places = options.len_buckets(shape);
    let buffers = LshBuffers {
        qk: one("qk", &buffers.qk, attention.len_q(), storage.q)?,
        v: one("v", &buffers.v, attention.len_v(), storage.kv)?,
        projections: optional("projections", &buffers.projections, options.len_projections(shape))?,
        key_mask: optional("key_mask", &buffers.key_mask, options.len_key_mask(shape))?,
        tensors: plan.inner.terms.checked(&limits, &buffers.tensors)?,
        out: one("out", &buffers.out, attention.len_out(), storage.out)?,
        lse: optional("lse", &buffers.lse, shape.len_lse())?,
        buckets: optional("buckets", &buffers.buckets, places)?,
        order: optional("order", &buffers.order, places)?,
    };
    let mut named = vec![
        ("qk", Some(&buffers.qk), Access::Read),
        ("v", Some(&buffers.v), Access::Read),
        ("projections", buffers.projections.as_ref(), Access::Read),
        ("key_mask", buffers.key_mask.as_ref(), Access::Read),
        ("out", Some(&buffers.out), Access::Write),
        ("lse", buffers.lse.as_ref(), Access::Write),
        ("buckets", buffers.buckets.as_ref(), Access::Both),
        ("order", buffers.order.as_ref(), Access::Both),
    ];
    named.extend(buffers.tensors.iter().map(|(name, binding)| (*name, Some(binding), Access::Read)));
    check_aliasing(&named, plan.kernels.options().shared_buffers)?;
    Ok(buffers)
}

/// A call's buffers: the caller's, and scratch for the rest.
struct Binder<'p> {
    plan: &'p LshPlan,
    buffers: &'p LshBuffers<'p>,
    pipelines: &'p Pipelines,
    buckets: Option<wgpu::Buffer>,
    order: Option<wgpu::Buffer>,
    norms: wgpu::Buffer,
    tables: Option<wgpu::Buffer>,
    state: Option<wgpu::Buffer>,
    merged: Option<wgpu::Buffer>,
}

impl<'p> Binder<'p> {
    fn new(plan: &'p LshPlan, buffers: &'p LshBuffers<'p>) -> Result<Self> {
        let (shape, options) = (&plan.attention.shape, &plan.options);
        let places_bytes = 4 * options.len_buckets(shape) as u64;
        let [state_bytes, merged_bytes] = scratch_bytes(&plan.attention, options.rounds > 1, 1);
        let device = plan.kernels.device();
        let some = |wanted: bool, label, bytes| wanted.then(|| scratch(device, label, bytes)).transpose();
        Ok(Self {
            plan,
            buffers,
            pipelines: plan.pipelines(buffers.lse.is_some())?,
            buckets: some(buffers.buckets.is_none(), "LSH buckets", places_bytes)?,
            order: some(buffers.order.is_none(), "LSH order", places_bytes)?,
            norms: scratch(device, "LSH norms", 4 * shape.len_lse() as u64)?,
            tables: some(needs_tables(&plan.inner.chunks), "LSH tables", 3 * places_bytes)?,
            state: some(state_bytes > 0, "the merged (m, l)", state_bytes)?,
            merged: some(merged_bytes > 0, "the merged rows", merged_bytes)?,
        })
    }

    fn call(&self) -> Result<Call> {
        let mut steps = vec![(Stage::Hash, self.hash()?)];
        let sorted = SortBuffers {
            keys: self.buckets(),
            values: None,
            sorted_keys: None,
            sorted_values: self.order(),
        };
        steps.extend(self.plan.inner.sort.steps(&sorted)?.into_iter().map(|step| (Stage::Sort, step)));
        if let (Some(pipeline), Some(tables)) = (&self.pipelines.tables, &self.tables) {
            steps.push((Stage::Sort, self.tables(pipeline, tables)?));
        }
        for round in 0..self.plan.options.rounds {
            steps.push((Stage::Main, self.round(round)?));
        }
        if let Some(merge) = self.merge()? {
            steps.push((Stage::Merge, merge));
        }
        Ok(Call::new("LSH attention", steps))
    }

    fn device(&self) -> &wgpu::Device {
        self.plan.kernels.device()
    }

    fn buckets(&self) -> wgpu::BufferBinding<'_> {
        either(&self.buckets, &self.buffers.buckets, &self.norms)
    }

    fn order(&self) -> wgpu::BufferBinding<'_> {
        either(&self.order, &self.buffers.order, &self.norms)
    }

    fn hash(&self) -> Result<Step> {
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
            .with("q", self.buffers.qk.clone())
            .with("projections", either(&plan.inner.projections, &self.buffers.projections, &self.norms))
            .with_some("key_mask", self.buffers.key_mask.clone())
            .with("buckets", self.buckets())
            .with("norms", self.norms.as_entire_buffer_binding());
        Step::new(self.device(), &self.pipelines.hash, &params, work, &bindings)
    }

    /// Tables of places beside the order, where the kernel looks up more than that.
    fn tables(&self, pipeline: &Pipeline, tables: &wgpu::Buffer) -> Result<Step> {
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
        Step::new(self.device(), pipeline, &params, work, &bindings)
    }

    fn round(&self, round: usize) -> Result<Step> {
        let (mut params, work) = self.plan.round(round)?;
        if self.merged.is_some() {
            params = params.with_merged_rows(&self.plan.attention);
        }
        let pipeline = match &self.pipelines.later {
            Some(later) if round > 0 => later,
            _ => &self.pipelines.first,
        };
        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let bindings = Bindings::default()
            .with("q", self.buffers.qk.clone())
            .with("v", self.buffers.v.clone())
            .with("places", self.tables.as_ref().map_or_else(|| self.order(), whole))
            .with("out", self.merged.as_ref().map_or_else(|| self.buffers.out.clone(), whole))
            .with_some("state", self.state.as_ref().map(whole))
            .with_some("lse", self.buffers.lse.clone())
            .with("norms", whole(&self.norms));
        let bindings = self.plan.inner.terms.bound(bindings, &self.buffers.tensors);
        Step::new(self.device(), pipeline, &params, work, &bindings)
    }

    fn merge(&self) -> Result<Option<Step>> {
        let (Some(pipeline), Some(state)) = (&self.pipelines.merge, &self.state) else { return Ok(None) };
        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let merge = Merge {
            state: whole(state),
            merged: self.merged.as_ref().map(whole),
            out: self.buffers.out.clone(),
            total: None,
            lse: self.buffers.lse.clone(),
        };
        merge.step(self.device(), pipeline, &self.plan.attention, 1).map(Some)
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
