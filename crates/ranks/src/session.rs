//! Rounds of messages: their headers, their time limit, and that nothing goes on after a fault.

use crate::error::{Error, Result};
use crate::exchange::{Exchange, Expected, Message, Round};
use crate::traffic::{Pass, Sent, Traffic};
use std::time::{Duration, Instant};

/// Bytes before the content of each message: the number of the call, the step and the pass.
pub const HEADER_BYTES: usize = wgpu_attention::ranks::Cost::HEADER_BYTES as usize;

/// Waits between two questions whether a round is complete: the first and the longest.
const PAUSES: [Duration; 2] = [Duration::from_micros(20), Duration::from_millis(2)];

/// Messages between this rank and the others.
pub(crate) struct Session<X> {
    pub(crate) exchange: X,
    pub(crate) traffic: Traffic,
    limit: Duration,
    /// Which call it is: all ranks make the same ones.
    call: u64,
    round: Vec<Due>,
    running: Option<&'static str>,
    failed: Option<String>,
}

/// A message that goes out.
pub(crate) struct Outgoing {
    pub(crate) pass: Pass,
    pub(crate) step: usize,
    pub(crate) to: usize,
    /// A header's room, then the content: see [`content`].
    pub(crate) bytes: Vec<u8>,
}

/// A message that is due.
#[derive(Clone, Copy)]
pub(crate) struct Due {
    pub(crate) pass: Pass,
    pub(crate) step: usize,
    pub(crate) from: usize,
    /// Without the header.
    pub(crate) bytes: usize,
}

/// Room for a message of so many bytes of content.
pub(crate) fn content(bytes: usize) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER_BYTES + bytes);
    message.resize(HEADER_BYTES, 0);
    message
}

impl<X: Exchange> Session<X> {
    pub(crate) fn new(exchange: X, limit: Duration) -> Self {
        let traffic = Traffic::default();
        Self { exchange, traffic, limit, call: 0, round: vec![], running: None, failed: None }
    }

    pub(crate) fn rank(&self) -> usize {
        self.exchange.rank()
    }

    pub(crate) fn size(&self) -> usize {
        self.exchange.size()
    }

    /// One call, on all ranks. Whatever fails in it, no other one follows: other ranks may wait for what never comes, and what
    /// is on its way belongs to this one.
    pub(crate) fn call<T>(
        &mut self,
        name: &'static str,
        call: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        if let Some(failure) = &self.failed {
            return Err(Error::Failed(failure.clone()));
        }
        self.call += 1;
        self.traffic.sent.clear();
        self.running = Some(name);
        let result = call(self);
        if let Err(error) = &result {
            self.failed = Some(error.to_string());
        }
        result
    }

    /// Starts a round: returns at once.
    pub(crate) fn start(&mut self, sends: Vec<Outgoing>, receives: Vec<Due>) -> Result<()> {
        let mut round = Round::default();
        for Outgoing { pass, step, to, mut bytes } in sends {
            bytes[..HEADER_BYTES].copy_from_slice(&self.header(pass, step));
            self.traffic.sent.push(Sent { pass, step, to, bytes: bytes.len() });
            round.sends.push(Message { to, bytes });
        }
        let expected = |due: &Due| Expected { from: due.from, bytes: HEADER_BYTES + due.bytes };
        round.receives = receives.iter().map(expected).collect();
        self.round = receives;
        self.exchange.start(round).map_err(|fault| Error::of_fault(fault, self.during()))
    }

    /// Waits for the messages of the round: with their headers, which are checked.
    pub(crate) fn finish(&mut self) -> Result<Vec<Vec<u8>>> {
        let (began, mut pause) = (Instant::now(), PAUSES[0]);
        let messages = loop {
            match self.exchange.poll() {
                Ok(Some(messages)) => break messages,
                Ok(None) if began.elapsed() < self.limit => {}
                Ok(None) => {
                    let from = self.exchange.waiting_for();
                    return Err(Error::Silent { from, during: self.during(), limit: self.limit });
                }
                Err(fault) => return Err(Error::of_fault(fault, self.during())),
            }
            std::thread::sleep(pause);
            pause = (2 * pause).min(PAUSES[1]);
        };
        for (message, due) in messages.iter().zip(&self.round) {
            let need = self.header(due.pass, due.step);
            if message.len() != HEADER_BYTES + due.bytes || message[..HEADER_BYTES] != need {
                let words = |header: &[u8]| format!("a message {header:02x?} of {} bytes", message.len());
                let (need, got) = (words(&need), words(&message[..HEADER_BYTES.min(message.len())]));
                return Err(Error::Message { rank: due.from, during: self.during(), need, got });
            }
        }
        match messages.len() == self.round.len() {
            true => Ok(messages),
            false => {
                let message = format!("{} messages of {}", messages.len(), self.round.len());
                Err(Error::Broken { during: self.during(), message })
            }
        }
    }

    /// Exchanges messages in a thread of their own while this one computes.
    pub(crate) fn beside<A: Send, B>(
        &mut self,
        exchange: impl FnOnce(&mut Self) -> Result<A> + Send,
        compute: impl FnOnce() -> Result<B>,
    ) -> Result<(A, B)>
    where
        X: Send,
    {
        std::thread::scope(|scope| {
            let messages = scope.spawn(|| exchange(self));
            let computed = compute();
            let exchanged = messages.join().unwrap_or_else(|_| {
                let message = "the thread that exchanges messages has panicked".into();
                Err(Error::Broken { during: "between computing".into(), message })
            });
            let computed = computed?;
            Ok((exchanged?, computed))
        })
    }

    fn header(&self, pass: Pass, step: usize) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&self.call.to_le_bytes());
        header[8..12].copy_from_slice(&(step as u32).to_le_bytes());
        header[12..].copy_from_slice(&(pass as u32).to_le_bytes());
        header
    }

    /// What is going on, for messages.
    fn during(&self) -> String {
        let name = self.running.unwrap_or("between calls");
        match self.round.first() {
            Some(due) => {
                let what = match due.pass {
                    Pass::Spread => "rows for all ranks, round",
                    Pass::Collect => "results of all ranks, round",
                    _ => "step",
                };
                format!("{name}, {what} {} on rank {} of {}", due.step, self.rank(), self.size())
            }
            None => format!("{name} on rank {} of {}", self.rank(), self.size()),
        }
    }
}
