//! Attention of a rank's rows.

use crate::error::Result;
use crate::exchange::Exchange;
use crate::handshake::{places, shake};
use crate::merge::Merged;
use crate::plan::Plan;
use crate::rows;
use crate::session::{Due, HEADER_BYTES, Outgoing, Session, content};
use crate::steps::{self, Step, of_rank};
use crate::traffic::{Pass, Traffic};
use std::ops::Range;
use wgpu_attention::ranks::{Needs, needs, source, target};
use wgpu_attention::{
    Attention, AttentionOutput, AttentionShape, Element, Gpu, Inputs, Outputs, Pattern, Storage,
};

/// Attention over a sequence of which this rank holds some rows: made on all ranks at the same time, with the same arguments.
///
/// All that the messages of a call depend on is settled here, once: who needs which keys of whom, what a rank computes in
/// which step. A call that failed between the ranks is the last: whatever comes after it is an [`Error::Failed`](crate::Error::Failed).
pub struct DistributedAttention<X> {
    pub(crate) session: Session<X>,
    pub(crate) gpu: Gpu,
    attention: Attention,
    plan: Plan,
    needs: Needs,
    /// This rank's keys that each other one needs, as places among its own.
    pub(crate) wanted: Vec<Vec<Range<usize>>>,
    pub(crate) steps: Vec<Option<Step>>,
}

/// What [`DistributedAttention::forward`] gives: this rank's rows.
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

/// Keys and values that the next step works on.
pub(crate) enum Held<KV> {
    None,
    Rows([Vec<KV>; 2]),
}

impl<X: Exchange> DistributedAttention<X> {
    /// Contiguous rows: [`Plan::contiguous`].
    ///
    /// # Errors
    /// As [`with`](Self::with).
    pub fn new(
        exchange: X,
        gpu: &Gpu,
        attention: impl Into<Attention>,
        pattern: &dyn Pattern,
    ) -> Result<Self> {
        let attention = attention.into();
        let plan = Plan::contiguous(&attention.shape, exchange.size())?;
        Self::with(exchange, gpu, attention, pattern, plan)
    }

    /// The rows that a plan gives the ranks. The attention is that of the whole sequence; of its storage, q's and k's are those of the
    /// slices, out is f32. Waits for all ranks, each of which has to be given the same.
    ///
    /// # Errors
    /// [`Error::Attention`](crate::Error::Attention) for what a plan of the whole would refuse, for terms of the score other than softcap and for a plan of other
    /// ranks; [`Error::Differs`](crate::Error::Differs) where a rank was given something else, or is of another version; and where a rank does not answer, as
    /// [`forward`](Self::forward).
    pub fn with(
        exchange: X,
        gpu: &Gpu,
        attention: impl Into<Attention>,
        pattern: &dyn Pattern,
        plan: Plan,
    ) -> Result<Self> {
        let (attention, rank) = (attention.into(), exchange.rank());
        steps::check(&attention, &plan, rank, exchange.size())?;
        let extent = attention.shape.extent();
        let needs = needs(pattern, extent, [&plan.queries, &plan.keys], rank, plan.block)?;
        let mut session = Session::new(exchange, plan.limit);
        let wanted =
            session.call("the handshake", |session| shake(session, &attention, pattern, &plan, &needs))?;
        let steps = steps::steps(gpu, &attention, pattern, &plan, &needs)?;
        Ok(Self { session, gpu: gpu.clone(), attention, plan, needs, wanted, steps })
    }

    /// The rank.
    pub fn rank(&self) -> usize {
        self.session.rank()
    }

    /// The number of ranks.
    pub fn ranks(&self) -> usize {
        self.session.size()
    }

    /// Who holds what.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The keys that this rank needs of each other one.
    pub fn needs(&self) -> &Needs {
        &self.needs
    }

    /// The whole call.
    pub fn attention(&self) -> &Attention {
        &self.attention
    }

    /// The sizes of this rank's slices.
    pub fn own_shape(&self) -> AttentionShape {
        let rank = self.rank();
        self.attention.shape.q_len(self.plan.queries.count(rank)).kv_len(self.plan.keys.count(rank))
    }

    /// What this rank sent in its last call; the first one is that of [`with`](Self::with).
    pub fn traffic(&self) -> &Traffic {
        &self.session.traffic
    }

    /// Attention of this rank's queries to all keys. All ranks have to call it.
    ///
    /// # Errors
    /// [`Error::Attention`](crate::Error::Attention) for a slice of the wrong length or type, before any message, and for what the device refuses;
    /// [`Error::Silent`](crate::Error::Silent) where nothing comes within [`Plan::limit`]; [`Error::Gone`](crate::Error::Gone), [`Error::Message`](crate::Error::Message), [`Error::Broken`](crate::Error::Broken) and
    /// [`Error::Failed`](crate::Error::Failed) as they say. An error on this rank is one on every rank that needs its keys, after their time limit.
    pub fn forward<Q: Element, KV: Element>(&mut self, q: &[Q], k: &[KV], v: &[KV]) -> Result<Forward> {
        self.check(q, k, v)?;
        let Self { session, gpu, attention, plan, needs, wanted, steps } = self;
        let ring = Ring { attention, plan, needs, wanted, steps, pass: Pass::Forward };
        session.call("forward", |session| {
            let own = ring.own(session.rank());
            let mut merged = Merged::new(own.len_lse(), own.value_dim, attention.score.is_plain());
            let mut held = ring.held(session.rank(), [k, v]);
            for (step, planned) in steps.iter().enumerate() {
                let (sends, due) = ring.round(session.rank(), step + 1, [k, v]);
                session.start(sends, due)?;
                if let (Some(planned), Held::Rows([k, v])) = (planned, &held) {
                    let outputs = Outputs::default().state();
                    let part: AttentionOutput<f32> =
                        gpu.run_plan(&planned.plan, &Inputs::new(q, k, v), outputs)?;
                    merged.add(&part.out, &part.state.unwrap_or_default());
                }
                held = ring.arrived(step + 1, &session.finish()?);
            }
            let (out, state, lse) = merged.finish();
            Ok(Forward { out, state, lse })
        })
    }

    /// Checks this rank's tensors.
    pub(crate) fn check<Q: Element, KV: Element>(&self, q: &[Q], k: &[KV], v: &[KV]) -> Result<()> {
        let own = self.own_shape();
        let storage = self.attention.storage;
        if (storage.q, storage.kv) != (Q::TYPE, KV::TYPE) {
            let need = format!("slices of {} and {}, as the attention's storage", storage.q, storage.kv);
            let got = format!("{} and {}", Q::TYPE, KV::TYPE);
            return Err(wgpu_attention::Error::argument("q, k, v", need, got).into());
        }
        let call = of_rank(&self.attention, own.q_len, own.kv_len);
        Ok(Inputs::new(q, k, v).check(&call.storage(Storage::all(Q::TYPE).kv(KV::TYPE)))?)
    }

    /// What a pass over the ring goes by.
    pub(crate) fn ring(&mut self, pass: Pass) -> (&mut Session<X>, &Gpu, Ring<'_>) {
        let Self { session, gpu, attention, plan, needs, wanted, steps } = self;
        (session, gpu, Ring { attention, plan, needs, wanted, steps, pass })
    }
}

/// What a pass over the ring goes by.
#[derive(Clone, Copy)]
pub(crate) struct Ring<'a> {
    pub(crate) attention: &'a Attention,
    plan: &'a Plan,
    needs: &'a Needs,
    pub(crate) wanted: &'a [Vec<Range<usize>>],
    pub(crate) steps: &'a [Option<Step>],
    pass: Pass,
}

impl Ring<'_> {
    /// The sizes of a rank's slices.
    pub(crate) fn own(&self, rank: usize) -> AttentionShape {
        self.attention.shape.q_len(self.plan.queries.count(rank)).kv_len(self.plan.keys.count(rank))
    }

    /// Those of a rank's own keys that it needs, as places.
    pub(crate) fn own_places(&self, rank: usize) -> Vec<Range<usize>> {
        let own = self.needs.from(rank).iter();
        own.filter_map(|keys| places(self.plan, rank, keys.clone())).collect()
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
        let ranks = self.steps.len();
        if step >= ranks {
            return (vec![], vec![]);
        }
        let (shape, to, pass) = (self.own(rank), target(rank, step, ranks), self.pass);
        let rows = &self.wanted[to];
        let send = (!rows.is_empty()).then(|| {
            let mut bytes = content(self.keys_bytes(rows.iter().map(Range::len).sum(), size_of::<KV>()));
            rows::append(&mut bytes, k, shape.kv_len, shape.head_dim, rows);
            rows::append(&mut bytes, v, shape.kv_len, shape.value_dim, rows);
            Outgoing { pass, step, to, bytes }
        });
        let due = self.steps[step].as_ref().map(|planned| {
            debug_assert_eq!(planned.from, source(rank, step, ranks));
            Due { pass, step, from: planned.from, bytes: self.keys_bytes(planned.keys, size_of::<KV>()) }
        });
        (send.into_iter().collect(), due.into_iter().collect())
    }

    /// The keys and values of a step, if they are what came first.
    pub(crate) fn arrived<KV: Element>(&self, step: usize, messages: &[Vec<u8>]) -> Held<KV> {
        let planned = self.steps.get(step).and_then(Option::as_ref);
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
}

impl<X> std::fmt::Debug for DistributedAttention<X> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { attention, plan, .. } = self;
        f.debug_struct("DistributedAttention").field("attention", attention).field("plan", plan).finish()
    }
}
