//! The dispatches of gradients: the forward pass, vectors, a sum and a way back for each gradient.

use super::{LABEL, LinearBackwardPlan, LinearGradBuffers, OverKeys};
use crate::gpu::bindings::whole;
use crate::gpu::bindings::{Bindings, scratch};
use crate::gpu::call::{Call, Stage};
use crate::gpu::linear::LinearBuffers;
use crate::gpu::linear::bind::Binder;
use crate::gpu::linear::pass::Pass;
use crate::gpu::params::{LinearColumnParams, LinearFeatureParams, LinearVectorParams, Params};
use crate::gpu::pipeline::{Pipeline, Step};
use crate::linear::LinearOptions;
use crate::uniform::Rows;
use crate::wgsl::FeatureVariant;
use crate::{Result, Strides};

/// The three gradients, by the places of their pipelines.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Queries = 0,
    Keys = 1,
    Values = 2,
}

/// The scratch of a call beside the forward call's: what for, and its bytes.
pub(super) fn sizes(plan: &LinearBackwardPlan) -> [(&'static str, u64); 9] {
    let (shape, options) = (&plan.forward.attention.shape, &plan.forward.options);
    let groups = |n: usize| n.div_ceil(4);
    let (queries, keys) =
        (shape.batch * shape.heads * shape.q_len, shape.batch * shape.kv_heads * shape.kv_len);
    let (features, dv) = (plan.forward.features(), shape.value_dim);
    let chunks = |len: usize| len.div_ceil(LinearOptions::CHUNK).max(1);
    let by_queries = shape.batch * shape.heads * chunks(shape.q_len);
    let by_keys = shape.batch * shape.kv_heads * chunks(shape.kv_len);
    let sums = LinearOptions::len_sums(dv + 1, features);
    let states = (by_keys * sums).max(by_queries * sums.max(LinearOptions::len_sums(features, dv)));
    let weighted = |elements: usize| if options.weighted() { elements } else { 0 };
    let elements = [
        ("rows", queries * 4 * (groups(dv) + 1)),
        ("vectors of queries", queries * 4 * groups(dv + 1)),
        ("vectors of keys", keys * 4 * groups(dv + 1)),
        ("logarithms of queries", weighted(queries)),
        ("states of gradients", states),
        ("tops of gradients", weighted(2 * by_queries.max(by_keys))),
        ("gradients of features of queries", queries * 4 * (groups(features) + 1)),
        ("gradients of features of keys", keys * 4 * (groups(features.max(dv)) + 1)),
        ("products of shares", if plan.inner.softmax.is_some() { keys * 4 * groups(features) } else { 0 }),
    ];
    elements.map(|(what, elements)| (what, 4 * elements as u64))
}

/// A call's buffers: the caller's, and scratch.
struct Backward<'p> {
    plan: &'p LinearBackwardPlan,
    buffers: &'p LinearGradBuffers<'p>,
    forward: &'p Binder<'p>,
    scratch: &'p [wgpu::Buffer; 9],
}

impl LinearBackwardPlan {
    /// The call of buffers that have been checked.
    pub(super) fn call(&self, buffers: &LinearGradBuffers<'_>) -> Result<Call> {
        let device = self.forward.kernels.device();
        let mut own = vec![];
        for (what, bytes) in sizes(self) {
            own.push(scratch(device, what, bytes)?);
        }
        let own: [wgpu::Buffer; 9] = own.try_into().expect("as many as sizes");
        let of_call =
            LinearBuffers::new(buffers.q.clone(), buffers.k.clone(), buffers.v.clone(), whole(&own[0]));
        let of_call = of_call.projection(buffers.projection.clone()).key_mask(buffers.key_mask.clone());
        let forward = Binder::new(&self.forward, &of_call)?;
        let call = Backward { plan: self, buffers, forward: &forward, scratch: &own };
        call.call()
    }
}

impl Backward<'_> {
    fn call(&self) -> Result<Call> {
        let shape = &self.plan.forward.attention.shape;
        let mut steps = self.forward.prepared()?;
        let rows = Rows::of_groups(shape.heads, shape.q_len, shape.value_dim.div_ceil(4) + 1);
        let pass = self.forward.pass(&self.plan.inner.rows, (whole(&self.scratch[0]), rows));
        if let Some(softmax) = &self.plan.inner.softmax {
            let columns = [shape.kv_heads, shape.kv_len, shape.value_dim.div_ceil(4)];
            let shares = self.forward.states().with("phi", whole(&self.forward.k_phi));
            let shares = self.columns(&softmax.shares, columns, Rows::default(), &shares)?;
            steps.extend([pass.states()?, pass.scan()?, shares].map(|step| (Stage::Prepare, step)));
        }
        steps.extend(pass.all()?.into_iter().map(|step| (Stage::Prepare, step)));
        steps.push((Stage::Prepare, self.query_vectors()?));
        if shape.kv_len > 0 {
            steps.push((Stage::Prepare, self.key_vectors()?));
        }
        for (by, wanted) in
            [(By::Queries, &self.buffers.dq), (By::Keys, &self.buffers.dk), (By::Values, &self.buffers.dv)]
        {
            let Some(gradient) = wanted else { continue };
            if by != By::Queries && shape.kv_len == 0 {
                continue;
            }
            steps.extend(self.sum(by).all()?.into_iter().map(|step| (Stage::Main, step)));
            steps.push((Stage::Main, self.back(by, gradient)?));
            if let (By::Keys, Some(softmax)) = (by, &self.plan.inner.softmax) {
                steps.extend(self.over_keys(softmax, gradient)?.map(|step| (Stage::Main, step)));
            }
        }
        Ok(Call::new(LABEL, steps))
    }

    /// dk = p - share sum p, with p the products of shares and their gradients.
    fn over_keys(&self, softmax: &OverKeys, gradient: &wgpu::BufferBinding<'_>) -> Result<[Step; 3]> {
        let (shape, features) = (&self.plan.forward.attention.shape, self.plan.forward.features());
        let [_, dk, ..] = self.plan.inner.gradients.strides(shape);
        let mut pass = self.sum(By::Queries);
        (pass.pipelines, pass.features, pass.value_dim) = (&softmax.sums, features, 1);
        // The products as features, the vectors' first column as values.
        pass.v = Rows::of_groups(shape.kv_heads, shape.kv_len, (shape.value_dim + 1).div_ceil(4));
        pass.bindings = Bindings::default()
            .with("k_phi", whole(&self.scratch[8]))
            .with("v", whole(&self.scratch[2]))
            .with("states", whole(&self.scratch[4]));
        let bindings = Bindings::default()
            .with("states", whole(&self.scratch[4]))
            .with("phi", whole(&self.forward.k_phi))
            .with("products", whole(&self.scratch[8]))
            .with("out", gradient.clone());
        let columns = [shape.kv_heads, shape.kv_len, 1];
        let last = self.columns(&softmax.gradient, columns, Rows::from(dk), &bindings)?;
        Ok([pass.states()?, pass.scan()?, last])
    }

    fn columns(
        &self,
        pipeline: &Pipeline,
        [heads, len, value_groups]: [usize; 3],
        out: Rows,
        bindings: &Bindings<'_>,
    ) -> Result<Step> {
        let plan = &self.plan.forward;
        let tiles = len.div_ceil(FeatureVariant::ROWS);
        let kernel = LinearColumnParams {
            tiles: tiles as u32,
            heads: heads as u32,
            len: len as u32,
            groups: plan.features().div_ceil(4) as u32,
            chunks: LinearOptions::chunks(&plan.attention.shape) as u32,
            value_groups: value_groups as u32,
            ..Default::default()
        };
        let params = Params::default().with("kernel", kernel).with("out", out);
        let items = (plan.attention.shape.batch * heads) as u128 * tiles as u128;
        let flops = (4 * FeatureVariant::ROWS * plan.features()) as f64;
        let work = plan.kernels.work("sums of softmax features", items, flops)?;
        Step::new(plan.kernels.device(), pipeline, &params, work, bindings)
    }

    fn query_vectors(&self) -> Result<Step> {
        let shape = &self.plan.forward.attention.shape;
        let [.., dout] = self.plan.inner.gradients.strides(shape);
        let bindings = Bindings::default()
            .with("x", self.buffers.dout.clone())
            .with("vectors", whole(&self.scratch[1]))
            .with("rows", whole(&self.scratch[0]))
            .with("logs", whole(&self.scratch[3]));
        self.vectors(0, [shape.heads, shape.q_len], dout, &bindings)
    }

    fn key_vectors(&self) -> Result<Step> {
        let (attention, shape) = (&self.plan.forward.attention, &self.plan.forward.attention.shape);
        let bindings = Bindings::default()
            .with("x", self.buffers.v.clone())
            .with("vectors", whole(&self.scratch[2]))
            .with_some("key_mask", self.buffers.key_mask.clone());
        self.vectors(1, [shape.kv_heads, shape.kv_len], attention.v_strides(), &bindings)
    }

    fn vectors(
        &self,
        n: usize,
        [heads, len]: [usize; 2],
        strides: Strides,
        bindings: &Bindings<'_>,
    ) -> Result<Step> {
        let (kernels, shape) = (&self.plan.forward.kernels, &self.plan.forward.attention.shape);
        let tiles = len.div_ceil(FeatureVariant::ROWS);
        let kernel = LinearVectorParams {
            tiles: tiles as u32,
            heads: heads as u32,
            len: len as u32,
            ..Default::default()
        };
        let params = Params::default().with("kernel", kernel).with("x", Rows::from(strides));
        let items = shape.batch as u128 * heads as u128 * tiles as u128;
        let flops = (4 * FeatureVariant::ROWS * shape.value_dim) as f64;
        let work = kernels.work("vectors of linear attention", items, flops)?;
        Step::new(kernels.device(), &self.plan.inner.vectors[n], &params, work, bindings)
    }

    /// The sums of one gradient, with queries and keys in their roles.
    fn sum(&self, by: By) -> Pass<'_> {
        let plan = &self.plan.forward;
        let shape = &plan.attention.shape;
        let (features, dv) = (plan.features(), shape.value_dim);
        let width = features.div_ceil(4);
        let queries = |groups| Rows::of_groups(shape.heads, shape.q_len, groups);
        let keys = |groups| Rows::of_groups(shape.kv_heads, shape.kv_len, groups);
        let [_, of_queries, of_keys, logs, states, tops, q_sums, k_sums, _] =
            self.scratch.each_ref().map(whole);
        let (q_phi, k_phi) = (whole(&self.forward.q_phi), whole(&self.forward.k_phi));
        let (tensors, v, out) = match by {
            By::Queries => ([of_queries, of_keys, k_phi, q_sums], keys(width), queries(width + 1)),
            By::Keys => ([of_keys, of_queries, q_phi, k_sums], queries(width), keys(width + 1)),
            By::Values => {
                let groups = (dv + 1).div_ceil(4);
                ([k_phi, q_phi, of_queries, k_sums], queries(groups), keys(dv.div_ceil(4) + 1))
            }
        };
        let weighted = plan.options.weighted();
        let (weights, decays) = match by {
            By::Queries => (self.forward.weights.as_ref().map(whole), plan.inner.decays.as_ref()),
            _ => (weighted.then_some(logs), self.plan.inner.decays.as_ref()),
        };
        let [a, b, values, sums] = tensors;
        let bindings = Bindings::default()
            .with("q_phi", a)
            .with("k_phi", b)
            .with("v", values)
            .with("out", sums)
            .with("states", states)
            .with_some("tops", weighted.then_some(tops))
            .with_some("weights", weights)
            .with_some("decays", decays.map(whole));
        let by_queries = by == By::Queries;
        let swapped = |a: usize, b: usize| if by_queries { (a, b) } else { (b, a) };
        let (heads, kv_heads) = swapped(shape.heads, shape.kv_heads);
        let (q_len, kv_len) = swapped(shape.q_len, shape.kv_len);
        Pass {
            kernels: &plan.kernels,
            pipelines: &self.plan.inner.sums[by as usize],
            batch: shape.batch,
            heads,
            kv_heads,
            q_len,
            kv_len,
            features: if by == By::Values { features } else { dv + 1 },
            value_dim: if by == By::Values { dv } else { features },
            causal: plan.options.causal,
            // From the end, keys and queries stand at the same places.
            shift: if by_queries { shape.kv_len as i64 - shape.q_len as i64 } else { 0 },
            denominator_eps: if by_queries { plan.options.denominator_eps } else { 0.0 },
            last: dv,
            v,
            out,
            bindings,
        }
    }

    /// From the sums to the gradient itself.
    fn back(&self, by: By, gradient: &wgpu::BufferBinding<'_>) -> Result<Step> {
        let plan = &self.plan.forward;
        let (attention, shape) = (&plan.attention, &plan.attention.shape);
        let [dq, dk, dv, _] = self.plan.inner.gradients.strides(shape);
        let ([heads, len], strides, x, x_strides, phi, sums) = match by {
            By::Queries => {
                let rows = [shape.heads, shape.q_len];
                (rows, dq, &self.buffers.q, attention.q_strides(), &self.forward.q_phi, &self.scratch[6])
            }
            _ => {
                let (rows, to) = ([shape.kv_heads, shape.kv_len], if by == By::Keys { dk } else { dv });
                (rows, to, &self.buffers.k, attention.k_strides(), &self.forward.k_phi, &self.scratch[7])
            }
        };
        // Where dk takes a sum over keys, products are left for it.
        let (strides, to) = match (by, &self.plan.inner.softmax) {
            (By::Keys, Some(_)) => (None, whole(&self.scratch[8])),
            _ => (Some(strides), gradient.clone()),
        };
        let groups = Rows::of_groups(heads, len, plan.features().div_ceil(4));
        let features = if by == By::Values { shape.value_dim } else { plan.features() };
        let root = (shape.head_dim as f64).sqrt();
        let projected = by != By::Values && plan.options.map.source().is_some();
        let tiles = len.div_ceil(FeatureVariant::ROWS);
        let kernel = LinearFeatureParams {
            tiles: tiles as u32,
            heads: heads as u32,
            len: len as u32,
            features: features as u32,
            scale: if projected { root.sqrt().recip() as f32 } else { 1.0 },
            half_scale: root.recip() as f32,
            feature_eps: plan.options.map.eps(),
            ..Default::default()
        };
        let params = Params::default()
            .with("kernel", kernel)
            .with("out", strides.map_or(groups, Rows::from))
            .with("x", Rows::from(x_strides));
        let projection =
            plan.inner.projection.as_ref().map(whole).or_else(|| self.buffers.projection.clone());
        let bindings = Bindings::default()
            .with("dphi", whole(sums))
            .with("phi", whole(phi))
            .with("x", x.clone())
            .with("out", to)
            .with_some("projection", projection)
            .with_some("weights", self.forward.weights.as_ref().map(whole));
        let items = shape.batch as u128 * heads as u128 * tiles as u128;
        let flops = (2 * FeatureVariant::ROWS * features * shape.head_dim) as f64;
        let work = plan.kernels.work("gradients of features", items, flops)?;
        Step::new(plan.kernels.device(), &self.plan.inner.back[by as usize], &params, work, &bindings)
    }
}
