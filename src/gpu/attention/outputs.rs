//! What a call leaves beside out.

/// What a call on slices returns beside out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Outputs {
    /// The log-sum-exp of every row.
    pub lse: bool,
    /// The state (m, l) of every row: see [`AttentionBuffers::state`](crate::AttentionBuffers::state).
    pub state: bool,
}

impl Outputs {
    /// Asks for lse, too.
    pub const fn lse(self) -> Self {
        Self { lse: true, ..self }
    }

    /// Asks for the state, too.
    pub const fn state(self) -> Self {
        Self { state: true, ..self }
    }

    /// The place in [`ALL`](Self::ALL).
    pub(in crate::gpu) fn place(self) -> usize {
        usize::from(self.lse) + 2 * usize::from(self.state)
    }

    /// All there are, lse in bit 0 of the place and the state in bit 1.
    pub(super) const ALL: [Self; 4] = [
        Self { lse: false, state: false },
        Self { lse: true, state: false },
        Self { lse: false, state: true },
        Self { lse: true, state: true },
    ];
}
