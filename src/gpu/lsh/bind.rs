//! Buffers checked and bound to an LSH plan: a call, ready to record.

use super::super::bind::checked_binding;
use super::super::params::{LshHashParams, LshTablesParams};
use super::super::pipeline::{Step, Use, Work};
use super::super::plan::finish_params;
use super::super::sort::{SortBuffers, check_apart, scratch};
use super::{LshPlan, Pipelines, needs_tables};
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
    /// out `[B, H, L, dv]`, of the output type.
    pub out: wgpu::BufferBinding<'a>,
    /// lse `[B, H, L]` in f32, where wanted; `f32::MIN` for rows that see no key.
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
        Self { qk, v, projections: None, key_mask: None, out, lse: None, buckets: None, order: None }
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

/// The stages of a call, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LshStage {
    /// Buckets, and the norms of the keys.
    Hash,
    /// The order of the places.
    Sort,
    /// The blocked kernel, round by round; each round after the first merges into the rows that are there.
    Attention,
    /// lse from the merged (m, l); f32 rows to 16 bits. Only where several rounds and either of these need it.
    Finish,
}

impl LshStage {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Hash, Self::Sort, Self::Attention, Self::Finish];
}

/// A plan with its buffers: records itself into the caller's encoder or pass, as often as wanted.
#[derive(Debug)]
pub struct LshCall {
    steps: Vec<(LshStage, Step)>,
}

impl LshCall {
    /// Records a compute pass of its own.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        if self.steps.is_empty() {
            return;
        }
        let descriptor = wgpu::ComputePassDescriptor { label: Some("LSH attention"), timestamp_writes: None };
        self.dispatch(&mut encoder.begin_compute_pass(&descriptor));
    }

    /// Records into the caller's pass; leaves its own pipeline and bind group 0 set.
    pub fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.steps.iter().for_each(|(_, step)| step.record(pass));
    }

    /// Records one stage alone, to measure it. A stage reads what those before it left: the first time, record all.
    pub fn dispatch_stage(&self, pass: &mut wgpu::ComputePass<'_>, stage: LshStage) {
        self.steps.iter().filter(|step| step.0 == stage).for_each(|(_, step)| step.record(pass));
    }

    /// Dispatches that [`encode`](Self::encode) records.
    pub fn dispatches(&self) -> usize {
        self.steps.iter().map(|(_, step)| step.dispatches()).sum()
    }

    pub(super) fn new(plan: &LshPlan, buffers: LshBuffers<'_>) -> Result<Self> {
        check_given(plan, &buffers)?;
        if plan.shape.is_empty() {
            return Ok(Self { steps: vec![] });
        }
        let buffers = check_buffers(plan, buffers)?;
        Binder::new(plan, &buffers)?.steps()
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
    Ok(())
}

/// The bindings, cut to the bytes that the tensors have.
fn check_buffers<'a>(plan: &LshPlan, buffers: LshBuffers<'a>) -> Result<LshBuffers<'a>> {
    let (shape, options) = (&plan.shape, &plan.options);
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
        qk: one("qk", &buffers.qk, shape.len_q(), shape.input)?,
        v: one("v", &buffers.v, shape.len_v(), shape.input)?,
        projections: optional("projections", &buffers.projections, options.len_projections(shape))?,
        key_mask: optional("key_mask", &buffers.key_mask, options.len_key_mask(shape))?,
        out: one("out", &buffers.out, shape.len_out(), shape.output)?,
        lse: optional("lse", &buffers.lse, shape.len_lse())?,
        buckets: optional("buckets", &buffers.buckets, places)?,
        order: optional("order", &buffers.order, places)?,
    };
    check_apart(&[
        ("qk", Some(&buffers.qk), false),
        ("v", Some(&buffers.v), false),
        ("projections", buffers.projections.as_ref(), false),
        ("key_mask", buffers.key_mask.as_ref(), false),
        ("out", Some(&buffers.out), true),
        ("lse", buffers.lse.as_ref(), true),
        ("buckets", buffers.buckets.as_ref(), true),
        ("order", buffers.order.as_ref(), true),
    ])?;
    Ok(buffers)
}

/// A call's buffers: the caller's, and scratch for the rest.
struct Binder<'p> {
    plan: &'p LshPlan,
    buffers: &'p LshBuffers<'p>,
    pipelines: Pipelines,
    buckets: Option<wgpu::Buffer>,
    order: Option<wgpu::Buffer>,
    norms: wgpu::Buffer,
    tables: Option<wgpu::Buffer>,
    state: Option<wgpu::Buffer>,
    merged: Option<wgpu::Buffer>,
}

impl<'p> Binder<'p> {
    fn new(plan: &'p LshPlan, buffers: &'p LshBuffers<'p>) -> Result<Self> {
        let (shape, options) = (&plan.shape, &plan.options);
        let places_bytes = 4 * options.len_buckets(shape) as u64;
        let [state_bytes, merged_bytes] = scratch_bytes(shape, options.rounds > 1, 1);
        let some =
            |wanted: bool, label, bytes| wanted.then(|| scratch(&plan.kernels, label, bytes)).transpose();
        Ok(Self {
            plan,
            buffers,
            pipelines: plan.pipelines(buffers.lse.is_some())?,
            buckets: some(buffers.buckets.is_none(), "LSH buckets", places_bytes)?,
            order: some(buffers.order.is_none(), "LSH order", places_bytes)?,
            norms: scratch(&plan.kernels, "LSH norms", 4 * shape.len_lse() as u64)?,
            tables: some(needs_tables(&plan.inner.chunks), "LSH tables", 3 * places_bytes)?,
            state: some(state_bytes > 0, "the merged (m, l)", state_bytes)?,
            merged: some(merged_bytes > 0, "the merged rows", merged_bytes)?,
        })
    }

    fn steps(&self) -> Result<LshCall> {
        let mut steps = vec![(LshStage::Hash, self.hash()?)];
        let sorted = SortBuffers {
            keys: self.buckets(),
            values: None,
            sorted_keys: None,
            sorted_values: self.order(),
        };
        steps.extend(self.plan.inner.sort.steps(&sorted)?.into_iter().map(|step| (LshStage::Sort, step)));
        if let (Some(pipeline), Some(tables)) = (&self.pipelines.tables, &self.tables) {
            let total = self.plan.options.len_buckets(&self.plan.shape);
            let params = LshTablesParams {
                len: self.plan.shape.q_len as u32,
                places: (self.plan.options.rounds * self.plan.shape.q_len) as u32,
                total: total as u32,
                ..Default::default()
            };
            let items = total.div_ceil(PlaceTables::LANES) as u32;
            let work = Work { items, a_dispatch: items };
            let bindings = [self.order(), self.buckets(), tables.as_entire_buffer_binding()];
            steps.push((LshStage::Sort, Step::new(self.device(), pipeline, params, work, &bindings)?));
        }
        for round in 0..self.plan.options.rounds {
            steps.push((LshStage::Attention, self.round(round)?));
        }
        if let Some(finish) = self.finish()? {
            steps.push((LshStage::Finish, finish));
        }
        Ok(LshCall { steps })
    }

    fn device(&self) -> &wgpu::Device {
        self.plan.kernels.device()
    }

    fn buckets(&self) -> wgpu::BufferBinding<'_> {
        either(&self.buckets, &self.buffers.buckets, self.plan)
    }

    fn order(&self) -> wgpu::BufferBinding<'_> {
        either(&self.order, &self.buffers.order, self.plan)
    }

    fn hash(&self) -> Result<Step> {
        let (plan, shape) = (self.plan, &self.plan.shape);
        let q = shape.q_strides();
        let row_tiles = shape.q_len.div_ceil(HashVariant::ROWS);
        let projection = shape.head_dim * plan.options.rounds * plan.options.columns();
        let params = LshHashParams {
            row_tiles: row_tiles as u32,
            heads: shape.heads as u32,
            len: shape.q_len as u32,
            q_batch: q.batch as u32,
            q_head: q.head as u32,
            q_row: q.row as u32,
            projection_head: if plan.options.per_head() { projection as u32 } else { 0 },
            norm_eps: plan.options.norm_eps,
            ..Default::default()
        };
        let items = (shape.batch * shape.heads * row_tiles * plan.options.rounds) as u32;
        let flops = 2.0 * (HashVariant::ROWS * shape.head_dim * plan.options.columns()) as f64;
        let a_dispatch = (plan.kernels.options().dispatch_flops / flops).clamp(1.0, u32::MAX as f64) as u32;
        let unused = plan.kernels.unused(Use::Read);
        let bindings = [
            self.buffers.qk.clone(),
            either(&plan.inner.projections, &self.buffers.projections, plan),
            self.buffers.key_mask.clone().unwrap_or(unused),
            self.buckets(),
            self.norms.as_entire_buffer_binding(),
        ];
        Step::new(self.device(), &self.pipelines.hash, params, Work { items, a_dispatch }, &bindings)
    }

    fn round(&self, round: usize) -> Result<Step> {
        let (mut params, work) = self.plan.round(round)?;
        if self.merged.is_some() {
            params = params.with_merged_rows(&self.plan.shape);
        }
        let pipeline = match &self.pipelines.later {
            Some(later) if round > 0 => later,
            _ => &self.pipelines.first,
        };
        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let unused = self.plan.kernels.unused(Use::Write);
        let bindings = [
            self.buffers.qk.clone(),
            self.buffers.qk.clone(),
            self.buffers.v.clone(),
            self.tables.as_ref().map_or_else(|| self.order(), whole),
            self.merged.as_ref().map_or_else(|| self.buffers.out.clone(), whole),
            self.state.as_ref().map(whole).or(self.buffers.lse.clone()).unwrap_or(unused),
            whole(&self.norms),
        ];
        Step::new(self.device(), pipeline, params, work, &bindings)
    }

    fn finish(&self) -> Result<Option<Step>> {
        let (Some(pipeline), Some(state)) = (&self.pipelines.finish, &self.state) else { return Ok(None) };
        let (params, work) = finish_params(&self.plan.shape, 1);
        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let unused = self.plan.kernels.unused(Use::Write);
        let (merged, out) = match &self.merged {
            Some(merged) => (whole(merged), self.buffers.out.clone()),
            None => (self.plan.kernels.unused(Use::Read), unused.clone()),
        };
        let bindings = [whole(state), merged, out, self.buffers.lse.clone().unwrap_or(unused)];
        Step::new(self.device(), pipeline, params, work, &bindings).map(Some)
    }
}

/// The crate's own buffer, or the caller's: one of them is there.
fn either<'b>(
    own: &'b Option<wgpu::Buffer>,
    given: &'b Option<wgpu::BufferBinding<'_>>,
    plan: &'b LshPlan,
) -> wgpu::BufferBinding<'b> {
    match (own, given) {
        (Some(own), _) => own.as_entire_buffer_binding(),
        (None, Some(given)) => given.clone(),
        (None, None) => plan.kernels.unused(Use::Read),
    }
}
