//! The implementations of WebGPU, and what each takes to be there.

use anyhow::{Result, bail};

use crate::node::DAWN;
use crate::software::{self, Choice, Driver, LAVAPIPE, LAVAPIPE_25, LLVMPIPE_GL, Launcher, SWIFTSHADER};

/// Something that runs WGSL.
pub(crate) struct Implementation {
    /// As in the table.
    pub(crate) name: &'static str,
    pub(crate) through: Through,
    /// Only the small set: its compiler takes long.
    pub(crate) slow: bool,
    /// A part of `cargo xtask test`.
    pub(crate) with_every_change: bool,
}

/// How cases get there.
pub(crate) enum Through {
    /// wgpu, on a driver.
    Wgpu {
        /// A fetched one; none is this machine's own, where it has one.
        driver: Option<&'static Driver>,
        /// Variables of the environment.
        settings: &'static [(&'static str, &'static str)],
        /// More arguments of `matrix run`.
        arguments: &'static [&'static str],
    },
    /// Dawn in Node, on lavapipe, from recorded cases.
    Dawn,
}

/// What an implementation takes to be there.
pub(crate) struct Fetched {
    /// Starts programs on it.
    pub(crate) launcher: Launcher,
}

const fn on(driver: &'static Driver) -> Through {
    Through::Wgpu { driver: Some(driver), settings: &[], arguments: &[] }
}

/// All of them.
pub(crate) const IMPLEMENTATIONS: [Implementation; 8] = [
    Implementation {
        name: "lavapipe, Mesa 26.1",
        through: on(&LAVAPIPE),
        slow: false,
        with_every_change: false,
    },
    Implementation {
        name: "lavapipe, Mesa 26.1, default limits",
        through: Through::Wgpu { driver: Some(&LAVAPIPE), settings: &[], arguments: &["--default-limits"] },
        slow: false,
        with_every_change: false,
    },
    Implementation {
        name: "lavapipe, Mesa 26.1, strict WebGPU",
        through: Through::Wgpu {
            driver: Some(&LAVAPIPE),
            settings: &[("WGPU_STRICT_WEBGPU_COMPLIANCE", "1")],
            arguments: &[],
        },
        slow: false,
        with_every_change: false,
    },
    Implementation {
        name: "lavapipe, Mesa 25.0",
        through: on(&LAVAPIPE_25),
        slow: true,
        with_every_change: false,
    },
    Implementation { name: "SwiftShader", through: on(&SWIFTSHADER), slow: false, with_every_change: true },
    Implementation {
        name: "llvmpipe, OpenGL",
        through: on(&LLVMPIPE_GL),
        slow: false,
        with_every_change: true,
    },
    Implementation { name: "Dawn", through: Through::Dawn, slow: false, with_every_change: true },
    Implementation {
        name: "this machine's own driver",
        through: Through::Wgpu { driver: None, settings: &[], arguments: &[] },
        slow: false,
        with_every_change: false,
    },
];

impl Implementation {
    /// Fetches what is missing.
    pub(crate) fn fetch(&self) -> Result<Fetched> {
        let launcher = match &self.through {
            Through::Wgpu { driver: Some(driver), .. } => software::fetched(driver)?,
            Through::Wgpu { driver: None, .. } => software::launcher(Choice::System)?,
            Through::Dawn => {
                DAWN.main()?;
                match software::fetched(&LAVAPIPE) {
                    Ok(launcher) => launcher,
                    // Where it cannot be fetched, there may be a driver all the same.
                    Err(missing) => match software::launcher(Choice::System) {
                        Ok(launcher) => launcher,
                        Err(_) => bail!(missing),
                    },
                }
            }
        };
        Ok(Fetched { launcher })
    }
}
