//! The implementations of WebGPU, and what each takes to be there.

use anyhow::Result;

use crate::node::DAWN;
use crate::software::{self, Choice, Driver, LAVAPIPE, LAVAPIPE_25, LLVMPIPE_GL, Launcher, SWIFTSHADER};

/// Something that runs WGSL.
pub(crate) struct Implementation {
    /// As in the table.
    pub(crate) name: &'static str,
    pub(crate) through: Through,
    /// The cases for the table: the smaller the slower its compiler.
    pub(crate) set: Set,
    /// The cases for `cargo xtask test --long`; other runs have the tiny ones, of some implementations.
    pub(crate) quick: Option<Set>,
}

/// Which cases, as `tools/conformance/src/cases/mod.rs` has them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Set {
    /// Each kernel on a handful of elements.
    Tiny,
    /// Each kernel and each file of shaders once.
    Small,
    /// All.
    Full,
}

impl Set {
    /// As an argument.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tiny => "tiny",
            Self::Small => "small",
            Self::Full => "full",
        }
    }
}

/// How cases get there.
pub(crate) enum Through {
    /// wgpu, on a driver.
    Wgpu {
        /// A fetched one; none is this machine's own, where it has one.
        driver: Option<&'static Driver>,
        /// Variables of the environment.
        settings: &'static [(&'static str, &'static str)],
        /// More arguments of `conformance run`.
        arguments: &'static [&'static str],
    },
    /// Dawn in Node, on lavapipe, from recorded cases.
    Dawn,
}

const fn on(driver: &'static Driver) -> Through {
    Through::Wgpu { driver: Some(driver), settings: &[], arguments: &[] }
}

/// All of them.
pub(crate) const IMPLEMENTATIONS: [Implementation; 8] = [
    Implementation { name: "lavapipe, Mesa 26.1", through: on(&LAVAPIPE), set: Set::Full, quick: None },
    Implementation {
        name: "lavapipe, Mesa 26.1, default limits",
        through: Through::Wgpu { driver: Some(&LAVAPIPE), settings: &[], arguments: &["--default-limits"] },
        set: Set::Full,
        quick: None,
    },
    Implementation {
        name: "lavapipe, Mesa 26.1, strict WebGPU",
        through: Through::Wgpu {
            driver: Some(&LAVAPIPE),
            settings: &[("WGPU_STRICT_WEBGPU_COMPLIANCE", "1")],
            arguments: &[],
        },
        set: Set::Full,
        quick: Some(Set::Tiny),
    },
    Implementation { name: "lavapipe, Mesa 25.0", through: on(&LAVAPIPE_25), set: Set::Small, quick: None },
    Implementation {
        name: "SwiftShader",
        through: on(&SWIFTSHADER),
        set: Set::Full,
        quick: Some(Set::Small),
    },
    Implementation {
        name: "llvmpipe, OpenGL",
        through: on(&LLVMPIPE_GL),
        set: Set::Small,
        quick: Some(Set::Tiny),
    },
    Implementation { name: "Dawn", through: Through::Dawn, set: Set::Full, quick: Some(Set::Small) },
    Implementation {
        name: "this machine's own driver",
        through: Through::Wgpu { driver: None, settings: &[], arguments: &[] },
        set: Set::Full,
        quick: None,
    },
];

impl Implementation {
    /// Fetches what is missing; gives what starts programs on it.
    pub(crate) fn fetch(&self) -> Result<Launcher> {
        match &self.through {
            Through::Wgpu { driver: Some(driver), .. } => software::fetched(driver),
            Through::Wgpu { driver: None, .. } => software::launcher(Choice::System),
            Through::Dawn => {
                DAWN.main()?;
                // Where it cannot be fetched, there may be a driver all the same.
                software::fetched(&LAVAPIPE)
                    .or_else(|missing| software::launcher(Choice::System).map_err(|_| missing))
            }
        }
    }
}
