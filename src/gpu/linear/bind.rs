//! Buffers checked and bound to a plan of linear attention: a call, ready to record.

use super::LinearPlan;
use super::features::FeatureRows;
use super::pass::{Pass, PassPipelines};
use crate::construct::constructed;
use crate::gpu::bindings::{
    Access, Bindings, check_aliasing, checked_binding, optional_binding, scratch, whole,
};
use crate::gpu::call::{Call, Stage};
use crate::gpu::params::{LinearKeyParams, LinearMaximaParams, Params};
use crate::gpu::pipeline::{Pipeline, Step};
use crate::linear::{LinearOptions, LinearState, Projection};
use crate::uniform::Rows;
use crate::wgsl::{FeatureVariant, KeyMaxima};
use crate::{ElementType, Result, Strides};

/// The buffers of one call of linear attention. All need `BufferUsages::STORAGE`; out may not be a buffer that is also read. Offsets
/// and sizes are as for [`AttentionBuffers`](crate::AttentionBuffers).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LinearBuffers<'a> {
    /// q `[B, H, Lq, d]`.
    pub q: wgpu::BufferBinding<'a>,
    /// k `[B, Hkv, Lk, d]`.
    pub k: wgpu::BufferBinding<'a>,
    /// v `[B, Hkv, Lk, dv]`.
    pub v: wgpu::BufferBinding<'a>,
    /// out `[B, H, Lq, dv]`.
    pub out: wgpu::BufferBinding<'a>,
    /// P `[m, d]` in f32, if and only if [`Projection::Given`].
    pub projection: Option<wgpu::BufferBinding<'a>>,
    /// `[B, Lk]` in u32, not 0 where a key may be seen; if and only if [`LinearOptions::key_mask`].
    pub key_mask: Option<wgpu::BufferBinding<'a>>,
    /// [`LinearOptions::len_state`] elements of f32, if and only if the options have a [`LinearState`]: read if it is carried, then written. It
    /// serves calls of the same map, projection, decay and head sizes.
    pub state: Option<wgpu::BufferBinding<'a>>,
}

constructed! {
    LinearBuffers ['a] { q: wgpu::BufferBinding<'a>, k: wgpu::BufferBinding<'a>, v: wgpu::BufferBinding<'a>, out: wgpu::BufferBinding<'a> } { projection: wgpu::BufferBinding<'a>, key_mask: wgpu::BufferBinding<'a>, state: wgpu::BufferBinding<'a> }
}

impl LinearPlan {
    /// Checks the buffers and binds them: nothing is recorded yet. Scratch of [`scratch_bytes`](Self::scratch_bytes) is allocated.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a buffer that is too small, missing, not asked for, lacks the usage, is misaligned, or
    /// serves as input and as output; [`Error::Limit`](crate::Error::Limit) for buffers or scratch past the device's binding size;
    /// [`Error::Device`](crate::Error::Device) for what wgpu reports.
    pub fn bind(&self, buffers: LinearBuffers<'_>) -> Result<Call> {
        let buffers = check_buffers(self, buffers)?;
        if self.options.is_empty(&self.attention.shape) {
            return Ok(Call::new("linear attention", []));
        }
        Binder::new(self, &buffers)?.call()
    }
}

fn check_buffers<'a>(plan: &LinearPlan, buffers: LinearBuffers<'a>) -> Result<LinearBuffers<'a>> {
    let (attention, options) = (&plan.attention, &plan.options);
    let (shape, storage) = (&attention.shape, attention.storage);
    let limits = plan.kernels.device().limits();
    let one = |name, binding: &wgpu::BufferBinding<'a>, len, element| {
        checked_binding(&limits, name, binding, len, element)
    };
    let given = options.map.source() == Some(Projection::Given);
    let optional = |name, binding: &Option<wgpu::BufferBinding<'a>>, wanted, len| {
        optional_binding(&limits, name, binding, wanted, len, ElementType::F32)
    };
    let (projection, mask) = (options.len_projection(shape), options.len_key_mask(shape));
    let has_state = options.state != LinearState::Absent;
    let buffers = LinearBuffers {
        q: one("q", &buffers.q, attention.len_q(), storage.q)?,
        k: one("k", &buffers.k, attention.len_k(), storage.kv)?,
        v: one("v", &buffers.v, attention.len_v(), storage.kv)?,
        out: one("out", &buffers.out, attention.len_out(), storage.out)?,
        projection: optional("projection", &buffers.projection, given, projection)?,
        key_mask: optional("key_mask", &buffers.key_mask, options.key_mask, mask)?,
        state: optional("state", &buffers.state, has_state, options.len_state(shape))?,
    };
    let named = [
        ("q", Some(&buffers.q), Access::Read),
        ("k", Some(&buffers.k), Access::Read),
        ("v", Some(&buffers.v), Access::Read),
        ("projection", buffers.projection.as_ref(), Access::Read),
        ("key_mask", buffers.key_mask.as_ref(), Access::Read),
        ("state", buffers.state.as_ref(), Access::Both),
        ("out", Some(&buffers.out), Access::Write),
    ];
    check_aliasing(&named, plan.kernels.options().shared_buffers)?;
    Ok(buffers)
}

/// The scratch of a call: what for, and its bytes; 0 where it is not needed.
pub(super) fn sizes(plan: &LinearPlan) -> [(&'static str, u64); 6] {
    let (shape, options) = (&plan.attention.shape, &plan.options);
    let width = plan.features().next_multiple_of(4);
    let lines = shape.batch * shape.kv_heads;
    let keys = lines * shape.kv_len;
    let later = plan.inner.later.is_some();
    let (first, second) = (lines * shape.kv_len.div_ceil(KeyMaxima::ROWS) * width, lines * width);
    let elements = [
        ("features of queries", shape.batch * shape.heads * shape.q_len * width),
        ("features of keys", keys * width),
        ("states of chunks", options.len_states(shape)),
        ("weights of keys", if options.weighted() || later { keys } else { 0 }),
        ("tops of chunks", if options.weighted() { 2 * lines * LinearOptions::chunks(shape) } else { 0 }),
        // Of 256 keys each, of 65,536 each, of 16,777,216.
        ("maxima of keys", if later { first + first.div_ceil(KeyMaxima::ROWS).max(second) } else { 0 }),
    ];
    elements.map(|(what, elements)| (what, 4 * elements as u64))
}

/// A call's buffers: the caller's, and scratch.
pub(super) struct Binder<'p> {
    plan: &'p LinearPlan,
    buffers: &'p LinearBuffers<'p>,
    pub(super) q_phi: wgpu::Buffer,
    pub(super) k_phi: wgpu::Buffer,
    states: wgpu::Buffer,
    pub(super) weights: Option<wgpu::Buffer>,
    tops: Option<wgpu::Buffer>,
}

impl<'p> Binder<'p> {
    pub(super) fn new(plan: &'p LinearPlan, buffers: &'p LinearBuffers<'p>) -> Result<Self> {
        let device = plan.kernels.device();
        let [q_phi, k_phi, states, weights, tops, _] = sizes(plan);
        let always = |(what, bytes)| scratch(device, what, bytes);
        let some = |(what, bytes): (_, u64), wanted: bool| wanted.then(|| always((what, bytes))).transpose();
        let weighted = plan.options.weighted();
        Ok(Self {
            plan,
            buffers,
            q_phi: always(q_phi)?,
            k_phi: always(k_phi)?,
            states: always(states)?,
            weights: some(weights, weighted || plan.inner.later.is_some())?,
            tops: some(tops, weighted)?,
        })
    }

    fn call(&self) -> Result<Call> {
        let mut steps = self.prepared()?;
        let strides = Rows::from(self.plan.attention.out_strides());
        let pass = self.pass(&self.plan.inner.pass, (self.buffers.out.clone(), strides));
        steps.push((Stage::Main, pass.states()?));
        steps.push((Stage::Main, pass.scan()?));
        if self.plan.attention.shape.q_len > 0 {
            steps.extend(pass.outputs()?.into_iter().map(|step| (Stage::Main, step)));
        }
        Ok(Call::new("linear attention", steps))
    }

    /// The sums of chunks.
    pub(super) fn states(&self) -> Bindings<'_> {
        Bindings::default().with("states", whole(&self.states))
    }

    /// The features.
    pub(super) fn prepared(&self) -> Result<Vec<(Stage, Step)>> {
        let mut steps = vec![];
        if self.plan.attention.shape.q_len > 0 {
            steps.push((Stage::Prepare, self.queries()?));
        }
        if self.plan.attention.shape.kv_len > 0 {
            steps.push((Stage::Prepare, self.keys()?));
            steps.extend(self.later()?.into_iter().map(|step| (Stage::Prepare, step)));
        }
        Ok(steps)
    }

    fn device(&self) -> &wgpu::Device {
        self.plan.kernels.device()
    }

    /// B Hkv.
    fn lines(&self) -> usize {
        self.plan.attention.shape.batch * self.plan.attention.shape.kv_heads
    }

    /// Groups of 4 features.
    fn groups(&self) -> usize {
        self.plan.features().div_ceil(4)
    }

    fn queries(&self) -> Result<Step> {
        let (attention, buffers) = (&self.plan.attention, self.buffers);
        let strides = attention.q_strides();
        let rows = [attention.shape.heads, attention.shape.q_len];
        self.features(&self.plan.inner.q_features, &buffers.q, &self.q_phi, strides, rows)
    }

    fn keys(&self) -> Result<Step> {
        let (attention, buffers) = (&self.plan.attention, self.buffers);
        let strides = attention.k_strides();
        let rows = [attention.shape.kv_heads, attention.shape.kv_len];
        self.features(&self.plan.inner.k_features, &buffers.k, &self.k_phi, strides, rows)
    }

    fn features(
        &self,
        pipeline: &Pipeline,
        x: &wgpu::BufferBinding<'_>,
        phi: &wgpu::Buffer,
        strides: Strides,
        [heads, len]: [usize; 2],
    ) -> Result<Step> {
        let plan = self.plan;
        let projection =
            plan.inner.projection.as_ref().map(whole).or_else(|| self.buffers.projection.clone());
        let bindings = Bindings::default()
            .with("x", x.clone())
            .with("phi", whole(phi))
            .with_some("projection", projection)
            .with_some("key_mask", self.buffers.key_mask.clone())
            .with_some("weights", self.weights.as_ref().map(whole));
        let rows = FeatureRows {
            batch: plan.attention.shape.batch,
            heads,
            len,
            dim: plan.attention.shape.head_dim,
            features: plan.features(),
            eps: plan.options.map.eps(),
            strides,
        };
        rows.step(&plan.kernels, pipeline, &bindings)
    }

    /// The largest y of all keys, in tiles of rows, then of tiles; then the features.
    fn later(&self) -> Result<Vec<Step>> {
        let Some([maxima, keys]) = &self.plan.inner.later else { return Ok(vec![]) };
        let (shape, groups) = (&self.plan.attention.shape, self.groups());
        let mut steps = vec![];
        let mut rows = shape.kv_len;
        let mut of = self.k_phi.clone();
        loop {
            let tiles = rows.div_ceil(KeyMaxima::ROWS);
            let to = scratch(self.device(), "maxima of keys", 16 * (self.lines() * tiles * groups) as u64)?;
            let columns = groups.div_ceil(64);
            let kernel = LinearMaximaParams {
                rows: rows as u32,
                tiles: tiles as u32,
                groups: groups as u32,
                columns: columns as u32,
                ..Default::default()
            };
            let items = self.lines() as u128 * tiles as u128 * columns as u128;
            let work = self.plan.kernels.work("maxima of keys", items, (64 * 4 * KeyMaxima::ROWS) as f64)?;
            let bindings = Bindings::default().with("rows", whole(&of)).with("maxima", whole(&to));
            let params = Params::default().with("kernel", kernel);
            steps.push(Step::new(self.device(), maxima, &params, work, &bindings)?);
            (rows, of) = (tiles, to);
            if rows == 1 {
                break;
            }
        }
        let tiles = shape.kv_len.div_ceil(FeatureVariant::ROWS);
        let kernel = LinearKeyParams {
            tiles: tiles as u32,
            len: shape.kv_len as u32,
            features: self.plan.features() as u32,
            feature_eps: self.plan.options.map.eps(),
            ..Default::default()
        };
        let items = self.lines() as u128 * tiles as u128;
        let flops = (8 * FeatureVariant::ROWS * self.plan.features()) as f64;
        let work = self.plan.kernels.work("features of keys", items, flops)?;
        let bindings = Bindings::default()
            .with("phi", whole(&self.k_phi))
            .with("maxima", whole(&of))
            .with_some("weights", self.weights.as_ref().map(whole));
        let params = Params::default().with("kernel", kernel);
        steps.push(Step::new(self.device(), keys, &params, work, &bindings)?);
        Ok(steps)
    }

    /// What all steps behind the features may bind.
    fn bindings(&self) -> Bindings<'_> {
        Bindings::default()
            .with("q_phi", whole(&self.q_phi))
            .with("k_phi", whole(&self.k_phi))
            .with("v", self.buffers.v.clone())
            .with("states", whole(&self.states))
            .with_some("weights", self.weights.as_ref().map(whole))
            .with_some("decays", self.plan.inner.decays.as_ref().map(whole))
            .with_some("tops", self.tops.as_ref().map(whole))
            .with_some("state", self.buffers.state.clone())
    }

    /// The sums, to out.
    pub(super) fn pass<'a>(
        &'a self,
        pipelines: &'a PassPipelines,
        out: (wgpu::BufferBinding<'a>, Rows),
    ) -> Pass<'a> {
        let (plan, attention) = (self.plan, &self.plan.attention);
        let shape = &attention.shape;
        Pass {
            kernels: &plan.kernels,
            pipelines,
            batch: shape.batch,
            heads: shape.heads,
            kv_heads: shape.kv_heads,
            q_len: shape.q_len,
            kv_len: shape.kv_len,
            features: plan.features(),
            value_dim: shape.value_dim,
            causal: plan.options.causal,
            shift: shape.kv_len as i64 - shape.q_len as i64,
            denominator_eps: plan.options.denominator_eps,
            last: 0,
            v: Rows::from(attention.v_strides()),
            out: out.1,
            bindings: self.bindings().with("out", out.0),
        }
    }
}
