//! Attention of a rank's rows.

use crate::attention::DistributedAttention;
use crate::common::{Given, Rows, collect};
use crate::error::Result;
use crate::exchange::Exchange;
use crate::merge::Merged;
use crate::ring::{Held, Ring};
use crate::rows;
use crate::session::Session;
use crate::steps::Step;
use crate::traffic::Pass;
use std::ops::Range;
use wgpu_attention::ranks::stretches::count;
use wgpu_attention::{AttentionOutput, AttentionShape, Element, Gpu, Inputs, Outputs};

/// What [`DistributedAttention::forward`] returns: this rank's rows.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Forward {
    /// out `[B, H, rows, dv]`.
    pub out: Vec<f32>,
    /// The state (m, l) `[B, H, rows, 2]`: see [`AttentionBuffers::state`](wgpu_attention::AttentionBuffers::state).
    pub state: Vec<f32>,
    /// lse `[B, H, rows]`; `f32::MIN` for a row without a key.
    pub lse: Vec<f32>,
}

impl<X: Exchange + Send> DistributedAttention<X> {
    /// Attention of this rank's queries to all keys. All ranks have to call it.
    ///
    /// # Errors
    /// [`Error::Attention`](crate::Error::Attention) for a slice of the wrong length or type, before any message, and for what the device refuses;
    /// [`Error::Silent`](crate::Error::Silent) where nothing comes within [`Plan::limit`](crate::Plan::limit); [`Error::Gone`](crate::Error::Gone), [`Error::Message`](crate::Error::Message), [`Error::Broken`](crate::Error::Broken) and
    /// [`Error::Failed`](crate::Error::Failed) as they say. An error on this rank is one on every rank that needs its keys, after their time limit.
    pub fn forward<Q: Element, KV: Element>(&mut self, q: &[Q], k: &[KV], v: &[KV]) -> Result<Forward> {
        self.check(q, k, v)?;
        let (session, gpu, ring) = self.ring(Pass::Forward);
        session.call("forward", |session| {
            let own = ring.own(session.rank());
            let mut merged = Merged::new(own.len_lse(), own.value_dim, ring.base_2());
            let mut held = match ring.routes.shares() {
                true => shared(session, gpu, &ring, [k, v], q, &mut merged)?,
                false => ring.held(session.rank(), [k, v]),
            };
            for step in usize::from(ring.routes.shares())..ring.ranks() {
                let (sends, due) = ring.round(session.rank(), step + 1, [k, v]);
                session.start(sends, due)?;
                let planned = if step == 0 { &ring.steps.own[0] } else { &ring.steps.ring[step] };
                if let (Some(step), Held::Rows([k, v])) = (planned, &held) {
                    attend(gpu, step, own, q, [k, v], &mut merged)?;
                }
                held = ring.arrived(step + 1, &session.finish()?);
            }
            let (out, state, lse) = merged.finish();
            Ok(Forward { out, state, lse })
        })
    }
}

/// A step of a rank's own queries.
fn attend<Q: Element, KV: Element>(
    gpu: &Gpu,
    step: &Step,
    own: AttentionShape,
    q: &[Q],
    [k, v]: [&[KV]; 2],
    merged: &mut Merged,
) -> Result<()> {
    let chosen = rows::chosen(q, own.q_len, own.head_dim, &step.queries);
    let part = run(gpu, step, &chosen, [k, v])?;
    merged.add(own.q_len, &step.queries, &part.out, &part.state.unwrap_or_default());
    Ok(())
}

fn run<Q: Element, KV: Element>(
    gpu: &Gpu,
    step: &Step,
    q: &[Q],
    [k, v]: [&[KV]; 2],
) -> Result<AttentionOutput<f32>> {
    Ok(gpu.run_plan(&step.plan, &Inputs::new(q, k, v), Outputs::default().state())?)
}

/// The first step where rows travel to all ranks: half of it while they do, half while their results come back. Returns the keys of the next.
fn shared<X: Exchange + Send, Q: Element, KV: Element>(
    session: &mut Session<X>,
    gpu: &Gpu,
    ring: &Ring<'_>,
    [k, v]: [&[KV]; 2],
    q: &[Q],
    merged: &mut Merged,
) -> Result<Held<KV>> {
    let (rank, [first, second]) = (session.rank(), &ring.steps.own);
    let (own, routes, held) = (ring.own(rank), ring.routes, ring.held(rank, [k, v]));
    let half = |step: &Option<Step>, merged: &mut Merged| match (step, &held) {
        (Some(step), Held::Rows([k, v])) => attend(gpu, step, own, q, [k, v], merged),
        _ => Ok(()),
    };
    let packed = ring.pack(rank, q, [k, v], None);
    let messages = |session: &mut Session<X>| ring.give(session, packed, [k, v]);
    let ((came, next), ()) = session.beside(messages, || half(first, merged))?;
    let given: Given<Q, KV> = ring.unpack(&came);
    let shape = ring.attention.shape.q_len(routes.queries.len());
    let mut results = Merged::new(shape.len_lse(), shape.value_dim, ring.base_2());
    if let Some(step) = &ring.steps.asked {
        let part = run(gpu, step, &given.q, [k, v])?;
        results.add(shape.q_len, &step.queries, &part.out, &part.state.unwrap_or_default());
    }
    if let Some(step) = &ring.steps.given {
        attend(gpu, step, own, q, [&given.k, &given.v], merged)?;
    }
    let mut results = Results { merged: results, shape, of: &routes.queries.of };
    let messages = |session: &mut Session<X>| collect(session, &mut results);
    session.beside(messages, || half(second, merged))?;
    let [out, state] = results.merged.rounded(shape.q_len, &routes.queries.of[rank]);
    merged.add(own.q_len, &routes.queries.own, &out, &state);
    Ok(next)
}

/// States of the queries that all ranks got.
struct Results<'a> {
    merged: Merged,
    shape: AttentionShape,
    of: &'a [Vec<Range<usize>>],
}

impl Results<'_> {
    fn lens(&self, owner: usize) -> [usize; 2] {
        let shape = self.shape.q_len(count(&self.of[owner]));
        [shape.len_out(), 2 * shape.len_lse()]
    }
}

impl Rows for Results<'_> {
    fn bytes(&self, owner: usize) -> usize {
        4 * self.lens(owner).iter().sum::<usize>()
    }

    fn write(&self, owner: usize, bytes: &mut Vec<u8>) {
        let parts = self.merged.rounded(self.shape.q_len, &self.of[owner]);
        parts.iter().for_each(|part| bytes.extend_from_slice(bytemuck::cast_slice(part)));
    }

    fn add(&mut self, owner: usize, bytes: &mut &[u8]) {
        let [out, state] = self.lens(owner).map(|len| rows::read(bytes, len));
        self.merged.add(self.shape.q_len, &self.of[owner], &out, &state);
    }
}
