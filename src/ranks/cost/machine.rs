use crate::{Error, Result};

/// What each rank computes, and what the network between any two carries: both ways at once, and no link slower where others are busy.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Machine {
    /// Floating-point operations per second of one rank: those that attention reaches, see [`share`](Self::share).
    pub flops_per_s: f64,
    /// Bytes per second that a rank sends, and that it receives.
    pub bytes_per_s: f64,
    /// Seconds that each message takes beside its bytes.
    pub latency_s: f64,
}

impl Machine {
    /// Operations per second, bytes per second, seconds per message.
    pub fn new(flops_per_s: f64, bytes_per_s: f64, latency_s: f64) -> Self {
        Self { flops_per_s, bytes_per_s, latency_s }
    }

    /// The share of the operations that attention reaches.
    pub fn share(self, share: f64) -> Self {
        Self { flops_per_s: self.flops_per_s * share, ..self }
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// [`Error::Argument`] for a rate that is not finite and above 0, and for a latency that is not finite and at least 0.
    pub fn check(&self) -> Result<()> {
        for (name, rate) in [("flops_per_s", self.flops_per_s), ("bytes_per_s", self.bytes_per_s)] {
            if !(rate.is_finite() && rate > 0.0) {
                return Err(Error::argument(name, "a finite number above 0", rate));
            }
        }
        match self.latency_s.is_finite() && self.latency_s >= 0.0 {
            true => Ok(()),
            false => Err(Error::argument("latency_s", "a finite number of at least 0", self.latency_s)),
        }
    }

    /// Seconds that a message takes; none where there is nothing to send.
    pub fn message_s(&self, bytes: u64) -> f64 {
        if bytes == 0 { 0.0 } else { self.latency_s + bytes as f64 / self.bytes_per_s }
    }
}
