//! Rounds of a pass, and how long they take.

use super::{Cost, Machine, Pass, PassCost};
use crate::{Attention, AttentionShape};

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

/// Bytes of one key of all batch items and heads.
struct KeyBytes {
    /// Of k and v.
    tensors: u64,
    /// Of their gradients.
    gradients: u64,
}

impl KeyBytes {
    fn new(attention: &Attention, pass: Pass) -> Self {
        let AttentionShape { batch, kv_heads, head_dim, value_dim, .. } = attention.shape;
        let elements = (batch * kv_heads * (head_dim + value_dim)) as u64;
        let gradients = match pass {
            Pass::Forward => 0,
            Pass::Backward => elements * size_of::<f32>() as u64,
        };
        Self { tensors: elements * attention.storage.kv.size_bytes() as u64, gradients }
    }
}

/// A message with so many bytes of content; none without any.
fn message(content: u64) -> u64 {
    if content == 0 { 0 } else { Cost::HEADER_BYTES + content }
}

/// All but the memory. In each round one step is computed, while the keys of the next one travel, and the gradients of the one before.
pub(super) fn pass(steps: &[Step], attention: &Attention, pass: Pass, machine: &Machine) -> PassCost {
    let bytes = KeyBytes::new(attention, pass);
    let flops = |pairs: u64| match pass {
        Pass::Forward => attention.flops(pairs),
        Pass::Backward => attention.backward_flops(pairs),
    };
    let mut cost = PassCost::default();
    // The first step's keys are there; the last step's gradients travel when all is computed.
    for round in 0..=steps.len() {
        let compute = steps.get(round).map_or(0.0, |step| flops(step.visited) / machine.flops_per_s);
        let next = steps.get(round + 1).copied().unwrap_or_default();
        let before = round.checked_sub(1).map(|step| steps[step]).unwrap_or_default();
        // Sparse patterns leave most rounds of many ranks empty.
        if [next, before].iter().all(|step| step.received + step.sent == 0) && compute == 0.0 {
            continue;
        }
        let received = [next.received * bytes.tensors, before.sent * bytes.gradients].map(message);
        let sent = [next.sent * bytes.tensors, before.received * bytes.gradients].map(message);
        let round_s = [received, sent].map(|both| both.map(|bytes| machine.message_s(bytes)).iter().sum());
        let round_s = round_s.into_iter().fold(compute, f64::max);
        let messages = |both: [u64; 2]| both.iter().filter(|&&bytes| bytes > 0).count() as u64;
        cost.received_messages += messages(received);
        cost.sent_messages += messages(sent);
        cost.received_bytes += received.iter().sum::<u64>();
        cost.sent_bytes += sent.iter().sum::<u64>();
        cost.steps += usize::from(compute > 0.0);
        cost.compute_s += compute;
        cost.longest_round_s = cost.longest_round_s.max(round_s);
        cost.time_s += round_s;
    }
    cost
}
