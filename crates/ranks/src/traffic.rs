//! What was sent.

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Pass {
    /// What a rank was given, to be compared.
    Handshake,
    /// Which keys a rank needs, and which of its queries travel.
    Needs,
    /// Keys and values, in the forward pass.
    Forward,
    /// Keys and values, in the backward pass.
    Backward,
    /// The gradients of keys and values, back to their owner.
    Gradients,
    /// Which keys all ranks get.
    Common,
    /// Rows that all ranks get, in either pass.
    Spread,
    /// What all ranks made of them, back to their owners.
    Collect,
}

/// One message that this rank sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Sent {
    /// What it was for.
    pub pass: Pass,
    /// In which step the receiver works on it; of [`Pass::Gradients`], in which step they were computed; of [`Pass::Spread`] and
    /// [`Pass::Collect`], the round of the tree.
    pub step: usize,
    /// The rank that got it.
    pub to: usize,
    /// Its length, with the header of [`HEADER_BYTES`](crate::HEADER_BYTES).
    pub bytes: usize,
}

/// Every message that a rank sent in a call, in order: exact, for models of the cost to be compared with.
///
/// Keys and values of n keys are [`HEADER_BYTES`](crate::HEADER_BYTES) + n B Hkv (d + dv) elements of k's type; their gradients
/// the same in f32. A query that travels is q, and then out and its state in f32; for its gradient q, dout, out and the state, and then dq.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Traffic {
    pub(crate) sent: Vec<Sent>,
}

impl Traffic {
    /// The messages.
    pub fn sent(&self) -> &[Sent] {
        &self.sent
    }

    /// Those of a pass.
    pub fn of(&self, pass: Pass) -> impl Iterator<Item = &Sent> + '_ {
        self.sent.iter().filter(move |sent| sent.pass == pass)
    }

    /// The bytes of a pass.
    pub fn bytes(&self, pass: Pass) -> u64 {
        self.of(pass).map(|sent| sent.bytes as u64).sum()
    }

    /// The messages of a pass.
    pub fn messages(&self, pass: Pass) -> usize {
        self.of(pass).count()
    }
}
