//! What depends on the processor that a driver is for.

use anyhow::{Result, bail};

/// Names of a processor family.
pub(crate) struct Machine {
    /// Debian's name of the architecture.
    pub(crate) debian: &'static str,
    /// Folder of its libraries.
    pub(crate) libraries: &'static str,
    /// Dynamic linker.
    pub(crate) linker: &'static str,
}

impl Machine {
    /// This machine.
    pub(crate) fn here() -> Result<Self> {
        Ok(match std::env::consts::ARCH {
            "x86_64" => Self {
                debian: "amd64",
                libraries: "usr/lib/x86_64-linux-gnu",
                linker: "ld-linux-x86-64.so.2",
            },
            "aarch64" => Self {
                debian: "arm64",
                libraries: "usr/lib/aarch64-linux-gnu",
                linker: "ld-linux-aarch64.so.1",
            },
            other => bail!("no software adapter is known for {other}"),
        })
    }
}
