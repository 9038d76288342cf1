//! Gradients of a rank's rows.

use crate::attention::{DistributedAttention, Forward, Held, Ring};
use crate::error::Result;
use crate::exchange::Exchange;
use crate::rows;
use crate::session::{Due, HEADER_BYTES, Outgoing, content};
use crate::traffic::Pass;
use std::ops::Range;
use wgpu_attention::ranks::target;
use wgpu_attention::{AttentionGradients, AttentionShape, Element, Error, Inputs};

/// What [`DistributedAttention::backward`] gives: this rank's rows.
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

    fn add_queries(&mut self, dq: &[f32]) {
        self.dq.iter_mut().zip(dq).for_each(|(sum, x)| *sum += f64::from(*x));
    }

    /// Adds the gradients of some of the rank's keys.
    fn add_keys(&mut self, places: &[Range<usize>], dk: &[f32], dv: &[f32]) {
        let AttentionShape { kv_len, head_dim, value_dim, .. } = self.shape;
        rows::add(&mut self.dk, kv_len, head_dim, places, dk);
        rows::add(&mut self.dv, kv_len, value_dim, places, dv);
    }
}

impl<X: Exchange> DistributedAttention<X> {
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
            let mut sums = Sums::new(shape);
            let mut held = ring.held(rank, [k, v]);
            let mut back = None;
            for step in 0..=ring.steps.len() {
                let (mut sends, mut due) = ring.round(rank, step + 1, [k, v]);
                let keys_due = due.len();
                let returning = back_due(&ring, rank, step);
                sends.extend(back.take());
                due.extend(returning);
                session.start(sends, due)?;
                let planned = ring.steps.get(step).and_then(Option::as_ref);
                if let (Some(planned), Held::Rows([k, v])) = (planned, &held) {
                    let (inputs, rows) = (Inputs::new(q, k, v), (&forward.out[..], &forward.state[..]));
                    let part: AttentionGradients<f32> =
                        gpu.run_backward_plan(planned.backward()?, &inputs, rows, dout)?;
                    sums.add_queries(&part.dq);
                    match step {
                        0 => sums.add_keys(&ring.own_places(rank), &part.dk, &part.dv),
                        _ => back = Some(message(step, planned.from, &part)),
                    }
                }
                let messages = session.finish()?;
                if let (Some(due), Some(message)) = (returning, messages.get(keys_due)) {
                    let places = &ring.wanted[due.from];
                    let keys = ring.attention.shape.kv_len(places.iter().map(Range::len).sum());
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
    let from = target(rank, step, ring.steps.len());
    let keys: usize = ring.wanted[from].iter().map(Range::len).sum();
    (keys > 0).then(|| Due { pass: Pass::Gradients, step, from, bytes: ring.keys_bytes(keys, 4) })
}
