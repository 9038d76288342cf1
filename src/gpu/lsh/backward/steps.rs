//! The dispatches of a bound call: places, records, the passes round by round, the join.

use super::{LshBackwardPlan, LshGradBuffers, Pass, groups, record_bytes};
use crate::gpu::attention::Merge;
use crate::gpu::bindings::{Bindings, scratch};
use crate::gpu::call::{Call, Stage};
use crate::gpu::lsh::places::{Places, Sources};
use crate::gpu::params::{LshJoinParams, Params, RecordParams};
use crate::gpu::pipeline::{Pipeline, Step, Work};
use crate::uniform::Rows;
use crate::wgsl::{JoinVariant, RecordVariant};
use crate::{ElementType, Result};

pub(super) const LABEL: &str = "LSH attention backward";

/// Sums in f32, of groups of 4 elements of each position.
struct Sums {
    as_query: Option<wgpu::Buffer>,
    as_key: Option<wgpu::Buffer>,
    /// Where dv itself cannot hold them.
    values: Option<wgpu::Buffer>,
}

impl LshBackwardPlan {
    /// The call of buffers that have been checked.
    pub(super) fn call(&self, buffers: &LshGradBuffers<'_>) -> Result<Call> {
        let device = self.forward.kernels.device();
        let sources = Sources {
            qk: buffers.qk.clone(),
            projections: buffers.projections.clone(),
            key_mask: buffers.key_mask.clone(),
            buckets: None,
            order: None,
        };
        let places = Places::new(&self.forward, sources)?;
        let records = scratch(device, "records of the queries", record_bytes(self.attention()))?;
        let sums = self.sums(buffers)?;
        let mut steps = places.steps()?;
        steps.push((Stage::Prepare, self.record_step(buffers, &places, &records)?));
        let bindings = self.bindings(buffers, &places, &records, &sums);
        for pass in self.passes(buffers.dqk.is_some(), buffers.dv.is_some()) {
            steps.extend(self.rounds(pass, &bindings)?.into_iter().map(|step| (Stage::Main, step)));
        }
        if let (Some(dqk), Some(as_query), Some(as_key)) = (&buffers.dqk, &sums.as_query, &sums.as_key) {
            let bindings = Bindings::default()
                .with("q", buffers.qk.clone())
                .with("norms", places.norms())
                .with("as_query", as_query.as_entire_buffer_binding())
                .with("as_key", as_key.as_entire_buffer_binding())
                .with("dqk", dqk.clone());
            steps.push((Stage::Merge, self.join(&bindings)?));
        }
        if let (Some(dv), Some(values), Some(narrow)) = (&buffers.dv, &sums.values, &self.inner.narrow) {
            let values = values.as_entire_buffer_binding();
            steps.push((Stage::Merge, self.narrow(narrow, buffers, values, dv.clone())?));
        }
        Ok(Call::new(LABEL, steps))
    }

    fn sums(&self, buffers: &LshGradBuffers<'_>) -> Result<Sums> {
        let (device, shape) = (self.forward.kernels.device(), &self.attention().shape);
        let sums = |wanted: bool, what, dim| {
            let bytes = (16 * shape.len_lse() * groups(dim)) as u64;
            wanted.then(|| scratch(device, what, bytes)).transpose()
        };
        let narrow = buffers.dv.is_some() && self.inner.narrow.is_some();
        Ok(Sums {
            as_query: sums(buffers.dqk.is_some(), "gradients of queries", shape.head_dim)?,
            as_key: sums(buffers.dqk.is_some(), "gradients of keys", shape.head_dim)?,
            values: sums(narrow, "gradients of values", shape.value_dim)?,
        })
    }

    fn record_step(
        &self,
        buffers: &LshGradBuffers<'_>,
        places: &Places<'_>,
        records: &wgpu::Buffer,
    ) -> Result<Step> {
        let attention = self.attention();
        let shape = &attention.shape;
        let kernel = RecordParams {
            rows: shape.len_lse() as u32,
            heads: shape.heads as u32,
            q_len: shape.q_len as u32,
            behind: shape.len_lse() as u32,
            computed: shape.len_lse() as u32,
            ..Default::default()
        };
        let [.., dout] = self.gradients().strides(shape);
        let params = Params::default()
            .with("kernel", kernel)
            .with("out", Rows::from(attention.out_strides()))
            .with("dout", Rows::from(dout));
        let lanes = record_bytes(attention) as usize / 16;
        let items = lanes.div_ceil(RecordVariant::LANES) as u32;
        let bindings = Bindings::default()
            .with("state", buffers.state.clone())
            .with("o", buffers.out.clone())
            .with("dout", buffers.dout.clone())
            .with("norms", places.norms())
            .with("records", records.as_entire_buffer_binding());
        let device = self.forward.kernels.device();
        Step::new(device, &self.inner.records, &params, Work { items, per_dispatch: items }, &bindings)
    }

    /// What the passes read and write.
    fn bindings<'a>(
        &'a self,
        buffers: &LshGradBuffers<'a>,
        places: &'a Places<'_>,
        records: &'a wgpu::Buffer,
        sums: &'a Sums,
    ) -> Bindings<'a> {
        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let bindings = Bindings::default()
            .with("q", buffers.qk.clone())
            .with("v", buffers.v.clone())
            .with("dout", buffers.dout.clone())
            .with("records", whole(records))
            .with("places", places.tables())
            .with_some("dq", sums.as_query.as_ref().map(whole))
            .with_some("dk", sums.as_key.as_ref().map(whole))
            .with_some("dv", sums.values.as_ref().map(whole).or_else(|| buffers.dv.clone()));
        self.forward.inner.terms.bound(bindings, &buffers.tensors)
    }

    fn rounds(&self, pass: &Pass, bindings: &Bindings<'_>) -> Result<Vec<Step>> {
        let [first, later] = pass.compiled(&self.forward)?;
        let step = |round| {
            let (params, work) = pass.round(&self.forward, self.gradients(), round)?;
            let pipeline = if round == 0 { first } else { later };
            Step::new(self.forward.kernels.device(), pipeline, &params, work, bindings)
        };
        (0..self.forward.options.rounds).map(step).collect()
    }

    fn join(&self, bindings: &Bindings<'_>) -> Result<Step> {
        let attention = self.attention();
        let shape = &attention.shape;
        let kernel = LshJoinParams {
            rows: shape.len_lse() as u32,
            heads: shape.heads as u32,
            len: shape.q_len as u32,
            ..Default::default()
        };
        let [dqk, ..] = self.gradients().strides(shape);
        let params = Params::default()
            .with("kernel", kernel)
            .with("q", Rows::from(attention.q_strides()))
            .with("dqk", Rows::from(dqk));
        let items = shape.len_lse().div_ceil(JoinVariant::ROWS) as u32;
        let work = Work { items, per_dispatch: items };
        Step::new(self.forward.kernels.device(), &self.inner.join, &params, work, bindings)
    }

    /// Brings dv to 16 bits, from its sums.
    fn narrow(
        &self,
        pipeline: &Pipeline,
        buffers: &LshGradBuffers<'_>,
        sums: wgpu::BufferBinding<'_>,
        dv: wgpu::BufferBinding<'_>,
    ) -> Result<Step> {
        debug_assert!(self.gradients().dkv != ElementType::F32, "what f32 holds stays where it is");
        let [_, _, strides, _] = self.gradients().strides(&self.attention().shape);
        let state = buffers.state.clone();
        let merge = Merge { state, merged: Some(sums), out: dv, total: None, lse: None, heads: None };
        merge.step_to(self.forward.kernels.device(), pipeline, self.attention(), 1, strides)
    }
}
