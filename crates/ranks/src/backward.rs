//! Gradients of a rank's rows.

use crate::attention::DistributedAttention;
use crate::common::{Given, Rows, collect};
use crate::error::Result;
use crate::exchange::Exchange;
use crate::forward::Forward;
use crate::ring::{Held, Ring};
use crate::routes::Routes;
use crate::rows;
use crate::session::{Due, HEADER_BYTES, Outgoing, Session, content};
use crate::steps::Step;
use crate::traffic::Pass;
use std::ops::Range;
use wgpu_attention::ranks::{stretches::count, target};
use wgpu_attention::{AttentionGradients, AttentionShape, Element, Error, Gpu, Inputs};

/// What [`DistributedAttention::backward`] returns: this rank's rows.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DistributedGradients {
    /// dq `[B, H, rows, d]`.
    pub dq: Vec<f32>,
    /// dk `[B, Hkv, rows, d]`.
    pub dk: Vec<f32>,
    /// dv `[B, Hkv, rows, dv]`.
    pub dv: Vec<f32>,
}

/// Sums in f64, each rounded once.
struct Sums {
    dq: Vec<f64>,
    dk: Vec<f64>,
    dv: Vec<f64>,
    shape: AttentionShape,
}

impl Sums {
    fn new(shape: AttentionShape) -> Self {
        let [dq, dk, dv] = [shape.len_q(), shape.len_k(), shape.len_v()].map(|len| vec![0.0; len]);
        Self { dq, dk, dv, shape }
    }

    /// Adds the gradients of some of the rank's queries.
    fn add_queries(&mut self, places: &[Range<usize>], dq: &[f32]) {
        rows::add(&mut self.dq, self.shape.q_len, self.shape.head_dim, places, dq);
    }

    /// Adds the gradients of some of the rank's keys.
    fn add_keys(&mut self, places: &[Range<usize>], dk: &[f32], dv: &[f32]) {
        let AttentionShape { kv_len, head_dim, value_dim, .. } = self.shape;
        rows::add(&mut self.dk, kv_len, head_dim, places, dk);
        rows::add(&mut self.dv, kv_len, value_dim, places, dv);
    }
}

impl<X: Exchange + Send> DistributedAttention<X> {
    /// The gradients of sum(dout out) over all ranks, of this rank's rows, by what [`forward`](Self::forward) gave of the same q, k, v. Keys
    /// travel again; the gradients of a step's keys go back while the next one runs. All ranks have to call it.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward<Q: Element, KV: Element>(
        &mut self,
        q: &[Q],
        k: &[KV],
        v: &[KV],
        forward: &Forward,
        dout: &[f32],
    ) -> Result<DistributedGradients> {
        self.check(q, k, v)?;
        let shape = self.own_shape();
        let lengths = [
            ("out", forward.out.len(), shape.len_out()),
            ("state", forward.state.len(), 2 * shape.len_lse()),
            ("dout", dout.len(), shape.len_out()),
        ];
        for (name, got, need) in lengths {
            if got != need {
                return Err(
                    Error::argument(name, format!("{need} elements"), format!("{got} elements")).into()
                );
            }
        }
        let (session, gpu, ring) = self.ring(Pass::Backward);
        session.call("backward", |session| {
            let rank = session.rank();
            let own = Own { gpu, ring, q, shape, rows: [&forward.out[..], &forward.state, dout] };
            let mut sums = Sums::new(shape);
            let mut held = match ring.routes.shares() {
                true => own.shared(session, [k, v], &mut sums)?,
                false => ring.held(rank, [k, v]),
            };
            let mut back = None;
            for step in usize::from(ring.routes.shares())..=ring.ranks() {
                let (mut sends, mut due) = ring.round(rank, step + 1, [k, v]);
                let keys_due = due.len();
                let returning = back_due(&ring, rank, step);
                sends.extend(back.take());
                due.extend(returning);
                session.start(sends, due)?;
                let planned = if step == 0 {
                    ring.steps.own[0].as_ref()
                } else {
                    ring.steps.ring.get(step).and_then(Option::as_ref)
                };
                if let (Some(planned), Held::Rows([k, v])) = (planned, &held) {
                    let part = own.step(planned, [k, v], &mut sums)?;
                    match step {
                        0 => sums.add_keys(&ring.own_places(rank), &part.dk, &part.dv),
                        _ => back = Some(message(step, planned.from, &part)),
                    }
                }
                let messages = session.finish()?;
                if let (Some(due), Some(message)) = (returning, messages.get(keys_due)) {
                    let places = &ring.routes.wanted[due.from];
                    let keys = ring.attention.shape.kv_len(count(places));
                    let values: Vec<f32> = bytemuck::pod_collect_to_vec(&message[HEADER_BYTES..]);
                    let (dk, dv) = values.split_at(keys.len_k());
                    sums.add_keys(places, dk, dv);
                }
                held = ring.arrived(step + 1, &messages[..keys_due]);
            }
            let [dq, dk, dv] =
                [sums.dq, sums.dk, sums.dv].map(|sums| sums.into_iter().map(|x| x as f32).collect());
            Ok(DistributedGradients { dq, dk, dv })
        })
    }
}

/// This rank's queries, and what belongs to them.
struct Own<'a, Q> {
    gpu: &'a Gpu,
    ring: Ring<'a>,
    q: &'a [Q],
    shape: AttentionShape,
    /// out, the state, dout.
    rows: [&'a [f32]; 3],
}

impl<Q: Element> Own<'_, Q> {
    /// A step of its queries: dq is added, dk and dv are returned.
    fn step<KV: Element>(
        &self,
        step: &Step,
        [k, v]: [&[KV]; 2],
        sums: &mut Sums,
    ) -> Result<AttentionGradients<f32>> {
        let AttentionShape { q_len, head_dim, value_dim, .. } = self.shape;
        let chosen = |x, dim| rows::chosen(x, q_len, dim, &step.queries);
        let [out, state, dout] = self.rows;
        let (out, state, dout) = (chosen(out, value_dim), chosen(state, 2), chosen(dout, value_dim));
        let q = rows::chosen(self.q, q_len, head_dim, &step.queries);
        let part = gradients(self.gpu, step, &Inputs::new(&q, k, v), [&out, &state, &dout])?;
        sums.add_queries(&step.queries, &part.dq);
        Ok(part)
    }

    /// The first step where rows travel to all ranks: half of it while they do, half while their gradients come back. Returns the keys of
    /// the next.
    fn shared<X: Exchange + Send, KV: Element>(
        &self,
        session: &mut Session<X>,
        [k, v]: [&[KV]; 2],
        sums: &mut Sums,
    ) -> Result<Held<KV>> {
        let (rank, ring) = (session.rank(), self.ring);
        let ([first, second], held) = (&ring.steps.own, ring.held(rank, [k, v]));
        let half = |step: &Option<Step>, sums: &mut Sums| -> Result<()> {
            if let (Some(step), Held::Rows([k, v])) = (step, &held) {
                let part = self.step(step, [k, v], sums)?;
                sums.add_keys(&ring.own_places(rank), &part.dk, &part.dv);
            }
            Ok(())
        };
        let packed = ring.pack(rank, self.q, [k, v], Some(self.rows));
        let messages = |session: &mut Session<X>| ring.give(session, packed, [k, v]);
        let ((came, next), ()) = session.beside(messages, || half(first, sums))?;
        let given: Given<Q, KV> = ring.unpack(&came);
        let (routes, shape) = (ring.routes, ring.attention.shape);
        let common = shape.q_len(routes.queries.len()).kv_len(routes.keys.len());
        let mut results = Results { sums: Sums::new(common), routes };
        if let Some(step) = &ring.steps.asked {
            let rows = [&given.out[..], &given.state, &given.dout];
            let part = gradients(self.gpu, step, &Inputs::new(&given.q, k, v), rows)?;
            results.sums.add_queries(&step.queries, &part.dq);
            sums.add_keys(std::slice::from_ref(&(0..self.shape.kv_len)), &part.dk, &part.dv);
        }
        if let Some(step) = &ring.steps.given {
            let part = self.step(step, [&given.k, &given.v], sums)?;
            results.sums.add_keys(std::slice::from_ref(&(0..common.kv_len)), &part.dk, &part.dv);
        }
        let messages = |session: &mut Session<X>| collect(session, &mut results);
        session.beside(messages, || half(second, sums))?;
        results.own(rank, sums);
        Ok(next)
    }
}

fn gradients<Q: Element, KV: Element>(
    gpu: &Gpu,
    step: &Step,
    inputs: &Inputs<'_, Q, KV>,
    [out, state, dout]: [&[f32]; 3],
) -> Result<AttentionGradients<f32>> {
    Ok(gpu.run_backward_plan(step.backward()?, inputs, (out, state), dout)?)
}

/// Gradients of the rows that all ranks got.
struct Results<'a> {
    sums: Sums,
    routes: &'a Routes,
}

/// Sums, their rows per head, the elements of a row, and which rows of them.
type Part<'a> = (&'a [f64], usize, usize, &'a [Range<usize>]);

impl Results<'_> {
    /// The sums and places of an owner's dq, dk and dv.
    fn parts(&self, owner: usize) -> [Part<'_>; 3] {
        let AttentionShape { q_len, kv_len, head_dim, value_dim, .. } = self.sums.shape;
        let (queries, keys) = (&self.routes.queries.of[owner][..], &self.routes.keys.of[owner][..]);
        [
            (&self.sums.dq, q_len, head_dim, queries),
            (&self.sums.dk, kv_len, head_dim, keys),
            (&self.sums.dv, kv_len, value_dim, keys),
        ]
    }

    fn lens(&self, owner: usize) -> [usize; 3] {
        let Routes { queries, keys, .. } = self.routes;
        let shape = self.sums.shape.q_len(queries.count(owner)).kv_len(keys.count(owner));
        [shape.len_q(), shape.len_k(), shape.len_v()]
    }

    /// Adds what is this rank's own to its gradients.
    fn own(&self, rank: usize, to: &mut Sums) {
        let mut bytes = vec![];
        self.write(rank, &mut bytes);
        let mut left = &bytes[..];
        let [dq, dk, dv] = self.lens(rank).map(|len| rows::read(&mut left, len));
        to.add_queries(&self.routes.queries.own, &dq);
        to.add_keys(&self.routes.keys.own, &dk, &dv);
    }
}

impl Rows for Results<'_> {
    fn bytes(&self, owner: usize) -> usize {
        4 * self.lens(owner).iter().sum::<usize>()
    }

    fn write(&self, owner: usize, bytes: &mut Vec<u8>) {
        for (sums, len, dim, places) in self.parts(owner) {
            rows::append_rounded(bytes, sums, len, dim, places);
        }
    }

    fn add(&mut self, owner: usize, bytes: &mut &[u8]) {
        let [dq, dk, dv] = self.lens(owner).map(|len| rows::read(bytes, len));
        self.sums.add_queries(&self.routes.queries.of[owner], &dq);
        self.sums.add_keys(&self.routes.keys.of[owner], &dk, &dv);
    }
}

/// The gradients of a step's keys, for their owner.
fn message(step: usize, to: usize, part: &AttentionGradients<f32>) -> Outgoing {
    let mut bytes = content(4 * (part.dk.len() + part.dv.len()));
    bytes.extend_from_slice(bytemuck::cast_slice(&part.dk));
    bytes.extend_from_slice(bytemuck::cast_slice(&part.dv));
    Outgoing { pass: Pass::Gradients, step, to, bytes }
}

/// What comes back in a round: of the keys that another rank worked on in the step before.
fn back_due(ring: &Ring<'_>, rank: usize, round: usize) -> Option<Due> {
    let step = round.checked_sub(1).filter(|&step| step > 0)?;
    let from = target(rank, step, ring.ranks());
    let keys = count(&ring.routes.wanted[from]);
    (keys > 0).then(|| Due { pass: Pass::Gradients, step, from, bytes: ring.keys_bytes(keys, 4) })
}
