//! How bytes get from rank to rank.

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The rank that gets it, not the one that sends it.
    pub to: usize,
    /// What it says.
    pub bytes: Vec<u8>,
}

/// A message that has to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// The rank that sends it.
    pub from: usize,
    /// How long it is.
    pub bytes: usize,
}

/// Messages that travel at the same time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Round {
    /// What this rank sends.
    pub sends: Vec<Message>,
    /// What it gets.
    pub receives: Vec<Expected>,
}

/// Why messages do not come through.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The rank is known to be gone.
    Gone(usize),
    /// A message is not as long as it has to be.
    Length {
        /// The rank that sent it.
        from: usize,
        /// What was expected.
        need: usize,
        /// What came.
        got: usize,
    },
    /// What carries the messages has failed, in its words.
    Broken(String),
}

/// Messages between ranks, without waiting.
///
/// Rounds come one after the other: [`start`](Self::start) hands over what is sent and says what is to come, and returns at once;
/// [`poll`](Self::poll) says whether all of it is here, and must not wait either. In between, messages make progress by
/// themselves: the caller is computing. Messages from one rank to another arrive in the order in which they were sent.
pub trait Exchange {
    /// The number of this rank, below [`size`](Self::size).
    fn rank(&self) -> usize;

    /// The number of ranks.
    fn size(&self) -> usize;

    /// Starts a round. The one before is complete.
    ///
    /// # Errors
    /// A [`Fault`], after which no other round is started.
    fn start(&mut self, round: Round) -> Result<(), Fault>;

    /// The messages of the round, in the order of [`Round::receives`], once all are here and all that was sent is handed over;
    /// `None` before that.
    ///
    /// # Errors
    /// A [`Fault`], after which no other round is started.
    fn poll(&mut self) -> Result<Option<Vec<Vec<u8>>>, Fault>;

    /// The ranks whose messages have not come, or which have not taken theirs.
    fn waiting_for(&self) -> Vec<usize>;
}
