//! The thread that calls MPI.

use mpi::datatype::Equivalence;
use mpi::point_to_point::{Destination, Source};
use mpi::request::{LocalScope, Request};
use mpi::topology::{Communicator, SimpleCommunicator};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use wgpu_attention_ranks::{Fault, Round};

/// Bytes of one MPI message at most: its counts have 31 bits.
const PIECE: usize = 1 << 30;

/// The tag of all messages: those of two ranks arrive in their order.
const TAG: i32 = 7;

/// Waits between two looks at the messages: the first and the longest.
const PAUSES: [Duration; 2] = [Duration::from_micros(10), Duration::from_millis(1)];

/// What both threads see.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// The caller has gone.
    pub(crate) abandoned: AtomicBool,
    /// The thread has given up a round, and calls MPI no more.
    pub(crate) stuck: AtomicBool,
    waiting: Mutex<Vec<usize>>,
    fault: Mutex<Option<Fault>>,
}

impl Shared {
    /// The ranks of a round that starts.
    pub(crate) fn expect(&self, round: &Round) {
        let senders = round.receives.iter().map(|it| it.from);
        *locked(&self.waiting) = sorted(senders.chain(round.sends.iter().map(|it| it.to)).collect());
    }

    pub(crate) fn waiting_for(&self) -> Vec<usize> {
        locked(&self.waiting).clone()
    }

    pub(crate) fn fault(&self) -> Option<Fault> {
        locked(&self.fault).clone()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn sorted(mut ranks: Vec<usize>) -> Vec<usize> {
    ranks.sort_unstable();
    ranks.dedup();
    ranks
}

/// Carries rounds until the caller has gone.
pub(crate) fn serve(
    communicator: &SimpleCommunicator,
    rounds: &Receiver<Round>,
    done: &Sender<Vec<Vec<u8>>>,
    shared: &Shared,
) {
    for round in rounds {
        let mut buffers: Vec<_> = round.receives.iter().map(|it| vec![0; it.bytes]).collect();
        mpi::request::scope(|scope| {
            let mut pending = vec![];
            for (buffer, expected) in buffers.iter_mut().zip(&round.receives) {
                let source = communicator.process_at_rank(expected.from as i32);
                for piece in buffer.chunks_mut(PIECE) {
                    let need = Some(piece.len());
                    let request = source.immediate_receive_into_with_tag(scope, piece, TAG);
                    pending.push(Pending { rank: expected.from, need, request });
                }
            }
            for message in &round.sends {
                let target = communicator.process_at_rank(message.to as i32);
                for piece in message.bytes.chunks(PIECE) {
                    let request = target.immediate_send_with_tag(scope, piece, TAG);
                    pending.push(Pending { rank: message.to, need: None, request });
                }
            }
            complete(pending, shared);
        });
        if done.send(buffers).is_err() {
            return;
        }
    }
}

/// A part of a message that is on its way.
struct Pending<'a, 'b> {
    /// The other rank.
    rank: usize,
    /// Bytes to come; of what is sent, none.
    need: Option<usize>,
    request: Request<'a, [u8], &'b LocalScope<'a>>,
}

/// Looks until all is through. Once the caller has gone, MPI is not called again: what it still holds stays in place.
fn complete(mut pending: Vec<Pending<'_, '_>>, shared: &Shared) {
    let mut pause = PAUSES[0];
    loop {
        let before = pending.len();
        let still = |Pending { rank, need, request }| match request.test() {
            Ok(status) => {
                let got = status.count(u8::equivalent_datatype()) as usize;
                if let Some(need) = need.filter(|&need| need != got) {
                    *locked(&shared.fault) = Some(Fault::Length { from: rank, need, got });
                }
                None
            }
            Err(request) => Some(Pending { rank, need, request }),
        };
        pending = pending.into_iter().filter_map(still).collect();
        *locked(&shared.waiting) = sorted(pending.iter().map(|it| it.rank).collect());
        if pending.is_empty() {
            return;
        }
        if shared.abandoned.load(Ordering::Acquire) {
            shared.stuck.store(true, Ordering::Release);
            // The messages may still be written to: they outlive everything, as this thread does.
            loop {
                std::thread::park();
            }
        }
        pause = if pending.len() < before { PAUSES[0] } else { (2 * pause).min(PAUSES[1]) };
        std::thread::sleep(pause);
    }
}
