//! Ranks in threads of one process.

use crate::exchange::{Exchange, Expected, Fault, Round};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One rank of several in one process. Dropped, it is gone: the others get a [`Fault::Gone`].
#[derive(Debug)]
pub struct Threads {
    rank: usize,
    shared: Arc<Shared>,
    expected: Vec<Expected>,
    arrived: Vec<Option<Vec<u8>>>,
}

#[derive(Debug)]
struct Shared {
    size: usize,
    /// On their way, by sender and receiver.
    queues: Mutex<Vec<VecDeque<Vec<u8>>>>,
    gone: Vec<AtomicBool>,
}

impl Threads {
    /// The ranks of one process, `size` of them: one for each thread to take.
    pub fn new(size: usize) -> Vec<Self> {
        let shared = Arc::new(Shared {
            size,
            queues: Mutex::new(vec![VecDeque::new(); size * size]),
            gone: (0..size).map(|_| AtomicBool::new(false)).collect(),
        });
        let rank = |rank| Self { rank, shared: shared.clone(), expected: vec![], arrived: vec![] };
        (0..size).map(rank).collect()
    }
}

impl Shared {
    fn queues(&self) -> MutexGuard<'_, Vec<VecDeque<Vec<u8>>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next message, if it has come.
    fn take(&self, from: usize, to: usize) -> Result<Option<Vec<u8>>, Fault> {
        // Asked first: what a rank sent before it went is there then.
        let gone = self.gone[from].load(Ordering::Acquire);
        match self.queues()[from * self.size + to].pop_front() {
            None if gone => Err(Fault::Gone(from)),
            message => Ok(message),
        }
    }
}

impl Exchange for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.shared.size
    }

    fn start(&mut self, round: Round) -> Result<(), Fault> {
        let mut queues = self.shared.queues();
        for message in round.sends {
            queues[self.rank * self.shared.size + message.to].push_back(message.bytes);
        }
        drop(queues);
        self.arrived = vec![None; round.receives.len()];
        self.expected = round.receives;
        Ok(())
    }

    fn poll(&mut self) -> Result<Option<Vec<Vec<u8>>>, Fault> {
        for (index, Expected { from, bytes }) in self.expected.iter().copied().enumerate() {
            // Two messages of one rank come in the order in which they are expected.
            let before = self.expected[..index].iter().zip(&self.arrived);
            let blocked = before.into_iter().any(|(it, arrived)| it.from == from && arrived.is_none());
            if blocked || self.arrived[index].is_some() {
                continue;
            }
            self.arrived[index] = match self.shared.take(from, self.rank)? {
                Some(message) if message.len() != bytes => {
                    return Err(Fault::Length { from, need: bytes, got: message.len() });
                }
                arrived => arrived,
            };
        }
        match self.arrived.iter().all(Option::is_some) {
            true => Ok(Some(std::mem::take(&mut self.arrived).into_iter().flatten().collect())),
            false => Ok(None),
        }
    }

    fn waiting_for(&self) -> Vec<usize> {
        let missing = self.expected.iter().zip(&self.arrived).filter(|(_, arrived)| arrived.is_none());
        missing.map(|(it, _)| it.from).collect()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.gone[self.rank].store(true, Ordering::Release);
    }
}
