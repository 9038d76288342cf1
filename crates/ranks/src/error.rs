//! What can go wrong between ranks.

use crate::exchange::Fault;
use std::time::Duration;

/// Why a call was refused or failed on this rank.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument is wrong, or the device failed.
    #[error(transparent)]
    Attention(#[from] wgpu_attention::Error),
    /// Messages did not come in time.
    #[error("{during}: nothing came from {} within {limit:?}", ranks(.from))]
    Silent {
        /// The ranks that are waited for: they send nothing, or do not take what is sent to them.
        from: Vec<usize>,
        /// What was exchanged.
        during: String,
        /// How long this rank waited.
        limit: Duration,
    },
    /// A rank is gone.
    #[error("{during}: rank {rank} is gone")]
    Gone {
        /// The rank.
        rank: usize,
        /// What was exchanged.
        during: String,
    },
    /// A rank was given another call than this one.
    #[error("{what} differs: {here} here, {there} on rank {rank}")]
    Differs {
        /// What differs.
        what: String,
        /// The first rank that differs from this one.
        rank: usize,
        /// What it is here.
        here: String,
        /// What it is there.
        there: String,
    },
    /// A message is not the one that was due.
    #[error("{during}: rank {rank} sent {got}, need {need}")]
    Message {
        /// The rank that sent it.
        rank: usize,
        /// What was exchanged.
        during: String,
        /// What was due.
        need: String,
        /// What came.
        got: String,
    },
    /// What carries the messages has failed, in its words.
    #[error("{during}: {message}")]
    Broken {
        /// What was exchanged.
        during: String,
        /// What it said.
        message: String,
    },
    /// A call before this one has failed between the ranks, which may have come apart: make a new one.
    #[error("a call before this one failed: {0}")]
    Failed(String),
}

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn of_fault(fault: Fault, during: String) -> Self {
        match fault {
            Fault::Gone(rank) => Self::Gone { rank, during },
            Fault::Length { from: rank, need, got } => {
                Self::Message { rank, during, need: format!("{need} bytes"), got: format!("{got} bytes") }
            }
            Fault::Broken(message) => Self::Broken { during, message },
        }
    }
}

/// `rank 1`, or `ranks 1, 2`.
fn ranks(ranks: &[usize]) -> String {
    let names: Vec<_> = ranks.iter().map(usize::to_string).collect();
    format!("{} {}", if names.len() == 1 { "rank" } else { "ranks" }, names.join(", "))
}
