//! Attention of a rank's rows.

use crate::error::Result;
use crate::exchange::Exchange;
use crate::handshake::shake;
use crate::plan::Plan;
use crate::ring::Ring;
use crate::routes::{Routes, Settling};
use crate::session::Session;
use crate::steps::{self, Steps, of_rank};
use crate::traffic::{Pass, Traffic};
use std::ops::Range;
use wgpu_attention::ranks::{Needs, Offer, Sharing, stretches::count};
use wgpu_attention::{Attention, AttentionShape, Element, Gpu, Inputs, Pattern, Storage};

/// Attention over a sequence of which this rank holds some rows: made on all ranks at the same time, with the same arguments.
///
/// All that the messages of a call depend on is settled here, once: who needs which keys of whom, what a rank computes in
/// which step. A call that failed between the ranks is the last: whatever comes after it is an [`Error::Failed`](crate::Error::Failed).
pub struct DistributedAttention<X> {
    pub(crate) session: Session<X>,
    pub(crate) gpu: Gpu,
    attention: Attention,
    plan: Plan,
    routes: Routes,
    steps: Steps,
}

impl<X: Exchange> DistributedAttention<X> {
    /// Attention over contiguous rows: [`with`](Self::with) a [`Plan::contiguous`].
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

    /// Attention over the rows that a plan gives to this rank. `attention` is that of the whole sequence: the types of q and of k and v are those of
    /// the slices, and out is f32. Waits for all ranks, each of which has to be given the same.
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
        let sharing = Sharing::new(&attention, exchange.size());
        let (extent, sides) = (attention.shape.extent(), [&plan.queries, &plan.keys]);
        let offered = sharing.offer(pattern, extent, sides, rank, plan.block)?;
        let offered = if plan.share { offered } else { Offer::default() };
        let mut session = Session::new(exchange, plan.limit);
        let routes = session.call("the handshake", |session| {
            let Offer { queries, saved, .. } = offered;
            let offer = [count(&queries) as u64, queries.len() as u64, saved];
            let offers = shake(session, &attention, pattern, &plan, offer)?;
            let plan = &plan;
            Settling { session, attention: &attention, pattern, plan, sharing }.routes(queries, &offers)
        })?;
        let steps = steps::steps(gpu, &attention, pattern, &plan, &routes)?;
        Ok(Self { session, gpu: gpu.clone(), attention, plan, routes, steps })
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

    /// The keys that this rank needs of each other one, but for [`common_keys`](Self::common_keys).
    pub fn needs(&self) -> &Needs {
        &self.routes.needs
    }

    /// Queries that travel to all ranks, each of which attends with them to its own keys; as positions.
    pub fn common_queries(&self) -> &[Range<usize>] {
        &self.routes.queries.rows
    }

    /// Keys that all ranks get, handed on from rank to rank; as positions.
    pub fn common_keys(&self) -> &[Range<usize>] {
        &self.routes.keys.rows
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

    /// What a pass goes by.
    pub(crate) fn ring(&mut self, pass: Pass) -> (&mut Session<X>, &Gpu, Ring<'_>) {
        let Self { session, gpu, attention, plan, routes, steps } = self;
        (session, gpu, Ring { attention, plan, routes, steps, pass })
    }
}

impl<X> std::fmt::Debug for DistributedAttention<X> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { attention, plan, .. } = self;
        f.debug_struct("DistributedAttention").field("attention", attention).field("plan", plan).finish()
    }
}
