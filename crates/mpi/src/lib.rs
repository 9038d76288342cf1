//! Exact attention over the ranks of an MPI program: [`Mpi`] carries the messages of
//! [`DistributedAttention`](wgpu_attention_ranks::DistributedAttention).
//!
//! ```no_run
//! use std::time::Duration;
//! use wgpu_attention::{AttentionShape, Causal, Gpu};
//! use wgpu_attention_mpi::Mpi;
//! use wgpu_attention_mpi::ranks::{DistributedAttention, Exchange, Plan};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mpi = Mpi::world(Duration::from_secs(30))?;
//! let (gpu, shape) = (Gpu::new()?, AttentionShape::new(1, 8, 1 << 20, 64));
//! let plan = Plan::zig_zag(&shape, mpi.size())?;
//! let mut attention = DistributedAttention::with(mpi, &gpu, &shape, &Causal, plan)?;
//! let own = attention.own_shape();
//! let x = vec![0.1f32; own.len_q()];
//! println!("{:?}", &attention.forward(&x, &x, &x)?.out[..4]);
//! # Ok(())
//! # }
//! ```
//!
//! MPI runs in a thread of its own, which alone calls it (`MPI_THREAD_FUNNELED`): messages make progress while the kernel
//! runs, whatever the library does by itself, and nothing that MPI does can hold up the caller: a rank that is gone is an
//! [`Error`](wgpu_attention_ranks::Error) after the plan's time limit.
//!
//! What MPI itself does when a process ends is the launcher's choice: by default `mpirun` ends all others. Where they shall go on to
//! see the error and end in their own way, MPICH's needs `-disable-auto-cleanup`, Open MPI's `--enable-recovery`.
//! After an error MPI can often not be finalised: end the process with an exit code.

mod serve;

pub use wgpu_attention_ranks as ranks;

use mpi::Threading;
use mpi::environment::Universe;
use mpi::topology::{Communicator, SimpleCommunicator};
use ranks::{Exchange, Fault, Round};
use serve::{Shared, serve};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, atomic::Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the end waits for MPI to be finalised: a rank that is gone may hold it up for ever.
const FINALISE: Duration = Duration::from_secs(10);

/// The ranks of a communicator.
#[derive(Debug)]
pub struct Mpi {
    rank: usize,
    size: usize,
    rounds: Option<Sender<Round>>,
    arrived: Receiver<Vec<Vec<u8>>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Mpi {
    /// Starts MPI, for all processes that `mpirun` started; ends it when dropped. `limit` is how long to wait for MPI to start.
    ///
    /// # Errors
    /// [`Fault::Broken`] where MPI runs already (see [`of`](Self::of)) or does not start.
    pub fn world(limit: Duration) -> Result<Self, Fault> {
        Self::start(limit, || {
            let (universe, _) = mpi::initialize_with_threading(Threading::Funneled)
                .ok_or("MPI runs already: use Mpi::of".to_string())?;
            Ok((universe.world(), Some(universe)))
        })
    }

    /// A communicator of a program that started MPI itself, with `Threading::Multiple`, and that nothing else uses. It is asked for
    /// on another thread.
    ///
    /// # Errors
    /// [`Fault::Broken`] where MPI does not run, or not for several threads.
    pub fn of(
        limit: Duration,
        communicator: impl FnOnce() -> SimpleCommunicator + Send + 'static,
    ) -> Result<Self, Fault> {
        Self::start(limit, || {
            if !mpi::environment::is_initialized() {
                return Err("MPI does not run: use Mpi::world".into());
            }
            match mpi::environment::threading_support() {
                Threading::Multiple => Ok((communicator(), None::<Universe>)),
                level => Err(format!("MPI has to run with Threading::Multiple, not {level:?}")),
            }
        })
    }

    fn start<U>(
        limit: Duration,
        begin: impl FnOnce() -> Result<(SimpleCommunicator, U), String> + Send + 'static,
    ) -> Result<Self, Fault> {
        let (rounds, to_do) = channel();
        let (done, arrived) = channel();
        let (ready, begun) = channel();
        let shared = Arc::new(Shared::default());
        let own = shared.clone();
        let thread = std::thread::spawn(move || match begin() {
            Ok((communicator, universe)) => {
                let places = (communicator.rank() as usize, communicator.size() as usize);
                // Nobody listens: nobody will send, either.
                let _ = ready.send(Ok(places));
                serve(&communicator, &to_do, &done, &own);
                drop(communicator);
                drop(universe);
            }
            Err(error) => drop(ready.send(Err(error))),
        });
        match begun.recv_timeout(limit) {
            Ok(Ok((rank, size))) => {
                Ok(Self { rank, size, rounds: Some(rounds), arrived, shared, thread: Some(thread) })
            }
            Ok(Err(error)) => Err(Fault::Broken(error)),
            Err(_) => Err(Fault::Broken(format!("MPI did not start within {limit:?}"))),
        }
    }
}

impl Exchange for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn start(&mut self, round: Round) -> Result<(), Fault> {
        self.shared.expect(&round);
        let sent = self.rounds.as_ref().map(|rounds| rounds.send(round));
        sent.and_then(Result::ok).ok_or_else(ended)
    }

    fn poll(&mut self) -> Result<Option<Vec<Vec<u8>>>, Fault> {
        if let Some(fault) = self.shared.fault() {
            return Err(fault);
        }
        match self.arrived.try_recv() {
            Ok(messages) => Ok(Some(messages)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(ended()),
        }
    }

    fn waiting_for(&self) -> Vec<usize> {
        self.shared.waiting_for()
    }
}

fn ended() -> Fault {
    Fault::Broken("the thread that calls MPI has ended".into())
}

impl Drop for Mpi {
    fn drop(&mut self) {
        // A round that is not complete never will be.
        self.shared.abandoned.store(true, Ordering::Release);
        self.rounds = None;
        let (began, thread) = (Instant::now(), self.thread.take());
        while thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            if self.shared.stuck.load(Ordering::Acquire) || began.elapsed() > FINALISE {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
