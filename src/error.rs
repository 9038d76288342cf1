//! The one error type: each message names the thing, what is needed, and what was given.

use std::borrow::Cow;
use std::fmt::Display;

/// Why a call was refused or failed. A call that is refused has recorded and written nothing.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument is wrong by itself or does not fit the others.
    #[error("{name}: need {need}, got {got}")]
    Argument {
        /// The argument, as the caller knows it: `heads`, `q`, `Window.before`.
        name: Cow<'static, str>,
        /// What it has to be.
        need: String,
        /// What it was.
        got: String,
    },
    /// A limit of the device, or of 32-bit indexing, is exceeded.
    #[error("{what} needs {need}, but {limit} is {have}")]
    Limit {
        /// What runs into the limit.
        what: Cow<'static, str>,
        /// The limit's name, as `wgpu::Limits` or this crate spells it.
        limit: Cow<'static, str>,
        /// How much would be needed.
        need: u64,
        /// How much there is.
        have: u64,
    },
    /// No adapter was found that can run the kernels.
    #[error("no GPU adapter: {0}")]
    NoAdapter(String),
    /// The device refused: a validation or internal error, in wgpu's words.
    #[error("{what}: {message}")]
    Device {
        /// What was being done.
        what: Cow<'static, str>,
        /// What wgpu said.
        message: String,
    },
    /// The device has no memory for a buffer.
    #[error("{what}: the device has no memory for {need} bytes")]
    OutOfMemory {
        /// What the buffer is for.
        what: Cow<'static, str>,
        /// Its size.
        need: u64,
    },
    /// The device is gone (unplugged, reset or destroyed); a new one is needed.
    #[error("the device is lost: {0}")]
    DeviceLost(String),
}

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Argument`].
    pub fn argument(name: impl Into<Cow<'static, str>>, need: impl Display, got: impl Display) -> Self {
        Self::Argument { name: name.into(), need: need.to_string(), got: got.to_string() }
    }

    /// An [`Error::Limit`].
    pub fn limit(
        what: impl Into<Cow<'static, str>>,
        limit: impl Into<Cow<'static, str>>,
        need: u64,
        have: u64,
    ) -> Self {
        Self::Limit { what: what.into(), limit: limit.into(), need, have }
    }
}
