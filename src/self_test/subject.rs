//! A call with tensors of its own, on the device, and what the reference says of a plan's result.

use std::marker::PhantomData;

use crate::pattern::Pattern;
use crate::reference::{self, Got, Kind, Position, Rows, Tensors, VerifyOptions, WeightFormat};
use crate::{Attention, AttentionBuffers, AttentionPlan, Call, Element, Gpu, Parts, Result};

/// Rows that are compared.
pub(super) const ROWS: usize = 16;

/// A call over random tensors.
pub(crate) struct Subject<'a, Q, KV, O> {
    pub(super) gpu: &'a Gpu,
    pub(super) attention: &'a Attention,
    pub(super) pattern: &'a dyn Pattern,
    pub(super) parts: &'a Parts,
    pub(super) tensors: Tensors<Q, KV>,
    /// q, k, v.
    pub(super) buffers: [wgpu::Buffer; 3],
    pub(super) terms: Vec<(&'static str, wgpu::Buffer)>,
    output: PhantomData<O>,
}

impl<'a, Q: Element, KV: Element, O: Element> Subject<'a, Q, KV, O> {
    /// Draws and uploads the tensors. The parts hold the pairs of the pattern.
    pub(crate) fn new(
        gpu: &'a Gpu,
        attention: &'a Attention,
        pattern: &'a dyn Pattern,
        parts: &'a Parts,
        kind: Kind,
    ) -> Result<Self> {
        let tensors = reference::random::<Q, KV>(attention, kind, 1)?;
        let buffers = [
            gpu.upload("q", &tensors.q, attention.len_q())?,
            gpu.upload("k", &tensors.k, attention.len_k())?,
            gpu.upload("v", &tensors.v, attention.len_v())?,
        ];
        let terms = tensors.terms.iter();
        let terms = terms.map(|(name, values)| Ok((*name, gpu.upload(name, values, values.len())?)));
        let terms = terms.collect::<Result<_>>()?;
        Ok(Self { gpu, attention, pattern, parts, tensors, buffers, terms, output: PhantomData })
    }

    /// The buffers of a call into `out`.
    pub(super) fn forward<'b>(&'b self, out: &'b wgpu::Buffer) -> AttentionBuffers<'b> {
        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let [q, k, v] = self.buffers.each_ref().map(whole);
        let buffers = AttentionBuffers::new(q, k, v, whole(out));
        self.terms.iter().fold(buffers, |buffers, (name, tensor)| buffers.tensor(name, whole(tensor)))
    }

    /// Runs a plan of this call. Gives it bound, to be timed, and what is wrong with its result, if anything is.
    pub(crate) async fn judge(&self, plan: &AttentionPlan) -> Result<(Call, Option<String>)> {
        // A new one for each: what an earlier plan wrote must not pass for this one's.
        let out = self.gpu.output("out", self.attention.len_out(), O::TYPE)?;
        let call = plan.bind(self.forward(&out))?;
        let fetched = self.gpu.fetch(&[&out], |encoder| call.encode(encoder)).await?;
        let got: Vec<O> = fetched.take(0, self.attention.len_out())?;
        let order = |at: Position| self.parts.key_order(at.batch, at.head, at.i);
        let tiles = |at: Position| self.parts.key_tiles(at.batch, at.head, at.i);
        let verify = VerifyOptions {
            rows: Rows::Sample { count: ROWS, seed: 1 },
            order: Some(&order),
            tiles: Some(&tiles),
            weights: WeightFormat::of(plan.path().path),
            ..Default::default()
        };
        let got = Got { out: &got, lse: None };
        let report = reference::verify(self.attention, &self.tensors.inputs(), self.pattern, got, verify)?;
        Ok((call, (!report.pass).then(|| report.to_string())))
    }
}
