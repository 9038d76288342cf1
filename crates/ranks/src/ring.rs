//! Messages of a pass: what a rank sends and gets in each step, and what it gives to all.

use crate::common::{Given, spread};
use crate::error::Result;
use crate::exchange::Exchange;
use crate::plan::Plan;
use crate::routes::Routes;
use crate::rows;
use crate::session::{Due, HEADER_BYTES, Outgoing, Session, content};
use crate::steps::Steps;
use crate::traffic::Pass;
use std::ops::Range;
use wgpu_attention::ranks::{source, stretches, target};
use wgpu_attention::{Attention, AttentionShape, Element};

/// Keys and values that the next step works on.
pub(crate) enum Held<KV> {
    None,
    Rows([Vec<KV>; 2]),
}

/// What a pass goes by.
#[derive(Clone, Copy)]
pub(crate) struct Ring<'a> {
    pub(crate) attention: &'a Attention,
    pub(crate) plan: &'a Plan,
    pub(crate) routes: &'a Routes,
    pub(crate) steps: &'a Steps,
    pub(crate) pass: Pass,
}

impl Ring<'_> {
    pub(crate) fn ranks(&self) -> usize {
        self.steps.ring.len()
    }

    /// Whether the states' m is in units of ln 2.
    pub(crate) fn base_2(&self) -> bool {
        self.attention.score.is_plain()
    }

    /// The sizes of a rank's slices.
    pub(crate) fn own(&self, rank: usize) -> AttentionShape {
        self.attention.shape.q_len(self.plan.queries.count(rank)).kv_len(self.plan.keys.count(rank))
    }

    /// Those of a rank's own keys that it needs, as places.
    pub(crate) fn own_places(&self, rank: usize) -> Vec<Range<usize>> {
        stretches::places(self.plan.keys.rows(rank), self.routes.needs.from(rank))
    }

    /// The keys and values of the first step.
    pub(crate) fn held<KV: Element>(&self, rank: usize, [k, v]: [&[KV]; 2]) -> Held<KV> {
        let (shape, rows) = (self.own(rank), self.own_places(rank));
        let take = |x: &[KV], dim| rows::take(x, shape.kv_len, dim, &rows);
        Held::Rows([take(k, shape.head_dim), take(v, shape.value_dim)])
    }

    /// The messages with keys and values of a step.
    pub(crate) fn round<KV: Element>(
        &self,
        rank: usize,
        step: usize,
        [k, v]: [&[KV]; 2],
    ) -> (Vec<Outgoing>, Vec<Due>) {
        let ranks = self.ranks();
        if step >= ranks {
            return (vec![], vec![]);
        }
        let (shape, to, pass) = (self.own(rank), target(rank, step, ranks), self.pass);
        let rows = &self.routes.wanted[to];
        let send = (!rows.is_empty()).then(|| {
            let mut bytes = content(self.keys_bytes(rows.iter().map(Range::len).sum(), size_of::<KV>()));
            rows::append(&mut bytes, k, shape.kv_len, shape.head_dim, rows);
            rows::append(&mut bytes, v, shape.kv_len, shape.value_dim, rows);
            Outgoing { pass, step, to, bytes }
        });
        let due = self.steps.ring[step].as_ref().map(|planned| {
            debug_assert_eq!(planned.from, source(rank, step, ranks));
            Due { pass, step, from: planned.from, bytes: self.keys_bytes(planned.keys, size_of::<KV>()) }
        });
        (send.into_iter().collect(), due.into_iter().collect())
    }

    /// The keys and values of a step, if they are what came first.
    pub(crate) fn arrived<KV: Element>(&self, step: usize, messages: &[Vec<u8>]) -> Held<KV> {
        let planned = self.steps.ring.get(step).and_then(Option::as_ref);
        let (Some(planned), Some(message)) = (planned, messages.first()) else { return Held::None };
        let shape = self.attention.shape.kv_len(planned.keys);
        let (k, v) = message[HEADER_BYTES..].split_at(shape.len_k() * size_of::<KV>());
        Held::Rows([k, v].map(bytemuck::pod_collect_to_vec))
    }

    /// Bytes of so many keys and values, or of their gradients.
    pub(crate) fn keys_bytes(&self, keys: usize, element: usize) -> usize {
        let shape = self.attention.shape.kv_len(keys);
        (shape.len_k() + shape.len_v()) * element
    }

    /// Bytes that an owner gives to all ranks: its common queries, and what belongs to them in the backward pass, then its common keys.
    pub(crate) fn there(&self, owner: usize) -> usize {
        let Self { attention: Attention { shape, storage, .. }, routes, .. } = self;
        let queries = shape.q_len(routes.queries.count(owner));
        let records = match self.pass {
            Pass::Backward => 4 * (2 * queries.len_out() + 2 * queries.len_lse()),
            _ => 0,
        };
        queries.len_q() * storage.q.size_bytes()
            + records
            + self.keys_bytes(routes.keys.count(owner), storage.kv.size_bytes())
    }

    /// Gives to all ranks what was packed, and to the next one the keys of the first step; what came of both.
    pub(crate) fn give<KV: Element, X: Exchange>(
        &self,
        session: &mut Session<X>,
        packed: Vec<u8>,
        keys: [&[KV]; 2],
    ) -> Result<(Vec<Vec<u8>>, Held<KV>)> {
        let there: Vec<usize> = (0..session.size()).map(|owner| self.there(owner)).collect();
        let came = spread(session, packed, &there)?;
        let (sends, due) = self.round(session.rank(), 1, keys);
        session.start(sends, due)?;
        Ok((came, self.arrived(1, &session.finish()?)))
    }

    /// What this rank gives to all; `records`: out, the state and dout of its rows, in the backward pass.
    pub(crate) fn pack<Q: Element, KV: Element>(
        &self,
        rank: usize,
        q: &[Q],
        [k, v]: [&[KV]; 2],
        records: Option<[&[f32]; 3]>,
    ) -> Vec<u8> {
        let (shape, mut bytes) = (self.own(rank), Vec::with_capacity(self.there(rank)));
        let (queries, keys) = (&self.routes.queries.own, &self.routes.keys.own);
        rows::append(&mut bytes, q, shape.q_len, shape.head_dim, queries);
        for (x, dim) in records.into_iter().flatten().zip([shape.value_dim, 2, shape.value_dim]) {
            rows::append(&mut bytes, x, shape.q_len, dim, queries);
        }
        rows::append(&mut bytes, k, shape.kv_len, shape.head_dim, keys);
        rows::append(&mut bytes, v, shape.kv_len, shape.value_dim, keys);
        bytes
    }

    /// What all ranks gave, put together.
    pub(crate) fn unpack<Q: Element, KV: Element>(&self, came: &[Vec<u8>]) -> Given<Q, KV> {
        let routes = self.routes;
        let shape = self.attention.shape.q_len(routes.queries.len()).kv_len(routes.keys.len());
        let (len, dim) = (shape.q_len, shape.value_dim);
        let [out, state, dout] =
            [shape.len_out(), 2 * shape.len_lse(), shape.len_out()].map(|len| vec![0.0; len]);
        let (k, v) = (vec![zero::<KV>(); shape.len_k()], vec![zero::<KV>(); shape.len_v()]);
        let mut given = Given { q: vec![zero::<Q>(); shape.len_q()], k, v, out, state, dout };
        for (owner, bytes) in came.iter().enumerate() {
            let mut left = &bytes[..];
            let (queries, keys) = (&routes.queries.of[owner], &routes.keys.of[owner]);
            rows::put(&mut given.q, len, shape.head_dim, queries, &mut left);
            if self.pass == Pass::Backward {
                rows::put(&mut given.out, len, dim, queries, &mut left);
                rows::put(&mut given.state, len, 2, queries, &mut left);
                rows::put(&mut given.dout, len, dim, queries, &mut left);
            }
            rows::put(&mut given.k, shape.kv_len, shape.head_dim, keys, &mut left);
            rows::put(&mut given.v, shape.kv_len, shape.value_dim, keys, &mut left);
        }
        given
    }
}

fn zero<T: bytemuck::Zeroable>() -> T {
    T::zeroed()
}
