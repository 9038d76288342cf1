//! Rounds of a pass, and how long they take.

use super::{Cost, Machine, PassCost};
use crate::Attention;
use crate::ranks::row_bytes::{Pass, RowBytes};
use std::ops::Range;

/// What a rank does in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Step {
    /// Pairs of the blocks that it computes.
    pub(super) visited: u64,
    /// Keys that it gets for it.
    pub(super) received: u64,
    /// Keys that another gets of it for its own step.
    pub(super) sent: u64,
}

/// Queries and keys that a rank sends and gets in one round of the tree along which rows travel to all ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Handed {
    pub(super) sent: [u64; 2],
    pub(super) received: [u64; 2],
}

impl Handed {
    /// Bytes that are sent and that come on the way there.
    pub(super) fn there(&self, bytes: &RowBytes) -> [u64; 2] {
        [self.sent, self.received].map(|[queries, keys]| message(queries * bytes.query + keys * bytes.key))
    }

    /// The same of results on the way back.
    pub(super) fn back(&self, bytes: &RowBytes) -> [u64; 2] {
        [self.received, self.sent]
            .map(|[queries, keys]| message(queries * bytes.query_back + keys * bytes.key_back))
    }
}

/// What a rank does in a pass.
pub(super) struct Load {
    /// Pairs of the blocks of its own keys: while rows travel to all ranks, and while results come back. All of them first, where none do.
    pub(super) own: [u64; 2],
    /// Pairs with rows that all ranks get, in between.
    pub(super) common: u64,
    /// Rounds of the tree; none where no rows travel to all.
    pub(super) handed: Vec<Handed>,
    /// By step; the first one is that of the rank's own keys.
    pub(super) steps: Vec<Step>,
}

/// The blocks that hold a rank's rows.
pub(super) fn blocks(rows: &[Range<usize>], block: usize) -> impl Iterator<Item = usize> + Clone + '_ {
    rows.iter().flat_map(move |rows| rows.start / block..rows.end.div_ceil(block))
}

/// The blocks of a rank's queries that it attends with to its own keys first, and later.
pub(super) fn halves<T>(blocks: &[T]) -> [&[T]; 2] {
    blocks.split_at(blocks.len().div_ceil(2)).into()
}

/// A message with so many bytes of content; none without any.
fn message(content: u64) -> u64 {
    if content == 0 { 0 } else { Cost::HEADER_BYTES + content }
}

/// All but the memory. In each round one step is computed, while the keys of the next one travel, and the gradients of the one before.
/// Where rows travel to all ranks, the first round is three: half of the rank's own keys, while they travel for the `slowest` of the ranks;
/// what is computed with them; the other half, while results travel back.
pub(super) fn pass(
    load: &Load,
    [there_s, back_s]: [f64; 2],
    attention: &Attention,
    pass: Pass,
    machine: &Machine,
) -> PassCost {
    let (steps, bytes) = (&load.steps, RowBytes::new(attention, pass));
    let seconds = |pairs: u64| {
        let flops = match pass {
            Pass::Forward => attention.flops(pairs),
            Pass::Backward => attention.backward_flops(pairs),
        };
        flops / machine.flops_per_s
    };
    let mut cost = PassCost::default();
    for handed in &load.handed {
        let [there, back] = [handed.there(&bytes), handed.back(&bytes)];
        cost.count([there[0], back[0]], [there[1], back[1]]);
    }
    // The first step's keys are there; the last step's gradients travel when all is computed.
    for round in 0..=steps.len() {
        let compute = match round {
            0 => seconds(load.own[0]),
            round => steps.get(round).map_or(0.0, |step| seconds(step.visited)),
        };
        let next = steps.get(round + 1).copied().unwrap_or_default();
        let before = round.checked_sub(1).map(|step| steps[step]).unwrap_or_default();
        let received = [next.received * bytes.key, before.sent * bytes.key_back].map(message);
        let sent = [next.sent * bytes.key, before.received * bytes.key_back].map(message);
        cost.count(sent, received);
        let travel_s = [received, sent].map(|both| both.map(|bytes| machine.message_s(bytes)).iter().sum());
        let travel_s = travel_s.into_iter().fold(0.0, f64::max);
        if round > 0 {
            cost.round(compute, travel_s);
            continue;
        }
        cost.round(compute, travel_s + there_s);
        cost.round(seconds(load.common), 0.0);
        cost.round(seconds(load.own[1]), back_s);
    }
    cost
}

impl PassCost {
    /// Messages that are sent, and that come.
    fn count(&mut self, sent: [u64; 2], received: [u64; 2]) {
        let messages = |both: [u64; 2]| both.iter().filter(|&&bytes| bytes > 0).count() as u64;
        self.received_messages += messages(received);
        self.sent_messages += messages(sent);
        self.received_bytes += received.iter().sum::<u64>();
        self.sent_bytes += sent.iter().sum::<u64>();
    }

    /// A round: what takes longer, arithmetic or what travels meanwhile.
    fn round(&mut self, compute: f64, travel_s: f64) {
        let round_s = compute.max(travel_s);
        self.steps += usize::from(compute > 0.0);
        self.compute_s += compute;
        self.longest_round_s = self.longest_round_s.max(round_s);
        self.time_s += round_s;
    }
}
